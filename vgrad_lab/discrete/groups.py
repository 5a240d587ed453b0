"""Exact expectations over groups of G answers drawn independently, without loops over groups.

Two listings, one sum. Every ordered tuple of answers (B^G of them) takes any rule. Where a rule only reads a label of
each answer, say its reward and length, multisets of labels with multinomial weights do, and a label's answers enter
through their mean direction and mean squared norm; that needs K labels few, not answers few.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from vgrad_lab.simplex import check_simplex

MOST_GROUPS = 2_000_000
"""Largest number of groups that are listed."""
_CHECKED = 256


@dataclass(frozen=True)
class Groups:
    """Groups of G atoms (answers or labels) with the probability of each: rows of ``member`` are groups."""

    member: Int[ndarray, "Q G"]
    weight: Float[ndarray, " Q"]


@dataclass(frozen=True)
class Moments:
    """Mean direction E D, trace of its covariance, and what made them.

    coefficient: E[c_1 | o_1 = o] of every answer, 0 where it has no probability: E D = Σ_o π(o) coefficient(o) u(o).
    kept: the probability of the groups that count.
    """

    mean: Float[ndarray, " P"]
    variance: float
    coefficient: Float[ndarray, " B"]
    kept: float


def _check_probability(probability: ndarray) -> ndarray:
    """``check_simplex`` that takes a single atom too."""
    return check_simplex(np.append(probability, 0.0)[None])[0, :-1]


def _check(count: int, group: int, what: str, remedy: str) -> None:
    if group < 1:
        raise ValueError(f"group is {group}; give at least 1 answer per group")
    if count > MOST_GROUPS:
        raise ValueError(f"{what} make {count:.3g} groups, more than {MOST_GROUPS}; {remedy}")


def all_groups(probability: Float[ndarray, " B"], group: int) -> Groups:
    """Every ordered tuple of ``group`` answers, P(o_1 … o_G) = Π π(o_i).

    Raises ValueError for probabilities that don't sum to 1 and for more than MOST_GROUPS tuples.
    """
    size = len(_check_probability(probability))
    count = size**group if group > 0 else 0
    _check(count, group, f"{size} answers, G = {group},", "label the answers that a rule can't tell apart")
    member = np.stack(np.unravel_index(np.arange(count), (size,) * group), axis=1)
    return Groups(member, probability[member].prod(1))


def label_groups(probability: Float[ndarray, " K"], group: int) -> Groups:
    """Every multiset of ``group`` labels, as a sorted row, with its multinomial probability.

    P(n_1 … n_K) = G!/(Π n_k!) Π q_k^{n_k}. Labels of probability zero are left out.

    Raises ValueError for probabilities that don't sum to 1 and for more than MOST_GROUPS multisets.
    """
    label = np.flatnonzero(_check_probability(probability) > 0)
    size = len(label)
    count = math.comb(group + size - 1, group) if group > 0 else 0
    remedy = "give rewards with fewer distinct values, a smaller group, or a shorter tree"
    _check(count, group, f"{size} labels, G = {group},", remedy)
    member, run = np.arange(size)[:, None], np.ones(size)
    log_weight = log_q = np.log(probability[label])
    for t in range(1, group):
        more = size - member[:, -1]  # the next label is this one or a later one
        row = np.repeat(np.arange(len(member)), more)
        new = member[row, -1] + np.arange(len(row)) - np.repeat(np.cumsum(more) - more, more)
        run = np.where(new == member[row, -1], run[row] + 1, 1.0)
        log_weight = log_weight[row] + log_q[new] + np.log((t + 1) / run)
        member = np.column_stack([member[row], new])
    return Groups(label[member], np.exp(log_weight))


def labels(*columns: Shaped[ndarray, " B"]) -> Int[ndarray, " B"]:
    """Number the answers 0 … K−1 so that two share a label iff they agree in every column, exactly."""
    _, label = np.unique(np.column_stack([np.asarray(c, dtype=float) for c in columns]), axis=0, return_inverse=True)
    return np.asarray(label).reshape(-1)


def group_expectation(
    probability: Float[ndarray, " B"],
    direction: Float[ndarray, "B P"],
    coefficient: Callable[[Int[ndarray, "Q G"]], Float[ndarray, "Q G"]],
    *,
    group: int,
    label: Int[ndarray, " B"] | None = None,
    keep: Callable[[Int[ndarray, "Q G"]], Bool[ndarray, " Q"]] | None = None,
) -> Moments:
    """Exact mean and variance of D = (1/G) Σ_i c_i(o_1 … o_G) u(o_i) over groups of independent answers.

    E D = (1/G) Σ_i E[c_i u(o_i)]; tr Cov D = E‖D‖² − ‖E D‖², with E‖D‖² from the pairs (o_i, o_j).

    probability: π(o). direction: u(o), one row per answer. coefficient: answers (as row numbers) of groups -> c.
    label: answers that the rule can't tell apart; multisets are listed then, else tuples, B^G of them. A rule read
    through labels must not depend on the order of a group. keep: which groups count; the others are drawn again.
    Raises ValueError for bad probabilities, too many groups, shapes that don't fit, a rule that sees more than the
    label or the order, and for no group kept.
    """
    if direction.shape[0] != len(probability):
        raise ValueError(f"direction has {direction.shape[0]} rows, expected one per answer, {len(probability)}")
    if label is None:
        groups, member, share = all_groups(probability, group), None, probability
        mean, square, answers = direction, (direction**2).sum(1), groups.member
    else:
        share, mean, square = _by_label(probability, direction, label)
        groups = label_groups(share, group)
        member = np.array([np.flatnonzero(label == k)[[0, -1]] for k in range(len(share))])
        answers = member[groups.member, 0]
    found = _coefficients(coefficient, answers)
    if member is not None:
        _check_rule(coefficient, found, answers, member[groups.member, 1])
    weight, kept = groups.weight, 1.0
    if keep is not None:
        weight = weight * keep(answers)
        kept = float(weight.sum())
        if not kept > 0:
            raise ValueError("no group is kept: all have probability zero; give rewards that differ between answers")
        weight = weight / kept
    once, variance = _moments(Groups(groups.member, weight), found / group, mean, square)
    conditional = once / np.where(share > 0, share, 1.0)
    return Moments(once @ mean, variance, conditional if label is None else conditional[label], kept)


def _by_label(probability: ndarray, direction: ndarray, label: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Probability, mean direction and mean squared norm of each label."""
    if label.shape != probability.shape:
        raise ValueError(f"label has shape {label.shape}, expected one label per answer, {probability.shape}")
    size = int(label.max()) + 1
    if label.min() < 0 or len(np.unique(label)) != size:
        raise ValueError("labels must be the numbers 0 … K−1, each of them used; see labels()")
    share = np.bincount(label, probability, minlength=size)
    within = probability / np.where(share > 0, share, 1.0)[label]
    mean = np.zeros((size, direction.shape[1]))
    np.add.at(mean, label, within[:, None] * direction)
    return share, mean, np.bincount(label, within * (direction**2).sum(1), minlength=size)


def _coefficients(coefficient: Callable[[ndarray], ndarray], answers: ndarray) -> ndarray:
    found = np.asarray(coefficient(answers), dtype=float)
    if found.shape != answers.shape:
        raise ValueError(f"the coefficients have shape {found.shape}, expected one per member, {answers.shape}")
    if not np.all(np.isfinite(found)):
        raise ValueError("a coefficient is not finite; check rewards and eps")
    return found


def _check_rule(coefficient: Callable[[ndarray], ndarray], found: ndarray, answers: ndarray, others: ndarray) -> None:
    """Raise ValueError where a rule read through labels sees the order of a group or which answer of a label it is."""
    some = np.unique(np.linspace(0, len(answers) - 1, _CHECKED).astype(int))
    scale = 1e-9 * (1 + np.abs(found[some]).max(initial=0.0))
    turned = coefficient(answers[some, ::-1])[:, ::-1]
    if np.abs(turned - found[some]).max(initial=0.0) > scale:
        raise ValueError("the rule depends on the order of a group; leave label out to list every ordered tuple")
    if np.abs(coefficient(others[some]) - found[some]).max(initial=0.0) > scale:
        raise ValueError("the rule tells answers of one label apart; give finer labels, or leave label out")


def _moments(groups: Groups, c: ndarray, mean: ndarray, square: ndarray) -> tuple[ndarray, float]:
    """Σ_i E[c_i 1{member i is the atom}] for every atom, and the variance from the sums over pairs of members."""
    size, member, weight = len(mean), groups.member, groups.weight[:, None]
    once = np.bincount(member.ravel(), (weight * c).ravel(), minlength=size)
    twice = np.bincount(member.ravel(), (weight * c**2).ravel(), minlength=size)
    pairs = np.zeros(size * size)
    for i in range(member.shape[1]):
        for j in range(i):
            weighted = groups.weight * c[:, i] * c[:, j]
            pairs += np.bincount(member[:, i] * size + member[:, j], weighted, minlength=size * size)
    expected = once @ mean
    second = twice @ square + 2 * np.sum(pairs.reshape(size, size) * (mean @ mean.T))
    return once, max(float(second - expected @ expected), 0.0)
