"""G06: what algorithms take of the gap: their multiples, stagnation at a fixed rate, division by each length."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete.ascent import ascend, expected_step, gap_at
from vgrad_lab.discrete.bandit import linear_bandit, steepening, tabular_bandit
from vgrad_lab.discrete.phase_diagram import steepening_log_odds
from vgrad_lab.discrete.thresholds import cycle_height, stagnation_level
from vgrad_lab.discrete.token_step import tree_bandit
from vgrad_lab.discrete.token_tree import answer_probability, linear_logits
from vgrad_lab.discrete.update_scale import Algorithm, mixed_share, update_scale
from vgrad_lab.experiments import verify_token_steps as checks
from vgrad_lab.experiments.verify_gradient_gap import some_correct
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE


def failure_at_the_end(rates: list[float], algorithm: Algorithm, *, updates: int, group_size: int = 8) -> np.ndarray:
    """1 − J of the last two updates on ``steepening``, V = 2, from J = ½ (rates, 2)."""
    odds = steepening_log_odds(
        np.array(rates), np.full(len(rates), 0.5), algorithm, updates=updates, group_size=group_size
    )
    return np.asarray(1 / (1 + np.exp(odds[:, -2:])))


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(2, 4), st.sampled_from(["rloo", "group_mean", "grpo", "dynamic_sampling"]))
def test_multiple_of_the_gap_by_enumeration(seed: int, size: int, algorithm: Algorithm) -> None:
    rng = np.random.default_rng(seed)
    bandit, theta = linear_bandit(rng.normal(size=(4, 3)), some_correct(rng, 4)), rng.normal(size=3)
    gap = gap_at(bandit, theta)
    for ddof in (0, 1):
        omega = update_scale(np.array([gap.success]), algorithm, group_size=size, ddof=ddof, eps=0.0)[0]
        found = checks.expected_group_update(bandit, theta, algorithm, group_size=size, ddof=ddof)
        scale = 1 + float(np.abs(gap.gap).max())
        assert np.abs(found - omega * gap.gap).max() <= ALGEBRA * scale
        if np.abs(found).max() > 0.01:
            assert np.abs(found - (1 + PLANTED_FAULT) * omega * gap.gap).max() > ALGEBRA * scale


@pytest.mark.parametrize(
    ("algorithm", "slope"),
    [
        ("gap", 0.0),
        ("population_grpo", 0.5),
        ("reinforce", 1.0),
        ("rloo", 1.0),
        ("group_mean", 1.0),
        ("grpo", 1.0),
        ("dynamic_sampling", 0.0),
    ],
)
def test_how_the_multiple_vanishes(algorithm: Algorithm, slope: float) -> None:
    """Slope of log ω against log(1−J) near J = 1."""
    q = np.array([1e-9, 1e-8])
    omega = update_scale(1 - q, algorithm, failure=q, ddof=0, eps=0.0)
    assert math.log10(omega[1] / omega[0]) == pytest.approx(slope, abs=1e-6)


def test_closed_forms_of_the_multiple() -> None:
    """Binomial sums: E√(p̂(1−p̂)) for GRPO with ddof 0, √((G−1)/G) of it with ddof 1."""
    from scipy.special import comb

    success = np.array([1e-6, 0.2, 0.5, 0.97])
    for size in (2, 5, 16):
        share = np.arange(size + 1) / size
        k = np.arange(size + 1)
        law = comb(size, k) * success[:, None] ** k * (1 - success[:, None]) ** (size - k)
        mean = law @ np.sqrt(share * (1 - share))
        for ddof, factor in ((0, 1.0), (1, math.sqrt((size - 1) / size))):
            found = update_scale(success, "grpo", group_size=size, ddof=ddof, eps=0.0)
            np.testing.assert_allclose(found, factor * mean, rtol=QUADRATURE)
            mixed = update_scale(success, "dynamic_sampling", group_size=size, ddof=ddof, eps=0.0)
            np.testing.assert_allclose(mixed * mixed_share(success, size), found, rtol=ALGEBRA)
        np.testing.assert_allclose(mixed_share(success, size), 1 - success**size - (1 - success) ** size, rtol=1e-9)
    variance = success * (1 - success)
    np.testing.assert_allclose(update_scale(success, "reinforce"), variance, rtol=ALGEBRA)
    np.testing.assert_allclose(update_scale(success, "rloo"), variance, rtol=1e-9)
    np.testing.assert_allclose(update_scale(success, "group_mean", group_size=4), 0.75 * variance, rtol=1e-9)
    np.testing.assert_allclose(update_scale(success, "population_grpo"), np.sqrt(variance), rtol=ALGEBRA)


def test_population_grpo_stagnates_where_predicted() -> None:
    """√q/(1−q)^{3/2} = lr V cosh(y₀)/y₀², V = 2; the run ends there to 1e-9."""
    rates, levels = [0.2, 0.4, 0.8], [0.10219, 0.24403, 0.42640]
    ends = failure_at_the_end(rates, "population_grpo", updates=1200)
    height = cycle_height()
    assert height == pytest.approx(2.0653381, abs=1e-7)
    for rate, level, end in zip(rates, levels, ends, strict=True):
        q = stagnation_level(rate, "population_grpo")
        assert q == pytest.approx(level, abs=5e-6)
        assert math.sqrt(q) / (1 - q) ** 1.5 == pytest.approx(rate * 2 * math.cosh(height) / height**2, rel=1e-10)
        np.testing.assert_allclose(end, q, rtol=QUADRATURE)
        assert np.abs(end / (q * (1 + PLANTED_FAULT)) - 1).max() > QUADRATURE
    small = stagnation_level(1e-4, "population_grpo")
    assert small == pytest.approx((2e-4 * math.cosh(height) / height**2) ** 2, rel=1e-3)
    assert (math.cosh(height) / height**2) ** 2 == pytest.approx(0.883, abs=1e-3)


def test_the_many_runs_are_the_bandits_runs() -> None:
    """The picture's recursion for many runs at once against exact updates of the bandit, and on the cycle."""
    start, bandit = np.array([0.7, 0.4]), steepening()
    for algorithm in ("gap", "population_grpo", "reinforce", "grpo", "dynamic_sampling"):
        slow = ascend(bandit, start, expected_step(0.3, algorithm), updates=6).log_odds
        success, y = 1 / (1 + np.exp(-slow[:1])), 0.7 * math.exp(0.2)
        fast = steepening_log_odds(np.array([0.3]), success, algorithm, updates=6, height=y, disturbance=1e-9)
        np.testing.assert_allclose(fast[0], slow, atol=1e-11)
    bandit, level = steepening(), stagnation_level(0.4, "population_grpo")
    odds = math.log((1 - level) / level)
    b = odds + math.log(2 * math.cosh(cycle_height()))
    on = ascend(
        bandit, np.array([cycle_height() * math.exp(-b / 2), b]), expected_step(0.4, "population_grpo"), updates=5
    )
    np.testing.assert_allclose(on.log_odds, odds, rtol=QUADRATURE)


def test_finite_groups_do_not_stagnate_at_the_same_rate() -> None:
    """G = 8, lr = .2: ω → √7 (1−J), and lr √7 V < 2, so 1 − J → 0 where infinite groups stop at .102."""
    assert 0.2 * math.sqrt(7) * 2 < 2
    early, late = (failure_at_the_end([0.2], "grpo", updates=n)[0, -1] for n in (80, 320))
    assert late == pytest.approx(1 / (math.sqrt(7) * 0.2 * 320), rel=0.25)
    assert late < early / 3.3


def test_tabular_policies_do_not_stagnate() -> None:
    """Where the gap step has no threshold, dividing by the standard deviation is only faster."""
    bandit, theta = tabular_bandit(np.array([True, False, False])), np.zeros(3)
    for rate in (0.2, 5.0):
        run = ascend(bandit, theta, expected_step(rate, "population_grpo"), updates=80)
        assert np.all(np.diff(run.log_odds) > 0)
        assert run.success[-1] > 0.97


@pytest.mark.parametrize(
    ("algorithm", "group_size", "edge"),
    [("reinforce", 8, 1.0), ("grpo", 8, 1 / math.sqrt(7)), ("grpo", 3, 1 / math.sqrt(2))],
)
def test_rates_below_the_edge_converge_and_above_it_do_not(algorithm: Algorithm, group_size: int, edge: float) -> None:
    """lr · lim ω/(1−J) · V = 2 divides them (V = 2)."""
    below, above = failure_at_the_end([0.95 * edge, 1.1 * edge], algorithm, updates=300, group_size=group_size)
    assert below.max() < 6e-3
    assert above.max() > 0.1


def test_reinforce_above_the_edge_can_stagnate() -> None:
    """lr V = 2.2: the two-cycle at 1 − J = .3044 is a fixed point of the run; another start may collapse instead."""
    level = stagnation_level(1.1, "reinforce")
    assert level == pytest.approx(1 - math.sqrt(cycle_height() ** 2 / (2.2 * math.cosh(cycle_height()))), rel=1e-9)
    assert level == pytest.approx(0.3044, abs=5e-5)


def test_dynamic_sampling_stagnates_at_every_rate() -> None:
    """Its multiple does not vanish: the level is proportional to the rate, and the run ends there."""
    rates = [0.1, 0.2, 0.4]
    ends = failure_at_the_end(rates, "dynamic_sampling", updates=400)
    for rate, end in zip(rates, ends, strict=True):
        np.testing.assert_allclose(end, stagnation_level(rate, "dynamic_sampling"), rtol=1e-6)
    tiny = [stagnation_level(rate, "dynamic_sampling") for rate in (1e-5, 2e-5)]
    assert tiny[1] / tiny[0] == pytest.approx(2, rel=1e-3)


def test_dividing_by_each_answers_length_can_turn_the_update_round() -> None:
    """By hand: ∇J = (f₁ − f₂)/8 and the update is (6f₁ − 4f₂)/64 for f = (1, 5/4)."""
    tree, feature, correct, theta = checks.two_token_tree()
    gap = gap_at(tree_bandit(tree, feature, correct), theta)
    assert gap.success == pytest.approx(0.25)
    assert gap.objective_gradient[0] == pytest.approx((1 - 1.25) / 8)
    p = answer_probability(tree, linear_logits(feature, theta))
    score = np.array([-0.5, 0.5 - 0.625, 0.5 + 0.625])
    update = float(p @ ((correct - 0.25) * score / tree.length))
    assert update == pytest.approx((6 - 5) / 64)
    assert checks.length_cosine(tree, feature, correct, theta) == pytest.approx(-1)
    assert checks.g06_length().refutes


def test_dividing_by_one_length_only_rescales() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        tree, feature, _, theta = checks.draw_tree(rng)
        equal = checks.token_tree(tree.vocab, tree.horizon, end=None)
        features = rng.normal(size=(*equal.logits_shape, feature.shape[2]))
        cosine = checks.length_cosine(equal, features, some_correct(rng, equal.size), theta)
        assert cosine == pytest.approx(1, abs=1e-12)


def test_evidence() -> None:
    for check in (checks.g06_scale, checks.g06_stagnation, checks.g06_groups):
        assert check(seed=1, examples=6).passed
