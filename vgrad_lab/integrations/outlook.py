"""Where the rest of a run is heading: its own recent slope, continued by the mean-field flow of ``impact.forecast``."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.impact import Optimizer, forecast, grpo_scale

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


def remaining_curve(progress: Progress) -> Float[ndarray, " N"] | None:
    """Mean success from now to the last step, or None: before ``LEAST`` steps, with nothing left, or no slope.

    The slope of logit p over the last ``WINDOW`` steps sets the flow's one constant; the latest learning rate is kept
    to the end. The gradient's norm is not used: at a step's sample size most of it is noise. A falling slope gives a
    flat curve. Derived here. Ledger: S26.forecast.
    """
    latest = progress.success[-WINDOW:]
    if len(progress.step) < LEAST or progress.remaining < 1 or latest.max() == 0 or latest.min() == 1:
        return None  # only failures, or only successes: their logit has no slope
    now, slope = recent_slope(progress)
    updates = min(progress.remaining, MOST_UPDATES)
    factor = 1.0
    if progress.optimizer == "sgd":
        factor = float(grpo_scale(np.array([now]), progress.group_size)[0])
    return forecast(
        now,
        max(slope, 0.0) * progress.remaining / updates / factor,
        optimizer=progress.optimizer,
        learning_rate=1.0,
        group_size=progress.group_size,
        updates=updates,
        constant=1.0,
    )


def recent_slope(progress: Progress) -> tuple[float, float]:
    """Success now and its change per step, by a straight line through the logits of the last ``WINDOW`` steps.

    Rates are moved half a sample inwards, so that 0 and 1 have a logit.
    """
    n = progress.samples
    p = (progress.success[-WINDOW:] * n + 0.5) / (n + 1)
    step = progress.step[-WINDOW:].astype(float)
    logit = np.log(p / (1 - p))
    weight = p * (1 - p)  # the inverse variance of a logit
    middle = float(np.average(step, weights=weight))
    centred = step - middle
    rate = float((weight * centred * logit).sum() / (weight * centred**2).sum())
    now = 1 / (1 + np.exp(-(float(np.average(logit, weights=weight)) + rate * (step[-1] - middle))))
    now = float(np.clip(now, 1e-6, 1 - 1e-6))
    return now, rate * now * (1 - now)
