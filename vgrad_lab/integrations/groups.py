"""What the rewards of one step's groups say: dead groups, success, headroom and GRPO's scale, from the samples alone.

A quantity that these samples do not define is None, never a number.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from vgrad_lab.advantage import from_group, group_mean
from vgrad_lab.impact import headroom

Scale = Literal["group", "batch", "none"]
"""TRL's ``scale_rewards``: divided by the group's spread, by the batch's, or by nothing."""
LEVELS = ((0.0, 1.0), (-1.0, 1.0))
"""Rewards that count as failure and success."""


def dead_groups(reward: Float[ndarray, "Q G"]) -> Bool[ndarray, " Q"]:
    """Groups whose scored rewards are all equal, so that each advantage is zero; NaN marks a sample without score."""
    scored = np.isfinite(reward)
    highest = np.where(scored, reward, -np.inf).max(1)
    lowest = np.where(scored, reward, np.inf).min(1)
    return ~(highest > lowest)


def group_advantages(reward: Float[ndarray, "Q G"], scale: str = "group", *, eps: float = 1e-4) -> ndarray:
    """Advantages as TRL makes them; ``scale`` is one of ``Scale``. Raises ValueError for another. Ledger: S10."""
    if scale == "group":
        return from_group(reward, "standardised", ddof=1, eps=eps)
    if scale == "none":
        return group_mean(reward)
    if scale == "batch":
        return group_mean(reward) / (reward.std(ddof=1) + eps)
    raise ValueError(f"scale is {scale!r}; choose group, batch or none")


def sampled_grpo_scale(
    reward: Float[ndarray, "Q G"], scale: str = "group", *, eps: float = 1e-4, batches: int = 1
) -> float | None:
    """GRPO's factor κ from sampled groups, prompts weighted by the variance of their reward.

    κ = E[Σ_i Â_i (r_i − r̄)/G] / E[s²], both means over the groups; with one prompt and binary reward it
    tends to κ_G(p). None where every group is dead. Derived here.

    batches: sampled one after the other, of equal size, each with its own spread where ``scale`` is batch. Raises
    ValueError as ``group_advantages``. Ledger: S10, S21.group.
    """
    spread = float(reward.var(1, ddof=1).mean())
    if not spread > 0 or bool(dead_groups(reward).all()):
        return None
    advantage = np.concatenate([group_advantages(part, scale, eps=eps) for part in np.split(reward, batches)])
    return float((advantage * (reward - reward.mean(1, keepdims=True))).mean()) / spread


def levels(values: set[float]) -> tuple[float, float] | None:
    """Failure and success among the rewards seen so far, or None when they are not binary (or none was seen)."""
    return next((pair for pair in LEVELS if values and values <= set(pair)), None)


def describe_groups(
    reward: Float[ndarray, "Q G"],
    *,
    alpha: float = 1.0,
    scale: str = "group",
    binary: tuple[float, float] | None = None,
    batches: int = 1,
) -> dict[str, float]:
    """The numbers of one step's groups; what is not defined is left out.

    headroom is the plug-in within each group, mean over groups: too low by Jensen's inequality, less in larger groups.

    reward: one row per prompt, NaN without score. alpha: per unit of reward. binary: failure and success, None where
    the reward is not binary. batches: as in ``sampled_grpo_scale``. Raises ValueError for alpha ≤ 0. Ledger: S10, S24,
    S25.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    if not reward.size:
        return {}
    dead = dead_groups(reward)
    found = {"dead_groups": float(dead.mean())}
    if np.isfinite(reward).any():
        found["reward"] = float(np.nanmean(reward))
    if not np.all(np.isfinite(reward)):
        return found
    found["headroom"] = float(np.mean([headroom(row, alpha) for row in reward]))
    if binary is not None:
        low, high = binary
        found["success"] = float((reward == high).mean())
        found["all_fail"] = float((reward == low).all(1).mean())
        found["all_success"] = float((reward == high).all(1).mean())
        kappa = sampled_grpo_scale(reward, scale, batches=batches) if reward.shape[1] > 1 else None
        if kappa is not None and math.isfinite(kappa):
            found["grpo_scale"] = kappa
    return found
