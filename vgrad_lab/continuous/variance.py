"""Variances of gradient estimators in closed form, and the usual ways to make them smaller."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import leave_one_out, return_to_go
from vgrad_lab.continuous.costate import check_discount
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.noise import Noise
from vgrad_lab.continuous.oracles import linear_quadratic_oracle
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout, rollout

Cost = Literal["linear", "square", "sine"]
"""One-step rewards a, a² and sin ωa."""
BaselineName = Literal["none", "constant", "leave_one_out", "value"]
"""What a score-function estimator subtracts from the reward-to-go."""


@dataclass(frozen=True)
class Moments:
    """Mean of both gradient forms, and the variance of one sample of each.

    best_baseline: b* = E[r u²]/E[u²], u = ∂_θ log ν, the constant that leaves the score function the least variance.
    """

    mean: float
    pathwise: float
    score_function: float
    best_baseline: float


def one_step_moments(
    cost: Cost, *, mean: float = 0.0, scale: float = 1.0, frequency: float = 1.0, baseline: float = 0.0
) -> Moments:
    """Mean and variances of r'(a) and of (r(a) − b) ∂_θ log ν(a−θ) for a ~ N(θ, σ²), in closed form.

    r = a: 0 and θ²/σ² + 2. r = a²: 4σ² and θ⁴/σ² + 14θ² + 15σ². r = sin ωa, with k = ω²σ²:
    ω²[(1 + cos 2ωθ e^{−2k})/2 − cos² ωθ e^{−k}] and [1 − (1−4k) cos 2ωθ e^{−2k}]/(2σ²) − ω² cos² ωθ e^{−k} (eqs. 2, 3).
    A baseline adds (b² − 2b b*)/σ², b* = θ, θ² + 3σ² and (1 − k) sin ωθ e^{−k/2}.

    mean: θ and scale: σ, in units of a. frequency: ω, for "sine" only. baseline: b, in units of reward. Raises
    ValueError for an unknown cost or a scale that is not positive. Ledger: E03, S03.variance.
    """
    if cost not in get_args(Cost):
        raise ValueError(f"unknown cost {cost!r}; choose one of {', '.join(get_args(Cost))}")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number, got {scale}")
    theta, variance = mean, scale**2
    if cost == "linear":
        slope, pathwise, score, level = 1.0, 0.0, theta**2 / variance + 2, theta
    elif cost == "square":
        slope, pathwise, level = 2 * theta, 4 * variance, theta**2 + 3 * variance
        score = theta**4 / variance + 14 * theta**2 + 15 * variance
    else:
        k, w = frequency**2 * variance, frequency
        slope = float(w * np.cos(w * theta) * np.exp(-k / 2))
        twice = float(np.cos(2 * w * theta) * np.exp(-2 * k))
        pathwise = w**2 * (1 + twice) / 2 - slope**2
        score = (1 - (1 - 4 * k) * twice) / (2 * variance) - slope**2
        level = float(np.sin(w * theta) * np.exp(-k / 2) * (1 - k))
    return Moments(slope, pathwise, score + (baseline**2 - 2 * baseline * level) / variance, level)


def one_step_covariances(
    environment: Environment, policy: ShiftPolicy, state: Float[ndarray, " S"], *, baseline: float = 0.0
) -> tuple[Float[ndarray, "P P"], Float[ndarray, "P P"]]:
    """Covariances of one sample of ``pathwise_gradient`` and of ``score_function_gradient``, linear-quadratic, T = 1.

    With u ~ N(0, I), r − b = −(m + 2σgᵀu + σ²uᵀRu), g = Rā: pathwise 4σ²R², score function σ⁻²[m²I + 4σ²(gᵀg I + ggᵀ) +
    σ⁴((tr²R + 2 tr R²)I + 4 tr(R) R + 8R²) + 2mσ²(tr(R) I + 2R)], both between ā_θᵀ and ā_θ.

    state: s_1. baseline: b, in units of reward. Raises ValueError unless the environment is linear-quadratic, the mean
    action linear and the noise Gaussian. Ledger: E03.
    """
    if policy.noise.name != "gaussian":
        raise ValueError(f"the closed form needs Gaussian noise, got {policy.noise.name}")
    oracle = linear_quadratic_oracle(environment, policy, horizon=1)
    R, s2, start = oracle.R, oracle.variance, state[None]
    action = policy.mean_action(policy.theta, start)
    m, g = baseline - float(environment.reward(start, action)[0]), R @ action[0]
    unit, trace = np.eye(len(R)), np.trace(R)
    score = (m**2 + 4 * s2 * (g @ g)) * unit + 4 * s2 * np.outer(g, g)
    score = score + s2**2 * ((trace**2 + 2 * np.trace(R @ R)) * unit + 4 * trace * R + 8 * R @ R)
    score = (score + 2 * m * s2 * (trace * unit + 2 * R)) / s2
    pull = policy.parameter_jacobian(policy.theta, start)[0]
    return pull.T @ (4 * s2 * R @ R) @ pull, pull.T @ score @ pull


def antithetic_noise(noise: Noise, noise_draw: Float[ndarray, "B T A"]) -> Float[ndarray, "2*B T A"]:
    """The draws, then their mirror images 2E[ξ] − ξ: row i and row B + i are a pair.

    Raises ValueError for a noise whose density is not symmetric about its mean: the mirror images would have another
    law. Ledger: S07.
    """
    x = np.linspace(0, max(noise.support[1] - noise.mean, noise.mean - noise.support[0]), 64)[1:-1]
    right, left = noise.density(noise.mean + x), noise.density(noise.mean - x)
    if not np.allclose(right, left, rtol=1e-6, atol=1e-12 * float(np.max(right))):
        raise ValueError(f"{noise.name} noise is not symmetric about its mean, so it has no antithetic pairs")
    return np.concatenate([noise_draw, 2 * noise.mean - noise_draw])


def pair_means(samples: Float[ndarray, "_ P"]) -> Float[ndarray, "B P"]:
    """Means of rows i and B + i, the samples of ``antithetic_noise``. Raises ValueError for an odd number of rows."""
    if len(samples) % 2:
        raise ValueError(f"{len(samples)} rows are no pairs; give the gradients of all rows of antithetic_noise")
    half = len(samples) // 2
    return (samples[:half] + samples[half:]) / 2


def return_difference(
    environment: Environment, first: ShiftPolicy, second: ShiftPolicy, played: Rollout, *, discount: float = 1.0
) -> Float[ndarray, " B"]:
    """R_1 of one policy minus R_1 of another along common random numbers: the starts and noise of ``played``.

    Unbiased for J(first) − J(second) when both policies have the noise law that ``played`` was drawn from. Raises
    ValueError for a γ outside [0, 1] or as ``rollout`` does. Ledger: S01.
    """
    check_discount(discount)
    start, noise = played.state[:, 0], played.noise_draw
    weight = discount ** np.arange(noise.shape[1])
    return (
        rollout(environment, first, start, noise).reward - rollout(environment, second, start, noise).reward
    ) @ weight


def finite_difference_gradient(
    environment: Environment,
    policy: ShiftPolicy,
    played: Rollout,
    *,
    discount: float = 1.0,
    step: float = 1e-4,
    other: Rollout | None = None,
) -> Float[ndarray, "B P"]:
    """Central differences of R_1 in each parameter, with common random numbers.

    [R_1(θ + h e_p, ξ) − R_1(θ − h e_p, ξ')]/(2h), ξ' = ξ unless ``other`` brings its own: then the variance grows as
    1/h², with ξ' = ξ it is that of ``pathwise_gradient`` + O(h²).

    step: h. other: rollouts whose starts and noise the second term takes. Raises ValueError for a step that is not
    positive, another batch shape, a γ outside [0, 1]. Ledger: S01, S05.
    """
    check_discount(discount)
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    back = played if other is None else other
    if back.noise_draw.shape != played.noise_draw.shape:
        raise ValueError(f"other has noise of shape {back.noise_draw.shape}, expected {played.noise_draw.shape}")
    weight, columns = discount ** np.arange(played.reward.shape[1]), []
    for unit in np.eye(len(policy.theta)):
        ends = [
            rollout(environment, replace(policy, theta=policy.theta + h * unit), r.state[:, 0], r.noise_draw).reward
            for h, r in ((step, played), (-step, back))
        ]
        columns.append((ends[0] - ends[1]) @ weight / (2 * step))
    return np.stack(columns, axis=1)


def baseline(
    name: BaselineName,
    reward: Float[ndarray, "B T"],
    *,
    discount: float = 1.0,
    constant: Float[ndarray, " T"] | None = None,
    value: Float[ndarray, "B T1"] | None = None,
) -> Float[ndarray, "B T"]:
    """b_t of each rollout by the baseline's name, for ``score_function_gradient``; none of them moves its mean.

    none: 0. constant: the given number of each step. leave_one_out: mean R_t of the other rollouts. value: V_t(s_t).

    constant: in units of reward, not computed from these rollouts (their own mean would scale ∂J by 1 − 1/B, ledger
    S10). value: at all T+1 nodes, say ``oracles.value``. Raises ValueError for an unknown name, a missing or unused
    array, or one of wrong shape. Ledger: S10, S12.
    """
    if name not in get_args(BaselineName):
        raise ValueError(f"unknown baseline {name!r}; choose one of {', '.join(get_args(BaselineName))}")
    given, (batch, horizon) = {"constant": constant, "value": value}, reward.shape
    for key, shape in (("constant", (horizon,)), ("value", (batch, horizon + 1))):
        array = given[key]
        if (array is not None) != (name == key):
            raise ValueError(f"baseline {name!r} {'needs' if name == key else 'does not use'} `{key}`")
        if array is not None and array.shape != shape:
            raise ValueError(f"{key} has shape {array.shape}, expected {shape}")
    if constant is not None:
        return np.tile(constant, (batch, 1))
    if value is not None:
        return value[:, :-1]
    if name == "none":
        return np.zeros(reward.shape)
    returns = return_to_go(reward, discount=discount)
    return returns - leave_one_out(returns.T).T
