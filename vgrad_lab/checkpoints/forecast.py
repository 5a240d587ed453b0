"""Forecast the whole RL curve of a checkpoint from a few backward passes and no update.

Each pass measures the expected update and its noise on fresh prompts, then the reward along the ray that it points to,
by forward passes on other prompts. Travel along the ray gives the curve; after a while the gradient is measured again
where the ray has led. The weights are put back exactly. Theory: ``vgrad_lab.ray``, ledger S26.ray.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, grpo_loss
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import answer_logits, evaluation_prompts, micro_batches, on_device
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import Ray, along, band, expit, logit, optimizer_speed, travel

WIDTH: dict[str, float] = {"adamw": 0.20, "sgd": 0.20}
"""Conformal width of the 90 % band of ``ray.band``, from the calibration ladders (tools/calibrate.py)."""
Weights = list[Tensor]
"""One tensor per trained parameter."""


@dataclass(frozen=True)
class ForecastSettings:
    """What a forecast may spend.

    passes: gradient measurements. prompts: drawn per pass. micro_batch: prompts per gradient sample, for the noise.
    points: forward evaluations per ray. evaluation_prompts: drawn for them. turn: rise of the logit after which the
    gradient is measured again. width: of the band, None for the calibrated one of the optimiser.
    """

    passes: int = 3
    prompts: int = 64
    micro_batch: int = 8
    points: int = 4
    evaluation_prompts: int = 256
    turn: float = 0.5
    width: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.passes < 1 or self.points < 1 or self.turn <= 0:
            raise UserError(f"passes {self.passes}, points {self.points}, turn {self.turn}: give positive numbers")
        if self.micro_batch < 1 or self.prompts < 2 * self.micro_batch:
            raise UserError(
                f"prompts is {self.prompts} and micro_batch {self.micro_batch}; the noise of the gradient needs at "
                "least two micro-batches of at least one prompt"
            )


@dataclass(frozen=True)
class Moments:
    """Expected update and its noise at a point.

    ascent: E ĝ per parameter. variance: of one update's ĝ per parameter. slope, norm2: ⟨∇J, E ĝ⟩ and ‖E ĝ‖², free of
    the bias that a mean over few prompts has (products of different micro-batches only). noise: trace of the variance.
    """

    ascent: Weights
    variance: Weights
    slope: float
    norm2: float
    noise: float


@dataclass(frozen=True)
class Forecast:
    """Expected reward after 0 … updates, with a band; what it was made of, and what it cost.

    turns: updates at which the gradient was measured. noise_factor: Adam's share of a full sign step, ⟨|μ|, |d|⟩/‖μ‖₁,
    at each of them (1 for sgd). forward, backward: prompts pushed through the model either way.
    """

    reward: Float[ndarray, " K"]
    lower: Float[ndarray, " K"]
    upper: Float[ndarray, " K"]
    turns: tuple[float, ...]
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
    model, parameters = checkpoint.model, [p for p in checkpoint.model.parameters() if p.requires_grad]
    evaluation = evaluation_prompts(checkpoint, task, settings.evaluation_prompts)
    rate = np.ones(total) if schedule is None else np.asarray(schedule, dtype=float)
    curve, turns, factors = [success_mean(model, evaluation, rl)], [], []
    forward, backward = len(evaluation.last), 0
    memory: Weights | None = None
    with kept(parameters):
        for i in range(settings.passes):
            done = len(curve) - 1
            if done >= total:
                break
            batch = fresh_prompts(checkpoint, task, settings, i)
            m = moments(model, parameters, batch, rl, settings)
            direction, memory = first_step(m, rl, memory, share=max(done, 1) / total if done else 0.0)
            ray = follow(model, parameters, direction, m, evaluation, rl, settings, total - done)
            relative = optimizer_speed(ray, rl.optimizer, clip=rl.clip, norm2=m.norm2, noise=m.noise)
            x = travel(relative, total - done, schedule=rate[done:])
            stop = total - done if i + 1 == settings.passes else turn_at(ray, x, settings, total, done, i)
            offset = logit(np.array(curve[-1])) - logit(np.array(along(ray)(0.0)))
            curve += [float(expit(logit(np.array(along(ray)(v))) + offset)) for v in x[1 : stop + 1]]
            move(parameters, direction, rl.learning_rate * x[stop])
            turns.append(float(done))
            factors.append(noise_factor(m, direction) if rl.optimizer == "adamw" else 1.0)
            forward += len(batch.last) + settings.points * len(evaluation.last)
            backward += 2 * len(batch.last)
    width = WIDTH[rl.optimizer] if settings.width is None else settings.width
    lower, upper = band(np.array(curve), width=width)
    return Forecast(np.array(curve), lower, upper, tuple(turns), tuple(factors), forward, backward)


@contextmanager
def kept(parameters: Weights) -> Iterator[None]:
    """Put the weights back, bit for bit, and drop gradients at the end."""
    before = [p.detach().clone() for p in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
                p.grad = None


def fresh_prompts(checkpoint: Checkpoint, task: LabelCopy, settings: ForecastSettings, index: int) -> PromptBatch:
    """Prompts of the index-th pass, drawn with a seed of their own."""
    rng = np.random.default_rng([settings.seed, 2, index])
    return encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, settings.prompts, rng=rng))


def moments(
    model: Any, parameters: Weights, batch: PromptBatch, rl: GrpoSettings, settings: ForecastSettings
) -> Moments:
    """∇J and E ĝ exactly over answers, and the noise of sampled updates; two backward passes over the prompts."""
    generator = torch.Generator(device=model.device).manual_seed(settings.seed)
    slices = [s for s in micro_batches(batch, settings.micro_batch) if s.stop <= len(batch.last)]
    count = len(slices)
    ascent, gain, mean, square = ([torch.zeros_like(p) for p in parameters] for _ in range(4))
    own_slope = own_norm2 = 0.0
    for rows in slices:
        tokens, last, target = on_device(model, batch, rows)
        logits = answer_logits(model, tokens, last)
        chosen = torch.softmax(logits.float(), -1)[torch.arange(len(target), device=target.device), target]
        scale = torch.as_tensor(factor(chosen, rl), dtype=chosen.dtype, device=chosen.device)
        j, g, sampled = (
            gradient(y, parameters)
            for y in (chosen.mean(), (scale * chosen).mean(), -grpo_loss(logits, target, rl, generator))
        )
        own_slope, own_norm2 = own_slope + dot(j, g), own_norm2 + dot(g, g)
        for total, part in ((gain, j), (ascent, g), (mean, sampled), (square, [x * x for x in sampled])):
            for t, x in zip(total, part, strict=True):
                t.add_(x, alpha=1 / count)
    share = settings.micro_batch / rl.prompts * count / (count - 1)
    variance = [(s - m * m).clamp_min_(0).mul_(share) for s, m in zip(square, mean, strict=True)]
    noise = sum(float(v.sum()) for v in variance)
    slope, norm2 = (
        (count**2 * both - own) / (count * (count - 1))
        for both, own in ((dot(gain, ascent), own_slope), (dot(ascent, ascent), own_norm2))
    )
    if not np.isfinite(norm2 + noise + slope):
        raise UserError("the gradient is not finite at this checkpoint; it cannot be forecast (nor trained)")
    return Moments(ascent, variance, slope, max(norm2, 0.0), noise)


def gradient(objective: Tensor, parameters: Weights) -> Weights:
    """∂objective/∂parameters; zeros for a parameter that takes no part."""
    found = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def dot(a: Weights, b: Weights) -> float:
    """Inner product over all parameters."""
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def factor(chosen: Tensor, rl: GrpoSettings) -> Float[ndarray, " Q"]:
    """κ_G(p) of each prompt under the protocol's baseline."""
    p = chosen.detach().double().cpu().numpy().clip(0, 1)
    return grpo_scale(p, rl.group_size, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)


def first_step(m: Moments, rl: GrpoSettings, memory: Weights | None, *, share: float) -> tuple[Weights, Weights]:
    """Expected update in units of the learning rate, and Adam's mean square with what it remembers.

    share: of all updates that came before this point, which Adam's slow average still holds.
    """
    if rl.optimizer == "sgd":
        return m.ascent, m.variance
    with torch.no_grad():
        square = [a * a + v for a, v in zip(m.ascent, m.variance, strict=True)]
        if memory is not None and share > 0:
            square = [share * old + (1 - share) * new for old, new in zip(memory, square, strict=True)]
        step = [a / s.sqrt().clamp_min(1e-12) for a, s in zip(m.ascent, square, strict=True)]
    return step, square


def noise_factor(m: Moments, direction: Weights) -> float:
    """⟨|μ|, |d|⟩/‖μ‖₁: what noise leaves of a sign step."""
    length = sum(float(a.abs().sum()) for a in m.ascent)
    return dot(m.ascent, direction) / length if length > 0 else 0.0


def move(parameters: Weights, direction: Weights, length: float) -> None:
    """θ ← θ + length·direction."""
    with torch.no_grad():
        for p, d in zip(parameters, direction, strict=True):
            p.add_(d, alpha=length)


def successes(model: Any, batch: PromptBatch, rl: GrpoSettings) -> Float[ndarray, " Q"]:
    """p(y*|q) of every prompt over the full vocabulary."""
    with torch.no_grad():
        parts = []
        for rows in micro_batches(batch, rl.micro_batch):
            tokens, last, target = on_device(model, batch, rows)
            p = torch.softmax(answer_logits(model, tokens, last).double(), -1)
            parts.append(p[torch.arange(len(target), device=p.device), target])
    found = torch.cat(parts).cpu().numpy()
    if not np.all(np.isfinite(found)):
        raise UserError("the reward is not finite along the forecast; lower the learning rate or the number of updates")
    return found.clip(0, 1)


def success_mean(model: Any, batch: PromptBatch, rl: GrpoSettings) -> float:
    """Mean reward over the evaluation prompts."""
    return float(batch.weight @ successes(model, batch, rl))


def follow(
    model: Any,
    parameters: Weights,
    direction: Weights,
    m: Moments,
    evaluation: PromptBatch,
    rl: GrpoSettings,
    settings: ForecastSettings,
    updates: int,
) -> Ray:
    """Rewards along a ray: at points up to where the updates can lead, closer together near the start."""
    stretch = dot(m.ascent, direction) / max(m.norm2, 1e-30) if rl.optimizer == "adamw" else 1.0
    slope = rl.learning_rate * m.slope * stretch
    here, at, rows = successes(model, evaluation, rl), 0.0, []
    p0 = float(evaluation.weight @ here)
    reach = float(updates) * (1.0 if rl.optimizer == "adamw" else 1.5)
    rise = slope / max(p0 * (1 - p0), 1e-12)
    first = min(max(0.4 / max(rise, 1e-12), reach / 64), reach / settings.points)
    position = np.concatenate([[0.0], np.geomspace(first, reach, settings.points) if settings.points > 1 else [reach]])
    for x in position:
        move(parameters, direction, rl.learning_rate * (x - at))
        at = x
        p = here if x == 0 else successes(model, evaluation, rl)
        spread, w, n = p * (1 - p), evaluation.weight, rl.group_size
        kappa = grpo_scale(p, n, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)
        scale = float(w @ (kappa * spread)) / max(float(w @ spread), 1e-300)
        rows.append((float(w @ p), scale, float(w @ (1 - p**n - (1 - p) ** n))))
    move(parameters, direction, -rl.learning_rate * at)
    reward, scale, mixed = np.array(rows).T
    return Ray(position, np.clip(reward, 0, 1), scale, np.clip(mixed, 0, 1), slope)


def turn_at(ray: Ray, x: Float[ndarray, " K"], settings: ForecastSettings, total: int, done: int, index: int) -> int:
    """Updates to follow this ray: until the logit has risen by ``turn``, at most an equal share of the budget."""
    reward = along(ray)
    rise = np.array([logit(np.array(reward(v))) for v in x])
    rise = np.abs(rise - rise[0])
    far = int(np.argmax(rise >= settings.turn)) if np.any(rise >= settings.turn) else len(x) - 1
    share = -(-total * (index + 1) // settings.passes) - done
    return int(max(1, min(far, share, len(x) - 1)))
