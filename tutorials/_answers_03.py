"""Answers and checks of tutorial 03."""

from typing import Any

import numpy as np
from _exercises import Exercise, Unanswered, Wrong, asked, number

from vgrad_lab.advantage import leave_one_out
from vgrad_lab.discrete.estimator_moments import row
from vgrad_lab.discrete.estimator_types import random_problem, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS
from vgrad_lab.discrete.groups import group_expectation

KINDS = ("exact", "scaled", "bent")


def examine_multiple(answer: Any) -> str:
    multiple, right = number(answer), 8 * 512 / 7
    if np.isclose(multiple, 512, rtol=1e-3):
        raise Wrong("that makes up for the length; the group's own mean takes a share too")
    if np.isclose(multiple, 1 / right, rtol=1e-3):
        raise Wrong("that is what Dr. GRPO leaves of the gradient; the learning rate has to make up for it")
    if not np.isclose(multiple, right, rtol=1e-3):
        raise Wrong(f"with {multiple:g} the mean step is {multiple / right:.4f} of leave-one-out's, not 1")
    return "G L/(G − 1): a learning rate is only comparable together with its normaliser."


def advantage_of_an_answer_average(reward: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Leave-one-out times the length that the trainer divides by."""
    return leave_one_out(reward) * length


def bend_of(answer: Any, seed: int, group: int) -> float:
    """Share of the mean step that is not along ∇J, when the trainer divides by |o_i|."""
    problem = random_problem(seed=seed)
    length = problem.tree.length

    def coefficient(member: np.ndarray) -> np.ndarray:
        found = asked(answer, problem.reward[member], length[member])
        if np.shape(found) != member.shape:
            raise Wrong(f"the advantages have shape {np.shape(found)}; one per answer is asked for, {member.shape}")
        return np.asarray(found, dtype=float) / length[member]

    score = problem.direction(1.0 * problem.tree.scored)
    mean, gradient = group_expectation(problem.probability, score, coefficient, group=group).mean, problem.gradient
    size = float(np.linalg.norm(mean))
    if not size > 0 or not np.isfinite(size):
        raise Wrong("the mean step is zero or not a number")
    along = float(mean @ gradient / (gradient @ gradient))
    if along <= 0:
        raise Wrong("the mean step goes downhill: look at the sign")
    return float(np.linalg.norm(mean - along * gradient)) / size


def examine_advantage(answer: Any) -> str:
    if not callable(answer):
        asked(answer)  # says so where nothing was answered
        raise Wrong("a function of reward and length was asked for")
    worst = max(bend_of(answer, seed, group) for seed in (0, 1) for group in (2, 3))
    if worst > 1e-9:
        raise Wrong(
            f"{100 * worst:.2f} % of the mean step points elsewhere. After the division by |o_i|, what is left of the "
            "reward, and what of the baseline? Both must be free of |o_i|"
        )
    return "The length cancels in the reward and in the baseline; a constant factor would not matter."


def examine_groups(answer: Any) -> str:
    n = number(answer)
    problem = reference_problem()
    found = row(ESTIMATORS["grpo"], problem, group=4)
    bend = float(problem.gradient @ problem.gradient) * (1 / found.cosine**2 - 1)
    if n != round(n) or n < 1:
        raise Wrong(f"a whole number of groups, at least 1, was asked for; this is {n:g}")
    if found.rescaled / n >= bend:
        raise Wrong(f"with N = {n:g} the noise is {found.rescaled / n:.4f}, not below the bend of {bend:.4f}")
    if n > 1 and found.rescaled / (n - 1) < bend:
        raise Wrong(f"N = {n - 1:g} would do already: noise {found.rescaled / (n - 1):.4f}, bend {bend:.4f}")
    return f"bend² {bend:.4f} against Var/(c²N) = {found.rescaled:.4f}/{n:g}: from here on more groups help little."


def examine_table(answer: Any) -> str:
    table = asked(answer)
    if not isinstance(table, dict) or set(table) != set(TABLE):
        raise Wrong(f"a dictionary with the keys {', '.join(TABLE)} was asked for")
    if any(value is None for value in table.values()):
        raise Unanswered
    if strange := [value for value in table.values() if value not in KINDS]:
        raise Wrong(f"each value is one of {', '.join(KINDS)}, not {strange[0]!r}")
    if wrong := [name for name in TABLE if table[name] != TABLE[name]]:
        raise Wrong(f"{len(wrong)} of {len(TABLE)} differ, among them {wrong[0]!r}; run table() on such a problem")
    return "With two rewards and one length every centred rule is parallel; only the scale differs."


TABLE = {"rloo": "exact", "group_mean": "scaled", "grpo": "scaled", "dapo": "scaled", "reinforce": "exact"}
EXERCISES = (
    Exercise(
        "by what number must the learning rate be multiplied for Dr. GRPO with G = 8, L = 512?",
        "E05.mean gives the mean step of Dr. GRPO as a multiple of ∇J.",
        8 * 512 / 7,
        "Dr. GRPO makes (G − 1)/(G L) of the step, so G L/(G − 1) = 585.14.",
        examine_multiple,
    ),
    Exercise(
        "which advantages make the mean step right although the trainer divides by |o_i|?",
        "Multiply by something that the trainer's division takes away again: the whole advantage, not the reward alone.",
        advantage_of_an_answer_average,
        "|o_i| times leave-one-out. |o_i| R_i minus the others' mean of |o_j| R_j is not enough: its baseline is left "
        "divided by |o_i|, and E[g/|o|] is not zero.",
        examine_advantage,
    ),
    Exercise(
        "from which number of groups on is GRPO's bend larger than its noise?",
        "Take Var/c² and bend² of grpo from the cell above and divide.",
        20,
        "0.8130/0.0414 = 19.6, so 20 groups.",
        examine_groups,
    ),
    Exercise(
        "what is each estimator in expectation, for rewards 0 and 1 and answers of one length?",
        "What can still bend? Lengths can't, and two rewards can't. What remains is a factor.",
        TABLE,
        "group_mean has (G − 1)/G; grpo and dapo w_G(p)/T, dapo over P(mixed) besides.",
        examine_table,
    ),
)
