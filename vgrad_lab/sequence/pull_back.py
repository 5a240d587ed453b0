"""Vector–Jacobian products of a trace, several at once."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from vgrad_lab.sequence.trace import Trace

BUDGET = 2**22
"""Numbers that one batch of products may return before the chunk falls to one product a layer."""


def require_graph(trace: Trace) -> Tensor:
    """The probe of a trace that can be differentiated; raises ValueError otherwise."""
    if trace.probe is None:
        raise ValueError("this trace has no probe; make it with trace(model, inputs), not by calling the model")
    if not trace.hidden.requires_grad:
        raise ValueError("this trace has no graph; make it outside torch.no_grad() and torch.inference_mode()")
    return trace.probe


def default_chunk(trace: Trace) -> int:
    """How many products go at once: as many as the budget holds, and at least one for each layer.

    A product keeps about one layer's activations alive, so that memory stays near that of the forward pass.
    """
    return max(len(trace.hidden) - 1, BUDGET // trace.hidden.numel(), 1)


def pull_back(
    trace: Trace, states: Float[Tensor, "B *n"], cotangents: Float[Tensor, "_ B *n"]
) -> Float[Tensor, "_ L1 B T S"]:
    """J^T v for every cotangent v: ∂⟨v, states⟩/∂h_t^(l) for every layer and position at once.

    states: anything computed from ``trace.hidden`` or ``trace.logits``. Uses one batched backward pass, or one pass
    for each cotangent where an operation of the model cannot be batched. Raises ValueError for a trace without graph.
    """
    probe = require_graph(trace)
    if len(cotangents) > 1:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                return torch.autograd.grad(states, probe, cotangents, is_grads_batched=True, retain_graph=True)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "vmap" not in str(error) and "atching rule" not in str(error):
                raise
    return torch.stack([torch.autograd.grad(states, probe, v, retain_graph=True)[0] for v in cotangents])
