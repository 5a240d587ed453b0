"""Exact mean and variance of any estimator's direction when its answers come from an older policy."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem
from vgrad_lab.discrete.estimators import sample_coefficient, token_factor
from vgrad_lab.discrete.groups import all_groups
from vgrad_lab.discrete.off_policy import Clip, Ratio, importance_ratio, kept
from vgrad_lab.tolerances import ALGEBRA

_CHUNK = 4_000_000


@dataclass(frozen=True)
class Compared:
    """A direction's exact mean and variance against a true gradient t.

    scale: ⟨mean, t⟩/‖t‖². cosine: of mean and t. error: ‖mean − t‖/‖t‖. bend: ‖mean − scale·t‖/‖mean‖, what no learning
    rate absorbs. variance: trace of the covariance. NaN where t is zero, or the mean but for rounding.
    """

    scale: float
    cosine: float
    error: float
    bend: float
    variance: float


def compared(mean: Float[ndarray, " P"], truth: Float[ndarray, " P"], variance: float) -> Compared:
    """How a mean direction stands to the true one; raises ValueError for other lengths."""
    if mean.shape != truth.shape:
        raise ValueError(f"mean has shape {mean.shape} and the true gradient {truth.shape}; they must be equal")
    size, norm = float(np.linalg.norm(truth)), float(np.linalg.norm(mean))
    if size == 0:
        return Compared(math.nan, math.nan, math.nan, math.nan, variance)
    scale, zero = float(mean @ truth) / size**2, norm <= ALGEBRA * math.sqrt(variance + size**2)
    return Compared(
        scale=scale,
        cosine=math.nan if zero else scale * size / norm,
        error=float(np.linalg.norm(mean - truth)) / size,
        bend=math.nan if zero else float(np.linalg.norm(mean - scale * truth)) / norm,
        variance=variance,
    )


def off_policy_moments(
    estimator: Estimator,
    problem: Problem,
    logits: Float[ndarray, "N V"],
    *,
    group: int,
    ratio: Ratio = "token",
    clip: Clip | None = None,
    most: float | None = None,
    options: Options | None = None,
) -> tuple[Float[ndarray, " P"], float]:
    """Mean direction at π and trace of its covariance, for one group of G answers of the problem's policy β.

    D = (1/G) Σ_i Σ_t w_{i,t} ρ_{i,t} 1[kept] g_{i,t}, w the estimator's ``token_advantage``, g the score of π; what is
    kept depends on the sign of w, and so on the group. By every ordered group (every answer, for estimators of single
    samples).

    problem: with the logits of β, whose answers are rewarded. logits: of π. most: take min(ρ, most) as data, leaving
    nothing out (CISPO). Raises ValueError for whitened estimators and those with ``sets``, clip and most at once,
    G < 1, and too many groups to list. Ledger: K05, K06, K07, K08.
    """
    if estimator.whitened or estimator.sets is not None:
        raise ValueError(f"{estimator.name} is whitened or draws more than answers; take one that is and does neither")
    if clip is not None and (most is not None):
        raise ValueError("clip leaves tokens out and most bounds their weight; give one of the two")
    tree, factor = problem.tree, token_factor(estimator, problem, options=options)
    rho = importance_ratio(tree, logits, problem.logits, ratio)
    weight = rho if most is None else np.minimum(rho, most)
    present = replace(problem, logits=logits)
    for_sign = [present.direction(factor * weight * kept(rho, sign * factor, clip) * tree.scored) for sign in (1, -1)]
    listed = all_groups(problem.probability, 1 if estimator.independent else group)
    mean, second = np.zeros(for_sign[0].shape[1]), 0.0
    step = max(1, _CHUNK // (len(mean) * listed.member.shape[1]))
    for start in range(0, len(listed.weight), step):
        member, share = listed.member[start : start + step], listed.weight[start : start + step]
        c = sample_coefficient(estimator, problem, member, options=options) / member.shape[1]
        up, down = (
            np.einsum("qg,qgp->qp", np.clip(s * c, 0, None), d[member]) for s, d in zip((1, -1), for_sign, strict=True)
        )
        mean += share @ (up - down)
        second += float(share @ ((up - down) ** 2).sum(1))
    variance = max(second - float(mean @ mean), 0.0)
    return mean, variance / group if estimator.independent else variance
