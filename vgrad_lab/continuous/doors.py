"""What a rollout must be before anything is computed from it: axes that fit, and finite numbers."""

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout, check_mean, same_memory, views_of


def check_finite(name: str, x: ndarray) -> None:
    """Raise ValueError unless every number of ``x`` is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        fine = np.isfinite(x.sum()) or np.all(np.isfinite(x))
    if not fine:
        raise ValueError(f"{name} holds non-finite values; give finite numbers")


def check_rollout(environment: Environment, policy: ShiftPolicy, rollout: Rollout) -> None:
    """Raise ValueError unless the rollout's arrays fit each other, environment and policy, and are finite with θ.

    Arrays that are still the memory ``rollout`` wrote were found finite there and are not read again.
    """
    if rollout.reward.ndim != 2 or not rollout.reward.size:
        raise ValueError(f"rollout.reward has shape {rollout.reward.shape}, expected (B, T), both at least 1")
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
    own = _own(rollout)
    for name in ("state", "action", "noise_draw", "reward"):
        found = getattr(rollout, name)
        if name not in own or not same_memory(own[name], found):
            check_finite(f"rollout.{name}", found)
    check_finite("policy.theta", policy.theta)
    check_mean(environment, policy, rollout.state[:1, 0])


def _own(rollout: Rollout) -> dict[str, ndarray]:
    """State, action and reward as the rollout's private memory holds them; empty for arrays from elsewhere."""
    columns = rollout.columns
    if columns is None:
        return {}
    state, action = views_of(columns.x, rollout.state.shape[2])
    return {"state": state, "action": action, "reward": columns.reward.T}
