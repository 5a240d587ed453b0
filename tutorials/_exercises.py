"""Exercises of the tutorials: `check` reads an answer and says what to look at, `hint` helps, `solution` tells.

The answers stand in `_answers_*.py` beside this file; the notebooks do not hold them.
"""

import importlib
import inspect
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TUTORIALS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10")


class Wrong(Exception):
    """An answer that is not right yet; the text says what to look at."""


class Unanswered(Exception):
    """An answer that is still None somewhere."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    task: what is asked, in a line. hint: a push. answer: a right answer, a value or a function. why: the reason.
    examine: takes an answer, returns a line of praise, raises Wrong otherwise.
    """

    task: str
    hint: str
    answer: Any
    why: str
    examine: Callable[[Any], str]


def exercises() -> dict[str, Exercise]:
    """All exercises by number, "00.1" and so on."""
    found = {}
    for tutorial in TUTORIALS:
        module = importlib.import_module(f"_answers_{tutorial}")
        found |= {f"{tutorial}.{i}": e for i, e in enumerate(module.EXERCISES, start=1)}
    return found


def find(number: str) -> Exercise:
    """One exercise. Raises ValueError for a number that does not exist."""
    known = exercises()
    if number not in known:
        raise ValueError(f"no exercise {number!r}; there are {', '.join(known)}")
    return known[number]


def asked(answer: Any, *arguments: Any) -> Any:
    """The value of an answer: itself or, for a function, what it returns. Raises Unanswered for None."""
    value = answer(*arguments) if callable(answer) else answer
    if value is None or value is Ellipsis:
        raise Unanswered
    return value


def number(answer: Any) -> float:
    """An answer that must be one finite number. Raises Unanswered for None, Wrong for anything else."""
    value = asked(answer)
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise Wrong(f"one number was asked for, this is {value!r}") from error
    if not math.isfinite(found):
        raise Wrong(f"one finite number was asked for, this is {found}")
    return found


def check(exercise: str, answer: Any) -> bool:
    """Print whether an answer is right and, if not, what to look at; returns True for right. It never raises."""
    e = find(exercise)
    try:
        praise = e.examine(answer)
    except Unanswered:
        print(f"exercise {exercise}: {e.task}\nReplace None by your answer and run both cells again.")
    except Wrong as error:
        print(f"exercise {exercise}: not yet. {error}\nA push: hint({exercise!r}); the answer: solution({exercise!r})")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        print(f"exercise {exercise}: your answer raised {type(error).__name__} in line {frame.lineno}: {error}")
    else:
        print(f"exercise {exercise}: right. {praise}")
        return True
    return False


def hint(exercise: str) -> None:
    """Print a push in the right direction."""
    print(find(exercise).hint)


def solution(exercise: str) -> None:
    """Print the answer and why it is right."""
    e = find(exercise)
    if inspect.isfunction(e.answer):
        print(inspect.getsource(e.answer))
    elif isinstance(e.answer, int | float | dict):
        print(e.answer)
    print(e.why)
