"""Shift policies a = ā_θ(s) + ξ: a mean action written as functions of θ, and a noise that does not know θ."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous import maps
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.noise import Noise, gaussian

ThetaFunction = Callable[[ndarray, ndarray], ndarray]
"""A function of θ (P,) and state (B,S)."""


@dataclass(frozen=True)
class ShiftPolicy:
    """π_θ(a|s) = ν(a − ā_θ(s)).

    mean_action: (B,A). state_jacobian: ā_s (B,A,S). parameter_jacobian: ā_θ (B,A,P). noise: ν of each component.
    mean_map: θ -> the same mean as a ``Map``, for rollouts in place; None for a mean that is only known as functions.
    Change θ with ``dataclasses.replace(policy, theta=…)``.
    """

    theta: Float[ndarray, " P"]
    mean_action: ThetaFunction
    state_jacobian: ThetaFunction
    parameter_jacobian: ThetaFunction
    noise: Noise
    mean_map: Callable[[ndarray], Map] | None = None


def from_map(mean: Map, noise: Noise) -> ShiftPolicy:
    """Policy whose mean action is a ``Map`` of the state; θ in the order of ``maps.flatten``."""

    def rebuilt(theta: ndarray) -> Map:
        return maps.unflatten(mean, theta)

    return ShiftPolicy(
        theta=maps.flatten(mean),
        mean_action=lambda theta, state: maps.value(rebuilt(theta), state),
        state_jacobian=lambda theta, state: maps.jacobian(rebuilt(theta), state),
        parameter_jacobian=lambda theta, state: maps.parameter_jacobian(rebuilt(theta), state),
        noise=noise,
        mean_map=rebuilt,
    )


def _finite(**weights: ndarray) -> None:
    for name, x in weights.items():
        if not np.all(np.isfinite(x)):
            raise ValueError(f"{name} holds non-finite values; give finite numbers")


def linear_policy(
    K: Float[ndarray, "A S"], bias: Float[ndarray, " A"] | None = None, *, noise: Noise | None = None
) -> ShiftPolicy:
    """a = Ks + b + ξ; θ = (K row by row, b). Noise N(0, 1) by default. Raises ValueError for a bias of wrong shape."""
    bias = np.zeros(len(K)) if bias is None else bias
    if K.ndim != 2 or bias.shape != (len(K),):
        raise ValueError(f"K has shape {K.shape} and bias {bias.shape}; expected (A, S) and (A,)")
    _finite(K=K, bias=bias)
    return from_map(Map(K, bias), noise or gaussian())


def tanh_policy(
    state_weight: Float[ndarray, "hidden S"],
    bias: Float[ndarray, " hidden"],
    output_weight: Float[ndarray, "A hidden"],
    *,
    noise: Noise | None = None,
) -> ShiftPolicy:
    """a = V tanh(Ws + b) + ξ; θ = (W, b, V), each row by row. Noise N(0, 1) by default.

    Raises ValueError for weights that do not fit or are not finite.
    """
    hidden = len(bias)
    if state_weight.shape[0] != hidden or output_weight.shape[1] != hidden:
        raise ValueError(
            f"state_weight {state_weight.shape}, bias {bias.shape} and output_weight {output_weight.shape} do not fit; "
            "expected (hidden, S), (hidden,) and (A, hidden)"
        )
    _finite(state_weight=state_weight, bias=bias, output_weight=output_weight)
    return from_map(Map(state_weight, bias, output_weight), noise or gaussian())


def score_function(
    policy: ShiftPolicy, state: Float[ndarray, "B S"], action: Float[ndarray, "B A"]
) -> Float[ndarray, "B P"]:
    """∇_θ log π_θ(a|s) = −ā_θᵀ (log ν)'(a − ā_θ(s)).

    The likelihood of a drawn action, the action held fixed. Where ν jumps this is its absolutely continuous part only.
    Raises ValueError for an action that is not one row per state. Ledger: S02, S08.
    """
    mean = policy.mean_action(policy.theta, state)
    if action.shape != mean.shape:
        raise ValueError(
            f"action has shape {action.shape}, expected {mean.shape}, that of the mean action of state {state.shape}; "
            "give one action for each state"
        )
    slope = policy.noise.score(action - mean)
    return -np.einsum("ba,bap->bp", slope, policy.parameter_jacobian(policy.theta, state))
