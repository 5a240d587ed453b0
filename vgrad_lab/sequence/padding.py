"""Padded batches: each row is run from its first real token, so that padding changes nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vgrad_lab.sequence.trace import Edit, Patch, SequenceModel, Trace, probing


@dataclass(frozen=True)
class Padding:
    """mask: True at real tokens. first: position of the first of each row."""

    mask: Bool[Tensor, "B T"]
    first: Int[Tensor, " B"]

    @property
    def to_model(self) -> Int[Tensor, "B T"]:
        """Entry (b, j): the caller's position that the model reads at j; each row starts with its first real token."""
        length = self.mask.shape[1]
        return (torch.arange(length, device=self.mask.device) + self.first[:, None]) % length

    @property
    def from_model(self) -> Int[Tensor, "B T"]:
        """The inverse of ``to_model``."""
        length = self.mask.shape[1]
        return (torch.arange(length, device=self.mask.device) - self.first[:, None]) % length


def padding(attention_mask: Int[Tensor, "B T"] | Bool[Tensor, "B T"], inputs: Int[Tensor, "B T"]) -> Padding:
    """Read an attention mask; raises ValueError unless each row is one unbroken run of ones between zeros."""
    if attention_mask.shape != inputs.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; the inputs ask for {tuple(inputs.shape)}"
        )
    mask = attention_mask.to(inputs.device) == 1
    if not bool((mask | (attention_mask.to(inputs.device) == 0)).all()):
        raise ValueError("attention_mask holds numbers other than 0 and 1; give 1 at real tokens and 0 at padding")
    starts = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    wrong = (starts.sum(1) != 1).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"attention_mask row {wrong[0]} is no single run of ones; pad on the left or on the right, not in between"
        )
    return Padding(mask, starts.int().argmax(1))


def padded_trace(
    model: SequenceModel, inputs: Int[Tensor, "B T"], padded: Padding, probe: Float[Tensor, "L1 B T S"],
    patch: Patch | None,
) -> Trace:  # fmt: skip
    """Trace in the caller's positions; states, head input and logits are 0 at padding, and so is their derivative.

    Raises ValueError for a patch at a masked position.
    """
    edits = [probing(torch.take_along_dim(probe, padded.to_model[None, :, :, None], dim=2))]
    if patch is not None:
        if not bool(padded.mask[:, patch.position].all()):
            raise ValueError(f"patch at position {patch.position}, which is padding in some row; patch real tokens")
        edits.insert(0, _patching_rows(patch, patch.position - padded.first))

    def edit(layer: int, start: int, h: Tensor) -> Tensor:
        for one in edits:
            h = one(layer, start, h)
        return h

    found = model(torch.take_along_dim(inputs, padded.to_model, dim=1), edit=edit)

    def back(x: Tensor) -> Tensor:
        index = padded.from_model[:, :, None].expand(*x.shape[:-1], 1)
        moved = torch.take_along_dim(x, index, dim=-2)
        return torch.where(padded.mask[:, :, None], moved, torch.zeros_like(moved))

    return Trace(back(found.hidden), back(found.head_input), back(found.logits), probe)


def _patching_rows(patch: Patch, position: Tensor) -> Edit:
    """``patch`` with a position of its own in every row."""

    def edit(layer: int, start: int, h: Tensor) -> Tensor:
        if layer != patch.layer:
            return h
        here = start + torch.arange(h.shape[1], device=h.device) == position[:, None]
        return torch.where(here[..., None], patch.value.expand(len(h), -1).unsqueeze(1), h)

    return edit
