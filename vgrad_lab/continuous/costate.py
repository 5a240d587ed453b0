"""The adjoint recursion: costates λ_t = ∂R_t/∂s_t along rollouts, and ∂R_t/∂a_t beside them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous import maps, payoffs
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

    Units: reward per unit of state. discount: γ in [0, 1]. Raises ValueError for a γ outside or an environment without
    Jacobians. Ledger: S04.
    """
    check_discount(discount)
    parts = structure(environment, policy)
    if parts is None:
        return _by_jacobians(environment, policy, rollout, discount).costate
    batch, nodes, size = rollout.state.shape
    result = np.empty((nodes, size, batch))
    for _ in adjoint_blocks(*parts, columns_of(*parts, rollout), discount, result):
        pass
    return result.transpose(2, 0, 1)


def adjoint(environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0) -> Adjoint:
    """Costates (eq. 6) together with ∂R_t/∂a_t, the bracket of eq. 7.

    Raises ValueError as ``costate`` does. Ledger: S04, S05.
    """
    check_discount(discount)
    parts = structure(environment, policy)
    if parts is None:
        return _by_jacobians(environment, policy, rollout, discount)
    (batch, nodes, size), (horizon, action_size) = rollout.state.shape, rollout.action.shape[1:]
    result, actions = np.empty((nodes, size, batch)), np.empty((horizon, action_size, batch))
    columns = columns_of(*parts, rollout)
    for block, gradient, _ in adjoint_blocks(*parts, columns, discount, result):
        actions[block] = gradient
    return Adjoint(result.transpose(2, 0, 1), actions.transpose(2, 0, 1))


def adjoint_blocks(
    dynamics: Map, payoff: Payoff, mean: Map, columns: Columns, discount: float, costate: ndarray
) -> Iterator[tuple[slice, ndarray, ndarray | None]]:
    """Fill ``costate`` (T1,S,B) from the end; yield each block of time, its ∂R_t/∂a_t (time,A,B) and the mean's slope.

    The yielded arrays are work space, valid until the next block.
    """
    x, (horizon, size, batch) = columns.x, (len(costate) - 1, *costate.shape[1:])
    costate[horizon] = 0
    cuts = blocks(horizon, x[0].nbytes)
    work, pulled, through = np.empty_like(x[: cuts[0].stop]), np.empty_like(x[0]), np.empty((size, batch))
    spaces = [
        None if t is None else np.empty_like(t[: cuts[0].stop]) for t in (columns.dynamics_tape, columns.mean_tape)
    ]
    hidden = [np.empty((len(m.inner), batch)) for m in (dynamics, mean)]
    future, slopes = maps.scaled(dynamics, discount), payoffs.slopes(payoff)
    for block in reversed(cuts):
        steps = block.stop - block.start
        total = work[:steps]
        payoffs.gradient_columns(payoff, slopes, x[block], columns.reward[block], total)
        slope, mean_slope = (
            None if tape is None or space is None else maps.slope_columns(tape[block], space[:steps])
            for tape, space in zip((columns.dynamics_tape, columns.mean_tape), spaces, strict=True)
        )
        for t in range(block.stop - 1, block.start - 1, -1):
            k = t - block.start
            here, out = total[k], costate[t]
            if t + 1 < horizon:
                maps.pull_columns(future, costate[t + 1], None if slope is None else slope[k], hidden[0], pulled)
                np.add(here, pulled, here)
            maps.pull_columns(mean, here[size:], None if mean_slope is None else mean_slope[k], hidden[1], through)
            np.add(here[:size], through, out)
        yield block, total[:, size:], mean_slope


def require_jacobians(environment: Environment) -> Jacobians:
    """The environment's Jacobians. Raises ValueError when it has none."""
    if environment.jacobians is None:
        raise ValueError(
            "this environment has no Jacobians, so there are no costates: give it Jacobians(transition_state, "
            "transition_action, reward_state, reward_action) and check them with vgrad_lab.verify.check_environment"
        )
    return environment.jacobians


def _by_jacobians(environment: Environment, policy: ShiftPolicy, rollout: Rollout, discount: float) -> Adjoint:
    jacobians = require_jacobians(environment)
    costates, actions = np.zeros_like(rollout.state), np.empty_like(rollout.action)
    for t in reversed(range(rollout.action.shape[1])):
        state, action, future = rollout.state[:, t], rollout.action[:, t], discount * costates[:, t + 1]
        f_s, f_a = jacobians.transition_state(state, action), jacobians.transition_action(state, action)
        actions[:, t] = jacobians.reward_action(state, action) + np.einsum("bsa,bs->ba", f_a, future)
        costates[:, t] = (
            jacobians.reward_state(state, action)
            + np.einsum("bij,bi->bj", f_s, future)
            + np.einsum("ba,bas->bs", actions[:, t], policy.state_jacobian(policy.theta, state))
        )
    return Adjoint(costates, actions)


def closed_loop_reward_gradient(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout
) -> Float[ndarray, "B T S"]:
    """Dr_t = r_s + ā_sᵀ r_a at each step. Raises ValueError for an environment without Jacobians. Ledger: S04."""
    jacobians = require_jacobians(environment)
    state, action = _flat(rollout)
    through = np.einsum(
        "ba,bas->bs", jacobians.reward_action(state, action), policy.state_jacobian(policy.theta, state)
    )
    return (jacobians.reward_state(state, action) + through).reshape(*rollout.reward.shape, -1)


def closed_loop_jacobian(environment: Environment, policy: ShiftPolicy, rollout: Rollout) -> Float[ndarray, "B T S S"]:
    """Df_t = f_s + f_a ā_s at each step, (out, in). Raises ValueError for an environment without Jacobians."""
    jacobians = require_jacobians(environment)
    state, action = _flat(rollout)
    through = jacobians.transition_action(state, action) @ policy.state_jacobian(policy.theta, state)
    size = state.shape[1]
    return (jacobians.transition_state(state, action) + through).reshape(*rollout.reward.shape, size, size)


def _flat(rollout: Rollout) -> tuple[ndarray, ndarray]:
    """States and actions of all steps, one row each."""
    size, action_size = rollout.state.shape[2], rollout.action.shape[2]
    return rollout.state[:, :-1].reshape(-1, size), rollout.action.reshape(-1, action_size)
