"""Runs of exact updates along the gradient gap: fixed multiples, fixed lengths, and what algorithms take of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.bandit import Bandit, logprob, score
from vgrad_lab.discrete.gradient_gap import GradientGap, gradient_gap
from vgrad_lab.discrete.update_scale import Algorithm, update_scale

Rule = Callable[[GradientGap], Float[ndarray, " P"]]
"""From the gap at θ to the move of θ."""


@dataclass(frozen=True)
class Ascent:
    """A run: θ before each update and at the end, log-odds there, and each update's length and alignment.

    theta: (T1, P). log_odds: (T1,), nats. step: η (T,). alignment: ⟨w, g⟩, w the unit direction, 0 where η = 0 (T,).
    """

    theta: Float[ndarray, "T1 P"]
    log_odds: Float[ndarray, " T1"]
    step: Float[ndarray, " T"]
    alignment: Float[ndarray, " T"]

    @property
    def success(self) -> Float[ndarray, " T1"]:
        """J before each update and at the end."""
        from scipy.special import expit

        return np.asarray(expit(self.log_odds))


def gap_at(bandit: Bandit, theta: Float[ndarray, " P"]) -> GradientGap:
    """Gradient gap of a bandit at θ. Ledger: G01."""
    return gradient_gap(logprob(bandit, theta), score(bandit, theta), bandit.correct)


def gap_step(multiple: float) -> Rule:
    """θ ← θ + c g."""
    return lambda gap: multiple * gap.gap


def unit_step(length: float) -> Rule:
    """θ ← θ + η g/‖g‖, the perfectly aligned step of fixed length; none where g = 0."""

    def rule(gap: GradientGap) -> Float[ndarray, " P"]:
        norm = float(np.linalg.norm(gap.gap))
        return gap.gap * (length / norm if norm > 0 else 0.0)

    return rule


def expected_step(learning_rate: float, algorithm: Algorithm, *, group_size: int = 8) -> Rule:
    """θ ← θ + lr ω(J) g, the expected update of an algorithm (ddof 0, ε = 0). Ledger: G06.scale."""

    def rule(gap: GradientGap) -> Float[ndarray, " P"]:
        at, not_at = np.array([gap.success]), np.array([gap.failure])
        scale = update_scale(at, algorithm, failure=not_at, group_size=group_size, ddof=0, eps=0.0)
        return learning_rate * float(scale[0]) * gap.gap

    return rule


def ascend(bandit: Bandit, theta: Float[ndarray, " P"], rule: Rule, *, updates: int) -> Ascent:
    """Run ``updates`` exact updates from θ.

    Raises ValueError for no update, and FloatingPointError where θ leaves the range of floating point.
    """
    if updates < 1:
        raise ValueError(f"updates must be at least 1, got {updates}")
    path, odds, steps, aligned = [theta], [], [], []
    for _ in range(updates):
        gap = gap_at(bandit, path[-1])
        move = rule(gap)
        length = float(np.linalg.norm(move))
        odds.append(gap.log_odds)
        steps.append(length)
        aligned.append(float(gap.gap @ move) / length if length > 0 else 0.0)
        path.append(path[-1] + move)
        if not np.all(np.isfinite(path[-1])):
            raise FloatingPointError(f"θ is not finite after update {len(steps)}; take smaller steps")
    odds.append(gap_at(bandit, path[-1]).log_odds)
    return Ascent(np.array(path), np.array(odds), np.array(steps), np.array(aligned))
