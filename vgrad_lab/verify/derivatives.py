"""Derivatives against differences: Taylor rates, extrapolated quotients, and the comparison entry by entry."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.tolerances import PLANTED_FAULT

ENTRY = PLANTED_FAULT / 10
"""Relative error of one entry that a checker may still call rounding; a tenth of the fault it must find."""
_ROUNDING = 1e-13


def taylor_rates(
    function: Callable[[ndarray], ndarray],
    derivative: Callable[[ndarray], ndarray],
    point: Float[ndarray, "..."],
    direction: Float[ndarray, "..."],
    *,
    step: float = 1e-2,
    halvings: int = 5,
) -> Float[ndarray, " halvings"]:
    """Rates at which the first-order Taylor remainder shrinks: 2 for a right derivative, 1 for a wrong one.

    R(h) = ‖f(x+hd) − f(x) − h·J(x)d‖, rate = log₂ R(h)/R(h/2) for h = step, step/2, …; infinity where R is rounding
    (f is linear along d and the derivative right).

    derivative: point -> array of shape f(x).shape + x.shape. Raises ValueError for another shape or non-finite values.
    """
    value, slope = np.asarray(function(point)), np.asarray(derivative(point))
    if slope.shape != value.shape + point.shape:
        raise ValueError(
            f"the derivative has shape {slope.shape}, expected {value.shape + point.shape}: first the axes of the "
            "value, then those of the point"
        )
    along = np.tensordot(slope, direction, axes=point.ndim)
    remainders, floors = [], []
    for h in step * 0.5 ** np.arange(halvings + 1):
        moved = np.asarray(function(point + h * direction))
        remainders.append(np.linalg.norm(moved - value - h * along))
        floors.append(_ROUNDING * (np.linalg.norm(moved) + np.linalg.norm(value) + h * np.linalg.norm(along)))
    r, floor = np.array(remainders), np.array(floors)
    if not np.all(np.isfinite(r)):
        raise ValueError(
            "the function or its derivative is not finite near this point; choose another point or a smaller step"
        )
    exact = r[1:] <= floor[1:]
    return np.where(exact, np.inf, np.log2(np.maximum(r[:-1], 1e-300) / np.where(exact, 1.0, r[1:])))


def difference_quotients(
    function: Callable[[ndarray], ndarray], x: Float[ndarray, "B n"], *, step: float = 1e-3
) -> Float[ndarray, "B ..."]:
    """∂f_i/∂x_j of each row by extrapolated central differences (error O(step⁴)), new axis j last."""
    columns = []
    for j in range(x.shape[1]):
        unit = np.zeros(x.shape[1])
        unit[j] = 1.0
        wide, narrow = ((function(x + h * unit) - function(x - h * unit)) / (2 * h) for h in (step, step / 2))
        columns.append((4 * narrow - wide) / 3)
    return np.stack(columns, axis=-1)


def compare(
    name: str, function: Callable[[ndarray], ndarray], x: ndarray, claimed: ndarray, step: float = 1e-3
) -> float:
    """Largest error of a claimed derivative over its scale; AssertionError that names the worst entry."""
    found, size = difference_quotients(function, x, step=step), float(np.max(np.abs(function(x))))
    if claimed.shape != found.shape:
        turned = found.ndim == 3 and claimed.shape == np.swapaxes(found, 1, 2).shape
        hint = "it is transposed, as Jacobians are" if turned else "the order is"
        raise AssertionError(f"{name} has shape {claimed.shape}, expected {found.shape}; {hint} (batch, out, in)")
    error, scale = np.abs(claimed - found), max(float(np.max(np.abs(found))), 1e-300)
    allowed = ENTRY * np.abs(found) + 1e-8 * scale + 1e-11 * size
    wrong = ~(error <= allowed)
    if not wrong.any():
        return float(np.max(error)) / scale
    square = found.ndim == 3 and found.shape[1] == found.shape[2]
    if square and np.all(np.abs(np.swapaxes(claimed, 1, 2) - found) <= allowed):
        raise AssertionError(f"{name} is transposed: entry [out, in] must be ∂out/∂in, so return its transpose")
    row, *entry = (int(i) for i in np.unravel_index(np.argmax(np.where(wrong, error / allowed, 0)), error.shape))
    unit, (given, right) = np.eye(x.shape[1])[entry[-1]], (array[row, *entry] for array in (claimed, found))
    value = [function(x + h * unit)[row, *entry[:-1]] for h in (0.0, step / 100, step / 200)]
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.log2(abs(value[1] - value[0] - step / 100 * given) / abs(value[2] - value[0] - step / 200 * given))
    raise AssertionError(
        f"{name}[{', '.join(map(str, entry))}] is {given:.10g} in row {row}, but differences give {right:.10g}; "
        f"its Taylor remainder shrinks at rate {rate:.2f}, a right derivative's at 2. {wrong.sum()} of {wrong.size} "
        "entries are off: correct their formula"
    )
