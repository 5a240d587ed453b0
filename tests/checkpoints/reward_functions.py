"""Reward functions that tests name in tasks, right and wrong ones."""

from typing import Any

not_callable = 3


def spaced(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """1 for the answer with one space before it and nothing else."""
    return float(completion == f" {row['answer']}")


def share_of_vowels(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """A reward that is not binary."""
    return sum(c in "aeiou" for c in completion) / (1 + len(completion))


def none(prompt: str, completion: str, row: dict[str, Any]) -> Any:
    """Forgets to return."""


def nan(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """Not a number."""
    return float("nan")


def text(prompt: str, completion: str, row: dict[str, Any]) -> Any:
    """A number as text."""
    return "1"


def raises(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """Fails on every answer."""
    return float(row["no such key"])


def too_large(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """An integer beyond the largest float."""
    return 10**400


def leaves(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """Ends the process, if it is let."""
    raise SystemExit(3)
