"""Who sends credit to whom: norms of every cross-position Jacobian, without ever forming one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.sequence.credit_flow import by_lag, check_positions, check_state
from vgrad_lab.sequence.pull_back import default_chunk, pull_back
from vgrad_lab.sequence.trace import SequenceModel, Trace, check_tokens, trace

PREFIXES = 16
"""Into at most how many prefixes a sequence is cut: a target at k needs no graph beyond its own prefix."""


@dataclass(frozen=True)
class CreditMatrix:
    """‖J‖_F, J = ∂h_k^(m)/∂h_t^(l), tokens fixed; entry (l, b, i, t) with k = positions[i].

    norm: 0 exactly where nothing flows. standard_error: of ``norm``, 0 where every direction was used. layer: m.
    probes: directions of h_k^(m) that were pulled back, out of its width.
    """

    norm: Float[ndarray, "L1 B _ T"]
    standard_error: Float[ndarray, "L1 B _ T"]
    positions: tuple[int, ...]
    layer: int
    probes: int

    @property
    def degrees_of_freedom(self) -> float:
        """(n−1)(n+2)/2, those of Student's t for (norm − truth)/standard_error."""
        return (self.probes - 1) * (self.probes + 2) / 2

    @property
    def lag_profile(self) -> Float[ndarray, "L1 T"]:
        """Mean of the norms over batch and targets, by lag k − t = 0 … max(positions)."""
        return by_lag(self.norm, self.positions)


def credit_matrix(
    model: SequenceModel, inputs: Int[Tensor, "B T"], *, layer: int | None = None,
    positions: Sequence[int] | None = None, probes: int | None = 4, seed: int = 0, chunk: int | None = None,
) -> CreditMatrix:  # fmt: skip
    """T×T credit norms for every source layer: ‖∂h_k^(m)/∂h_t^(l)‖_F for k in ``positions`` and all t and l.

    ‖J‖_F² is S times the mean of x = ‖J^T q‖² over an orthonormal basis q. With n = ``probes`` random orthonormal
    directions a target (Haar) that mean is unbiased with variance 2σ²(1/n − 1/S). σ² is estimated from the spread of
    the x and from the inner products ⟨J^T q_i, J^T q_j⟩, of variance σ² too: (n−1)(n+2)/2 degrees of freedom in all.
    The cost is n backward passes a target; None, or at least S, takes a whole basis and is exact. Memory: one forward
    pass and ``chunk`` products at a time, never a Jacobian. The model must be causal.
    layer: m of the target, the last when None (before any final norm). positions: all when None. seed: of the
    directions; they do not depend on ``positions`` or ``chunk``. Raises ValueError for bad tokens, a layer or
    positions outside the trace, fewer than 2 probes and a chunk below 1. Ledger S13, S15.
    """
    check_tokens(inputs, vocab=model.vocab, name="inputs", max_length=model.max_length)
    length = inputs.shape[1]
    chosen = list(range(length)) if positions is None else list(positions)
    check_positions(chosen, length)
    target = model.layers if layer is None else layer
    if not 0 <= target <= model.layers:
        raise ValueError(f"layer is {layer}; give one of 0 … {model.layers}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; give at least 1")
    count = _count(probes, model.width)
    norm, error = np.zeros((2, model.layers + 1, len(inputs), len(chosen), length))
    for members in _prefixes(chosen):
        stop = max(chosen[i] for i in members) + 1
        found = trace(model, inputs[:, :stop])
        size = default_chunk(found) if chunk is None else chunk
        together = max(1, size // count)
        for block in (members[i : i + together] for i in range(0, len(members), together)):
            at = [chosen[i] for i in block]
            norm[:, :, block, :stop], error[:, :, block, :stop] = _norms(found, target, at, count, seed, size)
    return CreditMatrix(norm, error, tuple(chosen), target, count)


def jacobian_norms(
    trace: Trace, *, target: tuple[int, int], probes: int | None = 8, seed: int = 0
) -> tuple[Float[ndarray, "L1 B T"], Float[ndarray, "L1 B T"]]:
    """‖∂h_k^(m)/∂h_t^(l)‖_F from one target (m, k) to every source at once, and its standard error.

    One row of ``credit_matrix`` for a trace at hand: ``probes`` backward passes, whatever the size of the model.
    Raises ValueError for a target outside the trace and fewer than 2 probes.
    """
    check_state(trace, target, name="target")
    count = _count(probes, trace.hidden.shape[-1])
    norm, error = _norms(trace, target[0], [target[1]], count, seed, default_chunk(trace))
    return norm[:, :, 0], error[:, :, 0]


def directions(seed: int, position: int, batch: int, width: int, count: int) -> Float[Tensor, "_ B S"]:
    """``count`` orthonormal directions for a target at ``position``: a whole basis when count = S, else Haar-random."""
    if count == width:
        return torch.eye(width, dtype=torch.float64)[:, None].expand(-1, batch, -1)
    draw = np.random.default_rng([seed, position]).standard_normal((batch, width, count))
    return torch.linalg.qr(torch.from_numpy(draw)).Q.permute(2, 0, 1)


def _norms(
    trace: Trace, layer: int, positions: list[int], count: int, seed: int, chunk: int
) -> tuple[Float[ndarray, "L1 B _ T"], Float[ndarray, "L1 B _ T"]]:
    """Norms and standard errors for some targets of one layer; ``count`` products each, ``chunk`` at a time."""
    states = trace.hidden[layer][:, positions]
    batch, n, width = states.shape
    basis = torch.stack([directions(seed, k, batch, width, count) for k in positions]).to(states)
    which = torch.arange(n * count, device=states.device)
    squares, pairs, seen = [], torch.zeros(()), 0
    for part in torch.split(which, chunk):
        cotangents = states.new_zeros(len(part), batch, n, width)
        cotangents[torch.arange(len(part)), :, part // count] = basis[part // count, part % count]
        pulled = torch.unflatten(pull_back(trace, states, cotangents), 0, (n, -1))
        if count == width:
            squares.append(torch.linalg.vector_norm(pulled, dim=-1, dtype=torch.float64).square())
            continue
        gram = _gram(pulled)
        squares.append(gram.diagonal(dim1=-2, dim2=-1).movedim(-1, 1))
        pairs = pairs + (gram.square().sum((-2, -1)) - squares[-1].square().sum(1)).clamp(min=0)
        seen += gram.shape[-1] * (gram.shape[-1] - 1)
    x = torch.cat(squares, dim=1)
    norm = (width * x.mean(1)).sqrt()
    if count == width:
        error = torch.zeros_like(norm)
    else:
        variance = ((x - x.mean(1, keepdim=True)).square().sum(1) + pairs) / (2 * (count - 1) + seen)
        error = width * (2 * variance * (1 / count - 1 / width)).sqrt() / (2 * norm)
        error = torch.where(norm > 0, error, torch.zeros_like(norm))
    return norm.permute(1, 2, 0, 3).cpu().numpy(), error.permute(1, 2, 0, 3).cpu().numpy()


def _gram(pulled: Float[Tensor, "_ _ L1 B T S"]) -> Float[Tensor, "_ L1 B T _ _"]:
    """Inner products ⟨J^T q_i, J^T q_j⟩ for every source, in float64, a layer at a time."""
    layers = (part.double().permute(0, 2, 3, 1, 4) for part in pulled.unbind(2))
    return torch.stack([part @ part.mT for part in layers], dim=1)


def _prefixes(positions: list[int]) -> list[list[int]]:
    """Indices into ``positions``, grouped so that each group's targets lie close together."""
    step = max(16, -(-(max(positions) + 1) // PREFIXES))
    groups: dict[int, list[int]] = {}
    for i, k in enumerate(positions):
        groups.setdefault(k // step, []).append(i)
    return list(groups.values())


def _count(probes: int | None, width: int) -> int:
    if probes is not None and probes < min(2, width):
        raise ValueError(f"probes is {probes}; give at least 2 (a standard error needs a spread), or None for all")
    return width if probes is None else min(probes, width)
