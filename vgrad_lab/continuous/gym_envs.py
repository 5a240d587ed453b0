"""Ordinary Gymnasium environments over the functional core: one row of the batch, a finite horizon by truncation.

``import vgrad_lab`` registers them (see ``vgrad_lab.registration``); where only Gymnasium is imported, say
``gymnasium.make("vgrad_lab:vgrad_lab/LinearQuadratic-v0")`` and it imports the package itself.

Gymnasium's conventions ask for actions in [−1, 1] and bounded observations; actions outside are clipped to the box, so
costates of these environments are those of the core only while the policy stays inside.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from numpy import ndarray

from vgrad_lab.continuous import environments, pictures, systems
from vgrad_lab.continuous.environments import Environment


class FunctionalEnv(gymnasium.Env[ndarray, ndarray]):
    """A functional ``Environment`` as a ``gymnasium.Env``; the core stays reachable as ``core``.

    bound: every component of the state stays within ±bound for actions in [−1, 1]. horizon: steps until truncation, or
    with ``ends`` until termination, for a task that is over then. picture: state (S,) -> RGB array, bars by default.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's attribute)

    def __init__(
        self,
        core: Environment,
        *,
        bound: float,
        horizon: int,
        ends: bool = False,
        picture: Callable[[ndarray], ndarray] | None = None,
        render_mode: str | None = None,
    ):
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.core, self.bound, self.horizon, self.render_mode = core, bound, horizon, render_mode
        self.ends, self.picture = ends, picture or partial(pictures.bars, bound=bound)
        self.observation_space = gymnasium.spaces.Box(-bound, bound, (core.state_size,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (core.action_size,), np.float64)
        self._state = np.zeros((1, core.state_size))
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        """Draw s_1 from the core's initial law; ``seed`` makes it repeatable."""
        super().reset(seed=seed)
        self._state, self._steps = self.core.initial(self.np_random, 1), 0
        return self._state[0].copy(), {}

    def step(self, action: ndarray) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the core, the last one at the horizon. Raises ValueError for an action of wrong shape or NaN."""
        action = np.asarray(action, dtype=float)
        if action.shape != (self.core.action_size,) or np.any(np.isnan(action)):
            raise ValueError(f"action is {action}, expected {self.core.action_size} numbers in [-1, 1]")
        row = np.clip(action, -1.0, 1.0)[None]
        reward = float(self.core.reward(self._state, row)[0])
        self._state, self._steps = self.core.transition(self._state, row), self._steps + 1
        over = self._steps >= self.horizon
        return self._state[0].copy(), reward, over and self.ends, over and not self.ends, {}

    def render(self) -> ndarray | None:
        """The state's picture, an RGB array."""
        return None if self.render_mode is None else self.picture(self._state[0])


def _bounded_start(core: Environment) -> Environment:
    def initial(rng: np.random.Generator, batch: int) -> ndarray:
        return rng.uniform(-1.0, 1.0, (batch, core.state_size))

    return replace(core, initial=initial)


def linear_quadratic_env(
    *,
    state_size: int = 4,
    action_size: int = 2,
    horizon: int = 64,
    system_seed: int = 0,
    render_mode: str | None = None,
) -> FunctionalEnv:
    """vgrad_lab/LinearQuadratic-v0: a random system with ‖A‖₂ = 0.9 from ``system_seed``, s_1 in [−1, 1]^S."""
    norm = 0.9
    core = environments.random_linear_quadratic(np.random.default_rng(system_seed), state_size, action_size, norm=norm)
    assert core.dynamics is not None
    push = np.linalg.norm(core.dynamics.inner[:, state_size:], 2) * np.sqrt(action_size)
    bound = max(np.sqrt(state_size), push / (1 - norm))
    return FunctionalEnv(_bounded_start(core), bound=float(bound), horizon=horizon, render_mode=render_mode)


def tanh_network_env(
    *,
    state_size: int = 4,
    action_size: int = 2,
    width: int | None = None,
    horizon: int = 64,
    system_seed: int = 0,
    render_mode: str | None = None,
) -> FunctionalEnv:
    """vgrad_lab/TanhNetwork-v0: a random tanh network from ``system_seed``, s_1 in [−1, 1]^S, rewards in (0, 1]."""
    rng = np.random.default_rng(system_seed)
    core = environments.random_tanh_network(rng, state_size, action_size, width=width)
    assert core.dynamics is not None
    assert core.dynamics.outer is not None
    bound = max(1.0, float(np.abs(core.dynamics.outer).sum(1).max()))
    return FunctionalEnv(_bounded_start(core), bound=bound, horizon=horizon, render_mode=render_mode)


def bandit_env(
    *,
    state_size: int = 4,
    action_size: int = 2,
    horizon: int = 1,
    system_seed: int = 0,
    render_mode: str | None = None,
) -> FunctionalEnv:
    """vgrad_lab/Bandit-v0: one step, context in [−1, 1]^S, best action in [−1, 1]^A; it terminates, not truncates."""
    target = np.random.default_rng(system_seed).uniform(-1.0, 1.0, (action_size, state_size)) / state_size
    return FunctionalEnv(systems.bandit(target), bound=1.0, horizon=horizon, ends=True, render_mode=render_mode)


def pendulum_env(*, horizon: int = 200, render_mode: str | None = None) -> FunctionalEnv:
    """vgrad_lab/Pendulum-v0: ``systems.pendulum``, 10 s long; torque times action in [−1, 1]."""
    time_step, gravity, torque, damping = 0.05, 10.0, 4.0, 0.1
    core = systems.pendulum(time_step=time_step, gravity=gravity, torque=torque, damping=damping)
    bound = time_step * (gravity + torque) / damping  # where damping takes what the largest push gives
    return FunctionalEnv(core, bound=bound, horizon=horizon, picture=pictures.rod, render_mode=render_mode)


def obstacle_env(*, horizon: int = 40, render_mode: str | None = None) -> FunctionalEnv:
    """vgrad_lab/Obstacle-v0: ``systems.obstacle``, a point mass with acceleration in [−1, 1]², 4 s long."""
    time_step = 0.1
    core = systems.obstacle(time_step=time_step)
    speed = 0.1 + horizon * time_step
    bound = 1.1 + horizon * time_step * speed
    return FunctionalEnv(core, bound=bound, horizon=horizon, picture=pictures.plan, render_mode=render_mode)
