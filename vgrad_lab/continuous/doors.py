"""What a rollout must be before anything is computed from it: axes that fit, and finite numbers."""

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout


def check_finite(name: str, x: ndarray) -> None:
    """Raise ValueError unless every number of ``x`` is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        fine = np.isfinite(x.sum()) or np.all(np.isfinite(x))
    if not fine:
        raise ValueError(f"{name} holds non-finite values; give finite numbers")


def check_rollout(environment: Environment, policy: ShiftPolicy, rollout: Rollout) -> None:
    """Raise ValueError unless the rollout's arrays fit each other and the environment, and are finite with θ."""
    batch, horizon = rollout.reward.shape
    size, action_size = environment.state_size, environment.action_size
    for name, shape in (
        ("state", (batch, horizon + 1, size)),
        ("action", (batch, horizon, action_size)),
        ("noise_draw", (batch, horizon, action_size)),
    ):
        found = getattr(rollout, name).shape
        if found != shape:
            raise ValueError(
                f"rollout.{name} has shape {found}, expected {shape} for rewards of shape {(batch, horizon)} in this "
                "environment; the state has one more node than there are steps"
            )
    for name in ("state", "action", "noise_draw", "reward"):
        check_finite(f"rollout.{name}", getattr(rollout, name))
    check_finite("policy.theta", policy.theta)
