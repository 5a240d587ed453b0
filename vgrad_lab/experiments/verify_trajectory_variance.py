"""Deterministic checks and counterexamples on the variance of response-level gradients (R05.optimal, R07)."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.token_task import TokenTask, fifteen_answers
from vgrad_lab.discrete.token_tree import answer_probability, response_score, token_tree
from vgrad_lab.discrete.trajectory_gradient import (
    best_baseline,
    direction_variance,
    response_advantage,
    theorem_1_weight,
    theorem_2_advantage,
    token_second_moment,
    top_k_probability,
    value_baseline_advantage,
)
from vgrad_lab.experiments.verify_trajectory import FLOOR, of_prefixes, relative, returns, tasks
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA


def variance_rows(task: TokenTask) -> dict[str, Float[ndarray, "B T"]]:
    """Per-token weights of eight unbiased forms of ∇E[RM] (γ = 1), from the least to the most that they know.

    "G_t" and "G_t − E[G_t]" need the hidden token rewards; the mean of the latter is over answers that reach token t.
    """
    tree, logits, reward = task.tree, task.logits, task.reward()
    chance = answer_probability(tree, logits)
    to_go = returns(task, discount=1.0)
    reached = np.maximum(chance @ tree.scored, np.finfo(float).tiny)
    greedy = reward[top_k_probability(tree, logits, k=1).argmax()]
    return {
        "RM": response_advantage(tree, reward),
        "G_t": to_go,
        "RM − E[RM]": response_advantage(tree, reward, baseline=float(chance @ reward)),
        "RM − RM(greedy)": response_advantage(tree, reward, baseline=float(greedy)),
        "G_t − E[G_t]": np.where(tree.scored, to_go - chance @ to_go / reached, 0.0),
        "RM − E[RM|o_<t]": value_baseline_advantage(tree, logits, reward),
        "RM − b*(o_<t)": response_advantage(tree, reward, baseline=best_baseline(tree, logits, reward)),
        "Theorem 2": theorem_2_advantage(tree, logits, reward),
    }


def variances(task: TokenTask) -> dict[str, float]:
    """Trace of the covariance of each form for one answer."""
    return {name: direction_variance(task.tree, task.logits, w) for name, w in variance_rows(task).items()}


def r05_optimal(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[‖g_t‖² (RM − b)²] = E[‖g_t‖² (RM − b*)²] + E[‖g_t‖² (b − b*)²] for every token and random b(o_<t)."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        case = (task.tree, task.logits, task.reward())
        b = of_prefixes(task.tree, rng.normal(size=len(task.tree.prefixes)))
        best = best_baseline(*case)
        weights = (response_advantage(task.tree, case[2], baseline=x) for x in (b, best))
        found, least = (token_second_moment(task.tree, task.logits, w) for w in weights)
        worst = max(worst, relative(least + token_second_moment(task.tree, task.logits, b - best), found))
    return Evidence(worst, ALGEBRA, "relative")


def r05_near_optimal() -> Counterexample:
    """One token of two, π = (.1, .9), rewards 1 and 0: b* leaves no variance, E[RM] leaves 2p(1−p)(1−2p)² = .1152."""
    tree, logits, reward = token_tree(2, 1, end=None), np.log([[0.1, 0.9]]), np.array([1.0, 0.0])
    best = response_advantage(tree, reward, baseline=best_baseline(tree, logits, reward))
    least, found = (direction_variance(tree, logits, w) for w in (best, theorem_2_advantage(tree, logits, reward)))
    return Counterexample(abs(least), found, 0.1, "variance with the best baseline and with Theorem 2's, both exact")


def r07_prompt_baseline() -> Counterexample:
    """Variance with the prompt's mean as baseline: from RM alone, and from the hidden token rewards."""
    found = variances(fifteen_answers())
    detail = f"RM − E[RM] and G_t − E[G_t]; without a baseline {found['RM']:.3f} and {found['G_t']:.3f}"
    return Counterexample(found["RM − E[RM]"], found["G_t − E[G_t]"], 0.5, detail)


def r07_centring() -> Counterexample:
    """Variance of RM g and of (RM − E[RM]) g where every first token is worth 2 more."""
    found = variances(fifteen_answers(first=2.0))
    return Counterexample(found["RM"], found["RM − E[RM]"], 5.0, "trace of the covariance, not centred and centred")


def r07_order(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Var(RM − b) − Var(E[RM|o_≤t] − b) = Σ_t E[Var(RM|o_≤t) ‖g_t‖²] for every b(o_<t), logits of their own."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        case = (task.tree, task.logits, task.reward())
        b = of_prefixes(task.tree, rng.normal(size=len(task.tree.prefixes)))
        mean, sample = theorem_1_weight(*case), response_advantage(task.tree, case[2])
        spread = token_second_moment(task.tree, task.logits, sample - mean).sum()
        more, less = (direction_variance(task.tree, task.logits, w - b) for w in (sample, mean))
        worst = max(worst, abs(more - less - spread) / max(more, FLOOR))
    return Evidence(float(worst), ALGEBRA, "relative to the larger variance")


def r07_constant(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Var(RM − b) = Var(RM) + E‖g‖² (b² − 2 b b°), b° = E[‖g‖² RM]/E‖g‖², for constants b."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        reward, b = task.reward(), float(rng.normal())
        square = (response_score(task.tree, task.logits) ** 2).sum(1) * answer_probability(task.tree, task.logits)
        plain, shifted = (
            direction_variance(task.tree, task.logits, response_advantage(task.tree, reward, baseline=x))
            for x in (0.0, b)
        )
        expected = plain + b * b * square.sum() - 2 * b * square @ reward
        worst = max(worst, abs(shifted - expected) / max(plain, shifted, FLOOR))
    return Evidence(float(worst), ALGEBRA, "relative to the larger variance")
