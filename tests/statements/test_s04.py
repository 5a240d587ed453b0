"""S04: the adjoint recursion gives ∂R_t/∂s_t along every differentiable rollout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.continuous.systems import ENVIRONMENTS, Spec, assert_close, autograd, build, by_functions, specs
from vgrad_lab import strategies, verify
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import strategies as kit
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.estimators import pathwise_terms
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.experiments import verify_continuous as checks
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE


@given(specs())
def test_costates_equal_autograd(spec: Spec) -> None:
    system = build(spec)
    expected, _ = autograd(system)
    found = costate(system.environment, system.policy, system.rollout, discount=system.discount)
    assert_close(found[:, :-1], expected, ALGEBRA)
    assert not found[:, -1].any()


@settings(max_examples=200)
@given(kit.rollouts(), strategies.discounts())
def test_every_environment_and_noise(system: kit.System, discount: float) -> None:
    """λ_1 and ∂R_1/∂θ with the environment held, by complex steps, S ≤ 8 and T ≤ 16; a planted fault shows."""
    environment, policy, played = system
    start, noise = played.state[:, 0], played.noise_draw
    by_state, by_theta = checks.complex_step(environment, policy, start, noise, discount)
    found = costate(*system, discount=discount)[:, 0]
    gradient = pathwise_terms(*system, discount=discount).policy
    for value, expected in ((found, by_state), (gradient, by_theta)):
        size = float(np.max(np.abs(expected)))
        assert np.max(np.abs(value - expected)) <= ALGEBRA * max(1.0, size)
        if size > 0.1:
            assert np.max(np.abs(value * (1 + PLANTED_FAULT) - expected)) > ALGEBRA * max(1.0, size)


@given(specs())
def test_recursion_holds_at_each_step(spec: Spec) -> None:
    """λ_t of a rollout is λ_1 of the rollout that starts at s_t."""
    system = build(spec)
    played, t = system.rollout, spec.shape.horizon // 2
    later = rollout(system.environment, system.policy, played.state[:, t], played.noise_draw[:, t:])
    found, expected = (costate(system.environment, system.policy, r, discount=system.discount) for r in (played, later))
    assert_close(found[:, t:], expected, ALGEBRA)


def rates(spec: Spec, fault: float, step: float) -> np.ndarray:
    system = build(spec)
    environment, policy, played = system.environment, system.policy, system.rollout

    def total(state: np.ndarray) -> np.ndarray:
        moved = rollout(environment, policy, state[None], played.noise_draw[:1])
        return return_to_go(moved.reward, discount=system.discount)[0, :1]

    slope = costate(environment, policy, played, discount=system.discount)[:1, 0] * (1 + fault)
    return verify.taylor_rates(total, lambda _: slope, played.state[0, 0], np.ones(spec.shape.state_size), step=step)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("mean", ["linear", "tanh"])
def test_taylor_rate_is_two(environment: str, mean: str) -> None:
    for seed in range(3):
        spec = Spec(strategies.RolloutShape(1, 5, 3, 2), environment, mean, 0.9, seed)
        assert np.all(np.abs(rates(spec, 0.0, 1e-3) - 2) <= TAYLOR_RATE)
        assert abs(rates(spec, PLANTED_FAULT, 1e-5)[-1] - 1) <= TAYLOR_RATE


def test_planted_fault_in_one_jacobian_entry_is_seen() -> None:
    spec = Spec(strategies.RolloutShape(2, 4, 3, 2), "tanh", "linear", 0.9, 0)
    system = build(spec)
    plain = by_functions(system.environment)
    right = plain.jacobians.transition_state

    def wrong(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        out = right(state, action).copy()
        out[:, 1, 0] *= 1 + PLANTED_FAULT
        return out

    faulty = replace(plain, jacobians=replace(plain.jacobians, transition_state=wrong))
    expected, _ = autograd(system)
    assert_close(costate(plain, system.policy, system.rollout, discount=0.9)[:, :-1], expected, ALGEBRA)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(costate(faulty, system.policy, system.rollout, discount=0.9)[:, :-1], expected, ALGEBRA)
    with pytest.raises(AssertionError, match=r"jacobians.transition_state\[1, 0\]"):
        verify.check_environment(faulty)


@settings(max_examples=50)
@given(strategies.seeds())
def test_evidence(seed: int) -> None:
    assert checks.s04_adjoint(seed=seed, examples=1).passed
