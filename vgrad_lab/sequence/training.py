"""Supervised training of small sequence models, deterministic given its seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.sequence.credit_flow import token_logprob
from vgrad_lab.sequence.tasks import RecallTask, draw_recall
from vgrad_lab.sequence.trace import SequenceModel, Trace


@dataclass(frozen=True)
class RecallQuality:
    """Quality at the queries: share of right answers, mean entropy and mean −log π of the right value (nats)."""

    accuracy: float
    entropy: float
    loss: float


def train_recall(
    model: SequenceModel, task: RecallTask, *, steps: int, batch: int = 64, learning_rate: float = 5e-3, seed: int = 0
) -> list[float]:
    """Train in place by AdamW on fresh batches, clipped at norm 1, cosine to 0; returns the loss of each step, nats.

    Raises ValueError for a negative number of steps or a model whose vocabulary is not the task's.
    """
    if steps < 0 or model.vocab != task.vocab:
        raise ValueError(f"steps {steps} and vocabulary {model.vocab}; give steps ≥ 0 and vocabulary {task.vocab}")
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 * (1 + np.cos(np.pi * k / max(steps, 1))))
    losses = []
    for _ in range(steps):
        cases = draw_recall(task, batch, rng=rng)
        result: Trace = model(cases.inputs)
        loss = -token_logprob(result.logits, cases.targets)[:, cases.scored].mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def recall_quality(model: SequenceModel, task: RecallTask, *, batch: int = 512, seed: int = 1) -> RecallQuality:
    """Measure a model on fresh sequences."""
    cases = draw_recall(task, batch, rng=np.random.default_rng(seed))
    with torch.no_grad():
        logits: Tensor = model(cases.inputs).logits
    scored, right = logits[:, cases.scored], cases.targets[:, cases.scored]
    entropy = -(scored.log_softmax(-1).exp() * scored.log_softmax(-1)).sum(-1)
    loss = -token_logprob(logits, cases.targets)[:, cases.scored]
    return RecallQuality(float((scored.argmax(-1) == right).double().mean()), float(entropy.mean()), float(loss.mean()))
