"""Equal float32 rewards: what three conventions give, and that this project's advantages are exactly zero."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.advantage import from_group
from vgrad_lab.discrete.float_groups import EPSILON, naive_advantage

HAZARDS = [
    (0.7, 8, 5.957e-4, 0.05603, 0.8085),
    (0.1, 8, 7.450e-5, 7.392e-3, 0.4147),
    (123.456, 5, 0.0703, 0.8006, 0.8934),
]


def equal(value: float, count: int) -> np.ndarray:
    return np.full(count, value, np.float32)


@pytest.mark.parametrize(("value", "count", "trl", "verl", "oat"), HAZARDS)
def test_reference_numbers(value: float, count: int, trl: float, verl: float, oat: float) -> None:
    for library, expected in (("trl", trl), ("verl", verl), ("oat", oat)):
        found = np.abs(naive_advantage(equal(value, count), library)).max()
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("value", "count"), [row[:2] for row in HAZARDS])
def test_torch_does_the_same(value: float, count: int) -> None:
    """TRL's two passes over a vector, and torch.std over the rows of a matrix, where the spread is 0 and ε is all."""
    reward = torch.full((count,), value)
    matrix = reward.repeat(3, 1)
    for library, eps in EPSILON.items():
        vector = ((reward - reward.mean()) / (reward.std() + eps)).numpy()
        np.testing.assert_allclose(naive_advantage(reward.numpy(), library), vector, rtol=1e-4)
        rows = ((matrix - matrix.mean(1, keepdim=True)) / (matrix.std(1, keepdim=True) + eps)).numpy()
        np.testing.assert_allclose(naive_advantage(reward.numpy(), library, spread="exact"), rows[0], rtol=1e-4)
    assert np.abs(rows).max() > 0.7


@given(st.floats(-1e6, 1e6, width=32), st.integers(2, 64))
def test_ours_is_exactly_zero(value: float, count: int) -> None:
    for baseline in ("standardised", "group_mean", "leave_one_out"):
        for eps in (0.0, *EPSILON.values()):
            assert not np.any(from_group(equal(value, count)[None], baseline, eps=eps))


def test_zero_and_one_are_exact_and_most_others_are_not() -> None:
    for count in (2, 3, 5, 8, 16, 64):
        for value in (0.0, 1.0):
            assert not np.any(naive_advantage(equal(value, count), "oat", spread="exact"))
    rng = np.random.default_rng(0)
    hit = [np.any(naive_advantage(equal(v, 8))) for v in rng.uniform(0, 1, 1000)]
    assert 0.2 < np.mean(hit) < 0.9


def test_spread_out_rewards_are_as_in_float64() -> None:
    rng = np.random.default_rng(1)
    reward = rng.standard_normal(8).astype(np.float32)
    for library, eps in EPSILON.items():
        expected = from_group(reward[None].astype(float), eps=eps)[0]
        np.testing.assert_allclose(naive_advantage(reward, library), expected, rtol=1e-5)
        np.testing.assert_allclose(naive_advantage(reward, library, spread="exact"), expected, rtol=1e-5)


def test_bad_input() -> None:
    bad = unchecked(naive_advantage)
    with pytest.raises(ValueError, match="choose one of trl, verl, oat"):
        bad(equal(0.7, 8), "openrlhf")
    with pytest.raises(ValueError, match="float64"):
        bad(np.full(8, 0.7))
    with pytest.raises(ValueError, match=r"G ≥ 2"):
        bad(equal(0.7, 1))
    with pytest.raises(ValueError, match="finite"):
        bad(equal(np.inf, 4))
