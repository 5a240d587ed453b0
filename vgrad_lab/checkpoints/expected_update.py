"""Expected GRPO update of a model, its noise, and the rewards along the ray that it points to."""

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
from vgrad_lab.checkpoints.probe import answer_logits, micro_batches, on_device
from vgrad_lab.checkpoints.tasks import PromptBatch
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import Ray, optimizer_speed, travel

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
class Scene:
    """What a forecast looks at: a model with its trained parameters, evaluation prompts, the protocol, the budget."""

    model: Any
    parameters: Weights
    evaluation: PromptBatch
    rl: GrpoSettings
    settings: ForecastSettings


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


def moments(s: Scene, batch: PromptBatch) -> Moments:
    """∇J and E ĝ exactly over answers, and the noise of sampled updates: three backward passes over the prompts."""
    model, parameters, rl, settings = s.model, s.parameters, s.rl, s.settings
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
            for y, x in zip(total, part, strict=True):
                y.add_(x, alpha=1 / count)
    share = settings.micro_batch / rl.prompts * count / (count - 1)
    variance = [(y - x * x).clamp_min_(0).mul_(share) for y, x in zip(square, mean, strict=True)]
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


def successes(s: Scene) -> Float[ndarray, " Q"]:
    """p(y*|q) of every evaluation prompt over the full vocabulary."""
    parts = []
    with torch.no_grad():
        for rows in micro_batches(s.evaluation, s.rl.micro_batch):
            tokens, last, target = on_device(s.model, s.evaluation, rows)
            p = torch.softmax(answer_logits(s.model, tokens, last).double(), -1)
            parts.append(p[torch.arange(len(target), device=p.device), target])
    found = torch.cat(parts).cpu().numpy()
    if not np.all(np.isfinite(found)):
        raise UserError("the reward is not finite along the forecast; lower the learning rate or the number of updates")
    return found.clip(0, 1)


def explore(
    s: Scene, m: Moments, direction: Weights, rate: Float[ndarray, " N"]
) -> tuple[Ray, Float[ndarray, " K"], int]:
    """A ray long enough for the updates that are left, the positions after each, and how often it was looked at."""
    reach = max(float(rate.sum()), 1.0) * (1.0 if s.rl.optimizer == "adamw" else 1.5)
    looks = 0
    for _ in range(4):
        ray = follow(s, m, direction, reach)
        looks += len(ray.position)
        x = travel(
            optimizer_speed(ray, s.rl.optimizer, clip=s.rl.clip, norm2=m.norm2, noise=m.noise), len(rate), schedule=rate
        )
        if x[-1] <= ray.position[-1]:
            break
        reach *= 4
    return ray, x, looks


def follow(s: Scene, m: Moments, direction: Weights, reach: float) -> Ray:
    """Rewards along a ray at points up to ``reach`` updates, closer together near the start."""
    rl, w, n = s.rl, s.evaluation.weight, s.rl.group_size
    stretch = dot(m.ascent, direction) / max(m.norm2, 1e-30) if rl.optimizer == "adamw" else 1.0
    slope, at, rows = rl.learning_rate * m.slope * stretch, 0.0, []
    p = successes(s)
    rise = abs(slope) / max(float(w @ p) * (1 - float(w @ p)), 1e-12)
    first = min(max(0.4 / max(rise, 1e-12), reach / 64), reach / s.settings.points)
    position = [0.0, *np.geomspace(first, reach, s.settings.points)] if s.settings.points > 1 else [0.0, reach]
    for x in position:
        move(s.parameters, direction, rl.learning_rate * (x - at))
        at = x
        p = successes(s) if x > 0 else p
        spread = p * (1 - p)
        kappa = grpo_scale(p, n, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)
        scale = float(w @ (kappa * spread)) / max(float(w @ spread), 1e-300)
        rows.append((float(w @ p), scale, float(w @ (1 - p**n - (1 - p) ** n))))
    move(s.parameters, direction, -rl.learning_rate * at)
    reward, scales, mixed = np.array(rows).clip(0, None).T
    return Ray(np.array(position), reward.clip(0, 1), scales, mixed.clip(0, 1), slope)
