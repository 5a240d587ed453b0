"""Checkers of whole objects: an environment with its Jacobians, a shift policy with its noise."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.tolerances import QUADRATURE
from vgrad_lab.verify.derivatives import ENTRY, compare
from vgrad_lab.verify.parameters import check_parameters


@runtime_checkable
class NoiseLike(Protocol):
    """What the checkers read from a noise: ν, (log ν)', its jumps and breaks, and a quadrature (see ``Noise``)."""

    @property
    def density(self) -> Callable[[ndarray], ndarray]:
        """ν at each point."""

    @property
    def score(self) -> Callable[[ndarray], ndarray]:
        """(log ν)' at each point."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Points at which ν is not smooth."""

    @property
    def jumps(self) -> tuple[tuple[float, float], ...]:
        """(x, ν(x+) − ν(x−))."""

    @property
    def quadrature(self) -> Callable[[tuple[float, ...]], tuple[ndarray, ndarray]]:
        """Breaks of the integrand -> nodes and weights, the density included."""


def check_environment(
    environment: Any, *, action_size: int | None = None, batch: int = 6, seed: int = 0
) -> dict[str, float]:
    """Check an environment's functions and, where given, its four Jacobians and those in θ.

    Shapes (B,S) and (B,), rows independent of each other, inputs left alone, same input same output, and each Jacobian
    entry by entry against extrapolated differences; for a wrong entry also its Taylor rate.

    environment: initial(rng, batch), transition(state, action), reward(state, action); optional ``jacobians`` with
    transition_state (B,S,S), transition_action (B,S,A), reward_state (B,S), reward_action (B,A); optional
    ``parameters`` with theta, at(theta), and initial_state (B,S,P), transition (B,S,P), reward (B,P), None where θ does
    not enter. action_size: A, read from the environment when it has the attribute. Returns the largest error of each
    Jacobian over its scale. Raises AssertionError that names the Jacobian and its worst entry, ValueError for an object
    without the three functions.
    """
    missing = [name for name in ("initial", "transition", "reward") if not callable(getattr(environment, name, None))]
    if missing:
        raise ValueError(
            f"the environment lacks {', '.join(missing)}: it needs initial(rng, batch), transition(state, action) and "
            "reward(state, action), all batched"
        )
    action_size = getattr(environment, "action_size", None) if action_size is None else action_size
    if action_size is None:
        raise ValueError("the environment has no attribute action_size; give check_environment(…, action_size=A)")
    rng = np.random.default_rng(seed)
    state = np.asarray(environment.initial(rng, batch))
    if state.ndim != 2 or len(state) != batch:
        raise AssertionError(f"initial(rng, {batch}) gives shape {state.shape}, expected ({batch}, S), one row each")
    action = rng.standard_normal((batch, action_size))
    jacobians, errors = getattr(environment, "jacobians", None), {}
    for name, shape in (("transition", state.shape), ("reward", (batch,))):
        f = getattr(environment, name)
        _check_rows(name, f, state, action, shape)
        if jacobians is not None:
            by_state, by_action = (
                np.asarray(getattr(jacobians, f"{name}_{by}")(state, action)) for by in ("state", "action")
            )
            errors[f"{name}_state"] = compare(f"jacobians.{name}_state", partial(_swapped, f, action), state, by_state)
            errors[f"{name}_action"] = compare(f"jacobians.{name}_action", partial(f, state), action, by_action)
    if getattr(environment, "parameters", None) is not None:
        errors |= check_parameters(environment, state, action, seed)
    return errors


def _swapped(function: Callable[..., ndarray], action: ndarray, state: ndarray) -> ndarray:
    return function(state, action)


def _check_rows(
    name: str, function: Callable[..., ndarray], state: ndarray, action: ndarray, shape: tuple[int, ...]
) -> None:
    before = state.copy(), action.copy()
    value = np.asarray(function(state, action))
    if value.shape != shape:
        raise AssertionError(f"{name} gives shape {value.shape}, expected {shape}: write it for a batch, one row each")
    if not np.all(np.isfinite(value)):
        raise AssertionError(f"{name} gives non-finite values for s_1 from initial and standard normal actions")
    if not (np.array_equal(before[0], state) and np.array_equal(before[1], action)):
        raise AssertionError(f"{name} changes its input in place; work on a copy")
    if not np.array_equal(value, function(state, action)):
        raise AssertionError(f"{name} gives another value for the same input; all randomness belongs in the noise")
    single = np.concatenate([np.asarray(function(state[i : i + 1], action[i : i + 1])) for i in range(len(state))])
    if not np.allclose(single, value, rtol=1e-9, atol=1e-12):
        raise AssertionError(f"{name} mixes rows: row by row it gives other values than for the batch; check its axes")


def check_policy(policy: Any, state: Float[ndarray, "B S"], *, seed: int = 0) -> dict[str, float]:
    """Check a shift policy: ā_s and ā_θ entry by entry, and its noise's score against its density.

    policy: theta (P,), mean_action(theta, state), state_jacobian (B,A,S), parameter_jacobian (B,A,P), and a noise (see
    ``NoiseLike``). Returns the largest relative errors. Raises AssertionError that names what is wrong.
    """
    mean = np.asarray(policy.mean_action(policy.theta, state))
    if mean.ndim != 2 or len(mean) != len(state):
        raise AssertionError(f"mean_action gives shape {mean.shape}, expected ({len(state)}, A), one row each")
    by_state = np.asarray(policy.state_jacobian(policy.theta, state))
    by_theta = np.asarray(policy.parameter_jacobian(policy.theta, state))
    moved = partial(policy.mean_action, policy.theta)
    theta = np.tile(policy.theta, (len(state), 1))

    def each_row(thetas: ndarray) -> ndarray:
        return np.concatenate([policy.mean_action(t, state[i : i + 1]) for i, t in enumerate(thetas)])

    return {
        "state_jacobian": compare("state_jacobian", moved, state, by_state),
        "parameter_jacobian": compare("parameter_jacobian", each_row, theta, by_theta),
        "noise.score": _check_noise(policy.noise, seed),
    }


def _check_noise(noise: NoiseLike, seed: int) -> float:
    nodes, weights = noise.quadrature(())
    if abs(float(weights.sum()) - 1) > QUADRATURE:
        raise AssertionError(
            f"the noise density integrates to {weights.sum():.12g}, not 1: check its scale and support"
        )
    for place, height in noise.jumps:
        right, left = noise.density(np.nextafter(place, [np.inf, -np.inf]))
        if abs(right - left - height) > ENTRY * abs(height):
            raise AssertionError(f"the noise density jumps by {right - left:.6g} at {place}; jumps lists {height:.6g}")
    edges = np.array([*noise.breaks, *(place for place, _ in noise.jumps), np.inf])
    x = np.random.default_rng(seed).choice(nodes, 64, p=weights / weights.sum())
    x = x[np.min(np.abs(x[:, None] - edges), axis=1) > 1e-2 * np.ptp(nodes)]
    step = 1e-4 * float(np.sqrt((weights * nodes**2).sum()))

    def log_density(y: ndarray) -> ndarray:
        return np.asarray(np.log(noise.density(y[:, 0])))

    return compare("noise.score", log_density, x[:, None], np.asarray(noise.score(x))[:, None], step)
