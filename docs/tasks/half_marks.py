"""A reward of one's own: half a mark for each of two labels."""

from typing import Any


def score(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """Share of the right answer's words that stand at their place in the completion."""
    right, given = row["answer"].split(), completion.split()
    return sum(a == b for a, b in zip(right, given, strict=False)) / len(right)
