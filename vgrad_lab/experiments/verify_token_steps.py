"""Deterministic checks and counterexamples of G05 and G06: token-level steps, and what algorithms take of the gap."""

import itertools
import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import from_group
from vgrad_lab.discrete.ascent import gap_at
from vgrad_lab.discrete.bandit import (
    Bandit,
    iid_tokens,
    linear_bandit,
    logprob,
    score,
)
from vgrad_lab.discrete.gradient_gap import log_conditional
from vgrad_lab.discrete.phase_diagram import steepening_log_odds
from vgrad_lab.discrete.step_size import alignment
from vgrad_lab.discrete.thresholds import (
    stagnation_level,
    token_threshold,
)
from vgrad_lab.discrete.token_step import (
    failing_variance_bound,
    random_length_step,
    token_bounds,
    token_step,
    tree_bandit,
)
from vgrad_lab.discrete.token_tree import (
    TokenTree,
    answer_probability,
    linear_logits,
    pull_back,
    token_score,
    token_tree,
    weighted_response_score,
)
from vgrad_lab.discrete.update_scale import BASELINE, Algorithm, update_scale
from vgrad_lab.experiments.verify_gradient_gap import draw_direction, odds_at, some_correct
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE


def draw_tree(rng: np.random.Generator) -> tuple[TokenTree, Float[ndarray, "N V P"], ndarray, Float[ndarray, " P"]]:
    """A small tree with an end token, features, correct answers and a θ."""
    tree = token_tree(int(rng.integers(2, 4)), int(rng.integers(2, 4)), end=0)
    width = int(rng.integers(1, 5))
    feature = rng.normal(size=(*tree.logits_shape, width)) * 10 ** rng.uniform(-0.5, 0.3)
    return tree, feature, some_correct(rng, tree.size), rng.normal(size=width) * 10 ** rng.uniform(-1, 0.7)


def token_shortfall(bandit: Bandit, theta: Float[ndarray, " P"], w: Float[ndarray, " P"], step: float) -> float:
    """1 − (l(θ+ηw) − l(θ))/(ηΔμ/2): at most 0 where the step is within the token-level threshold."""
    aligned = alignment(gap_at(bandit, theta).gap, w)
    change = odds_at(bandit, theta + step * w) - odds_at(bandit, theta)
    return 1 - change / (step * aligned / 2)


def g05_tokens(*, seed: int = 0, examples: int = 20) -> Evidence:
    """On random trees a step within the token-level threshold gains at least ηΔμ/2."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples):
        tree, feature, correct, theta = draw_tree(rng)
        bandit = tree_bandit(tree, feature, correct)
        gap = gap_at(bandit, theta)
        w = draw_direction(rng, gap.gap, noise=0.5)
        step = token_step(float(gap.gap @ w), gap.failure, length=tree.horizon, bounds=token_bounds(feature))
        if step > 1e-8:
            worst = max(worst, token_shortfall(bandit, theta, w, step))
    return Evidence(float(worst), 0.0, f"largest 1 − gain/(ηΔμ/2), {examples} trees")


def mean_lengths(
    tree: TokenTree, bandit: Bandit, theta: Float[ndarray, " P"], move: Float[ndarray, " P"]
) -> tuple[float, float]:
    """Largest E|o| and largest E±|o| at 17 points of a segment."""
    mean, conditional = 0.0, 0.0
    for share in np.linspace(0, 1, 17):
        logs = logprob(bandit, theta + share * move)
        mean = max(mean, float(np.exp(logs) @ tree.length))
        for which in (bandit.correct, ~bandit.correct):
            conditional = max(conditional, float(np.exp(log_conditional(logs[which])) @ tree.length[which]))
    return mean, conditional


def random_length_shortfall(rng: np.random.Generator) -> float:
    """``token_shortfall`` of a random tree's step through mean lengths; −∞ where there is next to no step."""
    tree, feature, correct, theta = draw_tree(rng)
    bandit = tree_bandit(tree, feature, correct)
    gap, bounds = gap_at(bandit, theta), token_bounds(feature)
    w = draw_direction(rng, gap.gap, noise=0.5)
    aligned = float(gap.gap @ w)
    reach = random_length_step(aligned, gap.failure, mean=1.0, conditional=1.0, bounds=bounds)
    if not 1e-8 < reach < math.inf:
        return -math.inf
    mean, conditional = mean_lengths(tree, bandit, theta, reach * w)
    step = random_length_step(aligned, gap.failure, mean=mean, conditional=conditional, bounds=bounds)
    return token_shortfall(bandit, theta, w, step)


def g05_random(*, seed: int = 0, examples: int = 20) -> Evidence:
    """On random trees a step set by mean lengths instead of the longest gains at least ηΔμ/2."""
    rng = np.random.default_rng(seed)
    worst = max(random_length_shortfall(rng) for _ in range(examples))
    return Evidence(float(worst), 0.0, f"largest 1 − gain/(ηΔμ/2), {examples} trees, lengths over the segment")


def g05_length(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E⟨u,s⟩² = Σ_t E⟨u,s_t⟩² ≤ G_p² E|o|: scores of tokens don't add up across positions."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, feature, _, theta = draw_tree(rng)
        logits = linear_logits(feature, theta)
        p, u = answer_probability(tree, logits), draw_direction(rng, np.zeros(len(theta)))
        token = pull_back(feature, token_score(tree, logits)) @ u
        whole, parts = float(p @ token.sum(1) ** 2), float(p @ (token**2).sum(1))
        limit = token_bounds(feature).score ** 2 * float(p @ tree.length)
        worst = max(worst, abs(whole - parts) / limit, parts / limit - 1)
    return Evidence(float(worst), ALGEBRA, f"relative to G_p² E|o|, {examples} trees")


def failing_variance(bandit: Bandit, theta: Float[ndarray, " P"], u: Float[ndarray, " P"]) -> float:
    """Variance of ⟨u, s⟩ over wrong responses."""
    wrong = ~bandit.correct
    p, along = np.exp(log_conditional(logprob(bandit, theta)[wrong])), score(bandit, theta)[wrong] @ u
    return float(p @ (along - p @ along) ** 2)


def g05_azuma(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Var⁻ ≤ min{T G_p²/(1−J), 2T G_p²(1 + ln(2/(1−J)))} on trees and on i.i.d. tokens (G_p = 2)."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples):
        tree, feature, correct, theta = draw_tree(rng)
        length = int(rng.integers(2, 200))
        tokens = iid_tokens(length, int(rng.integers(1, length)))
        for bandit, at, size, limit in (
            (tree_bandit(tree, feature, correct), theta, tree.horizon, token_bounds(feature).score),
            (tokens, rng.uniform(-0.3, 0.3, 1), length, 2.0),
        ):
            failure = gap_at(bandit, at).failure
            if failure > 1e-200:
                found = failing_variance(bandit, at, draw_direction(rng, np.zeros(bandit.size)))
                worst = max(worst, found / failing_variance_bound(failure, length=size, score=limit) - 1)
    return Evidence(float(worst), 0.0, f"largest ratio to the bound less 1, {2 * examples} policies")


def token_failure(length: int, margin: int) -> float:
    """1 − J of T i.i.d. fair tokens."""
    return gap_at(iid_tokens(length, margin), np.zeros(1)).failure


def g05_linear() -> Counterexample:
    """Threshold of 64 i.i.d. tokens at 1 − J = .0016: scaled by 1 − J from 1 − J = .90, and the true one."""
    scaled = token_threshold(64, 0) * token_failure(64, 24) / token_failure(64, 0)
    return Counterexample(
        scaled, token_threshold(64, 24), 2e-3, "critical multiple of the gap, T = 64, m = 24 from m = 0"
    )


def expected_group_update(
    bandit: Bandit, theta: Float[ndarray, " P"], algorithm: Algorithm, *, group_size: int, ddof: int
) -> Float[ndarray, " P"]:
    """Mean of (1/G) Σ Â_i s(o_i) over all groups of responses, for an algorithm with groups."""
    p, s = np.exp(logprob(bandit, theta)), score(bandit, theta)
    groups = np.array(list(itertools.product(range(len(p)), repeat=group_size)))
    weight, reward = np.prod(p[groups], axis=1), bandit.correct[groups].astype(float)
    update = (
        np.einsum("q,qg,qgp->p", weight, from_group(reward, BASELINE[algorithm], ddof=ddof, eps=0.0), s[groups])
        / group_size
    )
    if algorithm == "dynamic_sampling":
        return np.asarray(update / weight[reward.min(1) != reward.max(1)].sum())
    return np.asarray(update)


def g06_scale(*, seed: int = 0, examples: int = 20) -> Evidence:
    """ω(J) g against the mean update over all groups, four responses, G = 2 to 4, ddof 0 and 1."""
    rng, worst = np.random.default_rng(seed), 0.0
    names: tuple[Algorithm, ...] = ("rloo", "group_mean", "grpo", "dynamic_sampling")
    for i in range(examples):
        bandit = linear_bandit(rng.normal(size=(4, 2)), some_correct(rng, 4), offset=rng.normal(size=4))
        theta, size, name, ddof = rng.normal(size=2), 2 + i % 3, names[i % 4], i % 2
        gap = gap_at(bandit, theta)
        omega = update_scale(np.array([gap.success]), name, group_size=size, ddof=ddof, eps=0.0)[0]
        found = expected_group_update(bandit, theta, name, group_size=size, ddof=ddof)
        worst = max(worst, float(np.abs(found - omega * gap.gap).max()) / (1 + float(np.abs(gap.gap).max())))
    return Evidence(float(worst), ALGEBRA, f"relative to 1 + ‖g‖, {examples} policies, all groups enumerated")


def g06_stagnation(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Failure rate at which population GRPO settles on ``steepening``, lr = .2, .4, .8, V = 2, against its equation."""
    del seed, examples  # the fixed point is claimed to attract at these rates only
    rates = np.array([0.2, 0.4, 0.8])
    odds = steepening_log_odds(rates, np.full(3, 0.5), "population_grpo", updates=1200, disturbance=1e-4)
    level = [stagnation_level(float(rate), "population_grpo") for rate in rates]
    worst = float(np.abs(1 / (1 + np.exp(odds[:, -2:])) / np.array(level)[:, None] - 1).max())
    return Evidence(float(worst), QUADRATURE, "relative, last two of 1200 updates, three learning rates")


def g06_groups(*, seed: int = 0, examples: int = 20) -> Evidence:
    """ω → √(G−1)(1−J) for finite groups and √(G−1)/G with dynamic sampling, at 1 − J = 1e-13."""
    rng, worst, q = np.random.default_rng(seed), 0.0, np.array([1e-13])
    for _ in range(examples):
        size = int(rng.integers(2, 65))
        limits: dict[Algorithm, float] = {
            "grpo": math.sqrt(size - 1) * q[0],
            "dynamic_sampling": math.sqrt(size - 1) / size,
        }
        for name, limit in limits.items():
            omega = update_scale(1 - q, name, failure=q, group_size=size, ddof=0, eps=0.0)[0]
            worst = max(worst, abs(omega / limit - 1))
    return Evidence(float(worst), QUADRATURE, f"relative, {examples} group sizes up to 64")


def length_cosine(
    tree: TokenTree, feature: Float[ndarray, "N V P"], correct: ndarray, theta: Float[ndarray, " P"]
) -> float:
    """Cosine of E[(r − J) s/|o|] with the gap: 1 if dividing by each answer's own length only rescaled."""
    logits, gap = linear_logits(feature, theta), gap_at(tree_bandit(tree, feature, correct), theta)
    weight = ((correct - gap.success) / tree.length)[:, None] * tree.scored
    update = answer_probability(tree, logits) @ pull_back(feature, weighted_response_score(tree, logits, weight))
    return float(update @ gap.gap / np.linalg.norm(update) / np.linalg.norm(gap.gap))


def two_token_tree() -> tuple[TokenTree, Float[ndarray, "N V P"], ndarray, Float[ndarray, " P"]]:
    """Answers "end", "go end", "go go" with one shared parameter: where 1/|o| turns the update round."""
    tree = token_tree(2, 2, end=0)
    feature = np.array([[[0.0], [1.0]], [[0.0], [1.25]]])
    return tree, feature, np.array([False, True, False]), np.zeros(1)


def g06_length() -> Counterexample:
    """Cosine of the mean update with 1/|o| per answer and the gap, on a tree of three answers; 0 or more is claimed."""
    return Counterexample(0.0, length_cosine(*two_token_tree()), 0.9, "cosine of E[(r − J) s/|o|] with the gap, least")
