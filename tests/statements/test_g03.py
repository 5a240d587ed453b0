"""G03: oversized steps. Collapse with perfect alignment; what bars it; where no threshold shows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete.ascent import ascend, expected_step, gap_at, gap_step, unit_step
from vgrad_lab.discrete.bandit import cosh_bandit, linear_bandit, score, tabular_bandit, washboard
from vgrad_lab.discrete.step_size import reported_step, segment_bounds
from vgrad_lab.experiments import verify_thresholds as checks
from vgrad_lab.experiments.verify_gradient_gap import odds_at
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT

SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("slope", [0.05, 0.5, 6.2])
def test_washboard_collapses_with_perfect_alignment(slope: float) -> None:
    run = ascend(washboard(slope), np.zeros(1), unit_step(2 * math.pi), updates=40)
    np.testing.assert_allclose(run.log_odds, -slope * np.arange(41), atol=CLOSED_FORM)
    np.testing.assert_allclose(run.alignment, 1 - slope / (2 * math.pi), atol=CLOSED_FORM)  # = ‖g‖: the unit step
    assert np.all(np.diff(run.success) < 0)
    longer = ascend(washboard(slope), np.zeros(1), unit_step(2 * math.pi * (1 + PLANTED_FAULT)), updates=40)
    assert np.abs(longer.log_odds + slope * np.arange(41)).max() > 1e3 * CLOSED_FORM


def test_the_collapse_is_far_above_the_threshold() -> None:
    """ε = ½: bounds over the first step, the reported threshold and the derived edge, which still rises."""
    bandit, theta = washboard(0.5), np.zeros(1)
    bounds = segment_bounds(bandit, theta, np.array([2 * math.pi]), points=129)
    aligned = float(gap_at(bandit, theta).gap[0])
    assert (bounds.score, bounds.curvature) == pytest.approx((0.66261, 0.79751), abs=3e-4)
    assert reported_step(aligned, bounds) == pytest.approx(0.10672, abs=1e-4)
    edge = aligned / bounds.second_order
    assert edge == pytest.approx(0.9047, abs=1e-3)
    assert odds_at(bandit, np.array([edge])) > odds_at(bandit, theta) > odds_at(bandit, np.array([2 * math.pi]))


@settings(max_examples=20)
@given(SEEDS)
def test_rare_success_shortens_theta(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandit = linear_bandit(rng.normal(size=(5, 2)), np.array([True, True, False, False, False]))
    for size in (0.1, 3.0, 100.0):
        assert checks.norm_excess(bandit, size * rng.normal(size=2), float(10 ** rng.uniform(-2, 2))) <= ALGEBRA


def test_the_lemma_finds_a_fault() -> None:
    """With one wrong response ln|A⁻| = 0 and, far out, the lemma is an equality: .1 % less is violated."""
    bandit = linear_bandit(np.array([[0.0], [1.0]]), np.array([True, False]))
    excess = checks.norm_excess(bandit, np.array([100.0]), 5.0)
    assert abs(excess) < ALGEBRA
    after, bound = 95.0**2, 100.0**2 - 2 * 5 * 100.0 + 25
    assert after == bound
    assert after > bound * (1 - PLANTED_FAULT)


@pytest.mark.parametrize("seed", range(3))
def test_bounded_gap_steps_on_linear_softmax_do_not_collapse(seed: int) -> None:
    """Long constant steps along the gap: success keeps coming back above the level where θ would shrink."""
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(4, 2))
    bandit = linear_bandit(np.vstack([feature.mean(0), feature]), np.arange(5) == 0)
    for length in (3.0, 30.0):
        odds = ascend(bandit, rng.normal(size=2), unit_step(length), updates=150).log_odds
        width = max(float(np.linalg.norm(feature - x, axis=1).max()) for x in feature)
        level = -(math.log(4) + length * width / 2)
        assert odds[-50:].max() > level
        assert odds.min() < -1, "the steps are far too long, and yet J does not tend to 0"


def test_growing_steps_collapse() -> None:
    """Cosh bandit with η_k = 3|θ_k|: |θ| doubles, and J falls at every step to 0."""
    run = ascend(
        cosh_bandit(), np.array([0.1]), lambda gap: 3 * np.arctanh(np.abs(gap.gap)) * np.sign(gap.gap), updates=6
    )
    np.testing.assert_allclose(np.abs(run.theta[:, 0]), 0.1 * 2.0 ** np.arange(7), rtol=1e-9)
    expected = [0.332225, 0.328933, 0.316241, 0.272118, 0.162471, 0.039103, 0.001659]
    np.testing.assert_allclose(run.success, expected, atol=5e-7)
    np.testing.assert_allclose(run.step[:-1] / np.abs(run.theta[:-2, 0]), 3, rtol=1e-9)


def test_misaligned_steps_collapse() -> None:
    run = ascend(cosh_bandit(), np.array([0.1]), gap_step(-1.0), updates=60)
    assert np.all(np.diff(run.log_odds) < 0)
    assert run.success[-1] < 1e-10


def test_other_parameters_collapse() -> None:
    """Two responses, one parameter, bounded steps along the gap, but logits that are not linear: the washboard."""
    run = ascend(washboard(0.5), np.zeros(1), unit_step(2 * math.pi), updates=60)
    assert run.success[-1] < 1e-12


@settings(max_examples=12)
@given(SEEDS)
def test_tabular_and_two_arms_never_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 8))
    bandit, theta = tabular_bandit(checks.some_correct(rng, size)), 3 * rng.normal(size=size)
    pair = linear_bandit(rng.normal(size=(2, 3)), np.array([True, False]), offset=rng.normal(size=2))
    at, drawn = rng.normal(size=3), rng.integers(size, size=int(rng.integers(2, 9)))
    for length in (0.01, 1.0, 100.0):
        assert checks.fall(bandit, theta, length * gap_at(bandit, theta).gap) <= ALGEBRA
        assert checks.fall(pair, at, length * gap_at(pair, at).gap) <= ALGEBRA
        for standardised in (False, True):
            update = checks.group_update(bandit, theta, drawn, standardised=standardised)
            assert checks.fall(bandit, theta, length * update) <= ALGEBRA


def test_shared_features_fall() -> None:
    """Three arms on a line: the same exact step lowers J as soon as c > 2/x²."""
    bandit, theta = cosh_bandit(), np.array([0.01])
    assert checks.fall(bandit, theta, 1.9 * gap_at(bandit, theta).gap) < 0
    assert checks.fall(bandit, theta, 2.1 * gap_at(bandit, theta).gap) > 0


def test_one_sample_without_a_baseline_falls_even_when_tabular() -> None:
    """Arms of probability .05 and .90 correct, .05 wrong; the rare one is drawn: its update e₁ − p lowers J."""
    bandit, theta = tabular_bandit(np.array([True, True, False])), np.log([0.05, 0.9, 0.05])
    move = score(bandit, theta)[0]
    slope = float(move @ gap_at(bandit, theta).objective_gradient)
    assert slope == pytest.approx(0.05 * (0.05 - 0.05**2 - 0.9**2) + 0.95 * 0.05**2)
    assert checks.fall(bandit, theta, 0.1 * move) > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_separable_arms_are_learnt_at_any_multiple(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandit, margin = checks.separable(rng)
    for multiple in (0.5, 10.0, 1000.0):
        found = checks.updates_to_reach(bandit, gap_step(multiple), 3.0, most=2000)
        assert found <= checks.perceptron_bound(bandit, margin, multiple, 3.0) + 1


def test_arms_that_are_not_separable_are_not() -> None:
    """Cosh bandit: J ≤ 1/3, the log-odds never exceed ln ½."""
    assert checks.updates_to_reach(cosh_bandit(), gap_step(1.0), -0.5, most=300) == 300


def stuck_bandit() -> object:
    """Ten arms with six random features each, one of them correct: separable, yet an update of rate 100 overshoots."""
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(10, 6))
    return linear_bandit(feature, np.arange(10) == (feature @ rng.normal(size=6)).argmax())


def test_an_update_scaled_by_the_success_rate_can_get_stuck() -> None:
    """REINFORCE takes J(1−J) of the gap: an overshoot to J ≈ 0 cannot be undone; the gap itself can."""
    bandit = stuck_bandit()
    stuck = ascend(bandit, np.zeros(6), expected_step(100.0, "reinforce"), updates=60).log_odds
    free = ascend(bandit, np.zeros(6), gap_step(100.0), updates=60).log_odds
    assert stuck[-1] < -20
    assert stuck[-1] - stuck[-20] < 1e-3
    assert free[-1] > 20


def test_control_has_no_threshold_at_moderate_rates() -> None:
    """Realisable contextual bandit: ten times the rate is only faster."""
    slow, fast = (checks.control("reinforce", rate, seed=0, updates=40) for rate in (1.0, 10.0))
    assert fast[-1] > slow[-1] > 0.9
    assert fast[-1] > 0.99
    assert np.all(np.diff(slow) > -ALGEBRA)
    sampled = checks.control("grpo", 1.0, seed=0, updates=40, sampled=True)
    assert sampled[-1] > 0.9


def test_control_gets_stuck_at_large_rates_for_some_seeds() -> None:
    """At rate 100 with seed 3 one of four contexts is driven to J ≈ 0 and stays there."""
    curve = checks.control("population_grpo", 100.0, seed=3, updates=60)
    assert curve[-1] == pytest.approx(0.75, abs=1e-3)


def test_evidence() -> None:
    for check in (checks.g03_collapse, checks.g03_softmax, checks.g03_tabular, checks.g03_separable):
        assert check(seed=1, examples=4).passed
