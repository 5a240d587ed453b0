"""Advantages: identities, degenerate groups, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.helpers import unchecked
from vgrad_lab import advantage
from vgrad_lab.tolerances import ALGEBRA

rewards = st.tuples(st.integers(1, 4), st.integers(2, 9)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-10, 10))
)


@given(rewards)
def test_leave_one_out_is_the_definition(reward: np.ndarray) -> None:
    q, g = reward.shape
    expected = np.array([[reward[i, j] - np.delete(reward[i], j).mean() for j in range(g)] for i in range(q)])
    degenerate = np.ptp(reward, axis=1) == 0
    expected[degenerate] = 0
    np.testing.assert_allclose(advantage.leave_one_out(reward), expected, atol=1e-10)
    np.testing.assert_allclose(advantage.group_mean(reward) * g / (g - 1), advantage.leave_one_out(reward), atol=1e-10)


@given(rewards, st.sampled_from([0, 1]))
def test_standardised_matches_torch(reward: np.ndarray, ddof: int) -> None:
    import torch

    r = torch.tensor(reward)
    expected = (r - r.mean(1, keepdim=True)) / (r.std(1, correction=ddof, keepdim=True) + 1e-4)
    expected[torch.tensor(np.ptp(reward, axis=1) == 0)] = 0
    got = advantage.group_standardised(reward, ddof=ddof, eps=1e-4)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-9, rtol=1e-9)
    np.testing.assert_array_equal(advantage.from_group(reward, "standardised", ddof=ddof), got)


def test_equal_float32_rewards_give_exactly_zero() -> None:
    third = np.full((1, 7), 0.1, dtype=np.float32)
    assert np.abs(third - third.mean()).max() > 0, "the hazard: rounding of the mean"
    for name in ("standardised", "group_mean", "leave_one_out"):
        assert np.all(advantage.from_group(third, name) == 0)


@given(arrays(np.float64, (3, 6), elements=st.floats(-5, 5)), st.floats(0, 1), st.floats(0, 1))
def test_gae_at_both_ends(reward: np.ndarray, discount: float, seed: float) -> None:
    value = np.random.default_rng(int(seed * 1e6)).normal(size=(3, 7))
    value[:, -1] = 0
    one = advantage.gae(reward, value, discount=discount, decay=1.0)
    expected = advantage.return_to_go(reward, discount=discount) - value[:, :-1]
    np.testing.assert_allclose(one, expected, atol=1e-9)
    zero = advantage.gae(reward, value, discount=discount, decay=0.0)
    np.testing.assert_allclose(zero, reward + discount * value[:, 1:] - value[:, :-1], atol=ALGEBRA)


def test_return_to_go_by_hand() -> None:
    np.testing.assert_allclose(advantage.return_to_go(np.array([[1.0, 2.0, 4.0]]), discount=0.5), [[3.0, 4.0, 4.0]])


def test_refusals_name_the_remedy() -> None:
    r = np.ones((1, 3))
    with pytest.raises(ValueError, match="G ≥ 2"):
        advantage.leave_one_out(np.ones((2, 1)))
    with pytest.raises(ValueError, match="non-finite"):
        advantage.group_mean(np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="ddof"):
        advantage.group_standardised(r, ddof=2)
    with pytest.raises(ValueError, match="eps"):
        advantage.group_standardised(r, eps=-1.0)
    with pytest.raises(ValueError, match="unknown baseline 'rloo'"):
        unchecked(advantage.from_group)(r, "rloo")
    with pytest.raises(ValueError, match="discount"):
        advantage.return_to_go(r, discount=1.5)
    with pytest.raises(ValueError, match="terminal"):
        advantage.gae(r, np.ones((1, 3)))
    with pytest.raises(ValueError, match="decay"):
        advantage.gae(r, np.ones((1, 4)), decay=2.0)
