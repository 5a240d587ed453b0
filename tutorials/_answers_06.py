"""Answers and checks of tutorial 06."""

import math
from typing import Any

import numpy as np
from _exercises import Exercise, Wrong, asked, number

from vgrad_lab.simplex import CONFIDENCE_CONSTANT, SOFTMAX_CONSTANT

VOCABULARY = 100_352
CONSTANT = SOFTMAX_CONSTANT * math.sqrt(math.log(VOCABULARY))


def examine_sign(answer: Any) -> str:
    p = number(answer)
    if not 0 < p < 1:
        raise Wrong(f"a probability strictly between 0 and 1 was asked for, this is {p:g}")
    if not math.isclose(p, 0.25, rel_tol=1e-3):
        side = "still positive just below it" if p > 0.25 else "already negative just above it"
        raise Wrong(f"at p = {p:g} the slope Q'(p) = 4p − 1 is {4 * p - 1:+.3f}: the derivative is {side}")
    return "Q'(p) = 4p − 1 < 0 for p < ¼, though token 1 earns more than token 0."


def examine_constant(answer: Any) -> str:
    c = number(answer)
    if math.isclose(c, SOFTMAX_CONSTANT, rel_tol=1e-3):
        raise Wrong("that is the factor before √H; C stands before √(H/ln V)")
    if math.isclose(c, CONFIDENCE_CONSTANT * math.sqrt(math.log(VOCABULARY)), rel_tol=1e-3):
        raise Wrong("that is the constant for 1 − p_max, a little more than κ needs")
    if not math.isclose(c, CONSTANT, rel_tol=1e-3):
        raise Wrong(f"two equally likely tokens have κ = ½ and H = ln 2; with C = {c:g} the bound there is "
                    f"{c * math.sqrt(math.log(2) / math.log(VOCABULARY)):.4f}")  # fmt: skip
    return f"0.600561·√ln V = {CONSTANT:.4f}: the constant hides the vocabulary that the bound divides by."


def straight_through(p, slopes):
    """C(p) g = p∘g − p (p·g), with g the mean gradient over the tokens."""
    mean = p @ slopes
    return p * mean - p * (p @ mean)


def examine_through(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for size in (2, 5):
        p, slopes = rng.dirichlet(np.ones(size)), rng.standard_normal((size, size))
        given, right = np.asarray(asked(answer, p, slopes), dtype=float), straight_through(p, slopes)
        if given.shape != right.shape:
            raise Wrong(f"one number per logit was asked for, shape ({size},); this has shape {given.shape}")
        if np.allclose(given, p @ slopes, rtol=1e-9):
            raise Wrong("that is E ∇φ; the softmax's Jacobian C(p) = diag(p) − ppᵀ is missing")
        if np.allclose(given, p * (p @ slopes), rtol=1e-9):
            raise Wrong("diag(p) alone; C(p) = diag(p) − ppᵀ")
        if not np.allclose(given, right, rtol=1e-9):
            raise Wrong(f"for p = {np.round(p, 3)} the first entry is {given[0]:.5f}, not {right[0]:.5f}")
    y, p = 0, np.array([0.2, 0.5, 0.3])
    found = straight_through(p, np.diag([2.0, 0.0, 0.0]))[y]  # φ = o_y², one-hot tokens: ∇φ = 2 e_y at token y
    return f"For φ = o_y² and p_y = 0.2 it gives {found:.4f}, 2p_y times the true p_y(1 − p_y) = {0.2 * 0.8:.4f}."


EXERCISES = (
    Exercise(
        "below which p does the soft embedding have the wrong sign?",
        "The soft embedding's derivative is p(1 − p) Q'(p). Where does Q'(x) = 4x − 1 change its sign?",
        0.25,
        "Q'(p) = 4p − 1 is negative below p = ¼; the truth p(1 − p)(Q(1) − Q(0)) is positive everywhere.",
        examine_sign,
    ),
    Exercise(
        "what is the smallest C for V = 100 352?",
        "The worst case has two equal atoms: κ = ½ and H = ln 2. Solve ½ = C √(ln 2 / ln V).",
        CONSTANT,
        "C = ½ √(ln V / ln 2) = 0.600561·√ln V.",
        examine_constant,
    ),
    Exercise(
        "write the expected straight-through gradient C(p) E ∇φ.",
        "p @ slopes is the mean gradient g, and (diag(p) − ppᵀ) g = p·g − p (p·g), first product entry by entry.",
        straight_through,
        "The mean over tokens of ∇φ at the token, through the softmax's Jacobian; exact for affine φ, off by 2p_y for o_y².",
        examine_through,
    ),
)
