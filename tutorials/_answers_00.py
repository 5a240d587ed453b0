"""Answers and checks of tutorial 00."""

from typing import Any

import numpy as np
from _exercises import Exercise, Unanswered, Wrong, asked, number

from vgrad_lab import verify
from vgrad_lab.continuous import noise
from vgrad_lab.continuous.variance import one_step_moments

FLIP = 1.109
POINTS = np.array([-0.9, -0.4, -0.05, 0.1, 0.6, 0.95])
CASES = {
    "gaussian, sin": (noise.gaussian(1.0), np.sin, np.cos, ()),
    "uniform, sin": (noise.uniform(1.0), np.sin, np.cos, ()),
    "gaussian, step": (noise.gaussian(1.0), lambda a: (a > 0) * 1.0, np.zeros_like, (0.0,)),
    "exponential, |a|": (noise.exponential(1.0), np.abs, np.sign, (0.0,)),
    "uniform, step": (noise.uniform(1.0), lambda a: (a > 0) * 1.0, np.zeros_like, (0.0,)),
}


def examine_flip(answer: Any) -> str:
    omega = number(answer)
    if omega <= 0:
        raise Wrong(f"a frequency is positive, this is {omega:g}")
    below, above = (one_step_moments("sine", scale=0.5, frequency=f * omega) for f in (0.99, 1.01))
    if below.pathwise > below.score_function:
        raise Wrong(
            f"just below ω = {omega:g} the pathwise variance is {below.pathwise:.3f} already, above the score "
            f"function's {below.score_function:.3f}: the flip comes earlier"
        )
    if above.pathwise < above.score_function:
        raise Wrong(
            f"just above ω = {omega:g} the pathwise variance is still only {above.pathwise:.3f}, below the score "
            f"function's {above.score_function:.3f}: the flip comes later"
        )
    return f"Only ωσ matters: {omega:g} × 0.5 = {omega / 2:.3f}."


def jump(mean):
    """At x = 0 the density jumps from 0 up to 1, and the reward there is r(ā + 0) = ā."""
    return mean * (1.0 - 0.0)


def examine_jump(answer: Any) -> str:
    for mean in (-0.4, 0.3, 2.0):
        given, right = float(asked(answer, mean)), float(jump(mean))
        if np.isclose(given, -right) and right:
            raise Wrong(
                f"at ā = {mean} this is {given:g}, the wrong sign: a jump is the value above minus the one below"
            )
        if not np.isclose(given, right, rtol=1e-9):
            raise Wrong(f"at ā = {mean} this is {given:g}. What does the agent earn exactly at the edge x = 0?")
        step = verify.score_and_pathwise(noise.exponential(1.0), lambda a: a, np.ones_like, mean=mean)
        assert abs(step.score_function - (1 + given)) < 1e-9
    return "SF = 1 + ā, off by the jump; PD = 1 is the truth."


def score(x):
    """(log ν)' = ν'/ν: the slope is +1 left of 0 and −1 right of it."""
    return -np.sign(x) / (1 - np.abs(x))


def examine_score(answer: Any) -> str:
    given, right = np.asarray(asked(answer, POINTS), dtype=float), score(POINTS)
    if given.shape != POINTS.shape:
        raise Wrong(f"give one number per entry of x: shape {POINTS.shape} in, {given.shape} out")
    if np.allclose(given, -right):
        raise Wrong("the sign is the other way round: right of 0 the density falls")
    if np.allclose(given, -np.sign(POINTS)):
        raise Wrong("that is ν', the slope of the density; (log ν)' divides it by ν")
    if not np.allclose(given, right, rtol=1e-9):
        i = int(np.argmax(np.abs(given - right)))
        raise Wrong(f"at x = {POINTS[i]} this is {given[i]:.4f}; differences of log ν give {right[i]:.4f}")
    law = noise.custom(
        "triangle",
        density=lambda x: np.maximum(1 - np.abs(x), 0),
        score=answer,
        draw=lambda rng, shape: rng.triangular(-1, 0, 1, shape),
        mean=0.0,
        variance=1 / 6,
        support=(-1.0, 1.0),
        breaks=(0.0,),
    )
    step = verify.check_score_equals_pathwise(law, np.sin, np.cos, mean=0.3)
    return f"Lemma 1 holds: SF = {step.score_function:.6f} = PD = {step.pathwise:.6f}."


def right_forms(case: str) -> str:
    """Which forms are the true derivative at ā = 0.3, by quadrature: "both", "SF", "PD" or "neither"."""
    law, reward, slope, breaks = CASES[case]
    step = verify.score_and_pathwise(law, reward, slope, mean=0.3, breaks=breaks)
    names = {(True, True): "both", (True, False): "SF", (False, True): "PD", (False, False): "neither"}
    return names[abs(step.score_function - step.truth) < 1e-6, abs(step.pathwise - step.truth) < 1e-6]


PREDICTED = {
    "gaussian, sin": "both",
    "uniform, sin": "PD",
    "gaussian, step": "SF",
    "exponential, |a|": "PD",
    "uniform, step": "neither",
}


def examine_predicted(answer: Any) -> str:
    given = asked(answer)
    if not isinstance(given, dict) or set(given) != set(CASES):
        raise Wrong(f"give a dictionary with the cases {', '.join(map(repr, CASES))}")
    if any(value is None for value in given.values()):
        raise Unanswered
    for case, guess in given.items():
        if guess not in ("both", "SF", "PD", "neither"):
            raise Wrong(f'{case}: "both", "SF", "PD" or "neither", not {guess!r}')
    wrong = [case for case, guess in given.items() if guess != right_forms(case)]
    if wrong:
        raise Wrong(
            f"{len(wrong)} of {len(CASES)} differ from quadrature, among them {wrong[0]!r}. Where does the density "
            "jump, where the reward?"
        )
    return "Edges of the noise break SF, edges of the reward break PD."


EXERCISES = (
    Exercise(
        "at which ω do the variances cross when σ = 0.5?",
        "Write a = σ·x with x of scale 1. Which frequency does the reward have in x? Which product is free of units?",
        FLIP / 0.5,
        "In units of σ the frequency is ωσ, and the crossing is at ωσ = 1.109: ω = 1.109 / 0.5 = 2.218.",
        examine_flip,
    ),
    Exercise(
        "what is Σ[rν] as a function of ā, for ν(x) = exp(−x) on x ≥ 0 and r(a) = a?",
        "There is one jump, at x = 0. How high is ν just right and just left of it, and what is r(ā + 0)?",
        jump,
        "Σ[rν] = r(ā)·(1 − 0) = ā, so SF = PD + Σ[rν] = 1 + ā.",
        examine_jump,
    ),
    Exercise(
        "return (log ν)'(x) for ν(x) = 1 − |x| on [−1, 1]",
        "(log ν)' = ν'/ν. What is ν' left of 0 and right of it?",
        score,
        "It grows without bound at the ends, where ν goes to 0: rν has no jump there, and Lemma 1 holds.",
        examine_score,
    ),
    Exercise(
        'for each case say which form is the true derivative at ā = 0.3: "both", "SF", "PD" or "neither"',
        "Two questions per case: does the density jump (then SF misses something)? Does the reward jump (then PD does)?",
        PREDICTED,
        "A corner, as in |a|, is no jump: it hurts neither form.",
        examine_predicted,
    ),
)
