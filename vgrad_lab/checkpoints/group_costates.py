"""Inner products of the scores of sampled answers at named states of a causal LM: all that ``group_signal`` needs.

s_i = ∂ log π(o_i | q)/∂h with the tokens fixed: the costate of an answer before its advantage. Rows of a batch do not
see each other, so one backward pass gives the scores of all of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.generation import Rollouts, token_logprobs
from vgrad_lab.checkpoints.loading import quiet
from vgrad_lab.sequence.layout import Layout, find_layout, first_tensor, with_first

Positions = Literal["last", "prompt"]
COLUMNS = 1 << 20
"""Numbers of a score that are widened to float64 at a time."""


@dataclass(frozen=True)
class Place:
    """A named state: what layer 0 reads (the embedding), the output of layer 1 … L, or the head's input.

    positions: "last", of the prompt, where the first answer token is made; or "prompt", all of the prompt, whose
    squares are summed. Positions of the answer are no place: each answer has its own prefix there, so no two samples
    share a G. At the head's input only the first answer token depends on a prompt's state; below it, the whole answer.
    """

    layer: int | Literal["head_input"] = "head_input"
    positions: Positions = "last"

    @property
    def name(self) -> str:
        """In words."""
        at = "last prompt position" if self.positions == "last" else "all prompt positions"
        if self.layer == "head_input":
            return f"head input, {at}"
        return f"{f'output of layer {self.layer}' if self.layer else 'embedding'}, {at}"


def place_of(text: str) -> Place:
    """A place from "head", "head:last", "0:prompt", "8": a layer or the head, then the positions.

    Without positions: the last of the prompt for the head, all of it for a layer. Raises UserError for anything else.
    """
    layer, _, positions = text.partition(":")
    positions = positions or ("last" if layer == "head" else "prompt")
    if not (layer == "head" or (layer.isascii() and layer.isdigit())) or positions not in get_args(Positions):
        raise UserError(
            f"state is {text!r}; give head or a layer's number (0 is the embedding), then :last or :prompt, such as "
            "head:last or 8:prompt"
        )
    return Place("head_input" if layer == "head" else int(layer), cast(Positions, positions))


@dataclass(frozen=True)
class ScoreProducts:
    """⟨s_i, s_j⟩ at each place by its name.

    mismatch: mean |difference| of the answer tokens' log-probabilities from those that the answers came with, nats: 0
    up to rounding unless they were drawn from another policy.
    """

    gram: Mapping[str, Float[ndarray, "Q G G"]]
    mismatch: float


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No derivative with respect to weights in a block: a graph starts at the lowest named state only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


@contextmanager
def _watched(model: Any, layout: Layout, layers: Sequence[int | str], seen: dict[int | str, Tensor]) -> Iterator[None]:
    """Keep the states of ``layers`` in ``seen``; the first of them to be made becomes a leaf of the graph."""

    def keep(layer: int | str, state: Tensor) -> Tensor:
        seen[layer] = state if state.requires_grad else state.detach().requires_grad_()
        return seen[layer]

    def before(layer: int | str) -> Callable[..., Any]:
        return lambda _module, args, kwargs: with_first(args, kwargs, keep(layer, first_tensor(args, kwargs)))

    def after(layer: int) -> Callable[..., Any]:
        def hook(_module: Any, _args: Any, out: Any) -> Any:
            return (keep(layer, out[0]), *out[1:]) if isinstance(out, tuple) else keep(layer, out)

        return hook

    handles = []
    for layer in dict.fromkeys(layers):
        if isinstance(layer, str) or layer == 0:
            module = model.get_submodule(layout.head if isinstance(layer, str) else layout.layers[0])
            handles.append(module.register_forward_pre_hook(before(layer), with_kwargs=True))
        else:
            handles.append(model.get_submodule(layout.layers[layer - 1]).register_forward_hook(after(layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def checked_layout(model: Any, places: Sequence[Place]) -> Layout:
    """Where the model keeps its states. Raises UserError for a model without them or a layer it does not have."""
    try:
        layout = find_layout(model)
    except ValueError as error:
        raise UserError(f"hidden states cannot be named: {error}") from error
    for place in places:
        if isinstance(place.layer, int) and not 0 <= place.layer <= len(layout.layers):
            raise UserError(f"layer is {place.layer}; give 0 (embedding) … {len(layout.layers)}, or head")
    if not places:
        raise UserError("no place is named; give at least one state at which to measure")
    return layout


def score_products(
    model: Any,
    rollouts: Rollouts,
    places: Sequence[Place] = (Place(),),
    *,
    needed: Bool[ndarray, " Q"] | None = None,
    micro_batch: int = 64,
) -> ScoreProducts:
    """⟨s_i, s_j⟩ of the answers of every prompt at each place, s = ∂ log π(o|q)/∂h, summed in float64.

    One forward and one backward pass per ``micro_batch`` answers of a prompt; weights get no gradient, and only the
    scores of one prompt are kept. log π is that of the tempered policy. needed: prompts to do, all unless given; the
    products of the others are left 0. Ledger: S21.exact, S22.sampled.

    Raises UserError for a model without named states or a layer that it does not have, ValueError for a micro-batch
    below 1 or answers of one group to different prompts.
    """
    if micro_batch < 1:
        raise ValueError(f"micro_batch is {micro_batch}; give at least 1 answer at a time")
    layout = checked_layout(model, places)
    prompts, group = rollouts.reward.shape
    gram = {place.name: np.zeros((prompts, group, group)) for place in places}
    off, tokens = 0.0, 0
    with quiet(), _frozen(model), torch.enable_grad():
        for q in range(prompts) if needed is None else np.flatnonzero(needed).tolist():
            scores: list[list[Tensor]] = [[] for _ in places]
            for first in range(q * group, (q + 1) * group, micro_batch):
                rows = slice(first, min(first + micro_batch, (q + 1) * group))
                found, wrong, count = _scores(model, layout, rollouts, places, rows)
                off, tokens = off + wrong, tokens + count
                for total, part in zip(scores, found, strict=True):
                    total.append(part)
            for place, parts in zip(places, scores, strict=True):
                gram[place.name][q] = _products(torch.cat(parts))
    return ScoreProducts(gram, off / max(tokens, 1))


def _scores(
    model: Any, layout: Layout, rollouts: Rollouts, places: Sequence[Place], rows: slice
) -> tuple[list[Float[Tensor, "B P"]], float, int]:
    """Scores of some answers of a prompt at each place, flat; summed |Δ log π| of their tokens, and how many."""
    length = rollouts.prompt_length[rows]
    if bool((length != length[0]).any()):
        raise ValueError("the answers of a group have prompts of different length; rows are (prompt, sample) in order")
    seen: dict[int | str, Tensor] = {}
    with _watched(model, layout, [place.layer for place in places], seen):
        logp, real = token_logprobs(model, rollouts, rows)
    gradients = torch.autograd.grad(logp.sum(), [seen[place.layer] for place in places])
    scores, most = [], logp.shape[1]
    for place, gradient in zip(places, gradients, strict=True):
        last = gradient.shape[1] - most - 1  # counted from the end: the head may see the scored positions only
        scores.append(gradient[:, 0 if place.positions == "prompt" else last : last + 1].flatten(1))
    given = rollouts.logp[rows, :most].to(logp)
    return scores, float(((logp.detach() - given).abs() * real).sum()), int(real.sum())


def _products(scores: Float[Tensor, "G P"]) -> Float[ndarray, "G G"]:
    place = "cpu" if scores.device.type == "mps" else scores.device  # which has no float64
    total = torch.zeros(len(scores), len(scores), dtype=torch.float64, device=place)
    for part in torch.split(scores, COLUMNS, dim=1):
        wide = part.to(place).double()
        total += wide @ wide.T
    return np.asarray(total.cpu().numpy())
