"""E07: answers of different length."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.estimator_types import random_problem
from vgrad_lab.discrete.off_policy import off_policy_gradient
from vgrad_lab.experiments import verify_estimators as plain
from vgrad_lab.experiments import verify_estimators_tokens as checks
from vgrad_lab.experiments.verify_estimators import bend, deviation, frozen_gradient, mean_of, mean_reward
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE

CASE = random_problem()


def bend_of(name: str, group: int) -> float:
    return bend(mean_of(name, CASE, group=group), CASE.gradient)


def test_counterexample() -> None:
    """By hand: pay (−¼, −⅛, ⅜), so 1/16 for the second logit against 3/32 for the first; truly ⅛ each."""
    found = checks.e07_length()
    assert found.refutes
    assert abs(found.claimed - 1) <= ALGEBRA
    assert abs(found.true - 2 / 3) <= ALGEBRA


def test_token_mean_counterexample() -> None:
    """By hand: with 3 tokens per pair (one short answer) or 4 (none), 7/192 against 1/24."""
    found = checks.e07_token_mean()
    assert found.refutes
    assert abs(found.claimed - 1) <= ALGEBRA
    assert abs(found.true - 7 / 8) <= ALGEBRA
    assert abs(mean_of("token_mean", plain.three_answers((0.0, 0.0, 1.0)), group=2)[1] - 1 / 24) <= ALGEBRA


def test_lengths_bend_the_direction() -> None:
    assert bend_of("sequence_mean", 2) > 0.05
    assert bend_of("token_mean", 2) > 0.01
    for seed in range(20):
        problem = plain.draw_problem(np.random.default_rng(seed))
        if problem.tree.end is None:
            continue
        for name in ("sequence_mean", "token_mean", "grpo"):
            assert bend(mean_of(name, problem, group=2), problem.gradient) > 1e-5


@given(strategies.seeds())
def test_effective_reward(seed: int) -> None:
    assert checks.e07_effective(seed=seed, examples=1).passed


def test_the_bend_does_not_fade_with_the_group() -> None:
    assert max(abs(bend_of("sequence_mean", g) - bend_of("sequence_mean", 2)) for g in (3, 4, 5)) <= ALGEBRA
    truth = 0.5 * frozen_gradient(CASE, (CASE.reward - mean_reward(CASE)) / CASE.tree.length)
    found = mean_of("sequence_mean", CASE, group=2)
    assert deviation(found, truth) <= ALGEBRA
    assert deviation(found, (1 + PLANTED_FAULT) * truth) > ALGEBRA
    assert deviation(found, 0.5 * frozen_gradient(CASE, CASE.reward / CASE.tree.length)) > 0.01, "J does not drop out"


@given(strategies.seeds())
def test_equal_lengths(seed: int) -> None:
    assert checks.e07_equal(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_gspo_is_the_original_grpo(seed: int) -> None:
    assert checks.e07_gspo(seed=seed, examples=1).passed


def test_off_policy_they_differ() -> None:
    """A policy some way from the sampling one: GSPO's slope against GRPO's with token ratios and 1/|o|."""
    rng = np.random.default_rng(0)
    old, pay = CASE.logits + 0.5 * rng.standard_normal(CASE.logits.shape), rng.standard_normal(CASE.tree.size)
    found = checks.surrogate_slope(CASE, pay, behaviour=old)
    original = off_policy_gradient(CASE.tree, CASE.logits, old, pay / CASE.tree.length, ratio="token")
    assert bend(found, original) > 0.01
    same = off_policy_gradient(CASE.tree, CASE.logits, CASE.logits, pay / CASE.tree.length, ratio="token")
    assert deviation(checks.surrogate_slope(CASE, pay), same) <= QUADRATURE
    assert deviation(checks.surrogate_slope(CASE, (1 + PLANTED_FAULT) * pay), same) > QUADRATURE


@given(strategies.seeds())
def test_the_bias_of_the_token_mean_fades(seed: int) -> None:
    assert checks.e07_ratio(seed=seed, examples=1).passed
    bends = [bend_of("token_mean", g) for g in (2, 3, 4, 5)]
    assert bends[0] > bends[1] > bends[2] > bends[3]


def test_bias_times_group_size_settles() -> None:
    problem = plain.three_answers((0.0, 0.5, 2.0))
    limit = checks.first_bias(problem)
    errors = [np.linalg.norm(g * checks.token_mean_bias(problem, g) - limit) for g in (8, 16, 32, 64)]
    assert np.linalg.norm(limit) > 0.01
    assert [a / b for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2, 2], abs=0.2)
    enumerated = mean_of("token_mean", problem, group=4) - 0.75 * problem.gradient / 1.5
    assert deviation(checks.token_mean_bias(problem, 4), enumerated) <= ALGEBRA
