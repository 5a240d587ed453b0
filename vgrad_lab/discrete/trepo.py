"""Readings of TRePO (arXiv 2506.02553) and VinePPO on a token tree: rollouts at chosen positions, exactly.

The source says that both terms of Theorem 2 are estimated by rollouts at a few random positions and that advantages
between them are interpolated, and gives no formula; the readings are this project's. Node j of an answer stands before
its token j; the value of the last node is the reward itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from vgrad_lab.discrete.token_tree import (
    MOST_NUMBERS,
    TokenTree,
    answer_probability,
    check_reward,
    conditional_value,
    weighted_response_score,
)


@dataclass(frozen=True)
class Anchors:
    """Sets of positions at which values are estimated, with the probability of each set given each answer.

    chosen: set, answer, token; True at chosen tokens, only drawn ones. probability: set, answer; sums to 1 over sets.
    A chosen token t has its own advantage (anchors_ht, adv_interp), or starts a segment (value_interp, segment).
    Raises ValueError for shapes that don't fit and probabilities that don't sum to 1.
    """

    chosen: Bool[ndarray, "K B T"]
    probability: Float[ndarray, "K B"]

    def __post_init__(self) -> None:
        if self.probability.shape != self.chosen.shape[:2]:
            raise ValueError(
                f"probability has shape {self.probability.shape}; give one per set and answer, {self.chosen.shape[:2]}"
            )
        if self.probability.min() < 0 or np.abs(self.probability.sum(0) - 1).max() > 1e-9:
            raise ValueError("probabilities of the sets must be non-negative and sum to 1 for every answer")

    @property
    def inclusion(self) -> Float[ndarray, "B T"]:
        """P(token t is chosen | answer)."""
        return np.einsum("kb,kbt->bt", self.probability, self.chosen)


def _subsets(tree: TokenTree) -> Bool[ndarray, "K T"]:
    count = 2**tree.horizon
    if count * tree.tokens.size > MOST_NUMBERS:
        raise ValueError(f"{count} sets of positions on {tree.size} answers are too many; give a shorter horizon")
    return (np.arange(count)[:, None] >> np.arange(tree.horizon)) % 2 == 1


def independent_anchors(tree: TokenTree, *, keep: float | Float[ndarray, " T"]) -> Anchors:
    """Every position is kept with probability ``keep``, drawn before the answer and cut at its end.

    keep: one number or one per position. Raises ValueError outside [0, 1] and for too many sets.
    """
    if np.shape(keep) not in ((), (tree.horizon,)):
        raise ValueError(f"keep has shape {np.shape(keep)}; give one number or one per position, ({tree.horizon},)")
    chance = np.broadcast_to(np.asarray(keep, dtype=float), (tree.horizon,))
    if not np.all((chance >= 0) & (chance <= 1)):
        raise ValueError(f"keep must lie in [0, 1], got {keep}")
    subset = _subsets(tree)
    weight = np.where(subset, chance, 1 - chance).prod(1)
    return Anchors(subset[:, None] & tree.scored, np.repeat(weight[:, None], tree.size, axis=1))


def anchors_of_length(tree: TokenTree, *, count: int) -> Anchors:
    """min(count, |o|) of the |o| positions of each answer, all subsets alike: they look at the realised length.

    Raises ValueError for count < 1 and for too many sets.
    """
    if count < 1:
        raise ValueError(f"count is {count}; choose at least 1 position")
    subset, length = _subsets(tree), tree.length
    inside = np.all(~subset[:, None] | tree.scored, axis=2) & (subset.sum(1)[:, None] == np.minimum(count, length))
    ways = np.array([comb(int(n), min(count, int(n))) for n in length])
    return Anchors(subset[:, None] & tree.scored, inside / ways)


def one_set(tree: TokenTree, chosen: Bool[ndarray, "B T"]) -> Anchors:
    """A single set of positions for each answer, by rule; raises ValueError when it doesn't fit the tree."""
    _check_positions(tree, chosen)
    return Anchors((chosen & tree.scored)[None], np.ones((1, tree.size)))


def _check_positions(tree: TokenTree, chosen: Bool[ndarray, "B T"]) -> None:
    if np.shape(chosen) != tree.tokens.shape:
        raise ValueError(f"positions have shape {np.shape(chosen)}; give a truth value per token, {tree.tokens.shape}")


def steps_after(tree: TokenTree, token: int) -> Bool[ndarray, "B T"]:
    """Positions at which a reasoning step starts: the first, and each one after ``token`` (a newline)."""
    if not 0 <= token < tree.vocab:
        raise ValueError(f"token is {token}; give one in 0 … {tree.vocab - 1}")
    return tree.scored & np.column_stack([np.ones(tree.size, dtype=bool), tree.tokens[:, :-1] == token])


def reads_the_past_alone(tree: TokenTree, chosen: Bool[ndarray, "B T"]) -> bool:
    """True when position t is chosen by o_<t alone: then the boundaries are stopping times."""
    _check_positions(tree, chosen)
    count = np.bincount(tree.node[tree.scored], minlength=len(tree.prefixes))
    taken = np.bincount(tree.node[tree.scored & chosen], minlength=len(tree.prefixes))
    return bool(np.all((taken == 0) | (taken == count)))


def _neighbours(known: Bool[ndarray, "K B T"]) -> tuple[ndarray, ndarray]:
    """Nearest known position at or before each one (−1: none) and at or after it (the number of positions: none)."""
    size = known.shape[2]
    position = np.arange(size)
    left = np.maximum.accumulate(np.where(known, position, -1), axis=2)
    right = np.minimum.accumulate(np.where(known, position, size)[..., ::-1], axis=2)[..., ::-1]
    return left, right


def _take(values: Float[ndarray, "B _"], index: Int[ndarray, "K B T"]) -> Float[ndarray, "K B T"]:
    return values[np.arange(len(values))[:, None], index]


def _anchors_ht(advantage: Float[ndarray, "B T"], anchors: Anchors) -> Float[ndarray, "K B T"]:
    inclusion = anchors.inclusion
    return anchors.chosen * (advantage / np.where(inclusion > 0, inclusion, 1.0))


def _adv_interp(advantage: Float[ndarray, "B T"], anchors: Anchors) -> Float[ndarray, "K B T"]:
    left, right = _neighbours(anchors.chosen)
    none = (left < 0) & (right >= advantage.shape[1])
    left = np.where(left < 0, right, left)
    right = np.where(right >= advantage.shape[1], left, right)
    left, right = (np.where(none, 0, side) for side in (left, right))
    share = (np.arange(advantage.shape[1]) - left) / np.maximum(right - left, 1)
    found = (1 - share) * _take(advantage, left) + share * _take(advantage, right)
    return np.where(none, 0.0, np.where(left == right, _take(advantage, left), found))


def anchors_ht(
    tree: TokenTree, value: Float[ndarray, "B T1"], anchors: Anchors
) -> Float[ndarray, "K B T"]:  # fmt: skip
    """Chosen tokens alone, over their inclusion probability (Horvitz–Thompson): A_t 1[t ∈ S] / P(t ∈ S | o)."""
    return _anchors_ht(_differences(tree, value), anchors)


def adv_interp(
    tree: TokenTree, value: Float[ndarray, "B T1"], anchors: Anchors
) -> Float[ndarray, "K B T"]:  # fmt: skip
    """Advantages at chosen tokens, linear between them and constant outside; 0 where none is chosen."""
    return np.where(tree.scored, _adv_interp(_differences(tree, value), anchors), 0.0)


def _differences(tree: TokenTree, value: Float[ndarray, "B T1"]) -> Float[ndarray, "B T"]:
    if value.shape != (tree.size, tree.horizon + 1):
        raise ValueError(f"value has shape {value.shape}; give one per node, {(tree.size, tree.horizon + 1)}")
    if not np.all(np.isfinite(value)):
        raise ValueError("value holds NaN or infinite values; give finite numbers, the reward itself after the end")
    return np.where(tree.scored, np.diff(value, axis=1), 0.0)


def _known_nodes(tree: TokenTree, anchors: Anchors) -> tuple[ndarray, ndarray]:
    """Nearest nodes with a value: the first, the chosen and the last one of the answer."""
    node = np.arange(tree.horizon + 1)
    ends = (node == 0) | (node >= tree.length[:, None])
    return _neighbours(np.pad(anchors.chosen, ((0, 0), (0, 0), (0, 1))) | ends)


def value_interp(
    tree: TokenTree, value: Float[ndarray, "B T1"], anchors: Anchors
) -> Float[ndarray, "K B T"]:  # fmt: skip
    """Values at the first, the chosen and the last node, linear between them; A_t = v_{t+1} − v_t."""
    return segment(tree, value, anchors) / np.maximum(segment_length(tree, anchors), 1)


def segment(tree: TokenTree, value: Float[ndarray, "B T1"], anchors: Anchors) -> Float[ndarray, "K B T"]:
    """VinePPO: v(end of the segment) − v(its start), undivided, on each of its tokens; chosen tokens start segments."""
    _differences(tree, value)
    left, right = _known_nodes(tree, anchors)
    found = _take(value, right[..., 1:]) - _take(value, left[..., :-1])
    return np.where(tree.scored, found, 0.0)


def segment_length(tree: TokenTree, anchors: Anchors) -> Float[ndarray, "K B T"]:
    """Number of tokens of the segment that each token belongs to; 0 after the end."""
    left, right = _known_nodes(tree, anchors)
    return np.where(tree.scored, right[..., 1:] - left[..., :-1], 0).astype(float)


Reading = Callable[[TokenTree, Float[ndarray, "B T1"], Anchors], Float[ndarray, "K B T"]]
READINGS: dict[str, Reading] = {
    "anchors_ht": anchors_ht,
    "adv_interp": adv_interp,
    "value_interp": value_interp,
    "segment": segment,
}
"""From values at all nodes to advantages, one set of positions at a time; all are linear in the values."""


def expected_advantage(anchors: Anchors, advantage: Float[ndarray, "K B T"]) -> Float[ndarray, "B T"]:
    """Mean over the sets given the answer: with ``mean_direction`` the mean direction."""
    return np.einsum("kb,kbt->bt", anchors.probability, advantage)


def anchored_second_moment(
    tree: TokenTree, logits: Float[ndarray, "N V"], anchors: Anchors, advantage: Float[ndarray, "K B T"]
) -> float:
    """E‖Σ_t A_t g_t‖² over answers and sets; less the squared norm of the mean it is the variance (the trace)."""
    chance = answer_probability(tree, logits) * anchors.probability
    norms = [(weighted_response_score(tree, logits, one) ** 2).sum(1) for one in advantage]
    return float((chance * np.stack(norms)).sum())


def rollout_moment(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    reward: Float[ndarray, " B"],
    anchors: Anchors,
    *,
    reading: str,
    rollouts: int,
    shared: bool = True,
) -> float:
    """What K fresh rollouts per value add to the second moment, and so to the variance: exactly c/K.

    E Σ_j (s_j²/K) ‖Σ_t (∂A_t/∂v_j) g_t‖², s_j² = Var(R | o_<j); the last value is the reward and adds nothing.

    shared: one estimate of v_j for token j−1 and token j; False: Q_t and V_t from rollouts of their own (readings of
    advantages only). Raises ValueError for an unknown reading, K < 1, and value readings that don't share.
    """
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; choose one of {', '.join(READINGS)}")
    if rollouts < 1:
        raise ValueError(f"rollouts is {rollouts}; give at least 1 per value")
    if not shared and reading in ("value_interp", "segment"):
        raise ValueError(f"{reading} reads each value once; only readings of advantages can take separate rollouts")
    centred = check_reward(tree, reward) - float(answer_probability(tree, logits) @ reward)
    mean = conditional_value(tree, logits, centred)
    spread = np.maximum(conditional_value(tree, logits, centred**2) - mean**2, 0.0)[:, :-1] * tree.scored
    after = np.pad(spread[:, 1:], ((0, 0), (0, 1)))
    own = {"anchors_ht": _anchors_ht, "adv_interp": _adv_interp}
    total = 0.0
    for j in range(tree.horizon):
        unit = np.zeros((tree.size, tree.horizon + 1))
        unit[:, j] = np.sqrt(spread[:, j] if shared else spread[:, j] + after[:, j])
        parts = READINGS[reading](tree, unit, anchors) if shared else own[reading](unit[:, :-1], anchors) * tree.scored
        total += anchored_second_moment(tree, logits, anchors, parts)
    return total / rollouts


def vine_advantage(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    reward: Float[ndarray, " B"],
    starts: Bool[ndarray, "B T"],
    *,
    most_steps: int | None = None,
) -> Float[ndarray, "B T"]:
    """VinePPO with exact values: v(end of the step) − v(its start) on each of its tokens.

    starts: where steps begin (``steps_after``), the first token always. most_steps: values of later steps are the
    reward itself, as in the authors' code (their default is 20): those steps have advantage 0. Ledger: R08.limit.
    """
    _check_positions(tree, starts)
    value = conditional_value(tree, logits, reward)
    if most_steps is not None:
        if most_steps < 1:
            raise ValueError(f"most_steps is {most_steps}; estimate the value of at least 1 step")
        begun = np.pad(starts & tree.scored, ((0, 0), (0, 1)))
        begun[:, 0] = True
        value = np.where(begun.cumsum(1) > most_steps, reward[:, None], value)
    return segment(tree, value, one_set(tree, starts))[0]
