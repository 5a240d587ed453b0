"""Answers and checks of tutorial 07."""

import math
from typing import Any

import numpy as np
from _exercises import Exercise, Wrong, asked, number

from vgrad_lab.impact import grpo_scale, headroom_bernoulli

GROUP = 8
KAPPA = float(grpo_scale(np.array([0.5]), GROUP)[0])


def crossing() -> float:
    """The α at which p = 0.05 and p = 0.5 have the same headroom, by bisection."""
    low, high = 1.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        weak, half = headroom_bernoulli(np.array([0.05, 0.5]), middle)
        low, high = (middle, high) if weak < half else (low, middle)
    return low


def examine_share(answer: Any) -> str:
    share = number(answer)
    if math.isclose(share, KAPPA, rel_tol=1e-3):
        raise Wrong("that is κ itself; the share is 1 − |κ − 1|")
    if math.isclose(share, KAPPA - 1, rel_tol=1e-3):
        raise Wrong("that is Λ/Σ; what is left of Σ was asked for")
    if not math.isclose(share, 2 - KAPPA, rel_tol=1e-3):
        raise Wrong(f"κ at p = ½ and n = 8 is {KAPPA:.4f}; 1 − |κ − 1| is not {share:g}")
    return "a quarter, although the update points exactly along the value gradient. Nothing was lost but a factor."


def left_behind(score, gain):
    """Best gain minus the gain of the checkpoint that the score chooses."""
    return max(gain) - gain[int(np.argmax(score))]


def examine_regret(answer: Any) -> str:
    rng = np.random.default_rng(7)
    cases = [(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.4, 0.2]))]
    cases += [(rng.standard_normal(6), rng.uniform(0, 0.5, 6)) for _ in range(4)]
    for score, gain in cases:
        given, right = float(np.squeeze(asked(answer, score, gain))), left_behind(score, gain)
        if math.isclose(given, right, rel_tol=1e-6, abs_tol=1e-9):
            continue
        if math.isclose(given, gain[int(np.argmax(score))], rel_tol=1e-6):
            raise Wrong("that is the gain you get; regret is what the best start would have given beyond it")
        if math.isclose(given, -right, rel_tol=1e-6):
            raise Wrong("the sign: regret is never negative")
        if math.isclose(given, max(gain) - max(score), rel_tol=1e-6):
            raise Wrong("a score is no gain: use it to choose a checkpoint, then read the gain there")
        raise Wrong(f"for score {np.round(score, 2)} and gain {np.round(gain, 2)} it is {right:.4f}, not {given:.4f}")
    return "A score is bought for its choice: with regret 0 the scale and the other ranks do not matter."


def examine_alpha(answer: Any) -> str:
    alpha, right = number(answer), crossing()
    if alpha <= 0:
        raise Wrong("α is positive")
    if alpha < right * 0.98:
        raise Wrong(f"at α = {alpha:g} the half-right policy still has the larger headroom")
    if alpha > right * 1.02:
        raise Wrong(f"at α = {alpha:g} the weak policy has the larger headroom already; look for where it begins")
    return "Below it RL should start from the stronger checkpoint, above it from the weaker. §6 does not say α."


EXERCISES = (
    Exercise(
        "what share of Σ is left as Σ − Λ at p = ½ in groups of 8?",
        "impact.grpo_scale(np.array([0.5]), 8) is κ; with the conditional Λ the share is 1 − |κ − 1|.",
        2 - KAPPA,
        f"κ = {KAPPA:.4f}, so 1 − (κ − 1) = {2 - KAPPA:.4f}.",
        examine_share,
    ),
    Exercise(
        "from which α on does p = 0.05 have more headroom than p = 0.5?",
        "Compare impact.headroom_bernoulli(np.array([0.05, 0.5]), α) for α between 1 and 20.",
        round(crossing(), 2),
        "The two curves cross once; bisection finds it.",
        examine_alpha,
    ),
    Exercise(
        "write the regret of a score: what its choice leaves behind.",
        "np.argmax(score) is the chosen checkpoint; compare its gain with the largest.",
        left_behind,
        "max(gain) − gain[argmax(score)].",
        examine_regret,
    ),
)
