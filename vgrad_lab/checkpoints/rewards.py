"""Rewards of sampled answers: exact match, a regular expression, or a function of the user's own.

A function is named in the user's own task file and imported from the user's own Python path; no code of a checkpoint or
of a hub repository is ever imported.
"""

import hashlib
import importlib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from vgrad_lab.checkpoints.errors import UserError

Kind = Literal["exact", "regex", "importable"]
RewardFunction = Callable[[str, str, dict[str, Any]], float]
"""(prompt, completion, row of the prompts file) -> reward, a finite number."""


@dataclass(frozen=True)
class Reward:
    r"""What an answer is worth.

    exact: 1 where the answer equals the row's right answer, white space at both ends left out, else 0.
    regex: the first match of ``pattern`` in the answer; with a group 1, 1 where it equals the right answer (white space
    as above), without a group 1 where there is a match; else 0.
    importable: the number that ``function``, "package.module:name", gives for (prompt, completion, row).

    Args:
        kind: one of these.
        answer: key of the right answer in a row (exact, and regex with a group).
        pattern: Python regular expression (regex).
        function: where the function is (importable); see `importable`.
        source: SHA-256 of the module's file, so that a changed function is another task.

    Raises:
        UserError: an unknown kind, or one without what it needs.
    """

    kind: Kind = "exact"
    answer: str = "answer"
    pattern: str | None = None
    function: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"reward kind is {self.kind!r}; choose one of {', '.join(get_args(Kind))}")
        for key, kind in (("pattern", "regex"), ("function", "importable")):
            if (getattr(self, key) is not None) != (self.kind == kind):
                need = "needs a" if self.kind == kind else "takes no"
                raise UserError(f"a reward of kind {self.kind} {need} {key}; {key} belongs to kind: {kind}")
        if self.pattern is not None:
            _compiled(self.pattern)
        if self.function is not None and not re.fullmatch(r"[\w.]+:\w+", self.function):
            raise UserError(f"reward function is {self.function!r}; write it as 'package.module:name'")

    @property
    def needs_answer(self) -> bool:
        """Whether every row must hold a right answer."""
        return self.kind == "exact" or (self.pattern is not None and _compiled(self.pattern).groups > 0)


def importable(function: str) -> Reward:
    """The reward of a function of yours, imported once to see that it is there, with its file's hash.

    function: "package.module:name"; the module must be importable (installed, or its folder on PYTHONPATH). Only the
    text of that one file enters the task's identity. Raises UserError when it cannot be imported or called.
    """
    reward = Reward(kind="importable", function=function)
    load_function(function)
    return replace(reward, source=_source(function))


def check_source(reward: Reward) -> None:
    """Raise UserError when the file of a reward's function is no longer the one that the task was read with."""
    if reward.function is not None and reward.source not in (None, _source(reward.function)):
        raise UserError(
            f"the file of reward function {reward.function!r} has changed since the task was read, or another one "
            "stands on this machine's PYTHONPATH; start again, so that the records name what was run"
        )


def _source(function: str) -> str | None:
    """SHA-256 of the file of a function's module; None for one without a file."""
    try:
        spec = importlib.util.find_spec(function.split(":")[0])
    except (ImportError, ValueError):  # ValueError: __main__
        return None
    file = Path(spec.origin) if spec is not None and spec.origin else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None


@cache
def load_function(name: str) -> RewardFunction:
    """The function of "package.module:name". Raises UserError when it is not there or cannot be called."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever the user's own module does when it is imported
        raise UserError(
            f"reward function {name!r} cannot be imported ({_words(error)}); install its package or "
            "put the folder of its module on PYTHONPATH"
        ) from error
    if not callable(found):
        raise UserError(f"reward function {name!r} is a {type(found).__name__}; expected f(prompt, completion, row)")
    return cast(RewardFunction, found)


def score(reward: Reward, *, prompt: str, completion: str, row: str) -> float:
    """Reward of one answer, a finite number.

    completion: the answer's text without its end token and from before its stop string. row: JSON of the prompt's row.
    Raises UserError when the row has no right answer, or a function raises or gives anything but a finite number.
    """
    fields = json.loads(row)
    if reward.kind == "importable":
        return _number(_called(str(reward.function), prompt, completion, fields), str(reward.function), prompt)
    if reward.kind == "exact":
        return float(completion.strip() == right_answer(reward, fields, prompt))
    pattern = _compiled(str(reward.pattern))
    match = pattern.search(completion)
    if match is None or not pattern.groups:
        return float(match is not None)
    return float((match[1] or "").strip() == right_answer(reward, fields, prompt))


def right_answer(reward: Reward, fields: dict[str, Any], prompt: str) -> str:
    """The right answer of a row, stripped; numbers as they stand in JSON. Raises UserError when there is none."""
    answer = fields.get(reward.answer)
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise UserError(
            f"prompt {prompt[:60]!r} has {reward.answer} {answer!r}; a reward of kind {reward.kind} needs a text or a "
            "number there (reward: answer: names another key)"
        )
    return str(answer).strip()


def _called(name: str, prompt: str, completion: str, fields: dict[str, Any]) -> Any:
    try:
        return load_function(name)(prompt, completion, fields)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        raise UserError(
            f"reward function {name!r} raised {_words(error)} for the prompt {prompt[:60]!r} and the "
            f"answer {completion[:60]!r}; make it return a number for every answer"
        ) from error


def _words(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _number(value: Any, name: str, prompt: str) -> float:
    with suppress(OverflowError):  # an integer beyond the largest float
        if isinstance(value, Real | np.bool_) and math.isfinite(float(value)):
            return float(value)
    raise UserError(
        f"reward function {name!r} returned {repr(value)[:60]} for the prompt {prompt[:60]!r}; expected a finite number"
    )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise UserError(f"reward pattern {pattern!r} is no regular expression ({error})") from error
