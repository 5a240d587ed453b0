"""Small sequence tasks whose right credit is known by construction."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
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
    def queries(self) -> tuple[int, ...]:
        """Input positions of the repeated keys: the logits there must name the value."""
        return tuple(range(2 * self.pairs, 4 * self.pairs, 2))


@dataclass(frozen=True)
class RecallBatch:
    """Inputs, the token that follows each input, and for each query the position where its value was shown."""

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    scored: Bool[Tensor, " T"]
    source: Int[Tensor, "B Q"]


def draw_recall(task: RecallTask, batch: int, *, rng: np.random.Generator) -> RecallBatch:
    """Draw ``batch`` recall sequences; T = 4·pairs − 1, and the Q axis of ``source`` follows ``task.queries``."""
    if batch < 1:
        raise ValueError(f"batch is {batch}; give at least 1")
    keys = rng.permuted(np.tile(np.arange(task.keys), (batch, 1)), axis=1)[:, : task.pairs]
    values = rng.integers(task.keys, task.vocab, (batch, task.pairs))
    order = rng.integers(0, task.pairs, (batch, task.pairs))
    shown = np.stack([keys, values], axis=2).reshape(batch, -1)
    asked = np.stack([np.take_along_axis(a, order, 1) for a in (keys, values)], axis=2).reshape(batch, -1)
    tokens = torch.from_numpy(np.concatenate([shown, asked], axis=1))
    scored = torch.zeros(tokens.shape[1] - 1, dtype=torch.bool)
    scored[list(task.queries)] = True
    return RecallBatch(tokens[:, :-1], tokens[:, 1:], scored, torch.from_numpy(2 * order + 1))
