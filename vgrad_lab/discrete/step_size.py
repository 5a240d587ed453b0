"""Steps along a unit direction for which the log-odds of success are proved to rise, and what their sum gives.

Constants that a secondary source reports for the gradient-gap paper (arXiv 2510.08539) are tagged "reported"; the
sharper ones are derived here. One prompt, rewards 0 and 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.bandit import Bandit, score, score_jacobian


@dataclass(frozen=True)
class Bounds:
    """Suprema over the segment of a step: score, G_o ≥ ‖s(o)‖; curvature, L_o ≥ ‖H(o)‖ (operator norm)."""

    score: float
    curvature: float

    def __post_init__(self) -> None:
        if not (0 <= self.score < math.inf and 0 <= self.curvature < math.inf):
            raise ValueError(f"bounds must be finite and not negative, got {self.score} and {self.curvature}")

    @property
    def second_order(self) -> float:
        """L_o + G_o²/2: |w·∇²l w| is at most twice that for every unit w. Derived here; ledger: G02.bound."""
        return self.curvature + self.score**2 / 2

    @property
    def reported(self) -> float:
        """2 (L_o + 8 G_o²), the denominator of the reported threshold. Ledger: G02."""
        return 2 * (self.curvature + 8 * self.score**2)


def linear_bounds(feature: Float[ndarray, "B P"]) -> Bounds:
    """Bounds of a linear softmax at every θ: G_o = D, L_o = D²/4, D the diameter of the features. Ledger: G04."""
    width = diameter(feature)
    return Bounds(width, width**2 / 4)


def diameter(feature: Float[ndarray, "B P"]) -> float:
    """Largest distance of two rows."""
    if not np.all(np.isfinite(feature)):
        raise ValueError("features must be finite")
    return float(max(np.linalg.norm(feature - row, axis=1).max() for row in feature))


def segment_bounds(
    bandit: Bandit, theta: Float[ndarray, " P"], move: Float[ndarray, " P"], *, points: int = 33
) -> Bounds:
    """Largest score and curvature at evenly spaced points of the segment θ … θ + move: an estimate from below.

    points: at least 2. Raises ValueError for fewer.
    """
    if points < 2:
        raise ValueError(f"a segment needs at least its 2 ends, got points = {points}")
    places = [theta + share * move for share in np.linspace(0, 1, points)]
    scores = max(float(np.linalg.norm(score(bandit, x), axis=1).max()) for x in places)
    curvatures = max(float(np.abs(np.linalg.eigvalsh(score_jacobian(bandit, x))).max()) for x in places)
    return Bounds(scores, curvatures)


def alignment(gap: Float[ndarray, " P"], direction: Float[ndarray, " P"]) -> float:
    """Gap alignment Δμ = ⟨w, g⟩ of a unit direction w (reported; the unit norm is inferred). Ledger: G02.

    Raises ValueError for a direction that is not of norm 1 to 1e-9.
    """
    if gap.shape != direction.shape or not abs(float(np.linalg.norm(direction)) - 1) <= 1e-9:
        raise ValueError(f"direction must be a unit vector of shape {gap.shape}, got norm {np.linalg.norm(direction)}")
    return float(gap @ direction)


def reported_step(aligned: float, bounds: Bounds) -> float:
    """Largest step of the reported Theorem 1, [Δμ]₊ / (2(L_o + 8G_o²)); 0 where Δμ ≤ 0. Ledger: G02."""
    return max(aligned, 0.0) / bounds.reported if bounds.reported > 0 else _unbounded(aligned)


def largest_step(aligned: float, bounds: Bounds) -> float:
    """Step below which success is proved to rise, [Δμ]₊ / (L_o + G_o²/2); derived here. Ledger: G02.bound."""
    return max(aligned, 0.0) / bounds.second_order if bounds.second_order > 0 else _unbounded(aligned)


def _unbounded(aligned: float) -> float:
    return math.inf if aligned > 0 else 0.0


def log_odds_range(step: float, aligned: float, bounds: Bounds) -> tuple[float, float]:
    """Least and largest change of the log-odds over a step.

    |l(θ + ηw) − l(θ) − ηΔμ| ≤ η²(L_o + G_o²/2). Derived here; neither coefficient can be lowered.

    step: η ≥ 0. Raises ValueError for a negative one. Ledger: G02.bound.
    """
    if not 0 <= step < math.inf:
        raise ValueError(f"step must be finite and not negative, got {step}; turn the direction round instead")
    slack = step**2 * bounds.second_order
    return step * aligned - slack, step * aligned + slack


def overshoot_share(bounds: Bounds) -> float:
    """ρ = (L_o + G_o²/2)/(2(L_o + 8G_o²)) ≤ ½: a step under the reported threshold gains (1 ± ρ) ηΔμ. Ledger: G02."""
    return bounds.second_order / bounds.reported if bounds.reported > 0 else 0.0


def progress(aligned: Float[ndarray, " T"], step: Float[ndarray, " T"]) -> Float[ndarray, " T1"]:
    """Cumulative gap alignment M(K) = Σ_{k<K} [Δμ(k)]₊ η_k after 0, 1, … steps (reported). Ledger: G02."""
    return np.concatenate([[0.0], np.cumsum(np.maximum(aligned, 0.0) * step)])


def success_floor(success: float, total: Float[ndarray, " T1"]) -> Float[ndarray, " T1"]:
    """Success guaranteed by progress M, J₀/(J₀ + (1 − J₀) e^{−M/2}): the reported Theorem 1. Ledger: G02."""
    return _raised(success, total / 2)


def success_ceiling(success: float, total: Float[ndarray, " T1"], *, share: float = 0.5) -> Float[ndarray, " T1"]:
    """Success that progress M cannot exceed, J₀/(J₀ + (1 − J₀) e^{−(1+ρ)M}); derived here. Ledger: G02.converse.

    share: ρ of ``overshoot_share``, at most ½. Raises ValueError outside [0, ½].
    """
    if not 0 <= share <= 0.5:
        raise ValueError(f"share must lie in [0, 1/2], got {share}")
    return _raised(success, (1 + share) * total)


def progress_limit(success: float, best: float) -> float:
    """Most progress that steps under the reported threshold can make where J ≤ J*: 2 (logit J* − logit J₀).

    A plateau below 1 bounds M, so M → ∞ is an assumption on the policy class. Derived here. Ledger: G02.converse.
    """
    for name, value in (("success", success), ("best", best)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
    return 2 * (math.log(best / (1 - best)) - math.log(success / (1 - success)))


def _raised(success: float, gain: Float[ndarray, " T1"]) -> Float[ndarray, " T1"]:
    if not 0 < success < 1:
        raise ValueError(f"success must lie in (0, 1), got {success}")
    return success / (success + (1 - success) * np.exp(-gain))
