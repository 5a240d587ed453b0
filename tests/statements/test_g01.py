"""G01: the gradient gap is the gradient of the log-odds; second derivative, finite steps, information bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete.ascent import gap_at
from vgrad_lab.discrete.bandit import linear_bandit, logprob, score, tabular_bandit
from vgrad_lab.discrete.gradient_gap import GradientGap, gradient_gap, log_odds, log_odds_step
from vgrad_lab.discrete.token_step import tree_bandit
from vgrad_lab.discrete.token_tree import linear_logits, objective_gradient, pull_back
from vgrad_lab.experiments import verify_gradient_gap as checks
from vgrad_lab.experiments.verify_token_steps import draw_tree
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE
from vgrad_lab.verify import taylor_rates

SEEDS = st.integers(0, 2**31)
few = settings(max_examples=15)
kinds = pytest.mark.parametrize("kind", range(len(checks.FAMILIES)), ids=["linear", "network", "tree", "shaped"])


@kinds
@settings(max_examples=5)
@given(seed=SEEDS)
def test_identity(kind: int, seed: int) -> None:
    bandit, theta = checks.draw_case(np.random.default_rng(seed), kind=kind)
    gap = gap_at(bandit, theta)
    assert checks.gap_errors(bandit, theta, gap).max() <= ALGEBRA


def test_the_identity_finds_a_fault() -> None:
    bandit, theta = checks.draw_case(np.random.default_rng(0), kind=0)
    gap = gap_at(bandit, theta)
    for positive, negative in ((1 + PLANTED_FAULT, 1.0), (1.0, 1 + PLANTED_FAULT)):
        wrong = GradientGap(gap.success, gap.failure, gap.log_odds, positive * gap.positive, negative * gap.negative)
        assert checks.gap_errors(bandit, theta, wrong).max() > 1e6 * ALGEBRA


@kinds
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gap_is_the_slope_of_the_log_odds(seed: int, kind: int) -> None:
    """Taylor remainders of log J/(1−J), and of J with ∇J = J(1−J)g, shrink at rate 2; of a faulty gap at rate 1."""
    rng = np.random.default_rng(seed)
    bandit, theta = checks.draw_case(rng, kind=kind)
    gap = gap_at(bandit, theta)
    u = rng.normal(size=bandit.size) / (1 + np.linalg.norm(score(bandit, theta), axis=1).max())
    for function, slope in (
        (lambda x: np.array(checks.odds_at(bandit, x)), gap.gap),
        (lambda x: np.array(gap_at(bandit, x).success), gap.objective_gradient),
    ):
        rates = taylor_rates(function, lambda x, slope=slope: slope, theta, u, step=1e-3)
        assert np.all(rates > 2 - TAYLOR_RATE)
        wrong = taylor_rates(function, lambda x, slope=slope: (1 + PLANTED_FAULT) * slope, theta, u, step=1e-5)
        assert abs(float(slope @ u)) < 1e-9 or np.all(wrong < 2 - TAYLOR_RATE)


@few
@given(SEEDS)
def test_a_tree_agrees_with_its_own_recursion(seed: int) -> None:
    """J(1−J)g against ∇J from the values of the prefixes, which uses no score."""
    tree, feature, correct, theta = draw_tree(np.random.default_rng(seed))
    gap = gap_at(tree_bandit(tree, feature, correct), theta)
    true = pull_back(feature, objective_gradient(tree, linear_logits(feature, theta), correct.astype(float)))
    assert np.abs(gap.objective_gradient - true).max() <= ALGEBRA * (1 + np.abs(feature).max())


def test_real_rewards_break_the_identity() -> None:
    """Rewards 0, 1, 3: ∇E[r] is not J(1−J)g for success as r > 0; with 0, 1, 1 it is."""
    bandit, theta = tabular_bandit(np.array([False, True, True])), np.array([0.3, -0.2, 0.5])
    p, s = np.exp(logprob(bandit, theta)), score(bandit, theta)
    found = gap_at(bandit, theta).objective_gradient
    np.testing.assert_allclose((p * [0, 1, 1]) @ s, found, atol=1e-15)
    assert np.abs((p * [0, 1, 3]) @ s - found).max() > 0.1


@kinds
@settings(max_examples=5)
@given(seed=SEEDS)
def test_second_derivative(kind: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandit, theta = checks.draw_case(rng, kind=kind)
    hessian, u = checks.hessian_at(bandit, theta), checks.draw_direction(rng, np.zeros(bandit.size))
    assert np.abs(hessian - hessian.T).max() <= ALGEBRA * (1 + np.abs(hessian).max())
    spread = checks.segment_bounds(bandit, theta, 0.01 * u, points=2)
    found = checks.slope_of_gap(bandit, theta, u, step=2e-3 / max(1.0, spread.score))
    scale = 1 + 2 * spread.second_order
    assert np.abs(hessian @ u - found).max() <= QUADRATURE * scale
    if np.abs(hessian @ u).max() > 0.01 * scale:
        assert np.abs((1 + PLANTED_FAULT) * hessian @ u - found).max() > QUADRATURE * scale


@kinds
@settings(max_examples=5)
@given(seed=SEEDS)
def test_finite_steps(kind: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandit, theta = checks.draw_case(rng, kind=kind)
    before, after = (logprob(bandit, x) for x in (theta, theta + rng.normal(size=bandit.size)))
    found = log_odds_step(before, after, bandit.correct)
    true = log_odds(after, bandit.correct) - log_odds(before, bandit.correct)
    size = max(1.0, float(np.abs(before).max() + np.abs(after).max()))
    assert abs(found - true) <= ALGEBRA * size
    if abs(true) > 0.01 * size:
        assert abs((1 + PLANTED_FAULT) * found - true) > ALGEBRA * size


@kinds
@settings(max_examples=5)
@given(seed=SEEDS)
def test_information_bounds_the_gap(kind: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandit, theta = checks.draw_case(rng, kind=kind)
    assert checks.information_excess(bandit, theta) <= QUADRATURE
    move = checks.draw_direction(rng, gap_at(bandit, theta).gap) * 10 ** rng.uniform(-3, 0)
    assert checks.arcsine_excess(bandit, theta, move) <= QUADRATURE


def test_information_bound_is_attained() -> None:
    """Two responses: s is a function of r, so Cauchy–Schwarz is an equality; a bound lower by .1 % fails."""
    bandit = linear_bandit(np.array([[1.3], [-0.4]]), np.array([True, False]))
    for theta in (-2.0, 0.0, 1.5):
        excess = checks.information_excess(bandit, np.array([theta]))
        assert abs(excess) <= ALGEBRA
        assert (1 + excess) / (1 - PLANTED_FAULT) - 1 > QUADRATURE
    short = checks.arcsine_excess(bandit, np.array([0.0]), np.array([1e-4]))
    assert -1e-6 < short <= QUADRATURE, "the constant ½ cannot be lowered"


@few
@given(SEEDS)
def test_invariances(seed: int) -> None:
    """A constant added to all logits, another order of the responses; swapped rewards turn l and g round."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 8))
    feature, offset, correct = rng.normal(size=(size, 3)), rng.normal(size=size), checks.some_correct(rng, size)
    theta, order = rng.normal(size=3), rng.permutation(size)
    one = gap_at(linear_bandit(feature, correct, offset=offset), theta)
    for other, sign in (
        (linear_bandit(feature, correct, offset=offset + 7.0), 1),
        (linear_bandit(feature + rng.normal(size=3), correct, offset=offset), 1),
        (linear_bandit(feature[order], correct[order], offset=offset[order]), 1),
        (linear_bandit(feature, ~correct, offset=offset), -1),
    ):
        two = gap_at(other, theta)
        assert two.log_odds == pytest.approx(sign * one.log_odds, abs=1e-12)
        np.testing.assert_allclose(two.gap, sign * one.gap, atol=1e-12)


def test_success_rates_that_round_to_one() -> None:
    """1 − J = e^{−200}/…: the gap, the failure rate and the log-odds stay exact."""
    gap = gap_at(tabular_bandit(np.array([True, False, False])), np.array([200.0, 0.0, 0.0]))
    assert gap.success == 1.0
    assert gap.failure == pytest.approx(2 * np.exp(-200.0), rel=1e-12)
    assert gap.log_odds == pytest.approx(200 - np.log(2), abs=1e-12)
    np.testing.assert_allclose(gap.gap, [1, -0.5, -0.5], atol=1e-12)


def test_evidence() -> None:
    for check in (checks.g01_gap, checks.g01_hessian, checks.g01_step, checks.g01_fisher):
        assert check(seed=1, examples=5).passed


def test_a_gap_by_hand() -> None:
    """Three responses of probability ½, ¼, ¼, the first correct: J = ½ and g⁺ − g⁻ by arithmetic."""
    p, s = np.array([0.5, 0.25, 0.25]), np.array([[1.0], [-3.0], [1.0]])
    gap = gradient_gap(np.log(p), s, np.array([True, False, False]))
    assert (gap.success, gap.log_odds) == (0.5, 0.0)
    assert gap.gap == pytest.approx(1 - (-3 + 1) / 2)
