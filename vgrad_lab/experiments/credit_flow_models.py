"""Who takes part in the credit study, and what makes two models equal: parameters, or training compute."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec, TokenOnly
from vgrad_lab.sequence.tasks import Task
from vgrad_lab.sequence.trace import SequenceModel
from vgrad_lab.sequence.training import task_loss
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

MODELS = ("transformer", "gru-parameters", "gru-compute", "token-only")
"""The transformer, a GRU of its parameter count, a GRU of its width trained with its compute, and the control."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the transformer and of its training; the others are matched to it."""

    width: int = 48
    layers: int = 2
    heads: int = 4
    steps: int = 400
    batch: int = 32


@dataclass(frozen=True)
class Contestant:
    """A model before training, its number of training steps, and what they cost.

    parameters: trainable numbers, embedding and head included. flops: floating-point operations of the matrix products
    of the whole training, forward and backward, as torch counts them on one step.
    """

    model: SequenceModel
    steps: int
    parameters: int
    flops: int


def contestant(name: str, task: Task, sizes: Sizes, *, seed: int) -> Contestant:
    """One of ``MODELS`` for a task, in float32.

    gru-parameters: the width whose parameter count is nearest the transformer's, trained for as many steps.
    gru-compute: the transformer's width, trained for as many steps as cost the transformer's FLOPs.
    token-only: the transformer's width and steps. Raises ValueError for another name.
    """
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; give one of {', '.join(MODELS)}")
    reference = _transformer(task, sizes, seed)
    spent = flops_per_step(reference, task, sizes.batch) * sizes.steps
    if name == "transformer":
        return Contestant(reference, sizes.steps, parameters(reference), spent)
    if name == "token-only":
        model: SequenceModel = TokenOnly(_recurrent(task, sizes, sizes.width), seed=seed, dtype=torch.float32)
    else:
        width = sizes.width if name == "gru-compute" else _equal_width(task, sizes, parameters(reference))
        model = GRU(_recurrent(task, sizes, width), seed=seed, dtype=torch.float32)
    step = flops_per_step(model, task, sizes.batch)
    steps = max(1, round(spent / step)) if name == "gru-compute" else sizes.steps
    return Contestant(model, steps, parameters(model), step * steps)


def parameters(model: SequenceModel) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters())


def flops_per_step(model: SequenceModel, task: Task, batch: int) -> int:
    """FLOPs of the matrix products of one training step, forward and backward, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        task_loss(model, task, batch, rng=np.random.default_rng(0)).backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return int(counter.get_total_flops())


def _transformer(task: Task, sizes: Sizes, seed: int) -> Transformer:
    spec = TransformerSpec(
        task.vocab,
        width=sizes.width,
        layers=sizes.layers,
        heads=sizes.heads,
        head_width=sizes.width // sizes.heads,
        max_length=task.length + 2,
    )
    return Transformer(spec, seed=seed, dtype=torch.float32)


def _recurrent(task: Task, sizes: Sizes, width: int) -> RecurrentSpec:
    return RecurrentSpec(task.vocab, width=width, layers=sizes.layers)


def _equal_width(task: Task, sizes: Sizes, wanted: int) -> int:
    def miss(width: int) -> int:
        gates = sizes.layers * (6 * width**2 + 6 * width)
        return abs(gates + 2 * task.vocab * width - wanted)

    return min(range(1, 4 * sizes.width), key=miss)
