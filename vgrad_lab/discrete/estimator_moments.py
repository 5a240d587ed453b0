"""Exact mean and variance of an estimator's direction, and how they stand to ∇J."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem, Verdict
from vgrad_lab.discrete.estimators import (
    expected_scale,
    sample_coefficient,
    token_advantage,
    token_factor,
    verdict,
)
from vgrad_lab.discrete.groups import Moments, all_groups, group_expectation, labels
from vgrad_lab.tolerances import ALGEBRA

_CHUNK = 2_000_000


def exact_moments(
    estimator: Estimator,
    problem: Problem,
    *,
    group: int,
    options: Options | None = None,
    tuples: bool = False,
) -> Moments:
    """Mean direction and trace of its covariance for one group of G independent on-policy answers, exactly.

    Independent samples: sums over answers and over what else is drawn (``sets``). Groups: multisets of the labels
    (reward, |o|), see ``groups``. Whitened estimators: every ordered tuple of answers through ``token_advantage``; all
    others too with ``tuples``, but for sets.

    Raises ValueError for G too small for the estimator and where there are too many groups to list.
    """
    expected_scale(estimator, problem, group=group, options=options)  # its refusals
    if estimator.whitened or (tuples and estimator.sets is None):
        return _by_tuples(estimator, problem, group, options)
    direction = problem.direction(token_factor(estimator, problem, options=options))
    tree, reward = problem.tree, problem.reward

    def coefficient(answers: Int[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
        return sample_coefficient(estimator, problem, answers, options=options)

    if estimator.independent:
        alone = coefficient(np.arange(tree.size)[:, None])[:, 0]
        mean = (problem.probability * alone) @ direction
        spread = problem.probability @ ((alone[:, None] * direction - mean) ** 2).sum(1)
        if estimator.sets is not None:
            spread += _within_sets(estimator, problem, alone, options)
        return Moments(mean, float(spread) / group, alone, 1.0)
    by_length = estimator.aggregation in ("sequence_mean", "token_mean")
    return group_expectation(
        problem.probability,
        direction,
        coefficient,
        group=group,
        label=labels(reward, tree.length) if by_length else labels(reward),
        keep=(lambda answers: _mixed(reward[answers])) if estimator.mixed_only else None,
    )


def _within_sets(estimator: Estimator, problem: Problem, alone: ndarray, options: Options | None) -> float:
    """Variance of one sample's direction that the choices of ``sets`` add, given the answer."""
    assert estimator.sets is not None
    chance, weight = estimator.sets(problem, estimator.defaults if options is None else options)
    off = (weight - np.einsum("kb,kbt->bt", chance, weight)) * alone[:, None]
    return sum(
        float((problem.probability * p) @ (problem.direction(w) ** 2).sum(1)) for p, w in zip(chance, off, strict=True)
    )


def _mixed(reward: Float[ndarray, "Q G"]) -> ndarray:
    return np.asarray(reward.max(1) > reward.min(1))


def _by_tuples(estimator: Estimator, problem: Problem, group: int, options: Options | None) -> Moments:
    """Every ordered tuple through the per-sample output; no formula of the estimator enters."""
    tree, listed = problem.tree, all_groups(problem.probability, group)
    weight = listed.weight * (_mixed(problem.reward[listed.member]) if estimator.mixed_only else 1.0)
    kept = float(weight.sum())
    unit = np.eye(tree.horizon) * 1.0
    score = np.stack([problem.direction(tree.scored * row) for row in unit], axis=1).reshape(
        tree.size * tree.horizon, -1
    )
    mean, second, once = np.zeros(score.shape[1]), 0.0, np.zeros(tree.size)
    step = max(1, _CHUNK // (tree.size * tree.horizon))
    for start in range(0, len(weight), step):
        member, share = listed.member[start : start + step], weight[start : start + step] / kept
        found = token_advantage(estimator, problem, member, options=options) / group
        placed = np.zeros((len(member), tree.size, tree.horizon))
        for i in range(group):
            placed[np.arange(len(member)), member[:, i]] += found[:, i]
        direction = placed.reshape(len(member), -1) @ score
        mean += share @ direction
        second += float(share @ (direction**2).sum(1))
        once += np.bincount(member.ravel(), (share[:, None] * found[:, :, 0]).ravel(), minlength=tree.size)
    coefficient = once / np.where(problem.probability > 0, problem.probability, 1.0)
    return Moments(mean, max(second - float(mean @ mean), 0.0), coefficient, kept)


@dataclass(frozen=True)
class Row:
    """One line of the table: exact expectation and variance against ∇J.

    scale: c = ⟨E D, ∇J⟩/‖∇J‖². cosine: of E D and ∇J. residual: ‖E D − c∇J‖/‖E D‖, 0 for a right direction.
    bias: ‖E D − ∇J‖/‖∇J‖. variance: tr Cov D of one group. rescaled: variance/c², that of D/c. expected: the closed
    form of c, None where there is none. Numbers that are undefined (∇J = 0 or E D = 0) are NaN.
    """

    name: str
    scale: float
    cosine: float
    residual: float
    bias: float
    variance: float
    rescaled: float
    expected: float | None
    verdict: Verdict


def row(estimator: Estimator, problem: Problem, *, group: int, options: Options | None = None) -> Row:
    """The estimator's line of the table for one problem; raises ValueError as ``exact_moments``."""
    found = exact_moments(estimator, problem, group=group, options=options)
    gradient = problem.gradient
    square, norm = float(gradient @ gradient), float(np.linalg.norm(found.mean))
    along = float(found.mean @ gradient)
    scale = along / square if square > 0 else float("nan")
    return Row(
        name=estimator.name,
        scale=scale,
        cosine=along / (norm * math.sqrt(square)) if norm * square > 0 else float("nan"),
        residual=float(np.linalg.norm(found.mean - scale * gradient)) / norm if norm > 0 else float("nan"),
        bias=float(np.linalg.norm(found.mean - gradient)) / math.sqrt(square) if square > 0 else float("nan"),
        variance=found.variance,
        rescaled=found.variance / scale / scale if scale != 0 else float("nan"),
        expected=expected_scale(estimator, problem, group=group, options=options),
        verdict=verdict(estimator, problem, group=group, options=options),
    )


def check_estimator(estimator: Estimator, problem: Problem, *, group: int, options: Options | None = None) -> Moments:
    """The exact moments, or AssertionError where the mean is not the c ∇J that ``expected_scale`` claims.

    Asserts ‖E D − c∇J‖ ≤ 1e-12 (1 + max|R|/(max R − min R)) √E‖D‖², the bracket for rewards far from zero; nothing
    where no c is claimed. A reader's own estimator is checked like those of the package. Raises ValueError as
    ``exact_moments``.
    """
    found = exact_moments(estimator, problem, group=group, options=options)
    scale = expected_scale(estimator, problem, group=group, options=options)
    if scale is None:
        return found
    error = float(np.linalg.norm(found.mean - scale * problem.gradient))
    length, reward = math.sqrt(found.variance + float(found.mean @ found.mean)), problem.reward
    condition = 1 + float(np.abs(reward).max() / (np.ptp(reward) or np.inf))
    assert error <= ALGEBRA * condition * length, (
        f"{estimator.name} claims E D = {scale:.6g} ∇J at G = {group}, but misses it by {error:.3g}, where ‖∇J‖ is "
        f"{float(np.linalg.norm(problem.gradient)):.3g}; it is biased, or its verdict is wrong"
    )
    return found
