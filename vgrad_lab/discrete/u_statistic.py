"""Leave-one-out as a U-statistic of order two, and its exact variance for any group and any number of answers.

The identity is that of arXiv 2603.01162 (there a bound, known here from a secondary source); the exact form and the
group size of a fixed budget are derived here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.discrete.estimator_types import Problem


@dataclass(frozen=True)
class PairVariance:
    """Traces of covariances: of (R − J) g (the oracle baseline), of h for a pair, and ζ₂ = Var h − Var_oracle/2."""

    oracle: float
    pair: float

    @property
    def second(self) -> float:
        """ζ₂, the part of Var h that the projections of h on one answer leave over."""
        return self.pair - self.oracle / 2


def pair_kernel(problem: Problem, answers: Int[ndarray, "Q 2"]) -> Float[ndarray, "Q P"]:
    """h = ½ (g_1 − g_2)(R_1 − R_2) for pairs of answers; E h = ∇J."""
    score, reward = problem.direction(1.0 * problem.tree.scored), problem.reward
    first, second = answers[:, 0], answers[:, 1]
    return np.asarray((score[first] - score[second]) * (reward[first] - reward[second])[:, None] / 2)


def pair_variance(problem: Problem) -> PairVariance:
    """Var_oracle = tr Cov((R − J) g) and Var h, as sums over answers, not over pairs.

    E‖h‖² = ½ E[(R − J)² ‖g‖²] + ½ Var(R) E‖g‖² + ‖∇J‖². Derived here.
    """
    probability, score = problem.probability, problem.direction(1.0 * problem.tree.scored)
    centred = problem.reward - probability @ problem.reward
    square, mean = (score**2).sum(1), (probability * centred) @ score
    weighted = float((probability * centred**2) @ square)
    spread = float(probability @ centred**2) * float(probability @ square)
    return PairVariance(oracle=weighted - float(mean @ mean), pair=(weighted + spread) / 2)


def leave_one_out_variance(problem: Problem, group: int) -> float:
    """Trace of the covariance of RLOO's direction, exactly.

    tr Cov D = Var_oracle/G + 2 ζ₂/(G(G−1)); also the mean squared error, as E D = ∇J. Derived here (Hoeffding).

    Raises ValueError for G < 2.
    """
    if group < 2:
        raise ValueError(f"leave-one-out needs G ≥ 2 answers per group, got G = {group}")
    found = pair_variance(problem)
    return found.oracle / group + 2 * found.second / (group * (group - 1))


def budget_error(problems: tuple[Problem, ...], *, group: int, budget: float) -> float:
    """Mean squared error of the mean direction of N/G prompts drawn from ``problems``, G answers each, by RLOO.

    (1/N) [G c_1 + c_2 + 2 c_3/(G − 1)]: c_1 the variance of ∇J between prompts, c_2 = E Var_oracle, c_3 = E ζ₂.
    Derived here. Raises ValueError for G < 2, no problem, or a budget below G.
    """
    c1, c2, c3 = budget_constants(problems)
    if group < 2 or not budget >= group:
        raise ValueError(f"a group of {group} within a budget of {budget} answers; give 2 ≤ G ≤ N")
    return (group * c1 + c2 + 2 * c3 / (group - 1)) / budget


def budget_constants(problems: tuple[Problem, ...]) -> tuple[float, float, float]:
    """c_1, c_2, c_3 of ``budget_error``; prompts are equally likely and share their parameters."""
    if not problems or len({p.gradient.shape for p in problems}) != 1:
        raise ValueError("give at least one problem, all with the same number of parameters")
    gradients = np.stack([p.gradient for p in problems])
    parts = [pair_variance(p) for p in problems]
    between = float(((gradients - gradients.mean(0)) ** 2).sum(1).mean())
    return between, float(np.mean([v.oracle for v in parts])), float(np.mean([v.second for v in parts]))


def best_group_size(problems: tuple[Problem, ...]) -> float:
    """The real G of least error on any fixed budget, G* = 1 + √(2 c_3/c_1), whatever N; infinite where c_1 = 0.

    At least 2 in practice: the error is convex in G. Derived here; the source's law, √(c_3/c_1) of its bound, has no
    part of N either.
    """
    c1, _, c3 = budget_constants(problems)
    return float("inf") if c1 == 0 else 1 + float(np.sqrt(2 * c3 / c1))
