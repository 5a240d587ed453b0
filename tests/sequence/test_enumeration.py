"""Enumeration: probabilities sum to one, the value gradient passes Taylor, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.advantage import group_mean
from vgrad_lab.experiments.verify_sequence import KINDS, Kind, build
from vgrad_lab.sequence.enumeration import (
    all_sequences,
    continuations,
    expected_costate,
    expected_group_advantage,
    sequence_probability,
    value,
    value_gradient,
)
from vgrad_lab.sequence.trace import Patch, trace
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE


@given(st.sampled_from(KINDS), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_probabilities_sum_to_one(kind: Kind, vocab: int, horizon: int, seed: int) -> None:
    model = build(kind, vocab=vocab, layers=1, seed=seed)
    cases = continuations(vocab, (0,), remaining=horizon)
    assert len(torch.unique(cases.targets, dim=0)) == vocab**horizon
    assert torch.equal(cases.inputs[:, 1:], cases.targets[:, :-1])
    total = float(sequence_probability(trace(model, cases.inputs), cases).sum().detach())
    assert abs(total - 1) <= ALGEBRA


@given(st.sampled_from(KINDS), st.integers(2, 4), st.integers(1, 4), st.integers(0, 99), st.data())
def test_answers_that_end_early_are_all_and_distinct(
    kind: Kind, vocab: int, horizon: int, seed: int, data: st.DataObject
) -> None:
    end = data.draw(st.integers(0, vocab - 1))
    model = build(kind, vocab=vocab, layers=1, seed=seed)
    cases = continuations(vocab, (end, 0), remaining=horizon, end=end)
    open_ways = vocab - 1
    assert len(cases.targets) == sum(open_ways**k for k in range(horizon)) + open_ways**horizon
    assert len(torch.unique(cases.targets, dim=0)) == len(cases.targets)
    assert abs(float(sequence_probability(trace(model, cases.inputs), cases).sum().detach()) - 1) <= ALGEBRA
    for row, scored, length in zip(cases.targets[:, 1:].tolist(), cases.scored, cases.lengths.tolist(), strict=True):
        assert length == (row.index(end) + 1 if end in row else horizon)
        assert scored.tolist() == [False, *(i < length for i in range(horizon))]


def test_columns_after_the_end_count_for_nothing() -> None:
    model = build("pre", vocab=2, layers=1, seed=0)
    cases = continuations(2, (0,), remaining=3, end=1)
    advantage = np.random.default_rng(0).normal(size=(4, 3))
    other = np.where(cases.scored.numpy(), advantage, 99.0)
    assert torch.equal(expected_costate(model, cases, advantage), expected_costate(model, cases, other))


def test_tokens_of_the_prefix_are_not_scored() -> None:
    model = build("pre", vocab=2, layers=1, seed=0)
    cases = continuations(2, (0, 1, 1), remaining=1)
    chance = sequence_probability(trace(model, cases.inputs), cases)
    direct = model(torch.tensor([[0, 1, 1]])).logits[0, -1].softmax(-1)
    assert float((chance - direct).abs().max().detach()) <= ALGEBRA


@pytest.mark.parametrize("kind", KINDS)
def test_value_gradient_passes_taylor(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    model = build(kind, vocab=3, layers=2, seed=1)
    cases, reward = continuations(3, (0, 2), remaining=2), rng.normal(size=9)
    gradient = value_gradient(model, cases, reward)
    h = trace(model, cases.inputs[:1]).hidden[1, 0, 1].detach()
    direction = torch.from_numpy(rng.normal(size=model.width))
    slope = float(gradient[1, 1] @ direction)
    base = float(value(model, cases, reward).detach())

    def rate(claimed: float) -> float:
        error = [
            abs(float(value(model, cases, reward, patch=Patch(1, 1, h + s * direction)).detach()) - base - s * claimed)
            for s in (1e-4, 5e-5)
        ]
        return float(np.log2(error[0] / error[1]))

    assert abs(rate(slope) - 2) <= TAYLOR_RATE
    assert abs(rate(slope * (1 + PLANTED_FAULT)) - 2) > TAYLOR_RATE


def test_group_expectation_by_hand() -> None:
    """Two samples, rewards 0 and 1 with chance p of 1: the group mean gives Â(1) = (1−p)/2 and Â(0) = −p/2."""
    p = 0.3
    found = expected_group_advantage(group_mean, np.array([0.0, 1.0]), np.array([1 - p, p]), group=2)
    np.testing.assert_allclose(found, [-p / 2, (1 - p) / 2], rtol=ALGEBRA)


def test_refusals() -> None:
    model = build("pre", vocab=2, layers=1, seed=0)
    cases = continuations(2, (0,), remaining=2)
    with pytest.raises(ValueError, match="sequences"):
        all_sequences(5, 40)
    with pytest.raises(ValueError, match="horizon ≥ 1"):
        all_sequences(2, 0)
    with pytest.raises(ValueError, match="prefix"):
        continuations(2, (), remaining=1)
    with pytest.raises(ValueError, match="prefix runs"):
        continuations(2, (2,), remaining=1)
    with pytest.raises(ValueError, match="end is 2"):
        continuations(2, (0,), remaining=1, end=2)
    with pytest.raises(ValueError, match="one number per continuation"):
        value(model, cases, np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        value(model, cases, np.full(4, np.nan))
    with pytest.raises(ValueError, match="one column"):
        expected_costate(model, cases, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="group is 1"):
        expected_group_advantage(group_mean, np.zeros(2), np.ones(2) / 2, group=1)
