"""Entropy and covariance of a categorical distribution: the bound of Prop. 2 and its sharp, linear correction."""

import math
from itertools import pairwise

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


def entropy_of_logits(logits: Float[ndarray, "B V"]) -> Float[ndarray, " B"]:
    """Entropy in nats of softmax(z), accurate however small it is.

    H = ln(1 + Σ_{j≠m} e^{−Δ_j}) + Σ_j p_j Δ_j with Δ_j = z_m − z_j, z_m the largest. Raises ValueError for logits that
    are not finite. Ledger: S17.temperature.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not np.all(np.isfinite(logits)):
        raise ValueError(f"logits need shape (B, V) with V ≥ 2 and finite entries, got {logits.shape}")
    row, top = np.arange(len(logits)), logits.argmax(1)
    gap = logits[row, top][:, None] - logits
    weight = np.exp(-gap)
    weight[row, top] = 0.0
    rest = weight.sum(1)
    return np.asarray(np.log1p(rest) + (weight * gap).sum(1) / (1 + rest))


def temperature_bound(h: Float[ndarray, " B"], vocabulary: int, temperature: float) -> Float[ndarray, " B"]:
    """Bound on κ(softmax(z/τ)) by the entropy H of softmax(z), that is at temperature 1.

    min(½, H/(2 ln 2)) for τ ≤ 1, and min(½, 2 (V−1)^{1−1/τ} (H/ln 2)^{1/τ}) for τ > 1: of the order √H iff τ ≤ 2.
    Raises ValueError for τ ≤ 0 or V < 2. Ledger: S17.temperature.
    """
    if not temperature > 0 or vocabulary < 2:
        raise ValueError(f"temperature is {temperature}, vocabulary {vocabulary}; give τ > 0 and V ≥ 2")
    if temperature <= 1:
        return linear_entropy_bound(h)
    power = 1 / temperature
    return np.asarray(np.minimum(0.5, 2 * (vocabulary - 1) ** (1 - power) * (h / LN2) ** power))


def gumbel_pathwise_slope(gap: float, *, temperature: float) -> float:
    """Mean pathwise slope ∂E[p̃_1]/∂z_1 of a Gumbel-softmax over two tokens, by quadrature.

    (1/τ) E[p̃(1 − p̃)], p̃ = σ((Δ + ξ)/τ), ξ logistic; the drawn token has ∂E[o_1]/∂z_1 = σ(Δ)(1 − σ(Δ)), and the norm
    of the Jacobian has twice this mean. gap: Δ = z_1 − z_2. Raises ValueError for τ ≤ 0. Ledger: S17.gumbel.
    """
    if not temperature > 0 or not math.isfinite(gap):
        raise ValueError(f"temperature is {temperature}, gap {gap}; give τ > 0 and a finite gap")
    from scipy.integrate import quad

    # E = ∫ σ'(u) f(τu − Δ) du, split at both peaks and written over e^{−|Δ| min(1, 1/τ)} against underflow.
    least = abs(gap) * min(1.0, 1 / temperature)

    def scaled(u: float) -> float:
        x = temperature * u - gap
        fall = least - abs(u) - abs(x)
        return math.exp(fall) / ((1 + math.exp(-abs(u))) ** 2 * (1 + math.exp(-abs(x))) ** 2)

    edges = sorted({0.0, gap / temperature})
    reach = 60.0 / min(1.0, temperature) + 60.0
    nodes = [edges[0] - reach, *edges, edges[-1] + reach]
    total = sum(quad(scaled, a, b, epsabs=0, epsrel=1e-12, limit=500)[0] for a, b in pairwise(nodes))
    return math.exp(-least) * total


def gumbel_pathwise_slope_at_one(gap: float) -> float:
    """The same at τ = 1 in closed form, e^Δ((Δ−2)e^Δ + Δ + 2)/(e^Δ−1)³: about (|Δ|−2) times the discrete slope.

    The density of a sum of two logistic variables. Below |Δ| = 0.1 its series 1/6 − Δ²/60 + Δ⁴/1008 − Δ⁶/21600 is used.
    Ledger: S17.gumbel.
    """
    x = abs(gap)
    if x < 0.1:
        return 1 / 6 - x**2 / 60 + x**4 / 1008 - x**6 / 21600
    tail = math.exp(-x)
    return tail * (x - 2 + (x + 2) * tail) / (1 - tail) ** 3
