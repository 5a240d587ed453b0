"""Answers and checks of tutorial 04."""

import math
from typing import Any

import numpy as np
from _exercises import Exercise, Wrong, asked, number

from vgrad_lab.discrete.ascent import gap_at
from vgrad_lab.discrete.bandit import linear_bandit, logprob
from vgrad_lab.discrete.thresholds import cosh_threshold
from vgrad_lab.discrete.update_scale import update_scale


def gap(p: Any, feature: Any, right: Any) -> Any:
    return p[right] @ feature[right] / p[right].sum() - p[~right] @ feature[~right] / p[~right].sum()


def examine_gap(answer: Any) -> str:
    rng = np.random.default_rng(4)
    for size in (3, 6):
        feature, right = rng.normal(size=(size, 2)), np.arange(size) < size // 2
        bandit, theta = linear_bandit(feature, right), rng.normal(size=2)
        p, true = np.exp(logprob(bandit, theta)), gap_at(bandit, theta)
        found = np.asarray(asked(answer, p, feature, right), dtype=float)
        if found.shape != (2,):
            raise Wrong(f"one number per parameter was asked for, shape (2,); this has shape {found.shape}")
        for wrong, words in (
            (true.objective_gradient, "that is ∇J; the gap has no factor J(1 − J)"),
            (true.positive, "that is g⁺ alone; subtract the mean over the wrong responses"),
            (-true.gap, "that is wrong less right; turn it round"),
            (p[right] @ feature[right] - p[~right] @ feature[~right], "divide by J and 1 − J: means within each class"),
        ):
            if np.allclose(found, wrong):
                raise Wrong(words)
        if not np.allclose(found, true.gap, rtol=1e-6, atol=1e-9):
            raise Wrong(f"for p = {np.round(p, 3)} the gap is {np.round(true.gap, 4)}, yours {np.round(found, 4)}")
    return "E⁺[x] − E⁻[x]: E[x], which makes a score of x, is the same in both and cancels."


def examine_multiple(answer: Any) -> str:
    multiple = number(answer)
    if np.isclose(multiple, 8 / 4**2):
        raise Wrong("D is the distance of the two wrong arms, 8, not that of a wrong arm from the right one")
    if not np.isclose(multiple, cosh_threshold(4.0), rtol=1e-3):
        raise Wrong(
            f"c x² = {16 * multiple:g}; close to the optimum a step multiplies θ by 1 − c x², and −1 is the limit"
        )
    return "2/x² = 8/D² = 1/8: near 0 a step multiplies θ by 1 − c x², which must not be below −1."


def crossing(rate: float = 0.2, moment: float = 2.0) -> float:
    """1 − J where lr √(J(1−J)) = 2(1−J)/V."""
    return 1 / (1 + (2 / (rate * moment)) ** 2)


def examine_crossing(answer: Any) -> str:
    failure = number(answer)
    if not 0 < failure < 1:
        raise Wrong(f"a failure rate lies between 0 and 1, this is {failure:g}")
    if np.isclose(failure, 0.04, rtol=1e-3):
        raise Wrong("near: √(J(1 − J)) is not √(1 − J); keep the factor J")
    if np.isclose(1 - failure, crossing(), rtol=1e-3):
        raise Wrong("that is the success rate J; the failure rate 1 − J was asked for")
    if not np.isclose(failure, crossing(), rtol=1e-3):
        multiple = 0.2 * float(update_scale(np.array([1 - failure]), "population_grpo")[0])
        raise Wrong(f"at 1 − J = {failure:g} the multiple is {multiple:.4f} and the threshold {failure:.4f}")
    return "(1 − J)/J = (lr V/2)² = 0.04."


def examine_rate(answer: Any) -> str:
    rate, right = number(answer), 1 / math.sqrt(16)
    if np.isclose(rate, 1.0):
        raise Wrong("that is REINFORCE's border 2/V; groups of G take √(G − 1) times as much near J = 1")
    if np.isclose(rate, 1 / math.sqrt(17), rtol=1e-3):
        raise Wrong("√(G − 1), not √G: the lone failure is one of the G")
    if not np.isclose(rate, right, rtol=1e-3):
        raise Wrong(f"lr √(G − 1) V = {rate * 8:g} there; the border is at 2")
    return "lr · √16 · 2 = 2: a quarter of REINFORCE's border, for groups of 17."


EXERCISES = (
    Exercise(
        "write my_gap(p, feature, right): the gradient gap of a linear softmax policy.",
        "The score of response o is x_o − E[x]. Average it over the right ones, weights p/J, and over the wrong ones.",
        gap,
        "g = E⁺[x] − E⁻[x]; the mean E[x] cancels.",
        examine_gap,
    ),
    Exercise(
        "what is the largest multiple c that lowers J from no start, wrong arms at ±4?",
        "Near the optimum tanh xθ ≈ xθ. By what number does a step multiply θ?",
        0.125,
        "θ ← (1 − c x²) θ near 0, and |1 − c x²| ≤ 1 gives c ≤ 2/x² = 1/8. Farther out tanh is flatter still.",
        examine_multiple,
    ),
    Exercise(
        "at which failure rate does 0.2 √(J(1 − J)) equal 1 − J?",
        "Square both sides and divide by J(1 − J).",
        crossing(),
        "0.04 J = 1 − J, so 1 − J = 0.04/1.04.",
        examine_crossing,
    ),
    Exercise(
        "up to which learning rate do groups of 17 converge on the task with V = 2?",
        "Near J = 1 the multiple is lr √(G − 1)(1 − J), and the threshold 2(1 − J)/V.",
        0.25,
        "lr √16 = 2/2.",
        examine_rate,
    ),
)
