"""Differentiable maps y = Wx + b or y = V tanh(Wx + b): by rows for readers, by columns in place for speed.

Dynamics and mean actions are such maps. The column functions work on arrays whose last axis is the batch, so that one
step is one matrix product into memory that already exists; ``slope`` is 1 − tanh², one block of time at once.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray


@dataclass(frozen=True)
class Map:
    """y = inner·x + shift, or with ``outer`` y = outer·tanh(inner·x + shift)."""

    inner: Inexact[ndarray, "hidden size"]
    shift: Inexact[ndarray, " hidden"]
    outer: Inexact[ndarray, "out hidden"] | None = None

    @property
    def out_size(self) -> int:
        """Length of y."""
        return len(self.inner) if self.outer is None else len(self.outer)


def flatten(m: Map) -> Float[ndarray, " P"]:
    """Parameters in one vector: inner row by row, shift, then outer row by row."""
    return np.concatenate([m.inner.ravel(), m.shift, *([] if m.outer is None else [m.outer.ravel()])])


def unflatten(m: Map, theta: Inexact[ndarray, " P"]) -> Map:
    """Map of the same shapes with parameters ``theta``; undoes ``flatten``. Raises ValueError for a wrong length."""
    cut = m.inner.size, m.inner.size + m.shift.size
    size = cut[1] + (0 if m.outer is None else m.outer.size)
    if len(theta) != size:
        raise ValueError(f"theta holds {len(theta)} numbers, but this map has {size} parameters")
    outer = None if m.outer is None else theta[cut[1] :].reshape(m.outer.shape)
    return Map(theta[: cut[0]].reshape(m.inner.shape), theta[cut[0] : cut[1]], outer)


def value(m: Map, x: Inexact[ndarray, "B size"]) -> Inexact[ndarray, "B out"]:
    """Y for each row of x; complex rows are allowed, for complex-step derivatives."""
    z = x @ m.inner.T + m.shift
    return z if m.outer is None else np.tanh(z) @ m.outer.T


def jacobian(m: Map, x: Float[ndarray, "B size"]) -> Float[ndarray, "B out size"]:
    """∂y/∂x for each row of x."""
    if m.outer is None:
        return np.tile(m.inner, (len(x), 1, 1))
    slope = 1 - np.tanh(x @ m.inner.T + m.shift) ** 2
    return np.asarray((m.outer * slope[:, None, :]) @ m.inner)


def parameter_jacobian(m: Map, x: Float[ndarray, "B size"]) -> Float[ndarray, "B out P"]:
    """∂y/∂θ for each row of x, θ in the order of ``flatten``."""
    batch, out = len(x), m.out_size
    if m.outer is None:
        inner = np.einsum("oh,bi->bohi", np.eye(out), x)
        return np.concatenate([inner.reshape(batch, out, -1), np.tile(np.eye(out), (batch, 1, 1))], axis=2)
    z = np.tanh(x @ m.inner.T + m.shift)
    shift = m.outer * (1 - z**2)[:, None, :]
    inner = (shift[..., None] * x[:, None, None, :]).reshape(batch, out, -1)
    outer = np.einsum("op,bh->boph", np.eye(out), z).reshape(batch, out, -1)
    return np.concatenate([inner, shift, outer], axis=2)


def scaled(m: Map, factor: float) -> Map:
    """The linear part of factor·y, for pulling cotangents back; its tape is that of y."""
    return replace(m, inner=factor * m.inner) if m.outer is None else replace(m, outer=factor * m.outer)


def closed(m: Map, gain: ndarray) -> Map:
    """The map of s that a map of (s, a) is with a = gain·s + anything free of s; its tape is that of the map."""
    size = gain.shape[1]
    return replace(m, inner=m.inner[:, :size] + m.inner[:, size:] @ gain)


def apply_columns(m: Map, x: ndarray, out: ndarray, tape: ndarray | None) -> None:
    """Write y(x) − b into ``out`` (affine, the caller owns the shift) or y(x) (network, which fills ``tape``)."""
    if m.outer is None or tape is None:
        np.matmul(m.inner, x, out)
        return
    tanh_columns(m, x, tape)
    np.matmul(m.outer, tape, out)


def tanh_columns(m: Map, x: ndarray, out: ndarray) -> ndarray:
    """tanh(inner·x + shift) of one step or a block of time, written into ``out``."""
    np.matmul(m.inner, x, out)
    np.add(out, m.shift[:, None], out)
    return np.tanh(out, out)


def slope_columns(tape: ndarray, out: ndarray) -> ndarray:
    """1 − tanh² over a block of time, written into ``out``."""
    np.multiply(tape, tape, out)
    return np.subtract(1, out, out)


def pull_columns(m: Map, cotangent: ndarray, slope: ndarray | None, work: ndarray, out: ndarray) -> None:
    """Write (∂y/∂x)ᵀ·cotangent into ``out``; ``work`` has the shape of one slope."""
    if m.outer is None or slope is None:
        np.matmul(m.inner.T, cotangent, out)
        return
    np.matmul(m.outer.T, cotangent, work)
    np.multiply(work, slope, work)
    np.matmul(m.inner.T, work, out)


def _add_outer(total: ndarray, left: ndarray, right: ndarray, work: ndarray) -> None:
    """Add Σ_t left_t ⊗ right_t to ``total``: sample by sample (left, right, B), or over the batch too (left, right)."""
    if total.ndim == 2:
        total += np.matmul(left, right.transpose(0, 2, 1)).sum(0)
    elif len(left) > 1:
        total += np.einsum("tlb,trb->lrb", left, right)
    else:
        for row, factor in zip(total, left[0], strict=True):
            np.multiply(right[0], factor, work)
            np.add(row, work, row)


def add_parameter_gradient(
    m: Map, x: ndarray, tape: ndarray | None, slope: ndarray | None, cotangent: ndarray, total: ndarray
) -> None:
    """Add Σ_t (∂y_t/∂θ)ᵀ cotangent_t over a block of time to ``total``: (P,B), or (P,) for the sum over the batch."""
    (hidden, size), batch = m.inner.shape, total.shape[1:]
    if m.outer is not None and slope is not None and tape is not None:
        outer = total[hidden * size + hidden :].reshape(m.out_size, hidden, *batch)
        _add_outer(outer, cotangent, tape, np.empty((hidden, *batch)))
        cotangent = np.matmul(m.outer.T, cotangent) * slope
    _add_outer(total[: hidden * size].reshape(hidden, size, *batch), cotangent, x, np.empty((size, *batch)))
    total[hidden * size : hidden * size + hidden] += cotangent.sum(axis=0 if batch else (0, 2))
