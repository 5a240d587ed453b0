"""How credit flows backwards through a sequence model along the fixed-token path."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.sequence.pull_back import default_chunk, pull_back, require_graph
from vgrad_lab.sequence.trace import Trace, check_tokens


def token_logprob(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """ℓ_t = log π(target_t | …) in nats, differentiable; raises ValueError for targets outside the vocabulary."""
    _check_targets(logits, targets)
    return logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def state_gradient(objective: Float[Tensor, ""], trace: Trace) -> Float[Tensor, "L1 B T S"]:
    """∂ objective/∂h_t^(l) for every layer and position; raises ValueError for a trace without probe or graph."""
    return torch.autograd.grad(objective, require_graph(trace), retain_graph=True)[0]


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
    for name, place in (("source", source), ("target", target)):
        check_state(trace, place, name=name)
    state, width = trace.hidden[target[0], :, target[1]], trace.hidden.shape[-1]
    unit = torch.eye(width, dtype=state.dtype, device=state.device)[:, None].expand(-1, len(state), -1)
    rows = [
        pull_back(trace, state, part)[:, source[0], :, source[1]] for part in torch.split(unit, default_chunk(trace))
    ]
    return torch.cat(rows).transpose(0, 1)


def check_state(trace: Trace, state: tuple[int, int], *, name: str) -> None:
    """Refuse a (layer, position) outside the trace."""
    rows, _, length, _ = trace.hidden.shape
    if not 0 <= state[0] < rows or not 0 <= state[1] < length:
        raise ValueError(f"{name} {state} lies outside layers 0 … {rows - 1}, positions 0 … {length - 1}")


def credit_norms(trace: Trace, targets: Int[Tensor, "B T"], *, position: int) -> Float[ndarray, "L1 B T"]:
    """‖∂z̃_k/∂h_t^(l)‖ for every layer l and position t, where z̃ is the centred logit of the target at k = position.

    z̃ = z_target − mean_v z_v: unlike log π it does not saturate once the model is sure of its answer.
    Raises ValueError for a position or targets outside the trace.
    """
    return logit_credit(trace, targets, positions=[position])[:, :, 0]


def logit_credit(trace: Trace, targets: Int[Tensor, "B T"], *, positions: Sequence[int]) -> Float[ndarray, "L1 B _ T"]:
    """``credit_norms`` at several positions, one backward pass each, several passes at once; exact.

    Entry (l, b, i, t) is ‖∂z̃_k/∂h_t^(l)‖, k = positions[i]. Raises ValueError for positions or targets outside the
    trace.
    """
    _check_targets(trace.logits, targets)
    check_positions(positions, targets.shape[1])
    chosen = torch.as_tensor(list(positions), device=targets.device)
    logits = trace.logits[:, chosen]
    centred = logits.gather(-1, targets[:, chosen, None]).squeeze(-1) - logits.mean(-1)
    unit = torch.eye(len(positions), dtype=centred.dtype, device=centred.device)[:, None].expand(-1, len(centred), -1)
    norms = [_norms(pull_back(trace, centred, part)) for part in torch.split(unit, default_chunk(trace))]
    return np.concatenate(norms).transpose(1, 2, 0, 3)


def lag_profile(trace: Trace, targets: Int[Tensor, "B T"], *, positions: Sequence[int]) -> Float[ndarray, "L1 T"]:
    """Mean of ‖∂z̃_k/∂h_{k−lag}^(l)‖ over the batch and over k in ``positions``, for lag = 0 … max(positions).

    The second axis is the lag. Each lag averages the positions that reach back so far. At the last layer of a
    transformer every lag ≥ 1 is exactly 0, so look at the input of a block. Ledger S13, S15.
    """
    return by_lag(logit_credit(trace, targets, positions=positions), positions)


def by_lag(norms: Float[ndarray, "L1 B _ T"], positions: Sequence[int]) -> Float[ndarray, "L1 T"]:
    """Mean over batch and positions k of entry (l, b, k, k − lag), for lag = 0 … max(positions)."""
    total, count = np.zeros((len(norms), max(positions) + 1)), np.zeros(max(positions) + 1)
    for i, k in enumerate(positions):
        total[:, : k + 1] += norms[:, :, i].mean(1)[:, k::-1]
        count[: k + 1] += 1
    return total / np.maximum(count, 1)


def selectivity(
    norms: Float[ndarray, "L1 B T"], *, source: Int[ndarray, " B"], others: Int[ndarray, "B _"]
) -> Float[ndarray, "L1 B"]:
    """c_s / (c_s + mean of c_o): ½ where credit does not tell the source from the others, 1 where all goes to it.

    norms: credit of one target, from ``credit_norms`` or a row of ``credit_matrix``. source, others: positions.
    NaN where nothing flows to any of them (a transformer's last layer). Raises ValueError for positions outside.
    """
    length = norms.shape[2]
    for name, index in (("source", source), ("others", others)):
        if index.size == 0 or index.min() < 0 or index.max() >= length:
            raise ValueError(f"{name} must name positions among 0 … {length - 1}, at least one a row")
    if bool((others == source[:, None]).any()):
        raise ValueError("others holds the source; give the positions that it is compared with")
    hit = np.take_along_axis(norms, source[None, :, None], axis=2)[:, :, 0]
    total = hit + np.take_along_axis(norms, others[None], axis=2).mean(2)
    return np.divide(hit, total, out=np.full_like(total, np.nan), where=total > 0)


def check_positions(positions: Sequence[int], length: int) -> None:
    """Refuse no positions, and positions outside 0 … length − 1."""
    if len(positions) == 0:
        raise ValueError("positions is empty; give the positions whose states or logits are differentiated")
    for position in positions:
        if not 0 <= position < length:
            raise ValueError(f"position is {position}; give one of 0 … {length - 1}")


def _norms(pulled: Tensor) -> ndarray:
    return torch.linalg.vector_norm(pulled, dim=-1, dtype=torch.float64).cpu().numpy()


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
