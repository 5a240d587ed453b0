"""Small sequence tasks whose right credit is known by construction: each answer is one token shown before."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor


@dataclass(frozen=True)
class RecallTask:
    """Associative recall: ``pairs`` key–value pairs, then as many of these keys again, each with its value.

    Keys are tokens 0 … keys−1 and distinct in a sequence; values are tokens keys … keys+values−1. Values and queries
    are drawn with replacement, so that no answer follows by elimination.
    """

    pairs: int = 4
    keys: int = 8
    values: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.keys or self.values < 1:
            raise ValueError(
                f"{self.pairs} pairs, {self.keys} keys, {self.values} values; give 1 ≤ pairs ≤ keys, values ≥ 1"
            )

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return self.keys + self.values

    @property
    def length(self) -> int:
        """Number of inputs."""
        return 4 * self.pairs - 1

    @property
    def queries(self) -> tuple[int, ...]:
        """Input positions of the repeated keys: the logits there must name the value."""
        return tuple(range(2 * self.pairs, 4 * self.pairs, 2))


@dataclass(frozen=True)
class DelayedTask:
    """Delayed recall: a value, ``delay`` other values drawn like it, then the query token: name the first value.

    Values are tokens 0 … values−1, the query is token ``values``. What to keep follows from its position alone, and
    the lag is always delay + 1.
    """

    delay: int = 9
    values: int = 8

    def __post_init__(self) -> None:
        if self.delay < 1 or self.values < 2:
            raise ValueError(f"delay {self.delay}, {self.values} values; give delay ≥ 1 and values ≥ 2")

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return self.values + 1

    @property
    def length(self) -> int:
        """Number of inputs."""
        return self.delay + 2

    @property
    def queries(self) -> tuple[int, ...]:
        """The last input position alone."""
        return (self.delay + 1,)


@dataclass(frozen=True)
class LabelTask:
    """Label copying: a marker and its label once among ``fill`` fillers, the same marker again at the end.

    The label-copying prompts of the checkpoints floor ("Label: A … Label:") without a tokenizer. Labels are tokens
    0 … labels−1, then markers, then fillers; the statement stands anywhere before the last marker.
    """

    fill: int = 8
    labels: int = 6
    markers: int = 3
    fillers: int = 4

    def __post_init__(self) -> None:
        if self.fill < 1 or self.labels < 2 or self.markers < 1 or self.fillers < 1:
            raise ValueError(
                f"fill {self.fill}, {self.labels} labels, {self.markers} markers, {self.fillers} fillers; "
                "give labels ≥ 2 and at least 1 of the others"
            )

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return self.labels + self.markers + self.fillers

    @property
    def length(self) -> int:
        """Number of inputs."""
        return self.fill + 3

    @property
    def queries(self) -> tuple[int, ...]:
        """The last input position alone."""
        return (self.fill + 2,)


Task = RecallTask | DelayedTask | LabelTask


@dataclass(frozen=True)
class TaskBatch:
    """Inputs, the token that follows each input, and where the answers come from.

    scored: positions whose logits must name an answer. source: for each of them (the Q axis, in order) the position
    where its answer was shown. shown: positions that could have been a source, by the kind of their token.
    """

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    scored: Bool[Tensor, " T"]
    source: Int[Tensor, "B Q"]
    shown: Bool[Tensor, " T"]


def draw_recall(task: RecallTask, batch: int, *, rng: np.random.Generator) -> TaskBatch:
    """Draw ``batch`` recall sequences, T = 4·pairs − 1; ``shown`` are the values of the pairs."""
    _check_batch(batch)
    keys = rng.permuted(np.tile(np.arange(task.keys), (batch, 1)), axis=1)[:, : task.pairs]
    values = rng.integers(task.keys, task.vocab, (batch, task.pairs))
    order = rng.integers(0, task.pairs, (batch, task.pairs))
    shown = np.stack([keys, values], axis=2).reshape(batch, -1)
    asked = np.stack([np.take_along_axis(a, order, 1) for a in (keys, values)], axis=2).reshape(batch, -1)
    return _batch(task, np.concatenate([shown, asked], axis=1), 2 * order + 1, range(1, 2 * task.pairs, 2))


def draw_delayed(task: DelayedTask, batch: int, *, rng: np.random.Generator) -> TaskBatch:
    """Draw ``batch`` delayed-recall sequences, T = delay + 2; ``shown`` are all values."""
    _check_batch(batch)
    values = rng.integers(0, task.values, (batch, task.delay + 1))
    query = np.full((batch, 1), task.values)
    tokens = np.concatenate([values, query, values[:, :1]], axis=1)
    return _batch(task, tokens, np.zeros((batch, 1), dtype=np.int64), range(task.delay + 1))


def draw_labels(task: LabelTask, batch: int, *, rng: np.random.Generator) -> TaskBatch:
    """Draw ``batch`` label-copying sequences, T = fill + 3; ``shown`` are all positions before the last marker."""
    _check_batch(batch)
    label = rng.integers(0, task.labels, batch)
    marker = rng.integers(task.labels, task.labels + task.markers, batch)
    start = rng.integers(0, task.fill + 1, batch)
    tokens = rng.integers(task.labels + task.markers, task.vocab, (batch, task.fill + 4))
    rows = np.arange(batch)
    tokens[rows, start], tokens[rows, start + 1] = marker, label
    tokens[:, -2], tokens[:, -1] = marker, label
    return _batch(task, tokens, (start + 1)[:, None], range(task.fill + 2))


def draw(task: Task, batch: int, *, rng: np.random.Generator) -> TaskBatch:
    """Draw ``batch`` sequences of any of the tasks; raises ValueError for a batch below 1."""
    if isinstance(task, RecallTask):
        return draw_recall(task, batch, rng=rng)
    return draw_delayed(task, batch, rng=rng) if isinstance(task, DelayedTask) else draw_labels(task, batch, rng=rng)


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise ValueError(f"batch is {batch}; give at least 1")


def _batch(task: Task, tokens: ndarray, source: ndarray, shown: range) -> TaskBatch:
    marks = torch.zeros(2, task.length, dtype=torch.bool)
    marks[0, list(task.queries)] = True
    marks[1, list(shown)] = True
    both = torch.from_numpy(tokens)
    return TaskBatch(both[:, :-1], both[:, 1:], marks[0], torch.from_numpy(source), marks[1])
