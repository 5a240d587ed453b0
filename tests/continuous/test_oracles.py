from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import assert_close
from tests.helpers import whole
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


LINEAR = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
TANH = environments.random_tanh_network(np.random.default_rng(0), 2, 1)
FLAT, BENT = (
    policies.linear_policy(np.zeros((1, 2))),
    policies.tanh_policy(np.ones((3, 2)), np.zeros(3), np.ones((1, 3))),
)
NEEDS = "the oracle needs a linear-quadratic environment; build one with linear_quadratic(A, B, Q, R)"
MEAN = "the oracle needs a linear mean action; build the policy with linear_policy(K, bias)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda e=e: oracles.linear_quadratic_oracle(e, FLAT, horizon=2), NEEDS)
            for e in (
                TANH,
                replace(LINEAR, dynamics=None),
                replace(LINEAR, payoff=None),
                replace(LINEAR, payoff=replace(LINEAR.payoff, exponential=True)),
            )
        ),
        *(
            (lambda p=p: oracles.linear_quadratic_oracle(LINEAR, p, horizon=2), MEAN)
            for p in (BENT, replace(FLAT, mean_map=None))
        ),
        (
            lambda: oracles.linear_quadratic_oracle(LINEAR, FLAT, horizon=2, discount=2.0),
            "discount must lie in [0, 1], got 2.0",
        ),
        (lambda: oracles.linear_quadratic_oracle(LINEAR, FLAT, horizon=0), "horizon must be at least 1, got 0"),
        (lambda: oracles.gauss_hermite_noise(3, 0, 1), "horizon and action_size must be at least 1, got 0 and 1"),
        (lambda: oracles.gauss_hermite_noise(3, 1, 0), "horizon and action_size must be at least 1, got 1 and 0"),
        (
            lambda: oracles.gauss_hermite_noise(0, 3, 2),
            "order 0 over 3·2 noise numbers asks for 0 sequences; stay in 1…10⁶",
        ),
        (
            lambda: oracles.gauss_hermite_noise(101, 3, 1),
            "order 101 over 3·1 noise numbers asks for 1030301 sequences; stay in 1…10⁶",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def test_the_least_and_the_largest_grid() -> None:
    draws, weight = oracles.gauss_hermite_noise(1, 1, 2)
    assert draws.tolist() == [[[0.0, 0.0]]]
    assert weight.tolist() == [1.0]
    assert len(oracles.gauss_hermite_noise(10, 6, 1)[1]) == 10**6
    assert oracles.gauss_hermite_noise(2, 1, 1)[0].ravel() == pytest.approx([-1.0, 1.0])


def test_one_step_by_hand() -> None:
    """s' = 2s + 3a, r = −(5s² + 7a²), a = s/2 + ξ with variance 4: one step and two, without and with discount."""
    one = np.eye(1)
    environment = environments.linear_quadratic(2 * one, 3 * one, 5 * one, 7 * one)
    policy = policies.linear_policy(one / 2, noise=noise.gaussian(2.0))
    now = oracles.linear_quadratic_oracle(environment, policy, horizon=1)
    assert now.discount == 1.0
    assert now.P[0, 0, 0] == pytest.approx(5 + 7 / 4)
    assert now.c.tolist() == [28.0, 0.0]
    two = oracles.linear_quadratic_oracle(environment, policy, horizon=2, discount=0.5)
    assert two.P[0, 0, 0] == pytest.approx((5 + 7 / 4) * (1 + 0.5 * 3.5**2))
    assert two.c[0] == pytest.approx(28 + 0.5 * 4 * 9 * 6.75 + 0.5 * 28)


def test_a_fault_in_the_oracle_would_show() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(3), 2, 1)
    policy = policies.linear_policy(np.array([[0.3, 0.1]]))
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3)
    wrong = replace(oracle, P=oracle.P * 1.001)
    state = np.ones((1, 4, 2))
    with pytest.raises(AssertionError):
        assert_close(oracles.value_gradient(wrong, state), oracles.value_gradient(oracle, state), CLOSED_FORM)
