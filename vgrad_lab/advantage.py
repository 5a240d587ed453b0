"""Advantages as data: plain NumPy functions of rewards, so that stop-gradient holds by construction.

Departures from common code: a group whose rewards are all equal (max == min) gets exactly zero, whatever rounding
does to its mean; the standard deviation's ``ddof`` and ``eps`` are named, since libraries differ in both.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Baseline = Literal["standardised", "group_mean", "leave_one_out"]
"""How a group of G rewards becomes advantages."""


def _groups(reward: Float[ndarray, "Q G"], least: int = 2) -> Float[ndarray, "Q G"]:
    if reward.shape[1] < least:
        raise ValueError(f"a group baseline needs G ≥ {least} samples per prompt, got G = {reward.shape[1]}")
    if not np.all(np.isfinite(reward)):
        raise ValueError("reward holds non-finite values; give finite rewards (mask failed samples before)")
    return reward


def _zero_if_degenerate(advantage: Float[ndarray, "Q G"], reward: Float[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
    degenerate = reward.max(1, keepdims=True) == reward.min(1, keepdims=True)
    return np.where(degenerate, np.zeros_like(advantage), advantage)


def leave_one_out(reward: Float[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
    """Reward minus the mean of the other samples of its group (RLOO).

    Â_i = r_i − (1/(G−1)) Σ_{j≠i} r_j; its policy gradient is exactly ∂J.

    reward: one row per prompt, any unit. Raises ValueError for G < 2 or non-finite rewards. Ledger: S10.
    """
    g = _groups(reward).shape[1]
    return _zero_if_degenerate((reward - reward.mean(1, keepdims=True)) * (g / (g - 1)), reward)


def group_mean(reward: Float[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
    """Reward minus its own group's mean (Dr. GRPO).

    Â_i = r_i − (1/G) Σ_j r_j; its policy gradient is ((G−1)/G) ∂J.

    reward: one row per prompt, any unit. Raises ValueError for G < 2 or non-finite rewards. Ledger: S10.
    """
    return _zero_if_degenerate(_groups(reward) - reward.mean(1, keepdims=True), reward)


def group_standardised(reward: Float[ndarray, "Q G"], *, ddof: int = 1, eps: float = 1e-4) -> Float[ndarray, "Q G"]:
    """Centred reward over the group's standard deviation (GRPO, eq. 1 of the paper).

    Â_i = (r_i − r̄)/(s + ε), s with ``ddof``; for binary rewards its policy gradient is κ_G(p) ∂J per prompt, for
    other rewards it need not be parallel to ∂J.

    reward: one row per prompt. ddof: 0 or 1 (torch.std and TRL use 1). eps: added to s, in units of the reward.
    Raises ValueError for G < 2, another ddof, negative eps, or non-finite rewards. Ledger: S10.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof}")
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    centred = group_mean(reward)
    spread = reward.std(1, ddof=ddof, keepdims=True) + eps
    return _zero_if_degenerate(centred / np.where(spread > 0, spread, 1.0), reward)


def from_group(
    reward: Float[ndarray, "Q G"], baseline: Baseline = "standardised", *, ddof: int = 1, eps: float = 1e-4
) -> Float[ndarray, "Q G"]:
    """Advantage of each sample by the name of its baseline; ``ddof`` and ``eps`` matter to "standardised" only."""
    if baseline == "standardised":
        return group_standardised(reward, ddof=ddof, eps=eps)
    if baseline == "group_mean":
        return group_mean(reward)
    if baseline == "leave_one_out":
        return leave_one_out(reward)
    raise ValueError(f"unknown baseline {baseline!r}; choose one of {', '.join(get_args(Baseline))}")


def _in_unit(name: str, x: float) -> None:
    if not 0 <= x <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {x}")


def return_to_go(reward: Float[ndarray, "B T"], *, discount: float = 1.0) -> Float[ndarray, "B T"]:
    """Discounted sum of the rewards from each step on.

    R_t = r_t + γ R_{t+1}, R_{T+1} = 0 (Def. 1 of the paper).

    reward: per step. discount: γ in [0, 1]. Raises ValueError for a γ outside. Ledger: S04.
    """
    _in_unit("discount", discount)
    total = reward.copy()
    for t in reversed(range(reward.shape[1] - 1)):
        total[:, t] = reward[:, t] + discount * total[:, t + 1]
    return total


def gae(
    reward: Float[ndarray, "B T"], value: Float[ndarray, "B T1"], *, discount: float = 1.0, decay: float = 1.0
) -> Float[ndarray, "B T"]:
    """Generalised advantage estimate.

    Â_t = δ_t + γλ Â_{t+1}, δ_t = r_t + γ V_{t+1} − V_t; λ = 1 is return-to-go minus V_t (a baseline, any critic).

    reward: per step. value: critic at all T+1 nodes, the last one terminal. decay: λ in [0, 1].
    Raises ValueError for a γ or λ outside [0, 1] or a value array that is not one longer. Ledger: S21.
    """
    _in_unit("discount", discount)
    _in_unit("decay (λ)", decay)
    if value.shape[1] != reward.shape[1] + 1:
        raise ValueError(f"value needs T+1 = {reward.shape[1] + 1} nodes, got {value.shape[1]}; append the terminal 0")
    delta = reward + discount * value[:, 1:] - value[:, :-1]
    return return_to_go(delta, discount=discount * decay)
