"""R01: Lemma 1 of the response-level paper, against a Taylor rate of the discounted objective; what breaks it."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import along, draw_task, fifteen_answers
from vgrad_lab.discrete.token_tree import answer_probability, log_policy, objective_gradient
from vgrad_lab.discrete.trajectory_gradient import lemma_1_weight, mean_direction, token_values, top_k_probability
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE
from vgrad_lab.verify import taylor_rates

TASK = fifteen_answers()


@pytest.mark.parametrize("discount", checks.DISCOUNTS)
@pytest.mark.parametrize("end", [None, 2])
def test_it_is_the_gradient_of_the_discounted_objective(discount: float, end: int | None) -> None:
    """J from Bellman's recursion, its derivative from Lemma 1: remainders fall with the square of the step."""
    task = draw_task(np.random.default_rng(7), end=end)
    direction = np.random.default_rng(1).standard_normal(task.logits.size)
    for fault, lowest, highest in ((0.0, 2 - TAYLOR_RATE, np.inf), (PLANTED_FAULT, -np.inf, 2 - TAYLOR_RATE)):

        def gradient(z: np.ndarray, fault: float = fault) -> np.ndarray:
            weight = lemma_1_weight(task.tree, z.reshape(-1, 3), task.token_reward, discount=discount)
            return (1 + fault) * mean_direction(task.tree, z.reshape(-1, 3), weight)

        rates = taylor_rates(
            lambda z: token_values(task.tree, z.reshape(-1, 3), task.token_reward, discount=discount)[0][0, 0],
            gradient,
            task.logits.ravel(),
            direction,
            step=1e-3,
        )
        assert lowest < rates[-1] < highest


@settings(max_examples=15)
@given(seeds())
def test_any_tree_and_discount(seed: int) -> None:
    assert checks.r01_lemma_1(seed=seed, examples=3).passed


def test_top_k_sampling_breaks_it() -> None:
    """Two of three tokens are drawn, scores are those of the full softmax."""
    reward = TASK.reward()
    weight = lemma_1_weight(TASK.tree, TASK.logits, TASK.token_reward)
    sampler = top_k_probability(TASK.tree, TASK.logits, k=2)
    found = mean_direction(TASK.tree, TASK.logits, weight, sampler=sampler)
    assert checks.cosine(found, objective_gradient(TASK.tree, TASK.logits, reward)) < 0.99


def test_rewards_that_depend_on_the_parameters_break_it() -> None:
    """r = π(o_t | o_<t): E Σ_t ∇r_t is missing, and Lemma 1 with it is exact again."""
    tree, logits = TASK.tree, TASK.logits

    def value(z: np.ndarray) -> np.ndarray:
        policy = np.exp(log_policy(tree, z.reshape(logits.shape)))
        return token_values(tree, z.reshape(logits.shape), policy)[0][0, 0]

    policy = np.exp(log_policy(tree, logits))
    found = mean_direction(tree, logits, lemma_1_weight(tree, logits, policy))
    missing = mean_direction(tree, logits, along(tree, policy))  # ∇π = π ∇log π
    direction = np.random.default_rng(0).standard_normal(logits.size)
    slopes = [(value(logits.ravel() + h * direction) - value(logits.ravel() - h * direction)) / (2 * h)
              for h in (1e-3, 5e-4)]  # fmt: skip
    slope = (4 * slopes[1] - slopes[0]) / 3
    assert abs(found @ direction - slope) > 0.01
    assert abs((found + missing) @ direction - slope) < 1e-9


def test_evidence_sees_a_planted_fault() -> None:
    reward = TASK.reward()
    weight = lemma_1_weight(TASK.tree, TASK.logits, TASK.token_reward)
    assert checks.direction_error(TASK, weight, reward) <= ALGEBRA
    assert checks.direction_error(TASK, weight * (1 + PLANTED_FAULT), reward) > ALGEBRA
    one = weight.copy()
    one[0, 0] *= 1 + PLANTED_FAULT
    assert checks.direction_error(TASK, one, reward) > ALGEBRA
    assert checks.r01_lemma_1().passed
    assert answer_probability(TASK.tree, TASK.logits).sum() == pytest.approx(1)
