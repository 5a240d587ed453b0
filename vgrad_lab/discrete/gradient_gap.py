"""The gradient gap of a policy over finitely many responses: it is the gradient of the log-odds of success.

Everything is computed from log-probabilities, so that success rates of 1 − 1e-40 are told apart. The gradient-gap paper
(arXiv 2510.08539) is known here through its abstract and secondary sources only; what is derived here says so.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

NORMALISED = 1e-9
"""Largest |log Σπ| of log-probabilities that are taken as normalised."""


@dataclass(frozen=True)
class GradientGap:
    """Success and mean scores of correct and of wrong responses at one θ.

    success: J. failure: 1 − J, exact where J rounds to 1. log_odds: log J/(1−J), nats. positive, negative: g⁺, g⁻ (P,).
    """

    success: float
    failure: float
    log_odds: float
    positive: Float[ndarray, " P"]
    negative: Float[ndarray, " P"]

    @property
    def gap(self) -> Float[ndarray, " P"]:
        """g = g⁺ − g⁻ = ∂_θ log J/(1−J)."""
        return self.positive - self.negative

    @property
    def objective_gradient(self) -> Float[ndarray, " P"]:
        """∇J = J(1−J) g."""
        return self.success * self.failure * self.gap


def log_conditional(logits: Float[ndarray, " B"]) -> Float[ndarray, " B"]:
    """Logarithm of the softmax of a set of logits."""
    top = float(logits.max())
    shifted = logits - top
    return shifted - math.log(float(np.exp(shifted).sum()))


def check_correct(correct: Bool[ndarray, " B"], size: int) -> Bool[ndarray, " B"]:
    """Return ``correct``, or raise ValueError unless it marks some of ``size`` responses and not all."""
    if correct.shape != (size,) or correct.dtype != np.bool_:
        raise ValueError(f"correct must be {size} booleans, got shape {correct.shape} of {correct.dtype}")
    if correct.all() or not correct.any():
        raise ValueError("the gap needs correct and wrong responses (0 < J < 1); all are of one kind")
    return correct


def _check_logprob(logprob: Float[ndarray, " B"]) -> Float[ndarray, " B"]:
    if not np.all(np.isfinite(logprob)):
        raise ValueError("log-probabilities must be finite; leave out responses of probability 0")
    total = math.log(float(np.exp(logprob).sum())) if logprob.max() > -700 else -math.inf
    if not abs(total) <= NORMALISED:
        raise ValueError(f"log-probabilities must sum to probability 1, got {math.exp(total):.6g}; list every response")
    return logprob


def _log_sum(logprob: Float[ndarray, " B"]) -> float:
    top = float(logprob.max())
    return top + math.log(float(np.exp(logprob - top).sum()))


def log_odds(logprob: Float[ndarray, " B"], correct: Bool[ndarray, " B"]) -> float:
    """Log-odds of success, log Σ_{O⁺} π − log Σ_{O⁻} π, nats.

    logprob: log π of every response. correct: which have reward 1. Raises ValueError unless the probabilities sum to 1
    and there are responses of both kinds. Ledger: G01.
    """
    check_correct(correct, len(_check_logprob(logprob)))
    return _log_sum(logprob[correct]) - _log_sum(logprob[~correct])


def gradient_gap(
    logprob: Float[ndarray, " B"], score: Float[ndarray, "B P"], correct: Bool[ndarray, " B"]
) -> GradientGap:
    """Gradient gap: mean score of correct responses less that of wrong ones.

    g = g⁺ − g⁻ = ∇ log J/(1−J), g⁺ = E[s|r=1] = (1−J) g, g⁻ = −J g, ∇J = J(1−J) g. The identity for ∇J is stated by the
    gradient-gap paper (quoted by a secondary source); that g is a gradient is derived here.

    logprob: log π, nats. score: ∂_θ log π, one row per response. correct: which have reward 1.
    Raises ValueError as ``log_odds``, and for scores of another length or not finite. Ledger: G01.
    """
    odds = log_odds(logprob, correct)
    if len(score) != len(logprob) or not np.all(np.isfinite(score)):
        raise ValueError(f"score must be {len(logprob)} rows of finite numbers, got shape {score.shape}")
    positive, negative = (np.exp(log_conditional(logprob[which])) @ score[which] for which in (correct, ~correct))
    return GradientGap(_expit(odds), _expit(-odds), odds, positive, negative)


def _expit(x: float) -> float:
    """Logistic function, without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_odds_hessian(
    logprob: Float[ndarray, " B"],
    score: Float[ndarray, "B P"],
    score_jacobian: Float[ndarray, "B P P"],
    correct: Bool[ndarray, " B"],
) -> Float[ndarray, "P P"]:
    """Second derivative of the log-odds.

    ∇² log J/(1−J) = E⁺[H] − E⁻[H] + Cov⁺(s) − Cov⁻(s), H = ∂_θ s. Derived here.

    Shapes and errors as ``gradient_gap``; score_jacobian: H of every response. Ledger: G01.hessian.
    """
    gap = gradient_gap(logprob, score, correct)
    total = np.zeros(score_jacobian.shape[1:])
    for which, mean, sign in ((correct, gap.positive, 1.0), (~correct, gap.negative, -1.0)):
        weight, off = np.exp(log_conditional(logprob[which])), score[which] - mean
        total += sign * (np.einsum("b,bpq->pq", weight, score_jacobian[which]) + (weight[:, None] * off).T @ off)
    return total


def log_odds_step(before: Float[ndarray, " B"], after: Float[ndarray, " B"], correct: Bool[ndarray, " B"]) -> float:
    """Change of the log-odds over any finite step, through the ratios ρ = π'/π.

    l' − l = log E⁺[ρ] − log E⁻[ρ], both means under π. Derived here.

    before, after: log π and log π' of every response. Raises ValueError as ``log_odds``. Ledger: G01.step.
    """
    check_correct(correct, len(_check_logprob(before)))
    ratio = _check_logprob(after) - before
    means = [_log_sum(log_conditional(before[which]) + ratio[which]) for which in (correct, ~correct)]
    return means[0] - means[1]


def fisher(logprob: Float[ndarray, " B"], score: Float[ndarray, "B P"]) -> Float[ndarray, "P P"]:
    """Fisher information of the responses, F = E[s sᵀ]; J(1−J)‖g‖² ≤ λ_max(F). Ledger: G01.fisher."""
    return (np.exp(_check_logprob(logprob))[:, None] * score).T @ score
