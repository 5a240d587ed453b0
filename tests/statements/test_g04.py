"""G04: linear softmax policies: the cumulant form of a finite step, the constant D²/8 and where it is sharp."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete.ascent import ascend, gap_at, gap_step, unit_step
from vgrad_lab.discrete.bandit import cosh_bandit, linear_bandit, washboard
from vgrad_lab.discrete.step_size import diameter, linear_bounds, segment_bounds
from vgrad_lab.discrete.thresholds import bisect, cosh_cycle, cosh_threshold, measured_threshold, rises
from vgrad_lab.experiments import verify_thresholds as checks
from vgrad_lab.experiments.verify_gradient_gap import draw_case, odds_at
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT, QUADRATURE

SEEDS = st.integers(0, 2**31)


@settings(max_examples=25)
@given(SEEDS)
def test_cumulant_form_and_bound(seed: int) -> None:
    form, excess, curved = checks.linear_step(np.random.default_rng(seed))
    assert form <= ALGEBRA
    assert excess <= ALGEBRA
    assert curved <= ALGEBRA


@settings(max_examples=25)
@given(SEEDS)
def test_a_gap_step_below_eight_over_the_square_of_the_diameter_rises(seed: int) -> None:
    bandit, theta = draw_case(np.random.default_rng(seed), kind=0)
    most = 8 / diameter(bandit.jacobian(theta)) ** 2
    for share in (0.01, 0.5, 1.0):
        assert checks.fall(bandit, theta, share * most * gap_at(bandit, theta).gap) <= ALGEBRA


def test_bounds_of_a_linear_softmax_hold_everywhere() -> None:
    bandit, theta = draw_case(np.random.default_rng(3), kind=0)
    most, found = linear_bounds(bandit.jacobian(theta)), segment_bounds(bandit, theta, np.full(bandit.size, 5.0))
    assert found.score <= most.score
    assert found.curvature <= most.curvature


def test_bounds_of_a_linear_softmax_are_attained() -> None:
    """Two arms D apart: curvature D²/4 where they are equally likely, a score of D where one is nearly certain."""
    bandit = linear_bandit(np.array([[-1.2], [0.7]]), np.array([True, False]))
    most = linear_bounds(bandit.jacobian(np.zeros(1)))
    assert segment_bounds(bandit, np.zeros(1), np.zeros(1)).curvature == pytest.approx(most.curvature, rel=ALGEBRA)
    assert segment_bounds(bandit, np.array([30.0]), np.zeros(1)).score == pytest.approx(most.score, rel=ALGEBRA)


def test_logits_that_are_not_linear_break_the_bound() -> None:
    """Washboard: over a whole period the change leaves the ±η²D²/8 of the features ∂z at the start."""
    bandit, theta, u = washboard(), np.zeros(1), np.array([2 * math.pi])
    change = odds_at(bandit, theta + u) - odds_at(bandit, theta)
    off = abs(change - float(u @ gap_at(bandit, theta).gap))
    assert off > 1.2 * float(u @ u) * diameter(bandit.jacobian(theta)) ** 2 / 8


@pytest.mark.parametrize(("x", "weight"), [(0.3, 1.0), (1.0, 1.0), (1.7, 9.0), (4.0, 0.1)])
def test_threshold_by_bisection(x: float, weight: float) -> None:
    """The closed form at every start: c(θ) = 2θ/(x tanh xθ), which tends to 2/x² = 8/D² from above."""
    bandit, most = cosh_bandit(x, weight=weight), cosh_threshold(x)
    assert most == pytest.approx(8 / diameter(bandit.jacobian(np.zeros(1))) ** 2, rel=ALGEBRA)
    for y in (0.03, 1.0, 3.0):
        found = measured_threshold(bandit, start=y / x, low=most / 2, high=10 * most)
        assert found == pytest.approx(2 * y / (x**2 * math.tanh(y)), rel=QUADRATURE if y >= 1 else 1e-6)
        assert found > most
        assert abs(found / (2 * y / (x**2 * math.tanh(y))) - 1) < PLANTED_FAULT / 2


@pytest.mark.parametrize(
    ("multiple", "place", "success"),
    [(2.1, 0.389241, 0.317115), (3.0, 1.287839, 0.204048), (6.0, 2.984705, 0.048005)],
)
def test_above_the_threshold_a_cycle_attracts(multiple: float, place: float, success: float) -> None:
    assert cosh_cycle(multiple) == pytest.approx(place, abs=1e-6)
    on = ascend(cosh_bandit(), np.array([cosh_cycle(multiple)]), gap_step(multiple), updates=4)
    np.testing.assert_allclose(on.theta[:, 0], cosh_cycle(multiple) * np.array([1, -1, 1, -1, 1]), rtol=1e-12)
    np.testing.assert_allclose(on.success, success, atol=1e-6)
    run = ascend(cosh_bandit(), np.array([0.2]), gap_step(multiple), updates=80)
    assert abs(run.theta[-1, 0]) == pytest.approx(place, abs=5e-3)


def test_below_the_threshold_it_converges() -> None:
    run = ascend(cosh_bandit(), np.array([2.0]), gap_step(1.9), updates=150)
    assert run.success[-1] == pytest.approx(1 / 3, abs=CLOSED_FORM)
    assert np.all(np.diff(run.log_odds) >= -1e-15)


@pytest.mark.parametrize("start", [0.01, 0.4, -2.0])
def test_a_unit_step_falls_from_twice_the_distance_on(start: float) -> None:
    found = bisect(lambda eta: rises(cosh_bandit(), start, unit_step, eta), 0.1 * abs(start), 10 * abs(start))
    assert found == pytest.approx(2 * abs(start), rel=1e-7)


def test_evidence() -> None:
    assert checks.g04_linear(seed=1, examples=5).passed
    assert checks.g04_sharp(seed=1, examples=10).passed
