"""S01: when differentiation and expectation commute."""

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.continuous import environments, oracles, policies
from vgrad_lab.continuous.estimators import pathwise_gradient
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.experiments import verify_continuous_one_step as checks
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT


@given(strategies.seeds())
def test_interchange_holds(seed: int) -> None:
    assert checks.s01_interchange(seed=seed, examples=2).passed


def test_counterexample() -> None:
    found = checks.s01_gelbaum_olmsted()
    assert found.refutes
    assert abs(found.claimed) < 1e-3
    assert abs(found.true - 1) < 1e-6


def test_without_a_fixed_noise_law_it_fails() -> None:
    """ξ ~ N(θ, 1) and a = ξ: no path moves with θ, while J = −E a² does; the law of the noise may not know θ."""
    environment = environments.linear_quadratic(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))
    grid, weight = oracles.gauss_hermite_noise(3, 1, 1)
    zero = policies.linear_policy(np.zeros((1, 1)))

    def mean_reward(theta: float) -> float:
        return float(weight @ rollout(environment, zero, np.zeros((3, 1)), grid + theta).reward[:, 0])

    truth = (mean_reward(0.4 + 1e-3) - mean_reward(0.4 - 1e-3)) / 2e-3
    moved_by_path = 0.0  # ∂a/∂θ at fixed ξ, as nothing but the noise's law holds θ
    assert abs(truth + 0.8) < 1e-9
    assert abs(moved_by_path - truth) > 0.5
    # With the same shift in the mean action instead, both agree.
    policy = policies.linear_policy(np.zeros((1, 1)), np.array([0.4]))
    found = weight @ pathwise_gradient(environment, policy, rollout(environment, policy, np.zeros((3, 1)), grid))
    assert abs(found[1] - truth) < 1e-9


def test_planted_fault_is_seen() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
    policy = policies.linear_policy(np.array([[0.2, 0.1]]))
    grid, weight = oracles.gauss_hermite_noise(3, 3, 1)
    played = rollout(environment, policy, np.ones((len(grid), 2)), grid)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3)
    expected = oracles.parameter_gradient(oracle, np.ones((1, 2)))
    found = weight @ pathwise_gradient(environment, policy, played)
    scale = np.max(np.abs(expected))
    assert np.max(np.abs(found - expected)) <= CLOSED_FORM * scale
    assert np.max(np.abs(found * (1 + PLANTED_FAULT) - expected)) > CLOSED_FORM * scale
