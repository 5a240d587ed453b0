"""Environments as frozen dataclasses of functions, in the shape of Gymnasium's FuncEnv with Jacobians added.

Everything is batched: state (B,S), action (B,A). A reader's own environment needs ``initial``, ``transition`` and
``reward``; Jacobians written by hand make it differentiable and ``vgrad_lab.verify.check_environment`` checks them.
``dynamics`` and ``payoff`` state the same functions as arrays; rollouts then run in place, several times faster.
An environment that shares θ with the policy is one that is made from θ and carries ``ParameterJacobians``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray

from vgrad_lab.continuous import maps, payoffs
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.payoffs import Payoff

BatchFunction = Callable[[ndarray, ndarray], ndarray]
"""A function of state (B,S) and action (B,A)."""


@dataclass(frozen=True)
class Jacobians:
    """f_s (B,S,S), f_a (B,S,A), r_s (B,S) and r_a (B,A) as functions of state and action; Jacobians are (out, in).

    They are called for many steps at once, B being rows of any step. Quickest are memory with rows innermost and, for
    a Jacobian that is the same for all rows, ``np.broadcast_to``.
    """

    transition_state: BatchFunction
    transition_action: BatchFunction
    reward_state: BatchFunction
    reward_action: BatchFunction


@dataclass(frozen=True)
class ParameterJacobians:
    """How the policy's θ enters s_1, f and r too: what eq. 7 does not count, and f_θ, which it does.

    theta: the θ that the environment was made with. at: θ -> the same environment made with another θ; with the same
    generator its ``initial`` draws the same noise. initial_state: ∂s_1/∂θ (B,S,P) as a function of s_1. transition,
    reward: f_θ (B,S,P) and r_θ (B,P) as functions of state and action. None where θ does not enter. Ledger: S05.
    """

    theta: Inexact[ndarray, " P"]
    at: Callable[[ndarray], "Environment"]
    initial_state: Callable[[ndarray], ndarray] | None = None
    transition: BatchFunction | None = None
    reward: BatchFunction | None = None


@dataclass(frozen=True)
class Environment:
    """s_{t+1} = f(s_t, a_t), r_t = r(s_t, a_t), s_1 drawn by ``initial(rng, batch)``.

    transition: (B,S), (B,A) -> (B,S). reward: (B,S), (B,A) -> (B,). jacobians: written by hand; None when unknown.
    dynamics, payoff: the same f and r as arrays, where known. parameters: where s_1, f or r depend on θ.
    """

    state_size: int
    action_size: int
    initial: Callable[[np.random.Generator, int], ndarray]
    transition: BatchFunction
    reward: BatchFunction
    jacobians: Jacobians | None = None
    dynamics: Map | None = None
    payoff: Payoff | None = None
    parameters: ParameterJacobians | None = None


def _matrix(name: str, x: ndarray, shape: tuple[int, ...]) -> Float[ndarray, "..."]:
    x = np.asarray(x, dtype=float)
    if x.shape != shape:
        hint = "; it looks transposed: Jacobians and matrices are (out, in)" if x.shape == shape[::-1] else ""
        raise ValueError(f"{name} has shape {x.shape}, expected {shape}{hint}")
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{name} holds non-finite values; give finite numbers")
    return x


def _normal_start(mean: ndarray, scale: float) -> Callable[[np.random.Generator, int], ndarray]:
    def initial(rng: np.random.Generator, batch: int) -> Float[ndarray, "B S"]:
        return mean + scale * rng.standard_normal((batch, len(mean)))

    return initial


def from_arrays(
    dynamics: Map, payoff: Payoff, *, initial_mean: Float[ndarray, " S"] | None = None, initial_scale: float = 1.0
) -> Environment:
    """Environment whose dynamics and reward are a ``Map`` of (s, a) and a ``Payoff``; s_1 ~ N(mean, scale²·I).

    Raises ValueError for cost matrices or an initial_mean that do not fit the map, or a negative or non-finite scale.
    """
    size, action_size = dynamics.out_size, dynamics.inner.shape[1] - dynamics.out_size
    if not (np.isfinite(initial_scale) and initial_scale >= 0):
        raise ValueError(f"initial_scale must be a number that is not negative, got {initial_scale}")
    _matrix("state_cost", payoff.state_cost, (size, size))
    _matrix("action_cost", payoff.action_cost, (action_size, action_size))
    mean = np.zeros(size) if initial_mean is None else _matrix("initial_mean", initial_mean, (size,))

    def joint(state: ndarray, action: ndarray) -> ndarray:
        return np.concatenate([state, action], axis=-1)

    return Environment(
        state_size=size,
        action_size=action_size,
        initial=_normal_start(mean, initial_scale),
        transition=lambda state, action: maps.value(dynamics, joint(state, action)),
        reward=lambda state, action: payoffs.reward(payoff, state, action),
        jacobians=Jacobians(
            transition_state=lambda state, action: maps.jacobian(dynamics, joint(state, action))[..., :size],
            transition_action=lambda state, action: maps.jacobian(dynamics, joint(state, action))[..., size:],
            reward_state=lambda state, action: payoffs.state_gradient(payoff, state, action),
            reward_action=lambda state, action: payoffs.action_gradient(payoff, state, action),
        ),
        dynamics=dynamics,
        payoff=payoff,
    )


def linear_quadratic(
    A: Float[ndarray, "S S"],
    B: Float[ndarray, "S A"],
    Q: Float[ndarray, "S S"],
    R: Float[ndarray, "A A"],
    *,
    goal: Float[ndarray, " S"] | None = None,
    initial_mean: Float[ndarray, " S"] | None = None,
    initial_scale: float = 1.0,
) -> Environment:
    """Linear dynamics with a quadratic cost.

    s' = As + Ba, r = −(s−g)ᵀQ(s−g) − aᵀRa.

    goal: g, the origin by default. s_1 ~ N(initial_mean, initial_scale²·I). Raises ValueError for wrong shapes or
    non-finite values. Ledger: S04, S07; its values and gradients in closed form are in ``oracles``.
    """
    if np.ndim(B) != 2:
        raise ValueError(f"B has shape {np.shape(B)}, expected (S, A)")
    size, action_size = np.shape(B)
    inner = np.hstack([_matrix("A", A, (size, size)), _matrix("B", B, (size, action_size))])
    payoff = Payoff(
        _matrix("Q", Q, (size, size)),
        _matrix("R", R, (action_size, action_size)),
        None if goal is None else _matrix("goal", goal, (size,)),
    )
    return from_arrays(Map(inner, np.zeros(size)), payoff, initial_mean=initial_mean, initial_scale=initial_scale)


def tanh_network(
    state_weight: Float[ndarray, "hidden S"],
    action_weight: Float[ndarray, "hidden A"],
    bias: Float[ndarray, " hidden"],
    output_weight: Float[ndarray, "S hidden"],
    goal: Float[ndarray, " S"],
    *,
    state_cost: Float[ndarray, "S S"] | None = None,
    action_cost: Float[ndarray, "A A"] | None = None,
    initial_scale: float = 1.0,
) -> Environment:
    """Smooth bounded dynamics with a smooth reward in (0, 1].

    s' = V tanh(Ws + Ua + b), r = exp(−(s−g)ᵀQ(s−g) − aᵀRa).

    The hidden width is free. Q and R default to I/(4S) and I/(4A), which keeps rewards of order 1 away from underflow.
    Raises ValueError for wrong shapes or non-finite values. Ledger: S01, S04.
    """
    if np.ndim(state_weight) != 2 or np.ndim(action_weight) != 2:
        raise ValueError(f"weights have shapes {np.shape(state_weight)}, {np.shape(action_weight)}; expected matrices")
    (hidden, size), action_size = np.shape(state_weight), np.shape(action_weight)[1]
    action_weight = _matrix("action_weight", action_weight, (hidden, action_size))
    inner = np.hstack([_matrix("state_weight", state_weight, (hidden, size)), action_weight])
    dynamics = Map(inner, _matrix("bias", bias, (hidden,)), _matrix("output_weight", output_weight, (size, hidden)))
    state_cost = np.eye(size) / (4 * size) if state_cost is None else state_cost
    action_cost = np.eye(action_size) / (4 * action_size) if action_cost is None else action_cost
    payoff = Payoff(
        _matrix("state_cost", state_cost, (size, size)),
        _matrix("action_cost", action_cost, (action_size, action_size)),
        _matrix("goal", goal, (size,)),
        exponential=True,
    )
    return from_arrays(dynamics, payoff, initial_scale=initial_scale)


def random_linear_quadratic(
    rng: np.random.Generator, state_size: int, action_size: int, *, norm: float = 0.9
) -> Environment:
    """A linear-quadratic environment with ‖A‖₂ = norm and positive definite costs."""
    A = rng.standard_normal((state_size, state_size))
    B = rng.standard_normal((state_size, action_size)) / np.sqrt(action_size)
    half_q = rng.standard_normal((state_size, state_size)) / np.sqrt(state_size)
    half_r = rng.standard_normal((action_size, action_size)) / np.sqrt(action_size)
    Q = half_q @ half_q.T + 0.1 * np.eye(state_size)
    R = half_r @ half_r.T + 0.1 * np.eye(action_size)
    return linear_quadratic(norm * A / np.linalg.norm(A, 2), B, Q, R)


def random_tanh_network(
    rng: np.random.Generator, state_size: int, action_size: int, *, width: int | None = None
) -> Environment:
    """A tanh network of hidden ``width`` (default S) with weights of order one."""
    width = state_size if width is None else width
    return tanh_network(
        rng.standard_normal((width, state_size)) / np.sqrt(state_size),
        rng.standard_normal((width, action_size)) / np.sqrt(action_size),
        0.3 * rng.standard_normal(width),
        rng.standard_normal((state_size, width)) / np.sqrt(width),
        rng.standard_normal(state_size),
    )
