"""What an algorithm's expected update takes of the gradient gap: E[update] = lr ω(J) g, one prompt, rewards 0 and 1."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import Baseline
from vgrad_lab.impact import check_probability, grpo_scale

_SUM, _TINY = 1e-8, float(np.finfo(float).tiny)
Algorithm = Literal["gap", "reinforce", "rloo", "group_mean", "population_grpo", "grpo", "dynamic_sampling"]
"""gap: the gap itself. population_grpo: infinite groups. dynamic_sampling: grpo on mixed groups only (as DAPO)."""
BASELINE: dict[str, Baseline] = {
    "rloo": "leave_one_out",
    "group_mean": "group_mean",
    "grpo": "standardised",
    "dynamic_sampling": "standardised",
}
"""How the algorithms with groups make advantages of rewards."""


def mixed_share(
    success: Float[ndarray, " Q"], group_size: int, *, failure: Float[ndarray, " Q"] | None = None
) -> Float[ndarray, " Q"]:
    """Probability 1 − J^G − (1−J)^G that a group of G holds successes and failures, exact for rare ones.

    Arguments and errors as ``update_scale``. Ledger: G06.scale.
    """
    success, failure = _both(success, failure)
    rare = np.minimum(success, failure)
    return np.asarray(-np.expm1(group_size * np.log1p(-rare)) - rare**group_size)


def update_scale(
    success: Float[ndarray, " Q"],
    algorithm: Algorithm,
    *,
    failure: Float[ndarray, " Q"] | None = None,
    group_size: int = 8,
    ddof: int = 1,
    eps: float = 1e-4,
) -> Float[ndarray, " Q"]:
    """Multiple ω of the gradient gap in an algorithm's expected update, divisors by length aside.

    ω = 1 (gap), J(1−J) (reinforce, rloo), (1−1/G) J(1−J) (group_mean), √(J(1−J)) (population_grpo), κ_G(J) J(1−J)
    (grpo), that over 1 − J^G − (1−J)^G (dynamic_sampling). As J → 1, for ddof 0 and ε = 0: √(G−1)(1−J) for grpo and
    √(G−1)/G for dynamic_sampling. Derived here.

    success: J in (0, 1) per prompt. failure: 1 − J, where J is too near 1 to subtract; then either may underflow to 0.
    group_size: G ≥ 2. ddof, eps: of the standard deviation. Raises ValueError for an unknown algorithm or values out of
    range. Ledger: G06.scale.
    """
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"unknown algorithm {algorithm!r}; choose one of {', '.join(get_args(Algorithm))}")
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}")
    success, failure = _both(success, failure)
    if algorithm == "gap":
        return np.ones(len(success))
    variance = success * failure
    if algorithm == "population_grpo":
        return np.asarray(np.sqrt(variance))
    if algorithm == "reinforce":
        return variance
    scale = variance * grpo_scale(success, group_size, baseline=BASELINE[algorithm], ddof=ddof, eps=eps)
    if algorithm == "dynamic_sampling":
        return np.asarray(scale / mixed_share(success, group_size, failure=failure))
    return np.asarray(scale)


def _both(
    success: Float[ndarray, " Q"], failure: Float[ndarray, " Q"] | None
) -> tuple[Float[ndarray, " Q"], Float[ndarray, " Q"]]:
    """J and 1 − J, both positive; a rate that underflowed to 0 is replaced by the smallest normal number."""
    check_probability(success)
    if failure is None:
        if not np.all((success > 0) & (success < 1)):
            raise ValueError("success must lie strictly between 0 and 1; give `failure` where it rounds to 1")
        return success, 1 - success
    check_probability(failure)
    if failure.shape != success.shape or np.abs(success + failure - 1).max(initial=0.0) > _SUM:
        raise ValueError("success and failure must sum to 1, one of each per prompt")
    return np.maximum(success, _TINY), np.maximum(failure, _TINY)
