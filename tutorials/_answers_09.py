"""Answers and checks of tutorial 09."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from _exercises import Exercise, Unanswered, Wrong, asked, number

GROUP = 8
FEWEST = GROUP + 2
WORDS = ("both", "measure", "rl", "neither")
CHANGED = {
    "a label of a label task": "both",
    "a comment in the file of the reward function": "both",
    "α of the headroom": "measure",
    "the learning rate": "rl",
    "a second seed is added": "neither",
    "the prompts file moves to another folder": "neither",
}


def room(sizes):
    """Most bytes of two rungs that follow each other; the last one stands alone."""
    return max(a + b for a, b in zip(sizes, [*sizes[1:], 0], strict=True))


def examine_room(answer: Any) -> str:
    rng = np.random.default_rng(9)
    cases = [[6, 6, 6], [9, 1, 8, 1], [3, 1, 2], [7]]
    cases += [rng.integers(1, 100, n).tolist() for n in (1, 2, 5, 20)]
    for sizes in cases:
        given, right = number(asked(answer, list(sizes))), room(sizes)
        if given == right:
            continue
        if given == sum(sizes):
            raise Wrong("that keeps them all; a rung is deleted after use")
        if given == max(sizes):
            raise Wrong("the next rung arrives while one is in use: two are on the disk")
        if given == 2 * max(sizes):
            raise Wrong("enough, but too much: the two rungs on the disk follow each other, they need not be equal")
        if len(sizes) > 1 and given == sum(sorted(sizes)[-2:]):
            raise Wrong("the two largest are never there together unless they follow each other")
        raise Wrong(f"for {sizes} it is {right}, not {given:g}")
    return "Twenty rungs of 5.94 GB: 11.88 GB instead of 118.8, and a large neighbour costs more than a large rung."


def examine_fewest(answer: Any) -> str:
    given = number(answer)
    if given == FEWEST:
        return "One group for the costate, and two answers outside it for G: no answer meets itself."
    for value, words in (
        (GROUP, "the group alone gives the costate; G must come from other answers"),
        (GROUP + 1, "a covariance of reward and score needs two answers outside the group"),
        (2 * GROUP, "two whole groups are for E‖E[λ̂|q] − G‖²; the alignment is content with fewer"),
        (4, "that is Σ"),
    ):
        if given == value:
            raise Wrong(words)
    raise Wrong(f"in the picture groups of 4 begin at 6; {given:g} does not follow the same rule")


def examine_changed(answer: Any) -> str:
    given = asked(answer)
    if not isinstance(given, Mapping) or set(given) != set(CHANGED):
        raise Wrong(f"a dictionary with the keys {', '.join(map(repr, CHANGED))} was asked for")
    if any(word is None for word in given.values()):
        raise Unanswered
    if odd := [word for word in given.values() if word not in WORDS]:
        raise Wrong(f"say {', '.join(map(repr, WORDS))}, not {odd[0]!r}")
    if wrong := [key for key, word in CHANGED.items() if given[key] != word]:
        raise Wrong(f"{len(wrong)} of {len(CHANGED)} differ, among them {wrong[0]!r}")
    return "A comment changes no reward, but nobody can know that from outside: the file's text counts."


EXERCISES = (
    Exercise(
        "write the room that a ladder needs with one rung fetched ahead.",
        "Which two rungs are on the disk at one time? The largest sum of two that follow each other.",
        room,
        "max over k of b_k + b_{k+1}; a ladder of one rung needs that one.",
        examine_room,
    ),
    Exercise(
        "how many answers does the alignment need in groups of 8?",
        "Read the picture: at which number of answers does E⟨λ̂,G⟩ turn blue in groups of 4, and why there?",
        FEWEST,
        "A group of n makes λ̂; G = Cov(R, s) needs two answers that are not in it: n + 2.",
        examine_fewest,
    ),
    Exercise(
        "whose id changes?",
        "Measuring does not look at the optimiser, RL does not look at α; both look at what the task holds, not at "
        "where it lies. A new seed is a new unit.",
        CHANGED,
        "The hash takes weights, what the task holds, the stage's settings and the seed, and nothing else.",
        examine_changed,
    ),
)
