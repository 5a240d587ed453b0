"""Where a causal language model of the transformers library keeps its layers, final norm and head, found by running it.

Nothing here knows a family of models: the decoder's list of layers is named by the configuration's layer count, and
what the head reads and which module made it is seen in a run on two tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CONTRACT = "give a transformers causal LM (…ForCausalLM: embed_tokens, layers, final norm, head)"
UNBOUNDED = 2**31


@dataclass(frozen=True)
class Layout:
    """Dotted module names and sizes. additive: layer 0 = token embedding + something the token does not change."""

    embedding: str
    layers: tuple[str, ...]
    final_norm: str | None
    head: str
    vocab: int
    width: int
    max_length: int
    additive: bool


@dataclass(frozen=True)
class Sighting:
    """One run on two rows of two tokens: what entered and left each layer, and what the head read."""

    entered: list[Tensor]
    left: list[Tensor]
    head_input: list[Tensor]
    made_by: str | None
    logits: Tensor


def find_layout(model: nn.Module) -> Layout:
    """Find it, or raise ValueError saying what is missing."""
    kind = type(model).__name__
    wanted = ("config", "get_input_embeddings", "get_output_embeddings")
    missing = [name for name in wanted if not hasattr(model, name)]
    if missing:
        raise ValueError(f"{kind} lacks {', '.join(missing)}; {CONTRACT}")
    any_model: Any = model
    config: Any = any_model.config
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{kind} is an encoder-decoder; {CONTRACT}")
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = {id(module): name for name, module in model.named_modules()}
    embedding, head = any_model.get_input_embeddings(), any_model.get_output_embeddings()
    if embedding is None or head is None or id(head) not in names:
        raise ValueError(f"{kind} has no {'output head' if head is None else 'embedding'}; {CONTRACT}")
    layers = layer_names(model, int(getattr(config, "num_hidden_layers", None) or 0))
    vocab = int(embedding.weight.shape[0])
    max_length = int(getattr(config, "max_position_embeddings", None) or UNBOUNDED)
    rows = _two_rows(vocab, max_length, config).to(embedding.weight.device)
    with torch.no_grad():
        seen, again = (_watch(model, rows, layers, names[id(head)]) for _ in range(2))
        _check(kind, seen, again, layers)
        table = embedding(rows)
    width = int(seen.left[0].shape[-1])
    state = seen.entered[0]
    additive = table.shape == state.shape and torch.allclose(
        (state[0] - state[1]).float(), (table[0] - table[1]).float(), rtol=1e-3, atol=1e-3 * float(state.abs().max())
    )
    return Layout(names[id(embedding)], layers, seen.made_by, names[id(head)], vocab, width, max_length, additive)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The state with which a layer is called: its first argument, or ``hidden_states``."""
    return args[0] if args else kwargs["hidden_states"]


def with_first(args: tuple[Any, ...], kwargs: dict[str, Any], state: Tensor) -> tuple[Any, dict[str, Any]]:
    """The same call with another state."""
    return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})


def layer_names(model: nn.Module, count: int) -> tuple[str, ...]:
    """Names of the decoder's layers: the outermost list with as many entries as the configuration has layers."""
    any_model: Any = model
    decoder: Any = any_model.get_decoder() if hasattr(model, "get_decoder") else model
    inside = {id(module) for module in (model if decoder is None else decoder).modules()}
    lists = [
        name
        for name, module in model.named_modules()
        if id(module) in inside and isinstance(module, nn.ModuleList) and len(module) == count
    ]
    outermost = [name for name in lists if name.count(".") == min(n.count(".") for n in lists)]
    if count < 1 or len(outermost) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(outermost)} lists of {count} layers (num_hidden_layers), so its hidden "
            f"states cannot be found; {CONTRACT}"
        )
    return tuple(f"{outermost[0]}.{i}" for i in range(count))


def _two_rows(vocab: int, max_length: int, config: Any) -> Tensor:
    """[[a, b], [a, c]] without the padding token where the vocabulary allows."""
    padding = getattr(config, "pad_token_id", None)
    tokens = [v for v in range(min(vocab, 4)) if v != padding] or [0]
    a, b, c = (tokens[i % len(tokens)] for i in range(3))
    return torch.tensor([[a, b], [a, c]])[:, : min(2, max_length)]


def _watch(model: nn.Module, rows: Tensor, layers: tuple[str, ...], head: str) -> Sighting:
    """Run once, keeping every tensor that a module after the last layer returns."""
    entered: list[Tensor] = []
    left: list[Tensor] = []
    head_input: list[Tensor] = []
    later: list[tuple[str, Tensor]] = []

    def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
        entered.append(first_tensor(args, kwargs))

    def leave(_module: nn.Module, _args: Any, out: Any) -> None:
        left.append(out[0] if isinstance(out, tuple) else out)

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            if len(left) == len(layers) and isinstance(out, Tensor):
                later.append((name, out))

        return hook

    handles = []
    for name, module in model.named_modules():
        if name in layers:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        elif name == head:
            handles.append(module.register_forward_pre_hook(lambda _module, args: head_input.append(args[0])))
        elif not any(name.startswith(f"{layer}.") for layer in layers):
            handles.append(module.register_forward_hook(after(name)))
    try:
        logits = model(input_ids=rows, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    made_by = [name for name, out in later if head_input and out.data_ptr() == head_input[0].data_ptr()]
    return Sighting(entered, left, head_input, made_by[0] if made_by else None, logits)


def _check(kind: str, seen: Sighting, again: Sighting, layers: tuple[str, ...]) -> None:
    """Raise ValueError unless each layer hands its state to the next, once, causally and without chance."""
    if len(seen.left) != len(layers) or not seen.head_input:
        raise ValueError(f"{kind} called {len(seen.left)} of {len(layers)} layers, or no head; {CONTRACT}")
    shape = seen.left[0].shape
    handed = [*zip(seen.left[:-1], seen.entered[1:], strict=True)]
    if len(shape) != 3 or any(a.shape != shape or not torch.equal(a, b) for a, b in handed):
        raise ValueError(f"{kind}: a layer does not read the (B,T,S) state that the one before it returns; {CONTRACT}")
    if seen.head_input[0].shape != shape or seen.entered[0].shape != shape:
        raise ValueError(
            f"{kind}: layer states are {shape[-1]} wide, the embedding {seen.entered[0].shape[-1]}, "
            f"the head's input {seen.head_input[0].shape[-1]}; a trace needs one width"
        )
    if not torch.equal(seen.logits, again.logits):
        raise ValueError(f"{kind}: two runs on the same tokens differ (dropout?); call model.eval() first")
    first = torch.stack([state[:, 0].float() for state in seen.left])
    if not torch.allclose(first[:, 0], first[:, 1], rtol=1e-3, atol=1e-5 * float(first.abs().max())):
        raise ValueError(f"{kind} is not causal: the second token changes the first position's states; {CONTRACT}")
