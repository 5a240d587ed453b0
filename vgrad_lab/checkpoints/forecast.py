"""Forecast the whole RL curve of a checkpoint from a few backward passes and no update.

Each pass measures the expected update and its noise on fresh prompts, then the reward along the ray that it points to,
by forward passes on other prompts. Travel along the ray gives the curve; after a while the gradient is measured again
where the ray has led. The weights are put back exactly. Theory: ``vgrad_lab.ray``, ledger S26.ray.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.expected_update import (
    ForecastSettings,
    Scene,
    Weights,
    explore,
    first_step,
    kept,
    moments,
    move,
    noise_factor,
    successes,
)
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import evaluation_prompts
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.ray import Ray, along, band, expit, logit

WIDTH: dict[str, float] = {"adamw": 0.20, "sgd": 0.20}
"""Conformal width of the 90 % band of ``ray.band``, from the calibration ladders (tools/calibrate.py)."""


@dataclass(frozen=True)
class Forecast:
    """Expected reward after 0 … updates, with a band; what it was made of, and what it cost.

    turns: updates at which the gradient was measured. noise_factor: Adam's share of a full sign step, ⟨μ, d⟩/‖μ‖₁, at
    each of them (1 for sgd). forward, backward: prompts pushed through the model either way.
    """

    reward: Float[ndarray, " K"]
    lower: Float[ndarray, " K"]
    upper: Float[ndarray, " K"]
    turns: tuple[int, ...]
    noise_factor: tuple[float, ...]
    forward: int
    backward: int


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

    rl: the protocol (optimiser, rate, group, baseline, clip). updates: default the protocol's last budget. schedule:
    learning rate of each update over the first one's. The model is changed while this runs and restored exactly.
    Raises UserError for a checkpoint whose gradient or reward is not finite. Ledger: S26.ray.
    """
    settings = ForecastSettings() if settings is None else settings
    total = rl.budgets[-1] if updates is None else updates
    rate = np.ones(total) if schedule is None else np.asarray(schedule, dtype=float)
    s = Scene(
        checkpoint.model,
        [p for p in checkpoint.model.parameters() if p.requires_grad],
        evaluation_prompts(checkpoint, task, settings.evaluation_prompts),
        rl,
        settings,
    )
    turns: list[int] = []
    factors: list[float] = []
    curve, forward = [float(s.evaluation.weight @ successes(s))], 1
    memory: Weights | None = None
    with kept(s.parameters):
        while (done := len(curve) - 1) < total and len(turns) < settings.passes:
            m = moments(s, fresh_prompts(checkpoint, task, settings, len(turns)))
            direction, memory = first_step(m, rl, memory, share=done / total)
            ray, x, looks = explore(s, m, direction, rate[done:])
            stop = turn_at(ray, x, settings, total=total, done=done, turns=len(turns))
            curve += continued(curve[-1], ray, x[1 : stop + 1])
            move(s.parameters, direction, rl.learning_rate * x[stop])
            turns.append(done)
            factors.append(noise_factor(m, direction) if rl.optimizer == "adamw" else 1.0)
            forward += looks
    width = WIDTH[rl.optimizer] if settings.width is None else settings.width
    drawn = len(turns) * settings.prompts
    return Forecast(
        np.array(curve),
        *band(np.array(curve), width=width),
        turns=tuple(turns),
        noise_factor=tuple(factors),
        forward=forward * len(s.evaluation.last) + drawn,
        backward=3 * drawn,
    )


def fresh_prompts(checkpoint: Checkpoint, task: LabelCopy, settings: ForecastSettings, index: int) -> PromptBatch:
    """Prompts of the index-th pass, drawn with a seed of their own."""
    rng = np.random.default_rng([settings.seed, 2, index])
    return encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, settings.prompts, rng=rng))


def continued(last: float, ray: Ray, positions: Float[ndarray, " K"]) -> list[float]:
    """Rewards at the positions, their logit shifted so that the curve goes on from its last value."""
    reward = along(ray)
    shift = logit(np.array(last)) - logit(np.array(reward(0.0)))
    return [float(expit(logit(np.array(reward(x))) + shift)) for x in positions]


def turn_at(ray: Ray, x: Float[ndarray, " K"], settings: ForecastSettings, *, total: int, done: int, turns: int) -> int:
    """Updates to follow this ray: all on the last pass; else until the logit rose by ``turn``, or an equal share."""
    if turns + 1 == settings.passes:
        return len(x) - 1
    reward = along(ray)
    level = np.array([float(logit(np.array(reward(v)))) for v in x])
    far = np.flatnonzero(np.abs(level - level[0]) >= settings.turn)
    share = -(-total * (turns + 1) // settings.passes) - done
    return max(1, min(int(far[0]) if len(far) else len(x) - 1, share, len(x) - 1))
