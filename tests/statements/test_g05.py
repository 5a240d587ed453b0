"""G05: token-level steps: what length, failure rate and the tokens' bounds ask for, and what they don't."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete.ascent import gap_at
from vgrad_lab.discrete.bandit import iid_tokens
from vgrad_lab.discrete.step_size import Bounds, segment_bounds
from vgrad_lab.discrete.thresholds import measured_threshold, token_threshold
from vgrad_lab.discrete.token_step import (
    failing_variance_bound,
    random_length_step,
    token_bounds,
    token_step,
    tree_bandit,
)
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.experiments import verify_token_steps as checks
from vgrad_lab.experiments.verify_gradient_gap import draw_direction
from vgrad_lab.tolerances import PLANTED_FAULT

SEEDS = st.integers(0, 2**31)
TOKEN = Bounds(2.0, 1.0)
"""One token ±1 with logit θ: |o − tanh θ| ≤ 2, slope sech² ≤ 1."""


@settings(max_examples=20)
@given(SEEDS)
def test_steps_within_the_token_threshold_gain_half_the_first_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree, feature, correct, theta = checks.draw_tree(rng)
    bandit = tree_bandit(tree, feature, correct)
    gap = gap_at(bandit, theta)
    for noise in (0.0, 1.0):
        w = draw_direction(rng, gap.gap, noise=noise)
        step = token_step(float(gap.gap @ w), gap.failure, length=tree.horizon, bounds=token_bounds(feature))
        if step > 1e-8:
            assert checks.token_shortfall(bandit, theta, w, step) <= 0


def shortfall(length: int, margin: int, theta: float, *, told: int | None = None, bounds: Bounds = TOKEN) -> float:
    """Shortfall of the i.i.d. tokens' step along the gap for a length that is told and bounds."""
    bandit, at = iid_tokens(length, margin), np.array([theta])
    gap = gap_at(bandit, at)
    slope = float(gap.gap[0])
    step = token_step(abs(slope), gap.failure, length=length if told is None else told, bounds=bounds)
    return checks.token_shortfall(bandit, at, np.sign(gap.gap), step)


def test_bounds_of_a_token_are_attained() -> None:
    """One token of two, features −1.2 and .7: G_p is their distance, L_p a quarter of its square."""
    tree = token_tree(2, 1, end=None)
    feature = np.array([[[-1.2], [0.7]]])
    bandit, most = tree_bandit(tree, feature, np.array([True, False])), token_bounds(feature)
    assert segment_bounds(bandit, np.zeros(1), np.zeros(1)).curvature == pytest.approx(most.curvature, rel=1e-12)
    assert segment_bounds(bandit, np.array([30.0]), np.zeros(1)).score == pytest.approx(most.score, rel=1e-12)
    wider = np.concatenate([feature, 2 * feature])
    assert token_bounds(wider) == Bounds(2 * most.score, 4 * most.curvature), "the widest prefix counts"


@pytest.mark.parametrize("length", [16, 64])
def test_bounds_that_are_too_small_break_it(length: int) -> None:
    assert shortfall(length, 0, 0.001) <= 0
    assert shortfall(length, 0, 0.001, bounds=Bounds(0.2, 0.01)) > 1


@pytest.mark.parametrize("length", [64, 128])
def test_answers_longer_than_told_break_it(length: int) -> None:
    assert shortfall(length, 0, 0.001) <= 0
    assert shortfall(length, 0, 0.001, told=length // 64) > 1


@settings(max_examples=15)
@given(SEEDS)
def test_mean_lengths_are_enough(seed: int) -> None:
    assert checks.random_length_shortfall(np.random.default_rng(seed)) <= 0


def test_mean_lengths_that_are_too_short_break_it() -> None:
    bandit, at = iid_tokens(64, 0), np.array([0.001])
    gap = gap_at(bandit, at)
    slope, w = abs(float(gap.gap[0])), np.sign(gap.gap)
    for told, holds in ((64.0, True), (1.0, False)):
        step = random_length_step(slope, gap.failure, mean=told, conditional=told, bounds=TOKEN)
        assert (checks.token_shortfall(bandit, at, w, step) <= 0) is holds


def test_steps_by_mean_lengths_are_longer() -> None:
    """Equal lengths give the same step; a mean below the longest gives a longer one."""
    full = token_step(2.0, 0.3, length=20, bounds=TOKEN)
    assert random_length_step(2.0, 0.3, mean=20.0, conditional=20.0, bounds=TOKEN) == full
    shorter = random_length_step(2.0, 0.3, mean=5.0, conditional=10.0, bounds=TOKEN)
    assert shorter == pytest.approx(min(0.3 * 2 / (2 * (10 + 5 * 4)), math.sqrt(0.3) / (2 * math.sqrt(5) * 2)))
    assert shorter > 3 * full


@settings(max_examples=15)
@given(SEEDS)
def test_scores_of_tokens_are_orthogonal(seed: int) -> None:
    assert checks.g05_length(seed=seed, examples=1).passed


def test_orthogonality_is_checked_to_the_last_digits() -> None:
    """T fair tokens: E s² = T exactly, not T²; a planted .1 % is seen."""
    for length in (3, 50):
        bandit = iid_tokens(length, 1)
        total, p = bandit.jacobian(np.zeros(1))[:, 0], np.exp(bandit.logits(np.zeros(1)))
        second = float(p @ total**2 / p.sum())
        assert second == pytest.approx(length, rel=1e-12)
        assert second != pytest.approx(length * (1 + PLANTED_FAULT), rel=1e-12)


@settings(max_examples=20)
@given(st.integers(2, 300), st.integers(0, 300), st.floats(-0.2, 0.2))
def test_variance_of_wrong_answers(length: int, margin: int, theta: float) -> None:
    bandit = iid_tokens(length, 1 + margin % (length - 1))
    failure = gap_at(bandit, np.array([theta])).failure
    if failure > 1e-250:
        found = checks.failing_variance(bandit, np.array([theta]), np.ones(1))
        assert found <= failing_variance_bound(failure, length=length, score=2.0)


def test_the_logarithm_is_the_smaller_bound_near_success() -> None:
    for failure in (1e-3, 1e-9, 1e-200):
        bound = failing_variance_bound(failure, length=10, score=1.0)
        assert bound == pytest.approx(20 * (1 + math.log(2 / failure)))
        assert bound < 10 / failure
    assert failing_variance_bound(0.9, length=10, score=1.0) == pytest.approx(10 / 0.9)


@pytest.mark.parametrize(
    ("margin", "success", "multiple", "scaled", "logarithmic"),
    [
        (0, 0.0993, 0.028145, 2.00, 3.24),
        (8, 0.7396, 0.012602, 3.10, 2.45),
        (16, 0.9672, 0.005717, 11.17, 1.87),
        (24, 0.9984, 0.002934, 120.16, 1.53),
    ],
)
def test_table_of_sixty_four_tokens(
    margin: int, success: float, multiple: float, scaled: float, logarithmic: float
) -> None:
    """c*, c*T/(1−J) and c*T(1 + ln(2/(1−J))): the second grows by 60, the third shrinks by 2."""
    critical, failure = token_threshold(64, margin), checks.token_failure(64, margin)
    assert 1 - failure == pytest.approx(success, abs=5e-5)
    assert critical == pytest.approx(multiple, abs=5e-7)
    assert critical * 64 / failure == pytest.approx(scaled, abs=5e-3)
    assert critical * 64 * (1 + math.log(2 / failure)) == pytest.approx(logarithmic, abs=5e-3)


@pytest.mark.parametrize(("length", "margin"), [(2, 0), (3, 1), (16, 4), (64, 24), (128, 0), (128, 40)])
def test_threshold_by_bisection(length: int, margin: int) -> None:
    closed = token_threshold(length, margin)
    found = measured_threshold(iid_tokens(length, margin), start=3e-5, low=closed / 3, high=3 * closed)
    assert found == pytest.approx(closed, rel=2e-6)
    assert abs(found / closed / (1 + PLANTED_FAULT) - 1) > 2e-6
    if margin == 0:
        assert closed == pytest.approx(2 * checks.token_failure(length, 0) / length, rel=1e-12)


def test_threshold_falls_like_one_over_the_length() -> None:
    lengths = np.array([4, 8, 16, 32, 64, 128])
    scaled = [token_threshold(int(n), 0) / checks.token_failure(int(n), 0) for n in lengths]
    slope = np.polyfit(np.log(lengths), np.log(scaled), 1)[0]
    assert slope == pytest.approx(-1, abs=1e-9)


def test_a_threshold_in_proportion_to_the_failure_rate_is_refuted() -> None:
    case = checks.g05_linear()
    assert case.refutes
    assert case.true / case.claimed == pytest.approx(60.08, abs=0.01)


def test_evidence() -> None:
    for check in (checks.g05_tokens, checks.g05_random, checks.g05_length, checks.g05_azuma):
        assert check(seed=1, examples=5).passed
