"""Expected GRPO update of a model, its noise, and the rewards along the ray that it points to."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, grpo_loss
from vgrad_lab.checkpoints.probe import answer_logits, micro_batches, on_device
from vgrad_lab.checkpoints.scene import Scene, Weights, look, move
from vgrad_lab.checkpoints.tasks import PromptBatch
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import Ray

ADAM_EPS = 1e-8
"""Added to the root mean square in torch's AdamW."""


@dataclass(frozen=True)
class Moments:
    """Expected update and its noise at a point.

    ascent: E ĝ per parameter. variance: of one update's ĝ per parameter. slope, norm2: ⟨∇J, E ĝ⟩ and ‖E ĝ‖², free of
    the bias that a mean over few prompts has (products of different micro-batches only).
    """

    ascent: Weights
    variance: Weights
    slope: float
    norm2: float


def moments(s: Scene, batch: PromptBatch) -> Moments:
    """∇J and E ĝ exactly over answers, and the noise of sampled updates: three backward passes over the prompts."""
    model, rl, size = s.model, s.rl, s.settings.micro_batch
    generator = torch.Generator(device=model.device).manual_seed(s.settings.seed)
    slices = [rows for rows in micro_batches(batch, size) if rows.stop <= len(batch.last)]
    count = len(slices)
    gain, ascent, mean, square = ([torch.zeros_like(p) for p in s.parameters] for _ in range(4))
    own, success = np.zeros(2), []
    for rows in slices:
        tokens, last, target = on_device(model, batch, rows)
        logits = answer_logits(model, tokens, last)
        chosen = torch.softmax(logits.float(), -1)[torch.arange(len(target), device=target.device), target]
        success.append(chosen.detach().double().cpu().numpy())
        goals = (chosen.mean(), expected_gain(chosen, rl), -grpo_loss(logits, target, rl, generator))
        j, g, sampled = (gradient(y, s.parameters) for y in goals)
        own += [dot(j, g), dot(g, g)]
        parts = [(gain, j), (ascent, g), (mean, sampled), (square, [x * x for x in sampled])]
        for total, part in parts:
            for y, x in zip(total, part, strict=True):
                y.add_(x, alpha=1 / count)
    variance = [
        (y - x * x).clamp_min_(0).mul_(size / rl.prompts * count / (count - 1))
        for y, x in zip(square, mean, strict=True)
    ]
    both = np.array([dot(gain, ascent), dot(ascent, ascent)])
    slope, norm2 = (count**2 * both - own) / (count * (count - 1))
    if not np.isfinite([norm2, slope, sum(float(v.sum()) for v in variance)]).all():
        raise UserError("the gradient is not finite at this checkpoint; it cannot be forecast (nor trained)")
    silent = 1 / heard(np.concatenate(success), rl, s.updates) - 1
    variance = [torch.maximum(v, silent * a * a) for v, a in zip(variance, ascent, strict=True)]
    return Moments(ascent, variance, float(slope), max(float(norm2), 0.0))


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


def expected_gain(chosen: Tensor, rl: GrpoSettings) -> Float[Tensor, ""]:
    """Mean of κ_G(p̄)·p over prompts, κ held fixed: its gradient is the expected GRPO gradient E ĝ."""
    p = chosen.detach().double().cpu().numpy().clip(0, 1)
    scale = grpo_scale(p, rl.group_size, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)
    return (torch.as_tensor(scale, dtype=chosen.dtype, device=chosen.device) * chosen).mean()


def adam_direction(m: Moments, memory: Weights | None, *, share: float) -> tuple[Weights, Weights]:
    """Adam's expected update in units of the learning rate, and its mean square with what it remembers.

    share: of all updates that came before this point, which Adam's slow average still holds.
    """
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


def explore(s: Scene, m: Moments, direction: Weights, reach: float) -> Ray:
    """Rewards along a ray at points up to ``reach`` updates, closer together near the start."""
    rl, w = s.rl, s.evaluation.weight
    slope, at = rl.learning_rate * m.slope * dot(m.ascent, direction) / max(m.norm2, 1e-30), 0.0
    reward = [float(w @ look(s))]
    rise = abs(slope) / max(reward[0] * (1 - reward[0]), 1e-12)
    first = min(max(0.4 / max(rise, 1e-12), reach / 64), reach / s.settings.points)
    position = [0.0, *np.geomspace(first, reach, s.settings.points)] if s.settings.points > 1 else [0.0, reach]
    for x in position[1:]:
        move(s.parameters, direction, rl.learning_rate * (x - at))
        at = x
        reward.append(float(w @ look(s)))
    move(s.parameters, direction, -rl.learning_rate * at)
    return Ray(np.array(position), np.array(reward).clip(0, 1), slope)
