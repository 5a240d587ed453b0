"""Exact answers: the linear-quadratic oracle in closed form, and Gauss–Hermite grids of noise.

The oracle carries one more coordinate, the constant 1, so that biases, goals and noises of non-zero mean are exact too.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous.costate import check_discount
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.policies import ShiftPolicy


@dataclass(frozen=True, eq=False)
class LinearQuadraticOracle:
    """V_t(s) = −zᵀP_t z − c_t with z = (s, 1); see ``linear_quadratic_oracle``.

    P (T1,S+1,S+1), c (T1,). F, N, K, R: z' = Fz + Na, mean action Kz, action cost R. variance: of one noise component.
    """

    P: ndarray
    c: Float[ndarray, " T1"]
    F: ndarray
    N: ndarray
    K: ndarray
    R: Float[ndarray, "A A"]
    variance: float
    discount: float


def linear_quadratic_oracle(
    environment: Environment, policy: ShiftPolicy, *, horizon: int, discount: float = 1.0
) -> LinearQuadraticOracle:
    """Solve the value recursion of a linear policy in a linear-quadratic environment.

    P_t = Q + KᵀRK + γMᵀP_{t+1}M, M = A + BK, P_{T+1} = 0; c_t = σ² tr R + γσ² tr(BᵀP_{t+1}B) + γc_{t+1}.

    Costs count by their symmetric part. Raises ValueError unless the environment is linear-quadratic and the mean
    linear, for a horizon below 1 or a γ outside [0, 1]. Ledger: S07.
    """
    check_discount(discount)
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")
    dynamics, payoff = environment.dynamics, environment.payoff
    mean = None if policy.mean_map is None else policy.mean_map(policy.theta)
    if dynamics is None or payoff is None or dynamics.outer is not None or payoff.exponential:
        raise ValueError("the oracle needs a linear-quadratic environment; build one with linear_quadratic(A, B, Q, R)")
    if mean is None or mean.outer is not None:
        raise ValueError("the oracle needs a linear mean action; build the policy with linear_policy(K, bias)")
    size = environment.state_size
    goal = np.zeros(size) if payoff.goal is None else payoff.goal
    F, N = np.zeros((size + 1, size + 1)), np.zeros((size + 1, environment.action_size))
    F[:size, :size], F[:size, size], F[size, size] = dynamics.inner[:, :size], dynamics.shift, 1.0
    N[:size] = dynamics.inner[:, size:]
    K = np.column_stack([mean.inner, mean.shift + policy.noise.mean])
    centring = np.column_stack([np.eye(size), -goal])
    Q = centring.T @ ((payoff.state_cost + payoff.state_cost.T) / 2) @ centring
    R = (payoff.action_cost + payoff.action_cost.T) / 2
    variance, M = policy.noise.variance, F + N @ K
    P, c = np.zeros((horizon + 1, size + 1, size + 1)), np.zeros(horizon + 1)
    for t in reversed(range(horizon)):
        P[t] = Q + K.T @ R @ K + discount * M.T @ P[t + 1] @ M
        c[t] = variance * (np.trace(R) + discount * np.trace(N.T @ P[t + 1] @ N)) + discount * c[t + 1]
    return LinearQuadraticOracle(P, c, F, N, K, R, variance, discount)


def value(oracle: LinearQuadraticOracle, state: Float[ndarray, "B T1 S"]) -> Float[ndarray, "B T1"]:
    """V_t(s_t) at each node of each rollout."""
    z = _augmented(state)
    return -np.einsum("bti,tij,btj->bt", z, oracle.P, z) - oracle.c


def value_gradient(oracle: LinearQuadraticOracle, state: Float[ndarray, "B T1 S"]) -> Float[ndarray, "B T1 S"]:
    """∂V_t/∂s_t = −2(P_t z_t) at each node of each rollout, zero at the last. Ledger: S07."""
    return -2 * np.einsum("tij,btj->bti", oracle.P, _augmented(state))[..., :-1]


def parameter_gradient(oracle: LinearQuadraticOracle, initial_state: Float[ndarray, "B S"]) -> Float[ndarray, " P"]:
    """∂J/∂θ for s_1 uniform over the rows of ``initial_state``; θ = (K row by row, bias) as in ``linear_policy``.

    ∂J/∂K = −2 Σ_t γ^{t−1} (RK + γBᵀP_{t+1}M) E[z_t z_tᵀ]. Ledger: S05.
    """
    z = _augmented(initial_state[:, None])[:, 0]
    second, M = z.T @ z / len(z), oracle.F + oracle.N @ oracle.K
    total, weight = np.zeros_like(oracle.K), 1.0
    for t in range(len(oracle.c) - 1):
        total -= 2 * weight * (oracle.R @ oracle.K + oracle.discount * oracle.N.T @ oracle.P[t + 1] @ M) @ second
        second = M @ second @ M.T + oracle.variance * oracle.N @ oracle.N.T
        weight *= oracle.discount
    return np.concatenate([total[:, :-1].ravel(), total[:, -1]])


def _augmented(state: ndarray) -> ndarray:
    return np.concatenate([state, np.ones((*state.shape[:-1], 1))], axis=-1)


def gauss_hermite_noise(
    order: int, horizon: int, action_size: int, *, scale: float = 1.0
) -> tuple[Float[ndarray, "B T A"], Float[ndarray, " B"]]:
    """All noise sequences of a Gauss–Hermite product grid, and their weights (sum 1).

    Weighted sums over rollouts along these sequences are expectations over N(0, scale²) noise: exact for integrands
    that are polynomials of degree below 2·order in each component. B = order^(T·A). Raises ValueError above 10⁶, or for
    a horizon or action_size below 1.
    """
    if horizon < 1 or action_size < 1:
        raise ValueError(f"horizon and action_size must be at least 1, got {horizon} and {action_size}")
    count = order ** (horizon * action_size)
    if order < 1 or count > 10**6:
        raise ValueError(
            f"order {order} over {horizon}·{action_size} noise numbers asks for {count} sequences; stay in 1…10⁶"
        )
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    index = np.indices((order,) * (horizon * action_size)).reshape(horizon * action_size, -1)
    draws = scale * nodes[index].T.reshape(count, horizon, action_size)
    return draws, np.asarray((weights / weights.sum())[index].prod(0))
