"""Rehearse a protocol: its optimiser for all its updates, on fewer prompts and with exact answers where that is fair.

The noise of an update moves plain gradient steps in second order only, so the exact expected gradient of a few prompts
leads where the whole batch of samples leads. Adam divides by that noise: its rehearsal samples the whole batch, and
costs what the run costs. Ledger S26.rehearsal.
"""

import copy
import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.expected_update import expected_gain
from vgrad_lab.checkpoints.grpo import GrpoSettings, divergence, make_optimizer, step
from vgrad_lab.checkpoints.probe import answer_logits, micro_batches, on_device
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene, look
from vgrad_lab.checkpoints.tasks import PromptBatch
from vgrad_lab.ray import expit, logit

LOOKS = 8
"""Rewards read along a rehearsal; the logit is interpolated between them."""


def prompts_per_update(rl: GrpoSettings, settings: ForecastSettings) -> int:
    """Prompts of a rehearsed update: the protocol's for adamw; for sgd the settings', if the protocol has more."""
    return rl.prompts if rl.optimizer == "adamw" else min(settings.rehearsed_prompts, rl.prompts)


def rehearse(s: Scene, batch: PromptBatch, rate: Float[ndarray, " N"]) -> Float[ndarray, " K"]:
    """Mean rewards after 0 … N updates on the way of the protocol's optimiser; the weights stay where it leads.

    θ ← optimiser(θ, ∇[mean_q κ_G(p̄_q) p_q − β KL]), κ held fixed, on fresh prompts; answers sampled for adamw.

    batch: ``prompts_per_update`` prompts for each update. rate: learning rate of each update over the protocol's.
    Raises UserError where gradient or reward is not finite. Ledger: S26.rehearsal.
    """
    model, rl, sampled = s.model, s.rl, s.rl.optimizer == "adamw"
    optimizer, n = make_optimizer(model, rl), prompts_per_update(rl, s.settings)
    generator = torch.Generator(device=model.device).manual_seed(s.settings.seed)
    start = start_logits(model, batch, rl.micro_batch) if rl.kl > 0 and not sampled else None
    reference = copy.deepcopy(model) if rl.kl > 0 and sampled else None
    at, reward = [0, *looks_after(len(rate))], [mean_reward(s)]
    for update in range(1, len(rate) + 1):
        for group in optimizer.param_groups:
            group["lr"] = float(rl.learning_rate * rate[update - 1])
        if sampled:
            step(model, optimizer, batch, update - 1, rl, generator, reference=reference)
        else:
            exact_step(s, optimizer, batch, slice((update - 1) * n, update * n), start)
        if update in at:
            reward.append(mean_reward(s))
    if len(at) == 1:
        return np.array(reward)
    return expit(PchipInterpolator(at, logit(np.array(reward)))(np.arange(len(rate) + 1)))


def looks_after(updates: int) -> list[int]:
    """Updates after which the reward is read: every one of a few, else denser at the start, with the last."""
    return sorted({-(-updates * k * k // LOOKS**2) for k in range(1, LOOKS + 1)} - {0})


def mean_reward(s: Scene) -> float:
    """Mean success over the evaluation prompts."""
    return float(s.evaluation.weight @ look(s))


def start_logits(model: torch.nn.Module, batch: PromptBatch, micro_batch: int) -> Float[Tensor, "Q V"]:
    """Logits of every prompt at the present weights."""
    with torch.no_grad():
        parts = [answer_logits(model, *on_device(model, batch, rows)[:2]) for rows in micro_batches(batch, micro_batch)]
    return torch.cat(parts)


def exact_step(
    s: Scene, optimizer: torch.optim.Optimizer, batch: PromptBatch, rows: slice, start: Tensor | None
) -> None:
    """One update along the expected gradient of a few prompts, clipped as the protocol says."""
    tokens, last, target = on_device(s.model, batch, rows)
    logits = answer_logits(s.model, tokens, last)
    chosen = torch.softmax(logits.float(), -1)[torch.arange(len(target), device=target.device), target]
    goal = expected_gain(chosen, s.rl)
    if start is not None:
        goal = goal - s.rl.kl * divergence(logits, start[rows]).mean()
    torch.autograd.backward(-goal)
    norm = torch.nn.utils.clip_grad_norm_(s.parameters, s.rl.clip or math.inf)
    if not bool(torch.isfinite(norm)):
        raise UserError("the gradient is not finite on the way; it cannot be forecast (nor trained): lower the rate")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
