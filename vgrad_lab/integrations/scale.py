"""The weight that TRL's losses give to one answer, and the costate that a gradient of such a loss stands for.

Departure from the paper: λ̂ is the costate of one answer's Â Σ_t ℓ_t, so neither batch size nor length nor accumulation
is part of it. TRL divides by all three, each loss type in its own way.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

LossType = Literal["grpo", "sapo", "bnpo", "dr_grpo", "dapo", "cispo", "vespo", "luspo"]
"""TRL's names; sapo is divided as grpo, cispo and vespo as dapo."""


def loss_weight(
    loss_type: str,
    length: Int[Tensor, " B"],
    *,
    accumulation: int = 1,
    max_completion_length: int | None = None,
    window_tokens: float | Tensor | None = None,
) -> Float[Tensor, " B"]:
    """Weight w_i of answer i's surrogate Â_i Σ_t ℓ_{i,t} in the loss of its micro-batch, on-policy.

    ∂L/∂h = −w_i ∂(Â_i Σ_t ℓ_{i,t})/∂h with w_i = 1/(B K |o_i|) for grpo and sapo, 1/(K Σ_j |o_j|) for bnpo,
    1/(B K T_max) for dr_grpo, 1/(B K) for luspo, 1/N for dapo, cispo and vespo. TRL, not the paper.

    length: |o_i|, answer tokens that the loss counts. accumulation: K, micro-batches in the optimiser's step.
    max_completion_length: T_max. window_tokens: N, answer tokens of one step on one process. Raises ValueError for
    another loss type, or one whose number is missing. Ledger: S21.exact.
    """
    if loss_type not in get_args(LossType):
        raise ValueError(f"loss_type is {loss_type!r}; the scale is known for {', '.join(get_args(LossType))}")
    if accumulation < 1:
        raise ValueError(f"accumulation is {accumulation}; give the micro-batches of one step, at least 1")
    size = length.to(torch.float64) if length.device.type != "mps" else length.float()
    share = torch.full_like(size, 1 / (len(size) * accumulation))
    if loss_type in ("grpo", "sapo"):
        return share / size.clamp(min=1)
    if loss_type == "bnpo":
        return torch.ones_like(size) / size.sum().clamp(min=1) / accumulation
    if loss_type == "luspo":
        return share
    if loss_type == "dr_grpo":
        if max_completion_length is None or max_completion_length < 1:
            raise ValueError(f"dr_grpo divides by max_completion_length, got {max_completion_length}")
        return share / max_completion_length
    if window_tokens is None or (not isinstance(window_tokens, Tensor) and not window_tokens > 0):
        raise ValueError(f"{loss_type} divides by the step's answer tokens, got window_tokens={window_tokens}")
    return torch.ones_like(size) / window_tokens


def empirical_costate(
    gradient: Float[Tensor, "B T S"], weight: Float[Tensor, " B"], *, loss_scale: float = 1.0
) -> Float[Tensor, "B T S"]:
    """Costate of each answer from the loss's gradient at a state.

    λ̂_i = −(1/(c w_i)) ∂L/∂h_i = ∂(Â_i Σ_t ℓ_{i,t})/∂h_i (Def. 2 of the paper, all paths with tokens fixed).

    gradient: ∂L/∂h. weight: w_i. loss_scale: c, of float16 training, else 1. Raises ValueError for weights that are
    not positive. Ledger: S21.exact.
    """
    if not bool((weight > 0).all()) or not loss_scale > 0:
        raise ValueError(f"weight and loss_scale must be positive, got {weight.tolist()} and {loss_scale}")
    return -gradient / (weight.to(gradient.dtype) * loss_scale)[:, None, None]
