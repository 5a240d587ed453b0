"""Two gradient estimators with one signature and per-sample values: the caller averages.

score_function_gradient and pathwise_gradient have the same mean under the conditions of Lemma 1 (ledger S08, S12).
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import maps
from vgrad_lab.continuous.costate import adjoint, adjoint_blocks, check_discount
from vgrad_lab.continuous.doors import check_finite, check_rollout
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.parameters import PathwiseTerms, environment_terms
from vgrad_lab.continuous.parameters import extra_terms as extra_terms
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout, blocks, columns_of, structure


def pathwise_gradient(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0
) -> Float[ndarray, "B P"]:
    """∂R_1/∂θ of each rollout, noise held fixed.

    Σ_t γ^{t−1} ā_θᵀ (r_a + γ f_aᵀ λ_{t+1})  (Prop. 1, eq. 7), and the environment's own terms where it has
    ``parameters``: then it is the total of ``pathwise_terms``.

    discount: γ in [0, 1]. Raises ValueError for a γ outside, an environment without Jacobians, or one that was made
    with another θ than the policy's. Ledger: S05, S05.extra.
    """
    total = np.zeros((len(policy.theta), len(rollout.reward)))
    return _pathwise(environment, policy, rollout, discount, total)[0].T


def pathwise_terms(
    environment: Environment, policy: ShiftPolicy, rollout: Rollout, *, discount: float = 1.0
) -> PathwiseTerms:
    """∂R_1/∂θ of each rollout, term by term: through the policy, f_θ, r_θ and s_1.

    Eq. 7 has the first two; it is off by the other two where ``environment.parameters`` has them. Raises ValueError as
    ``pathwise_gradient`` does. Ledger: S05, S05.extra.
    """
    total = np.zeros((len(policy.theta), len(rollout.reward)))
    plain = replace(environment, parameters=None)
    policy_term, costate = _pathwise(plain, policy, rollout, discount, total)
    return environment_terms(environment, policy, rollout, costate, policy_term.T, discount=discount)


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
    check_rollout(environment, policy, rollout)
    if environment.parameters is not None:
        terms = pathwise_terms(environment, policy, rollout, discount=discount)
        return (terms.total.T if total.ndim == 2 else terms.total.sum(0)), terms.costate
    weight = discount ** np.arange(rollout.reward.shape[1])
    parts = structure(environment, policy)
    mean = parts[2]
    if not isinstance(mean, maps.Map):
        found = adjoint(environment, policy, rollout, discount=discount)
        per_sample = pull_parameters(policy, rollout, found.action_gradient * weight[:, None]).T
        return per_sample if total.ndim == 2 else per_sample.sum(1), found.costate
    batch, nodes, size = rollout.state.shape
    costate = np.empty((nodes, size, batch))
    columns = columns_of(*parts, rollout)
    for block, gradient, layer in adjoint_blocks(*parts, columns, discount, costate):
        tape, slope = (None, None) if layer is None else (layer.tape, layer.slope)
        np.multiply(gradient, weight[block, None, None], gradient)
        maps.add_parameter_gradient(mean, columns.x[block, :size], tape, slope, gradient, total)
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

    environment: for one signature with ``pathwise_gradient``; θ inside it is not seen by scores, so add the terms
    ``dynamics``, ``reward`` and ``initial_state`` of ``pathwise_terms``. discount: γ in [0, 1]. baseline: b_t, any
    function of s_t; none by default. Raises ValueError for a γ outside or a baseline of wrong shape. Ledger: S08, S12.
    """
    check_discount(discount)
    check_rollout(environment, policy, rollout)
    advantage = return_to_go(rollout.reward, discount=discount)
    if baseline is not None:
        if baseline.shape != advantage.shape:
            raise ValueError(f"baseline has shape {baseline.shape}, expected {advantage.shape}, one number per step")
        check_finite("baseline", baseline)
        advantage = advantage - baseline
    weight = discount ** np.arange(advantage.shape[1])
    cotangent = -policy.noise.score(rollout.noise_draw) * (advantage * weight)[..., None]
    return pull_parameters(policy, rollout, cotangent)


def pull_parameters(policy: ShiftPolicy, rollout: Rollout, cotangent: ndarray) -> ndarray:
    """Σ_t ā_θ(s_t)ᵀ cotangent_t for each rollout; cotangent is (B,T,A). Raises ValueError for a turned ā_θ."""
    horizon = cotangent.shape[1]
    if policy.mean_map is None:
        total = np.zeros((len(cotangent), len(policy.theta)))
        expected = (*cotangent[:, 0].shape, len(policy.theta))
        for t in range(horizon):
            jacobian = policy.parameter_jacobian(policy.theta, rollout.state[:, t])
            if jacobian.shape != expected:
                raise ValueError(
                    f"parameter_jacobian gives shape {jacobian.shape}, expected {expected}: Jacobians are (out, in), "
                    "after the batch; vgrad_lab.verify.check_policy checks it"
                )
            total += np.einsum("ba,bap->bp", cotangent[:, t], jacobian)
        return total
    mean = policy.mean_map(policy.theta)
    x, c = (np.ascontiguousarray(y.transpose(1, 2, 0)) for y in (rollout.state[:, :-1], cotangent))
    total = np.zeros((len(policy.theta), len(cotangent)))
    for block in blocks(horizon, x[0].nbytes):
        tape = None if mean.outer is None else np.tanh(mean.inner @ x[block] + mean.shift[:, None])
        slope = None if tape is None else 1 - tape**2
        maps.add_parameter_gradient(mean, x[block], tape, slope, c[block], total)
    return total.T
