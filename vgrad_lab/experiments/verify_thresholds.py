"""Deterministic checks of G03 and G04: collapse and what bars it, linear softmax policies, the sharp threshold."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.discrete.ascent import Rule, ascend, gap_at, gap_step, unit_step
from vgrad_lab.discrete.bandit import (
    Bandit,
    cosh_bandit,
    linear_bandit,
    logprob,
    score,
    tabular_bandit,
    washboard,
)
from vgrad_lab.discrete.gradient_gap import log_conditional
from vgrad_lab.discrete.step_size import diameter
from vgrad_lab.discrete.thresholds import (
    cosh_cycle,
    cosh_threshold,
    measured_threshold,
)
from vgrad_lab.discrete.update_scale import Algorithm, update_scale
from vgrad_lab.experiments.verify_gradient_gap import draw_case, hessian_at, odds_at, some_correct
from vgrad_lab.ledger.types import Evidence
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, QUADRATURE


def g03_collapse(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Constant steps of 2π along the gap on the washboard: l_k = −εk, so J falls at every step, to 0."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        slope = float(rng.uniform(0.05, 6))
        run = ascend(washboard(slope), np.zeros(1), unit_step(2 * math.pi), updates=30)
        worst = max(
            worst, float(np.abs(run.log_odds + slope * np.arange(31)).max()), float(np.diff(run.log_odds).max())
        )
    return Evidence(float(worst), CLOSED_FORM, f"largest |l_k + εk| or rise over 30 steps, {examples} slopes")


def norm_excess(bandit: Bandit, theta: Float[ndarray, " P"], step: float) -> float:
    """‖θ + ηw‖² less ‖θ‖² + 2η(l + ln|A⁻|)/‖g‖ + η², for w along the gap and no offsets; relative, at most 0."""
    gap = gap_at(bandit, theta)
    norm = float(np.linalg.norm(gap.gap))
    after = float(np.sum((theta + step * gap.gap / norm) ** 2))
    inner = 2 * step * (gap.log_odds + math.log(int((~bandit.correct).sum()))) / norm
    bound = float(theta @ theta) + inner + step**2
    return (after - bound) / (float(theta @ theta) + abs(inner) + step**2)


def g03_softmax(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The lemma that bars collapse: where success is rare, a gap step of bounded length shortens θ."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples):
        size, width = int(rng.integers(3, 9)), int(rng.integers(1, 4))
        bandit = linear_bandit(rng.normal(size=(size, width)), some_correct(rng, size))
        theta = rng.normal(size=width) * 10 ** rng.uniform(-1, 2)
        worst = max(worst, norm_excess(bandit, theta, float(10 ** rng.uniform(-2, 2))))
    return Evidence(float(worst), ALGEBRA, f"largest violation, relative, {examples} linear policies")


def fall(bandit: Bandit, theta: Float[ndarray, " P"], move: Float[ndarray, " P"]) -> float:
    """By how much the log-odds fall over a move, relative to their size; negative for a rise."""
    before, after = odds_at(bandit, theta), odds_at(bandit, theta + move)
    return (before - after) / max(1.0, abs(before), abs(after))


def group_update(
    bandit: Bandit, theta: Float[ndarray, " P"], drawn: ndarray, *, standardised: bool
) -> Float[ndarray, " P"]:
    """Update (1/G) Σ Â_i s(o_i) of one group of responses."""
    rule: Baseline = "standardised" if standardised else "leave_one_out"
    advantage = from_group(bandit.correct[drawn].astype(float)[None], rule, ddof=0, eps=0.0)[0]
    return np.asarray(advantage @ score(bandit, theta)[drawn] / len(drawn))


def g03_tabular(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Tabular softmax: exact steps and sampled group steps of any size never lower J; nor do exact ones on two arms."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples):
        size, length = int(rng.integers(2, 9)), float(10 ** rng.uniform(-2, 2))
        bandit, theta = tabular_bandit(some_correct(rng, size)), rng.normal(size=size) * 3
        drawn = rng.integers(size, size=int(rng.integers(2, 9)))
        sampled = group_update(bandit, theta, drawn, standardised=bool(rng.integers(2)))
        pair = linear_bandit(rng.normal(size=(2, 3)), np.array([True, False]), offset=rng.normal(size=2))
        at = rng.normal(size=3)
        exact = gap_at(bandit, theta).gap
        worst = max(worst, fall(bandit, theta, length * exact), fall(bandit, theta, length * sampled))
        worst = max(worst, fall(pair, at, length * gap_at(pair, at).gap))
    return Evidence(
        float(worst), ALGEBRA, f"largest relative fall of the log-odds, {examples} policies, steps .01 to 100"
    )


def g04_sharp(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Cosh bandit: thresholds by bisection at xθ = y against (2/x²) y/tanh y ≥ 8/D², and the two-cycle above it."""
    rng, worst, bandits = np.random.default_rng(seed), 0.0, max(examples // 10, 1)
    for _ in range(bandits):
        x, y = float(rng.uniform(0.3, 3)), float(rng.uniform(0.1, 3))
        bandit, most = cosh_bandit(x, weight=float(rng.uniform(0.2, 5))), cosh_threshold(x)
        found = measured_threshold(bandit, start=y / x, low=most / 10, high=10 * most)
        worst = max(worst, abs(found / (most * y / math.tanh(y)) - 1))
        multiple = most * float(rng.uniform(1.3, 1.9))
        run = ascend(bandit, np.array([0.3 / x]), gap_step(multiple), updates=80)
        worst = max(worst, abs(abs(float(run.theta[-1, 0])) / cosh_cycle(multiple, x) - 1))
    return Evidence(float(worst), QUADRATURE, f"relative, {bandits} bandits")


def cumulant(logits: Float[ndarray, " B"], along: Float[ndarray, " B"]) -> float:
    """log E[e^{u·x}] under the softmax of the logits."""
    exponent = log_conditional(logits) + along
    top = float(exponent.max())
    return top + float(np.log(np.exp(exponent - top).sum()))


def linear_step(rng: np.random.Generator) -> tuple[float, float, float]:
    """A random step on a random linear softmax: error of the cumulant form, excess over η²D²/8, error of ∇²l."""
    bandit, theta = draw_case(rng, kind=0)
    feature, z, right = bandit.jacobian(theta), bandit.logits(theta), bandit.correct
    u = rng.normal(size=bandit.size)
    along = feature @ u
    change = odds_at(bandit, theta + u) - odds_at(bandit, theta)
    form = cumulant(z[right], along[right]) - cumulant(z[~right], along[~right])
    size, gap = 1 + float(np.abs(z).max() + np.abs(along).max()), gap_at(bandit, theta).gap
    limit = float(u @ u) * diameter(feature) ** 2 / 8
    covariances = [np.cov(feature[k].T, aweights=np.exp(log_conditional(z[k])), ddof=0) for k in (right, ~right)]
    off = np.abs(hessian_at(bandit, theta) - covariances[0] + covariances[1]).max() / (1 + diameter(feature) ** 2)
    return abs(form - change) / size, abs(change - float(gap @ u)) / limit - 1, float(off)


def g04_linear(*, seed: int = 0, examples: int = 20) -> Evidence:
    """l(θ+u) − l(θ) = K⁺ − K⁻, ∇²l = Cov⁺ − Cov⁻, and |l(θ+u) − l(θ) − ⟨u, g⟩| ≤ ‖u‖²D²/8."""
    rng = np.random.default_rng(seed)
    worst = max(max(linear_step(rng)) for _ in range(examples))
    return Evidence(float(worst), ALGEBRA, f"relative errors, excess over the bound, {examples} linear policies")


def separable(rng: np.random.Generator) -> tuple[Bandit, float]:
    """A linear policy over 3 to 10 arms, the correct one the best along a hidden unit direction, and its margin."""
    feature = rng.normal(size=(int(rng.integers(3, 11)), int(rng.integers(2, 7))))
    hidden = rng.normal(size=feature.shape[1])
    value = np.sort(feature @ hidden / np.linalg.norm(hidden))
    return linear_bandit(feature, feature @ hidden == (feature @ hidden).max()), float(value[-1] - value[-2])


def updates_to_reach(bandit: Bandit, rule: Rule, odds: float, *, most: int) -> int:
    """Updates from θ = 0 until the log-odds exceed ``odds``; ``most`` if they don't by then."""
    theta = np.zeros(bandit.size)
    for k in range(most):
        gap = gap_at(bandit, theta)
        if gap.log_odds > odds:
            return k
        theta = theta + rule(gap)
    return most


def perceptron_bound(bandit: Bandit, margin: float, multiple: float, odds: float) -> float:
    """Updates θ ← θ + c g from 0 after which the log-odds have exceeded C, (2(C + ln|A⁻|)/c + D²)/γ²."""
    wrong = int((~bandit.correct).sum())
    width = diameter(bandit.jacobian(np.zeros(bandit.size)))
    return (2 * (odds + math.log(wrong)) / multiple + width**2) / margin**2


def g03_separable(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Steps c g of any size on separable arms exceed log-odds 3 within the perceptron's number of updates."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples):
        bandit, margin = separable(rng)
        multiple = float(10 ** rng.uniform(-1, 3))
        bound = perceptron_bound(bandit, margin, multiple, 3.0)
        found = updates_to_reach(bandit, gap_step(multiple), 3.0, most=2000)
        worst = max(worst, min(found, 2000) / (bound + 1) - 1)
    return Evidence(float(worst), 0.0, f"updates over the bound less 1, {examples} policies, c from .1 to 1000")


def control(
    algorithm: Algorithm, learning_rate: float, *, seed: int = 0, updates: int = 200, sampled: bool = False
) -> Float[ndarray, " T1"]:
    """Mean success of a realisable linear contextual bandit (4 contexts, 10 arms, 6 features) along its updates.

    sampled: groups of 8 instead of expectations.
    """
    rng = np.random.default_rng(seed)
    feature, theta, curve = rng.normal(size=(4, 10, 6)), np.zeros(6), []
    right = (feature @ rng.normal(size=6)).argmax(1)
    bandits = [linear_bandit(x, np.arange(10) == arm) for x, arm in zip(feature, right, strict=True)]
    for k in range(updates + 1):
        gaps = [gap_at(bandit, theta) for bandit in bandits]
        curve.append(float(np.mean([gap.success for gap in gaps])))
        move = np.zeros(6)
        for bandit, gap in zip(bandits, gaps, strict=True):
            if sampled:
                drawn = rng.choice(10, size=8, p=np.exp(logprob(bandit, theta)))
                move += group_update(bandit, theta, drawn, standardised=algorithm == "grpo")
            elif gap.failure > 0:
                at, not_at = np.array([gap.success]), np.array([gap.failure])
                move += update_scale(at, algorithm, failure=not_at, ddof=0, eps=0.0)[0] * gap.gap
        theta = theta + learning_rate * move / 4 if k < updates else theta
    return np.array(curve)
