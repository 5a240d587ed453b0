"""Tasks from YAML: label copying, or prompts of your own with sampled answers and a reward."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.filled import filled, known, read_yaml, several
from vgrad_lab.checkpoints.findings import nearest
from vgrad_lab.checkpoints.rewards import Reward, importable
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask, Task
from vgrad_lab.checkpoints.tasks import LabelCopy

KINDS = ("label-copy", "sampled")
REWARD_KEYS = ("kind", "answer", "pattern", "function")


@dataclass(frozen=True)
class SampledFile:
    """What a task file with ``kind: sampled`` may hold, besides its reward.

    Args:
        prompts: file of prompts beside the task file: JSON lines (.jsonl), one object each, or text, one prompt a line.
        evaluation: another such file to measure and evaluate on; without it a share of ``prompts`` is held out.
        held_out: that share; 0 evaluates on the prompts trained on.
        seed: of the choice of what is held out.
        prompt: key of the prompt in an object.
        template: text with {key}s of an object, instead of ``prompt``.
        temperature, max_tokens, stop, eos: see `SampledTask`.
    """

    prompts: str
    evaluation: str | None = None
    held_out: float = 0.25
    seed: int = 0
    prompt: str = "prompt"
    template: str | None = None
    temperature: float = 1.0
    max_tokens: int = 16
    stop: tuple[str, ...] = ()
    eos: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}; give a share of the prompts, at least 0 and below 1")


def read_task(path: Path) -> Task:
    """A task from a YAML file; relative paths lie beside the file. Raises UserError: one line for each mistake."""
    given = read_yaml(path, "a task")
    if not isinstance(given, Mapping):
        raise UserError(f"{path} holds {type(given).__name__}; expected a mapping such as kind: sampled, prompts: FILE")
    return task_of(given, path.parent, str(path))


def task_of(given: object, folder: Path, where: str) -> Task:
    """A task from a mapping, or from the path of a task file.

    Without ``kind`` it is label copying. folder: where relative paths start. where: place of the mapping, for messages.
    Raises UserError for an unknown key or kind, a wrong type or value, or a file that cannot be read or used.
    """
    if isinstance(given, str):
        return read_task(folder / given)
    if not isinstance(given, Mapping):
        raise UserError(f"{where} holds {type(given).__name__}; expected a mapping, or the path of a task file")
    values = dict(given)
    kind = values.pop("kind", None)
    if kind is None and "prompts" in values:
        raise UserError(f"{where} has prompts but no kind; add kind: sampled")
    if kind in (None, "label-copy"):
        task: Task = filled(LabelCopy, values, where)
        return task
    if kind != "sampled":
        raise UserError(f"{where}: kind is {kind!r}; {nearest(str(kind), KINDS)}")
    reward = _reward(values.pop("reward", "exact"), f"{where}: reward")
    if isinstance(values.get("stop"), str):
        values["stop"] = several(values["stop"], str, where)
    file: SampledFile = filled(SampledFile, values, where)
    try:
        return _task(file, reward, folder)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _reward(given: object, where: str) -> Reward:
    """A reward from its kind alone or from a mapping."""
    values = known({"kind": given} if isinstance(given, str) else given, REWARD_KEYS, where)
    reward: Reward = filled(Reward, values, where)
    return reward if reward.function is None else importable(reward.function)


def _task(file: SampledFile, reward: Reward, folder: Path) -> SampledTask:
    prompts = read_examples(folder / file.prompts, key=file.prompt, template=file.template)
    if file.evaluation is not None:
        evaluation = read_examples(folder / file.evaluation, key=file.prompt, template=file.template)
        seen = {example.prompt for example in prompts}
        both = [example.prompt for example in evaluation if example.prompt in seen]
        if both:
            raise UserError(
                f"{len(both)} of {len(evaluation)} evaluation prompts also stand in {file.prompts}, such as "
                f"{both[0][:60]!r}; take them out of one of the files"
            )
    elif file.held_out:
        prompts, evaluation = hold_out(prompts, file.held_out, seed=file.seed)
    else:
        evaluation = ()
    return SampledTask(
        prompts,
        evaluation,
        reward=reward,
        temperature=file.temperature,
        max_tokens=file.max_tokens,
        stop=file.stop,
        eos=file.eos,
    )


def hold_out(
    examples: tuple[Example, ...], share: float, *, seed: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples to train on and to evaluate on: a share of the different prompts, at random, in the file's order.

    Raises UserError where fewer than two would be held out, or none left.
    """
    distinct = list(dict.fromkeys(example.prompt for example in examples))
    count = round(share * len(distinct))
    if count < 2 or count >= len(distinct):
        raise UserError(
            f"held_out {share:g} of {len(distinct)} different prompts is {count}, but 2 are needed and 1 must stay; "
            "give more prompts, an evaluation file, or held_out: 0 to evaluate on what is trained on"
        )
    order = np.random.default_rng(seed).permutation(len(distinct))
    kept = {distinct[i] for i in order[:count].tolist()}
    return (
        tuple(example for example in examples if example.prompt not in kept),
        tuple(example for example in examples if example.prompt in kept),
    )


def read_examples(path: Path, *, key: str = "prompt", template: str | None = None) -> tuple[Example, ...]:
    """Examples of a prompts file: JSON lines where its name ends in .jsonl, else text with one prompt a line.

    Raises UserError, with the line, for a file that is missing, empty or no UTF-8, a line that is no JSON object, or
    one without its prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prompts file {path}: {error}") from error
    rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"the prompts file {path} is empty; give one prompt a line")
    parsed = path.suffix == ".jsonl"
    found = [_row(line, f"{path}, line {n}") if parsed else {key: line} for n, line in rows]
    return tuple(_example(row, key, template, f"{path}, line {n}") for (n, _), row in zip(rows, found, strict=True))


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} holds a {type(row).__name__}; expected an object such as {{'prompt': …}}")
    return row


def _example(row: dict[str, Any], key: str, template: str | None, where: str) -> Example:
    """The prompt of a row: its text under a key, or a template with the row's values."""

    def value(name: str) -> str:
        if not isinstance(row.get(name), str | int | float):
            raise UserError(f"{where} has {name} {row.get(name)!r}; expected a text (it has {', '.join(row)})")
        return str(row[name])

    prompt = value(key) if template is None else re.sub(r"\{(\w+)\}", lambda match: value(match[1]), template)
    return Example(prompt, json.dumps(row, sort_keys=True, ensure_ascii=False))
