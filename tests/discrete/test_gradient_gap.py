"""The gradient gap's doors: what is refused and how, and extreme inputs."""

import math

import numpy as np
import pytest

from tests.helpers import unchecked
from vgrad_lab.discrete import ascent, bandit, step_size, token_step, update_scale
from vgrad_lab.discrete import gradient_gap as module
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.tolerances import ALGEBRA

RIGHT = np.array([True, False])
HALF = np.log([0.5, 0.5])


@pytest.mark.parametrize(
    ("logprob", "score", "correct", "message"),
    [
        (np.log([0.5, 0.4]), np.zeros((2, 1)), RIGHT, "sum to probability 1, got 0.9; list every response"),
        (np.log([0.5, 0.6]), np.zeros((2, 1)), RIGHT, "got 1.1"),
        (np.array([0.0, -np.inf]), np.zeros((2, 1)), RIGHT, "leave out responses of probability 0"),
        (np.array([np.nan, 0.0]), np.zeros((2, 1)), RIGHT, "must be finite"),
        (HALF, np.zeros((2, 1)), np.array([True, True]), "0 < J < 1"),
        (HALF, np.zeros((2, 1)), np.array([False, False]), "all are of one kind"),
        (HALF, np.zeros((3, 1)), RIGHT, "score must be 2 rows"),
        (HALF, np.array([[0.0], [np.inf]]), RIGHT, "rows of finite numbers"),
    ],
)
def test_what_the_gap_refuses(logprob: np.ndarray, score: np.ndarray, correct: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unchecked(module.gradient_gap)(logprob, score, correct)


@pytest.mark.parametrize("wrong", [np.array([True, False, False]), np.array([1, 0])])
def test_correct_is_one_boolean_per_response(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be 2 booleans, got shape"):
        unchecked(module.check_correct)(wrong, 2)


def test_steps_need_normalised_probabilities_on_both_sides() -> None:
    for before, after in ((HALF, HALF + 0.1), (HALF + 0.1, HALF)):
        with pytest.raises(ValueError, match="sum to probability 1"):
            module.log_odds_step(before, after, RIGHT)
    assert module.log_odds_step(HALF, np.log([0.8, 0.2]), RIGHT) == pytest.approx(math.log(4))


def test_gap_of_probabilities_far_below_rounding() -> None:
    """Log-probabilities of −700 count: nothing is exponentiated before it is compared within its class."""
    logits = np.array([0.0, -700.0, -701.0])
    gap = module.gradient_gap(module.log_conditional(logits), np.eye(3), np.array([True, False, False]))
    share = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(gap.negative, [0, share, 1 - share], rtol=1e-12)
    assert gap.log_odds == pytest.approx(700 - math.log(1 + math.exp(-1)), rel=ALGEBRA)
    assert gap.failure > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bandit.cosh_bandit(0.0), "must be positive, got 0.0"),
        (lambda: bandit.cosh_bandit(1.0, weight=-1.0), "-1.0"),
        (lambda: bandit.washboard(7.0), r"must lie in \(0, 2π\), got 7.0"),
        (lambda: bandit.steepening(-1.0), "must be positive"),
        (lambda: bandit.iid_tokens(0, 0), "at least 1 token, got 0"),
        (lambda: bandit.iid_tokens(3, 0), "all are of one kind"),
        (lambda: bandit.iid_tokens(3, 3), "all are of one kind"),
        (lambda: bandit.tabular_bandit(np.array([True])), "all are of one kind"),
        (lambda: bandit.linear_bandit(np.array([[np.nan], [0.0]]), RIGHT), "must be finite"),
        (lambda: bandit.linear_bandit(np.eye(2), RIGHT, offset=np.array([np.inf, 0.0])), "must be finite"),
        (lambda: bandit.tanh_bandit(np.eye(2), 0, RIGHT), "at least one hidden unit"),
        (lambda: bandit.logprob(bandit.cosh_bandit(), np.zeros(2)), "1 finite numbers"),
        (lambda: bandit.logprob(bandit.cosh_bandit(), np.array([np.nan])), "1 finite numbers"),
        (lambda: ascent.ascend(bandit.cosh_bandit(), np.zeros(1), ascent.gap_step(1.0), updates=0), "at least 1"),
        (lambda: token_step.tree_bandit(token_tree(2, 2), np.zeros((1, 2, 1)), np.ones(3, bool)), "of one kind"),
        (
            lambda: token_step.tree_bandit(token_tree(2, 2), np.zeros((1, 2, 1)), np.array([True, False, False])),
            r"\(N, V\) = \(2, 2\), got \(1, 2, 1\)",
        ),
    ],
)
def test_what_policies_and_runs_refuse(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_run_that_leaves_floating_point_says_so() -> None:
    with pytest.raises(FloatingPointError, match="after update 1; take smaller steps"):
        ascent.ascend(bandit.cosh_bandit(), np.ones(1), lambda gap: np.array([np.inf]), updates=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: step_size.Bounds(-1.0, 0.0), "not negative, got -1.0"),
        (lambda: step_size.Bounds(1.0, math.inf), "finite"),
        (lambda: step_size.alignment(np.ones(2), np.ones(2)), "unit vector"),
        (lambda: unchecked(step_size.alignment)(np.ones(2), np.ones(1)), "unit vector"),
        (lambda: step_size.log_odds_range(-0.1, 1.0, step_size.Bounds(1.0, 1.0)), "turn the direction round"),
        (lambda: step_size.success_floor(0.0, np.zeros(1)), r"in \(0, 1\), got 0.0"),
        (lambda: step_size.success_ceiling(0.5, np.zeros(1), share=0.6), "got 0.6"),
        (lambda: step_size.progress_limit(0.5, 1.0), "best must lie in"),
        (lambda: step_size.diameter(np.array([[np.inf]])), "finite"),
        (lambda: step_size.segment_bounds(bandit.cosh_bandit(), np.zeros(1), np.ones(1), points=1), "points = 1"),
        (
            lambda: unchecked(update_scale.update_scale)(np.array([0.5]), "grop"),
            "unknown algorithm 'grop'; choose one of gap",
        ),
        (lambda: update_scale.update_scale(np.array([1.0]), "reinforce"), "give `failure`"),
        (lambda: update_scale.update_scale(np.array([0.5]), "grpo", group_size=1), "at least 2, got 1"),
        (lambda: update_scale.update_scale(np.array([np.nan]), "grpo"), "NaN"),
        (lambda: update_scale.update_scale(np.array([0.5]), "grpo", failure=np.array([0.4])), "sum to 1"),
        (
            lambda: token_step.step_threshold(1.0, length=3, bounds=step_size.Bounds(1.0, 1.0)),
            "success must lie strictly",
        ),
        (
            lambda: token_step.step_threshold(0.0, length=3, bounds=step_size.Bounds(1.0, 1.0)),
            "success must lie strictly",
        ),
        (lambda: token_step.token_step(1.0, 0.0, length=3, bounds=step_size.Bounds(1.0, 1.0)), "above 0, got 0.0"),
        (
            lambda: token_step.random_length_step(
                1.0, 0.5, mean=3.0, conditional=2.0, bounds=step_size.Bounds(1.0, 1.0)
            ),
            "1 ≤ mean ≤ conditional < ∞, got 3.0 and 2.0",
        ),
        (lambda: token_step.failing_variance_bound(1.5, length=3, score=1.0), "above 0, got 1.5"),
        (lambda: token_step.step_threshold(0.5, length=0, bounds=step_size.Bounds(1.0, 1.0)), "at least 1 token"),
        (
            lambda: token_step.step_threshold(0.5, length=3, bounds=step_size.Bounds(1.0, 1.0), gap_norm=-1.0),
            "gap_norm must be finite",
        ),
    ],
)
def test_what_step_sizes_refuse(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_steps_without_curvature_or_alignment() -> None:
    flat = step_size.Bounds(0.0, 0.0)
    assert step_size.reported_step(1.0, flat) == math.inf
    assert step_size.largest_step(1.0, flat) == math.inf
    assert step_size.overshoot_share(flat) == 0.0
    for aligned in (0.0, -3.0):
        assert step_size.reported_step(aligned, flat) == 0.0
        assert step_size.reported_step(aligned, step_size.Bounds(1.0, 1.0)) == 0.0
        assert step_size.largest_step(aligned, step_size.Bounds(1.0, 1.0)) == 0.0
        assert token_step.token_step(aligned, 0.5, length=3, bounds=step_size.Bounds(1.0, 1.0)) == 0.0
    assert token_step.token_step(1.0, 0.5, length=3, bounds=flat) == math.inf
    still = ascent.ascend(bandit.cosh_bandit(), np.zeros(1), ascent.unit_step(1.0), updates=2)
    assert np.all(still.theta == 0)
    assert np.all(still.alignment == 0)


def test_conservative_by_two_to_thirty_two() -> None:
    """Derived monotonicity edge over reported threshold: 2 where curvature rules, 32 where the score does."""
    for bounds, factor in ((step_size.Bounds(0.0, 3.0), 2.0), (step_size.Bounds(3.0, 0.0), 32.0)):
        assert step_size.largest_step(1.0, bounds) / step_size.reported_step(1.0, bounds) == pytest.approx(factor)


def test_negative_progress_does_not_count() -> None:
    total = step_size.progress(np.array([1.0, -5.0, 2.0]), np.array([0.1, 0.1, 0.5]))
    np.testing.assert_allclose(total, [0, 0.1, 0.1, 1.1])


def test_safe_learning_rates() -> None:
    """lr ω = step_threshold for every algorithm; near J = 1 only those whose ω vanishes like 1 − J keep their rate."""
    bounds = step_size.Bounds(1.5, 0.4)
    known, unknown = (token_step.step_threshold(0.7, length=20, bounds=bounds, gap_norm=g) for g in (0.3, None))
    assert known == pytest.approx(0.3 / (2 * 20 * (0.4 + 2.25)))
    assert unknown == pytest.approx(min(known, 0.3 * math.sqrt(0.7) / (2 * 20 * 2.25)))
    assert unknown <= known
    safe = token_step.step_safety(0.7, length=20, bounds=bounds, group_size=4, ddof=0, eps=0.0)
    for name, rate in safe.items():
        omega = update_scale.update_scale(np.array([0.7]), name, group_size=4, ddof=0, eps=0.0)[0]
        assert rate * omega == pytest.approx(unknown, rel=ALGEBRA)
    far, near = (token_step.step_safety(1 - q, length=20, bounds=bounds) for q in (1e-2, 1e-8))
    for name, ratio in (("gap", 1e-6), ("population_grpo", 1e-3), ("dynamic_sampling", 1e-6)):
        assert near[name] / far[name] == pytest.approx(ratio, rel=0.1)
    for name in ("reinforce", "rloo", "group_mean", "grpo"):
        assert near[name] / far[name] == pytest.approx(1, rel=0.1)


def test_safe_rates_are_safe() -> None:
    """On T i.i.d. tokens (G_p = 2, L_p = 1) the expected step at each safe rate raises the log-odds by c‖g‖²/2."""
    for length, margin, theta in ((8, 2, 0.3), (40, 6, 0.1), (40, 30, 0.4)):
        tokens, at = bandit.iid_tokens(length, margin), np.array([theta])
        gap = ascent.gap_at(tokens, at)
        safe = token_step.step_safety(gap.success, length=length, bounds=step_size.Bounds(2.0, 1.0), ddof=0, eps=0.0)
        for name, rate in safe.items():
            move = ascent.expected_step(rate, name)(gap)
            gain = ascent.gap_at(tokens, at + move).log_odds - gap.log_odds
            assert gain >= 0.5 * float(move @ gap.gap)


def test_rates_that_underflow() -> None:
    """Success of e^{−800}: ω is 0 or its limit, and nothing is NaN."""
    zero, one = np.array([0.0]), np.array([1.0])
    for success, failure in ((zero, one), (one, zero)):
        for name in ("reinforce", "rloo", "group_mean", "grpo", "population_grpo"):
            assert update_scale.update_scale(success, name, failure=failure)[0] == pytest.approx(0, abs=1e-150)
        limit = update_scale.update_scale(success, "dynamic_sampling", failure=failure, ddof=0, eps=0.0)[0]
        assert limit == pytest.approx(math.sqrt(7) / 8, rel=1e-12)
