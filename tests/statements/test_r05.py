"""R05: Theorem 2 of the response-level paper, and how far its baseline may be from the best one."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import along, fifteen_answers
from vgrad_lab.discrete.token_tree import objective_gradient, token_tree
from vgrad_lab.discrete.trajectory_gradient import (
    best_baseline,
    direction_variance,
    mean_direction,
    response_advantage,
    theorem_2_advantage,
    token_second_moment,
    top_k_probability,
)
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.experiments import verify_trajectory_variance as variance
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

TASK = fifteen_answers()


@settings(max_examples=15)
@given(seeds())
def test_theorem_2(seed: int) -> None:
    assert checks.r05_theorem_2(seed=seed, examples=3).passed


@pytest.mark.parametrize("discount", checks.DISCOUNTS)
def test_theorem_2_whatever_the_discount(discount: float) -> None:
    reward = TASK.reward(discount=discount)
    weight = theorem_2_advantage(TASK.tree, TASK.logits, reward)
    assert checks.direction_error(TASK, weight, reward) <= ALGEBRA
    assert checks.direction_error(TASK, weight * (1 + PLANTED_FAULT), reward) > ALGEBRA


def test_rewards_that_are_no_sum_break_it() -> None:
    weight = theorem_2_advantage(TASK.tree, TASK.logits, TASK.reward() / TASK.tree.length)
    found = mean_direction(TASK.tree, TASK.logits, weight)
    assert round(checks.cosine(found, objective_gradient(TASK.tree, TASK.logits, TASK.reward())), 3) == 0.878


def test_top_k_sampling_breaks_it() -> None:
    weight = theorem_2_advantage(TASK.tree, TASK.logits, TASK.reward())
    sampler = top_k_probability(TASK.tree, TASK.logits, k=2)
    found = mean_direction(TASK.tree, TASK.logits, weight, sampler=sampler)
    assert checks.relative(found, objective_gradient(TASK.tree, TASK.logits, TASK.reward())) > 0.1


@settings(max_examples=15)
@given(seeds())
def test_second_moments_split_at_the_best_baseline(seed: int) -> None:
    assert variance.r05_optimal(seed=seed, examples=3).passed


def test_a_baseline_that_reads_the_token_does_not_split() -> None:
    reward = TASK.reward()
    best = best_baseline(TASK.tree, TASK.logits, reward)
    b = along(TASK.tree, np.random.default_rng(0).normal(size=TASK.logits.shape))
    weights = (response_advantage(TASK.tree, reward, baseline=x) for x in (b, best))
    found, least = (token_second_moment(TASK.tree, TASK.logits, w) for w in weights)
    gap = token_second_moment(TASK.tree, TASK.logits, b - best)
    assert checks.relative(least + gap, found) > 0.01


@pytest.mark.parametrize("p", [0.4, 0.1, 0.01, 1e-6])
def test_the_best_baseline_may_leave_nothing(p: float) -> None:
    """Two tokens: variance 0 against 2p(1−p)(1−2p)²; near p = 0 the part that is not needed tends to all of it."""
    tree, logits, reward = token_tree(2, 1, end=None), np.log([[p, 1 - p]]), np.array([1.0, 0.0])
    best = response_advantage(tree, reward, baseline=best_baseline(tree, logits, reward))
    found = direction_variance(tree, logits, theorem_2_advantage(tree, logits, reward))
    assert found == pytest.approx(2 * p * (1 - p) * (1 - 2 * p) ** 2, rel=1e-9)
    assert direction_variance(tree, logits, best) <= 1e-20


def test_evidence_and_counterexample() -> None:
    assert checks.r05_theorem_2().passed
    assert variance.r05_optimal().passed
    assert variance.r05_near_optimal().refutes
