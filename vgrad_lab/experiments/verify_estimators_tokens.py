"""Evidence and counterexamples for lengths, the U-statistic, baselines and PPO (E07, E08, E09); NumPy only."""

import itertools

import numpy as np
from numpy import ndarray

from vgrad_lab.advantage import group_mean, leave_one_out
from vgrad_lab.discrete.estimator_moments import exact_moments
from vgrad_lab.discrete.estimator_rules import best_constant, length_factor
from vgrad_lab.discrete.estimator_types import Options, Problem
from vgrad_lab.discrete.estimators import ESTIMATORS
from vgrad_lab.discrete.groups import label_groups
from vgrad_lab.discrete.off_policy import off_policy_surrogate
from vgrad_lab.discrete.token_tree import response_score, token_tree
from vgrad_lab.discrete.u_statistic import leave_one_out_variance, pair_kernel
from vgrad_lab.experiments.verify_estimators import (
    deviation,
    draw_problem,
    effective_reward,
    frozen_gradient,
    mean_of,
    mean_reward,
    slopes,
    three_answers,
)
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE
from vgrad_lab.verify import difference_quotients

_EXTRAPOLATED = (8, 16, 32, 64)
_SHARE = "second logit's step over the first's, G = 2"


def e07_length() -> Counterexample:
    """Rewards 0, 0, 1 on the tree of three answers: both logits should move alike; with 1/|o_i| they move as 3 to 2."""
    problem = three_answers((0.0, 0.0, 1.0))
    found = mean_of("sequence_mean", problem, group=2)
    return Counterexample(slopes(problem.gradient), slopes(found), 0.1, _SHARE)


def e07_token_mean() -> Counterexample:
    """The same tree and pairs, with the mean over the tokens of the pair."""
    problem = three_answers((0.0, 0.0, 1.0))
    found = mean_of("token_mean", problem, group=2)
    return Counterexample(slopes(problem.gradient), slopes(found), 0.1, _SHARE)


def e07_effective(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction with 1/|o_i| and the own mean against (G−1)/G Σ_o π (R − J)/|o| g."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem = draw_problem(rng)
        expected = frozen_gradient(problem, (problem.reward - mean_reward(problem)) / problem.tree.length)
        for group in (2, 4):
            found = mean_of("sequence_mean", problem, group=group)
            worst = max(worst, deviation(found, (group - 1) / group * expected))
    return Evidence(worst, ALGEBRA, f"direction − (G−1)/G E[(R − J)/|o| g] over {examples} random trees")


def e07_equal(*, seed: int = 0, examples: int = 20) -> Evidence:
    """On trees without an end token both normalisers against 1/T, with and without the standard deviation."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree = token_tree(2, int(rng.integers(2, 4)), end=None)
        problem = Problem(tree, rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.size))
        for plain, *others in (("group_mean", "sequence_mean", "token_mean"), ("standardised", "grpo", "gspo")):
            expected = mean_of(plain, problem, group=3) / tree.horizon
            worst = max(worst, *(deviation(mean_of(other, problem, group=3), expected) for other in others))
    return Evidence(worst, ALGEBRA, f"1/|o| and token mean against 1/T over {examples} random trees")


def surrogate_slope(problem: Problem, pay: ndarray, *, behaviour: ndarray | None = None) -> ndarray:
    """∂/∂z of GSPO's expected surrogate Σ_o β(o) pay(o) (π(o)/β(o))^{1/|o|}, by difference quotients; β = π if None."""
    shape, old = problem.logits.shape, problem.logits if behaviour is None else behaviour

    def surrogate(rows: ndarray) -> ndarray:
        moved = (z.reshape(shape) for z in rows)
        return np.array([off_policy_surrogate(problem.tree, z, old, pay, ratio="geometric") for z in moved])

    return difference_quotients(surrogate, problem.logits.reshape(1, -1))[0]


def e07_gspo(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Slope at π = π_old of GSPO's surrogate, whose mean over groups pays E[Â_1|o_1], against GRPO's mean direction."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group = draw_problem(rng), int(rng.integers(2, 5))
        slope = surrogate_slope(problem, effective_reward(problem, group=group))
        worst = max(worst, deviation(slope, mean_of("grpo", problem, group=group)))
    return Evidence(worst, QUADRATURE, f"slope of GSPO − GRPO's direction over {examples} random trees")


def first_bias(problem: Problem) -> ndarray:
    """What the bias of the token mean, times G, tends to: Var|o| ∇J/μ³ − E[(R − J)(|o| − μ) g]/μ², μ = E|o|."""
    length = problem.tree.length.astype(float)
    mean = float(problem.probability @ length)
    spread = float(problem.probability @ (length - mean) ** 2)
    crossed = frozen_gradient(problem, (problem.reward - mean_reward(problem)) * (length - mean))
    return problem.gradient * spread / mean**3 - crossed / mean**2


def token_mean_bias(problem: Problem, group: int) -> ndarray:
    """Mean direction of the centred token mean less (1 − 1/G) ∇J/E|o|; no variance, which takes long for many pairs."""
    groups, length = label_groups(problem.probability, group), problem.tree.length
    factor = length_factor("token_mean", length[groups.member], longest=1)
    weight = groups.weight[:, None] * group_mean(problem.reward[groups.member]) * factor / group
    pay = np.bincount(groups.member.ravel(), weight.ravel(), minlength=problem.tree.size)
    found = pay @ response_score(problem.tree, problem.logits)
    return np.asarray(found - (1 - 1 / group) * problem.gradient / float(problem.probability @ length))


def e07_ratio(*, seed: int = 0, examples: int = 20) -> Evidence:
    """G·bias of the token mean, extrapolated from G = 8, 16, 32, 64 to 1/G = 0, against its limit in closed form."""
    rng, worst = np.random.default_rng(seed), 0.0
    node = 1 / np.array(_EXTRAPOLATED)
    weight = [np.prod([y / (y - x) for y in node if y != x]) for x in node]  # Lagrange's, at zero
    for _ in range(examples):
        tree = token_tree(2, 2, end=0)
        problem = Problem(tree, rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.size))
        limit = sum(w * g * token_mean_bias(problem, g) for w, g in zip(weight, _EXTRAPOLATED, strict=True))
        worst = max(worst, deviation(limit, first_bias(problem)))
    return Evidence(worst, PLANTED_FAULT / 10, f"limit of G·bias over {examples} random policies of three answers")


def e08_pointwise(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Leave-one-out direction against the mean of the kernel over pairs, group by group."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group = draw_problem(rng), int(rng.integers(2, 9))
        member = rng.choice(problem.tree.size, size=group, p=problem.probability)
        direct = leave_one_out(problem.reward[member][None])[0] @ response_score(problem.tree, problem.logits)[member]
        pairs = pair_kernel(problem, np.array(list(itertools.combinations(member, 2))))
        worst = max(worst, deviation(direct / group, pairs.mean(0)))
    return Evidence(worst, ALGEBRA, f"leave-one-out − mean over pairs in {examples} random groups")


def mean_squared_error(problem: Problem, group: int) -> float:
    """v/G + 2ζ/(G(G−1)) with v and ζ summed from their definitions over all pairs of answers."""
    p, answer = problem.probability, np.arange(problem.tree.size)
    centred = (problem.reward - mean_reward(problem))[:, None] * response_score(problem.tree, problem.logits)
    v = float(p @ ((centred - problem.gradient) ** 2).sum(1))
    pairs = np.stack(np.meshgrid(answer, answer, indexing="ij"), axis=-1).reshape(-1, 2)
    pair = float(p[pairs].prod(1) @ ((pair_kernel(problem, pairs) - problem.gradient) ** 2).sum(1))
    return v / group + 2 * (pair - v / 2) / (group * (group - 1))


def e08_mse(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Variance of leave-one-out over all groups against v/G + 2ζ/(G(G−1)), and the package's closed form of it."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group = draw_problem(rng), int(rng.integers(2, 5))
        found = exact_moments(ESTIMATORS["rloo"], problem, group=group).variance
        for closed in (mean_squared_error(problem, group), leave_one_out_variance(problem, group)):
            worst = max(worst, deviation(found, closed))
    return Evidence(worst, ALGEBRA, f"E‖ĝ − ∇J‖² − closed form over {examples} random trees")


def constant_variance(problem: Problem, baseline: float) -> float:
    """tr Cov of (R − b) g for one answer."""
    return exact_moments(ESTIMATORS["reinforce"], problem, group=1, options=Options(baseline=baseline)).variance


def coin(success: float) -> Problem:
    """One token of two, the first of which earns 1 with the given probability, the second 0."""
    tree = token_tree(2, 1, end=None)
    return Problem(tree, np.log(np.array([[success, 1 - success]])), np.array([1.0, 0.0]))


def e08_oracle() -> Counterexample:
    """A coin that succeeds 9 times in 10: variance .0018 without a baseline, .1152 with the exact value .9."""
    problem = coin(0.9)
    found = constant_variance(problem, 0.0), constant_variance(problem, mean_reward(problem))
    return Counterexample(*found, 0.1, "variance with the exact value as baseline should be at most that without")


def e08_constant(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Variance at a constant baseline less that at b*, against (b − b*)² E‖g‖²."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, other = draw_problem(rng), float(rng.standard_normal())
        size = float(problem.probability @ (response_score(problem.tree, problem.logits) ** 2).sum(1))
        least = exact_moments(ESTIMATORS["optimal_baseline"], problem, group=1).variance
        expected = (other - best_constant(problem)) ** 2 * size
        worst = max(worst, deviation(constant_variance(problem, other) - least, expected))
    return Evidence(worst, ALGEBRA, f"variance over that of b* − (b − b*)² E‖g‖² over {examples} random trees")


def e09_any_critic(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[Σ_t Â_t g_t] against ∇J: a random critic of the prefix at λ = 1, the exact one at a random λ."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem = draw_problem(rng)
        error = 3 * rng.standard_normal(len(problem.tree.prefixes))
        for options in (Options(critic_error=error), Options(decay=float(rng.uniform()))):
            found = mean_of("ppo", problem, group=1, options=options)
            worst = max(worst, deviation(found, problem.gradient))
    return Evidence(worst, ALGEBRA, f"E[Σ Â g] − ∇J over {examples} random trees")
