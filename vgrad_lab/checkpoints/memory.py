"""What a protocol needs of a device, from config.json alone: nothing is loaded, shapes are counted without values."""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.loading import quiet
from vgrad_lab.checkpoints.plan import gigabytes
from vgrad_lab.checkpoints.precision import recomputing, running
from vgrad_lab.checkpoints.probe import answer_logits

SLACK = 1.1
"""What an allocator takes for each byte asked for, about."""
FORECAST_COPIES = 16
"""Bytes of a forecast of three passes over those of the weights: moments of three gradients, directions, the weights to
put back, temporaries; seen on the CPU (tests/checkpoints/test_memory.py)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one GRPO run.

    Args:
        weights: float32 weights on the device.
        gradients: of the same size.
        moments: AdamW's two, on the device.
        rounded: bfloat16 copies of the backbone's matrices during a pass.
        reference: the starting model of a KL penalty.
        activations: kept for the backward pass of one micro-batch, as in float32; within about 15 %, since attention
            keeps other tensors on other devices.
        host: on the host: weights as read, once for the present and once for the next checkpoint, and with
            `states="host"` AdamW's weights, gradients and moments.
    """

    weights: int
    gradients: int
    moments: int
    rounded: int
    reference: int
    activations: int
    host: int

    @property
    def device(self) -> int:
        """All that lies on the device at one time."""
        parts = (self.weights, self.gradients, self.moments, self.rounded, self.reference, self.activations)
        return sum(parts)

    def describe(self) -> str:
        """The parts in words."""
        parts = ("weights", "gradients", "moments", "rounded", "reference", "activations")
        shown = [f"{name} {gigabytes(getattr(self, name))}" for name in parts if getattr(self, name)]
        return f"{gigabytes(self.device)} on the device ({', '.join(shown)}), {gigabytes(self.host)} on the host"


def memory_needed(config: Any, settings: GrpoSettings, *, length: int = 64) -> Memory:
    """Bytes that RL from a checkpoint needs under a protocol; measuring needs less, a forecast more than that.

    Tensors only: an allocator takes about a tenth more (`SLACK`). With `recompute` one layer's activations come on top
    while it is computed again.

    Args:
        config: of the model, as `transformers` reads it.
        settings: optimiser, prompts, micro-batch, precision, recompute, states, KL.
        length: tokens of the longest prompt.
    """
    model = _skeleton(config.to_json_string())
    weights = 4 * sum(p.numel() for p in model.parameters())
    adam, host = settings.optimizer == "adamw", settings.states == "host"
    moments = 2 * weights if adam else 0
    return Memory(
        weights=weights,
        gradients=weights,
        moments=0 if host else moments,
        rounded=_rounded(model) if settings.precision == "bfloat16" else 0,
        reference=weights if settings.kl > 0 else 0,
        activations=_activations(model, settings, min(settings.prompts, settings.micro_batch), length),
        host=2 * weights + (2 * weights + moments if adam and host else 0),
    )


def require_memory(config: Any, settings: GrpoSettings, available: int, *, length: int = 64) -> None:
    """Refuse a protocol that does not fit into so many bytes of a device, and say which change would make it fit.

    Raises:
        UserError: it does not fit.
    """
    needed = memory_needed(config, settings, length=length)
    if SLACK * needed.device <= available:
        return
    changes: dict[str, dict[str, Any]] = {
        "--recompute": {"recompute": True},
        "--recompute --states host": {"recompute": True, "states": "host"},
    }
    given = f"{settings.optimizer} needs about {needed.describe()}, but the device has {gigabytes(available)}"
    for option, change in changes.items():
        other = memory_needed(config, replace(settings, **change), length=length)
        if SLACK * other.device <= available:
            raise UserError(f"{given}; with {option} it needs {other.describe()}")
    raise UserError(f"{given}; take a larger device, a smaller model, or --optimizer sgd")


def forecast_needed(config: Any) -> int:
    """Bytes that a forecast needs on the device, about."""
    return FORECAST_COPIES * memory_needed(config, GrpoSettings(prompts=1), length=1).weights


def require_forecast_memory(config: Any, available: int) -> None:
    """Refuse a forecast that does not fit into so many bytes of a device. Raises UserError."""
    needed = forecast_needed(config)
    if needed > available:
        raise UserError(
            f"a forecast needs about {gigabytes(needed)} on the device, which has {gigabytes(available)}; "
            "leave it out with --no-forecast"
        )


def _rounded(model: Any) -> int:
    """Bytes of the backbone's matrices in bfloat16: no embedding, no head."""
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return 2 * sum(p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in ends)


@lru_cache(maxsize=4)
def _skeleton(config: str) -> Any:
    """A model of this configuration (as JSON) without values."""
    given = json.loads(config)
    with torch.device("meta"), quiet():
        made = AutoConfig.for_model(given.pop("model_type"), **given)
        return AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()


def _activations(model: Any, settings: GrpoSettings, prompts: int, length: int) -> int:
    """Bytes that one forward pass keeps for the backward one, each storage once, weights not counted."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        key = x.untyped_storage()._cdata
        if key not in own:
            kept[key] = x  # held, so that no later tensor takes its address
        return x

    tokens = torch.zeros(prompts, length, dtype=torch.int64, device="meta")
    last = torch.zeros(prompts, dtype=torch.int64, device="meta")
    packed = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    with running(model, mask=True), recomputing(model, settings.recompute), packed:
        logp = torch.log_softmax(answer_logits(model, tokens, last), -1)
        logp.exp().mean()
    return sum(x.untyped_storage().nbytes() for x in kept.values())
