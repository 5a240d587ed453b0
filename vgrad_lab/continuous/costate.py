"""The adjoint recursion: costates λ_t = ∂R_t/∂s_t along rollouts, and ∂R_t/∂a_t beside them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous.backward import Layer, Pull, map_back, mean_back, payoff_gradient, transition_back
from vgrad_lab.continuous.by_functions import rows
from vgrad_lab.continuous.doors import check_rollout
from vgrad_lab.continuous.environments import Environment, Jacobians
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Columns, Rollout, blocks, columns_of, structure


@dataclass(frozen=True, eq=False)
class Adjoint:
    """costate λ_t = ∂R_t/∂s_t with λ_{T+1} = 0, and action_gradient ∂R_t/∂a_t = r_a + γ f_aᵀ λ_{t+1}."""

    costate: Float[ndarray, "B T1 S"]
    action_gradient: Float[ndarray, "B T A"]


def check_discount(discount: float) -> None:
    """Raise ValueError unless γ lies in [0, 1]."""
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")


def costate(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0
) -> Float[ndarray, "B T1 S"]:
    """Costates of each rollout by the adjoint recursion.

    λ_t = Dr_t + γ Df_tᵀ λ_{t+1}, λ_{T+1} = 0, with Dr = r_s + ā_sᵀ r_a and Df = f_s + f_a ā_s  (Prop. 1, eq. 6).

    Units: reward per unit of state. discount: γ in [0, 1]. Raises ValueError for a γ outside, a rollout or policy that
    does not fit or is not finite, or an environment without Jacobians. Ledger: S04.
    """
    check_discount(discount)
    check_rollout(environment, policy, rollout)
    parts = structure(environment, policy)
    batch, nodes, size = rollout.state.shape
    result = np.empty((nodes, size, batch))
    for _ in adjoint_blocks(*parts, columns_of(*parts, rollout), discount, result, actions=False):
        pass
    return result.transpose(2, 0, 1)


def adjoint(environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0) -> Adjoint:
    """Costates (eq. 6) together with ∂R_t/∂a_t, the bracket of eq. 7.

    Raises ValueError as ``costate`` does. Ledger: S04, S05.
    """
    check_discount(discount)
    check_rollout(environment, policy, rollout)
    parts = structure(environment, policy)
    (batch, nodes, size), (horizon, action_size) = rollout.state.shape, rollout.action.shape[1:]
    result, actions = np.empty((nodes, size, batch)), np.empty((horizon, action_size, batch))
    columns = columns_of(*parts, rollout)
    for block, gradient, _ in adjoint_blocks(*parts, columns, discount, result):
        actions[block] = gradient
    return Adjoint(result.transpose(2, 0, 1), actions.transpose(2, 0, 1))


def adjoint_blocks(
    dynamics: Map | Environment,
    payoff: Payoff | Environment,
    mean: Map | ShiftPolicy,
    columns: Columns,
    discount: float,
    costate: ndarray,
    *,
    actions: bool = True,
) -> Iterator[tuple[slice, ndarray, Layer | None]]:
    """Fill ``costate`` (T1,S,B) from the end; yield each block of time, its ∂R_t/∂a_t (time,A,B) and the mean's layer.

    The yielded arrays are work space, valid until the next block. Without ``actions`` the ∂R_t/∂a_t may be left out,
    which closes the loop of a linear mean action around dynamics known as arrays and saves a product a step.
    """
    x, (horizon, size, batch) = columns.x, (len(costate) - 1, *costate.shape[1:])
    costate[horizon] = 0
    arrays = isinstance(dynamics, Map) and isinstance(payoff, Payoff) and isinstance(mean, Map)
    rebuilt = sum(
        len(m.inner)
        for m, tape in ((dynamics, columns.dynamics_tape), (mean, columns.mean_tape))
        if isinstance(m, Map) and m.outer is not None and tape is None
    )
    cuts = blocks(horizon, x[0].nbytes * (1 if arrays else 2) + 16 * rebuilt * batch)  # what works beside x needs room
    longest = cuts[0].stop
    work = np.empty_like(x[:longest])
    gain = None
    if isinstance(mean, Map) and mean.outer is None and isinstance(dynamics, Map) and not actions:
        gain = mean.inner
    if isinstance(dynamics, Map):
        tape = columns.dynamics_tape
        behind = map_back(dynamics, tape, factor=discount, longest=longest, batch=batch, gain=gain)
    else:
        behind = transition_back(require_jacobians(dynamics), factor=discount, batch=batch)
    if isinstance(mean, Map):
        aside = map_back(mean, columns.mean_tape, longest=longest, batch=batch)
    else:
        aside = mean_back(mean, batch=batch)
    gradient = payoff_gradient(payoff if isinstance(payoff, Payoff) else require_jacobians(payoff))
    for block in reversed(cuts):
        now, total = x[block], work[: block.stop - block.start]
        flat = (now, now) if arrays else rows(now, size)
        gradient(now, flat, columns.reward[block], total)
        (pull, _), (pull_mean, layer) = behind(block, now, flat), aside(block, now[:, :size], flat)
        if gain is not None:
            _closed_steps(total, gain, pull, costate[block.start : block.stop + 1])
        else:
            _open_steps(total, pull, pull_mean, costate[block.start : block.stop + 1])
        yield block, total[:, size:], layer


def _closed_steps(total: ndarray, gain: ndarray, pull: Pull, costate: ndarray) -> None:
    """λ = r_s + ā_sᵀ r_a + γ Df_sᵀ λ' over a block whose reward gradients are ``total``, the loop closed beforehand."""
    size = gain.shape[1]
    direct = np.matmul(gain.T, total[:, size:])
    np.add(total[:, :size], direct, direct)
    for k in reversed(range(len(total))):
        pull(k, costate[k + 1], costate[k])
        np.add(costate[k], direct[k], costate[k])


def _open_steps(total: ndarray, pull: Pull, pull_mean: Pull, costate: ndarray) -> None:
    """λ and ∂R/∂a over a block; ``total`` turns from reward gradients into gradients of the return at (s, a) apart."""
    size = costate.shape[1]
    pulled, through = np.empty_like(total[0]), np.empty_like(costate[0])
    for k in reversed(range(len(total))):
        here = total[k]
        pull(k, costate[k + 1], pulled)
        np.add(here, pulled, here)
        pull_mean(k, here[size:], through)
        np.add(here[:size], through, costate[k])


def require_jacobians(environment: Environment) -> Jacobians:
    """The environment's Jacobians. Raises ValueError when it has none."""
    if environment.jacobians is None:
        raise ValueError(
            "this environment has no Jacobians, so there are no costates: give it Jacobians(transition_state, "
            "transition_action, reward_state, reward_action) and check them with vgrad_lab.verify.check_environment"
        )
    return environment.jacobians


def closed_loop_reward_gradient(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout
) -> Float[ndarray, "B T S"]:
    """Dr_t = r_s + ā_sᵀ r_a at each step. Raises ValueError as ``costate`` does. Ledger: S04."""
    check_rollout(environment, policy, rollout)
    jacobians = require_jacobians(environment)
    state, action = _flat(rollout)
    through = np.einsum(
        "ba,bas->bs", jacobians.reward_action(state, action), policy.state_jacobian(policy.theta, state)
    )
    return (jacobians.reward_state(state, action) + through).reshape(*rollout.reward.shape, -1)


def closed_loop_jacobian(environment: Environment, policy: ShiftPolicy, rollout: Rollout) -> Float[ndarray, "B T S S"]:
    """Df_t = f_s + f_a ā_s at each step, (out, in). Raises ValueError as ``costate`` does. Ledger: S04."""
    check_rollout(environment, policy, rollout)
    jacobians = require_jacobians(environment)
    state, action = _flat(rollout)
    through = jacobians.transition_action(state, action) @ policy.state_jacobian(policy.theta, state)
    size = state.shape[1]
    return (jacobians.transition_state(state, action) + through).reshape(*rollout.reward.shape, size, size)


def _flat(rollout: Rollout) -> tuple[ndarray, ndarray]:
    """States and actions of all steps, one row each."""
    size, action_size = rollout.state.shape[2], rollout.action.shape[2]
    return rollout.state[:, :-1].reshape(-1, size), rollout.action.reshape(-1, action_size)
