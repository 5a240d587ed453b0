"""S05: the exact pathwise parameter gradient, and what it leaves out when θ enters s_1 or r."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.continuous.systems import ENVIRONMENTS, Spec, assert_close, autograd, build, specs
from vgrad_lab import strategies, verify
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import environments, oracles, policies, systems
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.estimators import (
    extra_terms,
    mean_pathwise_gradient,
    pathwise_gradient,
    pathwise_terms,
    score_function_gradient,
)
from vgrad_lab.continuous.rollout import Rollout, rollout, sample_rollout
from vgrad_lab.experiments import verify_continuous as checks
from vgrad_lab.experiments import verify_continuous_theta as shared
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE


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


TERMS = ("dynamics", "reward", "initial_state")


@settings(max_examples=50)
@given(strategies.seeds())
def test_all_terms_are_the_true_derivative(seed: int) -> None:
    assert shared.s05_terms(seed=seed, examples=4).passed


def shared_system(seed: int) -> tuple[environments.Environment, policies.ShiftPolicy, Rollout, np.ndarray]:
    """A shared point mass, its rollout of six steps, and ∂R_1/∂θ by complex steps; γ = 0.9."""
    environment, policy = shared.draw_shared(np.random.default_rng(seed))
    noise = np.random.default_rng(seed).normal(size=(2, 6, 1))
    start = environment.initial(np.random.default_rng(seed), 2)
    truth = shared.frozen_return(environment, policy, seed, noise, 0.9)
    return environment, policy, rollout(environment, policy, start, noise), truth


@given(strategies.seeds())
def test_equation_7_is_off_by_the_missing_terms(seed: int) -> None:
    environment, policy, played, truth = shared_system(seed)
    terms = pathwise_terms(environment, policy, played, discount=0.9)
    assert_close(terms.equation_7 + terms.reward + terms.initial_state, truth, ALGEBRA)
    assert_close(pathwise_gradient(environment, policy, played, discount=0.9), truth, ALGEBRA)
    mean, costates = mean_pathwise_gradient(environment, policy, played, discount=0.9)
    assert_close(mean, truth.mean(0), 100 * ALGEBRA)
    assert np.array_equal(costates, terms.costate)
    for name in (*TERMS, "policy"):  # each is needed, and each is seen at the size of the planted fault
        part = getattr(terms, name)
        assert np.max(np.abs(part)) > 1e-6
        with pytest.raises(AssertionError, match="relative error"):
            assert_close(terms.total + PLANTED_FAULT * part, truth, ALGEBRA)


def test_terms_are_zero_where_theta_does_not_enter() -> None:
    environment, policy, played, _ = shared_system(0)
    plain = replace(environment, parameters=None)
    terms = pathwise_terms(plain, policy, played, discount=0.9)
    assert not any(getattr(terms, name).any() for name in TERMS)
    assert np.array_equal(terms.total, pathwise_gradient(plain, policy, played, discount=0.9))
    for name, field in zip(TERMS, ("transition", "reward", "initial_state"), strict=True):
        less = replace(environment, parameters=replace(environment.parameters, **{field: None}))
        found = pathwise_terms(less, policy, played, discount=0.9)
        assert not getattr(found, name).any()
        full = pathwise_terms(environment, policy, played, discount=0.9)
        assert_close(found.total + getattr(full, name), full.total, ALGEBRA)


@pytest.mark.parametrize("seed", range(6))
def test_shared_taylor_rate_is_two(seed: int) -> None:
    """R_1 of plain rollouts in environments made from θ, the generator's draws the same: no complex numbers."""
    environment, policy, played, _ = shared_system(seed)

    def total(theta: np.ndarray) -> np.ndarray:
        moved = environment.parameters.at(theta)
        start = moved.initial(np.random.default_rng(seed), 2)
        again = rollout(moved, replace(policy, theta=theta), start, played.noise_draw)
        return return_to_go(again.reward, discount=0.9)[:1, 0]

    slope = pathwise_gradient(environment, policy, played, discount=0.9)[:1]
    direction = np.sign(slope[0])
    rates = verify.taylor_rates(total, lambda _: slope, policy.theta, direction, step=1e-3)
    assert np.all(np.abs(rates - 2) <= TAYLOR_RATE)
    for name in (*TERMS, "policy"):
        part = getattr(pathwise_terms(environment, policy, played, discount=0.9), name)[:1]
        wrong = verify.taylor_rates(
            total, lambda _, p=part: slope + PLANTED_FAULT * p, policy.theta, np.sign(part[0]), step=1e-6, halvings=2
        )
        assert np.all(np.abs(wrong - 1) <= TAYLOR_RATE)


def test_mean_return_by_differences() -> None:
    """∂J/∂θ, J = E R_1 over all action noise on an exact grid; scores need the same terms, as they do not see them."""
    rng, discount = np.random.default_rng(3), 0.9
    policy = policies.linear_policy(0.3 * rng.normal(size=(1, 2)), rng.normal(size=1))
    count = len(policy.theta)
    environment = systems.shared_point_mass(
        policy.theta, gain=rng.normal(size=count), price=rng.normal(size=count), start=rng.normal(size=(2, count))
    )
    noise, weight = oracles.gauss_hermite_noise(4, 4, 1)

    def start(made: environments.Environment) -> np.ndarray:
        return np.tile(made.initial(np.random.default_rng(0), 1), (len(noise), 1))

    def mean_return(thetas: np.ndarray) -> np.ndarray:
        made = [environment.parameters.at(theta) for theta in thetas]
        moved = [rollout(e, replace(policy, theta=t), start(e), noise) for e, t in zip(made, thetas, strict=True)]
        return np.array([weight @ return_to_go(m.reward, discount=discount)[:, 0] for m in moved])

    truth = verify.difference_quotients(mean_return, policy.theta[None], step=1e-2)[0]
    played = rollout(environment, policy, start(environment), noise)
    terms = pathwise_terms(environment, policy, played, discount=discount)
    scale = np.max(np.abs(truth))
    assert np.max(np.abs(weight @ terms.total - truth)) <= 100 * QUADRATURE * scale  # differences of order 4
    scores = score_function_gradient(environment, policy, played, discount=discount)
    repaired = weight @ (scores + terms.dynamics + terms.reward + terms.initial_state)
    assert np.max(np.abs(repaired - weight @ terms.total)) <= QUADRATURE * scale
    for short in (terms.equation_7, terms.policy, scores):
        assert np.max(np.abs(weight @ short - truth)) > 0.05 * scale


def test_another_theta_or_a_wrong_shape_is_refused() -> None:
    environment, policy, played, _ = shared_system(0)
    moved = replace(policy, theta=policy.theta + 0.1)
    with pytest.raises(ValueError, match=r"another θ than the policy's.*parameters.at\(policy.theta\)"):
        pathwise_gradient(environment, moved, played)
    right = environment.parameters
    for name in ("initial_state", "transition", "reward"):
        function = getattr(right, name)
        turned = replace(right, **{name: lambda *x, f=function: np.swapaxes(f(*x), 0, -1)})
        with pytest.raises(ValueError, match=rf"parameters.{name} gives shape .*, expected .*check_environment"):
            pathwise_gradient(replace(environment, parameters=turned), policy, played)
