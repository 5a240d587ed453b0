"""Exact expectations of estimators: which are ∇J, which a multiple, which bend; every route to them agrees."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.helpers import whole
from vgrad_lab.discrete import estimator_rules as rules
from vgrad_lab.discrete import strategies, trepo
from vgrad_lab.discrete.estimator_moments import check_estimator, exact_moments, row
from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem, hidden_rewards, random_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, expected_scale, mixed_probability, verdict
from vgrad_lab.discrete.token_tree import conditional_value, linear_logits, token_tree
from vgrad_lab.discrete.trajectory_gradient import mean_direction, response_advantage
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

BIASED = [name for name, e in ESTIMATORS.items() if e.verdict == "biased"]
EXACT = [name for name in ESTIMATORS if name not in BIASED]
LENGTHS = ["sequence_mean", "grpo", "gspo", "token_mean", "dapo", "trl_default", "verl_default"]
"""Biased by lengths even for binary rewards."""


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("binary", [False, True])
def test_tuples_through_the_samples_agree_with_labels(name: str, binary: bool) -> None:
    for vocab, horizon, end, group in ((3, 2, 2, 3), (2, 3, 0, 4), (2, 2, None, 2)):
        problem = random_problem(vocab, horizon, end=end, binary=binary, seed=4)
        if len(set(problem.reward)) == 1:
            continue
        quick = exact_moments(ESTIMATORS[name], problem, group=group)
        slow = exact_moments(ESTIMATORS[name], problem, group=group, tuples=True)
        np.testing.assert_allclose(quick.mean, slow.mean, atol=ALGEBRA)
        assert abs(quick.variance - slow.variance) < ALGEBRA * (1 + slow.variance)
        assert abs(quick.kept - slow.kept) < ALGEBRA
        if ESTIMATORS[name].group is not None:
            np.testing.assert_allclose(quick.coefficient, slow.coefficient, atol=1e-11)


@settings(max_examples=100)
@given(
    st.sampled_from([name for name, e in ESTIMATORS.items() if not e.whitened]),
    strategies.tree_cases(max_answers=16, bound=2.0),
    st.integers(2, 3),
    st.sampled_from([0.0, 1e-4, 0.5]),
    st.integers(0, 1),
)
def test_every_claimed_scale_is_exact(name: str, case: strategies.TreeCase, group: int, eps: float, ddof: int) -> None:
    """On any tree and reward: whatever closed form is claimed holds to rounding."""
    assume(np.ptp(case.reward) > 0)
    e = ESTIMATORS[name]
    check_estimator(e, Problem(*case), group=group, options=replace(e.defaults, ddof=ddof, eps=eps))


@pytest.mark.parametrize("seed", range(4))
def test_every_claimed_scale_is_exact_in_shared_parameters(seed: int) -> None:
    """Prefixes that share three parameters: unbiased stays unbiased, with the baseline of those parameters."""
    plain, rng = random_problem(seed=seed, binary=seed % 2 == 0), np.random.default_rng(seed)
    features = rng.standard_normal((*plain.tree.logits_shape, 3))
    logits = linear_logits(features, 0.5 * rng.standard_normal(3))
    problem = replace(plain, logits=logits, features=features)
    assert problem.gradient.shape == (3,)
    for e in ESTIMATORS.values():
        if not e.whitened:
            check_estimator(e, problem, group=3)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_verdicts_stand_on_a_generic_problem(name: str) -> None:
    e = ESTIMATORS[name]
    assert verdict(e, random_problem(), group=3) == e.verdict
    assert (expected_scale(e, random_problem(), group=3) is None) == (e.verdict == "biased")


@pytest.mark.parametrize("name", EXACT)
def test_unbiased_and_scaled_rows(name: str) -> None:
    for seed in range(4):
        for group in (2, 3):
            found = row(ESTIMATORS[name], random_problem(seed=seed), group=group)
            assert found.residual <= ALGEBRA
            assert abs(found.cosine - 1) <= ALGEBRA
            assert abs(found.scale - found.expected) <= ALGEBRA
            if found.verdict == "unbiased":
                assert found.bias <= ALGEBRA


@pytest.mark.parametrize("name", BIASED)
def test_biased_rows_bend_wherever_one_looks(name: str) -> None:
    """Real rewards, answers of several lengths: 12 policies drawn at random, and none has the direction of ∇J."""
    residuals = [row(ESTIMATORS[name], random_problem(seed=s), group=2).residual for s in range(12)]
    assert min(residuals) > 1e-3
    assert np.median(residuals) > 0.01
    fixed = row(ESTIMATORS[name], random_problem(seed=0), group=3)
    assert fixed.residual > 0.01
    assert fixed.expected is None


@pytest.mark.parametrize("name", LENGTHS)
def test_length_normalisers_bend_binary_rewards_too(name: str) -> None:
    """Where the standard deviation alone does not."""
    problems = [random_problem(seed=s, binary=True) for s in range(8)]
    residuals = [row(ESTIMATORS[name], p, group=3).residual for p in problems if 0 < p.reward.sum() < 15]
    assert min(residuals) > 1e-3
    assert all(row(ESTIMATORS["standardised"], p, group=3).residual < ALGEBRA for p in problems if np.ptp(p.reward))


@pytest.mark.parametrize("shape", [(2, 4, None), (3, 2, None), (4, 1, 0)])
def test_answers_of_one_length_are_the_control(shape: tuple[int, int, int | None]) -> None:
    """There 1/|o| and token means are constants: what is left is the standard deviation, for real rewards."""
    vocab, horizon, end = shape
    for binary in (False, True):
        problem = random_problem(vocab, horizon, end=end, binary=binary, seed=2)
        for name in LENGTHS:
            found = row(ESTIMATORS[name], problem, group=3)
            with_std = ESTIMATORS[name].group == "standardised"
            assert (found.expected is None) == (with_std and not binary)
            if found.expected is None:
                assert found.residual > 1e-3
            else:
                assert found.residual < ALGEBRA
                assert abs(found.scale - found.expected) < ALGEBRA


def test_sample_and_population_differ_by_a_factor_only() -> None:
    for group in (2, 3, 4):
        for name in ("standardised", "grpo", "dapo"):
            sample, population = (
                exact_moments(ESTIMATORS[name], random_problem(seed=3), group=group, options=Options(ddof=d)).mean
                for d in (1, 0)
            )
            np.testing.assert_allclose(sample, np.sqrt((group - 1) / group) * population, atol=ALGEBRA)


def test_which_bias_fades_with_the_group() -> None:
    """1/|o| bends as much at any G; standard deviation and token mean bend less and less."""
    problem = random_problem(2, 3, seed=7)
    bent = {
        n: [row(ESTIMATORS[n], problem, group=g).residual for g in (2, 4, 8, 16)]
        for n in ("standardised", "token_mean", "sequence_mean")
    }
    for name in ("standardised", "token_mean"):
        assert np.all(np.diff(bent[name]) < 0)
        assert bent[name][-1] < 0.3 * bent[name][0]
    np.testing.assert_allclose(bent["sequence_mean"], bent["sequence_mean"][0], rtol=1e-9)


@pytest.mark.parametrize("levels", [(0.0, 1.0), (-1.0, 1.0), (2.0, 2.5)])
def test_two_reward_values_of_any_size(levels: tuple[float, float]) -> None:
    """w_G(p) over their distance, and ε in units of it."""
    problem = random_problem(seed=8, binary=True)
    problem = replace(problem, reward=np.where(problem.reward > 0, levels[1], levels[0]))
    for name in ("standardised", "dynamic_sampling", "trl_dr_grpo"):
        for eps in (0.0, 0.3):
            options = replace(ESTIMATORS[name].defaults, eps=eps)
            found = row(ESTIMATORS[name], problem, group=4, options=options)
            assert abs(found.scale - found.expected) < ALGEBRA
            assert found.verdict == "scaled"


@pytest.mark.parametrize("gap", [1.0, 10.0, 25.0, 300.0])
def test_scales_at_the_edge_of_success(gap: float) -> None:
    """Success within e^{−300} of 0 or 1: the closed forms lose no digits to 1 − p."""
    tree = token_tree(2, 1)
    for sign in (-1, 1):
        problem = Problem(tree, np.array([[0.0, sign * gap]]), np.array([0.0, 1.0]))
        for name in ("standardised", "dynamic_sampling", "grpo"):
            found = exact_moments(ESTIMATORS[name], problem, group=4)
            scale = expected_scale(ESTIMATORS[name], problem, group=4)
            np.testing.assert_allclose(found.mean, scale * problem.gradient, rtol=1e-9)
        share = np.exp(-gap) / (1 + np.exp(-gap))
        exact = -np.expm1(4 * np.log1p(-share)) - share**4
        assert abs(mixed_probability(problem, 4) / exact - 1) < 1e-9


@pytest.mark.parametrize("spread", [0.1, 20.0, 300.0])
@pytest.mark.parametrize(("size", "offset"), [(1.0, 0.0), (1e-8, 100.0), (1e6, -1e6)])
def test_sure_policies_and_far_rewards(spread: float, size: float, offset: float) -> None:
    for seed in range(3):
        problem = random_problem(2, 3, spread=spread, binary=seed > 0, seed=seed)
        problem = replace(problem, reward=size * problem.reward + offset)
        for name in ("rloo", "u_statistic", "standardised", "trl_dr_grpo", "theorem_2", "remax", "ppo"):
            found = check_estimator(ESTIMATORS[name], problem, group=3)
            assert np.all(np.isfinite(found.mean))
            assert np.isfinite(found.variance)


@pytest.mark.parametrize("name", EXACT)
def test_numbers_in_float32_lose_nothing_more(name: str) -> None:
    problem = random_problem(seed=16)
    logits, reward = problem.logits.astype(np.float32), problem.reward.astype(np.float32)
    found = check_estimator(ESTIMATORS[name], Problem(problem.tree, logits, reward), group=2)
    assert found.mean.dtype == np.float64


def test_ppo_is_unbiased_for_any_critic_only_at_one() -> None:
    rng = np.random.default_rng(9)
    for seed in range(5):
        problem = random_problem(seed=seed)
        error = rng.standard_normal(len(problem.tree.prefixes))
        for hidden in (None, hidden_rewards(problem.tree, seed=seed)):
            bias = []
            for decay in (0.0, 0.5, 0.95, 1.0):
                options = Options(decay=decay, critic_error=error, token_reward=hidden)
                found = check_estimator(ESTIMATORS["ppo"], problem, group=1, options=options)
                bias.append(np.linalg.norm(found.mean - problem.gradient))
                exact = replace(options, critic_error=None)
                check_estimator(ESTIMATORS["ppo"], problem, group=1, options=exact)
                assert expected_scale(ESTIMATORS["ppo"], problem, group=1, options=exact) == 1
            assert bias[-1] < ALGEBRA
            assert min(bias[:-1]) > 1e-3


@pytest.mark.parametrize("keep", [0.3, 0.5, 1.0])
def test_chosen_positions(keep: float) -> None:
    """TRePO's readings: mean and variance by the sums of their own module; all positions chosen, it is Theorem 2."""
    options = Options(keep=keep)
    for end in (2, None):
        problem = random_problem(3, 3, end=end, seed=14)
        tree, logits = problem.tree, problem.logits
        anchors = trepo.independent_anchors(tree, keep=keep)
        value = conditional_value(tree, logits, problem.reward)
        for name, reading in (
            ("trepo_anchors", trepo.anchors_ht),
            ("trepo_segments", trepo.segment),
            ("trepo_advantages", trepo.adv_interp),
            ("trepo_values", trepo.value_interp),
        ):
            found = check_estimator(ESTIMATORS[name], problem, group=2, options=options)
            advantage = reading(tree, value, anchors)
            mean = mean_direction(tree, logits, trepo.expected_advantage(anchors, advantage))
            second = trepo.anchored_second_moment(tree, logits, anchors, advantage)
            np.testing.assert_allclose(found.mean, mean, atol=ALGEBRA)
            assert abs(2 * found.variance - (second - mean @ mean)) < ALGEBRA * (1 + second)
            claimed = expected_scale(ESTIMATORS[name], problem, group=2, options=options)
            interpolated = keep if end is None else None
            expected = {"trepo_advantages": interpolated, "trepo_values": None}.get(name, 1.0)
            assert claimed == expected
    theorem = exact_moments(ESTIMATORS["theorem_2"], problem, group=2)
    for name in ("trepo_anchors", "trepo_segments", "trepo_advantages", "trepo_values"):
        whole_set = exact_moments(ESTIMATORS[name], problem, group=2, options=Options(keep=1.0))
        np.testing.assert_allclose(whole_set.mean, theorem.mean, atol=ALGEBRA)
        assert abs(whole_set.variance - theorem.variance) < ALGEBRA


def test_steps_of_any_length_are_unbiased() -> None:
    problem = random_problem(2, 4, seed=15)
    for step in (1, 2, 3, 4, 9):
        found = check_estimator(ESTIMATORS["vineppo"], problem, group=1, options=Options(step=step))
        other = {1: "theorem_2", 4: "expected_baseline", 9: "expected_baseline"}.get(step)
        if other:
            assert abs(found.variance - exact_moments(ESTIMATORS[other], problem, group=1).variance) < ALGEBRA


def test_hidden_rewards_matter_only_to_estimators_that_read_them() -> None:
    """Any r' with the same sum leaves the rest as they are; an inexact critic and returns-to-go see it."""
    problem = random_problem(seed=10)
    hidden, rng = hidden_rewards(problem.tree, seed=10), np.random.default_rng(10)
    moved = hidden + 0.0
    moved[:, 0] += 1.0
    moved[np.arange(15), problem.tree.length - 1] -= 1.0  # a potential that comes and goes
    error = rng.standard_normal(7)
    one, other = (
        {
            name: exact_moments(
                e, problem, group=2, options=replace(e.defaults, token_reward=r, critic_error=error, decay=0.9)
            )
            for name, e in ESTIMATORS.items()
        }
        for r in (hidden, moved)
    )
    for name in ESTIMATORS:
        same = abs(one[name].variance - other[name].variance) < ALGEBRA
        assert same == (name not in ("reward_to_go",)), name
    for hide in (hidden, moved):
        e = ESTIMATORS["reward_to_go"]
        check_estimator(e, problem, group=1, options=Options(token_reward=hide))


def test_the_optimal_constant_has_the_least_variance() -> None:
    for seed in range(5):
        problem = random_problem(seed=seed)
        least = exact_moments(ESTIMATORS["optimal_baseline"], problem, group=1).variance
        best = rules.best_constant(problem)
        for distance in (0.1, 1.0, 10.0):
            below, above = (
                exact_moments(ESTIMATORS["reinforce"], problem, group=1, options=Options(baseline=b)).variance
                for b in (best - distance, best + distance)
            )
            assert above > least
            assert abs(above - below) < ALGEBRA * above


def test_variance_of_independent_samples_falls_as_one_over_the_group() -> None:
    problem = random_problem(seed=11)
    for name in ("reinforce", "remax", "ppo", "theorem_2"):
        one, many = (exact_moments(ESTIMATORS[name], problem, group=g).variance for g in (1, 1000))
        assert abs(many * 1000 - one) < ALGEBRA * one


def test_groups_on_a_large_tree() -> None:
    problem = random_problem(3, 7, binary=True, seed=12)
    assert problem.tree.size == 255
    for name in ("rloo", "grpo", "dapo", "standardised", "dr_grpo"):
        check_estimator(ESTIMATORS[name], problem, group=4 if name in ("grpo", "dapo") else 8)
    real = random_problem(3, 7, seed=12)
    with pytest.raises(ValueError, match=r"255 labels, G = 8, make .* groups, more than 2000000; give rewards with"):
        exact_moments(ESTIMATORS["rloo"], real, group=8)
    with pytest.raises(ValueError, match=r"255 answers, G = 3, make 1.66e\+07 groups"):
        exact_moments(ESTIMATORS["ppo_coded"], real, group=3)
    check_estimator(ESTIMATORS["theorem_2"], real, group=8)


def own(name: str, factor: float) -> Estimator:
    """REINFORCE times a factor, declared unbiased."""
    return Estimator(
        name, "", "", "unbiased", token=lambda p, o: factor * response_advantage(p.tree, p.reward, baseline=0.3)
    )


def test_the_checker_finds_a_planted_error() -> None:
    for seed in range(10):
        problem = random_problem(seed=seed)
        check_estimator(own("right", 1.0), problem, group=2)
        with pytest.raises(AssertionError, match=r"wrong claims E D = 1 ∇J at G = 2, but misses it by"):
            check_estimator(own("wrong", 1 + PLANTED_FAULT), problem, group=2)
        self_inclusive = replace(ESTIMATORS["rloo"], group="group_mean")
        check_estimator(self_inclusive, problem, group=2)  # claimed as (G−1)/G
        ends = Estimator("no end", "", "", "unbiased", token=lambda p, o: _without_end(p))
        with pytest.raises(AssertionError, match="no end claims"):
            check_estimator(ends, problem, group=2)


def _without_end(problem: Problem) -> np.ndarray:
    weight = response_advantage(problem.tree, problem.reward)
    return np.where(problem.tree.tokens == problem.tree.end, 0.0, weight)


def test_rules_of_a_reader_have_no_closed_form() -> None:
    problem = random_problem(seed=13)
    ranks = Estimator(
        "ranks", "", "", "biased", group=lambda r, o: (r[:, :, None] > r[:, None, :]).sum(2) - (r.shape[1] - 1) / 2
    )
    both = Estimator("both", "", "", "biased", group="leave_one_out", token=ESTIMATORS["ppo"].token)
    plain = Estimator("plain", "", "", "biased", token=lambda p, o: 2.0 * p.tree.scored)
    for e in (ranks, both, plain):
        assert expected_scale(e, problem, group=3) is None
        np.testing.assert_allclose(
            exact_moments(e, problem, group=3).mean, exact_moments(e, problem, group=3, tuples=True).mean, atol=ALGEBRA
        )
    order = Estimator("order", "", "", "biased", group=lambda r, o: r - np.roll(r, 1, axis=1))
    with pytest.raises(ValueError, match="depends on the order of a group"):
        exact_moments(order, problem, group=3)


def test_rows_where_nothing_can_be_learnt() -> None:
    flat = replace(random_problem(), reward=np.full(15, 0.7))
    for name in ("rloo", "grpo", "theorem_2"):
        found = row(ESTIMATORS[name], flat, group=2)
        assert np.isnan([found.scale, found.cosine, found.bias]).all()
        assert found.variance < ALGEBRA
    for name in ("dapo", "dynamic_sampling"):
        with pytest.raises(
            ValueError,
            match=whole("no group is kept: all have probability zero; give rewards that differ between answers"),
        ):
            row(ESTIMATORS[name], flat, group=2)


@pytest.mark.parametrize("aggregation", ["sum", "sequence_mean"])
def test_groups_of_equal_rewards_are_drawn_again_without_a_group_rule_too(aggregation: str) -> None:
    alone = Estimator(
        "mine", "R g", "a reader", "biased", token=rules.constant_baseline, mixed_only=True, aggregation=aggregation
    )
    problem = random_problem(binary=True, seed=4)
    fast, slow = (exact_moments(alone, problem, group=3, tuples=tuples) for tuples in (False, True))
    np.testing.assert_allclose(fast.mean, slow.mean, rtol=0, atol=ALGEBRA)
    assert fast.variance == pytest.approx(slow.variance, abs=ALGEBRA)
    every = exact_moments(replace(alone, mixed_only=False), problem, group=3)
    assert np.abs(fast.mean - every.mean).max() > 1e-4
