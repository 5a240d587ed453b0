from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import assert_close
from vgrad_lab import strategies
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import environments, noise, oracles, policies
from vgrad_lab.continuous.estimators import pathwise_gradient
from vgrad_lab.continuous.rollout import rollout, sample_rollout
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM


@given(strategies.linear_systems(max_state=3, max_action=1), strategies.discounts(), strategies.seeds())
def test_value_and_gradients_against_an_exact_grid(system: strategies.LinearSystem, discount: float, seed: int) -> None:
    rng, horizon = np.random.default_rng(seed), 3
    goal = rng.normal(size=len(system.A))
    environment = environments.linear_quadratic(system.A, system.B, system.Q, system.R, goal=goal)
    policy = policies.linear_policy(system.K, system.bias, noise=noise.gaussian(0.7))
    grid, weight = oracles.gauss_hermite_noise(3, horizon, 1, scale=0.7)
    start = np.tile(rng.normal(size=len(system.A)), (len(grid), 1))
    played = rollout(environment, policy, start, grid)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=horizon, discount=discount)
    value = oracles.value(oracle, played.state)
    expected = weight @ return_to_go(played.reward, discount=discount)[:, 0]
    assert abs(value[0, 0] - expected) <= CLOSED_FORM * max(1.0, abs(expected))
    assert not value[:, -1].any()
    found = oracles.parameter_gradient(oracle, start[:1])
    mean = weight @ pathwise_gradient(environment, policy, played, discount=discount)
    assert np.max(np.abs(found - mean)) <= CLOSED_FORM * max(1.0, float(np.max(np.abs(mean))))


@pytest.mark.parametrize("name", list(noise.NOISES))
def test_noise_enters_by_its_mean_and_variance_only(name: str) -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
    law = noise.NOISES[name](0.8)
    policy = policies.linear_policy(np.array([[0.2, -0.1]]), np.array([0.3]), noise=law)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=1)
    x, weight = law.quadrature(())
    start = np.tile([0.5, -1.0], (len(x), 1))
    played = rollout(environment, policy, start, x[:, None, None])
    assert abs(weight @ played.reward[:, 0] - oracles.value(oracle, played.state)[0, 0]) <= CLOSED_FORM


def test_value_gradient_is_the_slope_of_the_value() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(1), 3, 2)
    policy = policies.linear_policy(0.2 * np.ones((2, 3)), np.ones(2))
    played = sample_rollout(environment, policy, np.random.default_rng(2), batch=2, horizon=4)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=4, discount=0.9)
    for axis in range(3):
        unit = np.eye(3)[axis]
        slope = (oracles.value(oracle, played.state + unit) - oracles.value(oracle, played.state - unit)) / 2
        assert_close(oracles.value_gradient(oracle, played.state)[..., axis], slope, CLOSED_FORM)


def test_gauss_hermite_moments() -> None:
    grid, weight = oracles.gauss_hermite_noise(4, 2, 2, scale=1.5)
    assert grid.shape == (256, 2, 2)
    assert abs(weight.sum() - 1) <= ALGEBRA
    assert abs(weight @ grid[:, 0, 0] ** 2 * 4 / 9 - 1) <= ALGEBRA
    assert abs(weight @ grid[:, 1, 1] ** 6 - 15 * 1.5**6) <= CLOSED_FORM * 15 * 1.5**6


def test_oracle_refuses_what_is_not_linear_quadratic() -> None:
    rng = np.random.default_rng(0)
    linear, tanh = environments.random_linear_quadratic(rng, 2, 1), environments.random_tanh_network(rng, 2, 1)
    with pytest.raises(ValueError, match="linear-quadratic environment"):
        oracles.linear_quadratic_oracle(tanh, policies.linear_policy(np.zeros((1, 2))), horizon=2)
    bent = policies.tanh_policy(np.ones((3, 2)), np.zeros(3), np.ones((1, 3)))
    with pytest.raises(ValueError, match="needs a linear mean action"):
        oracles.linear_quadratic_oracle(linear, bent, horizon=2)
    with pytest.raises(ValueError, match="discount"):
        oracles.linear_quadratic_oracle(linear, policies.linear_policy(np.zeros((1, 2))), horizon=2, discount=2.0)


def test_a_fault_in_the_oracle_would_show() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(3), 2, 1)
    policy = policies.linear_policy(np.array([[0.3, 0.1]]))
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3)
    wrong = replace(oracle, P=oracle.P * 1.001)
    state = np.ones((1, 4, 2))
    with pytest.raises(AssertionError):
        assert_close(oracles.value_gradient(wrong, state), oracles.value_gradient(oracle, state), CLOSED_FORM)
