"""E08: leave-one-out as a U-statistic, its mean squared error, and constant baselines."""

import itertools

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.advantage import group_mean, leave_one_out
from vgrad_lab.discrete.estimator_moments import exact_moments
from vgrad_lab.discrete.estimator_rules import best_constant, greedy_answer
from vgrad_lab.discrete.estimator_types import random_problem
from vgrad_lab.discrete.estimators import ESTIMATORS
from vgrad_lab.discrete.token_tree import response_score
from vgrad_lab.discrete.u_statistic import pair_kernel, pair_variance
from vgrad_lab.experiments import verify_estimators as plain
from vgrad_lab.experiments import verify_estimators_tokens as checks
from vgrad_lab.experiments.verify_estimators import deviation, mean_reward
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT

CASE = random_problem()


@given(strategies.seeds())
def test_pointwise(seed: int) -> None:
    assert checks.e08_pointwise(seed=seed, examples=1).passed


def test_another_kernel_is_seen() -> None:
    score, reward = response_score(CASE.tree, CASE.logits)[:4], CASE.reward[None, :4]
    pairs = pair_kernel(CASE, np.array(list(itertools.combinations(range(4), 2)))).mean(0)
    assert deviation(leave_one_out(reward)[0] @ score / 4, pairs) <= ALGEBRA
    assert deviation(leave_one_out(reward)[0] @ score / 4, (1 + PLANTED_FAULT) * pairs) > ALGEBRA
    assert deviation(group_mean(reward)[0] @ score / 4, pairs) > 0.1


@given(strategies.seeds())
def test_mean_squared_error(seed: int) -> None:
    assert checks.e08_mse(seed=seed, examples=1).passed
    assert pair_variance(plain.draw_problem(np.random.default_rng(seed))).second >= -ALGEBRA


def test_a_planted_error_is_seen() -> None:
    found = exact_moments(ESTIMATORS["rloo"], CASE, group=3).variance
    truth = checks.mean_squared_error(CASE, 3)
    assert deviation(found, truth) <= ALGEBRA < deviation(found, (1 + PLANTED_FAULT) * truth)
    best = best_constant(CASE)
    size = float(CASE.probability @ (response_score(CASE.tree, CASE.logits) ** 2).sum(1))
    gap = checks.constant_variance(CASE, best + 1) - checks.constant_variance(CASE, best)
    assert deviation(gap, size) <= ALGEBRA < deviation(gap, (1 + PLANTED_FAULT) * size)


def test_the_second_term_vanishes_faster() -> None:
    """At G = 2 more error than two answers with the exact baseline; at G = 200 as good as the same error."""
    for seed in range(10):
        problem = plain.draw_problem(np.random.default_rng(seed))
        oracle = checks.constant_variance(problem, mean_reward(problem))
        assert checks.mean_squared_error(problem, 2) > oracle / 2
        assert abs(200 * checks.mean_squared_error(problem, 200) / oracle - 1) < 0.1


def test_the_oracle_can_lose() -> None:
    """A coin with p = .9 by hand: 2p(1−p)³... = .018 − .0162, and .1314 − .0162 with the value as baseline."""
    found = checks.e08_oracle()
    assert found.refutes
    assert abs(found.claimed - 0.0018) <= CLOSED_FORM
    assert abs(found.true - 0.1152) <= CLOSED_FORM
    coin = checks.coin(0.9)
    assert coin.reward[greedy_answer(coin)] == 1.0
    assert checks.constant_variance(coin, 1.0) > checks.constant_variance(coin, 0.9)


@given(strategies.seeds())
def test_the_best_constant_never_loses(seed: int) -> None:
    assert checks.e08_constant(seed=seed, examples=1).passed
    problem = plain.draw_problem(np.random.default_rng(seed))
    least = checks.constant_variance(problem, best_constant(problem))
    for other in (0.0, mean_reward(problem), float(problem.reward[greedy_answer(problem)])):
        assert least <= checks.constant_variance(problem, other) * (1 + ALGEBRA)
