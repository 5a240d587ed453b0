"""R03: the trajectory policy gradient theorem (Theorem 1): the response-level reward is enough, and what breaks it."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import TokenTask, along, fifteen_answers
from vgrad_lab.discrete.token_tree import (
    answer_probability,
    linear_logits,
    objective_gradient,
    pull_back,
    token_tree,
)
from vgrad_lab.discrete.trajectory_gradient import (
    lemma_1_weight,
    mean_direction,
    response_advantage,
    theorem_1_weight,
    top_k_probability,
)
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT

TASK = fifteen_answers()
TRUTH = objective_gradient(TASK.tree, TASK.logits, TASK.reward())


def response_direction(reward: np.ndarray) -> np.ndarray:
    """E RM g with some response-level reward."""
    return mean_direction(TASK.tree, TASK.logits, response_advantage(TASK.tree, reward))


@settings(max_examples=15)
@given(seeds())
def test_the_response_is_enough(seed: int) -> None:
    assert checks.r03_theorem_1(seed=seed, examples=3).passed


@pytest.mark.parametrize("discount", checks.DISCOUNTS)
def test_whatever_the_discount(discount: float) -> None:
    reward = TASK.reward(discount=discount)
    lemma = mean_direction(
        TASK.tree, TASK.logits, lemma_1_weight(TASK.tree, TASK.logits, TASK.token_reward, discount=discount)
    )
    for weight in (theorem_1_weight(TASK.tree, TASK.logits, reward), response_advantage(TASK.tree, reward)):
        assert checks.relative(mean_direction(TASK.tree, TASK.logits, weight), lemma) <= ALGEBRA
    planted = response_advantage(TASK.tree, reward) * (1 + PLANTED_FAULT)
    assert checks.direction_error(TASK, planted, reward) > ALGEBRA


@settings(max_examples=15)
@given(seeds())
def test_other_token_rewards_with_the_same_sum(seed: int) -> None:
    """Rewards moved by a potential that is zero at the end: Q changes, Lemma 1's mean and Theorem 1 do not."""
    potential = np.append(np.random.default_rng(seed).normal(size=len(TASK.tree.prefixes)), 0.0)
    potential[0] = 0.0  # of the prompt
    after = np.full(TASK.logits.shape, len(TASK.tree.prefixes))
    for row, prefix in enumerate(TASK.tree.prefixes[1:], start=1):
        after[TASK.tree.prefixes.index(prefix[:-1]), prefix[-1]] = row
    moved = TokenTask(TASK.tree, TASK.logits, TASK.token_reward + potential[after] - potential[:-1, None])
    np.testing.assert_allclose(moved.reward(), TASK.reward(), atol=1e-13)
    weights = [lemma_1_weight(t.tree, t.logits, t.token_reward) for t in (TASK, moved)]
    if np.abs(potential).max() > 0.1:
        assert np.abs(weights[0] - weights[1]).max() > 1e-3
    for weight in weights:
        assert checks.relative(mean_direction(TASK.tree, TASK.logits, weight), TRUTH) <= ALGEBRA


def test_noise_with_mean_zero_given_the_answer() -> None:
    """A second, fair coin for each answer: ±1 is added, by listing both."""
    up, down = (response_direction(TASK.reward() + sign) for sign in (1.0, -1.0))
    assert checks.relative((up + down) / 2, TRUTH) <= ALGEBRA


@pytest.mark.parametrize(
    ("name", "printed"), [("mean of the tokens", 0.878), ("threshold", 0.964), ("tanh", 0.991), ("last token", -0.208)]
)
def test_rewards_that_are_no_sum_break_it(name: str, printed: float) -> None:
    """The published cosines, to all digits."""
    reward, length = TASK.reward(), TASK.tree.length
    paid = along(TASK.tree, TASK.token_reward)
    seen = {
        "mean of the tokens": reward / length,
        "threshold": (reward > 0).astype(float),
        "tanh": np.tanh(reward),
        "last token": paid[np.arange(len(paid)), length - 1],
    }[name]
    assert round(checks.cosine(response_direction(seen), TRUTH), 3) == printed


def test_top_k_sampling_breaks_it() -> None:
    """The published cosines: .881 with the reward centred under the sampler, .072 with 5 added and no baseline."""
    sampler, reward = top_k_probability(TASK.tree, TASK.logits, k=2), TASK.reward()
    for seen, printed in ((reward - sampler @ reward, 0.881), (reward + 5, 0.072), (reward, 0.850)):
        found = mean_direction(TASK.tree, TASK.logits, response_advantage(TASK.tree, seen), sampler=sampler)
        assert round(checks.cosine(found, TRUTH), 3) == printed


@pytest.mark.parametrize(("discount", "printed", "plain"), [(0.9, 0.975, 0.997), (0.5, 0.602, 0.838)])
def test_a_discounted_reward_at_the_end_is_another_objective(discount: float, printed: float, plain: float) -> None:
    """∇E[γ^(T−1) RM] with 2 added to every RM (the published cosine), and without."""
    for offset, cosine in ((2.0, printed), (0.0, plain)):
        late = discount ** (TASK.tree.length - 1) * (TASK.reward() + offset)
        assert round(checks.cosine(response_direction(late), TRUTH), 3) == cosine


@pytest.mark.parametrize(("discount", "printed"), [(0.9, 0.9993), (0.5, 0.9859)])
def test_the_printed_zero_reward_form(discount: float, printed: float) -> None:
    weight = response_advantage(TASK.tree, TASK.reward()) * discount ** np.arange(3)
    assert round(checks.cosine(mean_direction(TASK.tree, TASK.logits, weight), TRUTH), 4) == printed
    assert checks.r03_zero_reward().refutes


@settings(max_examples=15)
@given(seeds())
def test_the_direction_fixes_the_reward(seed: int) -> None:
    assert checks.r03_only(seed=seed, examples=3).passed


def test_parameters_that_prefixes_share_may_not_see_a_difference() -> None:
    """One parameter that only moves the first token: rewards that differ behind it have the same gradient."""
    features = np.zeros((*TASK.logits.shape, 1))
    features[0, 0] = 1.0
    logits = linear_logits(features, np.array([0.3]))
    chance = answer_probability(TASK.tree, logits)
    other = TASK.reward()
    for token in range(3):
        rows = TASK.tree.tokens[:, 0] == token
        other[rows] = chance[rows] @ TASK.reward()[rows] / chance[rows].sum()
    assert np.abs(other - TASK.reward()).max() > 0.5
    found, truth = (pull_back(features, objective_gradient(TASK.tree, logits, r)) for r in (other, TASK.reward()))
    assert checks.relative(found, truth) <= ALGEBRA


def test_a_token_that_never_comes_is_not_seen() -> None:
    tree, logits = token_tree(2, 1, end=None), np.array([[0.0, -800.0]])
    gradients = [objective_gradient(tree, logits, np.array([1.0, r])) for r in (0.0, 5.0)]
    np.testing.assert_array_equal(gradients[0], gradients[1])


def test_evidence_sees_a_planted_fault() -> None:
    assert checks.r03_theorem_1().passed
    assert checks.r03_only().passed
    direction = objective_gradient(TASK.tree, TASK.logits, TASK.reward()) * (1 + PLANTED_FAULT)
    centred = TASK.reward() - answer_probability(TASK.tree, TASK.logits) @ TASK.reward()
    assert checks.relative(checks.recovered_reward(TASK.tree, TASK.logits, direction), centred) > CLOSED_FORM
