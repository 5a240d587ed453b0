"""Ordinary Gymnasium environments over the functional core: one row of the batch, a finite horizon by truncation.

``import vgrad_lab`` registers them (see ``vgrad_lab.registration``); where only Gymnasium is imported, say
``gymnasium.make("vgrad_lab:vgrad_lab/LinearQuadratic-v0")`` and it imports the package itself.

Gymnasium's conventions ask for actions in [−1, 1] and bounded observations; actions outside are clipped to the box, so
costates of these environments are those of the core only while the policy stays inside.
"""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from numpy import ndarray

from vgrad_lab.continuous import environments
from vgrad_lab.continuous.environments import Environment

_PIXELS = 64


class FunctionalEnv(gymnasium.Env[ndarray, ndarray]):
    """A functional ``Environment`` as a ``gymnasium.Env``; the core stays reachable as ``core``.

    bound: every component of the state stays within ±bound for actions in [−1, 1]. horizon: steps until truncation.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's attribute)

    def __init__(self, core: Environment, *, bound: float, horizon: int, render_mode: str | None = None):
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.core, self.bound, self.horizon, self.render_mode = core, bound, horizon, render_mode
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
        """One step of the core; truncated at the horizon. Raises ValueError for an action of wrong shape or NaN."""
        action = np.asarray(action, dtype=float)
        if action.shape != (self.core.action_size,) or np.any(np.isnan(action)):
            raise ValueError(f"action is {action}, expected {self.core.action_size} numbers in [-1, 1]")
        row = np.clip(action, -1.0, 1.0)[None]
        reward = float(self.core.reward(self._state, row)[0])
        self._state, self._steps = self.core.transition(self._state, row), self._steps + 1
        return self._state[0].copy(), reward, False, self._steps >= self.horizon, {}

    def render(self) -> ndarray | None:
        """One bar for each component of the state, as an RGB array; zero is the middle line."""
        if self.render_mode is None:
            return None
        size = self.core.state_size
        picture = np.full((_PIXELS, size * 16, 3), 255, dtype=np.uint8)
        tops = ((1 - self._state[0] / self.bound) * (_PIXELS - 1) / 2).round().astype(int)
        for i, top in enumerate(tops):
            low, high = sorted((int(top), _PIXELS // 2))
            picture[low : high + 1, i * 16 + 3 : i * 16 + 13] = (0, 114, 178)
        return picture


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
