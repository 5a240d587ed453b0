"""Rollouts: arrays of states, actions, noise and rewards, from a pure function of initial state and noise.

A rollout runs in place: time outermost, batch innermost, state and action of one step side by side. What environment
and policy state as arrays is then one matrix product a step into existing memory; what they state as functions only is
called with views of it, the reward for a block of time at once. The public arrays are views with the house's axes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous import by_functions, maps, payoffs
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.policies import ShiftPolicy

Parts = tuple[Map | Environment, Payoff | Environment, Map | ShiftPolicy]
"""Dynamics, payoff and mean action: as arrays, or the object whose functions state them."""
_BLOCK_BYTES = 1 << 18
"""Work on about this much memory at a time: large enough to hide Python's overhead, small enough for the cache."""


_MEMORY = 3.75
"""Tanh layers are kept for the way back while rollout and costates need no more than this many arrays (B,T1,S)."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Memory of a rollout in place: x = (s, a) as (T1, S+A, B), rewards, and tanh layers where they were kept.

    dynamics, payoff and parameters (those of the mean action) say whose rewards and tapes these are.
    """

    x: Float[ndarray, "T1 SA B"]
    reward: Float[ndarray, "T B"]
    dynamics_tape: Float[ndarray, "T hidden B"] | None
    mean_tape: Float[ndarray, "T width B"] | None
    dynamics: Map | Environment
    payoff: Payoff | Environment
    parameters: Float[ndarray, " P"]


@dataclass(frozen=True, eq=False)
class Rollout:
    """B rollouts of T steps. reward is per step; columns is private memory, None for arrays from elsewhere.

    state, action and reward of ``rollout`` are read-only views of that memory: copy before a change.
    """

    state: Float[ndarray, "B T1 S"]
    action: Float[ndarray, "B T A"]
    noise_draw: Float[ndarray, "B T A"]
    reward: Float[ndarray, "B T"]
    columns: Columns | None = field(default=None, repr=False)


def structure(environment: Environment, policy: ShiftPolicy) -> Parts:
    """Dynamics, payoff and mean action as arrays where they are known as such."""
    return (
        environment if environment.dynamics is None else environment.dynamics,
        environment if environment.payoff is None else environment.payoff,
        policy if policy.mean_map is None else policy.mean_map(policy.theta),
    )


def blocks(horizon: int, bytes_per_step: int) -> list[slice]:
    """Consecutive slices of time that cover the horizon, each of about ``_BLOCK_BYTES``."""
    length = max(1, min(horizon, _BLOCK_BYTES // max(bytes_per_step, 1)))
    return [slice(start, min(start + length, horizon)) for start in range(0, horizon, length)]


def _check_inputs(environment: Environment, policy: ShiftPolicy, state: ndarray, noise_draw: ndarray) -> None:
    size, action_size = environment.state_size, environment.action_size
    if state.ndim != 2 or state.shape[1] != size:
        hint = "; give one state as state[None, :]" if state.ndim == 1 else ""
        raise ValueError(f"initial_state has shape {state.shape}, expected (B, {size}) for this environment{hint}")
    if noise_draw.ndim != 3 or noise_draw.shape[2] != action_size or len(noise_draw) != len(state):
        hint = "; its axes are row, step and action, none may be left out" if noise_draw.ndim != 3 else ""
        raise ValueError(f"noise_draw has shape {noise_draw.shape}, expected ({len(state)}, T, {action_size}){hint}")
    if noise_draw.shape[1] < 1:
        raise ValueError("noise_draw has horizon T = 0; a rollout needs at least one step")
    if len(state) < 1:
        raise ValueError("initial_state has batch B = 0; a rollout needs at least one row")
    if not np.all(np.isfinite(state)):
        raise ValueError("initial_state holds non-finite values; give finite numbers")
    check_mean(environment, policy, state[:1])


def check_mean(environment: Environment, policy: ShiftPolicy, state: Float[ndarray, "1 S"]) -> None:
    """Raise ValueError unless the policy takes one state of the environment and gives one action of it."""
    size, action_size = environment.state_size, environment.action_size
    taken = size if policy.mean_map is None else policy.mean_map(policy.theta).inner.shape[1]
    if taken != size:
        raise ValueError(
            f"the policy takes states of size {taken}, expected {size}: its state size is not the environment's; "
            "make the policy for this environment"
        )
    try:
        mean = policy.mean_action(policy.theta, state)
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"the policy's mean_action fails for one state of shape (1, {size}), expected an action of shape "
            f"(1, {action_size}): write it for states (B, {size}); it said: {error}"
        ) from error
    if mean.shape != (1, action_size):
        raise ValueError(
            f"the policy's mean_action gives shape {mean.shape} for one state, expected (1, {action_size}): "
            "its action size is not the environment's"
        )


def _explain(played: Rollout) -> None:
    """Raise ValueError that says where a rollout first holds a number that is not finite."""
    if not np.all(np.isfinite(played.noise_draw)):
        raise ValueError("noise_draw holds non-finite values; give finite numbers")
    for name, reason in (("reward", " or the reward is not defined there"), ("state", ""), ("action", "")):
        x = getattr(played, name)
        found = np.argwhere(~np.isfinite(x))
        if len(found):
            row, step = found[0, :2]
            raise ValueError(
                f"{name} is {x[tuple(found[0])]} in row {row} at step {step + 1}: the rollout diverges{reason}; use "
                "stabler dynamics, a shorter horizon or smaller noise"
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
    or horizon, a policy of other sizes, non-finite input, and rewards, states or actions that diverge. Ledger: S04.
    """
    _check_inputs(environment, policy, initial_state, noise_draw)
    result, fine = _in_place(*structure(environment, policy), initial_state, noise_draw)
    if not fine:
        _explain(result)
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


def _in_place(
    dynamics: Map | Environment,
    payoff: Payoff | Environment,
    mean: Map | ShiftPolicy,
    initial_state: ndarray,
    noise_draw: ndarray,
) -> tuple[Rollout, bool]:
    """The rollout, and whether all its numbers are finite: asked of each block while the cache holds it."""
    (batch, size), (horizon, action_size) = initial_state.shape, noise_draw.shape[1:]
    noise = noise_draw.transpose(1, 2, 0)
    x = np.empty((horizon + 1, size + action_size, batch))
    x[0, :size] = initial_state.T
    x[-1, size:] = 0
    reward = np.empty((horizon, batch))
    tapes = _new_tapes(dynamics, mean, size, action_size, horizon, batch)
    shift = mean.shift[:, None] if isinstance(mean, Map) and mean.outer is None else 0.0
    drift = dynamics.shift[:, None] if isinstance(dynamics, Map) and dynamics.outer is None else None
    drift = None if drift is None or not drift.any() else drift
    cuts = blocks(horizon, x[0].nbytes)
    mean_action, work = np.empty((action_size, batch)), np.empty_like(x[: cuts[0].stop])
    pay, fine = _payer(payoff), True
    for block in cuts:
        np.add(noise[block], shift, x[block, size:])
        for t in range(block.start, block.stop):
            _act(mean, x[t, :size], x[t, size:], mean_action, _tape_of(tapes[1], t))
            _move(dynamics, x[t], x[t + 1, :size], drift, _tape_of(tapes[0], t))
        pay(x[block], work, reward[block])
        fine = fine and bool(np.isfinite(x[block]).all() and np.isfinite(reward[block]).all())
    views = *views_of(x, size), reward.T
    fine = fine and bool(np.isfinite(x[-1]).all())
    for view in views:
        view.flags.writeable = False
    first, second = (tape if tape is not None and len(tape) == horizon else None for tape in tapes)
    columns = Columns(x, reward, first, second, dynamics, payoff, _parameters(mean))
    made = Rollout(state=views[0], action=views[1], noise_draw=noise_draw, reward=views[2], columns=columns)
    return made, fine


def _tape_of(tape: ndarray | None, t: int) -> ndarray | None:
    return None if tape is None else tape[t if len(tape) > 1 else 0]


def _act(mean: Map | ShiftPolicy, state: ndarray, action: ndarray, work: ndarray, tape: ndarray | None) -> None:
    """Add the mean action to ``action``, which holds the noise."""
    if isinstance(mean, Map):
        maps.apply_columns(mean, state, work, tape)
        np.add(action, work, action)
        return
    found = mean.mean_action(mean.theta, state.T)
    np.add(action, by_functions.checked("mean_action", found, action.shape[::-1]).T, action)


def _move(
    dynamics: Map | Environment, now: ndarray, following: ndarray, drift: ndarray | None, tape: ndarray | None
) -> None:
    """Write the next state."""
    if isinstance(dynamics, Map):
        maps.apply_columns(dynamics, now, following, tape)
        if drift is not None:
            np.add(following, drift, following)
        return
    size = len(following)
    found = dynamics.transition(now[:size].T, now[size:].T)
    following[:] = by_functions.checked("transition", found, following.shape[::-1]).T


def _payer(payoff: Payoff | Environment) -> Callable[[ndarray, ndarray, ndarray], None]:
    """A function of a block x (time, S+A, B) and work space that writes the block's rewards (time, B) into its last."""
    if isinstance(payoff, Payoff):
        slopes = payoffs.slopes(payoff)
        return lambda x, work, out: payoffs.reward_columns(payoff, slopes, x, work[: len(x)], out)

    def write(x: ndarray, work: ndarray, out: ndarray) -> None:
        found = payoff.reward(*by_functions.rows(x, payoff.state_size))
        out[:] = by_functions.checked("reward", found, (out.size,)).reshape(out.shape)

    return write


def views_of(x: ndarray, size: int) -> tuple[ndarray, ndarray]:
    """State (B,T1,S) and action (B,T,A) where they lie."""
    return x[:, :size].transpose(2, 0, 1), x[:-1, size:].transpose(2, 0, 1)


def _parameters(mean: Map | ShiftPolicy) -> ndarray:
    return maps.flatten(mean) if isinstance(mean, Map) else np.empty(0)


def _new_tapes(
    dynamics: Map | Environment, mean: Map | ShiftPolicy, size: int, action_size: int, horizon: int, batch: int
) -> tuple[ndarray | None, ndarray | None]:
    """Memory for tanh layers: of all steps while ``_MEMORY`` lasts, dynamics first, else of one step."""
    room, tapes = _MEMORY * size - (2 * size + action_size + 1), []
    for m in (dynamics, mean):
        width = 0 if not isinstance(m, Map) or m.outer is None else len(m.inner)
        keep = width <= room
        tapes.append(np.empty((horizon if keep else 1, width, batch)) if width else None)
        room -= width if keep else 0
    return tapes[0], tapes[1]


def columns_of(
    dynamics: Map | Environment, payoff: Payoff | Environment, mean: Map | ShiftPolicy, played: Rollout
) -> Columns:
    """The rollout's own memory where it still is that of these arrays and parts, or the same built anew."""
    own, size = played.columns, played.state.shape[2]
    if (
        own is not None
        and own.dynamics is dynamics
        and own.payoff is payoff
        and np.array_equal(own.parameters, _parameters(mean))
        and all(same_memory(*pair) for pair in zip(views_of(own.x, size), (played.state, played.action), strict=True))
    ):
        return own
    horizon, batch = played.action.shape[1], len(played.action)
    x = np.zeros((horizon + 1, size + played.action.shape[2], batch))
    for view, part in zip(views_of(x, size), (played.state, played.action), strict=True):
        view[:] = part
    reward = np.array(played.reward.T)
    if isinstance(payoff, Payoff):
        cuts = blocks(horizon, x[0].nbytes)
        work, pay = np.empty_like(x[: cuts[0].stop]), _payer(payoff)
        for block in cuts:
            pay(x[block], work, reward[block])
    return Columns(x, reward, None, None, dynamics, payoff, _parameters(mean))


def same_memory(ours: ndarray, theirs: ndarray) -> bool:
    """Whether two arrays are views of the same memory with the same axes."""
    return (ours.shape, ours.strides, ours.ctypes.data) == (theirs.shape, theirs.strides, theirs.ctypes.data)
