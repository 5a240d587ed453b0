"""Leave-one-out as a U-statistic: pointwise, in variance, and the group size of a fixed budget."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.discrete import strategies
from vgrad_lab.discrete.estimator_moments import exact_moments
from vgrad_lab.discrete.estimator_types import Problem, random_problem, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, token_advantage
from vgrad_lab.discrete.u_statistic import (
    best_group_size,
    budget_constants,
    budget_error,
    leave_one_out_variance,
    pair_kernel,
    pair_variance,
)
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT


@pytest.mark.parametrize("group", [2, 3, 5])
def test_pointwise_equal_to_the_mean_over_pairs(group: int) -> None:
    problem, rng = random_problem(seed=1), np.random.default_rng(2)
    score = problem.direction(1.0 * problem.tree.scored)
    for answers in rng.integers(0, problem.tree.size, (20, group)):
        pairs = np.array([(a, b) for i, a in enumerate(answers) for b in answers[:i]])
        expected = pair_kernel(problem, pairs).mean(0)
        for name in ("rloo", "u_statistic"):
            weight = token_advantage(ESTIMATORS[name], problem, answers[None])[0, :, 0]
            np.testing.assert_allclose(weight @ score[answers] / group, expected, atol=ALGEBRA)


@settings(max_examples=40)
@given(strategies.tree_cases(max_answers=16), st.integers(2, 4))
def test_variance_of_any_group_in_closed_form(case: strategies.TreeCase, group: int) -> None:
    problem = Problem(*case)
    enumerated = exact_moments(ESTIMATORS["rloo"], problem, group=group)
    found = leave_one_out_variance(problem, group)
    assert abs(found - enumerated.variance) <= ALGEBRA * (1 + enumerated.variance)
    mean = exact_moments(ESTIMATORS["group_mean"], problem, group=group).variance
    assert abs(found * ((group - 1) / group) ** 2 - mean) <= ALGEBRA * (1 + mean)


def test_a_wrong_second_part_is_seen() -> None:
    problem = random_problem(seed=3)
    parts = pair_variance(problem)
    wrong = parts.oracle / 3 + 2 * parts.second * (1 + PLANTED_FAULT) / 6
    assert abs(wrong - exact_moments(ESTIMATORS["rloo"], problem, group=3).variance) > 1e6 * ALGEBRA


def test_pair_variance_by_sums_over_pairs() -> None:
    for seed in range(5):
        problem = random_problem(seed=seed)
        p, size = problem.probability, problem.tree.size
        pairs = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1).reshape(-1, 2)
        h, weight = pair_kernel(problem, pairs), np.outer(p, p).ravel()
        np.testing.assert_allclose(weight @ h, problem.gradient, atol=ALGEBRA)
        variance = weight @ ((h - problem.gradient) ** 2).sum(1)
        assert abs(variance - pair_variance(problem).pair) < ALGEBRA
        oracle = exact_moments(ESTIMATORS["expected_baseline"], problem, group=1).variance
        assert abs(oracle - pair_variance(problem).oracle) < ALGEBRA


def test_large_groups_on_trees_that_cannot_be_enumerated() -> None:
    """255 real rewards: the closed form goes where no listing can; it tends to the oracle's variance."""
    problem = random_problem(3, 7, seed=4)
    oracle = pair_variance(problem).oracle
    assert abs(leave_one_out_variance(problem, 10**6) * 10**6 / oracle - 1) < 1e-5
    variances = [g * leave_one_out_variance(problem, g) for g in (2, 4, 8, 16)]
    assert np.all(np.diff(variances) < 0)
    assert variances[-1] > oracle


def test_the_mean_is_not_the_best_constant() -> None:
    """The oracle's baseline E R may do worse than none: on the reference tree .4834 against .4700 at G = 4."""
    problem = reference_problem()
    none = exact_moments(ESTIMATORS["reinforce"], problem, group=4).variance
    assert none < pair_variance(problem).oracle / 4


def prompts(number: int) -> tuple[Problem, ...]:
    """One policy, another reward per prompt."""
    first = random_problem(seed=5)
    return tuple(replace(first, reward=random_problem(seed=6 + i).reward) for i in range(number))


def test_the_budget_by_its_parts() -> None:
    """Prompts drawn at random, G answers each: the law of total variance with enumerated parts."""
    problems = prompts(3)
    means = [exact_moments(ESTIMATORS["rloo"], p, group=4) for p in problems]
    within = np.mean([m.variance for m in means])
    centre = np.mean([m.mean for m in means], axis=0)
    between = np.mean([((m.mean - centre) ** 2).sum() for m in means])
    assert abs(budget_error(problems, group=4, budget=40.0) - (between + within) / 10) < ALGEBRA


def test_the_best_group_size_does_not_know_the_budget() -> None:
    problems = prompts(2)
    best = best_group_size(problems)
    assert 2 < best < 100
    sizes = range(max(2, int(best) - 3), int(best) + 5)
    for budget in (200.0, 1e6):
        errors = [budget_error(problems, group=g, budget=budget) for g in sizes]
        assert abs(sizes[int(np.argmin(errors))] - best) < 1
    c1, _, c3 = budget_constants(problems)
    assert abs(best - 1 - np.sqrt(2 * c3 / c1)) < ALGEBRA
    assert best_group_size(problems[:1]) == float("inf")


def test_refusals() -> None:
    problem = random_problem()
    with pytest.raises(ValueError, match="leave-one-out needs G ≥ 2 answers per group, got G = 1"):
        leave_one_out_variance(problem, 1)
    with pytest.raises(ValueError, match=r"a group of 1 within a budget of 10.0 answers; give 2 ≤ G ≤ N"):
        budget_error((problem,), group=1, budget=10.0)
    with pytest.raises(ValueError, match=r"a group of 8 within a budget of 4.0 answers"):
        budget_error((problem,), group=8, budget=4.0)
    for problems in ((), (problem, random_problem(2, 2))):
        with pytest.raises(ValueError, match="all with the same number of parameters"):
            budget_constants(problems)
