"""The way back through one block of time, for parts known as arrays and for parts known as functions.

Each maker is called once per rollout, what it returns once per block, and the ``Pull`` of a block once per step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous import maps, payoffs
from vgrad_lab.continuous.by_functions import jacobian_columns, pair, pull, write_columns
from vgrad_lab.continuous.environments import Jacobians
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.policies import ShiftPolicy

Flat = tuple[ndarray, ndarray]
"""State (n,S) and action (n,A) of all rows of a block; empty where no part is known as functions."""


@dataclass(frozen=True, eq=False)
class Layer:
    """tanh(inner·x + shift) of a map and its slope 1 − tanh² over a block of time."""

    tape: Float[ndarray, "time hidden B"]
    slope: Float[ndarray, "time hidden B"]


Pull = Callable[[int, ndarray, ndarray], None]
"""(k, cotangent, out): write Jᵀ·cotangent of step k of the block into ``out``."""
Back = Callable[[slice, ndarray, Flat], tuple[Pull, Layer | None]]
"""(block, x of the block, its rows): the block's ``Pull`` and the tanh layer, if there is one."""


def map_back(
    m: Map, tape: ndarray | None, *, longest: int, batch: int, factor: float = 1.0, gain: ndarray | None = None
) -> Back:
    """Back through factor·(∂y/∂x)ᵀ of a map; ``tape`` is its tanh at all steps, None where it was not kept.

    gain: of a linear mean action, for the loop closed: back to the state only.
    """
    scaled = maps.scaled(m if gain is None else maps.closed(m, gain), factor)
    if m.outer is None:
        across = scaled.inner.T

        def straight(k: int, cotangent: ndarray, out: ndarray) -> None:
            np.matmul(across, cotangent, out)

        return lambda block, x, flat: (straight, None)
    shape = (longest, len(m.inner), batch)
    slopes, own, work = np.empty(shape), np.empty(shape if tape is None else 0), np.empty(shape[1:])

    def back(block: slice, x: ndarray, flat: Flat) -> tuple[Pull, Layer]:
        values = maps.tanh_columns(m, x, own[: len(x)]) if tape is None else tape[block]
        slope = maps.slope_columns(values, slopes[: len(x)])

        def bent(k: int, cotangent: ndarray, out: ndarray) -> None:
            maps.pull_columns(scaled, cotangent, slope[k], work, out)

        return bent, Layer(values, slope)

    return back


def transition_back(jacobians: Jacobians, *, factor: float, batch: int) -> Back:
    """Back through factor·(f_s, f_a)ᵀ of a transition known as functions."""

    def back(block: slice, x: ndarray, flat: Flat) -> tuple[Pull, None]:
        time, size, action_size = len(x), flat[0].shape[1], flat[1].shape[1]
        f_s, f_a = pair(jacobians.transition_state, jacobians.transition_action, *flat)
        f_s = jacobian_columns("jacobians.transition_state", f_s, (size, size), time, batch)
        f_a = jacobian_columns("jacobians.transition_action", f_a, (size, action_size), time, batch)
        future = np.empty((size, batch))

        def through(k: int, cotangent: ndarray, out: ndarray) -> None:
            np.multiply(cotangent, factor, future)
            pull(f_s, k, future, out[:size])
            pull(f_a, k, future, out[size:])

        return through, None

    return back


def mean_back(policy: ShiftPolicy, *, batch: int) -> Back:
    """Back through ā_sᵀ of a mean action known as functions."""

    def back(block: slice, x: ndarray, flat: Flat) -> tuple[Pull, None]:
        shape = flat[1].shape[1], flat[0].shape[1]
        found = jacobian_columns("state_jacobian", policy.state_jacobian(policy.theta, flat[0]), shape, len(x), batch)
        return lambda k, cotangent, out: pull(found, k, cotangent, out), None

    return back


def payoff_gradient(payoff: Payoff | Jacobians) -> Callable[[ndarray, Flat, ndarray, ndarray], None]:
    """A function of a block's x, rows and rewards that writes ∂r/∂(s,a) into its last argument (time, S+A, B)."""
    if isinstance(payoff, Payoff):
        slopes = payoffs.slopes(payoff)
        return lambda x, flat, reward, out: payoffs.gradient_columns(payoff, slopes, x, reward, out)

    def write(x: ndarray, flat: Flat, reward: ndarray, out: ndarray) -> None:
        size = flat[0].shape[1]
        r_s, r_a = pair(payoff.reward_state, payoff.reward_action, *flat)
        write_columns("jacobians.reward_state", r_s, out[:, :size])
        write_columns("jacobians.reward_action", r_a, out[:, size:])

    return write
