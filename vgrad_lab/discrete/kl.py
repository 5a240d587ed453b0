"""Gradients of the KL terms k1, k2, k3, in the loss and in the reward, against the gradient of the KL itself.

x = log π(o_t|o_<t) − log ref(o_t|o_<t); k1 = x, k2 = x²/2, k3 = e^{−x} − 1 + x. A tree of one token is one prefix.
"""

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.off_policy import Ratio, log_ratio
from vgrad_lab.discrete.token_tree import (
    TokenTree,
    answer_probability,
    log_policy,
    objective_gradient,
    prefix_probability,
    token_logprob,
    weighted_response_score,
    weighted_score,
)

Term = Literal["k1", "k2", "k3"]
Place = Literal[
    "loss", "token_ratio", "sequence_ratio", "geometric_ratio", "reward", "reward_to_go", "own_reward"
]  # fmt: skip
"""Where a term stands: in the loss, differentiated, without or with a ratio ρ before it; or in the reward, as data."""
_RATIO: dict[str, Ratio] = {"loss": "none", "token_ratio": "token", "geometric_ratio": "geometric"}


def _masses(term: Term, log_mass: ndarray, x: ndarray) -> tuple[ndarray, ndarray]:
    """k(x) and k'(x), each times the mass, without overflow: mass·e^{−x} is a probability where e^{−x} is none."""
    mass = np.exp(log_mass)
    if term == "k1":
        return mass * x, mass * np.ones_like(x)
    if term == "k2":
        return mass * x**2 / 2, mass * x
    if np.max(log_mass - x) > 700:
        raise ValueError(
            "k3 overflows: π all but never draws what β and the reference do; give policies that are nearer"
        )
    near = mass * np.expm1(-np.maximum(x, -50.0))
    fall = np.where(x > -50.0, near, np.exp(log_mass - x) - mass)
    return fall + mass * x, -fall


def _check(term: str, place: str = "loss") -> None:
    for name, given, known in (("term", term, Term), ("place", place, Place)):
        if given not in get_args(known):
            raise ValueError(f"unknown {name} {given!r}; choose one of {', '.join(get_args(known))}")


def prefix_kl(tree: TokenTree, logits: Float[ndarray, "N V"], reference: Float[ndarray, "N V"]) -> Float[ndarray, " N"]:
    """KL(π‖ref) at each open prefix, nats.

    logits, reference: one row per prefix. Raises ValueError for logits that don't fit or are not finite.
    """
    log_p = log_policy(tree, logits)
    return np.asarray((np.exp(log_p) * (log_p - log_policy(tree, reference))).sum(1))


def sequence_kl(tree: TokenTree, logits: Float[ndarray, "N V"], reference: Float[ndarray, "N V"]) -> float:
    """KL(π‖ref) between the laws of whole answers, Σ_prefix P(prefix) KL(prefix), nats."""
    return float(prefix_probability(tree, logits) @ prefix_kl(tree, logits, reference))


def sequence_kl_gradient(
    tree: TokenTree, logits: Float[ndarray, "N V"], reference: Float[ndarray, "N V"]
) -> Float[ndarray, " P"]:
    """∇KL(π‖ref) between the laws of whole answers: the policy gradient of the reward Σ_t x_t, frozen.

    Raises ValueError for logits that don't fit or are not finite. Ledger: K03, K04.
    """
    return objective_gradient(tree, logits, log_ratio(tree, logits, reference, "token").sum(1))


def local_kl_gradient(
    tree: TokenTree, logits: Float[ndarray, "N V"], reference: Float[ndarray, "N V"], *, reverse: bool = False
) -> Float[ndarray, " P"]:
    """The part of ∇KL with the visits to prefixes held fixed: Σ_prefix P(prefix) ∇KL(prefix), in closed form.

    ∂KL(π‖ref)/∂z_v = π_v (x_v − KL); reverse: ∂KL(ref‖π)/∂z_v = π_v − ref_v. At one prefix it is the whole gradient.

    Raises ValueError for logits that don't fit or are not finite. Ledger: K02, K04.
    """
    log_p, log_ref = log_policy(tree, logits), log_policy(tree, reference)
    p, x = np.exp(log_p), log_p - log_ref
    rows = p - np.exp(log_ref) if reverse else p * (x - (p * x).sum(1, keepdims=True))
    return np.asarray((prefix_probability(tree, logits)[:, None] * rows).ravel())


def kl_value(
    tree: TokenTree, logits: Float[ndarray, "N V"], reference: Float[ndarray, "N V"], term: Term
) -> float:  # fmt: skip
    """E_π[Σ_t k(x_t)], nats: KL(π‖ref) for k1 and k3, another number for k2.

    Raises ValueError for an unknown term and logits that don't fit. Ledger: K01.
    """
    _check(term)
    log_mass = token_logprob(tree, logits).sum(1, keepdims=True)
    value, _ = _masses(term, log_mass, log_ratio(tree, logits, reference, "token"))
    return float(value[tree.scored].sum())


def kl_term_gradient(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    reference: Float[ndarray, "N V"],
    *,
    term: Term = "k3",
    place: Place = "loss",
    behaviour: Float[ndarray, "N V"] | None = None,
) -> Float[ndarray, " P"]:
    """Mean gradient that a KL term gives, exact; g_t is the score of π, answers come from β.

    loss: E_β[Σ_t k'(x_t) g_t] (GRPO, TRL and verl with k3). token_ratio: E_β[Σ_t ρ_t (k' + k)(x_t) g_t] (TRL's
    use_bias_correction_kl). sequence_ratio, geometric_ratio: the same term before ρ Σ_t k(x_t), ρ of the whole answer.
    reward: E_π[Σ_s k(x_s) Σ_t g_t], k as data (RLOO with k1); reward_to_go: s ≥ t only; own_reward: s = t only.

    behaviour: logits of β, None for β = π; answers of another β enter the reward's places with the sequence ratio.
    Raises ValueError for an unknown term or place, logits that don't fit, and k3 that overflows under β.
    Ledger: K02, K03, K04.
    """
    _check(term, place)
    return weighted_score(tree, logits, _weight(tree, logits, reference, term, place, behaviour))


def kl_term_variance(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    reference: Float[ndarray, "N V"],
    *,
    term: Term = "k3",
    place: Place = "loss",
    behaviour: Float[ndarray, "N V"] | None = None,
) -> float:
    """Trace of the covariance of that gradient for one answer, exact; of G answers it is 1/G of it.

    Σ_o β(o) ‖∇‖² − ‖E∇‖²; infinite where an answer too unlikely for a float counts. Of k3 in the loss it grows like
    Σ ref²/π where π leaves what the reference does. Raises ValueError as ``kl_term_gradient``. Ledger: K02, K03.
    """
    _check(term, place)
    weight = _weight(tree, logits, reference, term, place, behaviour)
    probability = answer_probability(tree, logits if behaviour is None else behaviour)
    rows = weighted_response_score(tree, logits, np.where(tree.scored, weight, 0.0))
    square, drawn = (rows**2).sum(1), probability > 0
    if np.any(square[~drawn] > 0):
        return math.inf
    return max(float((square[drawn] / probability[drawn]).sum() - (rows.sum(0) ** 2).sum()), 0.0)


def _weight(
    tree: TokenTree, logits: ndarray, reference: ndarray, term: Term, place: Place, behaviour: ndarray | None
) -> ndarray:
    """What each token's score is multiplied with, times the probability of its answer."""
    behaviour = logits if behaviour is None else behaviour
    x = log_ratio(tree, logits, reference, "token")
    ratio = log_ratio(tree, logits, behaviour, _RATIO.get(place, "sequence"))
    value, slope = _masses(term, token_logprob(tree, behaviour).sum(1, keepdims=True) + ratio, x)
    total = value.sum(1, keepdims=True)
    found = {
        "loss": slope,
        "token_ratio": slope + value,
        "sequence_ratio": slope + total,
        "geometric_ratio": slope + total / tree.length[:, None],
        "reward": total * np.ones_like(x),
        "reward_to_go": total - value.cumsum(1) + value,
        "own_reward": value,
    }[place]
    return np.asarray(found)
