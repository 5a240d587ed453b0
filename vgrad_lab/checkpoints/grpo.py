"""GRPO on the one-token task: sample, advantage, one on-policy step; rewards recorded at several budgets of one run.

Departures from library trainers: no reference model, no KL, no ratio (one step per batch is on-policy), one prefill
shared by the group, logits at the answer position only. Sampling is from the FULL vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import answer_logits, evaluation_prompts, micro_batches, on_device, reward_summary
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.impact import Optimizer

DEFAULTS: dict[str, tuple[float, float | None]] = {"adamw": (1e-4, 1.0), "sgd": (1e-2, None)}
"""Learning rate (one that spreads the gains of the embedded ladder) and gradient-norm clip of each optimiser.

SGD is not clipped: clipping at 1 makes it a normalised step, which the forecast does not model (docs/log.md)."""


@dataclass(frozen=True)
class GrpoSettings:
    """One GRPO protocol; ``budgets`` are update counts, all prefixes of one run at a constant learning rate."""

    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-4
    prompts: int = 16
    group_size: int = 8
    budgets: tuple[int, ...] = (10, 20, 25, 30)
    baseline: Baseline = "standardised"
    ddof: int = 1
    eps: float = 1e-4
    clip: float | None = 1.0
    evaluation_prompts: int = 256
    micro_batch: int = 64

    def __post_init__(self) -> None:
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)) or self.budgets[0] < 1:
            raise UserError(f"budgets are {self.budgets}; give increasing numbers of updates, each at least 1")
        if self.group_size < 2 or self.prompts < 1:
            raise UserError(
                f"group_size is {self.group_size} and prompts {self.prompts}; a group needs at least 2 samples, "
                "an update at least 1 prompt"
            )
        if self.learning_rate <= 0:
            raise UserError(f"learning_rate is {self.learning_rate}; give a positive number")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"clip is {self.clip}; give a positive gradient norm, or none")


def default_settings(optimizer: str) -> GrpoSettings:
    """The protocol of an optimiser with its own default rate and clip.

    Raises UserError for an optimiser that is not known.
    """
    if optimizer not in DEFAULTS:
        raise UserError(f"optimizer is {optimizer!r}; choose one of {', '.join(DEFAULTS)}")
    rate, clip = DEFAULTS[optimizer]
    return GrpoSettings(optimizer=cast(Optimizer, optimizer), learning_rate=rate, clip=clip)


def make_optimizer(model: Any, settings: GrpoSettings) -> torch.optim.Optimizer:
    """AdamW (0.9, 0.999) or plain SGD, no weight decay."""
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
    return torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999), weight_decay=0.0, fused=True
    )


def grpo_loss(logits: Tensor, target: Tensor, settings: GrpoSettings, generator: torch.Generator) -> Tensor:
    """−mean(Â log π(a)) over prompts and group; samples drawn from ``logits``, advantages made in NumPy (no graph)."""
    logp = torch.log_softmax(logits.float(), -1)
    action = torch.multinomial(logp.detach().exp(), settings.group_size, replacement=True, generator=generator)
    reward = (action == target[:, None]).double().cpu().numpy()
    advantage = from_group(reward, settings.baseline, ddof=settings.ddof, eps=settings.eps)
    weight = torch.from_numpy(advantage).to(logp)
    return -(weight * logp.gather(1, action)).mean()


def evaluate(model: Any, batch: PromptBatch, micro_batch: int) -> dict[str, float]:
    """Reward over the full vocabulary, over the labels only, and the labels' mass."""
    with torch.no_grad():
        parts = [
            torch.softmax(answer_logits(model, *on_device(model, batch, rows)[:2]).double(), -1)
            for rows in micro_batches(batch, micro_batch)
        ]
    return reward_summary(torch.cat(parts).cpu().numpy(), batch)


def train(checkpoint: Checkpoint, task: LabelCopy, settings: GrpoSettings, *, seed: int) -> dict[str, Any]:
    """Run GRPO from a checkpoint (whose model is changed in place) and record the reward at every budget.

    seed: of the prompts drawn and the answers sampled. Raises UserError when the loss or the weights become
    non-finite. Returns plain numbers, gain_mean = mean over budgets of R_after − R_before.
    """
    model, total = checkpoint.model, settings.budgets[-1]
    evaluation = evaluation_prompts(checkpoint, task, settings.evaluation_prompts)
    drawn = draw_prompts(task, total * settings.prompts, rng=np.random.default_rng([seed, 1]))
    batch = encode_prompts(task, checkpoint.tokenizer, drawn)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    optimizer = make_optimizer(model, settings)
    curve = {0: evaluate(model, evaluation, settings.micro_batch)}
    for update in range(1, total + 1):
        step(model, optimizer, batch, update - 1, settings, generator)
        if update in settings.budgets:
            curve[update] = evaluate(model, evaluation, settings.micro_batch)
            if not np.isfinite(curve[update]["reward"]):
                raise UserError(f"the reward is not finite after {update} updates; lower the learning rate")
    after = [curve[k] for k in settings.budgets]
    before = curve[0]["reward"]
    return {
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "budgets": list(settings.budgets),
        "reward_before": before,
        "reward_after": [x["reward"] for x in after],
        "reward_restricted_before": curve[0]["reward_restricted"],
        "reward_restricted_after": [x["reward_restricted"] for x in after],
        "label_mass_after": [x["label_mass"] for x in after],
        "gain_mean": float(np.mean([x["reward"] - before for x in after])),
    }


def step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batch: PromptBatch,
    index: int,
    settings: GrpoSettings,
    generator: torch.Generator,
) -> None:
    """One update on the index-th block of prompts: forward, sample, backward, clip, step."""
    rows = slice(index * settings.prompts, (index + 1) * settings.prompts)
    tokens, last, target = on_device(model, batch, rows)
    logits = answer_logits(model, tokens, last)
    norm = logits.new_tensor(float("nan"))
    if bool(torch.isfinite(logits).all()):
        grpo_loss(logits, target, settings, generator).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip or math.inf)
    if not bool(torch.isfinite(norm)):
        raise UserError(f"logits or gradient are not finite at update {index + 1}; lower the learning rate")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
