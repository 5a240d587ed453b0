"""Forecast the whole RL curve of a checkpoint from a few backward passes.

AdamW: each pass measures the expected update and its noise on fresh prompts, then the reward along the ray that it
points to, by forward passes on other prompts; after a while the gradient is measured again where the ray has led. Plain
gradient steps are rehearsed with exact gradients of a few prompts, as is AdamW where a ray overshoots. The weights are
put back exactly. Theory: ``vgrad_lab.ray``, ledger S26.ray and S26.rehearsal.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.expected_update import adam_direction, explore, moments, noise_factor
from vgrad_lab.checkpoints.grpo import GrpoSettings, learning_rates
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import check_answer_logits, evaluation_prompts
from vgrad_lab.checkpoints.rehearsal import looks_after, prompts_per_update, rehearse
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene, Weights, kept, look, move, thinned
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.ray import Ray, along, band, expit, logit, overshoots

WIDTH: dict[str, float] = {"adamw": 0.11, "sgd": 0.09}
"""Conformal width of the 90 % band of ``ray.band``, from the calibration ladders (tools/calibrate.py)."""

FEW = 3
"""Updates in which a ray's logit must not move by ``turn``; chosen on the calibration ladders (docs/log.md)."""


@dataclass(frozen=True)
class Forecast:
    """Expected reward after 0 … updates, with a band; what it was made of, and what it cost.

    turns: updates at which the gradient was measured for a ray. noise_factor: Adam's share of a full sign step,
    ⟨μ, d⟩/‖μ‖₁, at each of them. overshoots: steps are too large for a ray: the reward falls along it
    (``ray.overshoots``), or its logit moves by ``turn`` within 3 updates. rehearsed: the curve is that of a rehearsal,
    not of rays. forward, backward: prompts pushed through the model either way.
    """

    reward: Float[ndarray, " K"]
    lower: Float[ndarray, " K"]
    upper: Float[ndarray, " K"]
    turns: tuple[int, ...]
    noise_factor: tuple[float, ...]
    overshoots: bool
    rehearsed: bool
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
    Ledger: S26.ray, S26.rehearsal.
    """
    settings = ForecastSettings() if settings is None else settings
    rate = rates(rl, updates, schedule)
    model, parameters = checkpoint.model, trained(checkpoint.model)
    evaluation = evaluation_prompts(checkpoint, task, settings.evaluation_prompts)
    whole = Scene(model, parameters, evaluation, rl, settings, len(rate))
    with kept(model, parameters):
        check_answer_logits(model, evaluation)
        success = look(whole)
        s, start = thinned(whole, success), float(evaluation.weight @ success)
        found = None if rl.optimizer == "sgd" or rl.kl > 0 else follow(checkpoint, task, s, rate, start)
    if found is None or found.overshoots:
        with kept(model, parameters):
            found = rehearsal(checkpoint, task, s, rate, start, found)
    lower, upper = band(found.reward, width=width_of(rl, settings))
    return replace(found, lower=lower, upper=upper, forward=found.forward + len(evaluation.last))


def follow(checkpoint: Checkpoint, task: LabelCopy, s: Scene, rate: Float[ndarray, " N"], start: float) -> Forecast:
    """The curve from a reward along rays of Adam's expected updates, up to a ray that overshoots; without a band."""
    settings, total = s.settings, len(rate)
    curve, looks = [start], 0
    turns: list[int] = []
    factors: list[float] = []
    memory: Weights | None = None
    over = False
    while (done := len(curve) - 1) < total and len(turns) < settings.passes and not over:
        m = moments(s, fresh_prompts(checkpoint, task, settings, len(turns)))
        direction, memory = adam_direction(m, memory, share=done / total)
        x = np.concatenate([[0.0], np.cumsum(rate[done:])])
        ray = explore(s, m, direction, max(float(x[-1]), 1.0))
        stop = turn_at(ray, x, settings, total=total, done=done, turns=len(turns))
        curve += continued(curve[-1], ray, x[1 : stop + 1])
        move(s.parameters, direction, s.rl.learning_rate * x[stop])
        over = overshoots(ray) or too_coarse(ray, x, settings)
        turns.append(done)
        factors.append(noise_factor(m, direction))
        looks += len(ray.position)
        del m, direction  # each several times as large as the model, and the next pass makes its own
    drawn = len(turns) * (settings.prompts // settings.micro_batch) * settings.micro_batch
    cost = {"forward": looks * len(s.evaluation.last) + drawn, "backward": 3 * drawn}
    reward = np.array(curve)
    return Forecast(reward, reward, reward, tuple(turns), tuple(factors), over, rehearsed=False, **cost)


def rehearsal(
    checkpoint: Checkpoint,
    task: LabelCopy,
    s: Scene,
    rate: Float[ndarray, " N"],
    start: float,
    before: Forecast | None,
) -> Forecast:
    """The curve of a rehearsal from a reward, without a band; before: rays that overshot, whose cost counts too."""
    drawn = prompts_per_update(s.rl, s.settings) * len(rate)
    rng = np.random.default_rng([s.settings.seed, 3])
    batch = encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, drawn, rng=rng)) if drawn else s.evaluation
    reward = shifted(rehearse(s, batch, rate), start)
    before = before or Forecast(reward, reward, reward, (), (), overshoots=False, rehearsed=True, forward=0, backward=0)
    looked = (1 + len(looks_after(len(rate)))) * len(s.evaluation.last)
    forward = before.forward + looked + (2 if s.rl.kl > 0 else 1) * drawn
    backward = before.backward + drawn
    return replace(
        before, reward=reward, lower=reward, upper=reward, rehearsed=True, forward=forward, backward=backward
    )


def shifted(curve: Float[ndarray, " K"], start: float) -> Float[ndarray, " K"]:
    """The curve of a few prompts, its logit shifted so that it starts where all prompts do."""
    z = logit(curve)
    return expit(z - z[0] + logit(np.array(start)))


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
        "rehearsed": f.rehearsed,
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


def too_coarse(ray: Ray, x: Float[ndarray, " K"], settings: ForecastSettings) -> bool:
    """Whether the logit moves by ``turn`` within a few updates, so that the gradient is never measured in time."""
    if len(x) <= FEW + 1:
        return False
    rise = logit(np.array([along(ray)(x[FEW])])) - logit(ray.reward[:1])
    return bool(np.abs(rise) >= settings.turn)


def turn_at(ray: Ray, x: Float[ndarray, " K"], settings: ForecastSettings, *, total: int, done: int, turns: int) -> int:
    """Updates to follow this ray: all on the last pass; else until the logit rose by ``turn``, or an equal share."""
    if turns + 1 == settings.passes:
        return len(x) - 1
    reward = along(ray)
    level = logit(np.array([reward(v) for v in x]))
    far = np.flatnonzero(np.abs(level - level[0]) >= settings.turn)
    share = -(-total * (turns + 1) // settings.passes) - done
    return max(1, min(int(far[0]) if len(far) else len(x) - 1, share, len(x) - 1))
