"""Singular values and ranks of cross-position Jacobians: an SVD for tiny models, Lanczos without the matrix beyond."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vgrad_lab.sequence.credit_flow import check_state, hidden_jacobian
from vgrad_lab.sequence.pull_back import require_graph
from vgrad_lab.sequence.trace import SequenceModel, Trace, trace

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """Leading singular values, largest first: each within ``error`` of a true one, and above none of its own rank.

    products: how many backward passes it took.
    """

    value: Float[ndarray, "B _"]
    error: Float[ndarray, "B _"]
    products: int


def singular_values(trace: Trace, *, source: tuple[int, int], target: tuple[int, int]) -> Float[ndarray, "B S"]:
    """All singular values of J = ∂h_k^(m)/∂h_t^(l) by an SVD of the whole matrix (S backward passes); tiny models.

    Raises ValueError for a state outside the trace. Ledger S18.
    """
    jacobian = hidden_jacobian(trace, source=source, target=target).double().cpu()
    return torch.linalg.svdvals(jacobian).numpy()


def leading_singular_values(
    model: SequenceModel, inputs: Int[Tensor, "B T"], *, source: tuple[int, int], target: tuple[int, int],
    count: int = 1, steps: int | None = None, seed: int = 0,
) -> Spectrum:  # fmt: skip
    """The ``count`` largest singular values of J = ∂h_k^(m)/∂h_t^(l), the first being its spectral norm ‖J‖.

    Golub–Kahan–Lanczos with full reorthogonalisation: J V = U B, J^T U = V B^T + r e^T, so that each Ritz value lies
    within ‖r‖·|last entry of its left vector| of a singular value. Two products a step; J v is the derivative of
    J^T u by u. steps: count + 8 when None, at most S, where the result is exact. The error holds the rounding too.
    Raises ValueError for a state outside the trace, count < 1 or fewer steps than ``count``. Ledger S18.
    """
    steps = min(count + 8 if steps is None else steps, model.width)
    if not 1 <= count <= steps:
        raise ValueError(
            f"count is {count} with {steps} steps; give 1 ≤ count ≤ steps, at most the width {model.width}"
        )
    with sdpa_kernel(SDPBackend.MATH):
        found = trace(model, inputs)
        for name, state in (("source", source), ("target", target)):
            check_state(found, state, name=name)
        forward, backward = _products(found, source, target)
        start = np.random.default_rng(seed).standard_normal((len(inputs), model.width))
        diagonal, above, rest = _bidiagonal(forward, backward, torch.from_numpy(start), steps)
    small = torch.diag_embed(diagonal) + torch.diag_embed(above[:, : steps - 1], offset=1)
    left, values, _ = torch.linalg.svd(small)
    rounding = 10 * steps * torch.finfo(found.hidden.dtype).eps * values[:, :1]
    error = rest[:, None] * left[:, -1, :].abs() + rounding
    return Spectrum(values[:, :count].numpy(), error[:, :count].numpy(), 2 * steps)


def numerical_rank(values: Float[ndarray, "*n S"], *, cut: float = 1e-10) -> Int[ndarray, "*n"]:
    """How many singular values exceed ``cut`` times the largest; 0 for a zero matrix. In float32 give 1e-5."""
    return np.asarray((values > cut * values.max(-1, keepdims=True)).sum(-1))


def stable_rank(values: Float[ndarray, "*n S"]) -> Float[ndarray, "*n"]:
    """‖J‖_F²/‖J‖², between 1 and the rank; NaN for a zero matrix."""
    total, top = (values**2).sum(-1), values.max(-1) ** 2
    return np.asarray(np.divide(total, top, out=np.full_like(total, np.nan), where=top > 0))


def _products(found: Trace, source: tuple[int, int], target: tuple[int, int]) -> tuple[Product, Product]:
    """v ↦ J v and u ↦ J^T u, in float64 outside and the model's precision inside."""
    state = found.hidden[target[0], :, target[1]]
    probe, dual = require_graph(found), torch.zeros_like(state, requires_grad=True)
    pulled = torch.autograd.grad(state, probe, dual, create_graph=True)[0][source[0], :, source[1]]

    def forward(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, dual, v.to(state), retain_graph=True)[0].double().cpu()

    def backward(u: Tensor) -> Tensor:
        row = torch.autograd.grad(state, probe, u.to(state), retain_graph=True)[0]
        return row[source[0], :, source[1]].double().cpu()

    return forward, backward


def _bidiagonal(
    forward: Product, backward: Product, start: Float[Tensor, "B S"], steps: int
) -> tuple[Float[Tensor, "B _"], Float[Tensor, "B _"], Float[Tensor, " B"]]:
    """Diagonal and superdiagonal of B, and the norm of the last residual."""
    right, left = [_unit(start, [])[0]], list[Tensor]()
    diagonal, above = list[Tensor](), list[Tensor]()
    for _ in range(steps):
        u, length = _unit(forward(right[-1]), left)
        left.append(u)
        diagonal.append(length)
        v, length = _unit(backward(u), right)
        right.append(v)
        above.append(length)
    return torch.stack(diagonal, 1), torch.stack(above, 1), above[-1]


def _unit(x: Tensor, basis: list[Tensor]) -> tuple[Tensor, Tensor]:
    """x without its part in the span of ``basis``, of length 1, and its length; both 0 where nothing is left."""
    before = x.norm(dim=1)
    for _ in range(2):
        for other in basis:
            x = x - (x * other).sum(1, keepdim=True) * other
    length = x.norm(dim=1)
    length = torch.where(length > 1e-14 * before, length, torch.zeros_like(length))
    return torch.where(length[:, None] > 0, x / length[:, None].clamp(min=1e-300), torch.zeros_like(x)), length
