"""R06: facts that hold on every single answer, not only in the mean."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.advantage import gae
from vgrad_lab.discrete.token_task import along, fifteen_answers
from vgrad_lab.discrete.token_tree import objective
from vgrad_lab.discrete.trajectory_gradient import (
    response_advantage,
    theorem_2_advantage,
    token_values,
    value_baseline_advantage,
)
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

TASK = fifteen_answers()


@settings(max_examples=15)
@given(seeds())
def test_differences_are_advantages_and_add_up(seed: int) -> None:
    assert checks.r06_pointwise(seed=seed, examples=3).passed


def test_differences_of_a_mean_are_other_advantages() -> None:
    """RM = (Σ r)/T: they still add up to RM − E[RM], but they are not Q − V."""
    reward = TASK.reward() / TASK.tree.length
    found = theorem_2_advantage(TASK.tree, TASK.logits, reward)
    v, q = token_values(TASK.tree, TASK.logits, TASK.token_reward)
    assert np.abs(found - (q - v)).max() > 0.1
    centred = reward - objective(TASK.tree, TASK.logits, reward)
    np.testing.assert_allclose(found.sum(1), centred, atol=ALGEBRA)


@settings(max_examples=15)
@given(seeds())
def test_hidden_rewards_say_nothing_more(seed: int) -> None:
    assert checks.r06_hidden(seed=seed, examples=3).passed


def test_hidden_rewards_say_more_at_the_prompts_baseline() -> None:
    """RM − E[RM] on every token is not G_t − V(prompt)."""
    mean = objective(TASK.tree, TASK.logits, TASK.reward())
    found = response_advantage(TASK.tree, TASK.reward(), baseline=mean)
    hidden = (checks.returns(TASK, discount=1.0) - mean) * TASK.tree.scored
    assert np.abs(found - hidden).max() > 0.1


def test_hidden_rewards_of_another_sum_differ() -> None:
    found = value_baseline_advantage(TASK.tree, TASK.logits, np.tanh(TASK.reward()))
    v, _ = token_values(TASK.tree, TASK.logits, TASK.token_reward)
    hidden = checks.returns(TASK, discount=1.0) - v
    assert np.abs((found - hidden)[TASK.tree.scored]).max() > 0.1


@settings(max_examples=15)
@given(seeds())
def test_gae_does_not_see_when_rewards_are_paid(seed: int) -> None:
    assert checks.r06_gae(seed=seed, examples=3).passed


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_gae_with_one_wrong_critic_for_both_does_see_it(decay: float) -> None:
    """A critic that says 0 everywhere: at λ = 0 the advantages are the rewards themselves."""
    paid = along(TASK.tree, TASK.token_reward)
    end = np.where(np.arange(3) == TASK.tree.length[:, None] - 1, paid.sum(1, keepdims=True), 0.0)
    first, late = (gae(reward, np.zeros((15, 4)), decay=decay) for reward in (paid, end))
    assert np.abs(first - late).max() > 0.1


@pytest.mark.parametrize("discount", [0.9, 0.5])
def test_gae_with_a_discount_does_see_it(discount: float) -> None:
    first, late = checks.two_placements(TASK, decay=0.95, discount=discount)
    assert np.abs(first - late).max() > 0.1


def test_gae_with_one_error_in_both_critics_does_not_see_it() -> None:
    """Exact critics differ by what is already paid; only that matters, not that they are exact."""
    error = np.random.default_rng(0).normal(size=len(TASK.tree.prefixes))
    first, late = checks.two_placements(TASK, decay=0.5, critic_error=error)
    assert np.abs(first - late).max() <= ALGEBRA


def test_evidence_sees_a_planted_fault() -> None:
    assert checks.r06_pointwise().passed
    assert checks.r06_hidden().passed
    assert checks.r06_gae().passed
    found = theorem_2_advantage(TASK.tree, TASK.logits, TASK.reward())
    v, q = token_values(TASK.tree, TASK.logits, TASK.token_reward)
    assert np.abs(found * (1 + PLANTED_FAULT) - (q - v)).max() > ALGEBRA
