"""Gymnasium ids of the project's environments: registered by name when ``vgrad_lab`` is imported, built when made."""

import gymnasium

ENVIRONMENTS: dict[str, str] = {
    "vgrad_lab/LinearQuadratic-v0": "vgrad_lab.continuous.gym_envs:linear_quadratic_env",
    "vgrad_lab/TanhNetwork-v0": "vgrad_lab.continuous.gym_envs:tanh_network_env",
    "vgrad_lab/Bandit-v0": "vgrad_lab.continuous.gym_envs:bandit_env",
    "vgrad_lab/Pendulum-v0": "vgrad_lab.continuous.gym_envs:pendulum_env",
    "vgrad_lab/Obstacle-v0": "vgrad_lab.continuous.gym_envs:obstacle_env",
}
"""Gymnasium id -> entry point. Gymnasium loads no plugins since 1.0, so ``import vgrad_lab`` comes before ``make``."""


def register_environments() -> None:
    """Register every environment that is not yet registered."""
    for name, entry_point in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point)
