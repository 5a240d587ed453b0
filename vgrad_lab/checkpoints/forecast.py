"""Forecast the whole RL curve of a checkpoint from a few backward passes and no update.

Each pass measures the expected update and its noise on fresh prompts, then the reward along the ray that it points to,
by forward passes on other prompts. Travel along the ray gives the curve; after a while the gradient is measured again
where the ray has led. The weights are put back exactly. Theory: ``vgrad_lab.ray``, ledger S26.ray.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.expected_update import explore, first_step, moments, noise_factor
from vgrad_lab.checkpoints.grpo import GrpoSettings, learning_rates
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import check_answer_logits, evaluation_prompts
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene, Weights, kept, look, move, start_logits, thinned
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.ray import Ray, along, band, expit, logit, overshoots

WIDTH: dict[str, float] = {"adamw": 0.11, "sgd": 0.146}
"""Conformal width of the 90 % band of ``ray.band``, from the calibration ladders (tools/calibrate.py)."""


@dataclass(frozen=True)
class Forecast:
    """Expected reward after 0 … updates, with a band; what it was made of, and what it cost.

    turns: updates at which the gradient was measured. noise_factor: Adam's share of a full sign step, ⟨μ, d⟩/‖μ‖₁, at
    each of them (1 for sgd). overshoots: the reward falls along a ray, the forecast is too low (``ray.overshoots``).
    forward, backward: prompts pushed through the model either way.
    """

    reward: Float[ndarray, " K"]
    lower: Float[ndarray, " K"]
    upper: Float[ndarray, " K"]
    turns: tuple[int, ...]
    noise_factor: tuple[float, ...]
    overshoots: bool
    forward: int
    backward: int


@dataclass(frozen=True)
class ForecastPlan:
    """A protocol to forecast and what may be spent on it; ``plan_of`` makes one with the band's width filled in."""

    rl: GrpoSettings
    settings: ForecastSettings


def plan_of(rl: GrpoSettings, settings: ForecastSettings | None = None) -> ForecastPlan:
    """Plan whose settings name the width of the band, so that a record says with which it was made."""
    settings = ForecastSettings() if settings is None else settings
    return ForecastPlan(rl, replace(settings, width=width_of(rl, settings)))


def width_of(rl: GrpoSettings, settings: ForecastSettings) -> float:
    """Width of the band: the settings' own, or the optimiser's."""
    return WIDTH[rl.optimizer] if settings.width is None else settings.width


def forecast(
    checkpoint: Checkpoint,
    task: LabelCopy,
    rl: GrpoSettings,
    settings: ForecastSettings | None = None,
    *,
    updates: int | None = None,
    schedule: Float[ndarray, " N"] | None = None,
) -> Forecast:
    """Mean reward after 0 … updates of a GRPO protocol, from the checkpoint alone.

    rl: the protocol (optimiser, rate and its schedule, group, baseline, clip, KL penalty). updates: default the
    protocol's last budget. schedule: learning rate of each update over the protocol's, instead of the protocol's own.
    The model is changed while this runs and restored exactly. Raises UserError for a checkpoint that cannot be trained
    (gradient or reward not finite, nothing to train, half precision), ValueError for a wrong number of updates.
    Ledger: S26.ray.
    """
    settings = ForecastSettings() if settings is None else settings
    total = len(rate := rates(rl, updates, schedule))
    model, parameters = checkpoint.model, trained(checkpoint.model)
    turns: list[int] = []
    factors: list[float] = []
    memory: Weights | None = None
    over = False
    with kept(model, parameters):
        evaluation = evaluation_prompts(checkpoint, task, settings.evaluation_prompts)
        check_answer_logits(model, evaluation)
        batches = [fresh_prompts(checkpoint, task, settings, i) for i in range(settings.passes)]
        first, *starts = (start_logits(model, b, rl.micro_batch) if rl.kl > 0 else None for b in (evaluation, *batches))
        s = Scene(model, parameters, evaluation, rl, settings, total, first)
        curve, forward = [float(evaluation.weight @ (success := look(s)[0]))], 0
        s = thinned(s, success)
        while (done := len(curve) - 1) < total and len(turns) < settings.passes:
            m = moments(s, batches[len(turns)], starts[len(turns)])
            direction, memory = first_step(m, rl, memory, share=done / total)
            ray, x, looks = explore(s, m, direction, memory, rate[done:])
            stop = turn_at(ray, x, settings, total=total, done=done, turns=len(turns))
            curve += continued(curve[-1], ray, x[1 : stop + 1])
            move(s.parameters, direction, rl.learning_rate * x[stop])
            over |= overshoots(ray)
            turns.append(done)
            factors.append(noise_factor(m, direction) if rl.optimizer == "adamw" else 1.0)
            forward += looks
    spent = prompts_spent(rl, settings, len(turns), whole=len(evaluation.last), looked=forward * len(s.evaluation.last))
    bounds = band(np.array(curve), width=width_of(rl, settings))
    return Forecast(np.array(curve), *bounds, tuple(turns), tuple(factors), over, *spent)


def prompts_spent(
    rl: GrpoSettings, settings: ForecastSettings, turns: int, *, whole: int, looked: int
) -> tuple[int, int]:
    """Prompts pushed forward and backward: the evaluation set once, looks along the rays, those drawn at each turn."""
    drawn, kl = turns * (settings.prompts // settings.micro_batch) * settings.micro_batch, rl.kl > 0
    return (1 + kl) * whole + looked + drawn + kl * settings.passes * settings.prompts, (3 + kl) * drawn


def forecast_result(checkpoint: Checkpoint, task: LabelCopy, plan: ForecastPlan) -> dict[str, Any]:
    """Plain numbers of a forecast for a record: the curve with its band at every update, its parts and its cost.

    gain_mean: mean over the budgets of R_after − R_before, as ``train`` has it. Raises as ``forecast`` does.
    """
    f, rl = forecast(checkpoint, task, plan.rl, plan.settings), plan.rl
    updates = rl.budgets[-1] * rl.prompts
    return {
        "optimizer": rl.optimizer,
        "learning_rate": rl.learning_rate,
        "budgets": list(rl.budgets),
        "reward": f.reward.tolist(),
        "lower": f.lower.tolist(),
        "upper": f.upper.tolist(),
        "gain_mean": float(np.mean(f.reward[list(rl.budgets)] - f.reward[0])),
        "turns": list(f.turns),
        "noise_factor": list(f.noise_factor),
        "overshoots": f.overshoots,
        "prompts": {"forward": f.forward, "backward": f.backward, "rl_forward": updates, "rl_backward": updates},
    }


def rates(rl: GrpoSettings, updates: int | None, schedule: Float[ndarray, " N"] | None = None) -> Float[ndarray, " N"]:
    """Learning rate of each update over the protocol's; a schedule that decays ends with the protocol's last budget."""
    last = rl.budgets[-1]
    if schedule is not None:
        rate = np.asarray(schedule, dtype=float)
        total = len(rate) if updates is None else updates
        if rate.shape != (total,) or not np.all(np.isfinite(rate) & (rate >= 0)):
            raise ValueError(f"schedule has shape {rate.shape}; give {total} non-negative numbers, one per update")
        return rate
    if updates is None or 0 <= updates <= last:
        return learning_rates(rl)[:updates]
    if updates < 0 or rl.schedule != "constant":
        raise ValueError(f"updates is {updates}; give 0 to {last}, the protocol's last budget, where its schedule ends")
    return learning_rates(replace(rl, budgets=(updates,)))


def trained(model: Any) -> Weights:
    """Parameters that RL would change. Raises UserError where there are none, or in half precision."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise UserError(
            "the model has no parameter that requires a gradient, so RL would change nothing; unfreeze some"
        )
    if small := {str(p.dtype) for p in parameters if p.dtype not in (torch.float32, torch.float64)}:
        raise UserError(f"weights in {', '.join(sorted(small))} lose steps of a learning rate; load them in float32")
    return parameters


def fresh_prompts(checkpoint: Checkpoint, task: LabelCopy, settings: ForecastSettings, index: int) -> PromptBatch:
    """Prompts of the index-th pass, drawn with a seed of their own."""
    rng = np.random.default_rng([settings.seed, 2, index])
    return encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, settings.prompts, rng=rng))


def continued(last: float, ray: Ray, positions: Float[ndarray, " K"]) -> list[float]:
    """Rewards at the positions, their logit shifted so that the curve goes on from its last value."""
    reward = along(ray)
    level = logit(np.array([reward(x) for x in (0.0, *positions)]))
    return [float(r) for r in expit(level[1:] - level[0] + logit(np.array(last)))]


def turn_at(ray: Ray, x: Float[ndarray, " K"], settings: ForecastSettings, *, total: int, done: int, turns: int) -> int:
    """Updates to follow this ray: all on the last pass; else until the logit rose by ``turn``, or an equal share."""
    if turns + 1 == settings.passes:
        return len(x) - 1
    reward = along(ray)
    level = logit(np.array([reward(v) for v in x]))
    far = np.flatnonzero(np.abs(level - level[0]) >= settings.turn)
    share = -(-total * (turns + 1) // settings.passes) - done
    return max(1, min(int(far[0]) if len(far) else len(x) - 1, share, len(x) - 1))
