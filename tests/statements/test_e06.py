"""E06: what dividing by the group's standard deviation does on answers of any length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab import strategies
from vgrad_lab.discrete.estimator_types import Options, Problem, random_problem
from vgrad_lab.discrete.groups import group_expectation, labels
from vgrad_lab.discrete.token_tree import response_score
from vgrad_lab.experiments import verify_estimators as checks
from vgrad_lab.experiments.verify_estimators import bend, binary_scale, deviation, mean_of, mean_reward
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

CASE = random_problem()
BINARY = random_problem(binary=True)


def test_counterexample() -> None:
    """By hand: w = (−½, ¼, ¾), so ¼(¾ − ¼)/2 = 1/16 against ½·½ = ¼; the true steps are 9/8 and 11/8."""
    found = checks.e06_real_reward()
    assert found.refutes
    assert abs(found.claimed - 9 / 11) <= ALGEBRA
    assert abs(found.true - 1 / 4) <= ALGEBRA


def test_real_rewards_bend_the_direction() -> None:
    """On one tree with a margin that shrinks with the group; and on every tree that is drawn."""
    bends = [bend(mean_of("standardised", CASE, group=g), CASE.gradient) for g in (2, 3, 4, 5)]
    assert bends[0] > bends[1] > bends[2] > bends[3] > 0.01
    for seed in range(20):
        problem = checks.draw_problem(np.random.default_rng(seed))
        found = mean_of("standardised", problem, group=3, options=Options(eps=1e-4))
        assert bend(found, problem.gradient) > 1e-4


def test_the_bend_fades_with_the_group() -> None:
    """Rewards of three sizes: the bend falls about as 1/G."""
    problem = checks.three_answers((0.0, 1.0, 10.0))
    pays = (checks.effective_reward(problem, group=g) for g in (16, 32, 64, 128))
    bends = [bend(checks.frozen_gradient(problem, pay), problem.gradient) for pay in pays]
    assert bends[0] > bends[1] > bends[2] > bends[3] > 1e-4
    assert 1.8 < bends[2] / bends[3] < 2.3


@given(strategies.seeds())
def test_effective_reward(seed: int) -> None:
    assert checks.e06_effective(seed=seed, examples=1).passed


def test_a_wrong_effective_reward_is_seen() -> None:
    found = mean_of("standardised", CASE, group=3)
    pay = checks.effective_reward(CASE, group=3)
    assert deviation(found, checks.frozen_gradient(CASE, pay)) <= ALGEBRA
    pay[0] *= 1 + PLANTED_FAULT
    assert deviation(found, checks.frozen_gradient(CASE, pay)) > ALGEBRA


@given(strategies.seeds())
def test_binary_scale(seed: int) -> None:
    assert checks.e06_binary(seed=seed, examples=1).passed


def test_a_planted_error_is_seen() -> None:
    found, scale = mean_of("standardised", BINARY, group=4), binary_scale(mean_reward(BINARY), 4)
    assert deviation(found, scale * BINARY.gradient) <= ALGEBRA
    assert deviation(found, (1 + PLANTED_FAULT) * scale * BINARY.gradient) > ALGEBRA
    assert deviation(found, binary_scale(mean_reward(BINARY), 4, ddof=0) * BINARY.gradient) > 0.1


@pytest.mark.parametrize(
    ("group", "p", "expected"), [(8, 0.02, 2.407), (8, 0.1, 2.177), (8, 0.5, 1.736), (2, 0.3, 0.7071)]
)
def test_reference_values(group: int, p: float, expected: float) -> None:
    assert binary_scale(p, group) == pytest.approx(expected, abs=5e-4)
    if group == 8 and p == 0.1:
        assert binary_scale(p, 8) / (1 - p**8 - (1 - p) ** 8) == pytest.approx(3.823, abs=5e-4)


@given(st.integers(3, 97))
def test_the_limit_is_that_of_the_arcsine(percent: int) -> None:
    p = percent / 100
    far, farther = (abs(binary_scale(p, g) * np.sqrt(p * (1 - p)) - 1) for g in (2_000, 20_000))
    assert farther < far / 5
    assert farther < 1e-3
    step = 1e-4
    slope = (np.arcsin(np.sqrt(p + step)) - np.arcsin(np.sqrt(p - step))) / step
    assert slope == pytest.approx(1 / np.sqrt(p * (1 - p)), rel=1e-4)


def test_rewards_of_plus_and_minus_one() -> None:
    """DAPO's rewards: the same direction as for 0 and 1, half the factor against the doubled gradient."""
    signed = Problem(BINARY.tree, BINARY.logits, 2 * BINARY.reward - 1)
    one, other = (mean_of("standardised", problem, group=4) for problem in (BINARY, signed))
    assert deviation(one, other) <= ALGEBRA
    assert deviation(signed.gradient, 2 * BINARY.gradient) <= ALGEBRA


def test_a_batch_of_prompts_is_reweighted() -> None:
    """Two prompts with success .9 and .02 in one batch: each keeps its direction, their sum does not."""
    truth = np.array([0.9 * 0.1, 0.02 * 0.98])
    found = np.array([binary_scale(0.9, 8), binary_scale(0.02, 8)]) * truth
    assert bend(found, truth) > 0.01


@given(strategies.seeds())
def test_sample_and_population(seed: int) -> None:
    assert checks.e06_ddof(seed=seed, examples=1).passed


def test_an_epsilon_breaks_the_ratio() -> None:
    sample, population = (
        mean_of("standardised", CASE, group=3, options=Options(ddof=ddof, eps=0.3)) for ddof in (1, 0)
    )
    assert deviation(sample, np.sqrt(2 / 3) * population) > 0.01
    assert bend(sample, population) > 1e-3


@given(strategies.seeds())
def test_mixed_groups(seed: int) -> None:
    assert checks.e06_mixed(seed=seed, examples=1).passed


def test_without_a_baseline_mixed_groups_bend_it() -> None:
    """REINFORCE is unbiased over all groups; over those that are kept it is bent, or has another factor than 1/P."""
    for problem in (CASE, BINARY):
        reward, score = problem.reward, response_score(problem.tree, problem.logits)
        found = group_expectation(
            problem.probability,
            score,
            lambda member, r=reward: r[member],
            group=2,
            label=labels(reward),
            keep=lambda member, r=reward: np.ptp(r[member], axis=1) > 0,
        )
        assert deviation(found.mean * found.kept, problem.gradient) > 0.01
        if problem is CASE:
            assert bend(found.mean, problem.gradient) > 0.01
