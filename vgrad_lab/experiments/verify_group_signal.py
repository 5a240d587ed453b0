"""Deterministic checks of S22.sampled and S24.sampled: means over every group of answers, by enumeration."""

from itertools import product

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import binom

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.checkpoints.group_headroom import within_per_prompt
from vgrad_lab.checkpoints.group_signal import (
    GroupRule,
    alignment_per_prompt,
    costate_square_per_prompt,
    signal_per_prompt,
)
from vgrad_lab.experiments.verify_answers import draw_answers
from vgrad_lab.impact import grpo_scale, headroom_bernoulli
from vgrad_lab.ledger.types import Evidence
from vgrad_lab.sequence.credit_flow import empirical_costate
from vgrad_lab.sequence.enumeration import value_gradient
from vgrad_lab.sequence.trace import trace
from vgrad_lab.tolerances import CLOSED_FORM

BASELINES: tuple[Baseline, ...] = ("standardised", "group_mean", "leave_one_out")
MOST = 10_000
"""Most groups that are enumerated in one example."""


def group_errors(rng: np.random.Generator, baseline: Baseline, *, binary: bool) -> Float[ndarray, " 3"]:
    """Σ, E⟨λ̂,G⟩ and ‖E λ̂‖² of one prompt and layer: mean over all groups of 4 against patching, relative to Σ.

    A random model, all its answers of at most two tokens; groups of n = 2.
    """
    case = draw_answers(rng, binary=binary, horizon=2)
    while len(case.reward) ** 4 > MOST:
        case = draw_answers(rng, binary=binary, horizon=2)
    layer = int(rng.integers(case.model.layers + 1))
    gradient = value_gradient(case.model, case.cases, case.reward)[layer].numpy().ravel()
    found = trace(case.model, case.cases.inputs)
    score = empirical_costate(found, case.cases.targets, case.cases.scored.double())[layer, :, : case.cases.given]
    flat = score.reshape(len(score), -1).numpy()
    gram, chance, rule = flat @ flat.T, case.chance(), GroupRule(2, baseline)
    index = np.array(list(product(range(len(chance)), repeat=4)))
    weight, reward = chance[index].prod(1), case.reward[index]
    grams = gram[index[:, :, None], index[:, None, :]]
    costate = _costate(chance, case.reward, flat, rule)
    truth = np.array([gradient @ gradient, costate @ gradient, costate @ costate])
    means = [
        weight @ signal_per_prompt(reward, grams),
        weight @ alignment_per_prompt(reward, grams, rule),
        weight @ costate_square_per_prompt(reward, grams, rule),
    ]
    return np.abs(np.array(means) - truth) / max(float(truth.max()), 1e-6)


def _costate(chance: ndarray, reward: ndarray, score: ndarray, rule: GroupRule) -> ndarray:
    """E[Â_1 s_1] over all pairs of answers."""
    index = np.array(list(product(range(len(chance)), repeat=2)))
    advantage = from_group(reward[index], rule.baseline, ddof=rule.ddof, eps=rule.eps)[:, 0]
    return np.asarray((chance[index].prod(1) * advantage) @ score[index[:, 0]])


def s22_sampled(*, seed: int = 0, examples: int = 6) -> Evidence:
    """Estimates of Σ, E⟨λ̂,G⟩ and ‖E λ̂‖² have the exact quantities as their means; any architecture and layer."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(min(examples, 6)):
        worst = max(worst, float(group_errors(rng, BASELINES[i % 3], binary=i % 2 == 0).max()))
    p = rng.uniform(size=1)
    for n in (2, 3, 8):  # Λ = |κ − 1| Σ: the sign that `one_sided` promises
        kappa = float(grpo_scale(p, n)[0])
        worst = max(worst, 1.0 if (kappa > 1) != (n > 2) else 0.0)
    return Evidence(worst, CLOSED_FORM, "relative to Σ; all groups of 4 answers of one or two tokens, against patching")


def s24_sampled(*, seed: int = 0, examples: int = 20) -> Evidence:
    """H_α of a coin from G tosses: its bias, exactly, stays within the bound; residual = bias/bound."""
    rng, worst, largest = np.random.default_rng(seed), 0.0, 0.0
    for _ in range(min(examples, 200)):
        tosses, alpha = int(rng.integers(2, 17)), float(np.exp(rng.uniform(-2, 1.5)))
        p = rng.uniform(size=20)
        count = np.arange(tosses + 1)
        found, bound = within_per_prompt((np.arange(tosses) < count[:, None]).astype(float), alpha)
        bias = np.abs(binom.pmf(count, tosses, p[:, None]) @ found - headroom_bernoulli(p, alpha)).max()
        worst = max(worst, float(bias) / (bound + CLOSED_FORM))
        largest = max(largest, float(bias))
    return Evidence(worst, 1.0, f"largest bias {largest:.1e}, as a share of its bound {worst:.2f}")
