"""Unbiased Σ, Λ and alignment: the mean over every possible group of answers is the exact quantity."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from tests.checkpoints.enumerated_groups import Prompt, draw_prompt, groups, mean_of, rewards_and_products
from tests.helpers import unchecked
from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.checkpoints import group_signal as gs
from vgrad_lab.checkpoints.group_estimate import (
    ONE_PROMPT,
    Estimate,
    check_reward,
    jackknife,
    over_prompts,
    product_of_means,
)
from vgrad_lab.checkpoints.group_signal import GroupRule
from vgrad_lab.impact import grpo_scale
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT

seeds = st.integers(0, 2**31)
BASELINES: tuple[Baseline, ...] = ("standardised", "group_mean", "leave_one_out")


def plug_in(reward: ndarray, gram: ndarray) -> ndarray:
    """‖(1/(G−1)) Σ (R_i − R̄) s_i‖²: every answer meets itself."""
    weight = (reward - reward.mean(1, keepdims=True)) / (reward.shape[1] - 1)
    return np.asarray(np.einsum("qi,qij,qj->q", weight, gram, weight))


def close(found: float, truth: float, scale: float = 0.0) -> bool:
    return abs(found - truth) <= CLOSED_FORM * max(abs(truth), scale, 1e-6)


@given(seeds, st.booleans(), st.sampled_from([4, 5]))
def test_signal_has_the_right_mean(seed: int, binary: bool, size: int) -> None:
    prompt = draw_prompt(np.random.default_rng(seed), binary=binary, answers=4)
    found = mean_of(gs.signal_per_prompt, prompt, size)
    assert close(found, prompt.signal)
    assert not close((1 + PLANTED_FAULT) * found, prompt.signal)


def test_an_answer_that_meets_itself_is_seen() -> None:
    prompt = draw_prompt(np.random.default_rng(0))
    assert mean_of(plug_in, prompt, 4) > 1.5 * prompt.signal


@given(seeds, st.integers(4, 9))
def test_signal_is_the_mean_over_disjoint_pairs(seed: int, size: int) -> None:
    """The closed form against the definition, brute force over i, j, k, l."""
    rng = np.random.default_rng(seed)
    reward, score = rng.normal(size=(1, size)), rng.normal(size=(size, 3))
    pair = 0.5 * (reward[0][:, None] - reward[0])[..., None] * (score[:, None] - score)
    both = np.einsum("ijs,kls->ijkl", pair, pair)
    i, j, k, l = np.indices(both.shape)  # noqa: E741
    apart = (i != j) & (k != l) & (i != k) & (i != l) & (j != k) & (j != l)
    found = gs.signal_per_prompt(reward, (score @ score.T)[None])[0]
    assert found == pytest.approx(both[apart].mean(), rel=1e-9, abs=1e-9)
    shifted = gs.signal_per_prompt(reward + 7.0, (score @ score.T)[None])[0]
    assert shifted == pytest.approx(found, rel=1e-9, abs=1e-9)


@given(seeds, st.booleans(), st.sampled_from(BASELINES), st.sampled_from([(2, 4), (2, 5), (3, 5)]))
def test_alignment_has_the_right_mean(seed: int, binary: bool, baseline: Baseline, sizes: tuple[int, int]) -> None:
    """For any rewards and baseline, also where E λ̂ is no multiple of G."""
    prompt, rule = draw_prompt(np.random.default_rng(seed), binary=binary, answers=4), GroupRule(sizes[0], baseline)
    truth = float(prompt.costate(rule) @ prompt.gradient)
    found = mean_of(lambda r, g: gs.alignment_per_prompt(r, g, rule), prompt, sizes[1])
    assert close(found, truth, prompt.signal)
    assert not close(found + PLANTED_FAULT * prompt.signal, truth, prompt.signal)
    if baseline != "standardised":
        assert close(truth, (1 if baseline == "leave_one_out" else 1 - 1 / sizes[0]) * prompt.signal)


def test_a_gradient_from_the_same_group_is_seen() -> None:
    prompt, rule = draw_prompt(np.random.default_rng(1)), GroupRule(4)

    def overlapping(reward: ndarray, gram: ndarray) -> ndarray:
        advantage = from_group(reward) / 4
        centred = (reward - reward.mean(1, keepdims=True)) / 3
        return np.asarray(np.einsum("qi,qij,qj->q", advantage, gram, centred))

    assert mean_of(overlapping, prompt, 4) > 1.2 * float(prompt.costate(rule) @ prompt.gradient)


@given(seeds, st.booleans(), st.sampled_from(BASELINES))
def test_costate_square_has_the_right_mean(seed: int, binary: bool, baseline: Baseline) -> None:
    prompt, rule = draw_prompt(np.random.default_rng(seed), binary=binary), GroupRule(2, baseline)
    costate = prompt.costate(rule)
    found = mean_of(lambda r, g: gs.costate_square_per_prompt(r, g, rule), prompt, 4)
    assert close(found, float(costate @ costate), prompt.signal)


@given(seeds, st.sampled_from([2, 3]), st.sampled_from(BASELINES))
def test_gap_of_binary_rewards_has_the_right_mean(seed: int, size: int, baseline: Baseline) -> None:
    """Λ = ‖G‖ ‖E λ̂ − G‖ (eq. 26) of one prompt; for n = 2 κ lies below 1, for n = 3 above."""
    prompt, rule = draw_prompt(np.random.default_rng(seed)), GroupRule(size, baseline)
    index, weight = groups(prompt, size + 2)
    estimates = gs.estimate_signal(*rewards_and_products(prompt, index), rule)
    assert estimates.usable is not None
    truth = np.linalg.norm(prompt.gradient) * np.linalg.norm(prompt.costate(rule) - prompt.gradient)
    assert close(float(weight @ estimates.usable), prompt.signal - float(truth), prompt.signal)
    kappa = float(grpo_scale(np.array([prompt.success]), size, baseline=baseline)[0])
    assert close(float(truth), abs(kappa - 1) * prompt.signal, prompt.signal)
    assert gs.one_sided(rule) == (1 if baseline == "leave_one_out" or kappa > 1 else -1)


@given(st.integers(2, 40), st.floats(0, 2), st.sampled_from([0, 1]))
def test_one_sided_is_never_wrong(size: int, eps: float, ddof: int) -> None:
    side = gs.one_sided(GroupRule(size, eps=eps, ddof=ddof))
    kappa = grpo_scale(np.linspace(0, 1, 101), size, eps=eps, ddof=ddof)
    assert np.all(side * (kappa - 1) >= -1e-12)


def test_usual_groups_are_one_sided() -> None:
    assert [gs.one_sided(GroupRule(n)) for n in (2, 3, 4, 8, 16, 64)] == [-1, 1, 1, 1, 1, 1]
    assert gs.one_sided(GroupRule(8, eps=0.5)) == 0


def test_gap_of_other_rewards_is_undefined() -> None:
    """Standardised real rewards: E λ̂ is not parallel to G, and ±(E⟨λ̂,G⟩ − Σ) is not Λ."""
    chance = np.array([0.45, 0.45, 0.1])
    prompt, rule = Prompt(chance, np.eye(3) - chance, np.array([0.0, 1.0, 10.0])), GroupRule(3)
    costate = prompt.costate(rule)
    gap = np.linalg.norm(prompt.gradient) * np.linalg.norm(costate - prompt.gradient)
    assert gap > (1 + 10 * PLANTED_FAULT) * abs(float(costate @ prompt.gradient) - prompt.signal)
    index, _ = groups(prompt, 6)
    found = gs.estimate_signal(*rewards_and_products(prompt, index[:400]), rule)
    assert found.gap.value is None
    assert found.usable is None
    assert "parallel" in found.gap.reason
    assert found.alignment.value is not None
    assert found.bias_squared.value is not None


def test_bias_squared_has_the_right_mean_and_bounds_the_gap() -> None:
    prompt, rule = draw_prompt(np.random.default_rng(5), binary=False, answers=4), GroupRule(2)
    off = prompt.costate(rule) - prompt.gradient

    def bias(r: ndarray, g: ndarray) -> ndarray:
        cross = gs.alignment_per_prompt(r, g, rule)
        return gs.costate_square_per_prompt(r, g, rule) - 2 * cross + gs.signal_per_prompt(r, g)

    assert close(mean_of(bias, prompt, 4), float(off @ off), prompt.signal)
    index, weight = groups(prompt, 4)
    many = np.random.default_rng(0).choice(len(index), 4000, p=weight / weight.sum())
    found = gs.estimate_signal(*rewards_and_products(prompt, index[many]), rule).bias_squared
    assert found.value is not None
    assert found.standard_error is not None
    assert abs(found.value - float(off @ off)) <= 6 * found.standard_error


def test_answers_of_another_policy_break_it() -> None:
    prompt = draw_prompt(np.random.default_rng(3))
    law = np.roll(prompt.chance, 1)
    found = mean_of(gs.signal_per_prompt, prompt, 4, law=law)
    assert abs(found - prompt.signal) > 10 * PLANTED_FAULT * prompt.signal


def test_answers_that_are_not_independent_break_it() -> None:
    """Second half of a group equal to the first: pairs of the halves meet themselves."""
    prompt = draw_prompt(np.random.default_rng(3))
    index, weight = groups(prompt, 2)
    found = float(weight @ gs.signal_per_prompt(*rewards_and_products(prompt, np.hstack([index, index]))))
    assert abs(found - prompt.signal) > 10 * PLANTED_FAULT * prompt.signal


def test_a_state_that_the_prompt_does_not_fix_breaks_it() -> None:
    """Two prefixes with opposite G under one prompt: E‖G‖² is 1 on average, the pooled estimate has mean 0."""
    half = np.array([[1.0], [-1.0]])
    pooled = Prompt(np.full(4, 0.25), np.vstack([half, half]), np.array([1.0, 0.0, 0.0, 1.0]))
    parts = [Prompt(np.full(2, 0.5), half, pooled.reward[i : i + 2]) for i in (0, 2)]
    assert [p.signal for p in parts] == [0.25, 0.25]
    assert mean_of(gs.signal_per_prompt, pooled, 4) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("binary", [True, False])
def test_standard_errors_cover(binary: bool) -> None:
    """1.96 standard errors around the estimate hold the truth in about 95 % of samples of 40 prompts."""
    rng = np.random.default_rng(7)
    prompts = [draw_prompt(rng, binary=binary) for _ in range(6)]
    rule, runs, drawn = GroupRule(4), 400, 40
    which = rng.integers(0, len(prompts), (runs, drawn))
    truth = {
        "signal": float(np.mean([p.signal for p in prompts])),
        "alignment": float(np.mean([p.costate(rule) @ p.gradient for p in prompts])),
    }
    hit = dict.fromkeys(truth, 0)
    reward, gram = np.empty((runs, drawn, 8)), np.empty((runs, drawn, 8, 8))
    for k, p in enumerate(prompts):
        here = which == k
        answers = rng.choice(len(p.chance), size=(int(here.sum()), 8), p=p.chance)
        reward[here], gram[here] = rewards_and_products(p, answers)
    for run in range(runs):
        found = gs.estimate_signal(reward[run], gram[run], rule)
        for name in truth:
            estimate: Estimate = getattr(found, name)
            assert estimate.value is not None
            assert estimate.standard_error is not None
            hit[name] += abs(estimate.value - truth[name]) <= 1.96 * estimate.standard_error
    for name, count in hit.items():
        assert 0.87 <= count / runs <= 0.99, (name, count / runs)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=30)
    found, direct = jackknife(lambda i: x[i].mean(-1), 30), over_prompts(x)
    assert found.value == pytest.approx(direct.value)
    assert found.standard_error == pytest.approx(direct.standard_error)


def test_product_of_means_has_the_right_mean() -> None:
    """Two correlated numbers a prompt, three prompts enumerated; a prompt that meets itself is seen."""
    pairs = np.array([[1.0, 2.0], [3.0, 5.0], [-1.0, 0.0]])
    index = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    found = [product_of_means(*pairs[i].T).value for i in index]
    truth = float(np.prod(pairs.mean(0)))
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(truth, rel=1e-12)
    assert abs(np.mean([pairs[i].mean(0).prod() for i in index]) - truth) > 0.1


def test_what_is_undefined_says_why() -> None:
    rng = np.random.default_rng(0)
    prompt = draw_prompt(rng)

    def of(size: int, rule: GroupRule) -> gs.SignalEstimates:
        answers = rng.choice(len(prompt.chance), size=(20, size), p=prompt.chance)
        return gs.estimate_signal(*rewards_and_products(prompt, answers), rule)

    assert of(2, GroupRule(2)).signal == Estimate(None, None, "needs 4 answers per prompt, got 2")
    assert of(8, GroupRule(8)).signal.value is not None
    assert of(8, GroupRule(8)).alignment.reason == "needs a group of 8 and 2 more answers per prompt, got 8"
    assert of(8, GroupRule(8)).gap.reason == of(8, GroupRule(8)).alignment.reason
    assert of(10, GroupRule(8)).bias_squared.reason == "needs two groups of 8 answers per prompt, got 10"
    assert of(16, GroupRule(8, eps=0.5)).gap.reason.startswith("κ lies on both sides of 1")
    reward, gram = np.ones((3, 8)), np.ones((3, 8, 8))
    lone = gs.estimate_signal(np.eye(3, 8), gram, GroupRule(4))
    assert {lone.signal.reason, lone.alignment.reason, lone.gap.reason} == {gs.ALL_SILENT}
    silent = gs.estimate_signal(reward, gram, GroupRule(4))
    assert {silent.signal.reason, silent.alignment.reason, silent.gap.reason} == {gs.ALL_DEAD}
    one = gs.estimate_signal(np.eye(2, 8).sum(0, keepdims=True), gram[:1], GroupRule(4)).signal
    assert one.value is not None
    assert one.standard_error is None
    assert one.reason == ONE_PROMPT


def test_known_factors_need_no_second_group() -> None:
    rng = np.random.default_rng(2)
    reward, score = rng.normal(size=(9, 5)), rng.normal(size=(9, 5, 3))
    gram = score @ score.transpose(0, 2, 1)
    own = gs.estimate_signal(reward, gram, GroupRule(5, "group_mean"))
    other = gs.estimate_signal(reward, gram, GroupRule(5, "leave_one_out"))
    assert other.alignment == other.signal
    assert other.gap == Estimate(0.0, 0.0)
    assert own.alignment.value == pytest.approx(0.8 * (own.signal.value or 0))
    assert own.gap.value == pytest.approx(0.2 * (own.signal.value or 0))
    assert own.bias_squared.value == pytest.approx(0.04 * (own.signal.value or 0))


@given(seeds, st.integers(4, 8), st.integers(2, 4))
def test_a_prompt_without_two_pairs_adds_exactly_nothing(seed: int, size: int, levels: int) -> None:
    """And one with two pairs adds something: what ``contributing`` says of a prompt is what the estimators do."""
    rng = np.random.default_rng(seed)
    reward, score = rng.integers(0, levels, (20, size)).astype(float), rng.normal(size=(20, size, 5))
    gram = score @ score.transpose(0, 2, 1)
    said = gs.contributing(reward)
    assert np.array_equal(gs.signal_per_prompt(reward, gram) != 0, said)
    assert not gs.alignment_per_prompt(reward, gram, GroupRule(2))[~said].any()


def test_dead_groups_count_as_nothing() -> None:
    prompt = draw_prompt(np.random.default_rng(0))
    reward, gram = rewards_and_products(prompt, np.array([[0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 0, 0]]))
    found = gs.estimate_signal(reward, gram * 1e6, GroupRule(4))
    assert gs.signal_per_prompt(reward, gram)[1] == 0
    assert gs.alignment_per_prompt(reward, gram, GroupRule(4))[1] == 0
    assert found.signal.value == pytest.approx(gs.signal_per_prompt(reward, gram * 1e6)[0] / 2)


def test_bad_input_is_refused() -> None:
    reward, gram = np.zeros((2, 4)), np.zeros((2, 4, 4))
    rule = GroupRule(2)
    for bad in (reward[:, :3], reward * np.nan):
        with pytest.raises(ValueError, match=r"gram has shape|reward holds"):
            unchecked(gs.estimate_signal)(bad, gram, rule)
    with pytest.raises(ValueError, match=r"reward has shape \(4,\)"):
        unchecked(check_reward)(reward[0])
    with pytest.raises(ValueError, match="gram holds non-finite"):
        gs.estimate_signal(reward, gram + np.inf, rule)
    with pytest.raises(ValueError, match="at least 4 answers per prompt, got 3"):
        gs.signal_per_prompt(reward[:, :3], gram[:, :3, :3])
    with pytest.raises(ValueError, match=r"needs 3 \+ 2 answers per prompt, got 4"):
        gs.alignment_per_prompt(reward, gram, GroupRule(3))
    with pytest.raises(ValueError, match="need 6 answers per prompt, got 4"):
        gs.costate_square_per_prompt(reward, gram, GroupRule(3))
    with pytest.raises(ValueError, match="at least 2 samples"):
        replace(rule, size=1)
