"""Rollouts: arrays of states, actions, noise and rewards, from a pure function of initial state and noise.

Where environment and policy state themselves as arrays the rollout runs in place: time outermost, batch innermost,
state and action of one step side by side, so that a step is one matrix product into existing memory. The public arrays
are views of that memory with the house's axes.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous import maps, payoffs
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.policies import ShiftPolicy

_BLOCK_BYTES = 1 << 18
"""Work on about this much memory at a time: large enough to hide Python's overhead, small enough for the cache."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Memory of a rollout in place: x = (s, a) as (T1, S+A, B), rewards, and what tanh layers keep for the way back.

    dynamics and parameters (those of the mean action) say whose tapes these are.
    """

    x: Float[ndarray, "T1 SA B"]
    reward: Float[ndarray, "T B"]
    dynamics_tape: Float[ndarray, "T hidden B"] | None
    mean_tape: Float[ndarray, "T width B"] | None
    dynamics: Map
    parameters: Float[ndarray, " P"]


@dataclass(frozen=True, eq=False)
class Rollout:
    """B rollouts of T steps. reward is per step; columns is private memory, None for arrays from elsewhere.

    Where the rollout ran in place, state, action and reward are read-only views of that memory: copy before a change.
    """

    state: Float[ndarray, "B T1 S"]
    action: Float[ndarray, "B T A"]
    noise_draw: Float[ndarray, "B T A"]
    reward: Float[ndarray, "B T"]
    columns: Columns | None = field(default=None, repr=False)


def structure(environment: Environment, policy: ShiftPolicy) -> tuple[Map, Payoff, Map] | None:
    """Dynamics, payoff and mean action as arrays, or None when one of them is only known as functions."""
    if environment.dynamics is None or environment.payoff is None or policy.mean_map is None:
        return None
    return environment.dynamics, environment.payoff, policy.mean_map(policy.theta)


def blocks(horizon: int, bytes_per_step: int) -> list[slice]:
    """Consecutive slices of time that cover the horizon, each of about ``_BLOCK_BYTES``."""
    length = max(1, min(horizon, _BLOCK_BYTES // max(bytes_per_step, 1)))
    return [slice(start, min(start + length, horizon)) for start in range(0, horizon, length)]


def _check_inputs(environment: Environment, policy: ShiftPolicy, state: ndarray, noise_draw: ndarray) -> None:
    size, action_size = environment.state_size, environment.action_size
    if state.shape[1] != size:
        raise ValueError(f"initial_state has shape {state.shape}, expected (B, {size}) for this environment")
    if noise_draw.shape[2] != action_size or len(noise_draw) != len(state):
        raise ValueError(f"noise_draw has shape {noise_draw.shape}, expected ({len(state)}, T, {action_size})")
    if noise_draw.shape[1] < 1:
        raise ValueError("noise_draw has horizon T = 0; a rollout needs at least one step")
    if len(state) < 1:
        raise ValueError("initial_state has batch B = 0; a rollout needs at least one row")
    if not np.all(np.isfinite(state)):
        raise ValueError("initial_state holds non-finite values; give finite numbers")
    mean = policy.mean_action(policy.theta, state[:1])
    if mean.shape != (1, action_size):
        raise ValueError(
            f"the policy's mean_action gives shape {mean.shape} for one state, expected (1, {action_size}): "
            "its action size is not the environment's"
        )


def _check_reward(reward: ndarray, noise_draw: ndarray) -> None:
    if np.all(np.isfinite(reward)):
        return
    if not np.all(np.isfinite(noise_draw)):
        raise ValueError("noise_draw holds non-finite values; give finite numbers")
    row, step = np.argwhere(~np.isfinite(reward))[0]
    raise ValueError(
        f"reward is {reward[row, step]} in row {row} at step {step + 1}: the rollout diverges or the reward is not "
        "defined there; use stabler dynamics, a shorter horizon or smaller noise"
    )


def rollout(
    environment: Environment,
    policy: ShiftPolicy,
    initial_state: Float[ndarray, "B S"],
    noise_draw: Float[ndarray, "B T A"],
) -> Rollout:
    """Roll a policy out along drawn noise.

    a_t = ā_θ(s_t) + ξ_t, r_t = r(s_t, a_t), s_{t+1} = f(s_t, a_t)  (eq. 4).

    A pure function: the horizon is that of ``noise_draw``. Raises ValueError for arrays of wrong shape, an empty batch
    or horizon, non-finite input and non-finite rewards. Ledger: S04.
    """
    _check_inputs(environment, policy, initial_state, noise_draw)
    parts = structure(environment, policy)
    if parts is None:
        result = _by_functions(environment, policy, initial_state, noise_draw)
    else:
        result = _in_place(*parts, initial_state, noise_draw)
    _check_reward(result.reward, noise_draw)
    return result


def sample_rollout(
    environment: Environment, policy: ShiftPolicy, rng: np.random.Generator, *, batch: int, horizon: int
) -> Rollout:
    """Draw initial states and noise, then roll out. Raises ValueError for a batch or horizon below 1. Ledger: S04."""
    if batch < 1 or horizon < 1:
        raise ValueError(f"batch and horizon must be at least 1, got {batch} and {horizon}")
    initial_state = environment.initial(rng, batch)
    noise = policy.noise.draw(rng, (horizon, environment.action_size, batch))
    return rollout(environment, policy, initial_state, noise.transpose(2, 0, 1))


def _by_functions(environment: Environment, policy: ShiftPolicy, initial_state: ndarray, noise: ndarray) -> Rollout:
    states, actions, rewards = [initial_state], [], []
    for t in range(noise.shape[1]):
        actions.append(policy.mean_action(policy.theta, states[t]) + noise[:, t])
        rewards.append(environment.reward(states[t], actions[t]))
        states.append(environment.transition(states[t], actions[t]))
        if rewards[t].shape != (len(noise),) or states[-1].shape != initial_state.shape:
            raise ValueError(
                f"reward has shape {rewards[t].shape} and the next state {states[-1].shape}; expected ({len(noise)},) "
                f"and {initial_state.shape}: write both functions for a batch"
            )
    return Rollout(np.stack(states, 1), np.stack(actions, 1), noise, np.stack(rewards, 1))


def _in_place(dynamics: Map, payoff: Payoff, mean: Map, initial_state: ndarray, noise_draw: ndarray) -> Rollout:
    (batch, size), (horizon, action_size) = initial_state.shape, noise_draw.shape[1:]
    noise = noise_draw.transpose(1, 2, 0)
    x = np.empty((horizon + 1, size + action_size, batch))
    x[-1, size:] = 0
    reward = np.empty((horizon, batch))
    tapes = maps.new_tape(dynamics, horizon, batch), maps.new_tape(mean, horizon, batch)
    drift = dynamics.shift[:, None] if dynamics.outer is None and dynamics.shift.any() else None
    shift = mean.shift[:, None] if mean.outer is None else 0.0
    slopes = payoffs.slopes(payoff)
    work, mean_action = np.empty_like(x[: blocks(horizon, x[0].nbytes)[0].stop]), np.empty((action_size, batch))
    x[0, :size] = initial_state.T
    for block in blocks(horizon, x[0].nbytes):
        np.add(noise[block], shift, x[block, size:])
        for t in range(block.start, block.stop):
            now, following = x[t], x[t + 1, :size]
            action = now[size:]
            maps.apply_columns(mean, now[:size], mean_action, None if tapes[1] is None else tapes[1][t])
            np.add(action, mean_action, action)
            maps.apply_columns(dynamics, now, following, None if tapes[0] is None else tapes[0][t])
            if drift is not None:
                np.add(following, drift, following)
        steps = block.stop - block.start
        payoffs.reward_columns(payoff, slopes, x[block], work[:steps], reward[block])
    views = x[:, :size].transpose(2, 0, 1), x[:-1, size:].transpose(2, 0, 1), reward.T
    for view in views:
        view.flags.writeable = False
    columns = Columns(x, reward, *tapes, dynamics, maps.flatten(mean))
    return Rollout(state=views[0], action=views[1], noise_draw=noise_draw, reward=views[2], columns=columns)


def columns_of(dynamics: Map, payoff: Payoff, mean: Map, played: Rollout) -> Columns:
    """The rollout's own memory where it still is that of these arrays and maps, or the same built anew."""
    own = played.columns
    if (
        own is not None
        and own.dynamics is dynamics
        and np.array_equal(own.parameters, maps.flatten(mean))
        and all(np.may_share_memory(own.x, part) for part in (played.state, played.action))
        and own.x.shape[::2] == played.state.shape[1::-1]
    ):
        return own
    horizon, batch = played.action.shape[1], len(played.action)
    padded = np.concatenate([played.action, np.zeros_like(played.action[:, :1])], axis=1)
    x = np.ascontiguousarray(np.concatenate([played.state, padded], axis=2).transpose(1, 2, 0))
    size = played.state.shape[2]
    tapes = maps.new_tape(dynamics, horizon, batch), maps.new_tape(mean, horizon, batch)
    for m, tape, rows in ((dynamics, tapes[0], slice(None)), (mean, tapes[1], slice(size))):
        if tape is not None:
            tape[:] = np.tanh(m.inner @ x[:-1, rows] + m.shift[:, None])
    reward = np.empty((horizon, batch))
    payoffs.reward_columns(payoff, payoffs.slopes(payoff), x[:-1], np.empty_like(x[:-1]), reward)
    return Columns(x, reward, *tapes, dynamics, maps.flatten(mean))
