"""Evidence and counterexamples for group baselines and the group's standard deviation (E05, E06); NumPy only."""

import numpy as np
from numpy import ndarray

from vgrad_lab.advantage import group_standardised
from vgrad_lab.discrete.estimator_moments import exact_moments
from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem
from vgrad_lab.discrete.estimators import ESTIMATORS
from vgrad_lab.discrete.groups import label_groups
from vgrad_lab.discrete.token_tree import reward_of, token_tree, weighted_score
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA

TREES: tuple[tuple[int, int, int | None], ...] = ((2, 2, 0), (3, 2, 0), (2, 3, 1), (3, 3, 0), (2, 3, None), (2, 4, 0))
"""Vocabulary, horizon and end token of the trees that the checks draw."""
MIXED_ROWS = Estimator(
    "mixed_rloo", "leave-one-out, groups of equal rewards drawn again", "derived here", "biased",
    group="leave_one_out", mixed_only=True,
)  # fmt: skip


def draw_problem(rng: np.random.Generator, *, binary: bool = False) -> Problem:
    """A random tree and policy; rewards are standard normal, or 0 and 1 with at least one of each."""
    vocab, horizon, end = TREES[int(rng.integers(len(TREES)))]
    tree = token_tree(vocab, horizon, end=end)
    reward = rng.standard_normal(tree.size)
    if binary:
        reward = (reward > np.sort(reward)[int(rng.integers(tree.size - 1))]).astype(float)
    return Problem(tree, rng.standard_normal(tree.logits_shape), reward)


def three_answers(reward: tuple[float, float, float]) -> Problem:
    """Two tokens, two steps, token 0 ends: answers (0), (1, 0), (1, 1) with probabilities ½, ¼, ¼."""
    tree = token_tree(2, 2, end=0)
    by_answer = dict(zip(((0,), (1, 0), (1, 1)), reward, strict=True))
    return Problem(tree, np.zeros(tree.logits_shape), reward_of(tree, by_answer.__getitem__))


def mean_reward(problem: Problem) -> float:
    """J, for binary rewards the success probability."""
    return float(problem.probability @ problem.reward)


def mean_of(name: str | Estimator, problem: Problem, *, group: int, options: Options | None = None) -> ndarray:
    """E D of an estimator, of the package by its name."""
    estimator = ESTIMATORS[name] if isinstance(name, str) else name
    return exact_moments(estimator, problem, group=group, options=options).mean


def frozen_gradient(problem: Problem, pay: ndarray) -> ndarray:
    """Σ_o π(o) pay(o) g(o): the policy gradient of a reward that is held fixed."""
    weight = (problem.probability * pay)[:, None] * problem.tree.scored
    return weighted_score(problem.tree, problem.logits, weight)


def deviation(found: ndarray | float, expected: ndarray | float) -> float:
    """Largest difference, relative to the largest expected number or to 0.01 if that is larger."""
    size = max(1e-2, float(np.max(np.abs(expected))))
    return float(np.max(np.abs(np.asarray(found) - np.asarray(expected)))) / size


def bend(found: ndarray, truth: ndarray) -> float:
    """Share of a direction that is not along the true one: ‖v − (v·t)t/‖t‖²‖/‖v‖, the sine of their angle."""
    along = truth * (found @ truth) / (truth @ truth)
    return float(np.linalg.norm(found - along) / np.linalg.norm(found))


def e05_leave_one_out(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction of leave-one-out over all groups against ∇J."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem = draw_problem(rng)
        found = mean_of("rloo", problem, group=int(rng.integers(2, 5)))
        worst = max(worst, deviation(found, problem.gradient))
    return Evidence(worst, ALGEBRA, f"E[leave-one-out direction] − ∇J over {examples} random trees")


def e05_own_mean(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction with the group's own mean, and with Dr. GRPO's constant length, against the factors."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group, longest = draw_problem(rng), int(rng.integers(2, 5)), int(rng.integers(1, 9))
        expected = (group - 1) / group * problem.gradient
        worst = max(worst, deviation(mean_of("group_mean", problem, group=group), expected))
        found = mean_of("dr_grpo", problem, group=group, options=Options(longest=longest))
        worst = max(worst, deviation(found, expected / longest))
    return Evidence(worst, ALGEBRA, f"(G−1)/G and (G−1)/(G L), over {examples} random trees")


def e05_greedy(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[(R − R(greedy)) g], and with another constant, against ∇J."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem = draw_problem(rng)
        other = mean_of("reinforce", problem, group=1, options=Options(baseline=float(rng.normal())))
        for found in (mean_of("remax", problem, group=1), other):
            worst = max(worst, deviation(found, problem.gradient))
    return Evidence(worst, ALGEBRA, f"E[(R − R(greedy)) g] − ∇J over {examples} random trees")


def slopes(direction: ndarray) -> float:
    """On the tree of three answers: the step of the second token's logit over that of the first's."""
    return float(direction[3] / direction[1])


def e06_real_reward() -> Counterexample:
    """Rewards 0, 1, 10, pairs: parallel to ∇J the two logits would move as 9 to 11; they move as 1 to 4."""
    problem = three_answers((0.0, 1.0, 10.0))
    found = mean_of("standardised", problem, group=2)
    detail = "second logit's step over the first's, G = 2"
    return Counterexample(slopes(problem.gradient), slopes(found), 0.5, detail)


def effective_reward(problem: Problem, *, group: int, ddof: int = 1, eps: float = 0.0) -> ndarray:
    """w(R) = E[Â_1 | R_1 = R] of every answer, over the rewards of the G − 1 others; one number per answer."""
    value, index = np.unique(problem.reward, return_inverse=True)
    others = label_groups(np.bincount(index, problem.probability), group - 1)
    shape = (len(value), len(others.weight))
    own = np.broadcast_to(value[:, None, None], (*shape, 1))
    rest = np.broadcast_to(value[others.member], (*shape, group - 1))
    full = np.concatenate([own, rest], axis=2).reshape(-1, group)
    advantage = group_standardised(full, ddof=ddof, eps=eps)[:, 0].reshape(shape)
    return np.asarray((advantage @ others.weight)[index])


def e06_effective(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction against Σ_o π w(R) g; w nondecreasing, of mean zero."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group = draw_problem(rng), int(rng.integers(2, 5))
        ddof, eps = int(rng.integers(2)), float(rng.choice([0.0, 1e-4, 0.3]))
        w = effective_reward(problem, group=group, ddof=ddof, eps=eps)
        found = mean_of("standardised", problem, group=group, options=Options(ddof=ddof, eps=eps))
        ordered = w[np.argsort(problem.reward)]
        worst = max(worst, deviation(found, frozen_gradient(problem, w)), abs(float(problem.probability @ w)))
        worst = max(worst, float(np.max(ordered[:-1] - ordered[1:])))
    return Evidence(worst, ALGEBRA, f"direction − Σ π w g, E w, and any fall of w, over {examples} random trees")


def binary_scale(p: float, group: int, *, ddof: int = 1, eps: float = 0.0) -> float:
    """w_G(p), the factor of GRPO's standardised direction for rewards 0 and 1, by the sum over the others' successes.

    Σ_k C(G−1,k) p^k (1−p)^{G−1−k} [(1−(k+1)/G)/(s(k+1)+ε) + (k/G)/(s(k)+ε)], terms with s = 0 left out.
    """
    from scipy.stats import binom

    k = np.arange(group)

    def share(centred: ndarray, successes: ndarray) -> ndarray:
        spread = np.sqrt(successes * (group - successes) / (group * (group - ddof)))
        return np.where(spread > 0, centred / np.where(spread > 0, spread + eps, 1.0), 0.0)

    return float(binom.pmf(k, group - 1, p) @ (share(1 - (k + 1) / group, k + 1) + share(k / group, k)))


def e06_binary(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction for rewards 0 and 1 against w_G(p) ∇p, and w_G(p) against κ_G(p) of S10."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group = draw_problem(rng, binary=True), int(rng.integers(2, 9))
        ddof, eps = int(rng.integers(2)), float(rng.choice([0.0, 1e-4, 0.3]))
        p = mean_reward(problem)
        scale = binary_scale(p, group, ddof=ddof, eps=eps)
        found = mean_of("standardised", problem, group=group, options=Options(ddof=ddof, eps=eps))
        kappa = float(grpo_scale(np.array([p]), group, ddof=ddof, eps=eps)[0])
        worst = max(worst, deviation(found, scale * problem.gradient), deviation(kappa, scale))
    return Evidence(worst, ALGEBRA, f"direction − w_G(p) ∇p and κ_G(p) − w_G(p), over {examples} random trees")


def e06_ddof(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction with ddof 1 against √((G−1)/G) times that with ddof 0; the same for single groups."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        problem, group = draw_problem(rng), int(rng.integers(2, 5))
        sample, population = (
            mean_of("standardised", problem, group=group, options=Options(ddof=ddof)) for ddof in (1, 0)
        )
        worst = max(worst, deviation(sample, np.sqrt((group - 1) / group) * population))
        reward = rng.standard_normal((5, group))
        one, zero = (group_standardised(reward, ddof=ddof, eps=0.0) for ddof in (1, 0))
        worst = max(worst, deviation(one, np.sqrt((group - 1) / group) * zero))
    return Evidence(worst, ALGEBRA, f"ddof 1 over ddof 0 against √((G−1)/G), over {examples} random trees")


def e06_mixed(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction given that rewards differ, times their probability, against the mean over all groups."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(examples):
        problem, group = draw_problem(rng, binary=i % 2 == 0), int(rng.integers(2, 5))
        for mixed, every in ((ESTIMATORS["dynamic_sampling"], "standardised"), (MIXED_ROWS, "rloo")):
            kept = exact_moments(mixed, problem, group=group)
            worst = max(worst, deviation(kept.mean * kept.kept, mean_of(every, problem, group=group)))
        if i % 2 == 0:
            p = mean_reward(problem)
            worst = max(worst, deviation(kept.kept, 1 - p**group - (1 - p) ** group))
    return Evidence(worst, ALGEBRA, f"E[direction | mixed]·P(mixed) − E[direction] over {examples} random trees")
