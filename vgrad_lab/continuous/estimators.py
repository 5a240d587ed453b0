"""Two gradient estimators with one signature and per-sample values: the caller averages.

score_function_gradient and pathwise_gradient have the same mean under the conditions of Lemma 1 (ledger S08, S12).
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import maps
from vgrad_lab.continuous.costate import adjoint, adjoint_blocks, check_discount
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout, blocks, columns_of, structure


def pathwise_gradient(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0
) -> Float[ndarray, "B P"]:
    """∂R_1/∂θ of each rollout, noise held fixed.

    Σ_t γ^{t−1} ā_θᵀ (r_a + γ f_aᵀ λ_{t+1})  (Prop. 1, eq. 7, with s_1, f and r free of θ; else add ``extra_terms``).

    discount: γ in [0, 1]. Raises ValueError for a γ outside or an environment without Jacobians. Ledger: S05.
    """
    total = np.zeros((len(policy.theta), len(rollout.reward)))
    return _pathwise(environment, policy, rollout, discount, total)[0].T


def mean_pathwise_gradient(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0
) -> tuple[Float[ndarray, " P"], Float[ndarray, "B T1 S"]]:
    """Batch mean of ``pathwise_gradient``, without its (B,P) memory, and the costates that it needs anyway.

    What one backward pass of an autograd library through the mean return gives. Raises ValueError as
    ``pathwise_gradient`` does. Ledger: S04, S05.
    """
    total, costate = _pathwise(environment, policy, rollout, discount, np.zeros(len(policy.theta)))
    return total / len(rollout.reward), costate


def _pathwise(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout, discount: float, total: ndarray
) -> tuple[ndarray, ndarray]:
    """Fill ``total``, (P,B) or (P,) for the sum over the batch; return it with the costates."""
    check_discount(discount)
    weight = discount ** np.arange(rollout.reward.shape[1])
    parts = structure(environment, policy)
    if parts is None:
        found = adjoint(environment, policy, rollout, discount=discount)
        per_sample = pull_parameters(policy, rollout, found.action_gradient * weight[:, None]).T
        return per_sample if total.ndim == 2 else per_sample.sum(1), found.costate
    batch, nodes, size = rollout.state.shape
    costate = np.empty((nodes, size, batch))
    columns = columns_of(*parts, rollout)
    for block, gradient, slope in adjoint_blocks(*parts, columns, discount, costate):
        tape = None if columns.mean_tape is None else columns.mean_tape[block]
        np.multiply(gradient, weight[block, None, None], gradient)
        maps.add_parameter_gradient(parts[2], columns.x[block, :size], tape, slope, gradient, total)
    return total, costate.transpose(2, 0, 1)


def score_function_gradient(
    environment: Environment,
    policy: ShiftPolicy,
    rollout: Rollout,
    *,
    discount: float = 1.0,
    baseline: Float[ndarray, "B T"] | None = None,
) -> Float[ndarray, "B P"]:
    """Likelihood-ratio estimate from each rollout, rewards used as numbers only.

    Σ_t γ^{t−1} (R_t − b_t) ∇_θ log π_θ(a_t|s_t)  (eq. 2 on a rollout).

    environment: unused, for one signature with ``pathwise_gradient``. discount: γ in [0, 1]. baseline: b_t, any
    function of s_t; none by default. Raises ValueError for a γ outside or a baseline of wrong shape. Ledger: S08, S12.
    """
    check_discount(discount)
    advantage = return_to_go(rollout.reward, discount=discount)
    if baseline is not None:
        if baseline.shape != advantage.shape:
            raise ValueError(f"baseline has shape {baseline.shape}, expected {advantage.shape}, one number per step")
        advantage = advantage - baseline
    weight = discount ** np.arange(advantage.shape[1])
    cotangent = -policy.noise.score(rollout.noise_draw) * (advantage * weight)[..., None]
    return pull_parameters(policy, rollout, cotangent)


def pull_parameters(policy: ShiftPolicy, rollout: Rollout, cotangent: ndarray) -> ndarray:
    """Σ_t ā_θ(s_t)ᵀ cotangent_t for each rollout; cotangent is (B,T,A)."""
    horizon = cotangent.shape[1]
    if policy.mean_map is None:
        steps = (policy.parameter_jacobian(policy.theta, rollout.state[:, t]) for t in range(horizon))
        return np.asarray(sum(np.einsum("ba,bap->bp", cotangent[:, t], step) for t, step in enumerate(steps)))
    mean = policy.mean_map(policy.theta)
    x, c = (np.ascontiguousarray(y.transpose(1, 2, 0)) for y in (rollout.state[:, :-1], cotangent))
    total = np.zeros((len(policy.theta), len(cotangent)))
    for block in blocks(horizon, x[0].nbytes):
        tape = None if mean.outer is None else np.tanh(mean.inner @ x[block] + mean.shift[:, None])
        slope = None if tape is None else 1 - tape**2
        maps.add_parameter_gradient(mean, x[block], tape, slope, c[block], total)
    return total.T


def extra_terms(
    rollout: Rollout,
    costate: Float[ndarray, "B T1 S"],
    *,
    discount: float = 1.0,
    initial_state: Float[ndarray, "B S P"] | None = None,
    dynamics: Float[ndarray, "B T S P"] | None = None,
    reward: Float[ndarray, "B T P"] | None = None,
) -> Float[ndarray, "B P"]:
    """What ∂R_1/∂θ gains when θ also enters s_1, f or r.

    (∂s_1/∂θ)ᵀ λ_1 + Σ_t γ^{t−1} (γ f_θᵀ λ_{t+1} + r_θ); the f_θ term stands in eq. 7, the other two do not.

    initial_state, dynamics, reward: ∂s_1/∂θ, f_θ and r_θ along the rollout; None where θ does not enter. Raises
    ValueError for a γ outside [0, 1] or when all three are None. Ledger: S05.extra.
    """
    check_discount(discount)
    weight = discount ** np.arange(rollout.reward.shape[1])
    terms = []
    if initial_state is not None:
        terms.append(np.einsum("bsp,bs->bp", initial_state, costate[:, 0]))
    if dynamics is not None:
        terms.append(np.einsum("btsp,bts,t->bp", dynamics, costate[:, 1:], discount * weight))
    if reward is not None:
        terms.append(np.einsum("btp,t->bp", reward, weight))
    if not terms:
        raise ValueError(
            "give at least one of initial_state, dynamics and reward; without them there is nothing to add"
        )
    return np.asarray(sum(terms))
