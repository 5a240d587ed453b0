"""Gradient estimators that mix forms: score function or pathwise, apart for the reward of a step and for what follows.

Both parts obey the per-step identity of ledger S12 on their own, so all four mixtures have one mean.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous.costate import check_discount, costate, require_jacobians
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.estimators import pull_parameters
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout

Form = Literal["score", "pathwise"]
"""How one part of the reward-to-go reaches the action: through log π, or through its own derivative."""


def hybrid_gradient(
    environment: Environment,
    policy: ShiftPolicy,
    rollout: Rollout,
    *,
    immediate: Form = "score",
    future: Form = "pathwise",
    discount: float = 1.0,
    value_gradient: Float[ndarray, "B T1 S"] | None = None,
    baseline: Float[ndarray, "B T"] | None = None,
) -> Float[ndarray, "B P"]:
    """Gradient of each rollout with a form for r_t and a form for γR_{t+1}.

    Σ_t γ^{t−1} [(r_t − b_t) ∂log π or ā_θᵀ r_a] + [γ R_{t+1} ∂log π or γ ā_θᵀ f_aᵀ g_{t+1}]  (eqs. 2, 7).

    environment: the true one, or a learned model of it, whose Jacobians are then read along the true rollout.
    value_gradient: g along the rollout, a critic's or the blend of ``blended_costate``; the costate by default. With it
    and immediate="score" no derivative of the reward is needed. baseline: b_t, a function of s_t, for either score
    part. Raises ValueError for an unknown form, wrong shapes, a γ outside [0, 1], a baseline or value_gradient that
    neither form would use, or missing Jacobians. Ledger: E02.
    """
    check_discount(discount)
    _check(rollout, immediate, future, value_gradient, baseline)
    horizon = rollout.reward.shape[1]
    number, cotangent = np.zeros(rollout.reward.shape), np.zeros(rollout.action.shape)
    if immediate == "score":
        number += rollout.reward
    if future == "score":
        number += return_to_go(rollout.reward, discount=discount) - rollout.reward
    if baseline is not None:
        number -= baseline
    if "score" in (immediate, future):
        cotangent -= policy.noise.score(rollout.noise_draw) * number[..., None]
    if "pathwise" in (immediate, future):
        jacobians = require_jacobians(environment)
        if future == "pathwise" and value_gradient is None:
            value_gradient = costate(environment, policy, rollout, discount=discount)
        for t in range(horizon):
            state, action = rollout.state[:, t], rollout.action[:, t]
            if immediate == "pathwise":
                cotangent[:, t] += jacobians.reward_action(state, action)
            if value_gradient is not None:
                f_a = jacobians.transition_action(state, action)
                cotangent[:, t] += discount * np.einsum("bsa,bs->ba", f_a, value_gradient[:, t + 1])
    return pull_parameters(policy, rollout, cotangent * (discount ** np.arange(horizon))[:, None])


def _check(
    rollout: Rollout, immediate: str, future: str, value_gradient: ndarray | None, baseline: ndarray | None
) -> None:
    for name, form in (("immediate", immediate), ("future", future)):
        if form not in get_args(Form):
            raise ValueError(f"{name} is {form!r}; choose one of {', '.join(get_args(Form))}")
    if baseline is not None:
        if "score" not in (immediate, future):
            raise ValueError("a baseline has no effect on two pathwise forms; leave it out")
        if baseline.shape != rollout.reward.shape:
            raise ValueError(f"baseline has shape {baseline.shape}, expected {rollout.reward.shape}, one per step")
    if value_gradient is not None:
        if future != "pathwise":
            raise ValueError("value_gradient serves future='pathwise' only; leave it out or choose that form")
        if value_gradient.shape != rollout.state.shape:
            raise ValueError(
                f"value_gradient has shape {value_gradient.shape}, expected {rollout.state.shape}, one row per node"
            )
