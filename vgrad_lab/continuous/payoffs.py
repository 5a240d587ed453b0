"""Rewards r = −c or r = exp(−c) of the quadratic cost c = (s−g)ᵀQ(s−g) + aᵀRa: by rows and by columns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray


@dataclass(frozen=True)
class Payoff:
    """Cost matrices Q and R, a goal g (None for the origin), and whether r = exp(−c), which lies in (0, 1]."""

    state_cost: Float[ndarray, "S S"]
    action_cost: Float[ndarray, "A A"]
    goal: Float[ndarray, " S"] | None = None
    exponential: bool = False


def _centred(p: Payoff, state: ndarray) -> ndarray:
    return state if p.goal is None else state - p.goal


def reward(p: Payoff, state: Inexact[ndarray, "B S"], action: Inexact[ndarray, "B A"]) -> Inexact[ndarray, " B"]:
    """Reward of each row; complex rows are allowed, for complex-step derivatives."""
    e = _centred(p, state)
    cost = np.einsum("bi,ij,bj->b", e, p.state_cost, e) + np.einsum("bi,ij,bj->b", action, p.action_cost, action)
    return np.asarray(np.exp(-cost) if p.exponential else -cost)


def state_gradient(p: Payoff, state: Float[ndarray, "B S"], action: Float[ndarray, "B A"]) -> Float[ndarray, "B S"]:
    """∂r/∂s of each row."""
    slope = -_centred(p, state) @ (p.state_cost + p.state_cost.T)
    return slope * reward(p, state, action)[:, None] if p.exponential else slope


def action_gradient(p: Payoff, state: Float[ndarray, "B S"], action: Float[ndarray, "B A"]) -> Float[ndarray, "B A"]:
    """∂r/∂a of each row."""
    slope = -action @ (p.action_cost + p.action_cost.T)
    return slope * reward(p, state, action)[:, None] if p.exponential else slope


@dataclass(frozen=True)
class Slopes:
    """∂(−c)/∂x = slope·(x − centre), with a column where the matrices are diagonal; centre None at the origin.

    total turns (x − centre)², or (x − centre)·∂(−c)/∂x where the matrices are full, into −c.
    """

    diagonal: Float[ndarray, "SA 1"] | None
    state: Float[ndarray, "S S"]
    action: Float[ndarray, "A A"]
    centre: Float[ndarray, "SA 1"] | None
    total: Float[ndarray, " SA"]


def slopes(p: Payoff) -> Slopes:
    """What the column functions need, computed once per rollout."""
    state, action = -(p.state_cost + p.state_cost.T), -(p.action_cost + p.action_cost.T)
    centre = None if p.goal is None else np.concatenate([p.goal, np.zeros(len(action))])[:, None]
    diagonal = np.concatenate([np.diag(state), np.diag(action)])
    if np.count_nonzero(state) + np.count_nonzero(action) > np.count_nonzero(diagonal):
        return Slopes(None, state, action, centre, np.full(len(diagonal), 0.5))
    return Slopes(diagonal[:, None], state, action, centre, 0.5 * diagonal)


def _cost_slope(s: Slopes, x: ndarray, out: ndarray) -> None:
    """Write ∂(−c)/∂x of a block of centred x, which may be ``out`` itself where the matrices are diagonal."""
    if s.diagonal is not None:
        np.multiply(x, s.diagonal, out)
        return
    size = len(s.state)
    np.matmul(s.state, x[:, :size], out[:, :size])
    np.matmul(s.action, x[:, size:], out[:, size:])


def reward_columns(p: Payoff, s: Slopes, x: ndarray, work: ndarray, out: ndarray) -> None:
    """Write the rewards of a block x (time, S+A, B) into ``out`` (time, B); ``work`` has the shape of x."""
    if s.diagonal is not None:
        centred = x if s.centre is None else np.subtract(x, s.centre, work)
        np.multiply(centred, centred, work)
    else:
        centred = x if s.centre is None else x - s.centre
        _cost_slope(s, centred, work)
        np.multiply(work, centred, work)
    np.matmul(s.total, work, out)
    if p.exponential:
        np.exp(out, out)


def gradient_columns(p: Payoff, s: Slopes, x: ndarray, reward: ndarray, out: ndarray) -> None:
    """Write ∂r/∂(s,a) of a block into ``out``; ``reward`` is that block's rewards."""
    centred = x
    if s.centre is not None:
        centred = np.subtract(x, s.centre, out if s.diagonal is not None else None)
    _cost_slope(s, centred, out)
    if p.exponential:
        np.multiply(out, reward[:, None, :], out)
