"""Watch the loss's gradient at each layer of a model in training: hooks on the states, kept as norms per position.

Libraries that train do not call the output head (TRL projects with its weight alone), so the head's input is taken from
the output of the backbone. Nothing of the model is changed, and nothing is moved off its device before ``summarise``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vgrad_lab.sequence import layout
from vgrad_lab.sequence.layout import first_tensor

PARTS = ("norm", "mass", "prompt", "first", "last")
"""Per layer, sums over answers: ‖λ̂_i‖, and Σ_t ‖λ̂_{i,t}‖ over all, prompt, first and last answer positions."""


@dataclass
class Watch:
    """Gradient norms of one micro-batch by layer, 0 the embedding, L+1 the head's input; state of the latter."""

    layers: int
    armed: bool = False
    keep_state: bool = False
    norms: dict[int, Float[Tensor, "B T"]] = field(default_factory=dict)
    state: Float[Tensor, "B T S"] | None = None
    handles: list[Any] = field(default_factory=list)


def plain_model(model: Any) -> Any:
    """The causal language model inside an adapter (PEFT) or a wrapper (DDP)."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def watch(model: Any, *, failed: Callable[[Exception], None]) -> Watch:
    """Hook a causal LM's backbone and, where they can be found, its layers.

    failed: called, once per fault, with what a hook could not do; training goes on.
    """
    plain = plain_model(model)
    backbone = plain.base_model
    config = plain.config.get_text_config()
    try:
        names = layout.layer_names(plain, int(getattr(config, "num_hidden_layers", None) or 0))
    except ValueError:
        names = ()  # the head's input is enough for all but the profile over layers
    seen = Watch(layers=len(names))
    modules = [plain.get_submodule(name) for name in names]
    if modules:
        seen.handles.append(modules[0].register_forward_pre_hook(_entering(seen, failed), with_kwargs=True))
    seen.handles += [m.register_forward_hook(_leaving(seen, i, failed)) for i, m in enumerate(modules, start=1)]
    seen.handles.append(backbone.register_forward_hook(_leaving(seen, len(names) + 1, failed)))
    return seen


def release(seen: Watch) -> None:
    """Remove every hook and what they kept."""
    for handle in seen.handles:
        handle.remove()
    seen.handles.clear()
    clear(seen)


def clear(seen: Watch) -> None:
    """Forget the micro-batch."""
    seen.norms, seen.state, seen.armed = {}, None, False


def _follow(seen: Watch, layer: int, state: Any, failed: Callable[[Exception], None]) -> None:
    """Keep the norm of ∂L/∂state when it is known; a layer that is run again by checkpointing writes the same twice."""
    if not (seen.armed and isinstance(state, Tensor) and state.requires_grad):
        return

    def keep(gradient: Tensor) -> None:
        try:
            seen.norms[layer] = torch.linalg.vector_norm(gradient, dim=-1, dtype=_wide(gradient))
        except Exception as error:
            failed(error)

    state.register_hook(keep)  # type: ignore[no-untyped-call]
    if layer == seen.layers + 1 and seen.keep_state:
        seen.state = state.detach()


def _wide(gradient: Tensor) -> torch.dtype:
    return torch.float64 if gradient.dtype == torch.float64 else torch.float32


def _entering(seen: Watch, failed: Callable[[Exception], None]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            _follow(seen, 0, first_tensor(args, kwargs), failed)
        except Exception as error:
            failed(error)

    return hook


def _leaving(seen: Watch, layer: int, failed: Callable[[Exception], None]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, out: Any) -> None:
        try:
            state = getattr(out, "last_hidden_state", None)
            if state is None:
                state = out[0] if isinstance(out, tuple) else out
            _follow(seen, layer, state, failed)
        except Exception as error:
            failed(error)

    return hook


def summarise(
    norm: Float[Tensor, "B T"], scale: Float[Tensor, " B"], *, prompt: int, length: Int[Tensor, " B"]
) -> Float[Tensor, " 5"]:
    """``PARTS`` of one layer of one micro-batch, in units of λ̂.

    norm: ‖∂L/∂h‖. scale: 1/(c w_i). prompt: width of the padded prompt; the first answer token is made by the state at
    its last position. length: answer tokens. Ledger: S21.exact.
    """
    credit = norm.to(scale.dtype) * scale[:, None]
    start = prompt - 1
    end = (start + length - 1).clamp(min=start, max=norm.shape[1] - 1)
    last = credit.gather(1, end[:, None])[:, 0] * (length > 0)
    whole = torch.linalg.vector_norm(credit, dim=1)
    return torch.stack([whole.sum(), credit.sum(), credit[:, :start].sum(), credit[:, start].sum(), last.sum()])
