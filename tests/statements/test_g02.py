"""G02: step bounds of the log-odds; the reported Theorem 1, its assumptions one by one, its converse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete.ascent import ascend, gap_at, unit_step
from vgrad_lab.discrete.bandit import Bandit, cosh_bandit, tabular_bandit, washboard
from vgrad_lab.discrete.step_size import (
    Bounds,
    linear_bounds,
    log_odds_range,
    overshoot_share,
    progress,
    progress_limit,
    reported_step,
    segment_bounds,
    success_ceiling,
    success_floor,
)
from vgrad_lab.experiments import verify_gradient_gap as checks
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT

SEEDS = st.integers(0, 2**31)
kinds = pytest.mark.parametrize("kind", range(len(checks.FAMILIES)), ids=["linear", "network", "tree", "shaped"])


@kinds
@settings(max_examples=3)
@given(seed=SEEDS)
def test_two_sided_bound(kind: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandit, theta = checks.draw_case(rng, kind=kind)
    w = checks.draw_direction(rng, gap_at(bandit, theta).gap, noise=float(10 ** rng.uniform(-2, 2)))
    for step in (0.1, 3.0):
        assert checks.bound_excess(bandit, theta, w, step) <= 0


def valley(curvature: float) -> Bandit:
    """Two responses with log-odds cθ²: at θ = 0 no score, J = ½, curvature 2c = 2 L_o."""
    return Bandit(
        correct=np.array([True, False]),
        size=1,
        logits=lambda theta: np.array([curvature * theta[0] ** 2, 0.0]),
        jacobian=lambda theta: np.array([[2 * curvature * theta[0]], [0.0]]),
        curvature=lambda theta: np.array([[[2 * curvature]], [[0.0]]]),
    )


@pytest.mark.parametrize(
    ("bandit", "scored"),
    [(cosh_bandit(1.7, weight=1e9), True), (valley(0.8), False), (valley(-0.8), False)],
    ids=["score", "up", "down"],
)
def test_neither_coefficient_can_be_lowered(bandit: Bandit, scored: bool) -> None:
    """In one limit all of the bound is G_o²/2, in the other all of it is L_o, and it is attained from both sides."""
    theta, w, step = np.zeros(1), np.ones(1), 1e-3
    bounds = segment_bounds(bandit, theta, step * w)
    large, small = (bounds.score**2 / 2, bounds.curvature) if scored else (bounds.curvature, bounds.score**2 / 2)
    assert small < 1e-4 * large
    excess = checks.bound_excess(bandit, theta, w, step)
    assert -1e-4 < excess <= 0
    assert (1 + excess) / (1 - PLANTED_FAULT) > 1, "a bound lower by .1 % is violated"


@kinds
@settings(max_examples=3)
@given(seed=SEEDS)
def test_reported_theorem_and_its_converse(kind: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run = checks.lawful_run(*checks.draw_case(rng, kind=kind), rng, updates=2)
    below, above = checks.theorem_excess(run)
    assert below <= CLOSED_FORM
    assert above <= CLOSED_FORM
    rounding = ALGEBRA * (1 + np.abs(run.log_odds).max())
    assert np.diff(run.log_odds).min() >= -rounding
    assert run.share.max() <= 0.5
    gain, first_order = np.diff(run.log_odds), run.step * run.alignment
    assert np.all(np.abs(gain - first_order) <= run.share * first_order + rounding)


def test_the_curves_of_the_theorem() -> None:
    """Floor and ceiling are the logistic function of logit J₀ + M/2 and + (1+ρ)M; a planted fault is seen."""
    total = np.array([0.0, 0.5, 2.0, 40.0])
    for success in (1e-6, 0.3, 0.999):
        logit = math.log(success / (1 - success))
        np.testing.assert_allclose(success_floor(success, total), 1 / (1 + np.exp(-logit - total / 2)), rtol=ALGEBRA)
        ceiling = success_ceiling(success, total, share=0.25)
        np.testing.assert_allclose(ceiling, 1 / (1 + np.exp(-logit - 1.25 * total)), rtol=ALGEBRA)
    assert abs(success_floor(0.3, total * (1 + PLANTED_FAULT)) / success_floor(0.3, total) - 1).max() > 1e-5


def fall_of(bandit: Bandit, theta: float, w: float, step: float) -> tuple[float, float]:
    """Success after a move η·w, and the reported floor for M = ηΔμ."""
    at = np.array([theta])
    gap = gap_at(bandit, at)
    after = gap_at(bandit, at + step * w)
    return after.success, float(success_floor(gap.success, np.array([step * abs(float(gap.gap[0])) * abs(w)]))[0])


def test_bounds_at_the_start_alone_are_not_enough() -> None:
    """Where the washboard is nearly flat, score and curvature at θ allow a step that leaves the plateau, and falls."""
    bandit, theta = washboard(6.25), np.zeros(1)
    local = segment_bounds(bandit, theta, np.zeros(1))
    step = reported_step(float(gap_at(bandit, theta).gap[0]), local)
    assert step > 10
    reached, floor = fall_of(bandit, 0.0, 1.0, step)
    assert reached < floor - 0.4
    whole = segment_bounds(bandit, theta, np.array([step]))
    reached, floor = fall_of(bandit, 0.0, 1.0, reported_step(float(gap_at(bandit, theta).gap[0]), whole))
    assert reached >= floor


def test_a_direction_that_is_not_of_norm_one_breaks_it() -> None:
    """‖w‖ = 20 multiplies Δμ, the threshold, and so the move by 400."""
    bandit, theta = cosh_bandit(), 0.3
    bounds, slope = linear_bounds(bandit.jacobian(np.zeros(1))), float(gap_at(bandit, np.array([theta])).gap[0])
    for norm, holds in ((1.0, True), (20.0, False)):
        w = norm * np.sign(slope)
        reached, floor = fall_of(bandit, theta, w, reported_step(slope * w, bounds))
        assert (reached >= floor) is holds


def test_a_step_above_the_threshold_breaks_it() -> None:
    """Ten times the threshold falls below the floor where curvature is all score (the constant has that much room)."""
    bandit, theta = cosh_bandit(1.0, weight=1e9), np.array([0.05])
    slope = float(gap_at(bandit, theta).gap[0])
    for times, holds in ((1.0, True), (10.0, True), (40.0, False)):
        step = times * reported_step(abs(slope), segment_bounds(bandit, theta, np.array([-2.0])))
        reached, floor = fall_of(bandit, 0.05, -1.0, step)
        assert (reached >= floor) is holds


def test_a_step_above_the_threshold_may_exceed_the_ceiling() -> None:
    """Up a convex slope a long step gains more than (1+ρ)ηΔμ."""
    bandit, theta = washboard(0.5), np.array([4.9])
    gap = gap_at(bandit, theta)
    slope = float(gap.gap[0])
    bounds = segment_bounds(bandit, theta, np.array([2.0]))
    for step, holds in ((reported_step(slope, bounds), True), (2.0, False)):
        total = progress(np.array([slope]), np.array([step]))
        ceiling = success_ceiling(gap.success, total, share=overshoot_share(bounds))[1]
        assert bool(gap_at(bandit, theta + step).success <= ceiling) is holds


def test_a_plateau_bounds_the_progress() -> None:
    """Cosh bandit, J ≤ 1/3: at the reported threshold M stops short of 2(logit J* − logit J₀)."""
    bandit, theta = cosh_bandit(), np.array([2.0])
    bounds = linear_bounds(bandit.jacobian(theta))
    run = ascend(bandit, theta, lambda gap: gap.gap / bounds.reported, updates=250)
    total = progress(run.alignment, run.step)
    assert np.all(np.diff(run.log_odds) >= 0)
    limit = progress_limit(float(run.success[0]), 1 / 3)
    assert run.success[-1] == pytest.approx(1 / 3, abs=1e-3)
    assert total[-1] < limit
    assert total[-1] > 0.5 * limit * (1 - overshoot_share(bounds))


@settings(max_examples=20)
@given(SEEDS)
def test_tabular_gap_is_bounded_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    correct = checks.some_correct(rng, int(rng.integers(2, 12)))
    least = 1 / correct.sum() + 1 / (~correct).sum()
    for scale in (0.0, 1.0, 30.0):
        gap = gap_at(tabular_bandit(correct), scale * rng.normal(size=len(correct))).gap
        assert float(gap @ gap) >= least * (1 - ALGEBRA)
        if scale == 0:
            assert float(gap @ gap) == pytest.approx(least, rel=1e-12)
            assert float(gap @ gap) < least * (1 + PLANTED_FAULT)


def test_tabular_progress_diverges_though_the_gradients_can_be_summed() -> None:
    correct = np.array([True, True, False, False, False])
    bounds = Bounds(math.sqrt(2), 0.5)
    run = ascend(tabular_bandit(correct), np.zeros(5), lambda gap: gap.gap / bounds.reported, updates=500)
    total = progress(run.alignment, run.step)
    assert np.all(np.diff(total) > 0.8 / bounds.reported)
    success = run.success
    squares = (success[:-1] * (1 - success[:-1]) * run.alignment) ** 2
    assert total[-1] > 12
    assert squares[250:].sum() < 1e-2 * squares.sum()
    assert success[-1] > 1 - 1e-4


def test_evidence() -> None:
    for check in (checks.g02_bound, checks.g02_theorem, checks.g02_converse, checks.g02_tabular):
        assert check(seed=1, examples=2).passed


def test_the_range_of_a_step() -> None:
    low, high = log_odds_range(0.5, 2.0, Bounds(1.0, 0.25))
    assert (low, high) == (1 - 0.25 * 0.75, 1 + 0.25 * 0.75)
    run = ascend(cosh_bandit(), np.array([1.0]), unit_step(0.1), updates=2)
    assert run.step == pytest.approx([0.1, 0.1])
    assert run.alignment == pytest.approx([math.tanh(1.0), math.tanh(0.9)])
