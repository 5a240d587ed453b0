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
    exact first-order gain of an update. penalty: β·KL(π‖π_start) there, None without a penalty; push, pull: the parts
    of one update's ⟨E ĝ, d⟩ that come from the reward and (with its sign turned) from the penalty.
    """

    position: Float[ndarray, " K"]
    reward: Float[ndarray, " K"]
    scale: Float[ndarray, " K"]
    mixed: Float[ndarray, " K"]
    slope: float
    penalty: Float[ndarray, " K"] | None = None
    push: float = 1.0
    pull: float = 0.0

    def __post_init__(self) -> None:
        x = self.position
        if len(x) < 2 or x[0] != 0 or np.any(np.diff(x) <= 0):
            raise ValueError(f"position is {x}; give two or more increasing numbers that start with 0")
        for name in ("reward", "mixed"):
            check_probability(getattr(self, name))
        penalty = np.zeros(len(x)) if self.penalty is None else self.penalty
        if {len(self.reward), len(self.scale), len(self.mixed), len(penalty)} != {len(x)}:
            raise ValueError("position, reward, scale and mixed differ in length; give one number of each per point")
        if not np.isfinite([self.slope, self.push, self.pull, *self.scale, *penalty]).all():
            raise ValueError("slope or scale is not finite; the gradient at this checkpoint cannot be used")
        if np.any(penalty < 0):
            raise ValueError(f"penalty must not be negative, got {penalty.min():.3g}")


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


def forces(ray: Ray) -> Callable[[float], tuple[float, float]]:
    """Reward's and penalty's parts of ⟨E ĝ, d⟩ at x: push·κ(x)J'(x)/(κ(0)⟨∇J, d⟩), and β dKL/dx; exact at x = 0.

    KL is read off its square root, which is linear near the start. Ledger: S26.ray.
    """
    z = PchipInterpolator(ray.position, logit(ray.reward))
    slope, scale = z.derivative(), PchipInterpolator(ray.position, ray.scale)
    start = ray.slope * float(ray.scale[0])
    share = ray.push / start if start > 0 else 0.0
    root = None if ray.penalty is None else PchipInterpolator(ray.position, np.sqrt(ray.penalty))
    root_slope = None if root is None else root.derivative()

    def parts(x: float) -> tuple[float, float]:
        if x <= 0 or start <= 0:
            return ray.push if ray.slope > 0 else 0.0, ray.pull
        x = min(x, float(ray.position[-1]))
        p = float(expit(z(x)))
        reward = share * float(slope(x) * p * (1 - p) * scale(x))
        return reward, 0.0 if root is None or root_slope is None else 2 * float(root(x) * root_slope(x))

    return parts


def speed(ray: Ray, *, clip: float | None = None, norm2: float = 0.0, noise: float = 0.0) -> Callable[[float], float]:
    """Speed of plain gradient ascent at x relative to the first update's expected one without clipping.

    ρ(x) = (κ(x)J'(x) − β KL'(x)) over the same at 0, times min(1, c/√(ρ²‖μ‖² + noise·mixed(x)/mixed(0))) where the
    norm is clipped at c. Never backward without a penalty.

    norm2: ‖μ‖² of the expected gradient; noise: trace of one update's covariance. Ledger: S26.ray.
    """
    parts, mixed = forces(ray), PchipInterpolator(ray.position, ray.mixed)

    def relative(x: float) -> float:
        (push, pull), (first_push, first_pull) = parts(x), parts(0.0)
        first = first_push - first_pull
        ratio = (push - pull) / first if first > 0 else 0.0
        ratio = max(ratio, 0.0) if ray.penalty is None else ratio
        if clip is None:
            return ratio
        x = min(max(x, 0.0), float(ray.position[-1]))
        start = max(float(ray.mixed[0]), EDGE)
        length = np.sqrt(ratio**2 * norm2 + noise * max(float(mixed(x)), 0.0) / start)
        return ratio * min(1.0, clip / max(float(length), EDGE))

    return relative


def damped(ray: Ray, response: Callable[[float], float] | None = None) -> Callable[[float], float]:
    """Speed of Adam at x under a KL penalty: its mean step shrinks by what the penalty takes from the reward's push.

    ρ(x) = ψ(φ(x)), φ = (1 − β KL'/κJ')(x) over the same at 0, kept in [−1, 1].

    response: ψ, length of Adam's step where its mean gradient is φ times the present one; default φ itself, which is
    so where noise outweighs the mean. Ledger: S26.ray.
    """
    parts = forces(ray)
    push, pull = parts(0.0)
    first = (push - pull) / push if push > 0 else 0.0

    def relative(x: float) -> float:
        up, down = parts(x)
        if first <= 0:
            return float(push - pull > 0)
        left = float(np.clip((up - down) / max(up, EDGE * push) / first, -1.0, 1.0))
        return left if response is None else response(left)

    return relative


def travel(
    relative: Callable[[float], float], updates: int, *, schedule: Float[ndarray, " N"] | None = None, parts: int = 4
) -> Float[ndarray, " K"]:
    """Positions x after 0 … updates, from dx/dk = schedule(k)·relative(x) by the midpoint rule.

    schedule: learning rate of each update over the protocol's, default 1. Raises ValueError for a negative number of
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
    ray: Ray,
    optimizer: Optimizer,
    *,
    clip: float | None = None,
    norm2: float = 0.0,
    noise: float = 0.0,
    response: Callable[[float], float] | None = None,
) -> Callable[[float], float]:
    """Relative speed of an optimiser along a ray: ``speed`` for sgd, for adamw ``constant``, or ``damped`` by KL."""
    if optimizer == "sgd":
        return speed(ray, clip=clip, norm2=norm2, noise=noise)
    return constant if ray.penalty is None else damped(ray, response)
