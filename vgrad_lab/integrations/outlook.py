"""Where the rest of a run is heading: its own recent slope, continued by the mean-field flow of ``impact.forecast``.

Departure from ``vgrad forecast``, which moves the weights along a ray and looks at the reward there: that takes passes
of its own and other weights, so a run that must not be touched, at no cost, is continued by its own trend.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.advantage import Baseline
from vgrad_lab.impact import Optimizer, forecast, grpo_scale
from vgrad_lab.ray import expit, logit

LEAST = 8
"""Steps with a success rate before a slope is fitted."""
WINDOW = 20
"""Latest steps that the slope is fitted to."""
MOST_UPDATES = 200
"""Points of a long curve; each then stands for several steps."""


@dataclass(frozen=True)
class Progress:
    """A run so far, one entry per step with a success rate; NaN where a number was not seen.

    gradient_norm: ‖∇L‖₂ before clipping, where the trainer logged it. samples: answers per step. remaining: steps left.
    rate_ahead: learning rate at evenly spaced steps (``steps_ahead``), from the latest one to the last; None where the
    schedule is not known.
    """

    step: Int[ndarray, " K"]
    success: Float[ndarray, " K"]
    learning_rate: Float[ndarray, " K"]
    gradient_norm: Float[ndarray, " K"]
    samples: int
    group_size: int
    remaining: int
    optimizer: Optimizer
    scale: Literal["group", "batch", "none"] = "group"
    rate_ahead: Float[ndarray, " N"] | None = None


def steps_ahead(remaining: int) -> Float[ndarray, " N"]:
    """Steps from now, 0 to ``remaining``, at which the rest of a run is given: all, or ``MOST_UPDATES`` + 1 of them."""
    return np.linspace(0, remaining, min(remaining, MOST_UPDATES) + 1)


def remaining_curve(progress: Progress) -> Float[ndarray, " N"] | None:
    """Mean success at ``steps_ahead``, or None: before ``LEAST`` steps, with nothing left, or no slope.

    The slope of logit p per unit of learning rate over the last ``WINDOW`` steps sets the flow's one constant; the
    schedule ahead sets its clock, the latest rate where none is known. The gradient's norm is not used: at a step's
    sample size most of it is noise. A falling slope gives a flat curve. Derived here. Ledger: S26.forecast.
    """
    latest = progress.success[-WINDOW:]
    if len(progress.step) < LEAST or progress.remaining < 1 or latest.max() == 0 or latest.min() == 1:
        return None  # only failures, or only successes: their logit has no slope
    past, ahead = clock(progress)
    if past[-1] == past[0]:
        return None  # no step was taken
    now, slope = recent_slope(progress, past)
    updates, factor = len(ahead) - 1, 1.0
    baseline: Baseline = "group_mean" if progress.scale == "none" else "standardised"
    if progress.optimizer == "sgd":
        factor = float(grpo_scale(np.array([now]), progress.group_size, baseline=baseline)[0])
    curve = forecast(
        now,
        max(slope, 0.0) * float(ahead[-1]) / updates / factor,
        optimizer=progress.optimizer,
        learning_rate=1.0,
        group_size=progress.group_size,
        updates=updates,
        constant=1.0,
        baseline=baseline,
    )
    return expit(np.interp(ahead, np.linspace(0, float(ahead[-1]), updates + 1), logit(curve)))


def clock(progress: Progress) -> tuple[Float[ndarray, " W"], Float[ndarray, " N"]]:
    """Learning rate used before each of the last ``WINDOW`` steps, and until each of ``steps_ahead``, latest rate 1.

    One per step where a rate was not seen or the latest is 0. Steps without a success rate count with the rate of the
    one before.
    """
    step = progress.step[-WINDOW:].astype(float)
    rate, ahead = progress.learning_rate[-WINDOW:], progress.rate_ahead
    points = steps_ahead(progress.remaining)
    if not (np.all(np.isfinite(rate) & (rate >= 0)) and rate[-1] > 0):
        return step - step[-1], points
    past = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(step))]) / rate[-1]
    if ahead is None or ahead.shape != points.shape or not np.all(np.isfinite(ahead) & (ahead >= 0)):
        return past - past[-1], points
    return past - past[-1], np.concatenate([[0.0], np.cumsum(ahead[:-1] * np.diff(points))]) / rate[-1]


def recent_slope(progress: Progress, time: Float[ndarray, " W"]) -> tuple[float, float]:
    """Success now and its change per unit of time, by a straight line through the logits of the last ``WINDOW`` steps.

    Rates are moved half a sample inwards, so that 0 and 1 have a logit. time: of each of them, increasing.
    """
    n = progress.samples
    p = (progress.success[-WINDOW:] * n + 0.5) / (n + 1)
    z, weight = logit(p), p * (1 - p)  # the inverse variance of a logit
    middle = float(np.average(time, weights=weight))
    centred = time - middle
    rate = float((weight * centred * z).sum() / (weight * centred**2).sum())
    now = 1 / (1 + np.exp(-(float(np.average(z, weights=weight)) + rate * (time[-1] - middle))))
    now = float(np.clip(now, 1e-6, 1 - 1e-6))
    return now, rate * now * (1 - now)
