"""Answers of one policy, gradient for another: importance ratios and clipping as exact expectations on the tree.

A library draws answers from a behaviour policy β, the policy before some updates, and differentiates a surrogate
E_β[ρ A] at the present π. Here the expectation is a finite sum, so the bias of each ratio and clip is a number.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from vgrad_lab.discrete.token_tree import TokenTree, check_reward, token_logprob, weighted_score

Ratio = Literal["none", "token", "prefix", "suffix", "sequence", "geometric"]
"""Which tokens a ratio at token t multiplies: none, t alone, up to t, from t on, all; geometric: |o|-th root of all."""


@dataclass(frozen=True)
class Clip:
    """Bounds of min(ρA, clip(ρ, 1 − low, 1 + high)A); ``high`` above ``low`` is clip-higher (DAPO: 0.2 and 0.28).

    cap: a bound on ρ where A < 0 (verl's dual clip, TRL's delta); None for no such bound.
    Raises ValueError for bounds that are not 0 ≤ low < 1, high ≥ 0, cap > 1 + high.
    """

    low: float = 0.2
    high: float = 0.2
    cap: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low < 1 or not 0 <= self.high < np.inf:
            raise ValueError(
                f"clip bounds are low {self.low}, high {self.high}; give 0 ≤ low < 1 and a finite high ≥ 0"
            )
        if self.cap is not None and not self.cap > 1 + self.high:
            raise ValueError(f"cap is {self.cap}; give one above 1 + high = {1 + self.high:g}, or None")


def log_ratio(
    tree: TokenTree, logits: Float[ndarray, "N V"], behaviour: Float[ndarray, "N V"], kind: Ratio = "sequence"
) -> Float[ndarray, "B T"]:
    """log ρ at each token, nats; 0 after the end.

    x_t = log π(o_t|o_<t) − log β(o_t|o_<t), summed over the tokens that ``kind`` names; geometric: (1/|o|) Σ_t x_t.

    behaviour: logits of β. Raises ValueError for logits that don't fit and an unknown kind. Ledger: K05, K06, K07.
    """
    if kind not in get_args(Ratio):
        raise ValueError(f"unknown ratio {kind!r}; choose one of {', '.join(get_args(Ratio))}")
    x = token_logprob(tree, logits) - token_logprob(tree, behaviour)
    if kind == "none":
        return np.zeros_like(x)
    if kind == "token":
        return x
    if kind == "prefix":
        return np.where(tree.scored, x.cumsum(1), 0.0)
    total = x.sum(1, keepdims=True)
    if kind == "suffix":
        return np.where(tree.scored, total - x.cumsum(1) + x, 0.0)
    return np.where(tree.scored, total / tree.length[:, None] if kind == "geometric" else total, 0.0)


def importance_ratio(
    tree: TokenTree, logits: Float[ndarray, "N V"], behaviour: Float[ndarray, "N V"], kind: Ratio = "sequence"
) -> Float[ndarray, "B T"]:
    """ρ at each token, the exponential of ``log_ratio``; 0 after the end.

    Raises ValueError as ``log_ratio`` does, and where ρ would overflow.
    """
    x = log_ratio(tree, logits, behaviour, kind)
    if x.max() > 700:
        raise ValueError(f"a log ratio of {x.max():.4g} nats overflows; take log_ratio, or policies that are nearer")
    return np.where(tree.scored, np.exp(x), 0.0)


def kept(
    ratio: Float[ndarray, "B T"], advantage: Float[ndarray, "B T"], clip: Clip | None = None
) -> Bool[ndarray, "B T"]:
    """Where the surrogate still depends on the policy: min(ρA, clip(ρ)A) = ρA.

    Not where A > 0 and ρ > 1 + high, nor where A < 0 and ρ < 1 − low or ρ > cap. Ledger: K08.
    """
    if clip is None:
        return np.ones(ratio.shape, dtype=bool)
    out = ((advantage > 0) & (ratio > 1 + clip.high)) | ((advantage < 0) & (ratio < 1 - clip.low))
    if clip.cap is not None:
        out |= (advantage < 0) & (ratio > clip.cap)
    return np.asarray(~out)


def _parts(
    tree: TokenTree, logits: ndarray, behaviour: ndarray, advantage: ndarray, kind: Ratio
) -> tuple[ndarray, ndarray, ndarray]:
    """log ρ, the mass β(o)ρ without overflow, and the advantage, per token."""
    log_rho = log_ratio(tree, logits, behaviour, kind)
    log_mass = token_logprob(tree, behaviour).sum(1, keepdims=True) + log_rho
    per_token = np.where(tree.scored, check_reward(tree, advantage, name="advantage")[:, None], 0.0)
    return log_rho, np.exp(log_mass), per_token


def _bounded(log_rho: ndarray) -> ndarray:
    """ρ without overflow: e^{700} is past every bound."""
    return np.exp(np.minimum(log_rho, 700.0))


def off_policy_gradient(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    behaviour: Float[ndarray, "N V"],
    advantage: Float[ndarray, " B"],
    *,
    ratio: Ratio = "token",
    clip: Clip | None = None,
) -> Float[ndarray, " P"]:
    """Mean direction that answers of β give at π, exact.

    E_β[A Σ_t ρ_t 1[kept] g_t], g_t the score of π; for the geometric ratio divided by |o|. With the kinds none, token,
    sequence and geometric it is the gradient of ``off_policy_surrogate`` (REINFORCE, PPO and GRPO, RLOO, GSPO); prefix
    and suffix count as data.

    advantage: one number per answer, such as reward minus baseline, or that times 1/|o|. clip: None for none. For a
    random advantage (a group's) add the calls for E[max(A, 0) | o] and E[min(A, 0) | o].
    Raises ValueError for arrays that don't fit. Ledger: K05, K06, K07, K08.
    """
    log_rho, mass, per_token = _parts(tree, logits, behaviour, advantage, ratio)
    weight = mass * per_token * kept(_bounded(log_rho), per_token, clip)
    if ratio == "geometric":
        weight = weight / tree.length[:, None]
    return weighted_score(tree, logits, weight)


def off_policy_surrogate(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    behaviour: Float[ndarray, "N V"],
    advantage: Float[ndarray, " B"],
    *,
    ratio: Ratio = "token",
    clip: Clip | None = None,
) -> float:
    """The number whose gradient in π ``off_policy_gradient`` is: what a library would maximise.

    E_β[Σ_t min(ρ_t A, clip(ρ_t) A)] for the token ratio; E_β[min(ρA, clip(ρ)A)] for sequence and geometric;
    E_β[A log π(o)] for none.

    Raises ValueError for prefix and suffix, which are no surrogate's ratio. Ledger: K06, K08.
    """
    if ratio in ("prefix", "suffix"):
        raise ValueError(f"the {ratio} ratio counts as data; take none, token, sequence or geometric")
    log_rho, _, per_token = _parts(tree, logits, behaviour, advantage, ratio)
    probability = np.exp(token_logprob(tree, behaviour).sum(1))
    if ratio == "none":
        return float(probability @ (token_logprob(tree, logits) * per_token).sum(1))
    rho = _bounded(log_rho)
    value = rho * per_token
    if clip is not None:
        value = np.minimum(value, np.clip(rho, 1 - clip.low, 1 + clip.high) * per_token)
        if clip.cap is not None:
            value = np.where(per_token < 0, np.maximum(value, clip.cap * per_token), value)
    return float(probability @ (value.sum(1) if ratio == "token" else value[:, 0]))


def truncated_gradient(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    behaviour: Float[ndarray, "N V"],
    advantage: Float[ndarray, " B"],
    *,
    most: float = 5.0,
    ratio: Ratio = "token",
) -> Float[ndarray, " P"]:
    """Mean direction with a truncated ratio as a weight (CISPO in TRL, truncated importance sampling).

    E_β[A Σ_t min(ρ_t, most) g_t]: no token is left out, and none weighs more than ``most``.

    Raises ValueError for most ≤ 0 and arrays that don't fit. Ledger: K08.
    """
    if not most > 0:
        raise ValueError(f"most is {most}; give a positive bound on the ratio")
    log_rho, mass, per_token = _parts(tree, logits, behaviour, advantage, ratio)
    return weighted_score(tree, logits, mass * per_token * np.minimum(1.0, most * np.exp(-np.maximum(log_rho, -700.0))))


def shifted(logits: Float[ndarray, "N V"], size: float, rng: np.random.Generator) -> Float[ndarray, "N V"]:
    """Logits plus ``size`` times standard normal numbers: a policy some updates away."""
    return np.asarray(logits + size * rng.standard_normal(logits.shape))
