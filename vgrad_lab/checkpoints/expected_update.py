"""Expected GRPO update of a model, its noise, and the rewards along the ray that it points to."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, divergence, grpo_loss
from vgrad_lab.checkpoints.probe import answer_logits, micro_batches, on_device
from vgrad_lab.checkpoints.scene import Scene, Weights, look, move
from vgrad_lab.checkpoints.tasks import PromptBatch
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import Ray, optimizer_speed, travel

ADAM_EPS = 1e-8
"""Added to the root mean square in torch's AdamW."""


@dataclass(frozen=True)
class Moments:
    """Expected update and its noise at a point.

    ascent: E ĝ per parameter. variance: of one update's ĝ per parameter. slope, norm2: ⟨∇J, E ĝ⟩ and ‖E ĝ‖², free of
    the bias that a mean over few prompts has (products of different micro-batches only). noise: trace of the variance.
    pull: β⟨∇KL, E ĝ⟩, free of it too.
    """

    ascent: Weights
    variance: Weights
    slope: float
    norm2: float
    noise: float
    pull: float = 0.0


def moments(s: Scene, batch: PromptBatch, start: Tensor | None = None) -> Moments:
    """∇J and E ĝ exactly over answers, and the noise of sampled updates: three backward passes over the prompts.

    start: logits of these prompts at the checkpoint, for the KL penalty, which takes a fourth.
    """
    model, rl, size = s.model, s.rl, s.settings.micro_batch
    generator = torch.Generator(device=model.device).manual_seed(s.settings.seed)
    slices = [rows for rows in micro_batches(batch, size) if rows.stop <= len(batch.last)]
    count = len(slices)
    gain, ascent, back, mean, square = ([torch.zeros_like(p) for p in s.parameters] for _ in range(5))
    own, success = np.zeros(3), []
    for rows in slices:
        tokens, last, target = on_device(model, batch, rows)
        logits = answer_logits(model, tokens, last)
        chosen = torch.softmax(logits.float(), -1)[torch.arange(len(target), device=target.device), target]
        scale = torch.as_tensor(factor(chosen, rl), dtype=chosen.dtype, device=chosen.device)
        success.append(chosen.detach().double().cpu().numpy())
        kl = chosen.new_zeros(()) if start is None else rl.kl * divergence(logits, start[rows]).mean()
        goals = [chosen.mean(), (scale * chosen).mean() - kl, -grpo_loss(logits, target, rl, generator) - kl]
        j, g, sampled, *k = (gradient(y, s.parameters) for y in (goals if start is None else [*goals, kl]))
        own += [dot(j, g), dot(g, g), dot(k[0], g) if k else 0.0]
        parts = [(gain, j), (ascent, g), (mean, sampled), (square, [x * x for x in sampled]), *((back, x) for x in k)]
        for total, part in parts:
            for y, x in zip(total, part, strict=True):
                y.add_(x, alpha=1 / count)
    variance = [
        (y - x * x).clamp_min_(0).mul_(size / rl.prompts * count / (count - 1))
        for y, x in zip(square, mean, strict=True)
    ]
    both = np.array([dot(gain, ascent), dot(ascent, ascent), dot(back, ascent)])
    slope, norm2, pull = (count**2 * both - own) / (count * (count - 1))
    noise = sum(float(v.sum()) for v in variance)
    if not np.isfinite([norm2, noise, slope, pull]).all():
        raise UserError("the gradient is not finite at this checkpoint; it cannot be forecast (nor trained)")
    silent = 1 / heard(np.concatenate(success), rl, s.updates) - 1
    variance = [torch.maximum(v, silent * a * a) for v, a in zip(variance, ascent, strict=True)]
    return Moments(ascent, variance, float(slope), max(float(norm2), 0.0), noise, float(pull))


def heard(success: Float[ndarray, " Q"], rl: GrpoSettings, updates: int) -> float:
    """Bound on (E ĝ)²/E ĝ² where successes are rare: the chance A that an update has a group with both outcomes.

    Cauchy-Schwarz: (E ĝ)² ≤ A·E ĝ², which a sampled variance without any success would miss; times A·updates where a
    whole run is likely to see none.
    """
    n = rl.group_size
    mixed = float(np.mean(1 - success**n - (1 - success) ** n))
    alive = -np.expm1(rl.prompts * np.log1p(-min(mixed, 1 - 1e-12)))
    return max(float(alive) * min(1.0, float(alive) * updates), 1e-12)


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
        step = [a / (s.sqrt() + ADAM_EPS) for a, s in zip(m.ascent, square, strict=True)]
    return step, square


def noise_factor(m: Moments, direction: Weights) -> float:
    """⟨|μ|, |d|⟩/‖μ‖₁: what noise leaves of a sign step."""
    length = sum(float(a.abs().sum()) for a in m.ascent)
    return dot(m.ascent, direction) / length if length > 0 else 0.0


def step_response(m: Moments, square: Weights) -> Callable[[float], float]:
    """ψ(φ): first-order gain of Adam's step with φ times the mean gradient and the same noise, over that at φ = 1."""
    grid = np.linspace(0, 1, 11)
    gain = [
        sum(
            float((x * a * a / (s + (x * x - 1) * a * a).clamp_min(1e-30).sqrt()).sum())
            for a, s in zip(m.ascent, square, strict=True)
        )
        for x in grid
    ]
    curve = PchipInterpolator(grid, np.array(gain) / max(gain[-1], 1e-30))
    return lambda x: float(np.sign(x) * curve(abs(x)))


def explore(
    s: Scene, m: Moments, direction: Weights, square: Weights, rate: Float[ndarray, " N"]
) -> tuple[Ray, Float[ndarray, " K"], int]:
    """A ray long enough for the updates that are left, the positions after each, and how often it was looked at."""
    reach = max(float(rate.sum()), 1.0) * (1.0 if s.rl.optimizer == "adamw" else 1.5)
    response = step_response(m, square) if s.start is not None else None
    clip, norm2, noise = s.rl.clip, m.norm2, m.noise
    here, looks = look(s), 1
    for _ in range(4):
        ray = follow(s, m, direction, reach, here)
        looks += len(ray.position) - 1
        relative = optimizer_speed(ray, s.rl.optimizer, clip=clip, norm2=norm2, noise=noise, response=response)
        x = travel(relative, len(rate), schedule=rate)
        if x[-1] <= ray.position[-1]:
            break
        reach *= 4
    return ray, x, looks


def follow(s: Scene, m: Moments, direction: Weights, reach: float, here: tuple[Float[ndarray, " Q"], float]) -> Ray:
    """Rewards along a ray at points up to ``reach`` updates, closer together near the start; here: a look from it."""
    rl, w, n = s.rl, s.evaluation.weight, s.rl.group_size
    stretch = dot(m.ascent, direction) / max(m.norm2, 1e-30) if rl.optimizer == "adamw" else 1.0
    slope, at, rows = rl.learning_rate * m.slope * stretch, 0.0, []
    p, penalty = here
    rise = abs(slope) / max(float(w @ p) * (1 - float(w @ p)), 1e-12)
    first = min(max(0.4 / max(rise, 1e-12), reach / 64), reach / s.settings.points)
    position = [0.0, *np.geomspace(first, reach, s.settings.points)] if s.settings.points > 1 else [0.0, reach]
    for x in position:
        move(s.parameters, direction, rl.learning_rate * (x - at))
        at = x
        p, penalty = look(s) if x > 0 else here
        spread = p * (1 - p)
        kappa = grpo_scale(p, n, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)
        scale = float(w @ (kappa * spread)) / max(float(w @ spread), 1e-300)
        rows.append((float(w @ p), scale, float(w @ (1 - p**n - (1 - p) ** n)), penalty))
    move(s.parameters, direction, -rl.learning_rate * at)
    reward, scales, mixed, penalties = np.array(rows).clip(0, None).T
    unit = rl.learning_rate * stretch
    push, pull, kl = (1.0, 0.0, None) if s.start is None else (unit * (m.norm2 + m.pull), unit * m.pull, penalties)
    return Ray(np.array(position), reward.clip(0, 1), scales, mixed.clip(0, 1), slope, kl, push, pull)
