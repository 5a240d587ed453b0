"""What one forward pass exposes: every hidden state, ready to be differentiated or replaced."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Edit = Callable[[int, int, Tensor], Tensor]
"""``edit(layer, start, h)`` returns the (B,n,S) states to use at positions start … start+n−1 instead of ``h``."""


@dataclass(frozen=True)
class Trace:
    """Hidden states and logits of one forward pass, all in one autograd graph.

    hidden: row 0 is what the first layer reads (embedding and position), row l the output of layer l; the last row
    stands *before* any final norm.
    head_input: what the output matrix reads, *after* the final norm (the last row of ``hidden`` where there is none).
    logits: position t scores the token that follows input t.
    probe: zeros added to every state, so that a derivative with respect to it is one with respect to ``hidden``.
    """

    hidden: Float[Tensor, "L1 B T S"]
    head_input: Float[Tensor, "B T S"]
    logits: Float[Tensor, "B T V"]
    probe: Float[Tensor, "L1 B T S"] | None = None

    @property
    def before_final_norm(self) -> Float[Tensor, "B T S"]:
        """h^(L), the residual stream that leaves the last layer: ``hidden[-1]``."""
        return self.hidden[-1]

    @property
    def after_final_norm(self) -> Float[Tensor, "B T S"]:
        """What the head reads: ``head_input``, the entry that transformers calls ``hidden_states[-1]``."""
        return self.head_input


@dataclass(frozen=True)
class Patch:
    """do(h_t^(l) = value): layer l (0 is the embedding), position t, one value for all the batch or one per row."""

    layer: int
    position: int
    value: Float[Tensor, " S"] | Float[Tensor, "B S"]


class SequenceModel(nn.Module):
    """A causal language model whose ``forward(inputs, *, edit)`` returns a Trace and sends every state through edit."""

    vocab: int
    width: int
    layers: int
    max_length: int

    def read_out(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B V"]:
        """Logits from states of the last layer (before any final norm)."""
        raise NotImplementedError

    def token_table(self) -> Float[Tensor, "V S"]:
        """Input embedding of every token, without position."""
        raise NotImplementedError


def unchanged(_layer: int, _start: int, h: Tensor) -> Tensor:
    """The edit that leaves every state as it is."""
    return h


def check_tokens(tokens: Tensor, *, vocab: int, name: str = "tokens", max_length: int | None = None) -> None:
    """Refuse tokens that are no non-empty (B,T) int64 array over 0 … vocab−1, or longer than ``max_length``."""
    if tokens.dtype is not torch.int64:
        raise ValueError(f"{name} has dtype {tokens.dtype}; give int64 token ids (embeddings go to trace_embeddings)")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(tokens.shape)}; give a non-empty (B,T) array")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab:
        raise ValueError(f"{name} runs from {low} to {high}; token ids must lie in 0 … {vocab - 1}")
    if max_length is not None and tokens.shape[1] > max_length:
        raise ValueError(f"{name} has {tokens.shape[1]} positions; this model reads at most {max_length}")


def patching(patch: Patch) -> Edit:
    """The edit that does ``patch`` and leaves all other states alone."""

    def edit(layer: int, start: int, h: Tensor) -> Tensor:
        i = patch.position - start
        if layer != patch.layer or not 0 <= i < h.shape[1]:
            return h
        value = patch.value.expand(len(h), -1).unsqueeze(1)
        return torch.cat([h[:, :i], value, h[:, i + 1 :]], dim=1)

    return edit


def probing(probe: Float[Tensor, "L1 B T S"]) -> Edit:
    """The edit that adds ``probe`` to every state.

    The probe is taken apart once: the derivative of n slices would cost n times its size.
    """
    rows = probe.unbind(0)
    steps: dict[int, tuple[Tensor, ...]] = {}

    def edit(layer: int, start: int, h: Tensor) -> Tensor:
        if h.shape[1] == probe.shape[2]:
            return h + rows[layer]
        if h.shape[1] > 1:
            return h + rows[layer][:, start : start + h.shape[1]]
        if layer not in steps:
            steps[layer] = torch.split(rows[layer], 1, dim=1)
        return h + steps[layer][start]

    return edit


def trace(
    model: SequenceModel, inputs: Int[Tensor, "B T"], *, patch: Patch | None = None,
    attention_mask: Int[Tensor, "B T"] | Bool[Tensor, "B T"] | None = None,
) -> Trace:  # fmt: skip
    """Run ``model`` on fixed tokens, with a probe on every state and at most one state replaced.

    inputs: (B,T) token ids. patch: later positions and layers read the replaced state as they read the natural one.
    attention_mask: 1 at real tokens, 0 at padding left or right of them; each row then gives what it gives alone, and
    0 at its padding. Without a mask every token is read as a real one. Raises ValueError for tokens outside the
    vocabulary, a patch outside the trace and a mask with holes.
    """
    check_tokens(inputs, vocab=model.vocab, name="inputs", max_length=model.max_length)
    probe = _fresh_probe(model, inputs.shape)
    if patch is not None:
        _check_patch(patch, tuple(probe.shape))
    if attention_mask is not None:
        from vgrad_lab.sequence.padding import padded_trace, padding

        return padded_trace(model, inputs, padding(attention_mask, inputs), probe, patch)
    put = unchanged if patch is None else patching(patch)
    add = probing(probe)
    return replace(model(inputs, edit=lambda layer, start, h: add(layer, start, put(layer, start, h))), probe=probe)


def trace_embeddings(model: SequenceModel, embeddings: Float[Tensor, "B T S"]) -> Trace:
    """``trace`` from given states at layer 0 (embedding *and* position; soft tokens, say) instead of token ids.

    Raises ValueError for integers (token ids), another width, no positions or too many.
    """
    if not embeddings.is_floating_point():
        raise ValueError(f"embeddings has dtype {embeddings.dtype}; give floating-point states (token ids go to trace)")
    if embeddings.ndim != 3 or embeddings.numel() == 0 or embeddings.shape[2] != model.width:
        raise ValueError(f"embeddings has shape {tuple(embeddings.shape)}; give a non-empty (B,T,{model.width})")
    inputs = torch.zeros(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device)
    check_tokens(inputs, vocab=model.vocab, name="embeddings", max_length=model.max_length)
    probe = _fresh_probe(model, inputs.shape)
    add = probing(probe)

    def edit(layer: int, start: int, h: Tensor) -> Tensor:
        return add(layer, start, h if layer else embeddings[:, start : start + h.shape[1]].to(h.dtype))

    return replace(model(inputs, edit=edit), probe=probe)


def _fresh_probe(model: SequenceModel, shape: torch.Size) -> Tensor:
    parameter = next(model.parameters())
    size = (model.layers + 1, *shape, model.width)
    return torch.zeros(size, dtype=parameter.dtype, device=parameter.device, requires_grad=True)


def _check_patch(patch: Patch, shape: tuple[int, ...]) -> None:
    rows, batch, length, width = shape
    if not 0 <= patch.layer < rows or not 0 <= patch.position < length:
        raise ValueError(
            f"patch at layer {patch.layer}, position {patch.position}; "
            f"layers are 0 … {rows - 1} and positions 0 … {length - 1}"
        )
    if not patch.value.is_floating_point():
        raise ValueError(f"patch value has dtype {patch.value.dtype}; give floating-point states, not token ids")
    if tuple(patch.value.shape) not in ((width,), (batch, width)):
        raise ValueError(f"patch value has shape {tuple(patch.value.shape)}; give ({width},) or ({batch}, {width})")
