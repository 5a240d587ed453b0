"""R04: eq. 26 of the response-level paper is Lemma 1 without its factor γ^{t−1}."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import fifteen_answers
from vgrad_lab.discrete.token_tree import objective_gradient
from vgrad_lab.discrete.trajectory_gradient import (
    equation_26_weight,
    lemma_1_weight,
    mean_direction,
    theorem_1_weight,
    token_values,
)
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

TASK = fifteen_answers()


@settings(max_examples=15)
@given(seeds())
def test_it_is_the_mean_of_the_action_values(seed: int) -> None:
    assert checks.r04_equation_26(seed=seed, examples=3).passed


@pytest.mark.parametrize(("discount", "cosine"), [(0.9, 0.9993), (0.5, 0.9854)])
def test_with_the_factor_kept_it_is_another_direction(discount: float, cosine: float) -> None:
    """Lemma 1 with γ^{t−1} is ∇J, and eq. 26 is not."""
    reward = TASK.reward(discount=discount)
    truth = objective_gradient(TASK.tree, TASK.logits, reward)
    weight = equation_26_weight(TASK.tree, TASK.logits, reward, discount=discount)
    kept = lemma_1_weight(TASK.tree, TASK.logits, TASK.token_reward, discount=discount)
    assert checks.relative(mean_direction(TASK.tree, TASK.logits, kept), truth) <= ALGEBRA
    found = mean_direction(TASK.tree, TASK.logits, weight)
    assert round(checks.cosine(found, truth), 4) == cosine
    assert checks.relative(found, truth) > 0.01


@pytest.mark.parametrize(("discount", "cosine"), [(0.9, 0.9991), (0.5, 0.9162)])
def test_a_reward_that_is_no_discounted_sum(discount: float, cosine: float) -> None:
    """With RM = Σ r and Q of another γ the two differ; the cosine is that of eq. 26 with ∇E[RM]."""
    reward = TASK.reward()
    weight = equation_26_weight(TASK.tree, TASK.logits, reward, discount=discount)
    q = token_values(TASK.tree, TASK.logits, TASK.token_reward, discount=discount)[1]
    found, other = (mean_direction(TASK.tree, TASK.logits, w) for w in (weight, q))
    assert checks.relative(found, other) > 0.01
    assert round(checks.cosine(found, objective_gradient(TASK.tree, TASK.logits, reward)), 4) == cosine


def test_without_a_discount_it_is_theorem_1() -> None:
    reward = TASK.reward()
    found = equation_26_weight(TASK.tree, TASK.logits, reward, discount=1.0)
    np.testing.assert_array_equal(found, theorem_1_weight(TASK.tree, TASK.logits, reward))


def test_evidence_sees_a_planted_fault() -> None:
    assert checks.r04_equation_26().passed
    weight = equation_26_weight(TASK.tree, TASK.logits, TASK.reward(discount=0.5), discount=0.5)
    q = token_values(TASK.tree, TASK.logits, TASK.token_reward, discount=0.5)[1]
    found, truth = (mean_direction(TASK.tree, TASK.logits, w) for w in (weight * (1 + PLANTED_FAULT), q))
    assert checks.relative(found, truth) > ALGEBRA
