"""E05: group baselines on answers of any length."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.advantage import group_mean, leave_one_out
from vgrad_lab.discrete.estimator_rules import greedy_answer
from vgrad_lab.discrete.estimator_types import Problem, random_problem
from vgrad_lab.discrete.groups import group_expectation, labels
from vgrad_lab.discrete.token_tree import (
    answer_probability,
    objective_gradient,
    response_score,
    token_tree,
    weighted_response_score,
)
from vgrad_lab.discrete.trajectory_gradient import top_k_probability
from vgrad_lab.experiments import verify_estimators as checks
from vgrad_lab.experiments.verify_estimators import bend, deviation, mean_of
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

CASE = random_problem()  # 15 answers of 1 to 3 tokens
SCORE = response_score(CASE.tree, CASE.logits)
RULES = {"rloo": leave_one_out, "group_mean": group_mean}


def effective(probability: np.ndarray, score: np.ndarray) -> np.ndarray:
    """E[(R − E R) g], leave-one-out's mean, when answers are drawn with another probability or scored otherwise."""
    return np.asarray((probability * (CASE.reward - probability @ CASE.reward)) @ score)


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.e05_leave_one_out(seed=seed, examples=1).passed
    assert checks.e05_own_mean(seed=seed, examples=1).passed
    assert checks.e05_greedy(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_extreme_policies(seed: int) -> None:
    """Answers that all but never come, rewards of any size: relative to the largest reward."""
    rng = np.random.default_rng(seed)
    drawn = checks.draw_problem(rng)
    problem = Problem(drawn.tree, 30 * drawn.logits, drawn.reward * 10.0 ** rng.integers(-6, 7))
    found = mean_of("rloo", problem, group=3)
    assert np.max(np.abs(found - problem.gradient)) <= ALGEBRA * np.max(np.abs(problem.reward))


def test_a_planted_error_is_seen() -> None:
    found = mean_of("rloo", CASE, group=3)
    assert deviation(found, CASE.gradient) <= ALGEBRA
    assert deviation((1 + PLANTED_FAULT) * found, CASE.gradient) > ALGEBRA
    found[np.argmax(np.abs(found))] *= 1 + PLANTED_FAULT
    assert bend(found, CASE.gradient) > ALGEBRA


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("group", [2, 3])
def test_the_factor_by_listing_every_tuple(name: str, group: int) -> None:
    """The same means by plain loops over tuples of the smallest tree."""
    problem = checks.three_answers((0.3, -1.0, 2.0))
    score, total = response_score(problem.tree, problem.logits), np.zeros(4)
    for member in np.ndindex(*(3,) * group):
        advantage = RULES[name](problem.reward[None, list(member)])[0]
        weight = np.prod(problem.probability[list(member)])
        total += weight * sum(advantage[i] * score[m] for i, m in enumerate(member)) / group
    factor = 1.0 if name == "rloo" else (group - 1) / group
    np.testing.assert_allclose(total, factor * problem.gradient, rtol=0, atol=ALGEBRA)


def test_draws_without_replacement_break_it() -> None:
    """Two different answers per group: the second is drawn from what the first leaves."""
    pair = np.outer(CASE.probability / (1 - CASE.probability), CASE.probability)
    np.fill_diagonal(pair, 0.0)
    paid = pair * (CASE.reward[:, None] - CASE.reward)
    assert abs(pair.sum() - 1) <= ALGEBRA
    assert bend(0.5 * (paid.sum(1) - paid.sum(0)) @ SCORE, CASE.gradient) > 0.01


def test_another_temperature_breaks_it() -> None:
    for temperature in (0.6, 1.5):
        other = answer_probability(CASE.tree, CASE.logits / temperature)
        assert bend(effective(other, SCORE), CASE.gradient) > 0.01
    assert bend(effective(CASE.probability, SCORE), CASE.gradient) <= ALGEBRA


def test_an_end_that_is_not_scored_breaks_it() -> None:
    kept = CASE.tree.scored & (CASE.tree.tokens != CASE.tree.end)
    score = weighted_response_score(CASE.tree, CASE.logits, kept.astype(float))
    assert bend(effective(CASE.probability, score), CASE.gradient) > 0.1


def test_the_longest_answer_is_no_constant() -> None:
    """Padded length of the batch as divisor (a default of verl) against a constant."""
    length = CASE.tree.length

    def padded(member: np.ndarray) -> np.ndarray:
        return np.asarray(group_mean(CASE.reward[member]) / length[member].max(1, keepdims=True))

    found = group_expectation(CASE.probability, SCORE, padded, group=2, label=labels(CASE.reward, length))
    assert bend(found.mean, CASE.gradient) > 0.01


def test_greedy_answer_by_hand() -> None:
    tree = token_tree(2, 2, end=0)
    logits = np.array([[0.0, 1.0], [0.5, 0.2]])
    assert greedy_answer(Problem(tree, logits, np.zeros(3))) == 1
    assert greedy_answer(Problem(tree, -logits, np.zeros(3))) == 0


def test_truncated_sampling_breaks_it() -> None:
    kept = top_k_probability(CASE.tree, CASE.logits, k=2)
    paid = kept * (CASE.reward - CASE.reward[greedy_answer(CASE)])
    assert bend(paid @ SCORE, CASE.gradient) > 0.1


def test_a_clamped_difference_breaks_it() -> None:
    clamped = np.clip(CASE.reward - CASE.reward[greedy_answer(CASE)], -0.5, 0.5)
    assert bend(objective_gradient(CASE.tree, CASE.logits, clamped), CASE.gradient) > 0.01


def test_a_mean_over_tokens_breaks_it() -> None:
    paid = CASE.probability * (CASE.reward - CASE.reward[greedy_answer(CASE)])
    assert bend((paid / CASE.tree.length) @ SCORE, CASE.gradient) > 0.01
    assert bend(paid @ SCORE, CASE.gradient) <= ALGEBRA
