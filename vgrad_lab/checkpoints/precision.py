"""How a model computes: bfloat16 products over float32 weights, a causal mask made once, layers computed twice.

Weights, gradients, the residual stream, head and softmax stay float32; only the backbone's matrix products round.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vgrad_lab.checkpoints.errors import UserError

Precision = Literal["float32", "bfloat16"]
"""Of the backbone's matrix products."""


def known_precision(name: str) -> Precision:
    """The name, if it is one. Raises UserError otherwise."""
    if name not in get_args(Precision):
        raise UserError(
            f"precision is {name!r}; choose one of {', '.join(get_args(Precision))} (float16 overflows in OLMo)"
        )
    return cast(Precision, name)


@contextmanager
def running(model: Any, precision: Precision = "float32", *, mask: bool | None = None) -> Iterator[None]:
    """Inside, the backbone computes in this precision and its last hidden state is float32.

    Each forward pass has an autocast of its own: a longer one would keep rounded copies of weights that an optimiser
    has changed since.

    Args:
        model: a `transformers` causal language model; a copy of it made inside computes in the same way.
        precision: bfloat16 rounds the inputs of matrix products; a model in another type than float32 is refused.
        mask: give the causal mask to the model, where that is all its mask; without it the library looks at values on
            the device and waits for it, once a pass. Default: where the model is not on the CPU.

    Raises:
        UserError: bfloat16 is asked for and the weights are not float32.
    """
    mask = model.device.type != "cpu" if mask is None else mask
    if precision == "float32" and not mask:
        yield
        return
    if precision == "bfloat16" and (other := {str(p.dtype) for p in model.parameters()} - {"torch.float32"}):
        raise UserError(f"the weights are {', '.join(sorted(other))}; load them in float32 to compute in bfloat16")
    backbone = model.base_model
    before = backbone.__dict__.get("forward")
    backbone.forward = partial(_forward, backbone.forward, precision, mask, model.config.get_text_config())
    try:
        yield
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before


def _forward(
    inner: Callable[..., Any], precision: Precision, mask: bool, config: Any, /, *args: Any, **named: Any
) -> Any:
    """The backbone's forward as `running` has it."""
    tokens = args[0] if args else named.get("input_ids")
    alone = len(args) < 2 and not any(named.get(k) is not None for k in ("attention_mask", "past_key_values"))
    if mask and tokens is not None and alone and not named.get("use_cache") and plain(config, tokens.shape[1]):
        named["attention_mask"] = causal_mask(*tokens.shape, device=tokens.device)
    if precision == "float32":
        return inner(*args, **named)
    with torch.autocast("cpu" if tokens is None else tokens.device.type, dtype=torch.bfloat16):
        output = inner(*args, **named)
    output.last_hidden_state = output.last_hidden_state.float()
    return output


def plain(config: Any, length: int) -> bool:
    """Whether every layer attends to all positions before it, in a sequence so long, through torch's own attention."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    full = kinds <= {"full_attention"} and (bool(kinds) or window is None or length <= window)
    return full and getattr(config, "_attn_implementation", None) == "sdpa"


def causal_mask(rows: int, length: int, *, device: torch.device | str) -> Bool[Tensor, "B 1 T T"]:
    """Which positions each position attends to: itself and those before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(rows, 1, length, length)


@contextmanager
def recomputing(model: Any, on: bool) -> Iterator[None]:
    """Inside, each layer's activations are dropped and computed again in the backward pass; the gradient is the same.

    Dropout stays off, which the library's own switch does not do. Raises UserError where a family has no such layers.
    """
    if not on:
        yield
        return
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no layers that can be computed twice; leave recompute off")
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    state = {"gradient_checkpointing": True, "_gradient_checkpointing_func": again, "training": True}
    before = [{name: layer.__dict__.get(name) for name in state} for layer in layers]
    try:
        for layer in layers:
            layer.__dict__.update(state)
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            for name, value in old.items():
                if value is None:
                    layer.__dict__.pop(name, None)
                else:
                    layer.__dict__[name] = value
