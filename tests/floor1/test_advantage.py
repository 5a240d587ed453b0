"""Advantages: identities, degenerate groups, refusals."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.helpers import unchecked, whole
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


def test_an_equal_group_is_zero_beside_groups_that_are_not() -> None:
    """The first group is zero by its own largest and smallest reward, whatever the other groups hold."""
    for other in ([9.0] * 6 + [0.1], [-9.0] * 6 + [0.1]):
        reward = np.array([[0.1] * 7, other], dtype=np.float32)
        for name in ("standardised", "group_mean", "leave_one_out"):
            got = advantage.from_group(reward, name)
            assert np.all(got[0] == 0)
            assert np.all(got[1] != 0)


def test_defaults_are_torch_deviation_and_no_discount() -> None:
    reward = np.array([[1.0, 2.0, 4.0]])
    deviation = np.sqrt(7 / 3)
    expected = (reward - 7 / 3) / (deviation + 1e-4)
    np.testing.assert_allclose(advantage.group_standardised(reward), expected, rtol=ALGEBRA)
    np.testing.assert_allclose(advantage.from_group(reward), expected, rtol=ALGEBRA)
    np.testing.assert_array_equal(advantage.return_to_go(reward), [[7.0, 6.0, 4.0]])
    value = np.array([[3.0, 1.0, 2.0, 5.0]])
    np.testing.assert_array_equal(advantage.gae(reward, value), [[9.0, 10.0, 7.0]])


def test_gae_by_hand() -> None:
    """δ = (0, 3, 4.5) with γ = 1/2, then Â_t = δ_t + γλ Â_{t+1} with γλ = 1/8."""
    reward, value = np.array([[2.5, 3.0, 4.0]]), np.array([[3.0, 1.0, 2.0, 5.0]])
    got = advantage.gae(reward, value, discount=0.5, decay=0.25)
    np.testing.assert_array_equal(got, [[3.5625 / 8, 3.5625, 4.5]])
    np.testing.assert_array_equal(advantage.gae(reward, value, discount=0.0), reward - value[:, :-1])


ONES = np.ones((1, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: advantage.leave_one_out(np.ones((2, 1))),
            "a group baseline needs G ≥ 2 samples per prompt, got G = 1",
        ),
        (
            lambda: advantage.group_mean(np.array([[np.nan, 1.0]])),
            "reward holds non-finite values; give finite rewards (mask failed samples before)",
        ),
        (lambda: advantage.group_standardised(ONES, ddof=2), "ddof must be 0 or 1, got 2"),
        (lambda: advantage.group_standardised(ONES, eps=-1.0), "eps must not be negative, got -1.0"),
        (
            lambda: unchecked(advantage.from_group)(ONES, "rloo"),
            "unknown baseline 'rloo'; choose one of standardised, group_mean, leave_one_out",
        ),
        (lambda: advantage.return_to_go(ONES, discount=1.5), "discount must lie in [0, 1], got 1.5"),
        (
            lambda: advantage.gae(ONES, np.ones((1, 4)), discount=1.5, decay=0.5),
            "discount must lie in [0, 1], got 1.5",
        ),
        (lambda: advantage.gae(ONES, np.ones((1, 4)), decay=2.0), "decay (λ) must lie in [0, 1], got 2.0"),
        (lambda: advantage.gae(ONES, ONES), "value needs T+1 = 4 nodes, got 3; append the terminal 0"),
    ],
)
def test_refusals_name_the_remedy(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def test_the_ends_of_the_ranges_are_allowed() -> None:
    for discount, decay in ((0.0, 0.0), (1.0, 1.0)):
        assert advantage.gae(ONES, np.ones((1, 4)), discount=discount, decay=decay).shape == (1, 3)
    assert np.all(advantage.group_standardised(np.array([[0.0, 2.0]]), ddof=0, eps=0.0) == [[-1.0, 1.0]])
