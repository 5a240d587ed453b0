"""S07: the mean costate is the value gradient."""

import numpy as np
from hypothesis import given, settings

from vgrad_lab import strategies
from vgrad_lab.continuous import environments, oracles, policies
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.experiments import verify_continuous as checks
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT


@settings(max_examples=200)
@given(strategies.linear_systems(max_state=8), strategies.discounts(), strategies.seeds())
def test_antithetic_pair_is_exact(system: strategies.LinearSystem, discount: float, seed: int) -> None:
    rng, horizon = np.random.default_rng(seed), 1 + seed % 16
    environment = environments.linear_quadratic(system.A, system.B, system.Q, system.R)
    policy = policies.linear_policy(system.K, system.bias)
    noise = rng.normal(size=(1, horizon, system.B.shape[1]))
    start = np.tile(rng.normal(size=(1, len(system.A))), (2, 1))
    played = rollout(environment, policy, start, np.concatenate([noise, -noise]))
    mean = costate(environment, policy, played, discount=discount)[:, 0].mean(0)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=horizon, discount=discount)
    expected = oracles.value_gradient(oracle, played.state)[0, 0]
    scale = max(1.0, float(np.max(np.abs(expected))))
    assert np.max(np.abs(mean - expected)) <= ALGEBRA * scale
    if np.max(np.abs(expected)) > 0.1:
        assert np.max(np.abs(mean * (1 + PLANTED_FAULT) - expected)) > ALGEBRA * scale


@settings(max_examples=50)
@given(strategies.seeds())
def test_evidence(seed: int) -> None:
    assert checks.s07_value_gradient(seed=seed, examples=4).passed


def test_noise_that_knows_the_state() -> None:
    found = checks.s07_dependent_noise()
    assert found.refutes
    assert abs(found.claimed - 1) < 1e-9
    assert abs(found.true - 2) < 1e-6
