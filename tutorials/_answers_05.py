"""Answers and checks of tutorial 05."""

from typing import Any

import numpy as np
from _exercises import Exercise, Unanswered, Wrong, asked

ENTRIES = {"embedding": 66, "h^(L)": 11}
RECURSIONS = {
    "transformer, embedding": "wrong",
    "transformer, h^(L)": "empty",
    "GRU of one layer, h^(L)": "exact",
    "GRU of two layers, first layer": "wrong",
    "token-only, h^(L)": "empty",
}


def table(answer: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """An answer that must be a dictionary with these keys. Raises Unanswered while one is None, Wrong otherwise."""
    given = asked(answer)
    if not isinstance(given, dict) or set(given) != set(keys):
        raise Wrong(f"give a dictionary with {', '.join(map(repr, keys))}")
    if any(value is None for value in given.values()):
        raise Unanswered
    return given


def examine_entries(answer: Any) -> str:
    given = table(answer, tuple(ENTRIES))
    if given["h^(L)"] != ENTRIES["h^(L)"]:
        raise Wrong("at h^(L) a state acts on no other position: what is left of an 11 × 11 matrix?")
    if given["embedding"] != ENTRIES["embedding"]:
        raise Wrong("at the embedding logit k has credit for t = 0 … k: count the entries on and below the diagonal")
    return "11·12/2 = 66 against 11."


def selectivity(norms, source, shown):
    """Mean over the marked entries ÷ mean over the unmarked ones among the candidates."""
    asked_for = np.arange(norms.shape[1])[None, :] == source[:, None]
    return norms[asked_for].mean() / norms[shown[None, :] & ~asked_for].mean()


def examine_selectivity(answer: Any) -> str:
    rng = np.random.default_rng(0)
    for rows in (1, 3, 8):
        norms, shown = rng.random((rows, 7)), np.array([0, 1, 0, 1, 0, 1, 0], dtype=bool)
        source = rng.choice([1, 3, 5], rows)
        given = float(asked(answer, norms, source, shown))
        right = float(selectivity(norms, source, shown))
        everything = norms[np.arange(rows), source].mean() / norms[:, shown].mean()
        if np.isclose(given, everything, rtol=1e-9):
            raise Wrong("the denominator holds the sources too: it is for the *other* candidates")
        if np.isclose(given, 1 / right, rtol=1e-9):
            raise Wrong("upside down: asked for ÷ others")
        if not np.isclose(given, right, rtol=1e-9):
            raise Wrong(
                f"for {rows} rows this is {given:.4f}, not {right:.4f}; are positions that were no candidate in it?"
            )
    return "Credit per entry, so that one asked for and many others compare."


def examine_recursions(answer: Any) -> str:
    given = table(answer, tuple(RECURSIONS))
    for case, guess in given.items():
        if guess not in ("exact", "empty", "wrong"):
            raise Wrong(f'{case}: "exact", "empty" or "wrong", not {guess!r}')
    wrong = [case for case, guess in given.items() if guess != RECURSIONS[case]]
    if wrong:
        raise Wrong(
            f"{len(wrong)} of {len(RECURSIONS)} differ, among them {wrong[0]!r}. Does this state reach the next one of its "
            "own layer, and does it reach the future in any other way?"
        )
    return "One step is exact where the state of one layer is all that the future reads."


EXERCISES = (
    Exercise(
        "how many entries of an 11 × 11 credit matrix are not zero, at the embedding and at h^(L)?",
        "Above the diagonal is the future. Within a layer of a transformer, which Jacobians are zero?",
        ENTRIES,
        "At the embedding all on and below the diagonal, 66; at h^(L) the diagonal alone, 11.",
        examine_entries,
    ),
    Exercise(
        "write selectivity(norms, source, shown).",
        "Make a mask (B, T) that is true at the source of each row, by comparing np.arange(T) with source[:, None].",
        selectivity,
        "Two means: over the mask, and over the candidates outside it.",
        examine_selectivity,
    ),
    Exercise(
        "where is eq. 15 exact, empty or wrong?",
        "Ask of each state: does it reach the next state of its own layer (J ≠ 0)? Does it reach the future another way, "
        "through other layers?",
        RECURSIONS,
        "J = 0 and no other way: empty. J ≠ 0 and no other way: exact. Another way, through higher layers: wrong.",
        examine_recursions,
    ),
)
