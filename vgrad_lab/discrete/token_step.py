"""Steps of token-level policies: how length, failure rate and the tokens' bounds set them; safe learning rates.

Of the gradient-gap paper's token-level theorem only the scaling is known (reported); all formulas are derived here.
"""

import math
from typing import get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.bandit import Bandit
from vgrad_lab.discrete.gradient_gap import check_correct
from vgrad_lab.discrete.step_size import Bounds, diameter
from vgrad_lab.discrete.token_tree import TokenTree, linear_logits, log_policy, pull_back, response_score, token_logprob
from vgrad_lab.discrete.update_scale import Algorithm, update_scale

ROUNDING = 1e-9
"""Relative slack for mean lengths that were computed as sums of probabilities."""


def tree_bandit(tree: TokenTree, feature: Float[ndarray, "N V P"], correct: ndarray) -> Bandit:
    """All answers of a token tree as responses, logits of the tokens linear in shared parameters.

    feature: one row per prefix and token. correct: booleans (B,). Raises ValueError for shapes that don't fit the tree.
    """
    check_correct(correct, tree.size)
    if feature.shape[:2] != tree.logits_shape or not np.all(np.isfinite(feature)):
        raise ValueError(
            f"feature must be finite of shape (N, V, P), (N, V) = {tree.logits_shape}, got {feature.shape}"
        )

    def curvature(theta: Float[ndarray, " P"]) -> Float[ndarray, "B P P"]:
        policy = np.exp(log_policy(tree, linear_logits(feature, theta)))
        off = feature - np.einsum("nv,nvp->np", policy, feature)[:, None]
        covariance = np.einsum("nv,nvp,nvq->npq", policy, off, off)
        return -np.einsum("bt,btpq->bpq", tree.scored.astype(float), covariance[tree.node])

    return Bandit(
        correct=correct,
        size=feature.shape[2],
        logits=lambda theta: token_logprob(tree, linear_logits(feature, theta)).sum(1),
        jacobian=lambda theta: pull_back(feature, response_score(tree, linear_logits(feature, theta))),
        curvature=curvature,
    )


def token_bounds(feature: Float[ndarray, "N V P"]) -> Bounds:
    """Bounds of one token's score and of its derivative at every θ: G_p = D, L_p = D²/4 of the widest prefix."""
    width = max(diameter(rows) for rows in feature)
    return Bounds(width, width**2 / 4)


def token_step(aligned: float, failure: float, *, length: int, bounds: Bounds) -> float:
    """Step along a unit direction w for which the log-odds rise by at least ηΔμ/2.

    min{(1−J)Δμ / (2T(L_p + G_p²)), √(1−J) / (2√T G_p)}; 0 where Δμ ≤ 0. Derived here; reported is only that the
    admissible step shrinks with T, with 1−J and with the tokens' bounds.

    aligned: Δμ = ⟨w, g⟩. failure: 1 − J > 0; 1 where J rounds away. length: T, most tokens of an answer. bounds: of one
    token. Raises ValueError out of range. Ledger: G05.tokens.
    """
    _check(failure, length)
    return random_length_step(aligned, failure, mean=float(length), conditional=float(length), bounds=bounds)


def random_length_step(aligned: float, failure: float, *, mean: float, conditional: float, bounds: Bounds) -> float:
    """``token_step`` for answers of random length, through mean lengths.

    min{(1−J)Δμ / (2(L_p N± + G_p² N)), √(1−J) / (2√N G_p)}; 0 where Δμ ≤ 0. Derived here.

    aligned, failure, bounds: as ``token_step``. mean: N ≥ E|o|. conditional: N± ≥ max(E⁺|o|, E⁻|o|); all on the segment
    of the step; E⁻|o| ≤ E|o|/(1−J) and E⁺|o| ≤ E|o|/J if nothing else is known. Raises ValueError out of range.
    Ledger: G05.random.
    """
    _check(failure, 1)
    if not (1 - ROUNDING <= mean <= conditional * (1 + ROUNDING) < math.inf):
        raise ValueError(f"mean lengths must satisfy 1 ≤ mean ≤ conditional < ∞, got {mean} and {conditional}")
    if aligned <= 0:
        return 0.0
    curved = 2 * (conditional * bounds.curvature + mean * bounds.score**2)
    spread = 2 * math.sqrt(mean) * bounds.score
    first = failure * aligned / curved if curved > 0 else math.inf
    return min(first, math.sqrt(failure) / spread if spread > 0 else math.inf)


def _check(failure: float, length: int) -> None:
    if not 0 < failure <= 1:
        raise ValueError(f"failure must be a probability above 0, got {failure}")
    if length < 1:
        raise ValueError(f"length must be at least 1 token, got {length}")


def failing_variance_bound(failure: float, *, length: int, score: float) -> float:
    """Bound on the variance of ⟨u, s⟩ over wrong answers, for unit u and answers of at most T tokens of score ≤ G_p.

    Var⁻ ≤ min{T G_p²/(1−J), 2T G_p²(1 + ln(2/(1−J)))}: the second, by Azuma, grows with the logarithm only.

    Derived here. Raises ValueError out of range. Ledger: G05.azuma.
    """
    _check(failure, length)
    return length * score**2 * min(1 / failure, 2 * (1 + math.log(2 / failure)))


def gap_bound(success: float, *, length: int, score: float) -> float:
    """Largest possible ‖g‖, √T G_p/√(J(1−J)), by the Cramér–Rao type bound. Derived here. Ledger: G01.fisher."""
    if not 0 < success < 1:
        raise ValueError(f"success must lie strictly between 0 and 1, got {success}")
    _check(1 - success, length)
    return math.sqrt(length) * score / math.sqrt(success * (1 - success))


def step_threshold(success: float, *, length: int, bounds: Bounds, gap_norm: float | None = None) -> float:
    """Largest multiple c of the gap for which θ ← θ + c g is proved to raise the log-odds by at least c‖g‖²/2.

    min{(1−J)/(2T(L_p + G_p²)), √(1−J)/(2√T G_p ‖g‖)}. Derived here; sufficient, mostly far from necessary.

    success: J in (0, 1) of one prompt. length: T, most tokens of an answer. bounds: G_p and L_p of one token in the
    parameters that are trained. gap_norm: ‖g‖ if known, else its largest possible value.
    Raises ValueError out of range. Ledger: G05.tokens.
    """
    most = gap_bound(success, length=length, score=bounds.score)
    norm = most if gap_norm is None else gap_norm
    if not 0 <= norm < math.inf:
        raise ValueError(f"gap_norm must be finite and not negative, got {gap_norm}")
    if norm == 0:
        return math.inf
    return token_step(norm, 1 - success, length=length, bounds=bounds) / norm


def step_safety(
    success: float,
    *,
    length: int,
    bounds: Bounds,
    gap_norm: float | None = None,
    group_size: int = 8,
    ddof: int = 1,
    eps: float = 1e-4,
) -> dict[Algorithm, float]:
    """Largest learning rate of each algorithm whose expected plain-gradient step is proved to raise the log-odds.

    lr ω(J) ≤ ``step_threshold``. Loss summed over tokens, mean over answers; where the loss is divided by a constant
    length, multiply by it. One prompt, no sampling noise, no Adam. As J → 1 the rate stays finite for reinforce, rloo,
    group_mean and grpo, and vanishes for gap, population_grpo and dynamic_sampling. Derived here.

    Arguments and errors as ``step_threshold`` and ``update_scale``. Ledger: G06.
    """
    most = step_threshold(success, length=length, bounds=bounds, gap_norm=gap_norm)
    at = np.array([success])
    names: tuple[Algorithm, ...] = get_args(Algorithm)
    return {name: most / float(update_scale(at, name, group_size=group_size, ddof=ddof, eps=eps)[0]) for name in names}
