"""Phase diagram: step size and success rate against what becomes of a run: it converges, stagnates or collapses.

The instance is ``bandit.steepening``, whose gap step has the threshold 2(1−J)/V near its ridge; many runs at once.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.discrete.update_scale import Algorithm, update_scale

PHASES = ("converge", "stagnate", "collapse")
"""What becomes of a run; the numbers of a phase map are places in this tuple."""
COLOURS = ("#56B4E9", "#F0E442", "#D55E00")
"""Sky blue, yellow and vermilion of the Okabe–Ito cycle: told apart by every eye, and in grey."""
COLLAPSED = 0.01
"""Success rate at or below which a run has collapsed."""
RISEN = 0.1
"""Least gain of log-odds, nats, in the second half of a run that converges."""
_LIMIT, _FAR = 600.0, 1e150


def steepening_log_odds(
    learning_rate: Float[ndarray, " B"],
    success: Float[ndarray, " B"],
    algorithm: Algorithm,
    *,
    updates: int = 1500,
    second_moment: float = 2.0,
    height: float = 1e-3,
    disturbance: float = 1e-3,
    group_size: int = 8,
) -> Float[ndarray, "B T1"]:
    """Log-odds along expected updates on ``steepening(√(V/2))``, one run per entry.

    learning_rate: > 0. success: J at the start, in (0, 1). updates: T. second_moment: V > 0. height: y at the start.
    disturbance: |y| never falls below it afterwards, as if noise kept the run from balancing on the ridge.
    Raises ValueError out of range. Ledger: G06.
    """
    if learning_rate.shape != success.shape or not (np.all(learning_rate > 0) and np.all(np.isfinite(learning_rate))):
        raise ValueError("learning rates must be positive and finite, one for each success rate")
    if not np.all((success > 0) & (success < 1)):
        raise ValueError("success rates at the start must lie in (0, 1)")
    if updates < 1 or not (second_moment > 0 and height > 0 and disturbance > 0):
        raise ValueError("updates, second_moment, height and disturbance must be positive")
    width = np.sqrt(second_moment / 2)
    y = np.full(success.shape, height)
    b = np.log(success) - np.log1p(-success) + np.logaddexp(y, -y)
    odds = np.empty((len(success), updates + 1))
    for k in range(updates + 1):
        odds[:, k] = b - np.logaddexp(y, -y)
        if k == updates:
            break
        bounded = np.clip(odds[:, k], -_LIMIT, _LIMIT)
        at, not_at = 1 / (1 + np.exp(-bounded)), 1 / (1 + np.exp(bounded))
        rate = learning_rate * update_scale(at, algorithm, failure=not_at, group_size=group_size, ddof=0, eps=0.0)
        x, tanh = width * np.exp(np.clip(b, -_LIMIT, _LIMIT) / 2), np.tanh(y)
        rise = np.clip(rate, 0, _FAR) * (1 - y * tanh / 2)
        with np.errstate(over="ignore"):  # infinities are cut off below
            y = np.exp(np.clip(rise, -_LIMIT, _LIMIT) / 2) * (
                y - rate * x**2 * tanh
            )  # x(b + rise) · a after the update
        y = np.clip(np.where(y < 0, -1.0, 1.0) * np.maximum(np.abs(y), disturbance), -_FAR, _FAR)
        b = np.clip(b + rise, -_FAR, _FAR)
    return odds


def phases(log_odds: Float[ndarray, "B T1"]) -> Int[ndarray, " B"]:
    """Phase of each run, read off its second half.

    collapse: success ends at 1 % or less. converge: the log-odds fell nowhere and rose by RISEN (the slowest lawful
    approach to J = 1, 1 − J ∝ 1/k, gains ln 2 there). stagnate: the rest, cycles of constant success among them.
    """
    half = log_odds[:, log_odds.shape[1] // 2 :]
    falls = (np.diff(half, axis=1) < -1e-6 * np.maximum(1.0, np.abs(half[:, 1:]))).any(1)
    collapsed = half[:, -2:].min(1) <= np.log(COLLAPSED) - np.log1p(-COLLAPSED)
    return np.where(collapsed, 2, np.where(falls | (half[:, -1] - half[:, 0] < RISEN), 1, 0))


def phase_map(
    learning_rate: Float[ndarray, " M"],
    success: Float[ndarray, " N"],
    algorithm: Algorithm,
    *,
    updates: int = 1500,
    second_moment: float = 2.0,
    group_size: int = 8,
) -> Int[ndarray, "N M"]:
    """Phase of a run for every success rate at the start (rows) and learning rate (columns); see ``PHASES``.

    Arguments and errors as ``steepening_log_odds``. Ledger: G06.
    """
    rate, start = (grid.ravel() for grid in np.meshgrid(learning_rate, success))
    odds = steepening_log_odds(
        rate, start, algorithm, updates=updates, second_moment=second_moment, group_size=group_size
    )
    return phases(odds).reshape(len(success), len(learning_rate))


def draw_phases(
    axis: Any, learning_rate: Float[ndarray, " M"], success: Float[ndarray, " N"], phase: Int[ndarray, "N M"]
) -> None:
    """Draw a phase map on a matplotlib axis, with a legend of the phases that occur."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    axis.pcolormesh(
        learning_rate,
        success,
        phase,
        cmap=ListedColormap(COLOURS),
        vmin=-0.5,
        vmax=2.5,
        shading="nearest",
        rasterized=True,
    )
    axis.set(xscale="log", xlabel="learning rate", ylabel="success rate at the start")
    found = [Patch(color=COLOURS[i], label=PHASES[i]) for i in np.unique(phase)]
    axis.legend(handles=found, fontsize=8, loc="lower left")
