"""Entropy and covariance of a categorical distribution: the bound of Prop. 2 and its sharp, linear correction."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

LN2 = math.log(2.0)
SOFTMAX_CONSTANT = 1 / (2 * math.sqrt(LN2))
"""sup κ(p)/√H = 0.600561, attained at (½, ½, 0, …): the sharp constant of Prop. 2 is this times √ln V."""
CONFIDENCE_CONSTANT = 0.75 / math.sqrt(math.log(4.0))
"""sup (1 − p_max)/√H = 0.636991, attained at four equal atoms (V ≥ 4)."""


def check_simplex(p: Float[ndarray, "B V"]) -> Float[ndarray, "B V"]:
    """Return p, or raise ValueError when a row is negative, non-finite or does not sum to 1 within 1e-6."""
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"probabilities need shape (B, V) with V ≥ 2, got {p.shape}")
    if not np.all(np.isfinite(p)) or p.min(initial=0.0) < 0:
        raise ValueError("probabilities must be finite and non-negative")
    off = float(np.max(np.abs(p.sum(1) - 1), initial=0.0))
    if off > 1e-6:
        raise ValueError(f"probabilities must sum to 1 per row; one row is off by {off:.3g}. Normalise them first")
    return p


def entropy(p: Float[ndarray, "B V"]) -> Float[ndarray, " B"]:
    """Shannon entropy in nats, H = −Σ p ln p, with 0 ln 0 = 0."""
    from scipy.special import entr

    return np.asarray(entr(p).sum(1))


def softmax_covariance_norm(p: Float[ndarray, "B V"]) -> Float[ndarray, " B"]:
    """Operator norm of the softmax Jacobian: the factor that Prop. 2 bounds by entropy.

    κ(p) = ‖diag(p) − pp^T‖, the root λ in [p_(2), p_(1)] of Σ_i p_i²/(p_i − λ) = 1 (rank-one update of a diagonal).

    p: rows on the simplex. Raises ValueError for rows that are not. Ledger: S17.
    """
    check_simplex(p)
    top_two = -np.partition(-p, 1, axis=1)[:, :2]
    high, low = top_two[:, 0].copy(), top_two[:, 1].copy()
    tied = high <= low
    square = p * p
    for _ in range(200):
        middle = 0.5 * (low + high)
        if np.all((middle <= low) | (middle >= high)):
            break
        gap = p - middle[:, None]
        gap[gap == 0] = np.finfo(float).tiny
        too_high = (square / gap).sum(1) > 1
        high = np.where(too_high, middle, high)
        low = np.where(too_high, low, middle)
    return np.where(tied, top_two[:, 0], 0.5 * (low + high))


def binary_entropy_inverse(h: Float[ndarray, " B"]) -> Float[ndarray, " B"]:
    """The ε ≤ ½ whose binary entropy −ε ln ε − (1−ε) ln(1−ε) is min(h, ln 2), nats."""
    from scipy.special import entr

    if np.any(h < 0):
        raise ValueError("entropy must not be negative")
    low, high = np.zeros_like(h), np.full_like(h, 0.5)
    for _ in range(200):
        middle = 0.5 * (low + high)
        below = entr(middle) + entr(1 - middle) < h
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(h >= LN2, 0.5, 0.5 * (low + high))


def sharp_entropy_bound(h: Float[ndarray, " B"]) -> Float[ndarray, " B"]:
    """The best bound on κ(p) by entropy alone.

    K(H) = 2ε(1−ε) with ε = h⁻¹(min(H, ln 2)); κ ≤ K(H), equality on two atoms. Ledger: S17.sharp.
    """
    epsilon = binary_entropy_inverse(h)
    return 2 * epsilon * (1 - epsilon)


def linear_entropy_bound(h: Float[ndarray, " B"]) -> Float[ndarray, " B"]:
    """The sharp linear bound κ ≤ K(H) ≤ min(½, H/(2 ln 2)), free of the vocabulary size. Ledger: S17.sharp."""
    return np.minimum(0.5, h / (2 * LN2))


def paper_entropy_bound(h: Float[ndarray, " B"], vocabulary: int, constant: float) -> Float[ndarray, " B"]:
    """Prop. 2 (eq. 21) as written, C·√(H/ln V).

    It holds for κ iff C ≥ 0.600561·√ln V, so the normalisation by ln V cancels. Ledger: S17.
    """
    return np.asarray(constant * np.sqrt(h / math.log(vocabulary)))
