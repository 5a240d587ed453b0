"""Recursions for the empirical costate: the paper's one-step form, and the forms that are exact."""

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.sequence.credit_flow import empirical_costate, hidden_jacobian, token_logprob
from vgrad_lab.sequence.trace import SequenceModel, Trace


def immediate_credit(
    trace: Trace, targets: Int[Tensor, "B T"], advantage: Float[ndarray, "B T"]
) -> Float[Tensor, "L1 B T S"]:
    """Â_t ∂ℓ_t/∂h_t^(l): the part of the costate that stays at its own position (first term of eq. 15)."""
    parts = [
        empirical_costate(trace, targets, _only(advantage, position))[:, :, position]
        for position in range(targets.shape[1])
    ]
    return torch.stack(parts, dim=2)


def one_step_recursion(
    trace: Trace, targets: Int[Tensor, "B T"], advantage: Float[ndarray, "B T"], *, layer: int
) -> Float[Tensor, "B T S"]:
    """Eq. 15 at one layer: λ̃_t = Â_t ∂ℓ_t/∂h_t + J_{t+1←t}^T λ̃_{t+1}, J the Jacobian within that layer.

    Equal to the costate at the last layer of a transformer (where J = 0) and at the top of a GRU (where J ≠ 0), and
    in general not below. Ledger S14.
    """
    immediate = immediate_credit(trace, targets, advantage)[layer]
    costate = [immediate[:, -1]]
    for t in reversed(range(targets.shape[1] - 1)):
        jacobian = hidden_jacobian(trace, source=(layer, t), target=(layer, t + 1))
        costate.insert(0, immediate[:, t] + _pull(jacobian, costate[0]))
    return torch.stack(costate, dim=1)


def direct_sum(
    trace: Trace, targets: Int[Tensor, "B T"], advantage: Float[ndarray, "B T"], *, layer: int
) -> Float[Tensor, "B T S"]:
    """Σ_{k≥t} (∂h_k^(L)/∂h_t^(l))^T ∂(Â_k ℓ_k)/∂h_k^(L): exact at every layer. Ledger S14.sum."""
    last, length = len(trace.hidden) - 1, targets.shape[1]
    top = immediate_credit(trace, targets, advantage)[last]
    costate = torch.zeros_like(top)
    for t in range(length):
        for k in range(t, length):
            costate[:, t] += _pull(hidden_jacobian(trace, source=(layer, t), target=(last, k)), top[:, k])
    return costate


def depth_recursion(
    trace: Trace, targets: Int[Tensor, "B T"], advantage: Float[ndarray, "B T"]
) -> Float[Tensor, "L1 B T S"]:
    """λ_t^(l) = Σ_{k≥t} (∂h_k^(l+1)/∂h_t^(l))^T λ_k^(l+1), from the last layer down.

    Exact for a transformer, where a block reads nothing but the block below. Ledger S14.depth.
    """
    length = targets.shape[1]
    costate = [immediate_credit(trace, targets, advantage)[-1]]
    for layer in reversed(range(len(trace.hidden) - 1)):
        below = torch.zeros_like(costate[0])
        for t in range(length):
            for k in range(t, length):
                jacobian = hidden_jacobian(trace, source=(layer, t), target=(layer + 1, k))
                below[:, t] += _pull(jacobian, costate[0][:, k])
        costate.insert(0, below)
    return torch.stack(costate)


def cache_costate(
    model: SequenceModel, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], advantage: Float[ndarray, "B T"],
    *, position: int,
) -> Float[Tensor, "L1 B _ S"]:  # fmt: skip
    """∂/∂C Σ_{k≥t} Â_k ℓ_k at t = position, C = the states of all layers before t, each varied on its own.

    C is what a key–value cache is made from. The T axis of the result has ``position`` entries.
    """
    cache, result = _from_cache(model, inputs, model(inputs).hidden, position)
    weight = torch.as_tensor(advantage[:, position:])
    objective = (weight * token_logprob(result.logits, targets)[:, position:]).sum()
    return torch.autograd.grad(objective, cache)[0]


def cache_recursion(
    model: SequenceModel, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], advantage: Float[ndarray, "B T"]
) -> list[Float[Tensor, "L1 B _ S"]]:
    """λ_t = ∂(Â_t ℓ_t)/∂C_t + (∂C_{t+1}/∂C_t)^T λ_{t+1} with the growing cache C_t as state, t = T−1 … 0.

    Entry t has t positions; exact for transformers and recurrent networks alike. Ledger S14.cache.
    """
    natural = model(inputs).hidden
    length = inputs.shape[1]
    costates = [torch.zeros_like(natural)]
    for t in reversed(range(length)):
        cache, result = _from_cache(model, inputs[:, : t + 1], natural, t)
        now = torch.as_tensor(advantage[:, t]) * token_logprob(result.logits, targets[:, : t + 1])[:, t]
        following = torch.cat([cache, result.hidden[:, :, t:]], dim=2)
        objective = now.sum() + (costates[0] * following).sum()
        costates.insert(0, torch.autograd.grad(objective, cache)[0])
    return costates[:-1]


def _from_cache(model: SequenceModel, inputs: Tensor, natural: Tensor, t: int) -> tuple[Tensor, Trace]:
    """Run on ``inputs`` with every state before position t taken from a leaf of natural values."""
    cache = natural[:, :, :t].detach().clone().requires_grad_()

    def edit(layer: int, start: int, h: Tensor) -> Tensor:
        stop = min(max(t - start, 0), h.shape[1])
        return torch.cat([cache[layer, :, start : start + stop], h[:, stop:]], dim=1)

    return cache, model(inputs, edit=edit)


def _pull(jacobian: Tensor, costate: Tensor) -> Tensor:
    return torch.einsum("boi,bo->bi", jacobian, costate)


def _only(advantage: ndarray, position: int) -> ndarray:
    kept = advantage.copy()
    kept[:, :position] = 0.0
    kept[:, position + 1 :] = 0.0
    return kept
