"""Signal, gap, headroom and their product (eqs. 24-31 of the paper), GRPO's scale factor, and the forecast.

Departures from the paper: every reading is a function of its own, Λ's sign is never hidden (Σ − Λ may be negative),
and α and the group size have to be said.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group

Optimizer = Literal["adamw", "sgd"]
FORECAST_CONSTANT: dict[str, float] = {"adamw": 0.60, "sgd": 0.63}
"""Share of the ideal first-order step that a real run makes; set once on embedded ladders, not derived."""


def _weights(n: int, weight: Float[ndarray, " B"] | None) -> Float[ndarray, " B"]:
    if weight is None:
        return np.full(n, 1 / n)
    if weight.shape != (n,) or np.any(weight < 0) or not math.isclose(float(weight.sum()), 1.0):
        raise ValueError(f"weight must be {n} non-negative numbers that sum to 1, got shape {weight.shape}")
    return weight


def _norm(x: Float[ndarray, "B S"]) -> Float[ndarray, " B"]:
    return np.asarray(np.linalg.norm(x, axis=1))


def signal(value_gradient: Float[ndarray, "B S"], *, weight: Float[ndarray, " B"] | None = None) -> float:
    """Mean squared norm of the value gradient.

    Σ = E‖G‖² (eq. 24). It depends on the scale chosen for the state (a gauge). Ledger: S22.
    """
    return float(_weights(len(value_gradient), weight) @ _norm(value_gradient) ** 2)


def costate_gap(
    value_gradient: Float[ndarray, "B S"],
    costate: Float[ndarray, "B S"],
    *,
    weight: Float[ndarray, " B"] | None = None,
) -> float:
    """Mean product of the value gradient's norm and the costate's distance from it.

    Λ = E[‖G‖ ‖û − G‖] (eq. 26). With û = E[λ̂|prefix] this is the conditional gap; with single costates λ̂ it is the
    larger per-sample one of §6 (Jensen), dominated by sampling noise. Ledger: S22, S23.
    """
    distance = _norm(costate - value_gradient)
    return float(_weights(len(value_gradient), weight) @ (_norm(value_gradient) * distance))


def alignment(
    value_gradient: Float[ndarray, "B S"],
    costate: Float[ndarray, "B S"],
    *,
    weight: Float[ndarray, " B"] | None = None,
) -> float:
    """Mean inner product E⟨λ̂, G⟩, which eq. 25 bounds from below by Σ − Λ. Ledger: S22.alignment."""
    return float(_weights(len(value_gradient), weight) @ (costate * value_gradient).sum(1))


def headroom(reward: Float[ndarray, " B"], alpha: float, *, weight: Float[ndarray, " B"] | None = None) -> float:
    """Soft-maximum reward minus mean reward.

    H_α = (1/α) ln E e^{αR} − E R (eq. 28): 0 iff R is constant, nondecreasing in α, net of KL(tilted‖policy)/α.

    reward: atoms of R. alpha: inverse temperature > 0, per unit of reward. Ledger: S24.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    w = _weights(len(reward), weight)
    top = float(reward[w > 0].max())  # an atom without weight must not set the scale
    return top + math.log(float(w @ np.exp(np.minimum(alpha * (reward - top), 0)))) / alpha - float(w @ reward)


def headroom_bernoulli(success: Float[ndarray, " Q"], alpha: float) -> Float[ndarray, " Q"]:
    """Headroom of a binary reward with the given success probabilities.

    H_α(p) = (1/α) ln(1 − p + p e^α) − p; largest at p* = 1/α − 1/(e^α − 1). Ledger: S24, S25.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    check_probability(success)
    if alpha <= 500:
        return np.asarray(np.log1p(success * np.expm1(alpha)) / alpha - success)
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(0.0, np.log(success) + alpha) / alpha - success)  # 1 − p is 1 where it counts


def impact_score(signal: float, gap: float, headroom: float) -> float:
    """The paper's predictor P_gap = (Σ − Λ)·H_α (§6); its sign flips with the reading of Λ. Ledger: S26."""
    return (signal - gap) * headroom


def check_probability(p: Float[ndarray, " Q"]) -> Float[ndarray, " Q"]:
    """Return p, or raise ValueError unless every entry lies in [0, 1]."""
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("success probabilities must lie in [0, 1] (NaN does not)")
    return p


def binary_advantages(
    group_size: int, baseline: Baseline = "standardised", *, ddof: int = 1, eps: float = 1e-4
) -> tuple[Float[ndarray, " G"], Float[ndarray, " G"]]:
    """Advantage of a success and of a failure when k = 0..G−1 of the *other* samples succeed.

    Â(1, k+1) and Â(0, k) of ledger O5, read off the advantage function itself.
    """
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}")
    others = (np.arange(group_size - 1)[None, :] < np.arange(group_size)[:, None]).astype(float)
    success = from_group(np.column_stack([np.ones(group_size), others]), baseline, ddof=ddof, eps=eps)[:, 0]
    failure = from_group(np.column_stack([np.zeros(group_size), others]), baseline, ddof=ddof, eps=eps)[:, 0]
    return success, failure


def others_weight(success: Float[ndarray, " Q"], group_size: int) -> Float[ndarray, "Q G"]:
    """Probability that k = 0..G−1 of the G−1 other samples succeed, Bin(G−1, p)(k)."""
    from scipy.special import gammaln, xlog1py, xlogy

    check_probability(success)
    n, k = group_size - 1, np.arange(group_size)
    log_choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    p = success[:, None]
    return np.asarray(np.exp(log_choose + xlogy(k, p) + xlog1py(n - k, -p)))


def grpo_scale(
    success: Float[ndarray, " Q"],
    group_size: int,
    *,
    baseline: Baseline = "standardised",
    ddof: int = 1,
    eps: float = 1e-4,
) -> Float[ndarray, " Q"]:
    """Factor between GRPO's expected gradient and the true one for binary rewards.

    κ_G(p) = Σ_k Bin(G−1,p)(k) [Â(1,k+1) − Â(0,k)] = E[s²/(s+ε)]/(p(1−p)); 1 for leave-one-out, (G−1)/G for the group
    mean. Derived here; the paper has no such factor.

    success: p per prompt, [0, 1]. Raises ValueError for G < 2 or p outside. Ledger: S10.
    """
    won, lost = binary_advantages(group_size, baseline, ddof=ddof, eps=eps)
    return others_weight(success, group_size) @ (won - lost)


def forecast(
    reward_before: float,
    gradient: float,
    *,
    optimizer: Optimizer,
    learning_rate: float,
    group_size: int,
    updates: int,
    constant: float | None = None,
    baseline: Baseline = "standardised",
    ddof: int = 1,
    eps: float = 1e-4,
) -> Float[ndarray, " K"]:
    """Mean reward after 0..updates GRPO updates, from one backward pass at the checkpoint.

    SGD: p ← p + m η κ_G(p) ‖∇J‖² (p(1−p))²/(p₀(1−p₀))²; AdamW: logit p ← logit p + m η ‖∇J‖₁/(p₀(1−p₀)).
    Mean-field over prompts; derived here from the free-logit flow.

    reward_before: p₀ in (0, 1). gradient: ‖∇J‖² (sgd) or ‖∇J‖₁ (adamw) of the mean reward. constant: m, default
    ``FORECAST_CONSTANT``. Raises ValueError for inputs out of range. Ledger: S26.forecast.
    """
    if not 0 < reward_before < 1:
        raise ValueError(f"reward_before must lie in (0, 1), got {reward_before}: nothing to learn, or nothing sampled")
    if not (gradient >= 0 and math.isfinite(gradient)):
        raise ValueError(f"gradient must be a finite non-negative norm, got {gradient}")
    if updates < 0:
        raise ValueError(f"updates must not be negative, got {updates}")
    if optimizer not in FORECAST_CONSTANT:
        raise ValueError(f"unknown optimizer {optimizer!r}; choose one of {', '.join(FORECAST_CONSTANT)}")
    m = FORECAST_CONSTANT[optimizer] if constant is None else constant
    spread = reward_before * (1 - reward_before)
    if optimizer == "adamw":
        logit = math.log(reward_before / (1 - reward_before))
        return 1 / (1 + np.exp(-(logit + m * learning_rate * gradient / spread * np.arange(updates + 1))))
    curve = np.empty(updates + 1)
    curve[0] = p = reward_before
    for step in range(1, updates + 1):
        scale = float(grpo_scale(np.array([p]), group_size, baseline=baseline, ddof=ddof, eps=eps)[0])
        p = min(p + m * learning_rate * scale * gradient * (p * (1 - p) / spread) ** 2, 1.0)
        curve[step] = p
    return curve
