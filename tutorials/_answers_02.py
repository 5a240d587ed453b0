"""Answers and checks of tutorial 02."""

from typing import Any

import numpy as np
from _exercises import Exercise, Wrong, number

from vgrad_lab import impact

POLICY = np.array([0.45, 0.45, 0.1])


def examine_factor(answer: Any) -> str:
    factor = number(answer)
    if np.isclose(factor, 3 / 4):
        raise Wrong("3/4 is what the own mean leaves of the gradient; the learning rate has to make up for it")
    if not np.isclose(factor, 4 / 3, rtol=1e-3):
        raise Wrong(f"with {factor:g} the mean step is {factor * 3 / 4:.4f} of leave-one-out's, not 1")
    return "n/(n − 1): up to the learning rate the two are one method."


def examine_deviation(answer: Any) -> str:
    deviation, right = number(answer), np.std([1.0, 0.0, 0.0])
    if np.isclose(deviation, right**2):
        raise Wrong("that is the variance; take the root")
    if np.isclose(deviation, np.std([1.0, 0.0, 0.0], ddof=1)):
        raise Wrong("that divides by n − 1 = 2 (ddof 1); here ddof is 0")
    if not np.isclose(deviation, right, rtol=1e-3):
        raise Wrong("take the group (1, 0, 0): mean 1/3, squares of the deviations 4/9, 1/9, 1/9, and then?")
    grid = np.linspace(0.05, 0.95, 7)
    assert np.allclose(3 * right, impact.grpo_scale(grid, 3, ddof=0, eps=0.0))
    return f"E s = 3p(1 − p)·√2/3, so κ_3 = √2 = {3 * right:.4f} for every p."


def true_middle(x: float) -> float:
    """True update of the middle logit for rewards (0, 1, x)."""
    return float(POLICY[1] * (1 - POLICY @ np.array([0.0, 1.0, x])))


def examine_limit(answer: Any) -> str:
    limit = number(answer)
    below, above = true_middle(0.99 * limit), true_middle(1.01 * limit)
    if below > 0 > above:
        return f"At x = {limit:g} the mean reward is 1; beyond it a reward of 1 is below average."
    mean = float(POLICY @ np.array([0.0, 1.0, limit]))
    raise Wrong(f"at x = {limit:g} the mean reward is {mean:.3f}; it should just be 1")


def silent_share(n: float, p: float = 0.02) -> float:
    """Share of groups of n in which all answers earn the same."""
    return p**n + (1 - p) ** n


def examine_size(answer: Any) -> str:
    n = number(answer)
    if n != round(n) or n < 2:
        raise Wrong(f"a group has a whole number of answers, at least 2; this is {n:g}")
    if silent_share(n) >= 0.5:
        raise Wrong(f"with n = {n:g} a share of {silent_share(n):.4f} is silent, not less than half")
    if silent_share(n - 1) < 0.5:
        raise Wrong(f"n = {n - 1:g} would do already: {silent_share(n - 1):.4f} silent")
    return f"{silent_share(n):.4f} of the groups of {n:g} are silent: about ln 2 / p answers are needed."


EXERCISES = (
    Exercise(
        "by what number must the own mean's learning rate be multiplied for n = 4?",
        "Look at the table of section 2: what is left of the gradient?",
        4 / 3,
        "The own mean gives (n − 1)/n of the gradient, so n/(n − 1) = 4/3.",
        examine_factor,
    ),
    Exercise(
        "what is the standard deviation (ddof 0) of the rewards (1, 0, 0)?",
        "Mean 1/3. Average the squared deviations, then take the root.",
        float(np.sqrt(2) / 3),
        "√((4/9 + 1/9 + 1/9)/3) = √2/3, and (1, 1, 0) has the same.",
        examine_deviation,
    ),
    Exercise(
        "up to which x does the true update take the middle logit up, for rewards (0, 1, x)?",
        "Logit a moves by p_a (r_a − J). When is 1 above the mean reward J = 0.45·1 + 0.1·x?",
        5.5,
        "1 = 0.45 + 0.1 x gives x = 5.5.",
        examine_limit,
    ),
    Exercise(
        "how many answers must a group have, so that at p = 0.02 fewer than half of all groups are silent?",
        "A group is silent with probability pⁿ + (1 − p)ⁿ; the first is negligible here. Take logarithms.",
        35,
        "0.98³⁴ = 0.503 and 0.98³⁵ = 0.493.",
        examine_size,
    ),
)
