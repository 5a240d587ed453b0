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

from vgrad_lab.impact import Optimizer, check_probability

EDGE = 1e-9
"""Rewards are kept this far from 0 and 1 before a logit is taken."""


@dataclass(frozen=True)
class Ray:
    """Mean reward along θ₀ + x·d, with x counted in updates at the initial speed.

    position: x, increasing from 0. reward: mean reward there, in [0, 1]. scale: mean of κ_G(p_q) weighted by
    p_q(1 − p_q), the advantage's factor there. mixed: share of groups that hold both outcomes. slope: ⟨∇J, d⟩, the
    exact first-order gain of one update.
    """

    position: Float[ndarray, " K"]
    reward: Float[ndarray, " K"]
    scale: Float[ndarray, " K"]
    mixed: Float[ndarray, " K"]
    slope: float

    def __post_init__(self) -> None:
        x = self.position
        if len(x) < 2 or x[0] != 0 or np.any(np.diff(x) <= 0):
            raise ValueError(f"position is {x}; give two or more increasing numbers that start with 0")
        for name in ("reward", "mixed"):
            check_probability(getattr(self, name))
        if {len(self.reward), len(self.scale), len(self.mixed)} != {len(x)}:
            raise ValueError("position, reward, scale and mixed differ in length; give one number of each per point")
        if not np.isfinite(self.slope) or not np.all(np.isfinite(self.scale)):
            raise ValueError("slope or scale is not finite; the gradient at this checkpoint cannot be used")


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


def speed(ray: Ray, *, clip: float | None = None, norm2: float = 0.0, noise: float = 0.0) -> Callable[[float], float]:
    """Speed of plain gradient ascent at x relative to the first update's expected one without clipping.

    ρ(x) = κ(x)J'(x)/(κ(0)⟨∇J, d⟩), times min(1, c/√(ρ²‖μ‖² + noise·mixed(x)/mixed(0))) where the norm is clipped at c.

    norm2: ‖μ‖² of the expected gradient; noise: trace of one update's covariance. Ledger: S26.ray.
    """
    z = PchipInterpolator(ray.position, logit(ray.reward))
    slope, scale = z.derivative(), PchipInterpolator(ray.position, ray.scale)
    mixed = PchipInterpolator(ray.position, ray.mixed)

    def relative(x: float) -> float:
        if x <= 0 or ray.slope <= 0 or ray.scale[0] <= 0:
            ratio = float(ray.slope > 0)
        else:
            x = min(x, float(ray.position[-1]))
            p = float(expit(z(x)))
            ratio = max(float(slope(x) * p * (1 - p) * scale(x)) / (ray.slope * float(ray.scale[0])), 0.0)
        if clip is None:
            return ratio
        start = max(float(ray.mixed[0]), EDGE)
        length = np.sqrt(ratio**2 * norm2 + noise * max(float(mixed(max(x, 0.0))), 0.0) / start)
        return ratio * min(1.0, clip / max(float(length), EDGE))

    return relative


def travel(
    relative: Callable[[float], float], updates: int, *, schedule: Float[ndarray, " N"] | None = None, parts: int = 4
) -> Float[ndarray, " K"]:
    """Positions x after 0 … updates, from dx/dk = schedule(k)·relative(x) by the midpoint rule.

    schedule: learning rate of each update over the first one's, default 1. Raises ValueError for a negative number of
    updates or a schedule of another length. Ledger: S26.ray.
    """
    if updates < 0:
        raise ValueError(f"updates must not be negative, got {updates}")
    rate = np.ones(updates) if schedule is None else np.asarray(schedule, dtype=float)
    if rate.shape != (updates,) or np.any(rate < 0):
        raise ValueError(f"schedule has shape {rate.shape}; give {updates} non-negative numbers, one per update")
    x, out, h = 0.0, [0.0], 1.0 / parts
    for r in rate:
        for _ in range(parts):
            x += h * r * relative(x + 0.5 * h * r * relative(x))
        out.append(x)
    return np.array(out)


def constant(_x: float) -> float:
    """Relative speed of Adam, whose steps keep their length while the gradient's direction and noise do."""
    return 1.0


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


def optimizer_speed(
    ray: Ray, optimizer: Optimizer, *, clip: float | None = None, norm2: float = 0.0, noise: float = 0.0
) -> Callable[[float], float]:
    """Relative speed of an optimiser along a ray: ``constant`` for adamw, ``speed`` for sgd."""
    return constant if optimizer == "adamw" else speed(ray, clip=clip, norm2=norm2, noise=noise)
