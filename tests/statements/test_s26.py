"""S26: the product S·H against the first-order gain and the forecast."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.impact import FORECAST_CONSTANT, forecast, grpo_scale
from vgrad_lab.one_step import one_step, softmax
from vgrad_lab.ray import adam_step


def test_score_is_gauge_dependent_and_anticorrelated() -> None:
    case = checks.s26_counterexample()
    assert case.refutes
    assert case.true == pytest.approx(-0.998, abs=2e-3)


@given(st.integers(0, 2**31))
def test_first_order_gain(seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(1, 4))
    m = one_step(np.eye(4), z, np.array([0]), group_size=8)
    after = softmax(z + 1e-6 * m.scale[:, None] * m.value_gradient)[0, 0]
    assert (after - m.success[0]) / 1e-6 == pytest.approx(m.alignment[0], rel=1e-4)


def test_large_steps_leave_the_first_order() -> None:
    z = np.zeros((1, 4))
    m = one_step(np.eye(4), z, np.array([0]), group_size=8)
    after = softmax(z + 50 * m.scale[:, None] * m.value_gradient)[0, 0]
    assert abs((after - m.success[0]) / 50 - m.alignment[0]) > 0.5 * m.alignment[0]


def test_forecast_follows_the_flow() -> None:
    """With the toy's own gradient and m = 1, many small SGD forecasts trace the ODE dp/ds = κ c (p(1−p))²."""
    p0, steps, time, vocabulary = 0.2, 4000, 2.0, 4
    c = vocabulary / (vocabulary - 1)
    gradient = c * (p0 * (1 - p0)) ** 2
    curve = forecast(
        p0,
        gradient,
        optimizer="sgd",
        learning_rate=time / steps,
        group_size=8,
        updates=steps,
        constant=1.0,
        ddof=0,
        eps=0.0,
    )
    gain = checks.free_logit_gain(np.array([p0]), 8, vocabulary, time)[0]
    assert curve[-1] - p0 == pytest.approx(gain, rel=2e-3)


def test_adam_moves_by_the_damped_sign() -> None:
    for seed in range(20):
        assert checks.s26_adam(seed=seed).passed
    assert abs(checks.adam_travel(checks.alternating(np.array([1.0]), np.array([1.0]), 4000))[0] - 0.5**0.5) < 1e-2


def test_a_short_memory_breaks_the_damped_sign() -> None:
    mean, spread = np.array([0.2]), np.array([2.0])
    found = checks.adam_travel(np.where(np.arange(4000)[:, None] % 10 == 0, 1.0, 0.0) * np.ones(1), beta2=0.5)
    assert abs(found[0] - adam_step(np.array([0.1]), np.array([0.09]))[0]) > 0.1
    assert abs(checks.adam_travel(checks.alternating(mean, spread, 4000))[0] - adam_step(mean, spread**2)[0]) < 1e-2


def test_a_changing_gradient_breaks_the_damped_sign() -> None:
    fading = np.geomspace(1.0, 1e-3, 400)[:, None]
    assert checks.adam_travel(fading)[0] < 0.8
    assert adam_step(np.ones(1), np.zeros(1))[0] == 1.0


def test_forecast_shapes_and_constants() -> None:
    curve = forecast(0.25, 300.0, optimizer="adamw", learning_rate=1e-4, group_size=8, updates=30)
    assert curve.shape == (31,)
    assert curve[0] == pytest.approx(0.25)
    assert np.all(np.diff(curve) > 0)
    assert curve[-1] < 1
    slope = np.log(curve[1] / (1 - curve[1])) - np.log(curve[0] / (1 - curve[0]))
    assert slope == pytest.approx(FORECAST_CONSTANT["adamw"] * 1e-4 * 300 / (0.25 * 0.75), rel=1e-9)
    step = forecast(0.25, 2.0, optimizer="sgd", learning_rate=1e-2, group_size=8, updates=1)
    scale = grpo_scale(np.array([0.25]), 8)[0]
    assert step[1] - 0.25 == pytest.approx(FORECAST_CONSTANT["sgd"] * 1e-2 * scale * 2.0, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward_before": 0.0}, "reward_before"),
        ({"reward_before": float("nan")}, "reward_before"),
        ({"gradient": -1.0}, "gradient"),
        ({"gradient": float("inf")}, "gradient"),
        ({"updates": -1}, "updates"),
        ({"optimizer": "lion"}, "unknown optimizer"),
        ({"group_size": 1, "optimizer": "sgd"}, "group_size"),
    ],
)
def test_forecast_refuses_bad_input(change: dict[str, float], message: str) -> None:
    good = {"reward_before": 0.3, "gradient": 1.0, "optimizer": "adamw"}
    good |= {"learning_rate": 1e-4, "group_size": 8, "updates": 2}
    with pytest.raises(ValueError, match=message):
        unchecked(forecast)(**{**good, **change})


def test_evidence_passes() -> None:
    assert checks.s26_first_order(examples=3).passed
