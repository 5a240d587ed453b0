"""S05: the exact pathwise parameter gradient, and what it leaves out when θ enters s_1 or r."""

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import ENVIRONMENTS, Spec, assert_close, autograd, build, specs
from vgrad_lab import strategies, verify
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import environments, policies
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.estimators import extra_terms, pathwise_gradient
from vgrad_lab.continuous.rollout import rollout, sample_rollout
from vgrad_lab.experiments import verify_continuous as checks
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE


@given(specs())
def test_gradient_equals_autograd(spec: Spec) -> None:
    system = build(spec)
    _, expected = autograd(system)
    found = pathwise_gradient(system.environment, system.policy, system.rollout, discount=system.discount)
    assert_close(found, expected, ALGEBRA)


def rates(spec: Spec, fault: float, step: float) -> np.ndarray:
    system = build(spec)
    environment, policy, played = system.environment, system.policy, system.rollout

    def total(theta: np.ndarray) -> np.ndarray:
        moved = rollout(
            environment, policies.from_map(policy.mean_map(theta), policy.noise), played.state[:, 0], played.noise_draw
        )
        return return_to_go(moved.reward, discount=system.discount)[0, :1]

    slope = pathwise_gradient(environment, policy, played, discount=system.discount)[:1] * (1 + fault)
    return verify.taylor_rates(total, lambda _: slope, policy.theta, np.ones(len(policy.theta)), step=step)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("mean", ["linear", "tanh"])
def test_taylor_rate_is_two(environment: str, mean: str) -> None:
    for seed in range(3):
        spec = Spec(strategies.RolloutShape(1, 5, 3, 2), environment, mean, 0.9, seed)
        assert np.all(np.abs(rates(spec, 0.0, 1e-3) - 2) <= TAYLOR_RATE)
        assert abs(rates(spec, PLANTED_FAULT, 1e-5)[-1] - 1) <= TAYLOR_RATE


@given(strategies.seeds())
def test_extra_terms(seed: int) -> None:
    assert checks.s05_extra(seed=seed, examples=2).passed


def test_each_assumption_is_needed() -> None:
    found = checks.s05_initial_state()  # θ in s_1
    assert found.refutes
    assert (found.claimed, found.true) == (0.0, 1.0)
    # θ in r: r = −s² − a² + θ, which moves every reward by θ while nothing in eq. 7 sees it.
    environment = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
    policy = policies.linear_policy(np.zeros((1, 2)))
    played = sample_rollout(environment, policy, np.random.default_rng(1), batch=2, horizon=4)
    missing = extra_terms(
        played, costate(environment, policy, played), discount=0.5, reward=np.ones((*played.reward.shape, 1))
    )
    assert_close(missing, np.full((2, 1), 1.875), ALGEBRA)  # Σ γ^{t−1}
