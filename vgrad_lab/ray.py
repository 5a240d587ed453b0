"""Where expected policy-gradient updates lead: the step of Adam under noise, and travel along one ray of parameters.

A forecast follows θ₀ + x·d, d the expected first update, and reads the reward off a few forward passes along it.
Nothing is fitted: the constant of the mean-field forecast (``impact.FORECAST_CONSTANT``) is the product of Adam's loss
by noise and of the reward's curvature along the ray.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import PchipInterpolator

from vgrad_lab.impact import check_probability

EDGE = 1e-9
"""Rewards are kept this far from 0 and 1 before a logit is taken."""


@dataclass(frozen=True)
class Ray:
    """Mean reward along θ₀ + x·d, with x counted in updates at the initial speed.

    position: x, increasing from 0. reward: mean reward there, in [0, 1]. slope: ⟨∇J, d⟩, the exact first-order gain of
    an update.
    """

    position: Float[ndarray, " K"]
    reward: Float[ndarray, " K"]
    slope: float

    def __post_init__(self) -> None:
        x = self.position
        if len(x) < 2 or x[0] != 0 or np.any(np.diff(x) <= 0):
            raise ValueError(f"position is {x}; give two or more increasing numbers that start with 0")
        check_probability(self.reward)
        if len(self.reward) != len(x):
            raise ValueError(f"position has {len(x)} points and reward {len(self.reward)}; give one reward per point")
        if not np.isfinite(self.slope):
            raise ValueError("slope is not finite; the gradient at this checkpoint cannot be used")


def logit(reward: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """ln(R/(1 − R)), with R kept 1e-9 away from 0 and 1."""
    r = np.clip(reward, EDGE, 1 - EDGE)
    return np.asarray(np.log(r) - np.log1p(-r))


def expit(z: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """1/(1 + e^{−z})."""
    from scipy.special import expit as sigmoid

    return np.asarray(sigmoid(z))


def adam_step(mean: Float[ndarray, " P"], variance: Float[ndarray, " P"]) -> Float[ndarray, " P"]:
    """Expected update of Adam at a fixed point, in units of the learning rate.

    E[m̂]/√E[v̂] = μ/√(μ² + σ²) per coordinate: a sign damped by noise; derived here.

    mean, variance: of one update's gradient, per parameter. 0 where both are 0. Raises ValueError for a negative
    variance. Ledger: S26.ray.
    """
    if np.any(variance < 0):
        raise ValueError(f"variance must not be negative, got {variance.min():.3g}")
    size = np.sqrt(mean**2 + variance)
    return np.divide(mean, size, out=np.zeros_like(mean), where=size > 0)


def along(ray: Ray) -> Callable[[float], float]:
    """Reward at x by monotone interpolation of its logit; the last value beyond the last point."""
    curve = PchipInterpolator(ray.position, logit(ray.reward))
    return lambda x: float(expit(curve(np.clip(x, 0.0, ray.position[-1]))))


def overshoots(ray: Ray, *, least: float = 0.01) -> bool:
    """Whether a look along the ray lies below the reward at its start, by more than ``least``, though the slope is up.

    Steps are then large for the model: real updates turn where the ray goes straight on, and a forecast along it is too
    low. Ledger: S26.ray.
    """
    return bool(ray.slope > 0 and ray.reward.min() < ray.reward[0] - least)


def speed(ray: Ray, scale: Float[ndarray, " K"]) -> Callable[[float], float]:
    """Speed of plain gradient ascent at x relative to the first update's; never backward.

    ρ(x) = κ(x)J'(x) / κ(0)J'(0); exact for one parameter, where no direction can turn.

    scale: κ_G at each position, the advantage's factor. Ledger: S26.ray.
    """
    z = PchipInterpolator(ray.position, logit(ray.reward))
    slope, kappa = z.derivative(), PchipInterpolator(ray.position, scale)
    start = ray.slope * float(scale[0])

    def relative(x: float) -> float:
        if x <= 0 or start <= 0:
            return float(ray.slope > 0)
        x = min(x, float(ray.position[-1]))
        p = float(expit(z(x)))
        return max(float(slope(x) * p * (1 - p) * kappa(x)) / start, 0.0)

    return relative


def travel(relative: Callable[[float], float], updates: int, *, parts: int = 4) -> Float[ndarray, " K"]:
    """Positions x after 0 … updates, from dx/dk = relative(x) by the midpoint rule.

    Raises ValueError for a negative number of updates. Ledger: S26.ray.
    """
    if updates < 0:
        raise ValueError(f"updates must not be negative, got {updates}")
    x, out, h = 0.0, [0.0], 1.0 / parts
    for _ in range(updates):
        for _ in range(parts):
            x += h * relative(x + 0.5 * h * relative(x))
        out.append(x)
    return np.array(out)


def band(
    reward: Float[ndarray, " K"], *, width: float, floor: float = 0.05
) -> tuple[Float[ndarray, " K"], Float[ndarray, " K"]]:
    """Interval about a forecast curve, symmetric in the logit.

    z_k ± width·(floor + |z_k − z_0|): the error of a forecast grows with the change that it forecasts.

    width: the conformal quantile of a calibration set (``conformal_width``). Ledger: S26.ray.
    """
    z = logit(reward)
    half = width * (floor + np.abs(z - z[0]))
    half[0] = 0.0
    return expit(z - half), expit(z + half)


def conformal_width(
    forecast: Float[ndarray, "N K"], actual: Float[ndarray, "N K"], *, level: float = 0.9, floor: float = 0.05
) -> float:
    """Width at which ``band`` holds ``level`` of a calibration set's curves' points; split conformal.

    forecast, actual: one row per run, column 0 before the first update. Raises ValueError for an empty set or a level
    outside (0, 1).
    """
    if not 0 < level < 1 or forecast.size == 0 or forecast.shape != actual.shape:
        raise ValueError(f"level is {level}, shapes {forecast.shape} and {actual.shape}; give a level in (0, 1), pairs")
    z = logit(forecast)
    score = np.abs(logit(actual) - z)[:, 1:] / (floor + np.abs(z - z[:, :1]))[:, 1:]
    n = score.size
    return float(np.quantile(score, min(np.ceil((n + 1) * level) / n, 1.0), method="higher"))
