"""The states in which a costate may be read: the head's input, the state before the final norm, the first block's.

One prefill of the prompts without their last token; then the last token alone is run with a graph, so that the Jacobian
of the head's input costs S backward passes over one token each instead of over whole prompts.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.probe import on_device
from vgrad_lab.checkpoints.tasks import PromptBatch

State = Literal["head", "last", "first"]


def answer_metrics(
    model: Any, batch: PromptBatch, states: Sequence[State]
) -> tuple[Float[ndarray, "Q S"], dict[State, Float[ndarray, "Q S S"] | None]]:
    """Head input at the answer position of every prompt, and JJᵀ of each state there (None for the head's input).

    J = ∂(head input)/∂(state), (S, width of the state), all at the answer position. "last": before the final norm, or
    the head's input itself in a model without one. "first": the embedding of the last prompt token. float64.
    """
    hidden: ndarray | None = None
    metrics: dict[State, ndarray] = {}
    wanted = [state for state in states if state != "head"]
    for length in np.unique(batch.last):
        rows = np.flatnonzero(batch.last == length)
        state, found = _group(model, batch, rows, wanted)
        if hidden is None:
            hidden = np.empty((len(batch.last), state.shape[1]))
            metrics = {s: np.empty((*hidden.shape, hidden.shape[1])) for s in wanted}
        hidden[rows] = state
        for s in wanted:
            metrics[s][rows] = found[s]
    assert hidden is not None, "a batch holds at least one prompt"
    return hidden, {s: metrics.get(s) for s in states}


def _group(
    model: Any, batch: PromptBatch, rows: ndarray, wanted: Sequence[State]
) -> tuple[ndarray, dict[State, ndarray]]:
    """Head input and JJᵀ of prompts of one length."""
    tokens = _tokens(model, batch, rows)
    past = None
    if tokens.shape[1] > 1:
        with torch.no_grad():
            past = model.base_model(input_ids=tokens[:, :-1], use_cache=True).past_key_values
    with torch.enable_grad():
        state, inputs = _last_token(model, tokens[:, -1:], past)
        found = {s: _metric(state, inputs[s]) for s in wanted}
    return state.detach().double().cpu().numpy(), found


def _tokens(model: Any, batch: PromptBatch, rows: ndarray) -> Tensor:
    picked = PromptBatch(batch.tokens[rows], batch.last[rows], batch.target[rows], batch.labels, batch.weight[rows],
                         batch.template[rows])  # fmt: skip
    return on_device(model, picked, slice(None))[0]


def _last_token(model: Any, token: Tensor, past: Any) -> tuple[Tensor, dict[State, Tensor]]:
    """Head input of one more token, with the states that it came through in its graph."""
    first: list[Tensor] = []
    passed: list[tuple[Any, Any]] = []

    def leaf(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        first.append(output.detach().requires_grad_())
        return first[0]

    hooks = [model.get_input_embeddings().register_forward_hook(leaf)]
    leaves = [module for module in model.base_model.modules() if not any(module.children())]
    hooks += [m.register_forward_hook(lambda _m, inputs, output: passed.append((inputs, output))) for m in leaves]
    try:
        hidden = model.base_model(input_ids=token, past_key_values=past, use_cache=True).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    same = (i for i, o in passed if isinstance(o, Tensor) and o.data_ptr() == hidden.data_ptr() and i)
    return hidden[:, -1], {"first": first[0], "last": next((i[0] for i in same), hidden)}


def _metric(state: Tensor, source: Tensor) -> Float[ndarray, "B S S"]:
    """JJᵀ of ∂state/∂source, row by row; each prompt's state depends on its own source alone."""
    rows = []
    for i in range(state.shape[1]):
        (row,) = torch.autograd.grad(state[:, i].sum(), source, retain_graph=True)
        rows.append(row[:, -1])
    jacobian = torch.stack(rows, 1).double()
    return (jacobian @ jacobian.transpose(1, 2)).cpu().numpy()
