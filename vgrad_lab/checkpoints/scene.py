"""What a forecast looks at: a model at its present weights, a few prompts, the protocol."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, divergence
from vgrad_lab.checkpoints.probe import answer_logits, micro_batches, on_device
from vgrad_lab.checkpoints.tasks import PromptBatch

Weights = list[Tensor]
"""One tensor per trained parameter."""


@dataclass(frozen=True)
class ForecastSettings:
    """What a forecast may spend.

    passes: gradient measurements. prompts: drawn per pass. micro_batch: prompts per gradient sample, for the noise.
    points: forward evaluations per ray. evaluation_prompts: drawn for the reward at the start. ray_prompts: how many of
    them stand for all along the rays (``thinned``). turn: rise of the logit after which the
    gradient is measured again. width: of the band, None for the calibrated one of the optimiser.
    """

    passes: int = 3
    prompts: int = 64
    micro_batch: int = 8
    points: int = 4
    evaluation_prompts: int = 256
    ray_prompts: int = 30
    turn: float = 0.5
    width: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.passes, self.points, self.evaluation_prompts, self.ray_prompts) < 1 or self.turn <= 0:
            given = f"passes {self.passes}, points {self.points}, evaluation_prompts {self.evaluation_prompts}, "
            given += f"ray_prompts {self.ray_prompts}, turn {self.turn}"
            raise UserError(f"{given}: give positive numbers")
        if self.micro_batch < 1 or self.prompts < 2 * self.micro_batch:
            raise UserError(
                f"prompts is {self.prompts} and micro_batch {self.micro_batch}; the noise of the gradient needs at "
                "least two micro-batches of at least one prompt"
            )


@dataclass(frozen=True)
class Scene:
    """What a forecast looks at: a model with its trained parameters, evaluation prompts, the protocol, the budget.

    updates: of the whole run. start: logits of the evaluation prompts at the checkpoint, for the KL penalty only.
    """

    model: Any
    parameters: Weights
    evaluation: PromptBatch
    rl: GrpoSettings
    settings: ForecastSettings
    updates: int
    start: Tensor | None = None


@contextmanager
def kept(model: Any, parameters: Weights) -> Iterator[None]:
    """Dropout off inside; at the end the weights are put back, bit for bit, and gradients dropped."""
    before = [p.detach().clone() for p in parameters]
    training = [m for m in model.modules() if m.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
                p.grad = None


def move(parameters: Weights, direction: Weights, length: float) -> None:
    """θ ← θ + length·direction."""
    with torch.no_grad():
        for p, d in zip(parameters, direction, strict=True):
            p.add_(d, alpha=length)


def start_logits(model: Any, batch: PromptBatch, micro_batch: int) -> Float[Tensor, "Q V"]:
    """Logits of every prompt at the present weights."""
    with torch.no_grad():
        parts = [answer_logits(model, *on_device(model, batch, rows)[:2]) for rows in micro_batches(batch, micro_batch)]
    return torch.cat(parts)


def look(s: Scene) -> tuple[Float[ndarray, " Q"], float]:
    """p(y*|q) of every evaluation prompt over the full vocabulary, and β·KL from the start (0 without a penalty)."""
    found, penalty = [], 0.0
    with torch.no_grad():
        for rows in micro_batches(s.evaluation, s.rl.micro_batch):
            tokens, last, target = on_device(s.model, s.evaluation, rows)
            logits = answer_logits(s.model, tokens, last)
            p = torch.softmax(logits.double(), -1)
            found.append(p[torch.arange(len(target), device=p.device), target].cpu().numpy())
            if s.start is not None:
                kl = divergence(logits, s.start[rows]).double().cpu().numpy()
                penalty += s.rl.kl * float(s.evaluation.weight[rows] @ kl)
    success = np.concatenate(found)
    if not np.isfinite([*success, penalty]).all():
        raise UserError("the reward is not finite along the forecast; lower the learning rate or the number of updates")
    return success.clip(0, 1), max(penalty, 0.0)


def thinned(s: Scene, success: Float[ndarray, " Q"]) -> Scene:
    """The scene with about ``ray_prompts`` prompts that stand for all: the middle one of each stratum of like success.

    Strata of about equal weight; each prompt kept takes its stratum's weight.
    """
    whole, size = s.evaluation, s.settings.ray_prompts
    if len(success) <= size:
        return s
    order = np.argsort(success, kind="stable")
    weight = whole.weight[order]
    stratum = ((np.cumsum(weight) - weight / 2) * size / weight.sum()).astype(int).clip(0, size - 1)
    parts = [order[stratum == i] for i in np.unique(stratum)]
    rows, weight = np.array([p[len(p) // 2] for p in parts]), np.array([whole.weight[p].sum() for p in parts])
    few = replace(
        whole, weight=weight, **{k: getattr(whole, k)[rows] for k in ("tokens", "last", "target", "template")}
    )
    return replace(s, evaluation=few, start=None if s.start is None else s.start[rows])
