"""Environments that share θ with the policy: the terms that ∂R_1/∂θ gains, each on its own.

A rollout does not change: the environment was made from θ. Its ``parameters`` say how it moves with θ.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous.costate import check_discount
from vgrad_lab.continuous.environments import Environment, ParameterJacobians
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout


@dataclass(frozen=True, eq=False)
class PathwiseTerms:
    """∂R_1/∂θ of each rollout by where θ enters, and the costates.

    policy Σ_t γ^{t−1} ā_θᵀ (r_a + γ f_aᵀ λ_{t+1}), dynamics Σ_t γ^t f_θᵀ λ_{t+1}, reward Σ_t γ^{t−1} r_θ,
    initial_state (∂s_1/∂θ)ᵀ λ_1; zero where θ does not enter.
    """

    policy: Float[ndarray, "B P"]
    dynamics: Float[ndarray, "B P"]
    reward: Float[ndarray, "B P"]
    initial_state: Float[ndarray, "B P"]
    costate: Float[ndarray, "B T1 S"]

    @property
    def equation_7(self) -> Float[ndarray, "B P"]:
        """What eq. 7 says: policy and dynamics."""
        return self.policy + self.dynamics

    @property
    def total(self) -> Float[ndarray, "B P"]:
        """All four: ∂R_1/∂θ."""
        return self.equation_7 + self.reward + self.initial_state


def environment_terms(
    environment: Environment,
    policy: ShiftPolicy,
    rollout: Rollout,
    costate: Float[ndarray, "B T1 S"],
    policy_term: Float[ndarray, "B P"],
    *,
    discount: float = 1.0,
) -> PathwiseTerms:
    """The policy's term and beside it those of ``environment.parameters``, read along the rollout.

    Raises ValueError for a γ outside [0, 1], a θ that is not the policy's, or Jacobians of wrong shape. Ledger: S05.
    """
    zero, parameters = np.zeros_like(policy_term), environment.parameters
    terms = {"dynamics": zero, "reward": zero, "initial_state": zero}
    if parameters is not None:
        if not np.array_equal(parameters.theta, policy.theta):
            raise ValueError(
                "the environment was made with another θ than the policy's, so their terms do not add up: take "
                "environment.parameters.at(policy.theta) and roll out again"
            )
        found = {
            "initial_state": _initial(parameters, rollout, len(policy.theta)),
            "dynamics": _along("transition", parameters.transition, rollout, costate.shape[2:], len(policy.theta)),
            "reward": _along("reward", parameters.reward, rollout, (), len(policy.theta)),
        }
        given = {name: jacobian for name, jacobian in found.items() if jacobian is not None}
        terms |= {name: extra_terms(rollout, costate, discount=discount, **{name: x}) for name, x in given.items()}
    return PathwiseTerms(policy_term, terms["dynamics"], terms["reward"], terms["initial_state"], costate)


def _checked(name: str, jacobian: ndarray, shape: tuple[int, ...]) -> ndarray:
    if jacobian.shape == shape:
        return jacobian
    raise ValueError(
        f"parameters.{name} gives shape {jacobian.shape}, expected {shape}: rows, then the axes of the value, then "
        "those of θ; vgrad_lab.verify.check_environment checks it"
    )


def _initial(parameters: ParameterJacobians, rollout: Rollout, count: int) -> ndarray | None:
    if parameters.initial_state is None:
        return None
    start = rollout.state[:, 0]
    return _checked("initial_state", parameters.initial_state(start), (*start.shape, count))


def _along(
    name: str,
    jacobian: Callable[[ndarray, ndarray], ndarray] | None,
    rollout: Rollout,
    size: tuple[int, ...],
    count: int,
) -> ndarray | None:
    """A Jacobian in θ at each step, (B,T,…,P)."""
    if jacobian is None:
        return None
    batch, horizon = rollout.reward.shape
    steps = [
        _checked(name, jacobian(rollout.state[:, t], rollout.action[:, t]), (batch, *size, count))
        for t in range(horizon)
    ]
    return np.stack(steps, axis=1)


def extra_terms(
    rollout: Rollout,
    costate: Float[ndarray, "B T1 S"],
    *,
    discount: float = 1.0,
    initial_state: Float[ndarray, "B S P"] | None = None,
    dynamics: Float[ndarray, "B T S P"] | None = None,
    reward: Float[ndarray, "B T P"] | None = None,
) -> Float[ndarray, "B P"]:
    """What ∂R_1/∂θ gains when θ also enters s_1, f or r.

    (∂s_1/∂θ)ᵀ λ_1 + Σ_t γ^{t−1} (γ f_θᵀ λ_{t+1} + r_θ); the f_θ term stands in eq. 7, the other two do not.

    initial_state, dynamics, reward: ∂s_1/∂θ, f_θ and r_θ along the rollout; None where θ does not enter. Raises
    ValueError for a γ outside [0, 1], a wrong shape, or when all three are None. Ledger: S05.extra.
    """
    check_discount(discount)
    (batch, horizon), size = rollout.reward.shape, rollout.state.shape[2]
    if costate.shape != (batch, horizon + 1, size):
        raise ValueError(f"costate has shape {costate.shape}, expected {(batch, horizon + 1, size)}")
    for name, jacobian, shape in (
        ("initial_state", initial_state, (batch, size)),
        ("dynamics", dynamics, (batch, horizon, size)),
        ("reward", reward, (batch, horizon)),
    ):
        if jacobian is not None and jacobian.shape[:-1] != shape:
            expected = f"({', '.join(map(str, shape))}, P)"
            raise ValueError(f"{name} has shape {jacobian.shape}, expected {expected}: the axis of θ is the last")
    weight = discount ** np.arange(rollout.reward.shape[1])
    terms = []
    if initial_state is not None:
        terms.append(np.einsum("bsp,bs->bp", initial_state, costate[:, 0]))
    if dynamics is not None:
        terms.append(np.einsum("btsp,bts,t->bp", dynamics, costate[:, 1:], discount * weight))
    if reward is not None:
        terms.append(np.einsum("btp,t->bp", reward, weight))
    if not terms:
        raise ValueError(
            "give at least one of initial_state, dynamics and reward; without them there is nothing to add"
        )
    return np.asarray(sum(terms))
