"""Σ and Λ of the one-token task under every reading of the costate, in any state, full or restricted vocabulary.

``one_step`` in general form: distances are taken in a state x through the Jacobian of the head's input h, G_x = JᵀG_h,
as a metric M = JJᵀ per prompt; the value gradient is g·d_y (g = p for the reward p, 1 for ln p); the advantage is any
pair of numbers for a right and a wrong token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.impact import binary_advantages, others_weight
from vgrad_lab.one_step import softmax


@dataclass(frozen=True)
class Policy:
    """Next-token probabilities of every prompt over the tokens that may be sampled, and the head's rows of these."""

    head: Float[ndarray, "V S"]
    probability: Float[ndarray, "Q V"]
    target: Int[ndarray, " Q"]
    success: Float[ndarray, " Q"]
    mean_row: Float[ndarray, "Q S"]


@dataclass(frozen=True)
class Geometry:
    """Squared length of d_a = W_a − W̄ for every token, and its product with d_y, in one state; ``length`` is ‖d_y‖."""

    distance: Float[ndarray, "Q V"]
    inner: Float[ndarray, "Q V"]
    length: Float[ndarray, " Q"]


@dataclass(frozen=True)
class Advantages:
    """Advantage of a right and of a wrong sample in each of K cases, with the probability of the case."""

    right: Float[ndarray, "Q K"]
    wrong: Float[ndarray, "Q K"]
    weight: Float[ndarray, "Q K"]


def policy(head: Float[ndarray, "V S"], hidden: Float[ndarray, "Q S"], target: Int[ndarray, " Q"]) -> Policy:
    """Softmax policy of head·hidden. Raises ValueError for non-finite input or a target beyond the head's rows."""
    if not (np.all(np.isfinite(head)) and np.all(np.isfinite(hidden))):
        raise ValueError("head or hidden holds non-finite values; the checkpoint or its activations are broken")
    if not np.all((target >= 0) & (target < len(head))):
        raise ValueError(f"target rows must lie in [0, {len(head)})")
    probability = softmax(hidden @ head.T)
    return Policy(head, probability, target, probability[np.arange(len(target)), target], probability @ head)


def geometry(p: Policy, metric: Float[ndarray, "Q S S"] | None = None) -> Geometry:
    """Lengths and products of the d_a under dᵀ M d, one metric a prompt; without one, the head's input itself.

    d_a·d_b = W_a M W_b − W_a M W̄ − W_b M W̄ + W̄ M W̄ (ledger O5), without a (Q, V, S) array.
    """
    rows, head = np.arange(len(p.target)), p.head
    if metric is None:
        square, to_target = np.tile((head**2).sum(1), (len(rows), 1)), head[p.target] @ head.T
        to_mean, mean = p.mean_row @ head.T, (p.mean_row**2).sum(1)
    else:
        square, to_target, to_mean = (np.empty_like(p.probability) for _ in range(3))
        mean = np.einsum("qs,qst,qt->q", p.mean_row, metric, p.mean_row)
        for q, m in enumerate(metric):
            turned = head @ m
            square[q], to_target[q] = (turned * head).sum(1), turned @ head[p.target[q]]
            to_mean[q] = turned @ p.mean_row[q]
    at = to_mean[rows, p.target, None]
    distance = np.maximum(square - 2 * to_mean + mean[:, None], 0)
    inner = to_target - to_mean - at + mean[:, None]
    d_y = _turned(head[p.target] - p.mean_row, metric)
    for token in (p.probability.argmax(1), p.target):  # near a certain token d is small, and the sums above cancel
        d = head[token] - p.mean_row
        distance[rows, token] = np.maximum((_turned(d, metric) * d).sum(1), 0)
        inner[rows, token] = (d_y * d).sum(1)
    return Geometry(distance, inner, np.sqrt(distance[rows, p.target]))


def _turned(d: Float[ndarray, "Q S"], metric: Float[ndarray, "Q S S"] | None) -> Float[ndarray, "Q S"]:
    return d if metric is None else (metric @ d[:, :, None])[:, :, 0]


def group_advantages(
    success: Float[ndarray, " Q"], group: int, baseline: Baseline, ddof: int, eps: float
) -> Advantages:
    """Advantages of the rewards 1[a = y] in a group, a case for each number of the other samples that are right."""
    won, lost = binary_advantages(group, baseline, ddof=ddof, eps=eps)
    weight = others_weight(success, group)
    return Advantages(np.broadcast_to(won, weight.shape), np.broadcast_to(lost, weight.shape), weight)


def fixed_advantages(right: Float[ndarray, " Q"], wrong: Float[ndarray, " Q"]) -> Advantages:
    """Advantages that do not look at other samples."""
    return Advantages(right[:, None], wrong[:, None], np.ones((len(right), 1)))


def signal(g: Float[ndarray, " Q"], at: Geometry) -> Float[ndarray, " Q"]:
    """‖G‖² of each prompt, G = g·d_y (eq. 26). Ledger: S22."""
    return g * g * at.length**2


def conditional_gap(p: Policy, g: Float[ndarray, " Q"], at: Geometry, a: Advantages) -> Float[ndarray, " Q"]:
    """‖G‖ ‖E[λ̂|h] − G‖ of each prompt (eq. 26): E[λ̂|h] = p E[Â(right) − Â(wrong)] d_y is parallel to G. Ledger: S22."""
    scale = p.success * (a.weight * (a.right - a.wrong)).sum(1)
    return g * np.abs(scale - g) * at.length**2


def sample_gap(p: Policy, g: Float[ndarray, " Q"], at: Geometry, a: Advantages) -> Float[ndarray, " Q"]:
    """‖G‖ E‖λ̂ − G‖ of each prompt over single samples, λ̂ = Â d_a (§6 as written). Ledger: S23."""
    failing = p.probability.copy()
    failing[np.arange(len(p.target)), p.target] = 0
    total = np.zeros(len(g))
    square = signal(g, at)[:, None]
    for k in range(a.weight.shape[1]):
        x = a.wrong[:, k, None]
        miss = np.sqrt(np.maximum(x * (x * at.distance - 2 * g[:, None] * at.inner) + square, 0))
        hit = p.success * np.abs(a.right[:, k] - g) * at.length
        total += a.weight[:, k] * (hit + (failing * miss).sum(1))
    return g * at.length * total


def draw_groups(p: Policy, group: int, groups: int, rng: np.random.Generator) -> Int[ndarray, "Q K G"]:
    """Sampled tokens, ``groups`` groups of ``group`` a prompt."""
    cumulative = p.probability.cumsum(1)
    cumulative /= cumulative[:, -1:]
    return np.stack([np.searchsorted(row, rng.random((groups, group)), side="right") for row in cumulative])


def advantages_of(action: Int[ndarray, "Q K G"], target: Int[ndarray, " Q"], baseline: Baseline, ddof: int, eps: float
                  ) -> Float[ndarray, "Q K G"]:  # fmt: skip
    """Group advantages of the rewards 1[a = y] of sampled groups."""
    reward = (action == target[:, None, None]).astype(float)
    return from_group(reward.reshape(-1, action.shape[2]), baseline, ddof=ddof, eps=eps).reshape(action.shape)


def group_gap(
    p: Policy,
    action: Int[ndarray, "Q K G"],
    advantages: Sequence[tuple[Float[ndarray, " Q"], Float[ndarray, "Q K G"]]],
    metrics: Sequence[Float[ndarray, "Q S S"] | None],
) -> Float[ndarray, "M A Q K"]:
    """‖G‖ ‖mean of λ̂ over a sampled group − G‖ for each state and each (g, Â), from the same draws. Ledger: S23.

    metrics: M of each state, None for the head's input.
    """
    prompts, groups = action.shape[:2]
    out = np.empty((len(metrics), len(advantages), prompts, groups))
    for q in range(prompts):
        rows, centred = p.head[action[q]], p.head[p.target[q]] - p.mean_row[q]
        weight = np.stack([a[q] for _, a in advantages])
        mean = (weight[:, :, None, :] @ rows)[:, :, 0] / action.shape[2] - weight.mean(2)[..., None] * p.mean_row[q]
        value = np.array([g[q] for g, _ in advantages])[:, None] * centred
        for i, metric in enumerate(metrics):
            m = np.eye(len(centred)) if metric is None else metric[q]
            away = mean - value[:, None]
            far = np.sqrt(np.maximum(((away @ m) * away).sum(2), 0))
            out[i, :, q] = np.sqrt(np.maximum(((value @ m) * value).sum(1), 0))[:, None] * far
    return out
