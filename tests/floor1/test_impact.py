"""Impact: weights, small cases by hand, defaults, the forecast's edges, refusals in full."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers import unchecked, whole
from vgrad_lab import impact
from vgrad_lab.tolerances import ALGEBRA

GRADIENT, COSTATE = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[3.0, 5.0], [1.0, 2.0]])
WEIGHT = np.array([0.25, 0.75])
FORECAST = {"reward_before": 0.3, "gradient": 1.0, "learning_rate": 1e-4, "group_size": 8, "updates": 2}


def test_weights_count_in_every_reading() -> None:
    """‖G‖ = 5, 2; ‖û − G‖ = 1, 1; ⟨û, G⟩ = 29, 4."""
    for reading, values in (
        (lambda w: impact.signal(GRADIENT, weight=w), (25, 4)),
        (lambda w: impact.costate_gap(GRADIENT, COSTATE, weight=w), (5, 2)),
        (lambda w: impact.alignment(GRADIENT, COSTATE, weight=w), (29, 4)),
    ):
        assert reading(None) == pytest.approx(sum(values) / 2, rel=ALGEBRA)
        assert reading(WEIGHT) == pytest.approx(WEIGHT @ values, rel=ALGEBRA)
    reward = np.array([0.0, 1.0])
    expected = math.log(0.25 + 0.75 * math.e**2) / 2 - 0.75
    assert impact.headroom(reward, 2.0, weight=WEIGHT) == pytest.approx(expected, rel=ALGEBRA)


def test_an_atom_without_weight_counts_for_nothing() -> None:
    weight = np.array([0.0, 1.0])
    assert impact.signal(GRADIENT, weight=weight) == 4.0
    assert abs(impact.headroom(np.array([1e6, 1.0]), 2.0, weight=weight)) <= ALGEBRA


def test_the_score_is_usable_signal_times_headroom() -> None:
    assert impact.impact_score(5.0, 2.0, 0.5) == 1.5
    assert impact.impact_score(2.0, 5.0, 0.5) == -1.5


def test_headroom_of_a_binary_reward_at_steep_and_flat_ends() -> None:
    """At α = 700 e^α overflows no float yet its square does: H = 1 + ln(p)/α − p while p e^α is large."""
    success = np.array([0.0, 1e-200, 0.25, 1.0])
    expected = np.array([0.0, 1 + math.log(1e-200) / 700, 0.75 + math.log(0.25) / 700, 0.0])
    np.testing.assert_allclose(impact.headroom_bernoulli(success, 700.0), expected, rtol=1e-9, atol=ALGEBRA)
    balanced = np.array([math.exp(-600.0)])
    assert impact.headroom_bernoulli(balanced, 600.0)[0] == pytest.approx(math.log(2) / 600, rel=1e-9)
    at_limit, beyond = (impact.headroom_bernoulli(np.array([0.25]), a)[0] for a in (500.0, 500.0 * (1 + 1e-12)))
    assert at_limit == pytest.approx(beyond, rel=1e-9)


def test_binary_advantages_by_hand() -> None:
    """Two samples: alone right or wrong is ±1/2 over (1/√2 + ε), equal samples get zero; leave-one-out gives ±1."""
    edge = 0.5 / (math.sqrt(0.5) + 1e-4)
    success, failure = impact.binary_advantages(2)
    np.testing.assert_allclose(success, [edge, 0], rtol=ALGEBRA)
    np.testing.assert_allclose(failure, [0, -edge], rtol=ALGEBRA)
    success, failure = impact.binary_advantages(3, "leave_one_out")
    np.testing.assert_allclose(success, [1, 0.5, 0], rtol=ALGEBRA)
    np.testing.assert_allclose(failure, [0, -0.5, -1], rtol=ALGEBRA)


def test_scale_by_default_is_that_of_trl() -> None:
    """Two samples, standardised with ddof = 1 and ε = 1e-4: κ = E[Â(1, k+1) − Â(0, k)] = edge for every p."""
    edge = 0.5 / (math.sqrt(0.5) + 1e-4)
    np.testing.assert_allclose(impact.grpo_scale(np.array([0.1, 0.5]), 2), edge, rtol=ALGEBRA)
    wide = 0.5 / (math.sqrt(0.5) + 0.5)
    np.testing.assert_allclose(impact.grpo_scale(np.array([0.1]), 2, eps=0.5), wide, rtol=ALGEBRA)
    flat = 0.5 / (0.5 + 0.5)
    np.testing.assert_allclose(impact.grpo_scale(np.array([0.1]), 2, ddof=0, eps=0.5), flat, rtol=ALGEBRA)


def test_sgd_forecast_by_hand() -> None:
    """p_1 = p + mηκ‖∇J‖², ddof and ε in κ; the next step carries the ratio of spreads squared; never above one."""
    say = {"optimizer": "sgd", "learning_rate": 0.1, "group_size": 2, "constant": 1.0, "ddof": 0, "eps": 0.5}
    curve = impact.forecast(0.5, 0.2, updates=2, **say)
    first = 0.5 + 0.1 * 0.5 * 0.2
    second = first + 0.1 * 0.5 * 0.2 * (first * (1 - first) / 0.25) ** 2
    np.testing.assert_allclose(curve, [0.5, first, second], rtol=ALGEBRA)
    assert impact.forecast(0.5, 1e6, updates=2, **say).tolist() == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_update_or_no_gradient_leaves_the_reward(optimizer: str) -> None:
    unmoved = impact.forecast(**FORECAST | {"gradient": 0.0}, optimizer=optimizer)
    np.testing.assert_allclose(unmoved, [0.3, 0.3, 0.3], rtol=ALGEBRA)
    np.testing.assert_allclose(impact.forecast(**FORECAST | {"updates": 0}, optimizer=optimizer), [0.3], rtol=ALGEBRA)


WEIGHTS = "weight must be 2 non-negative numbers that sum to 1, got shape "
NORM, PROBABILITY = "gradient must be a finite non-negative norm, got ", "success probabilities must lie in [0, 1] "
UNIT = "reward_before must lie in (0, 1), got {}: nothing to learn, or nothing sampled"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unchecked(impact._weights)(2, np.full(4, 0.25)), f"{WEIGHTS}(4,)"),
        (lambda: impact.signal(GRADIENT, weight=np.array([1.5, -0.5])), f"{WEIGHTS}(2,)"),
        (lambda: impact.signal(GRADIENT, weight=np.array([0.5, 0.5 + 1e-8])), f"{WEIGHTS}(2,)"),
        (lambda: impact.headroom(np.ones(2), 0.0), "alpha must be positive, got 0.0"),
        (lambda: impact.headroom_bernoulli(np.ones(2), 0.0), "alpha must be positive, got 0.0"),
        (lambda: impact.headroom_bernoulli(np.ones(2), -1.0), "alpha must be positive, got -1.0"),
        (lambda: impact.headroom_bernoulli(np.array([1.1]), 1.0), f"{PROBABILITY}(NaN does not)"),
        (lambda: impact.others_weight(np.array([np.nan]), 4), f"{PROBABILITY}(NaN does not)"),
        (lambda: impact.grpo_scale(np.array([-0.1]), 4), f"{PROBABILITY}(NaN does not)"),
        (lambda: impact.binary_advantages(1), "group_size must be at least 2, got 1"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward_before": 0.0}, UNIT.format(0.0)),
        ({"reward_before": 1.0}, UNIT.format(1.0)),
        ({"reward_before": 1.5}, UNIT.format(1.5)),
        ({"gradient": -1.0}, f"{NORM}-1.0"),
        ({"gradient": math.inf}, f"{NORM}inf"),
        ({"updates": -1}, "updates must not be negative, got -1"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; choose one of adamw, sgd"),
    ],
)
def test_refusals_of_the_forecast(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        unchecked(impact.forecast)(**{**FORECAST, "optimizer": "adamw", **change})
