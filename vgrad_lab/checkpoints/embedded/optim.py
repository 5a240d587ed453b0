"""Optimisers of the embedded ladder: Muon for the block matrices, AdamW for the rest, one schedule."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.embedded.pretrain import LadderSettings

PEAK = "peak_lr"
"""Key of a parameter group's learning rate before the schedule."""


def build_optimisers(model: Any, settings: LadderSettings) -> tuple[Optimizer, ...]:
    """Muon on the 2-D matrices of the blocks; fused AdamW on embeddings, head and norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in named if not (p.ndim == 2 and ".layers." in name)]
    optimisers: tuple[Optimizer, ...] = (
        Muon(matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay, ns_steps=4),
        AdamW(others, lr=settings.adam_lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=True),
    )
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group[PEAK] = group["lr"]
    return optimisers


def learning_rate_factor(settings: LadderSettings, step: int) -> float:
    """Share of the peak learning rate in a step, counted from 1: linear warm-up, then cosine to `final_lr`."""
    if step <= settings.warmup:
        return step / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.final_lr + (1 - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimisers: tuple[Optimizer, ...], factor: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group[PEAK] * factor


def save_state(path: Path, optimisers: tuple[Optimizer, ...]) -> None:
    """Write momenta and moments as one safetensors file, atomically."""
    state = {
        f"{i}.{j}.{key}": value.contiguous()
        for i, optimiser in enumerate(optimisers)
        for j, parameter in enumerate(_parameters(optimiser))
        for key, value in optimiser.state[parameter].items()
    }
    write_file(path, save(state))


def load_state(path: Path, optimisers: tuple[Optimizer, ...]) -> None:
    """Put momenta and moments back, bit for bit."""
    for name, value in load_file(path).items():
        i, j, key = name.split(".", 2)
        optimiser = optimisers[int(i)]
        parameter = _parameters(optimiser)[int(j)]
        optimiser.state[parameter][key] = value.to(parameter.device).clone()


def _parameters(optimiser: Optimizer) -> list[Tensor]:
    """Parameters of an optimiser in the order of its groups."""
    found: list[torch.Tensor] = [p for group in optimiser.param_groups for p in group["params"]]
    return found
