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
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.probe import answer_logits, micro_batches, on_device
from vgrad_lab.checkpoints.tasks import PromptBatch

Weights = list[Tensor]
"""One tensor per trained parameter."""


@dataclass(frozen=True)
class ForecastSettings:
    """What a forecast may spend.

    passes: gradient measurements. prompts: drawn per pass. micro_batch: prompts per gradient sample, for the noise.
    points: forward evaluations per ray. evaluation_prompts: drawn for the reward at the start. ray_prompts: how many of
    them stand for all on the way (``thinned``). turn: rise of the logit after which the gradient is measured again.
    rehearsed_prompts: of each update that is rehearsed instead (sgd). width: of the band, None for the calibrated one.
    """

    passes: int = 3
    prompts: int = 64
    micro_batch: int = 8
    points: int = 4
    evaluation_prompts: int = 256
    ray_prompts: int = 30
    turn: float = 0.5
    rehearsed_prompts: int = 8
    width: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        names = ("passes", "points", "evaluation_prompts", "ray_prompts", "rehearsed_prompts", "turn")
        if min(getattr(self, name) for name in names) <= 0:
            given = ", ".join(f"{name} {getattr(self, name)}" for name in names)
            raise UserError(f"{given}: give positive numbers")
        if self.micro_batch < 1 or self.prompts < 2 * self.micro_batch:
            raise UserError(
                f"prompts is {self.prompts} and micro_batch {self.micro_batch}; the noise of the gradient needs at "
                "least two micro-batches of at least one prompt"
            )


@dataclass(frozen=True)
class Scene:
    """What a forecast looks at: a model with its trained parameters, evaluation prompts, the protocol, the budget.

    updates: of the whole run.
    """

    model: Any
    parameters: Weights
    evaluation: PromptBatch
    rl: GrpoSettings
    settings: ForecastSettings
    updates: int


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


def look(s: Scene) -> Float[ndarray, " Q"]:
    """p(y*|q) of every evaluation prompt over the full vocabulary."""
    found = []
    with torch.no_grad():
        for rows in micro_batches(s.evaluation, s.rl.micro_batch):
            tokens, last, target = on_device(s.model, s.evaluation, rows)
            p = torch.softmax(answer_logits(s.model, tokens, last).double(), -1)
            found.append(p[torch.arange(len(target), device=p.device), target].cpu().numpy())
    success = np.concatenate(found)
    if not np.isfinite(success).all():
        raise UserError("the reward is not finite along the forecast; lower the learning rate or the number of updates")
    return success.clip(0, 1)


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
    return replace(s, evaluation=few)
