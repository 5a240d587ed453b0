"""Numbers of sampled groups, and the signal of one-token answers, against enumeration over all groups."""

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab import impact
from vgrad_lab.advantage import from_group
from vgrad_lab.integrations import groups, signal
from vgrad_lab.one_step import one_step
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT, QUADRATURE


def bernoulli_groups(size: int, p: float) -> tuple[np.ndarray, np.ndarray]:
    """All outcomes of a group of independent binary rewards, and their probabilities."""
    table = np.array(list(product([0.0, 1.0], repeat=size)))
    return table, np.prod(np.where(table == 1, p, 1 - p), axis=1)


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("p", [0.03, 0.5, 0.97])
@pytest.mark.parametrize(("scale", "baseline"), [("group", "standardised"), ("none", "group_mean")])
def test_sampled_scale_is_a_ratio_of_unbiased_means(size: int, p: float, scale: str, baseline: str) -> None:
    """E[Σ Â(r − r̄)/G] = κ p(1 − p) and E[s²] = p(1 − p), by enumeration; a factor 1.001 would show."""
    table, weight = bernoulli_groups(size, p)
    advantage = groups.group_advantages(table, scale)
    above = weight @ (advantage * (table - table.mean(1, keepdims=True))).mean(1)
    below = weight @ table.var(1, ddof=1)
    kappa = float(impact.grpo_scale(np.array([p]), size, baseline=baseline)[0])  # type: ignore[arg-type]
    assert above / below == pytest.approx(kappa, rel=QUADRATURE)
    assert above / below * (1 + PLANTED_FAULT) != pytest.approx(kappa, rel=QUADRATURE)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=4, max_size=4), min_size=1, max_size=6))
@settings(max_examples=50)
def test_numbers_of_groups(rows: list[list[float]]) -> None:
    reward = np.array(rows)
    found = groups.describe_groups(reward, alpha=2.0)
    dead = np.mean([len(set(row)) == 1 for row in rows])
    assert found["dead_groups"] == dead
    assert found["headroom"] == pytest.approx(np.mean([impact.headroom(r, 2.0) for r in reward]), abs=ALGEBRA)
    assert "success" not in found
    assert (groups.sampled_grpo_scale(reward) is None) == (dead == 1)


def test_batch_scale_divides_by_the_spread_of_all() -> None:
    reward = np.array([[0.0, 1.0], [0.0, 0.0], [3.0, 1.0]])
    wanted = (reward - reward.mean(1, keepdims=True)) / (reward.std(ddof=1) + 1e-4)
    assert groups.group_advantages(reward, "batch") == pytest.approx(wanted, abs=ALGEBRA)
    assert np.array_equal(groups.group_advantages(reward), from_group(reward))
    with pytest.raises(ValueError, match="scale is 'std'; choose group, batch or none"):
        groups.group_advantages(reward, "std")


def test_batches_have_spreads_of_their_own() -> None:
    """Two batches sampled in one step: each advantage is divided by its own batch's spread; a group's is no matter."""
    reward = np.array([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    each = np.concatenate([groups.group_advantages(part, "batch") for part in (reward[:2], reward[2:])])
    wanted = (each * (reward - reward.mean(1, keepdims=True))).mean() / reward.var(1, ddof=1).mean()
    found = [groups.describe_groups(reward, scale="batch", binary=(0.0, 1.0), batches=n)["grpo_scale"] for n in (1, 2)]
    assert found[1] == pytest.approx(wanted, rel=ALGEBRA)
    assert found[0] != pytest.approx(wanted, rel=PLANTED_FAULT)
    one, two = (groups.sampled_grpo_scale(reward, "group", batches=n) for n in (1, 2))
    assert one == pytest.approx(two, rel=ALGEBRA)


def test_equal_rewards_that_round_are_dead_and_missing_scores_are_left_out() -> None:
    nan = float("nan")
    reward = np.array([[0.7] * 8, [0.1] * 7 + [nan], [nan] * 8, [0.0] * 7 + [1.0]])
    assert groups.dead_groups(reward).tolist() == [True, True, True, False]
    found = groups.describe_groups(reward, binary=(0.0, 1.0))
    assert set(found) == {"dead_groups", "reward"}
    assert found["reward"] == pytest.approx(np.nanmean(reward))
    assert "reward" not in groups.describe_groups(np.full((1, 2), nan))
    assert groups.describe_groups(np.zeros((0, 4))) == {}


def test_success_of_rewards_of_minus_one_and_one() -> None:
    reward = np.array([[-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    found = groups.describe_groups(reward, binary=(-1.0, 1.0), scale="none")
    assert (found["success"], found["all_fail"], found["all_success"]) == (0.5, 0.25, 0.25)
    assert found["grpo_scale"] == pytest.approx(0.5)
    assert groups.levels({-1.0}) == (-1.0, 1.0)
    assert groups.levels({1.0}) == (0.0, 1.0)
    assert groups.levels({0.0, -1.0}) is None
    assert groups.levels({0.5}) is None
    assert groups.levels(set()) is None


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be positive"):
        groups.describe_groups(np.zeros((1, 2)), alpha=alpha)


def model(seed: int, prompts: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(7, 5)), 2 * rng.normal(size=(prompts, 5)), rng.integers(0, 7, size=prompts)


@pytest.mark.parametrize("seed", range(5))
def test_geometry_agrees_with_one_step(seed: int) -> None:
    head, hidden, target = model(seed)
    truth = one_step(head, hidden, target, group_size=4)
    p, distance = signal.answer_geometry(torch.tensor(head), torch.tensor(hidden), torch.tensor(target))
    assert p == pytest.approx(truth.success, rel=CLOSED_FORM)
    assert p**2 * distance == pytest.approx(truth.signal, rel=CLOSED_FORM)


@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize(("scale", "baseline"), [("group", "standardised"), ("none", "group_mean")])
def test_means_over_prompts_are_unbiased(size: int, scale: str, baseline: Any) -> None:
    """Expectation over which prompts are known, by enumeration, is the mean of the closed forms over all."""
    head, hidden, target = model(1)
    truth = one_step(head, hidden, target, group_size=size, baseline=baseline)
    p, distance = truth.success, truth.signal / truth.success**2
    total = {"signal": 0.0, "alignment": 0.0, "costate_gap": 0.0}
    for known in product([False, True], repeat=3):
        seen = np.array(known)
        chance = float(np.prod(np.where(seen, 1 - (1 - p) ** size, (1 - p) ** size)))
        prompts = signal.OneToken(target, seen, seen.astype(int), size, (0.0, 1.0))
        for name, value in signal.describe_signal(prompts, p[seen], distance[seen], scale=scale).items():
            total[name] += chance * value
    assert total["signal"] == pytest.approx(truth.signal.mean(), rel=QUADRATURE)
    assert total["alignment"] == pytest.approx(truth.alignment.mean(), rel=QUADRATURE)
    assert total["costate_gap"] == pytest.approx(truth.gap_conditional.mean(), rel=QUADRATURE)


def test_rewards_of_minus_one_and_one_double_the_value_gradient() -> None:
    """G doubles, the standardised costate stays (ε apart), so Σ is four times and E⟨λ̂,G⟩ two times as large."""
    one = signal.OneToken(np.array([0]), np.array([True]), np.array([1]), 4, (0.0, 1.0))
    two = signal.OneToken(np.array([0]), np.array([True]), np.array([1]), 4, (-1.0, 1.0))
    p, distance = np.array([0.3]), np.array([2.0])
    a = signal.describe_signal(one, p, distance, eps=0.0)
    b = signal.describe_signal(two, p, distance, eps=0.0)
    assert b["signal"] == pytest.approx(4 * a["signal"], rel=ALGEBRA)
    assert b["alignment"] == pytest.approx(2 * a["alignment"], rel=ALGEBRA)
    assert set(signal.describe_signal(one, p, distance, scale="batch")) == {"signal"}
    assert signal.describe_signal(one, p[:0], distance[:0]) == {}


def test_right_tokens() -> None:
    reward = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    token = np.array([[3, 5, 5], [1, 2, 3], [4, 1, 1]])
    found = signal.right_tokens(reward, token, (0.0, 1.0))
    assert found is not None
    assert found.known.tolist() == [True, False, True]
    assert found.target[found.known].tolist() == [5, 4]
    assert found.successes.tolist() == [2, 0, 1]
    two, both = token.copy(), token.copy()
    two[0, 1], both[2, 1] = 6, 4
    for wrong in ((reward, two), (reward, both), (reward / 2, token), (reward[:, :1], token[:, :1])):
        assert signal.right_tokens(*wrong, (0.0, 1.0)) is None


@pytest.mark.parametrize("size", [2, 8])
def test_surplus_has_mean_zero_and_the_stated_variance(size: int) -> None:
    p = 0.2
    weight = np.array([comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(1, size + 1)])
    weight /= weight.sum()
    rows = [
        signal.surplus(signal.OneToken(np.array([0]), np.array([True]), np.array([k]), size, (0.0, 1.0)), np.array([p]))
        for k in range(1, size + 1)
    ]
    excess = np.array([r[0] for r in rows])
    assert weight @ excess == pytest.approx(0, abs=QUADRATURE)
    assert weight @ excess**2 == pytest.approx(rows[0][1], rel=QUADRATURE)


def test_the_bare_functions_check_what_they_are_given() -> None:
    with pytest.raises(ValueError, match="scale is 'x'"):
        unchecked(groups.sampled_grpo_scale)(np.array([[0.0, 1.0]]), "x")
