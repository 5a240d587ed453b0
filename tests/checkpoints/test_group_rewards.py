"""Headroom, κ, pass@k and dead groups from sampled rewards: means over every group, bounds on biases, refusals."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from scipy.stats import binom

from tests.checkpoints.enumerated_groups import Prompt, draw_prompt, groups
from tests.helpers import unchecked
from vgrad_lab.advantage import Baseline
from vgrad_lab.checkpoints import group_headroom as gh
from vgrad_lab.checkpoints import group_rewards as gr
from vgrad_lab.checkpoints.group_estimate import NO_SPREAD, Estimate
from vgrad_lab.checkpoints.group_signal import GroupRule
from vgrad_lab.impact import grpo_scale, headroom, headroom_bernoulli
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT

seeds = st.integers(0, 2**31)
alphas = st.floats(0.05, 8)


def every_group(prompt: Prompt, size: int) -> tuple[ndarray, ndarray]:
    """Rewards of every group, and its chance."""
    index, weight = groups(prompt, size)
    return prompt.reward[index], weight


def per_prompt(estimate: Estimate) -> float:
    """Value of an estimate from one group."""
    assert estimate.value is not None
    return estimate.value


@given(seeds, st.booleans(), alphas, st.sampled_from([2, 3, 5]))
def test_headroom_is_biased_by_no_more_than_its_bound(seed: int, binary: bool, alpha: float, size: int) -> None:
    prompt = draw_prompt(np.random.default_rng(seed), binary=binary)
    reward, weight = every_group(prompt, size)
    found, bound = gh.within_per_prompt(reward, alpha)
    truth = headroom(prompt.reward, alpha, weight=prompt.chance)
    assert abs(float(weight @ found) - truth) <= bound + CLOSED_FORM


def test_the_bound_is_near_and_the_plug_in_exceeds_it() -> None:
    """Worst p of a coin: the bias reaches a quarter of the bound; H of the observed share misses it by far."""
    size, alpha = 6, 1.0
    count = np.arange(size + 1)
    reward = (np.arange(size) < count[:, None]).astype(float)
    found, bound = gh.within_per_prompt(reward, alpha)
    worst = plug_in = 0.0
    for p in np.linspace(0, 1, 101):
        weight = np.array([math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in count])
        truth = headroom_bernoulli(np.array([p]), alpha)[0]
        worst = max(worst, abs(weight @ found - truth))
        plug_in = max(plug_in, abs(weight @ headroom_bernoulli(count / size, alpha) - truth))
    assert bound / 4 <= worst <= bound <= 1e-4 < plug_in / 100


def test_no_polynomial_is_the_headroom() -> None:
    """A function of k of G coins has a polynomial in p of degree ≤ G as its mean: the (G+1)-th difference is zero."""
    p = np.linspace(0.1, 0.9, 6)
    assert abs(np.diff(p**4, 5)).max() <= 1e-12 < abs(np.diff(headroom_bernoulli(p, 5.0), 5)).max()


@given(seeds)
def test_headroom_of_equal_rewards_is_zero(seed: int) -> None:
    level = float(np.random.default_rng(seed).uniform())
    found = gh.headroom_within(np.full((5, 12), level), 1.0)
    assert per_prompt(found) == pytest.approx(0, abs=found.bias + 1e-12)


@given(st.floats(1e-12, 60), st.integers(2, 40))
def test_a_headroom_that_is_printed_is_nearly_unbiased(alpha: float, tosses: int) -> None:
    """Of coins, at any α: rounding at small α and cut series at large α leave it undefined rather than wrong."""
    count, p = np.arange(tosses + 1), np.linspace(0, 1, 11)
    reward = (np.arange(tosses) < count[:, None]).astype(float)
    if gh.headroom_within(reward, alpha).value is not None:
        found, bound = gh.within_per_prompt(reward, alpha)
        truth = headroom_bernoulli(p, alpha) if alpha > 1e-5 else alpha * p * (1 - p) / 2
        bias = np.abs(binom.pmf(count, tosses, p[:, None]) @ found - truth).max()
        assert bias <= bound + 1e-10 * alpha <= 1.1e-5 * min(1, alpha)
    else:
        assert alpha < 1e-5 or tosses < 60 * (1 + alpha)


def test_rewards_beyond_the_unit_interval_break_the_bound() -> None:
    prompt = draw_prompt(np.random.default_rng(0))
    reward, weight = every_group(Prompt(prompt.chance, prompt.score, 3 * prompt.reward), 5)
    found, bound = gh.within_per_prompt(reward, 1.0)
    assert abs(float(weight @ found) - headroom(3 * prompt.reward, 1.0, weight=prompt.chance)) > 100 * bound
    assert gh.headroom_within(reward, 1.0) == Estimate(None, None, gh.OUT_OF_RANGE)
    assert gh.headroom_between(reward, 1.0) == Estimate(None, None, gh.OUT_OF_RANGE)


def test_answers_that_are_not_independent_break_the_bound() -> None:
    reward, weight = every_group(draw_prompt(np.random.default_rng(0)), 1)
    found, bound = gh.within_per_prompt(np.repeat(reward, 8, axis=1), 1.0)
    prompt = draw_prompt(np.random.default_rng(0))
    assert abs(float(weight @ found) - headroom(prompt.reward, 1.0, weight=prompt.chance)) > 100 * bound


@pytest.mark.parametrize("seed", range(4))
def test_headroom_between_prompts_is_biased_by_no_more_than_its_bound(seed: int) -> None:
    """Three prompts drawn from two, two answers each: every outcome with its chance."""
    rng, alpha = np.random.default_rng(seed), 0.3
    both = [draw_prompt(rng, answers=2) for _ in range(2)]
    cases = [(row, w / 2) for p in both for row, w in zip(*every_group(p, 2), strict=True)]
    mean = plug_in = 0.0
    for three in product(cases, repeat=3):
        reward, weight = np.stack([row for row, _ in three]), math.prod(float(w) for _, w in three)
        parts = gh.between(reward, alpha, 3)
        mean += weight * float(parts.value(np.arange(3)))
        plug_in += weight * headroom(reward.mean(1), alpha)
    truth = headroom(np.array([p.success for p in both]), alpha)
    assert abs(mean - truth) <= parts.bias + CLOSED_FORM
    assert abs(plug_in - truth) > 2 * parts.bias


def test_headroom_between_prompts_has_a_standard_error_that_covers() -> None:
    rng = np.random.default_rng(3)
    success = np.array([0.05, 0.4, 0.9])
    truth, hit = headroom(success, 1.0), 0
    for _ in range(60):
        p = rng.choice(success, 40)
        found = gh.headroom_between((rng.random((40, 12)) < p[:, None]).astype(float), 1.0)
        assert found.standard_error is not None
        hit += abs(per_prompt(found) - truth) <= 1.96 * found.standard_error
    assert hit >= 49


@given(seeds, st.integers(2, 9), st.integers(1, 6))
def test_power_means_are_means_over_subsets(seed: int, size: int, degree: int) -> None:
    from itertools import combinations

    x = np.random.default_rng(seed).normal(size=size)
    degree = min(degree, size)
    found = gh.power_means(x[None], degree)[0]
    for j in range(degree + 1):
        brute = np.mean([np.prod(x[list(c)]) for c in combinations(range(size), j)])
        assert found[j] == pytest.approx(brute, rel=1e-9, abs=1e-9)


@given(seeds, st.integers(2, 5), st.sampled_from(["standardised", "group_mean", "leave_one_out"]))
def test_scale_has_the_right_mean(seed: int, size: int, baseline: Baseline) -> None:
    prompt, rule = draw_prompt(np.random.default_rng(seed)), GroupRule(size, baseline)
    reward, weight = every_group(prompt, 5)
    won = np.array([per_prompt(gr.scale((np.arange(5) < s)[None].astype(float), rule)) for s in range(6)])
    mean = float(weight @ won[reward.sum(1).astype(int)])
    truth = float(grpo_scale(np.array([prompt.success]), size, baseline=baseline)[0])
    assert abs(mean - truth) <= CLOSED_FORM * truth
    assert abs((1 + PLANTED_FAULT) * mean - truth) > CLOSED_FORM * truth


@given(seeds, st.integers(1, 5))
def test_pass_and_dead_groups_have_the_right_mean(seed: int, k: int) -> None:
    prompt = draw_prompt(np.random.default_rng(seed))
    reward, weight = every_group(prompt, 5)
    rows, which = np.unique(reward, axis=0, return_inverse=True)
    chance, p = np.bincount(which.reshape(-1), weight), prompt.success
    passed = chance @ [per_prompt(gr.pass_at_k(row[None], k)) for row in rows]
    dead = chance @ [per_prompt(gr.dead_share(row[None], k)) for row in rows]
    assert abs(passed - (1 - (1 - p) ** k)) <= CLOSED_FORM
    assert abs(dead - (p**k + (1 - p) ** k if k > 1 else 1.0)) <= CLOSED_FORM


def test_dead_groups_of_real_rewards() -> None:
    """Three rewards 1, 1, 2, 2, 2, 5: pairs that agree are 1 + 3 of 15."""
    reward = np.array([[2.0, 1.0, 2.0, 5.0, 1.0, 2.0]])
    assert per_prompt(gr.dead_share(reward, 2)) == pytest.approx(4 / 15)
    assert per_prompt(gr.dead_share(reward, 3)) == pytest.approx(1 / 20)


def test_mean_and_variance_over_prompts() -> None:
    reward = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert gr.reward_mean(reward) == Estimate(0.75, 0.25)
    assert per_prompt(gr.reward_variance(reward)) == pytest.approx(1 / 6)


def test_what_is_undefined_says_why() -> None:
    real, coins = np.full((3, 4), 0.5), np.zeros((3, 4))
    assert gr.pass_at_k(real, 2).reason == "rewards other than 0 and 1: no success to count"
    assert gr.pass_at_k(coins, 5).reason == "needs 5 answers per prompt, got 4"
    assert gr.dead_share(coins, 5).reason == "needs 5 answers per prompt, got 4"
    assert gr.scale(real, GroupRule(4)).reason.startswith("rewards other than 0 and 1")
    assert gr.scale(coins, GroupRule(6)).reason == "needs 5 answers per prompt, got 4"
    assert gr.reward_variance(coins[:, :1]).reason == "needs 2 answers per prompt, got 1"
    assert "may be biased by" in gh.headroom_within(coins, 5.0).reason
    assert "may be biased by" in gh.headroom_within(coins, 1e4).reason
    assert gh.headroom_between(coins[:1], 0.1).reason == "needs 2 prompts, got 1"
    assert "with 3 prompts" in gh.headroom_between(coins, 2.0).reason
    silent = (gr.reward_mean(coins), gr.dead_share(coins, 2), gh.headroom_within(np.zeros((3, 16)), 1.0))
    assert {e.reason for e in silent} == {NO_SPREAD}
    assert {e.standard_error for e in silent} == {None}
    assert gh.headroom_between(np.zeros((20, 16)), 1.0).reason == NO_SPREAD
    assert gr.scale(coins, GroupRule(2)).standard_error == 0  # κ_2 is one number, whatever p


def test_bad_input_is_refused() -> None:
    coins = np.zeros((3, 4))
    for alpha in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="alpha must be positive"):
            gh.headroom_within(coins, alpha)
    with pytest.raises(ValueError, match="k must be at least 1"):
        gr.pass_at_k(coins, 0)
    with pytest.raises(ValueError, match="cannot draw 5 of 4"):
        gr.choose_share(np.ones(2), 4, 5)
    with pytest.raises(ValueError, match="4 samples allow powers"):
        gh.power_means(coins, 5)
    with pytest.raises(ValueError, match="reward holds non-finite"):
        unchecked(gr.reward_mean)(coins + np.nan)


def test_a_factor_that_no_p_changes_has_no_error() -> None:
    """κ of standardised pairs is one number, whatever p: what the sums leave is rounding, not a spread."""
    rng = np.random.default_rng(0)
    reward = (rng.random((30, 8)) < rng.random((30, 1))).astype(float)
    found = gr.scale(reward, GroupRule(2, "standardised", ddof=1, eps=1e-4))
    assert found.standard_error == 0
    assert found.value == pytest.approx(grpo_scale(np.array([0.3]), 2)[0])
