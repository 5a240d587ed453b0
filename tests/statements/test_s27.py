"""S27: the one-token task, degenerate with a shared reward and exact with the indicator."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.advantage import group_mean, group_standardised, leave_one_out
from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.one_step import one_step
from vgrad_lab.tolerances import ALGEBRA


@given(st.floats(0, 1), st.integers(2, 16))
def test_shared_reward_gives_zero_advantage(p: float, n: int) -> None:
    shared = np.full((3, n), p)
    for advantage in (group_mean, group_standardised, leave_one_out):
        assert np.all(advantage(shared) == 0.0)
        assert np.all(advantage(shared.astype(np.float32)) == 0.0)


@given(st.integers(0, 2**31), st.floats(-2, 2))
def test_indicator_reward_is_exact(seed: int, constant: float) -> None:
    head, hidden, target = checks.draw_task(np.random.default_rng(seed))
    m = one_step(head, hidden, target, group_size=2)
    p, d = m.probability[0], head - m.probability @ head
    left = (p * (np.eye(len(p))[target[0]] - constant)) @ d
    assert np.abs(left - m.value_gradient[0]).max() <= ALGEBRA * max(1.0, float(np.abs(head).max()))


def test_value_gradient_equals_autograd() -> None:
    import torch

    head, hidden, target = checks.draw_task(np.random.default_rng(5))
    h = torch.tensor(hidden, requires_grad=True)
    torch.softmax(h @ torch.tensor(head).T, -1)[0, int(target[0])].backward()
    np.testing.assert_allclose(
        one_step(head, hidden, target, group_size=2).value_gradient, h.grad.numpy(), rtol=1e-12, atol=1e-15
    )


def test_counterexample_refutes() -> None:
    assert checks.s27_counterexample().refutes
    assert checks.s27_indicator(examples=3).passed
