"""Hypothesis strategies for the objects of this floor: noises, environments, policies, rollouts; needs Hypothesis.

A reader's own environment, here a damped spring, against rollouts with policies and noises of every kind::

    spring = from_arrays(Map(np.array([[1.0, 0.1, 0.0], [-0.2, 0.9, 0.1]]), np.zeros(2)), Payoff(np.eye(2), np.eye(1)))

    @given(strategies.rollouts(st.just(spring)), st.sampled_from([0.0, 0.9, 1.0]))
    def test_spring(system, discount):
        def returns(start):
            moved = rollout(spring, system.policy, start, system.rollout.noise_draw)
            return return_to_go(moved.reward, discount=discount)[:, 0]
        slope = verify.difference_quotients(returns, system.rollout.state[:, 0])
        found = costate(*system, discount=discount)[:, 0]
        assert np.allclose(found, slope, rtol=1e-6, atol=1e-6 * np.abs(slope).max())
        verify.check_environment(spring)

Everything shrinks: to the first name, one row, one step, one dimension, weights of zero.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous import environments as made
from vgrad_lab.continuous import policies as means
from vgrad_lab.continuous import systems
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.noise import NOISES
from vgrad_lab.continuous.noise_law import Noise
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout, sample_rollout
from vgrad_lab.strategies import SearchStrategy, composite, integers, sampled_from, scales, seeds, steady, weights

ENVIRONMENTS = ("linear_quadratic", "tanh_network", "bandit", "pendulum", "obstacle", "shared_point_mass")
"""Names of the environments that ``environments`` draws; the last shares θ with its policy."""
_SHAPES = {"student_t": ("dof", 3.0), "gamma": ("shape", 1.5), "truncated_gaussian": ("bound", 0.5)}
"""Noise -> its shape argument and that one's least value here."""


class System(NamedTuple):
    """An environment, a policy that fits it, and a rollout of both."""

    environment: Environment
    policy: ShiftPolicy
    rollout: Rollout


@cache
def _built(name: str, scale: float, step: int) -> Noise:
    """One noise; kept, as building its functions costs more than drawing its name."""
    if name not in _SHAPES:
        return NOISES[name](scale)
    argument, least = _SHAPES[name]
    return NOISES[name](scale, **{argument: least + step / 4})


@composite
def _noise(draw: Any, names: Any) -> Any:
    name, scale = draw(sampled_from(names)), draw(scales())
    return steady(_built)(name, scale, draw(integers(0, 12)) if name in _SHAPES else 0)


def noises(names: tuple[str, ...] = tuple(NOISES)) -> SearchStrategy[Noise]:
    """Noises of every family, or of those named, with scales in [1/4, 4] and shapes that have a variance.

    names: keys of ``noise.NOISES``; ``vgrad_lab.strategies.CONTINUOUS_NOISES`` are those that Lemma 1 allows. Raises
    ValueError for any other name. Ledger: S08.
    """
    return _noise(_known(names, tuple(NOISES), "noise"))


def _known(names: tuple[str, ...], allowed: tuple[str, ...], kind: str) -> tuple[str, ...]:
    wrong = [name for name in names if name not in allowed]
    if wrong or not names:
        raise ValueError(f"no {kind} {', '.join(wrong) or 'at all'}; choose names from {', '.join(allowed)}")
    return names


def _bounded(matrix: ndarray, norm: float) -> ndarray:
    """The matrix, scaled down where its norm exceeds ``norm``."""
    length = np.linalg.norm(matrix, 2)
    return matrix * (norm / length) if length > norm else matrix


@steady
def _linear_quadratic(numbers: ndarray, size: int, action_size: int) -> Environment:
    A, half_q = numbers[:size, :size], numbers[size : 2 * size, :size]
    B, half_r = numbers[:size, size:], numbers[size : size + action_size, size:]
    mean = numbers[-1, :size]
    Q, R = half_q @ half_q.T, half_r @ half_r.T + 0.1 * np.eye(action_size)
    return made.linear_quadratic(
        _bounded(A, 0.9), _bounded(B, 1.0), Q, R, goal=numbers[-2, :size], initial_mean=mean, initial_scale=0.5
    )


@steady
def _tanh_network(numbers: ndarray, size: int, action_size: int, width: int) -> Environment:
    inner, output = numbers[:width], numbers[width : width + size, :width]
    return made.tanh_network(
        2 * inner[:, :size] / np.sqrt(size),
        2 * inner[:, size : size + action_size],
        inner[:, -1],
        3 * output / np.sqrt(width),
        numbers[-1, :size],
    )


@steady
def _physical(name: str, x: ndarray) -> Environment:
    """A pendulum or a point mass whose numbers lie within a factor 2 of the usual ones; x in [−1, 1)⁵."""
    factor = 2.0**x
    if name == "pendulum":
        step, gravity, torque, damping, cost = (float(f) for f in factor * [0.05, 10.0, 4.0, 0.1, 0.01])
        return systems.pendulum(time_step=step, gravity=gravity, torque=torque, damping=damping, cost=cost)
    step, radius, height, cost = (float(f) for f in factor[:4] * [0.1, 0.3, 2.0, 0.05])
    return systems.obstacle(
        time_step=step, radius=radius, height=height, action_cost=cost, centre=(0.0, float(x[4]) / 2)
    )


@composite
def _environment(draw: Any, names: Any, max_state: int, max_action: int, max_width: int) -> Any:
    name = draw(sampled_from(names))
    if name in ("pendulum", "obstacle"):
        return _physical(name, draw(weights(1, 5))[0])
    if name == "shared_point_mass":
        count = draw(sampled_from([3, 4, 8, 12]))  # a linear policy, tanh policies of width 1 to 3
        theta, gain, price, *start = draw(weights(5, count))
        return steady(systems.shared_point_mass)(theta, gain=gain, price=price, start=np.stack(start))
    size, action_size = draw(integers(1, max_state)), draw(integers(1, max_action))
    if name == "bandit":
        return steady(systems.bandit)(draw(weights(action_size, size)), width=draw(scales()))
    if name == "tanh_network":
        width = draw(integers(1, max_width))
        numbers = draw(weights(width + size + 1, max(size + action_size + 1, width)))
        return _tanh_network(numbers, size, action_size, width)
    return _linear_quadratic(draw(weights(2 * size + action_size + 2, size + action_size)), size, action_size)


def environments(
    names: tuple[str, ...] = ENVIRONMENTS, *, max_state: int = 8, max_action: int = 3, max_width: int = 8
) -> SearchStrategy[Environment]:
    """The named environments with random sizes and numbers, all with Jacobians.

    names: of ``ENVIRONMENTS``. max_state, max_action, max_width: largest S, A and hidden width where they are free.
    Raises ValueError for another name or a size below 1. Ledger: S04.
    """
    if min(max_state, max_action, max_width) < 1:
        raise ValueError(f"sizes must be at least 1, got {max_state}, {max_action} and {max_width}")
    return _environment(_known(names, ENVIRONMENTS, "environment"), max_state, max_action, max_width)


@steady
def _tanh_policy(numbers: ndarray, size: int, noise: Noise) -> ShiftPolicy:
    state_weight = 2 * numbers[:, :size] / np.sqrt(size)
    return means.tanh_policy(state_weight, numbers[:, size], numbers[:, size + 1 :].T, noise=noise)


@steady
def _policy_of(theta: ndarray, size: int, action_size: int, noise: Noise) -> ShiftPolicy:
    """The policy of a given θ: linear where the count fits, tanh otherwise."""
    width, left = divmod(len(theta), size + 1 + action_size)
    if len(theta) == action_size * (size + 1):
        gain, bias = theta[: action_size * size], theta[action_size * size :]
        return means.linear_policy(gain.reshape(action_size, size), bias, noise=noise)
    if left or not width:
        raise ValueError(
            f"the environment shares {len(theta)} parameters; neither a linear nor a tanh policy from {size} states to "
            f"{action_size} actions has as many: give rollouts(policies=…) your own"
        )
    cut = width * size, width * (size + 1)
    inner, output = theta[: cut[0]].reshape(width, size), theta[cut[1] :].reshape(action_size, width)
    return means.tanh_policy(inner, theta[cut[0] : cut[1]], output, noise=noise)


@composite
def _policy(draw: Any, environment: Any, noise: Any, max_width: int) -> Any:
    size, action_size = environment.state_size, environment.action_size
    law = draw(noise)
    if environment.parameters is not None:
        return _policy_of(environment.parameters.theta, size, action_size, law)
    if draw(sampled_from(["linear", "tanh"])) == "linear":
        gain, bias = draw(weights(action_size, size)), draw(weights(1, action_size))[0]
        return steady(means.linear_policy)(_bounded(gain, 0.5), bias, noise=law)
    return _tanh_policy(draw(weights(draw(integers(1, max_width)), size + 1 + action_size)), size, law)


def policies(
    environment: Environment, *, noise: SearchStrategy[Noise] | None = None, max_width: int = 6
) -> SearchStrategy[ShiftPolicy]:
    """Linear and tanh policies that fit an environment; where it shares θ, the policy of that θ.

    noise: a strategy for the noise, ``noises()`` by default. max_width: of the tanh layer. A gain has norm at most ½.
    Drawing raises ValueError where no such policy has as many parameters as the environment shares. Ledger: S08.
    """
    return _policy(environment, _noise(tuple(NOISES)) if noise is None else noise, max_width)


@composite
def _rollout(draw: Any, environments: Any, noise: Any, max_batch: int, max_horizon: int) -> Any:
    environment = draw(environments)
    policy = draw(_policy(environment, noise, 6))
    batch, horizon = draw(integers(1, max_batch)), draw(integers(1, max_horizon))
    rng = np.random.default_rng(draw(seeds()))
    return System(environment, policy, steady(sample_rollout)(environment, policy, rng, batch=batch, horizon=horizon))


def rollouts(
    environment: SearchStrategy[Environment] | None = None,
    *,
    noise: SearchStrategy[Noise] | None = None,
    max_batch: int = 4,
    max_horizon: int = 16,
) -> SearchStrategy[System]:
    """An environment, a policy that fits it and a rollout of both, as a ``System``.

    environment: a strategy, ``environments()`` by default; ``just(mine)`` for one's own. noise: as in ``policies``.
    max_batch, max_horizon: largest B and T. Raises ValueError for one below 1. Ledger: S04, S05.
    """
    if min(max_batch, max_horizon) < 1:
        raise ValueError(f"batch and horizon must be at least 1, got {max_batch} and {max_horizon}")
    chosen = environments() if environment is None else environment
    return _rollout(chosen, noises() if noise is None else noise, max_batch, max_horizon)
