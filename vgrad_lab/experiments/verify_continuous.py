"""Evidence and counterexamples of the continuous floor's ledger entries; NumPy only, deterministic given the seed."""

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import oracles, systems
from vgrad_lab.continuous.costate import (
    adjoint,
    closed_loop_jacobian,
    closed_loop_reward_gradient,
    costate,
    require_jacobians,
)
from vgrad_lab.continuous.environments import (
    Environment,
    Jacobians,
    random_linear_quadratic,
    random_tanh_network,
)
from vgrad_lab.continuous.estimators import extra_terms, pathwise_gradient
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.continuous.policies import ShiftPolicy, linear_policy, tanh_policy
from vgrad_lab.continuous.rollout import Rollout, rollout, sample_rollout
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM

Batch = Callable[[ndarray, ndarray], ndarray]


def draw_system(rng: np.random.Generator, *, linear: bool | None = None) -> tuple[Environment, ShiftPolicy]:
    """A random environment and policy, S ≤ 8 and A ≤ 3; ``linear`` forces the linear-quadratic pair."""
    size, action_size = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    kind = 0 if linear else int(rng.integers(8))
    if kind < 6:
        make = random_linear_quadratic if kind < 3 else random_tanh_network
        environment = make(rng, size, action_size)
    else:
        target = rng.standard_normal((action_size, size)) / size
        environment = systems.bandit(target) if rng.integers(2) else (systems.pendulum, systems.obstacle)[kind - 6]()
        size, action_size = environment.state_size, environment.action_size
    if linear or bool(rng.integers(2)):
        K, bias = 0.3 * rng.standard_normal((action_size, size)), rng.standard_normal(action_size)
        return environment, linear_policy(K, bias, noise=gaussian(0.5))
    inner = rng.standard_normal((3, size)) / np.sqrt(size)  # steeper means make long rollouts chaotic
    weights = inner, rng.standard_normal(3), rng.standard_normal((action_size, 3))
    return environment, tanh_policy(*weights, noise=gaussian(0.5))


def complex_step(
    environment: Environment, policy: ShiftPolicy, state: ndarray, noise: ndarray, discount: float
) -> tuple[ndarray, ndarray]:
    """∂R_1/∂s_1 (B,S) and ∂R_1/∂θ (B,P) of the rollout's plain functions, exact to rounding."""
    tiny = 1e-30

    def total(start: ndarray, theta: ndarray) -> ndarray:
        result, weight, now = np.zeros(len(start), complex), 1.0, start
        for t in range(noise.shape[1]):
            action = policy.mean_action(theta, now) + noise[:, t]
            result, weight = result + weight * environment.reward(now, action), weight * discount
            now = environment.transition(now, action)
        return result.imag / tiny

    by_state = [total(state + 1j * tiny * unit, policy.theta + 0j) for unit in np.eye(state.shape[1])]
    by_theta = [total(state + 0j, policy.theta + 1j * tiny * unit) for unit in np.eye(len(policy.theta))]
    return np.stack(by_state, 1), np.stack(by_theta, 1)


def _relative(found: ndarray, expected: ndarray) -> float:
    return float(np.max(np.abs(found - expected)) / max(1e-300, float(np.max(np.abs(expected)))))


def s04_adjoint(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Costates at the first state against complex steps through the rollout's plain functions."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy = draw_system(rng)
        played = sample_rollout(environment, policy, rng, batch=3, horizon=int(rng.integers(1, 17)))
        discount = float(rng.uniform())
        expected, _ = complex_step(environment, policy, played.state[:, 0], played.noise_draw, discount)
        worst = max(worst, _relative(costate(environment, policy, played, discount=discount)[:, 0], expected))
    return Evidence(worst, ALGEBRA, f"relative error of λ_1 over {examples} systems")


def s05_parameter_gradient(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Pathwise parameter gradients against complex steps in θ."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy = draw_system(rng)
        played = sample_rollout(environment, policy, rng, batch=3, horizon=int(rng.integers(1, 17)))
        discount = float(rng.uniform())
        _, expected = complex_step(environment, policy, played.state[:, 0], played.noise_draw, discount)
        worst = max(worst, _relative(pathwise_gradient(environment, policy, played, discount=discount), expected))
    return Evidence(worst, ALGEBRA, f"relative error of ∂R_1/∂θ over {examples} systems")


def _pushed_return(
    system: tuple[Environment, ShiftPolicy], played: Rollout, discount: float, ways: ndarray, p: ndarray
) -> ndarray:
    """R_1 when p moves s_1, f and r along the three matrices of ``ways`` (3,S,P)."""
    (environment, policy), (start, push, pay) = system, ways
    now, result = played.state[:, 0] + start @ p, np.zeros(len(played.state), complex)
    for t in range(played.reward.shape[1]):
        action = policy.mean_action(policy.theta, now) + played.noise_draw[:, t]
        result = result + discount**t * (environment.reward(now, action) + now @ (pay @ p))
        now = environment.transition(now, action) + push @ p
    return result


def s05_extra(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The terms beside the policy's, for parameters that move s_1, f and r, against complex steps."""
    rng, worst, tiny = np.random.default_rng(seed), 0.0, 1e-30
    for _ in range(examples):
        environment, policy = draw_system(rng)
        horizon, discount = int(rng.integers(1, 17)), float(rng.uniform())
        played = sample_rollout(environment, policy, rng, batch=2, horizon=horizon)
        ways = rng.standard_normal((3, environment.state_size, 4))
        steps = [_pushed_return((environment, policy), played, discount, ways, 1j * tiny * unit) for unit in np.eye(4)]
        found = extra_terms(
            played,
            costate(environment, policy, played, discount=discount),
            discount=discount,
            initial_state=np.tile(ways[0], (2, 1, 1)),
            dynamics=np.tile(ways[1], (2, horizon, 1, 1)),
            reward=played.state[:, :-1] @ ways[2],
        )
        worst = max(worst, _relative(found, np.stack(steps, axis=1).imag / tiny))
    return Evidence(worst, ALGEBRA, f"relative error of the extra terms over {examples} systems")


def _hand_made(transition: Batch, reward: Batch, slopes: tuple[float, float, Batch, Batch]) -> Environment:
    """One state, one action; slopes are constant f_s and f_a, and r_s and r_a as functions."""
    f_s, f_a, r_s, r_a = slopes
    jacobians = Jacobians(
        lambda s, a: np.full((len(s), 1, 1), f_s), lambda s, a: np.full((len(s), 1, 1), f_a), r_s, r_a
    )
    return Environment(1, 1, lambda rng, batch: np.zeros((batch, 1)), transition, reward, jacobians)


def s05_initial_state() -> Counterexample:
    """T = 1, s_1 = θ, r = s: eq. 7 sees no action and gives 0, dJ/dθ = 1."""
    environment = _hand_made(
        lambda s, a: s, lambda s, a: s[:, 0], (1.0, 0.0, lambda s, a: np.ones_like(s), lambda s, a: np.zeros_like(a))
    )
    policy = linear_policy(np.zeros((1, 1)))
    played = rollout(environment, policy, np.array([[0.3]]), np.zeros((1, 1, 1)))
    claimed = float(pathwise_gradient(environment, policy, played).sum())
    true = claimed + extra_terms(played, costate(environment, policy, played), initial_state=np.ones((1, 1, 1)))
    return Counterexample(claimed, float(true[0, 0]), 0.5, "s_1 = θ, r = s, T = 1: eq. 7 against dJ/dθ")


def s06_bellman(*, seed: int = 0, examples: int = 20) -> Evidence:
    """G_t = E[Dr_t + γ Df_tᵀ G_{t+1}(s_{t+1})] with the oracle's value gradients, one step of Gauss–Hermite noise."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy = draw_system(rng, linear=True)
        discount, horizon = float(rng.uniform()), int(rng.integers(2, 17))
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=horizon, discount=discount)
        noise, weight = oracles.gauss_hermite_noise(3, 1, environment.action_size, scale=0.5)
        start = np.tile(environment.initial(rng, 1), (len(noise), 1))
        step = rollout(environment, policy, start, noise)
        nodes = np.repeat(step.state[:, :1], horizon + 1, 1)
        nodes[:, 1] = step.state[:, 1]
        gradient = oracles.value_gradient(oracle, nodes)
        carried = np.einsum("bij,bi->bj", closed_loop_jacobian(environment, policy, step)[:, 0], gradient[:, 1])
        right = weight @ (closed_loop_reward_gradient(environment, policy, step)[:, 0] + discount * carried)
        worst = max(worst, _relative(right, gradient[0, 0]))
    return Evidence(worst, ALGEBRA, f"relative residual of eq. 8 over {examples} linear-quadratic systems")


def s07_value_gradient(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean costate of an antithetic pair against the linear-quadratic value gradient; λ is affine in the noise."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy = draw_system(rng, linear=True)
        discount, horizon = float(rng.uniform()), int(rng.integers(1, 17))
        start = np.repeat(environment.initial(rng, 3), 2, axis=0)
        noise = np.repeat(rng.standard_normal((3, horizon, environment.action_size)), 2, axis=0)
        noise[1::2] *= -1
        found = costate(environment, policy, rollout(environment, policy, start, noise), discount=discount)[:, 0]
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=horizon, discount=discount)
        expected = oracles.value_gradient(oracle, np.repeat(start[::2, None], horizon + 1, 1))[:, 0]
        worst = max(worst, _relative((found[::2] + found[1::2]) / 2, expected))
    return Evidence(worst, ALGEBRA, f"relative error of E λ_1 over {examples} linear-quadratic systems")


def s07_dependent_noise() -> Counterexample:
    """ξ_2 = ξ_1, s_2 = a_1, r = sa: E[λ_2|s_2 = 1] = 1, but V_2(s) = s² has slope 2."""
    environment = _hand_made(lambda s, a: a, lambda s, a: (s * a)[:, 0], (0.0, 1.0, lambda s, a: a, lambda s, a: s))
    noise = np.array([1.0, 1 + 1e-4, 1 - 1e-4])[:, None, None] * np.ones((1, 2, 1))
    played = rollout(environment, linear_policy(np.zeros((1, 1))), np.zeros((3, 1)), noise)
    claimed = costate(environment, linear_policy(np.zeros((1, 1))), played)[0, 1, 0]
    true = (played.reward[1, 1] - played.reward[2, 1]) / 2e-4
    return Counterexample(float(claimed), float(true), 0.5, "E[λ_2|s_2 = 1] against V_2'(1) when ξ_2 = ξ_1")


def fixed_action_costates(
    environment: Environment, policy: ShiftPolicy, played: Rollout, discount: float
) -> tuple[ndarray, ndarray]:
    """λ̂_t = ∂_{s_t} Σ_k γ^{k−t} R_k ℓ_k and ∂_{s_t} Σ_k γ^{k−t} r_k, both with the drawn actions held fixed."""
    jacobians, returns = require_jacobians(environment), return_to_go(played.reward, discount=discount)
    empirical, direct = np.zeros_like(played.state), np.zeros_like(played.state)
    for t in reversed(range(played.reward.shape[1])):
        state, action = played.state[:, t], played.action[:, t]
        score = -np.einsum(
            "ba,bas->bs", policy.noise.score(played.noise_draw[:, t]), policy.state_jacobian(policy.theta, state)
        )
        back = discount * jacobians.transition_state(state, action)
        empirical[:, t] = returns[:, t, None] * score + np.einsum("bij,bi->bj", back, empirical[:, t + 1])
        direct[:, t] = jacobians.reward_state(state, action) + np.einsum("bij,bi->bj", back, direct[:, t + 1])
    return empirical, direct


def _all_noise(rng: np.random.Generator) -> tuple[Environment, ShiftPolicy, Rollout, ndarray, float]:
    """A linear-quadratic system from one state along every noise sequence of a grid exact for it, and weights."""
    size, action_size = int(rng.integers(1, 9)), int(rng.integers(1, 3))
    environment = random_linear_quadratic(rng, size, action_size)
    policy = linear_policy(0.3 * rng.standard_normal((action_size, size)), rng.standard_normal(action_size))
    noise, weight = oracles.gauss_hermite_noise(4, 2 if action_size == 2 else 3, action_size)
    start = np.tile(environment.initial(rng, 1), (len(noise), 1))
    return environment, policy, rollout(environment, policy, start, noise), weight, float(rng.uniform(0.5, 1))


def s11_direct_path(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E λ̂_1 plus the direct reward path against the linear-quadratic value gradient."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy, played, weight, discount = _all_noise(rng)
        empirical, direct = fixed_action_costates(environment, policy, played, discount)
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=played.reward.shape[1], discount=discount)
        expected = oracles.value_gradient(oracle, played.state[:1])[0, 0]
        worst = max(worst, _relative(weight @ (empirical + direct)[:, 0], expected))
    return Evidence(worst, CLOSED_FORM, f"relative error of E λ̂_1 + direct path over {examples} systems")


def s11_direct_reward() -> Counterexample:
    """First component of E λ̂_1 and of G_1 in a linear-quadratic system, whose reward sees the state."""
    environment, policy, played, weight, discount = _all_noise(np.random.default_rng(0))
    empirical, direct = fixed_action_costates(environment, policy, played, discount)
    claimed, gap = (float((weight @ part[:, 0])[0]) for part in (empirical, direct))
    return Counterexample(claimed, claimed + gap, 0.05, "E λ̂_1 against G_1 = E λ̂_1 + direct reward path")


def s12_per_step(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[R_t ∂log π(a_t|s_t)] = E[ā_θᵀ(r_a + γ f_aᵀ λ_{t+1})] for each t, by a grid that is exact for the integrand."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy, played, weight, discount = _all_noise(rng)
        returns = return_to_go(played.reward, discount=discount)
        pathwise = adjoint(environment, policy, played, discount=discount).action_gradient
        for t in range(returns.shape[1]):
            jacobian = policy.parameter_jacobian(policy.theta, played.state[:, t])
            score = -policy.noise.score(played.noise_draw[:, t]) * returns[:, t, None]
            left, right = (weight @ np.einsum("ba,bap->bp", c, jacobian) for c in (score, pathwise[:, t]))
            worst = max(worst, _relative(left, right))
    return Evidence(worst, CLOSED_FORM, f"relative difference of both sides over {examples} systems, each t")


def s12_myopic() -> Counterexample:
    """T = 2, s_2 = a_1, r = s: the terms E[r_t ∂log π(a_t|s_t)] of eq. 11 sum to 0, dJ/dθ = γ."""
    environment = _hand_made(
        lambda s, a: a, lambda s, a: s[:, 0], (0.0, 1.0, lambda s, a: np.ones_like(s), lambda s, a: np.zeros_like(a))
    )
    discount, policy = 0.9, linear_policy(np.zeros((1, 1)), np.array([0.4]))
    noise, weight = oracles.gauss_hermite_noise(3, 2, 1)
    played = rollout(environment, policy, np.zeros((len(noise), 1)), noise)
    terms = played.reward * np.array([1.0, discount]) * -policy.noise.score(played.noise_draw[..., 0])
    true = weight @ pathwise_gradient(environment, policy, played, discount=discount)
    return Counterexample(float(weight @ terms.sum(1)), float(true[1]), 0.5, "sum of eq. 11 over t against ∂J/∂bias")
