"""Deterministic checks of G01 and G02: the gap and its derivatives, step bounds, success along lawful runs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.ascent import gap_at
from vgrad_lab.discrete.bandit import (
    Bandit,
    iid_tokens,
    linear_bandit,
    logprob,
    score,
    score_jacobian,
    steepening,
    tabular_bandit,
    tanh_bandit,
    washboard,
)
from vgrad_lab.discrete.gradient_gap import (
    GradientGap,
    fisher,
    log_odds,
    log_odds_hessian,
    log_odds_step,
)
from vgrad_lab.discrete.step_size import (
    Bounds,
    alignment,
    log_odds_range,
    overshoot_share,
    progress,
    reported_step,
    segment_bounds,
    success_ceiling,
    success_floor,
)
from vgrad_lab.discrete.token_step import tree_bandit
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.ledger.types import Evidence
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, QUADRATURE

Case = tuple[Bandit, Float[ndarray, " P"]]


def some_correct(rng: np.random.Generator, size: int) -> ndarray:
    """A random division of responses into correct and wrong ones, neither empty."""
    return rng.permutation(np.arange(size) < rng.integers(1, size))


def _linear(rng: np.random.Generator) -> Case:
    size, width = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    feature = rng.normal(size=(size, width)) * 10 ** rng.uniform(-1, 0.5)
    return linear_bandit(feature, some_correct(rng, size), offset=rng.normal(size=size)), rng.normal(size=width)


def _network(rng: np.random.Generator) -> Case:
    size, hidden = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    bandit = tanh_bandit(rng.normal(size=(size, 2)), hidden, some_correct(rng, size))
    return bandit, rng.normal(size=bandit.size) * 10 ** rng.uniform(-1, 0.5)


def _tree(rng: np.random.Generator) -> Case:
    tree = token_tree(int(rng.integers(2, 4)), int(rng.integers(2, 4)), end=0 if rng.random() < 0.7 else None)
    width = int(rng.integers(1, 5))
    bandit = tree_bandit(tree, rng.normal(size=(*tree.logits_shape, width)), some_correct(rng, tree.size))
    return bandit, rng.normal(size=width)


def _shaped(rng: np.random.Generator) -> Case:
    kind = int(rng.integers(3))
    if kind == 0:
        return washboard(float(rng.uniform(0.1, 6))), rng.uniform(-5, 5, 1)
    if kind == 1:
        return steepening(float(rng.uniform(0.3, 2)), gain=float(rng.uniform(0.3, 2))), rng.uniform(-1.5, 1.5, 2)
    length = int(rng.integers(2, 40))
    return iid_tokens(length, int(rng.integers(1, length))), rng.uniform(-0.5, 0.5, 1)


FAMILIES: tuple[Callable[[np.random.Generator], Case], ...] = (_linear, _network, _tree, _shaped)
"""Random policies of four kinds: linear softmax, a tanh network, an autoregressive tree, the project's instances."""


def draw_case(rng: np.random.Generator, *, kind: int | None = None) -> Case:
    """A random policy and a θ; ``kind`` is a place in FAMILIES."""
    return FAMILIES[int(rng.integers(len(FAMILIES))) if kind is None else kind](rng)


def draw_direction(rng: np.random.Generator, gap: Float[ndarray, " P"], *, noise: float = 1.0) -> Float[ndarray, " P"]:
    """A unit vector that leans towards the gap, the less the more noise."""
    size = len(gap)
    raw = gap / max(float(np.linalg.norm(gap)), 1e-12) + noise * rng.normal(size=size) / np.sqrt(size)
    return np.asarray(raw / np.linalg.norm(raw))


def odds_at(bandit: Bandit, theta: Float[ndarray, " P"]) -> float:
    """Log-odds of success at θ."""
    return log_odds(logprob(bandit, theta), bandit.correct)


def hessian_at(bandit: Bandit, theta: Float[ndarray, " P"]) -> Float[ndarray, "P P"]:
    """Second derivative of the log-odds at θ."""
    return log_odds_hessian(logprob(bandit, theta), score(bandit, theta), score_jacobian(bandit, theta), bandit.correct)


def gap_errors(bandit: Bandit, theta: Float[ndarray, " P"], gap: GradientGap) -> Float[ndarray, " 3"]:
    """Errors of ∇J = J(1−J)g against E[r s], J g⁺ + (1−J) g⁻ = 0 and g⁺ = (1−J) g, relative to the logits' slopes."""
    p, s = np.exp(logprob(bandit, theta)), score(bandit, theta)
    scale = max(float(np.linalg.norm(bandit.jacobian(theta), axis=1).max()), 1e-300)
    return (
        np.array(
            [
                np.abs(p[bandit.correct] @ s[bandit.correct] - gap.objective_gradient).max(),
                np.abs(gap.success * gap.positive + gap.failure * gap.negative).max(),
                np.abs(gap.positive - gap.failure * gap.gap).max(),
            ]
        )
        / scale
    )


def g01_gap(*, seed: int = 0, examples: int = 20) -> Evidence:
    """∇J = J(1−J)g against the sum E[r s]; J g⁺ + (1−J) g⁻ = 0; g⁺ = (1−J) g."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        bandit, theta = draw_case(rng)
        worst = max(worst, float(gap_errors(bandit, theta, gap_at(bandit, theta)).max()))
    return Evidence(
        float(worst), ALGEBRA, f"relative to the largest slope of a logit, {examples} policies of four kinds"
    )


def slope_of_gap(bandit: Bandit, theta: Float[ndarray, " P"], u: Float[ndarray, " P"], *, step: float) -> ndarray:
    """Derivative of the gap along u by sixth-order central differences."""
    total = np.zeros(bandit.size)
    for place, weight in ((1, 45.0), (2, -9.0), (3, 1.0)):
        ahead, behind = (gap_at(bandit, theta + sign * place * step * u).gap for sign in (1, -1))
        total += weight * (ahead - behind)
    return np.asarray(total / (60 * step))


def g01_hessian(*, seed: int = 0, examples: int = 20) -> Evidence:
    """∇²l u against sixth-order differences of the gap along u."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        bandit, theta = draw_case(rng)
        u = draw_direction(rng, gap_at(bandit, theta).gap)
        spread = segment_bounds(bandit, theta, 0.01 * u, points=2)
        found = slope_of_gap(bandit, theta, u, step=2e-3 / max(1.0, spread.score))
        worst = max(worst, float(np.abs(hessian_at(bandit, theta) @ u - found).max()) / (1 + 2 * spread.second_order))
    return Evidence(float(worst), QUADRATURE, f"relative to 1 + 2L_o + G_o², {examples} policies")


def g01_step(*, seed: int = 0, examples: int = 20) -> Evidence:
    """log E⁺[ρ] − log E⁻[ρ] against the difference of log-odds, over steps of any size."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        bandit, theta = draw_case(rng)
        after = theta + rng.normal(size=bandit.size) * 10 ** rng.uniform(-2, 0.5)
        found = log_odds_step(logprob(bandit, theta), logprob(bandit, after), bandit.correct)
        change = odds_at(bandit, after) - odds_at(bandit, theta)
        size = float(np.abs(logprob(bandit, theta)).max() + np.abs(logprob(bandit, after)).max())
        worst = max(worst, abs(found - change) / max(size, 1.0))
    return Evidence(float(worst), ALGEBRA, f"relative to the largest |log π|, {examples} steps")


def information_excess(bandit: Bandit, theta: Float[ndarray, " P"]) -> float:
    """J(1−J)‖g‖²/λ_max(F) − 1; at most 0."""
    gap = gap_at(bandit, theta)
    top = float(np.linalg.eigvalsh(fisher(logprob(bandit, theta), score(bandit, theta)))[-1])
    return gap.success * gap.failure * float(gap.gap @ gap.gap) / top - 1 if top > 0 else 0.0


def arcsine_excess(
    bandit: Bandit, theta: Float[ndarray, " P"], move: Float[ndarray, " P"], *, points: int = 33
) -> float:
    """|Δ arcsin √J| over ½ √λ_max(F) ‖move‖ less 1, λ_max its largest value on the segment; at most 0."""
    places = [theta + share * move for share in np.linspace(0, 1, points)]
    top = max(float(np.linalg.eigvalsh(fisher(logprob(bandit, x), score(bandit, x)))[-1]) for x in places)
    ends = [gap_at(bandit, x) for x in (places[0], places[-1])]
    angles = [np.arctan2(np.sqrt(gap.success), np.sqrt(gap.failure)) for gap in ends]  # arcsin √J, exact near J = 1
    bound = 0.5 * np.sqrt(top) * float(np.linalg.norm(move))
    return float(abs(angles[1] - angles[0]) / bound - 1) if bound > 0 else 0.0


def g01_fisher(*, seed: int = 0, examples: int = 20) -> Evidence:
    """J(1−J)‖g‖² ≤ λ_max(F), and arcsin √J moves at most by ½ √λ_max per unit of θ."""
    rng, worst = np.random.default_rng(seed), -np.inf
    for _ in range(examples):
        bandit, theta = draw_case(rng)
        move = draw_direction(rng, gap_at(bandit, theta).gap) * 10 ** rng.uniform(-2, 0)
        worst = max(worst, information_excess(bandit, theta), arcsine_excess(bandit, theta, move))
    return Evidence(float(worst), QUADRATURE, f"largest ratio to the bound less 1, {examples} policies")


def bound_excess(
    bandit: Bandit, theta: Float[ndarray, " P"], w: Float[ndarray, " P"], step: float, *, points: int = 17
) -> float:
    """|l(θ+ηw) − l(θ) − ηΔμ| over η²(L_o + G_o²/2) less 1; at most 0."""
    bounds = segment_bounds(bandit, theta, step * w, points=points)
    low, high = log_odds_range(step, alignment(gap_at(bandit, theta).gap, w), bounds)
    change = odds_at(bandit, theta + step * w) - odds_at(bandit, theta)
    rounding = ALGEBRA * (1 + abs(odds_at(bandit, theta)))
    return (max(change - high, low - change) - rounding) / max((high - low) / 2, 1e-300)


def g02_bound(*, seed: int = 0, examples: int = 20) -> Evidence:
    """|l(θ+ηw) − l(θ) − ηΔμ| ≤ η²(L_o + G_o²/2) for steps of any size in any direction."""
    rng, worst = np.random.default_rng(seed), -np.inf
    for _ in range(examples):
        bandit, theta = draw_case(rng)
        w = draw_direction(rng, gap_at(bandit, theta).gap, noise=float(10 ** rng.uniform(-2, 2)))
        worst = max(worst, bound_excess(bandit, theta, w, float(10 ** rng.uniform(-2, 0.3))))
    return Evidence(float(worst), 0.0, f"largest violation over the bound, {examples} steps")


@dataclass(frozen=True)
class LawfulRun:
    """A run at the reported threshold: log-odds (T1,), alignments and steps (T,), and each step's ρ (T,)."""

    log_odds: Float[ndarray, " T1"]
    alignment: Float[ndarray, " T"]
    step: Float[ndarray, " T"]
    share: Float[ndarray, " T"]


def lawful_step(bandit: Bandit, theta: Float[ndarray, " P"], w: Float[ndarray, " P"]) -> tuple[float, Bounds]:
    """Step along w that the reported Theorem 1 allows, at most 2, and bounds over a segment at least as long."""
    aligned, reach = float(gap_at(bandit, theta).gap @ w), 2.0
    while True:
        bounds = segment_bounds(bandit, theta, reach * w, points=9)
        step = reported_step(aligned, bounds)
        if step >= reach or reach - step < 0.5 * reach or step == 0:
            return min(step, reach), bounds
        reach = max(step, reach / 4)


def lawful_run(bandit: Bandit, theta: Float[ndarray, " P"], rng: np.random.Generator, *, updates: int) -> LawfulRun:
    """A run along directions near the gap, each step at the reported threshold."""
    odds, aligned, steps, shares = [odds_at(bandit, theta)], [], [], []
    for _ in range(updates):
        gap = gap_at(bandit, theta).gap
        w = draw_direction(rng, gap, noise=0.5)
        step, bounds = lawful_step(bandit, theta, w)
        aligned.append(alignment(gap, w))
        steps.append(step)
        shares.append(overshoot_share(bounds))
        theta = theta + step * w
        odds.append(odds_at(bandit, theta))
    return LawfulRun(np.array(odds), np.array(aligned), np.array(steps), np.array(shares))


def theorem_excess(run: LawfulRun) -> tuple[float, float]:
    """By how much success falls below the reported floor and exceeds the derived ceiling, at any iteration."""
    total = progress(run.alignment, run.step)
    success = 1 / (1 + np.exp(-run.log_odds))
    ceiling = success_ceiling(float(success[0]), total, share=float(run.share.max()))
    return float((success_floor(float(success[0]), total) - success).max()), float((success - ceiling).max())


def _runs(seed: int, examples: int) -> list[LawfulRun]:
    rng = np.random.default_rng(seed)
    return [lawful_run(*draw_case(rng, kind=i % len(FAMILIES)), rng, updates=3) for i in range((examples + 1) // 2)]


def g02_theorem(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The reported Theorem 1: at its threshold J never falls and stays above the floor set by M(K)."""
    worst = -np.inf
    for run in _runs(seed, examples):
        worst = max(worst, theorem_excess(run)[0], float(-np.diff(run.log_odds).min()))
    return Evidence(float(worst), CLOSED_FORM, f"largest fall below the floor, {(examples + 1) // 2} runs of 3 steps")


def g02_converse(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Success along the same runs never exceeds the ceiling set by (1+ρ) M(K)."""
    worst = max(theorem_excess(run)[1] for run in _runs(seed, examples))
    return Evidence(float(worst), CLOSED_FORM, f"largest excess, {(examples + 1) // 2} runs of 3 steps")


def g02_tabular(*, seed: int = 0, examples: int = 20) -> Evidence:
    """‖g‖² ≥ 1/|A⁺| + 1/|A⁻| for a tabular softmax."""
    rng, worst = np.random.default_rng(seed), -np.inf
    for _ in range(examples):
        correct = some_correct(rng, int(rng.integers(2, 12)))
        gap = gap_at(tabular_bandit(correct), rng.normal(size=len(correct)) * 10 ** rng.uniform(-1, 1)).gap
        least = 1 / correct.sum() + 1 / (~correct).sum()
        worst = max(worst, 1 - float(gap @ gap) / least)
    return Evidence(float(worst), ALGEBRA, f"largest relative violation, {examples} policies")
