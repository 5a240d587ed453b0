"""S11: the quantity that a score-function backward pass propagates, and the direct reward path it misses."""

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.continuous import environments, oracles, policies
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.experiments import verify_continuous as checks
from vgrad_lab.tolerances import CLOSED_FORM


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.s11_direct_path(seed=seed, examples=2).passed


def test_counterexample() -> None:
    assert checks.s11_direct_reward().refutes


def test_reward_of_actions_only() -> None:
    """Q = 0: no direct path, and E λ̂_1 alone is the value gradient."""
    rng = np.random.default_rng(0)
    base = environments.random_linear_quadratic(rng, 3, 1).dynamics.inner
    environment = environments.linear_quadratic(base[:, :3], base[:, 3:], np.zeros((3, 3)), np.eye(1))
    policy = policies.linear_policy(0.3 * rng.normal(size=(1, 3)), rng.normal(size=1))
    noise, weight = oracles.gauss_hermite_noise(4, 3, 1)
    played = rollout(environment, policy, np.tile(rng.normal(size=(1, 3)), (len(noise), 1)), noise)
    empirical, direct = checks.fixed_action_costates(environment, policy, played, 0.9)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3, discount=0.9)
    expected = oracles.value_gradient(oracle, played.state)[0, 0]
    assert not direct.any()
    assert np.max(np.abs(weight @ empirical[:, 0] - expected)) <= CLOSED_FORM * np.max(np.abs(expected))
    assert np.max(np.abs(expected)) > 0.01
