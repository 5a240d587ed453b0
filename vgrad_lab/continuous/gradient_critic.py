"""Value-gradient learning: a critic of ∂V/∂s, linear in features, regressed on costates or on bootstrapped targets.

The horizon is finite, so each step has weights of its own and one sweep from the end reaches the fixed point: the
targets of a step use the critic of later steps only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous.costate import check_discount, closed_loop_jacobian, closed_loop_reward_gradient
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.oracles import LinearQuadraticOracle, parameter_gradient
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout

Features = Callable[[ndarray], ndarray]
"""φ: states (B,S) -> features (B,F)."""


@dataclass(frozen=True, eq=False)
class GradientCritic:
    """g_w(s_t) = w_tᵀ φ(s_t) ≈ ∂V_t/∂s, zero after the last step. weight: w (T,F,S), in reward per unit of state."""

    features: Features
    weight: Float[ndarray, "T F S"]


def affine_features(state: Float[ndarray, "B S"]) -> Float[ndarray, "B F"]:
    """φ(s) = (s, 1): they hold the value gradient of every linear-quadratic system with a linear policy."""
    return np.concatenate([state, np.ones((len(state), 1))], axis=1)


def constant_features(state: Float[ndarray, "B S"]) -> Float[ndarray, "B F"]:
    """φ(s) = 1: one value gradient for all states of a step, a critic that is too poor on purpose."""
    return np.ones((len(state), 1))


def check_decay(decay: float) -> None:
    """Raise ValueError unless λ lies in [0, 1]."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay (λ) must lie in [0, 1], got {decay}")


def predict(critic: GradientCritic, state: Float[ndarray, "B T1 S"]) -> Float[ndarray, "B T1 S"]:
    """g_w at each node of each rollout, zero at the last. Raises ValueError for another horizon than the critic's."""
    if len(critic.weight) != state.shape[1] - 1:
        raise ValueError(
            f"the critic has weights for {len(critic.weight)} steps, the rollout {state.shape[1] - 1}; learn one for "
            "this horizon"
        )
    found = np.zeros(state.shape)
    for t, w in enumerate(critic.weight):
        found[:, t] = critic.features(state[:, t]) @ w
    return found


def blended_costate(
    environment: Environment,
    policy: ShiftPolicy,
    rollout: Rollout,
    value_gradient: Float[ndarray, "B T1 S"],
    *,
    discount: float = 1.0,
    decay: float = 1.0,
) -> tuple[Float[ndarray, "B T1 S"], Float[ndarray, "B T1 S"]]:
    """Targets g' of value-gradient learning, and the blend of target and critic that stands in for the costate.

    g'_t = Dr_t + γ Df_tᵀ b_{t+1}, b_t = λ g'_t + (1−λ) g_w(s_t), both zero at T+1  (VGL(λ), Fairbank and Alonso 2012;
    λ = 1 is eq. 6 of the paper).

    value_gradient: g_w along the rollout, reward per unit of state. discount: γ, decay: λ, both in [0, 1]. Returns
    (g', b): regress the critic on g', and let b take the place of λ_{t+1} in eq. 7. Raises ValueError for a γ or λ
    outside, a g_w of wrong shape, or an environment without Jacobians. Ledger: E01.
    """
    check_discount(discount)
    check_decay(decay)
    if value_gradient.shape != rollout.state.shape:
        raise ValueError(
            f"value_gradient has shape {value_gradient.shape}, expected {rollout.state.shape}, one row per node; "
            "predict(critic, rollout.state) gives it"
        )
    return _sweep(environment, policy, rollout, lambda t, target: value_gradient[:, t], discount=discount, decay=decay)


def _sweep(
    environment: Environment,
    policy: ShiftPolicy,
    rollout: Rollout,
    critic: Callable[[int, ndarray], ndarray],
    *,
    discount: float,
    decay: float,
) -> tuple[ndarray, ndarray]:
    """Targets and blends from the last step to the first; ``critic`` gives g_w(s_t) from t and the targets g'_t."""
    reward_gradient = closed_loop_reward_gradient(environment, policy, rollout)
    jacobian = closed_loop_jacobian(environment, policy, rollout)
    target, blend = np.zeros(rollout.state.shape), np.zeros(rollout.state.shape)
    for t in reversed(range(rollout.reward.shape[1])):
        pulled = np.einsum("bij,bi->bj", jacobian[:, t], blend[:, t + 1])
        target[:, t] = reward_gradient[:, t] + discount * pulled
        blend[:, t] = decay * target[:, t] + (1 - decay) * critic(t, target[:, t])
    return target, blend


def learn_gradient_critic(
    environment: Environment,
    policy: ShiftPolicy,
    rollout: Rollout,
    *,
    features: Features = affine_features,
    discount: float = 1.0,
    decay: float = 1.0,
    weight: Float[ndarray, " B"] | None = None,
) -> GradientCritic:
    """Fit g_w to its own VGL(λ) targets by least squares, from the last step to the first.

    w_t = argmin_w Σ_b p_b ‖g'_t − wᵀφ(s_t)‖², g' as in ``blended_costate``; where φ leaves w_t open, the smallest w_t.

    decay: λ; 1 regresses on costates, 0 trusts the next step's critic alone. weight: p_b ≥ 0 of each rollout, equal by
    default; with the weights of a Gauss–Hermite grid the fit is the population's. Raises ValueError as
    ``blended_costate`` does, for negative weights, and for fewer rollouts than features. Ledger: E01.
    """
    check_discount(discount)
    check_decay(decay)
    batch, horizon = rollout.reward.shape
    share = np.full(batch, 1.0) if weight is None else weight
    if share.shape != (batch,) or not np.all(share >= 0):
        raise ValueError(f"weight must be {batch} numbers ≥ 0, one per rollout, got shape {share.shape}")
    root = np.sqrt(share)[:, None]
    count = features(rollout.state[:1, 0]).shape[1]
    if batch < count:
        raise ValueError(f"{batch} rollouts cannot fit {count} features; give at least {count}")
    found = np.zeros((horizon, count, rollout.state.shape[2]))

    def fit(t: int, target: ndarray) -> ndarray:
        phi = features(rollout.state[:, t])
        found[t] = np.linalg.lstsq(root * phi, root * target, rcond=None)[0]
        return np.asarray(phi @ found[t])

    _sweep(environment, policy, rollout, fit, discount=discount, decay=decay)
    return GradientCritic(features, found)


def population_critic(
    oracle: LinearQuadraticOracle,
    initial_state: Float[ndarray, "B S"],
    selection: Float[ndarray, "F Z"],
    *,
    decay: float = 1.0,
) -> tuple[Float[ndarray, "T1 S Z"], Float[ndarray, "T1 S Z"]]:
    """What VGL(λ) learns from infinitely many rollouts of a linear-quadratic system, in closed form.

    Features φ = Cz, z = (s, 1): W_t z = X_t E[z zᵀ]Cᵀ(C E[z zᵀ]Cᵀ)⁺C z, X_t = −2(P_t − γMᵀP_{t+1}M) + γMᵀY_{t+1}M,
    Y_t = λX_t + (1−λ)W_t.

    initial_state: s_1 uniform over its rows. selection: C (F,S+1); the identity gives ``affine_features``. decay: λ.
    Returns (W, Y) as maps of z at each node: critic and blend. Raises ValueError for a λ outside [0, 1] or a C of wrong
    width. Ledger: E01, E04.
    """
    check_decay(decay)
    size = oracle.P.shape[1] - 1
    if selection.shape[1] != size + 1:
        raise ValueError(f"selection has shape {selection.shape}, expected (F, {size + 1}): one column per entry of z")
    M, noise = oracle.F + oracle.N @ oracle.K, oracle.variance * oracle.N @ oracle.N.T
    z = np.concatenate([initial_state, np.ones((len(initial_state), 1))], axis=1)
    horizon, second = len(oracle.c) - 1, [z.T @ z / len(z)]
    for _ in range(horizon - 1):
        second.append(M @ second[-1] @ M.T + noise)
    critic, blend = np.zeros((2, horizon + 1, size + 1, size + 1))
    for t in reversed(range(horizon)):
        target = -2 * (oracle.P[t] - oracle.discount * M.T @ oracle.P[t + 1] @ M)
        target += oracle.discount * M.T @ blend[t + 1] @ M
        target[size] = 0.0
        across = second[t] @ selection.T
        critic[t] = target @ across @ np.linalg.pinv(selection @ across, hermitian=True) @ selection
        blend[t] = decay * target + (1 - decay) * critic[t]
    return critic[:, :size], blend[:, :size]


def expected_gradient(
    oracle: LinearQuadraticOracle, initial_state: Float[ndarray, "B S"], value_gradient: Float[ndarray, "T1 S Z"]
) -> Float[ndarray, " P"]:
    """Mean of eq. 7 with λ_{t+1} replaced by an affine value gradient Y_{t+1}z_{t+1}, linear-quadratic system.

    ∂J/∂K with −½Y in the place of P: Σ_t γ^{t−1}(−2RK + γBᵀY_{t+1}M) E[z_t z_tᵀ]; minus ``parameter_gradient`` of the
    oracle it is the bias. θ and initial_state as there. Raises ValueError for a Y of wrong shape. Ledger: E04.
    """
    size = oracle.P.shape[1] - 1
    if value_gradient.shape != oracle.P[:, :size].shape:
        raise ValueError(f"value_gradient has shape {value_gradient.shape}, expected {oracle.P[:, :size].shape}")
    padded = np.concatenate([value_gradient, np.zeros((len(oracle.P), 1, size + 1))], axis=1)
    return parameter_gradient(replace(oracle, P=-padded / 2), initial_state)
