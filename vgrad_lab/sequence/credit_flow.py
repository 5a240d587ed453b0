"""How credit flows backwards through a sequence model along the fixed-token path."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.sequence.trace import Trace, check_tokens


def token_logprob(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """ℓ_t = log π(target_t | …) in nats, differentiable; raises ValueError for targets outside the vocabulary."""
    _check_targets(logits, targets)
    return logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def state_gradient(objective: Float[Tensor, ""], trace: Trace) -> Float[Tensor, "L1 B T S"]:
    """∂ objective/∂h_t^(l) for every layer and position; raises ValueError for a trace without probe."""
    if trace.probe is None:
        raise ValueError("this trace has no probe; make it with trace(model, inputs), not by calling the model")
    return torch.autograd.grad(objective, trace.probe, retain_graph=True)[0]


def empirical_costate(
    trace: Trace,
    targets: Int[Tensor, "B T"],
    advantage: Float[ndarray, "B *T"] | Float[Tensor, "B *T"],
) -> Float[Tensor, "L1 B T S"]:
    """λ̂_t^(l) = ∂/∂h_t^(l) Σ_k Â_k ℓ_k with all tokens fixed (eq. 14, at every layer and not the last alone).

    targets: (B,T), target t is the token sampled at position t. advantage: data, (B,) for one number per sequence or
    (B,T); give 0 where a token was not sampled (a prompt). Raises ValueError for an advantage that carries a graph,
    is not finite or has another shape. Ledger S14, S21.
    """
    weight = _as_weight(advantage, trace.logits)
    objective = (weight * token_logprob(trace.logits, targets)).sum()
    return state_gradient(objective, trace)


def hidden_jacobian(trace: Trace, *, source: tuple[int, int], target: tuple[int, int]) -> Float[Tensor, "B S S"]:
    """J = ∂h_k^(m)/∂h_t^(l), tokens fixed, (B, out, in), for source = (l, t) and target = (m, k).

    Layer 0 is the embedding; the last layer stands before any final norm. Raises ValueError for a state outside the
    trace. Ledger S13.
    """
    rows, _, length, width = trace.hidden.shape
    for name, (layer, position) in (("source", source), ("target", target)):
        if not 0 <= layer < rows or not 0 <= position < length:
            raise ValueError(
                f"{name} {(layer, position)} lies outside layers 0 … {rows - 1}, positions 0 … {length - 1}"
            )
    state = trace.hidden[target[0], :, target[1]]
    gradients = [state_gradient(state[:, i].sum(), trace)[source[0], :, source[1]] for i in range(width)]
    return torch.stack(gradients, dim=1)


def credit_norms(trace: Trace, targets: Int[Tensor, "B T"], *, position: int) -> Float[ndarray, "L1 B T"]:
    """‖∂z̃_k/∂h_t^(l)‖ for every layer l and position t, where z̃ is the centred logit of the target at k = position.

    z̃ = z_target − mean_v z_v: unlike log π it does not saturate once the model is sure of its answer.
    Raises ValueError for a position or targets outside the trace.
    """
    _check_targets(trace.logits, targets)
    if not 0 <= position < targets.shape[1]:
        raise ValueError(f"position is {position}; give one of 0 … {targets.shape[1] - 1}")
    logits = trace.logits[:, position]
    centred = logits.gather(-1, targets[:, position, None]).squeeze(-1) - logits.mean(-1)
    return np.asarray(state_gradient(centred.sum(), trace).norm(dim=-1).numpy(), dtype=np.float64)


def lag_profile(trace: Trace, targets: Int[Tensor, "B T"], *, positions: Sequence[int]) -> Float[ndarray, "L1 T"]:
    """Mean of ‖∂z̃_k/∂h_{k−lag}^(l)‖ over the batch and over k in ``positions``, for lag = 0 … max(positions).

    The second axis is the lag. Each lag averages the positions that reach back so far. At the last layer of a
    transformer every lag ≥ 1 is exactly 0, so look at the input of a block. Ledger S13, S15.
    """
    if len(positions) == 0:
        raise ValueError("positions is empty; give the positions whose logits are differentiated")
    rows = len(trace.hidden)
    total, count = np.zeros((rows, max(positions) + 1)), np.zeros(max(positions) + 1)
    for k in positions:
        total[:, : k + 1] += credit_norms(trace, targets, position=k).mean(1)[:, k::-1]
        count[: k + 1] += 1
    return total / count


def _check_targets(logits: Tensor, targets: Tensor) -> None:
    check_tokens(targets, vocab=logits.shape[-1], name="targets")
    if targets.shape != logits.shape[:2]:
        raise ValueError(f"targets has shape {tuple(targets.shape)}; the logits ask for {tuple(logits.shape[:2])}")


def _as_weight(advantage: ndarray | Tensor, logits: Tensor) -> Tensor:
    if isinstance(advantage, Tensor) and advantage.requires_grad:
        raise ValueError("advantage carries an autograd graph; advantages are data, pass advantage.detach()")
    weight = torch.as_tensor(advantage, dtype=logits.dtype, device=logits.device)
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("advantage holds NaN or infinite values; drop or fix them first")
    batch, length = logits.shape[:2]
    if tuple(weight.shape) not in ((batch,), (batch, length)):
        raise ValueError(f"advantage has shape {tuple(weight.shape)}; give ({batch},) or ({batch}, {length})")
    return weight if weight.ndim == 2 else weight.unsqueeze(1).expand(batch, length)
