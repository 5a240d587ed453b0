"""Standardised advantages of equal rewards in float32: what rounding leaves where the exact advantage is zero.

The mean of G equal numbers need not be that number in float32; the deviation is divided by a spread that is of the
same rounding, or zero, plus a small ε. ``vgrad_lab.advantage`` gives exact zeros: it tests max == min.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

Library = Literal["trl", "verl", "oat"]
EPSILON: dict[Library, float] = {"trl": 1e-4, "verl": 1e-6, "oat": 1e-8}
"""What each library adds to the spread (TRL 1.16, verl 2026, the Dr. GRPO repository); all take ddof 1."""


def naive_advantage(
    reward: Float32[ndarray, " G"], library: Library = "trl", *, spread: Literal["two_pass", "exact"] = "two_pass"
) -> Float32[ndarray, " G"]:
    """(r − r̄)/(s + ε) of one group in float32, sums taken one by one as a short ``torch.sum`` does.

    spread: two_pass takes s from the rounded deviations, s² = Σ(r − r̄)²/(G − 1) (TRL's nanstd); exact takes 0 for equal
    rewards, as ``torch.std`` over the rows of a matrix does. Raises ValueError for G < 2, other dtypes, other names.
    Ledger: K11.
    """
    if library not in EPSILON or spread not in ("two_pass", "exact"):
        raise ValueError(f"unknown {library!r} or {spread!r}; choose one of {', '.join(get_args(Library))}")
    if reward.dtype != np.float32 or reward.ndim != 1 or len(reward) < 2 or not np.all(np.isfinite(reward)):
        raise ValueError(f"reward is {reward.dtype} {reward.shape}; give one group of G ≥ 2 finite float32 numbers")
    count = np.float32(len(reward))
    centred = reward - reward.cumsum(dtype=np.float32)[-1] / count
    square = (centred * centred).cumsum(dtype=np.float32)[-1]
    s = np.sqrt(square / (count - np.float32(1)))
    if spread == "exact" and reward.max() == reward.min():
        s = np.float32(0)
    return np.asarray(centred / (s + np.float32(EPSILON[library])))
