"""Softmax policies over finitely many responses to one prompt, with two derivatives of their logits by hand.

A response is an arm, a whole answer, or a class of answers of one probability and one score. Departures from the
gradient-gap paper, whose configurations could not be read: every instance here is this project's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from vgrad_lab.discrete.gradient_gap import check_correct, log_conditional


@dataclass(frozen=True)
class Bandit:
    """π_θ = softmax of B logits, which are functions of θ (P,), and which responses are correct (reward 1).

    logits: θ → (B,), nats. jacobian: θ → (B, P). curvature: θ → (B, P, P). size: P.
    """

    correct: Bool[ndarray, " B"]
    size: int
    logits: Callable[[Float[ndarray, " P"]], Float[ndarray, " B"]]
    jacobian: Callable[[Float[ndarray, " P"]], Float[ndarray, "B P"]]
    curvature: Callable[[Float[ndarray, " P"]], Float[ndarray, "B P P"]]


def logprob(bandit: Bandit, theta: Float[ndarray, " P"]) -> Float[ndarray, " B"]:
    """log π_θ of every response, nats. Raises ValueError for a θ of another shape or not finite."""
    if theta.shape != (bandit.size,) or not np.all(np.isfinite(theta)):
        raise ValueError(f"theta must be {bandit.size} finite numbers, got shape {theta.shape}: {theta}")
    return log_conditional(bandit.logits(theta))


def score(bandit: Bandit, theta: Float[ndarray, " P"]) -> Float[ndarray, "B P"]:
    """Score of every response, s = ∂_θ log π = ∂z − E[∂z]. Ledger: G01."""
    slope = bandit.jacobian(theta)
    return slope - np.exp(logprob(bandit, theta)) @ slope


def score_jacobian(bandit: Bandit, theta: Float[ndarray, " P"]) -> Float[ndarray, "B P P"]:
    """Second derivative of every log-probability, H = ∂²z − E[∂²z] − Cov(∂z). Ledger: G01.hessian."""
    bend, slope, p = bandit.curvature(theta), bandit.jacobian(theta), np.exp(logprob(bandit, theta))
    s = slope - p @ slope
    return bend - np.einsum("b,bpq->pq", p, bend) - (p[:, None] * s).T @ s


def linear_bandit(
    feature: Float[ndarray, "B P"], correct: Bool[ndarray, " B"], *, offset: Float[ndarray, " B"] | None = None
) -> Bandit:
    """Linear softmax, z = x θ + b: H is −Cov(x) for every response, so it cancels from the log-odds.

    feature: x, one row per response. offset: b, nats (0). Raises ValueError unless all are finite, of one length, and
    there are correct and wrong responses. Ledger: G04.
    """
    check_correct(correct, len(feature))
    b = np.zeros(len(feature)) if offset is None else offset
    if b.shape != correct.shape or not (np.all(np.isfinite(feature)) and np.all(np.isfinite(b))):
        raise ValueError(f"feature and offset must be finite, with one row each per response, got offset {b.shape}")
    size = feature.shape[1]
    return Bandit(
        correct=correct,
        size=size,
        logits=lambda theta: feature @ theta + b,
        jacobian=lambda theta: feature,
        curvature=lambda theta: np.zeros((len(feature), size, size)),
    )


def tabular_bandit(correct: Bool[ndarray, " B"]) -> Bandit:
    """One logit per response, z = θ. Ledger: G03.tabular."""
    return linear_bandit(np.eye(len(correct)), correct)


def cosh_bandit(x: float = 1.0, *, weight: float = 1.0) -> Bandit:
    """Three arms on a line: one correct at 0 with weight a, wrong ones at ±x.

    J = a/(a + 2 cosh xθ), gap −x tanh xθ: best at θ = 0, J* = a/(a + 2).

    x: feature > 0. weight: a > 0. Raises ValueError for either not positive. Ledger: G04.sharp.
    """
    if not (x > 0 and weight > 0):
        raise ValueError(f"x and weight must be positive, got {x} and {weight}")
    offset = np.array([np.log(weight), 0.0, 0.0])
    return linear_bandit(np.array([[0.0], [-x], [x]]), np.array([True, False, False]), offset=offset)


def iid_tokens(length: int, margin: int) -> Bandit:
    """T independent tokens ±1 with one logit θ, correct iff |Σ o_t| ≤ m; a response is a class of equal sums S.

    π ∝ C(T, (T+S)/2) e^{θS}; by symmetry θ = 0 is best.

    length: T ≥ 1. margin: m ≥ 0. Raises ValueError where no class or every class is correct. Ledger: G05.linear.
    """
    from scipy.special import gammaln

    if length < 1:
        raise ValueError(f"length must be at least 1 token, got {length}")
    heads = np.arange(length + 1.0)
    total = 2 * heads - length
    ways = gammaln(length + 1) - gammaln(heads + 1) - gammaln(length - heads + 1)
    return linear_bandit(total[:, None], np.abs(total) <= margin, offset=ways)


def washboard(slope: float = 0.5) -> Bandit:
    """Two responses whose log-odds are f(θ) = sin θ − εθ/2π: a constant step of 2π along the gap collapses.

    slope: 0 < ε < 2π. Raises ValueError outside. Ledger: G03.
    """
    if not 0 < slope < 2 * np.pi:
        raise ValueError(f"slope must lie in (0, 2π), got {slope}")
    tilt = slope / (2 * np.pi)
    return Bandit(
        correct=np.array([True, False]),
        size=1,
        logits=lambda theta: np.array([np.sin(theta[0]) - tilt * theta[0], 0.0]),
        jacobian=lambda theta: np.array([[np.cos(theta[0]) - tilt], [0.0]]),
        curvature=lambda theta: np.array([[[-np.sin(theta[0])]], [[0.0]]]),
    )


def steepening(width: float = 1.0, *, gain: float = 1.0) -> Bandit:
    """Three responses, θ = (a, b): the correct one has logit zb, the wrong ones ±y, y = x₀ e^{zb/2} a.

    The surer the policy, the steeper the wrong responses: near a = 0, (1 − J) y'² → V = 2x₀². sup J = 1.

    width: x₀ > 0. gain: z > 0. Raises ValueError for either not positive. Ledger: G06.
    """
    if not (width > 0 and gain > 0):
        raise ValueError(f"width and gain must be positive, got {width} and {gain}")

    def logits(theta: Float[ndarray, " P"]) -> Float[ndarray, " B"]:
        y = width * np.exp(gain * theta[1] / 2) * theta[0]
        return np.array([gain * theta[1], -y, y])

    def jacobian(theta: Float[ndarray, " P"]) -> Float[ndarray, "B P"]:
        x = width * np.exp(gain * theta[1] / 2)
        row = np.array([x, gain / 2 * x * theta[0]])
        return np.stack([np.array([0.0, gain]), -row, row])

    def curvature(theta: Float[ndarray, " P"]) -> Float[ndarray, "B P P"]:
        x = width * np.exp(gain * theta[1] / 2)
        bend = np.array([[0.0, gain / 2 * x], [gain / 2 * x, gain**2 / 4 * x * theta[0]]])
        return np.stack([np.zeros((2, 2)), -bend, bend])

    return Bandit(np.array([True, False, False]), 2, logits, jacobian, curvature)


def tanh_bandit(feature: Float[ndarray, "B F"], hidden: int, correct: Bool[ndarray, " B"]) -> Bandit:
    """A network of one tanh layer, z_b = Σ_j v_j tanh(Σ_f W_jf x_bf); θ holds W row by row, then v.

    feature: x; a column of ones makes a bias. hidden: number of units ≥ 1. Raises ValueError as ``linear_bandit``.
    """
    check_correct(correct, len(feature))
    if hidden < 1 or not np.all(np.isfinite(feature)):
        raise ValueError(f"tanh_bandit needs at least one hidden unit and finite features, got hidden = {hidden}")
    width = feature.shape[1]
    split = hidden * width

    def parts(theta: Float[ndarray, " P"]) -> tuple[Float[ndarray, "B H"], Float[ndarray, " H"]]:
        return np.tanh(feature @ theta[:split].reshape(hidden, width).T), theta[split:]

    def logits(theta: Float[ndarray, " P"]) -> Float[ndarray, " B"]:
        unit, weight = parts(theta)
        return unit @ weight

    def jacobian(theta: Float[ndarray, " P"]) -> Float[ndarray, "B P"]:
        unit, weight = parts(theta)
        inner = ((1 - unit**2) * weight)[:, :, None] * feature[:, None, :]
        return np.concatenate([inner.reshape(len(feature), split), unit], axis=1)

    def curvature(theta: Float[ndarray, " P"]) -> Float[ndarray, "B P P"]:
        unit, weight = parts(theta)
        bend = np.zeros((len(feature), split + hidden, split + hidden))
        for j in range(hidden):
            rows, slope = slice(j * width, (j + 1) * width), 1 - unit[:, j] ** 2
            pair = feature[:, :, None] * feature[:, None, :]
            bend[:, rows, rows] = (-2 * unit[:, j] * slope * weight[j])[:, None, None] * pair
            bend[:, rows, split + j] = bend[:, split + j, rows] = slope[:, None] * feature
        return bend

    return Bandit(correct, split + hidden, logits, jacobian, curvature)
