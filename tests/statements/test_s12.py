"""S12: the score-function update equals the adjoint update in expectation, step by step."""

import numpy as np
from hypothesis import given, settings

from vgrad_lab import strategies
from vgrad_lab.continuous import environments, noise, oracles, policies
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.estimators import extra_terms, pathwise_gradient, score_function_gradient
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.experiments import verify_continuous as checks
from vgrad_lab.tolerances import CLOSED_FORM, QUADRATURE


@settings(max_examples=50)
@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.s12_per_step(seed=seed, examples=4).passed


def test_both_estimators_have_the_same_mean_in_a_bounded_network() -> None:
    rng = np.random.default_rng(0)
    environment = environments.random_tanh_network(rng, 2, 1)
    policy = policies.linear_policy(0.3 * rng.normal(size=(1, 2)), rng.normal(size=1), noise=noise.gaussian(0.4))
    grid, weight = oracles.gauss_hermite_noise(40, 2, 1, scale=0.4)
    played = rollout(environment, policy, np.tile(rng.normal(size=(1, 2)), (len(grid), 1)), grid)
    score, pathwise = (
        weight @ estimate(environment, policy, played, discount=0.9)
        for estimate in (score_function_gradient, pathwise_gradient)
    )
    assert np.max(np.abs(score - pathwise)) <= QUADRATURE
    assert np.max(np.abs(pathwise)) > 0.01


def test_uniform_noise_breaks_it() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(1), 1, 1)
    policy = policies.linear_policy(np.array([[0.2]]), np.array([0.4]), noise=noise.uniform(1.0))
    x, weight = policy.noise.quadrature(())
    played = rollout(environment, policy, np.full((len(x), 1), 0.7), x[:, None, None])
    assert not score_function_gradient(environment, policy, played).any()
    assert np.max(np.abs(weight @ pathwise_gradient(environment, policy, played))) > 0.1


def test_dynamics_that_know_theta_break_it() -> None:
    """s' = As + Ba + θ: the scores of the policy cannot see θ in f; Σ γ^t f_θᵀ λ_{t+1} restores ∂J/∂θ."""
    rng = np.random.default_rng(2)
    system = environments.random_linear_quadratic(rng, 2, 1)
    policy = policies.linear_policy(0.3 * rng.normal(size=(1, 2)))
    grid, weight = oracles.gauss_hermite_noise(3, 3, 1)
    start = np.tile(rng.normal(size=(1, 2)), (len(grid), 1))

    def pushed(theta: float) -> environments.Environment:
        shifted = environments.Map(system.dynamics.inner, np.array([theta, 0.0]))
        return environments.from_arrays(shifted, system.payoff)

    def mean_return(theta: float) -> float:
        reward = rollout(pushed(theta), policy, start, grid).reward
        return float(weight @ (reward @ 0.9 ** np.arange(3)))

    truth = (mean_return(0.5) - mean_return(-0.5)) / 1.0  # J is quadratic in θ
    played = rollout(pushed(0.0), policy, start, grid)
    push = np.tile(np.array([[1.0], [0.0]]), (len(grid), 3, 1, 1))
    costates = costate(pushed(0.0), policy, played, discount=0.9)
    restored = weight @ extra_terms(played, costates, discount=0.9, dynamics=push)[:, 0]
    assert abs(truth) > 0.01  # the policy's own scores give no component for this θ at all
    assert abs(restored - truth) <= CLOSED_FORM * abs(truth)


def test_counterexample() -> None:
    found = checks.s12_myopic()
    assert found.refutes
    assert abs(found.claimed) < 1e-12
    assert abs(found.true - 0.9) < 1e-12
