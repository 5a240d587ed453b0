"""Functions of rows called for a block of time at once: how memory whose last axis is the batch meets a reader's code.

A function gets state (n,S) and action (n,A) of all rows of a block, n = time·B; each column of them is contiguous.
What it returns may lie in memory as it likes. A Jacobian whose columns are contiguous too, (S,S,n) transposed, is used
where it lies; one that is the same for all rows is best ``np.broadcast_to`` them: a step back is then one product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Half:
    """One of two functions of rows that share work: ``both`` gives the pair, and the way back calls it once for it."""

    both: Callable[[ndarray, ndarray], tuple[ndarray, ndarray]]
    index: int

    def __call__(self, state: Float[ndarray, "n S"], action: Float[ndarray, "n A"]) -> ndarray:
        """This half alone."""
        return self.both(state, action)[self.index]


def halves(both: Callable[[ndarray, ndarray], tuple[ndarray, ndarray]]) -> tuple[Half, Half]:
    """Two functions of state and action from one that gives both results."""
    return Half(both, 0), Half(both, 1)


def pair(
    first: Callable[[ndarray, ndarray], ndarray], second: Callable[[ndarray, ndarray], ndarray], *flat: ndarray
) -> tuple[ndarray, ndarray]:
    """What two functions of rows give; one call where they are the halves of one function."""
    if isinstance(first, Half) and isinstance(second, Half) and first.both is second.both:
        found = first.both(*flat)
        return found[first.index], found[second.index]
    return first(*flat), second(*flat)


def rows(x: Float[ndarray, "time SA B"], size: int) -> tuple[Float[ndarray, "n S"], Float[ndarray, "n A"]]:
    """States and actions of a block, one row per time and sample; a copy that a function may keep or spoil."""
    flat = np.array(x.transpose(1, 0, 2), order="C").reshape(x.shape[1], -1)
    return flat[:size].T, flat[size:].T


def checked(name: str, found: object, shape: tuple[int, ...]) -> ndarray:
    """``found`` as an array. Raises ValueError unless it has ``shape``, whose first axis counts rows."""
    array = np.asarray(found)
    if array.shape == shape:
        return array
    swapped = len(shape) == 3 and array.shape == (shape[0], shape[2], shape[1])
    hint = "Jacobians are (out, in), this one looks transposed" if swapped else "write both functions for a batch"
    raise ValueError(f"{name} gives shape {array.shape} for {shape[0]} rows, expected {shape}: {hint}")


def write_columns(name: str, found: ndarray, out: Float[ndarray, "time size B"]) -> None:
    """Write rows (n, size) of a block into ``out``. Raises ValueError for another shape."""
    time, size, batch = out.shape
    out[:] = checked(name, found, (time * batch, size)).reshape(time, batch, size).transpose(0, 2, 1)


def jacobian_columns(name: str, found: ndarray, shape: tuple[int, int], time: int, batch: int) -> Float[ndarray, "..."]:
    """A Jacobian (n, *shape) of a block as (time, *shape, B), or as one matrix when it is the same for all rows."""
    checked(name, found, (time * batch, *shape))
    if found.strides[0] == 0 or len(found) == 1:
        return found[0]
    columns = found.reshape(time, batch, *shape).transpose(0, 2, 3, 1)
    return columns if found.strides[0] == found.itemsize else np.ascontiguousarray(columns)


def pull(jacobian: ndarray, k: int, cotangent: Float[ndarray, "out B"], out: Float[ndarray, "size B"]) -> None:
    """Write Jᵀ·cotangent of step k of a block into ``out``."""
    if jacobian.ndim == 2:
        np.matmul(jacobian.T, cotangent, out)
    else:
        np.einsum("ijb,ib->jb", jacobian[k], cotangent, out=out)
