"""The named systems in torch, and costates by autograd through their unrolled rollouts.

Each system is written once for two layouts: rows, state (B,S), and columns, state (S,B); ``axis`` is that of the
features, -1 or -2. Rewards are computed in the loop or, ``stacked``, for all steps after it. Products are fused where
torch has a fused operation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, int], Tensor]
"""A function of state, action and axis."""


@dataclass(frozen=True)
class TorchSystem:
    """transition and reward; reward also of states and actions of all steps at once, time first."""

    transition: Step
    reward: Step


def tensor(x: object) -> Tensor:
    """A float64 copy."""
    return torch.tensor(x, dtype=torch.float64)


def apply(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """matrix·x for each sample."""
    return x @ matrix.T if axis == -1 else matrix @ x


def apply_two(first: Tensor, second: Tensor, state: Tensor, action: Tensor, axis: int) -> Tensor:
    """first·state + second·action."""
    if axis == -1:
        return torch.addmm(state @ first.T, action, second.T)
    return torch.addmm(first @ state, second, action)


def along(vector: Tensor, axis: int) -> Tensor:
    """A vector over features, to be added to arrays of samples."""
    return vector if axis == -1 else vector[:, None]


def from_arrays(dynamics: object, payoff: object) -> TorchSystem:
    """The system of a ``Map`` and a ``Payoff``."""
    inner, shift, size = tensor(dynamics.inner), tensor(dynamics.shift), dynamics.out_size
    by_state, by_action = inner[:, :size].contiguous(), inner[:, size:].contiguous()
    outer = None if dynamics.outer is None else tensor(dynamics.outer)
    goal = None if payoff.goal is None else tensor(payoff.goal)
    Q, R = tensor(payoff.state_cost), tensor(payoff.action_cost)

    def transition(state: Tensor, action: Tensor, axis: int) -> Tensor:
        if outer is None:
            return apply_two(by_state, by_action, state, action, axis)
        if axis == -1:
            z = torch.addmm(torch.addmm(shift, state, by_state.T), action, by_action.T)
        else:
            z = torch.addmm(torch.addmm(shift[:, None], by_state, state), by_action, action)
        return apply(outer, torch.tanh(z), axis)

    def reward(state: Tensor, action: Tensor, axis: int) -> Tensor:
        e = state if goal is None else state - along(goal, axis)
        cost = (apply(Q, e, axis) * e).sum(axis) + (apply(R, action, axis) * action).sum(axis)
        return torch.exp(-cost) if payoff.exponential else -cost

    return TorchSystem(transition, reward)


def bandit(target: object) -> TorchSystem:
    """s' = s, r = exp(−‖a − Ms‖²/2)."""
    M = tensor(target)

    def reward(state: Tensor, action: Tensor, axis: int) -> Tensor:
        return torch.exp(-0.5 * (action - apply(M, state, axis)).square().sum(axis))

    return TorchSystem(lambda state, action, axis: state.view_as(state), reward)


def pendulum() -> TorchSystem:
    """The pendulum at its default numbers."""
    by_state = tensor([[0.0, 0.5, 0.9]])

    def transition(state: Tensor, action: Tensor, axis: int) -> Tensor:
        if axis == -1:
            speed = torch.addmm(action, state, by_state.T, beta=0.2)
        else:
            speed = torch.addmm(action, by_state, state, beta=0.2)
        x, y, _ = state.split(1, axis)
        c, s = torch.cos(0.05 * speed), torch.sin(0.05 * speed)
        turned = torch.addcmul(c * x, s, y, value=-1), torch.addcmul(s * x, c, y)
        return torch.cat([*turned, speed], axis)

    def reward(state: Tensor, action: Tensor, axis: int) -> Tensor:
        x, _, speed = state.unbind(axis)
        return x - 1 - 0.01 * (speed.square() + action.squeeze(axis).square())

    return TorchSystem(transition, reward)


def obstacle() -> TorchSystem:
    """The point mass with an obstacle at its default numbers."""
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    by_state, by_action = (
        torch.cat([torch.cat([eye, 0.1 * eye], 1), torch.cat([zero, eye], 1)]),
        torch.cat([zero, 0.1 * eye]),
    )
    goal, centre = tensor([1.0, 0.0]), tensor([0.0, 0.1])

    def reward(state: Tensor, action: Tensor, axis: int) -> Tensor:
        p, v = state.split(2, axis)
        hill = 2 * torch.exp((p - along(centre, axis)).square().sum(axis) * (-0.5 / 0.3**2))
        cost = (p - along(goal, axis)).square().sum(axis) + 0.1 * v.square().sum(axis)
        return -cost - 0.05 * action.square().sum(axis) - hill

    return TorchSystem(lambda s, a, axis: apply_two(by_state, by_action, s, a, axis), reward)


def point_mass(push: float, cost: float) -> TorchSystem:
    """The point mass that shares θ with its policy, at one θ: Δ·gain and the price of an action."""
    by_state, by_action, weight = tensor([[1.0, 0.2], [0.0, 1.0]]), tensor([[0.0], [push]]), tensor([1.0, 0.1])

    def reward(state: Tensor, action: Tensor, axis: int) -> Tensor:
        squares = state.square() @ weight if axis == -1 else weight @ state.square()
        return -squares - cost * action.squeeze(axis).square()

    return TorchSystem(lambda s, a, axis: apply_two(by_state, by_action, s, a, axis), reward)


def costates(
    system: TorchSystem,
    policy: tuple[Tensor, Tensor],
    start: Tensor,
    noise: Tensor,
    *,
    discount: float,
    axis: int,
    stacked: bool,
    parameters: bool,
) -> tuple[Tensor, ...]:
    """γ^{t−1}λ_t (T,…) and, with ``parameters``, the summed gradients of K and b; noise (T,B,A) or (T,A,B)."""
    K, b = (x.clone().requires_grad_(parameters) for x in policy)
    states, actions, total = [start.clone().requires_grad_()], [], 0.0
    for t, draw in enumerate(noise):
        state = states[t]
        mean = torch.addmm(b, state, K.T) if axis == -1 else torch.addmm(b[:, None], K, state)
        action = mean + draw
        if not stacked:
            total = total + discount**t * system.reward(state, action, axis).sum()
        actions.append(action)
        states.append(system.transition(state, action, axis))
    if stacked:
        weight = discount ** torch.arange(len(noise), dtype=torch.float64)
        rewards = system.reward(torch.stack(states[:-1]), torch.stack(actions), axis)
        total = weight @ rewards.sum(1)
    wanted = [*states[:-1], K, b] if parameters else states[:-1]
    gradients = torch.autograd.grad(total, wanted)
    horizon = len(noise)
    return torch.stack(gradients[:horizon]), *gradients[horizon:]
