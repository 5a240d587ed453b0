"""Supervised training of small sequence models, deterministic given its seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.sequence.credit_flow import token_logprob
from vgrad_lab.sequence.tasks import Task, draw
from vgrad_lab.sequence.trace import SequenceModel, Trace


@dataclass(frozen=True)
class Quality:
    """Quality at the queries: share of right answers, mean entropy and mean −log π of the right answer (nats)."""

    accuracy: float
    entropy: float
    loss: float


def train_stages(
    model: SequenceModel, task: Task, *, steps: int, stops: Sequence[int] = (), batch: int = 64,
    learning_rate: float = 5e-3, seed: int = 0,
) -> Iterator[list[float]]:  # fmt: skip
    """Train in place and pause after each number of steps in ``stops``: yields the losses since the last pause, nats.

    AdamW on fresh batches, clipped at norm 1, cosine to 0 over all ``steps``. A pause changes nothing in what follows;
    what the caller does to the model meanwhile does.

    stops: increasing, 0 … steps; 0 pauses before the first step. Training ends with the last stop.
    Raises ValueError for other stops, negative steps or a model whose vocabulary is not the task's.
    """
    if steps < 0 or model.vocab != task.vocab:
        raise ValueError(f"steps {steps} and vocabulary {model.vocab}; give steps ≥ 0 and vocabulary {task.vocab}")
    if list(stops) != sorted(set(stops)) or any(not 0 <= stop <= steps for stop in stops):
        raise ValueError(f"stops are {list(stops)}; give increasing numbers of 0 … {steps}")
    return _train(model, task, steps, stops, batch, learning_rate, np.random.default_rng(seed))


def train(
    model: SequenceModel, task: Task, *, steps: int, batch: int = 64, learning_rate: float = 5e-3, seed: int = 0
) -> list[float]:
    """``train_stages`` without a pause; returns the loss of each step, nats."""
    stages = train_stages(model, task, steps=steps, stops=(steps,), batch=batch, learning_rate=learning_rate, seed=seed)
    return [loss for losses in stages for loss in losses]


def quality(model: SequenceModel, task: Task, *, batch: int = 512, seed: int = 1) -> Quality:
    """Measure a model on fresh sequences."""
    cases = draw(task, batch, rng=np.random.default_rng(seed))
    with torch.no_grad():
        logits: Tensor = model(cases.inputs).logits
    scored, right = logits[:, cases.scored], cases.targets[:, cases.scored]
    entropy = -(scored.log_softmax(-1).exp() * scored.log_softmax(-1)).sum(-1)
    loss = -token_logprob(logits, cases.targets)[:, cases.scored]
    return Quality(float((scored.argmax(-1) == right).double().mean()), float(entropy.mean()), float(loss.mean()))


def task_loss(model: SequenceModel, task: Task, batch: int, *, rng: np.random.Generator) -> Tensor:
    """Mean −log π of the right answers over fresh sequences, differentiable, nats."""
    cases = draw(task, batch, rng=rng)
    result: Trace = model(cases.inputs)
    return -token_logprob(result.logits, cases.targets)[:, cases.scored].mean()


def _train(
    model: SequenceModel, task: Task, steps: int, stops: Sequence[int], batch: int, learning_rate: float,
    rng: np.random.Generator,
) -> Iterator[list[float]]:  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 * (1 + np.cos(np.pi * k / max(steps, 1))))
    done = 0
    for stop in stops:
        losses = []
        for _ in range(stop - done):
            loss = task_loss(model, task, batch, rng=rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        done = stop
        yield losses
