"""The one-token task in closed form (ledger O5): value gradient, costate moments and every Λ from one forward pass.

State h is the head's input (post-final-norm hidden state at the answer position), the reward is 1[a = y] with a
sampled from the FULL vocabulary. Departure from the paper's §6: R = p(y|q) as the *group* reward is degenerate
(ledger S27); its mean is the mean of this indicator.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.impact import binary_advantages, others_weight


@dataclass(frozen=True)
class OneStep:
    """Closed-form quantities per prompt; ``gap`` is Λ, ``alignment`` E⟨λ̂,G⟩, in squared units of 1/state."""

    probability: Float[ndarray, "B V"]
    success: Float[ndarray, " B"]
    value_gradient: Float[ndarray, "B S"]
    scale: Float[ndarray, " B"]
    signal: Float[ndarray, " B"]
    alignment: Float[ndarray, " B"]
    gap_conditional: Float[ndarray, " B"]
    gap_per_sample: Float[ndarray, " B"]
    costate_second_moment: Float[ndarray, " B"]


def softmax(logits: Float[ndarray, "B V"]) -> Float[ndarray, "B V"]:
    """Softmax over the last axis, shifted by the maximum."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _check(head: ndarray, hidden: ndarray, target: ndarray) -> None:
    if head.shape[1] != hidden.shape[1]:
        raise ValueError(f"head is (V, S) = {head.shape} but hidden is (B, S) = {hidden.shape}; S must agree")
    if not np.all((target >= 0) & (target < len(head))):
        raise ValueError(f"target token ids must lie in [0, {len(head)})")
    if not (np.all(np.isfinite(head)) and np.all(np.isfinite(hidden))):
        raise ValueError("head or hidden holds non-finite values; the checkpoint or its activations are broken")


def _geometry(head: ndarray, probability: ndarray, target: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """d_y (B,S), ‖d_a‖² (B,V) and d_a·d_y (B,V), with d_a = W_a − Σ_j p_j W_j, without a (B,V,S) array."""
    mean_row = probability @ head
    projection = mean_row @ head.T
    mean_norm = (mean_row**2).sum(1, keepdims=True)
    at_target = projection[np.arange(len(target)), target, None]
    distance = np.maximum((head**2).sum(1)[None] - 2 * projection + mean_norm, 0)
    return head[target] - mean_row, distance, head[target] @ head.T - projection - at_target + mean_norm


def one_step(
    head: Float[ndarray, "V S"],
    hidden: Float[ndarray, "B S"],
    target: Int[ndarray, " B"],
    *,
    group_size: int,
    baseline: Baseline = "standardised",
    ddof: int = 1,
    eps: float = 1e-4,
) -> OneStep:
    """Value gradient and the first two moments of the costate at the head's input, no sampling.

    G = p_y d_y, d_a = W_a − Σ_j p_j W_j; λ̂ = Â d_a; E[λ̂|h] = κ_G(p_y) G (eqs. 24-27 and §6 of the paper).

    head: W. hidden: state at the answer position. target: y. Raises ValueError on shapes, ids or non-finite input.
    Ledger: S22, S23, S27.
    """
    _check(head, hidden, target)
    rows = np.arange(len(hidden))
    probability = softmax(hidden @ head.T)
    p = probability[rows, target]
    centred, distance, inner = _geometry(head, probability, target)
    d_y = np.linalg.norm(centred, axis=1)
    signal = p**2 * d_y**2

    won, lost = binary_advantages(group_size, baseline, ddof=ddof, eps=eps)
    weight = others_weight(p, group_size)
    scale = weight @ (won - lost)
    failing = probability.copy()
    failing[rows, target] = 0
    per_sample, second = np.zeros_like(p), np.zeros_like(p)
    for k in range(group_size):
        miss = lost[k] ** 2 * distance - 2 * lost[k] * p[:, None] * inner + signal[:, None]
        off = (failing * np.sqrt(np.maximum(miss, 0))).sum(1)
        per_sample += weight[:, k] * (p * np.abs(won[k] - p) * d_y + off)
        second += weight[:, k] * (p * won[k] ** 2 * d_y**2 + lost[k] ** 2 * (failing * distance).sum(1))
    return OneStep(
        probability=probability,
        success=p,
        value_gradient=p[:, None] * centred,
        scale=scale,
        signal=signal,
        alignment=scale * signal,
        gap_conditional=np.abs(scale - 1) * signal,
        gap_per_sample=p * d_y * per_sample,
        costate_second_moment=second,
    )


def sampled_group_gap(
    head: Float[ndarray, "V S"],
    measured: OneStep,
    target: Int[ndarray, " B"],
    *,
    group_size: int,
    groups: int,
    rng: np.random.Generator,
    baseline: Baseline = "standardised",
    ddof: int = 1,
    eps: float = 1e-4,
) -> Float[ndarray, "B K"]:
    """Λ with the costate averaged over one sampled group, ‖G‖ ‖(1/G) Σ_i λ̂_i − G‖, for K = ``groups`` groups a prompt.

    No closed form: a Monte Carlo reading of §6, reported with its standard error. Ledger: S23.
    """
    cumulative = measured.probability.cumsum(1)
    cumulative /= cumulative[:, -1:]
    mean_row = measured.probability @ head
    norm = np.sqrt(measured.signal)
    out = np.empty((len(target), groups))
    for b, row in enumerate(cumulative):
        action = np.searchsorted(row, rng.random((groups, group_size)), side="right")
        advantage = from_group((action == target[b]).astype(float), baseline, ddof=ddof, eps=eps)
        costate = (advantage[..., None] * (head[action] - mean_row[b])).mean(1)
        out[b] = norm[b] * np.linalg.norm(costate - measured.value_gradient[b], axis=1)
    return out
