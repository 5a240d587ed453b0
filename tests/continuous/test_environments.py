"""The named environments: Jacobians, costates against autograd, and a closed form of the bandit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.continuous.systems import assert_close
from tests.helpers import unchecked
from vgrad_lab import strategies, verify
from vgrad_lab.continuous import policies, systems
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.estimators import pathwise_gradient, score_function_gradient
from vgrad_lab.continuous.noise_vector import gaussian_vector
from vgrad_lab.continuous.oracles import gauss_hermite_noise
from vgrad_lab.continuous.rollout import rollout, sample_rollout
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE

TARGET = np.array([[0.6, -0.3, 0.2], [0.1, 0.4, -0.5]])
MAKERS: dict[str, Callable[[], Environment]] = {
    "bandit": lambda: systems.bandit(TARGET, width=0.8),
    "pendulum": systems.pendulum,
    "obstacle": systems.obstacle,
}
NAMES = st.sampled_from(list(MAKERS))


def torch_bandit(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    miss = a - s @ torch.tensor(TARGET).T
    return s, torch.exp(-(miss**2).sum(1) / (2 * 0.8**2))


def torch_pendulum(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    reward = s[:, 0] - 1 - 0.01 * s[:, 2] ** 2 - 0.01 * a[:, 0] ** 2
    speed = 0.9 * s[:, 2] + 0.05 * (10 * s[:, 1] + 4 * a[:, 0])
    angle = torch.atan2(s[:, 1], s[:, 0]) + 0.05 * speed
    length = torch.hypot(s[:, 0], s[:, 1])
    return torch.stack([length * torch.cos(angle), length * torch.sin(angle), speed], 1), reward


def torch_obstacle(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    p, v = s[:, :2], s[:, 2:]
    hill = 2 * torch.exp(-((p - torch.tensor([0.0, 0.1], dtype=torch.float64)) ** 2).sum(1) / (2 * 0.09))
    cost = ((p - torch.tensor([1.0, 0.0])) ** 2).sum(1) + 0.1 * (v**2).sum(1) + 0.05 * (a**2).sum(1)
    return torch.cat([p + 0.1 * v, v + 0.1 * a], 1), -cost - hill


TORCH = {"bandit": torch_bandit, "pendulum": torch_pendulum, "obstacle": torch_obstacle}


@given(NAMES, strategies.seeds())
def test_jacobians(name: str, seed: int) -> None:
    errors = verify.check_environment(MAKERS[name](), seed=seed)
    assert set(errors) == {"transition_state", "transition_action", "reward_state", "reward_action"}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("which", ["transition_state", "transition_action", "reward_state", "reward_action"])
def test_planted_fault_in_a_jacobian_is_seen(name: str, which: str) -> None:
    environment = MAKERS[name]()
    right = getattr(environment.jacobians, which)
    wrong = replace(environment.jacobians, **{which: lambda s, a: right(s, a) * (1 + PLANTED_FAULT)})
    if (name, which) == ("bandit", "transition_action"):  # zero: 0.1 % of it is no fault, so plant one beside it
        wrong = replace(wrong, transition_action=lambda s, a: right(s, a) + PLANTED_FAULT)
    with pytest.raises(AssertionError, match=rf"jacobians\.{which}\["):
        verify.check_environment(replace(environment, jacobians=wrong))


@given(NAMES, strategies.rollout_shapes(), strategies.discounts(), strategies.seeds())
def test_rollout_and_costates_are_those_of_autograd(
    name: str, shape: strategies.RolloutShape, discount: float, seed: int
) -> None:
    environment, rng = MAKERS[name](), np.random.default_rng(seed)
    size, action_size = environment.state_size, environment.action_size
    gain, bias = 0.3 * rng.normal(size=(action_size, size)), rng.normal(size=action_size)
    policy = policies.linear_policy(gain, bias)
    played = sample_rollout(environment, policy, rng, batch=shape.batch, horizon=shape.horizon)
    states, rewards = [torch.tensor(played.state[:, 0].copy(), requires_grad=True)], []
    for t in range(shape.horizon):
        action = states[t] @ torch.tensor(gain).T + torch.tensor(bias) + torch.tensor(played.noise_draw[:, t].copy())
        following, reward = TORCH[name](states[t], action)
        states.append(following if following is not states[t] else following.clone())
        rewards.append(reward)
    assert_close(played.state, torch.stack(states, 1).detach().numpy(), ALGEBRA)
    assert_close(played.reward, torch.stack(rewards, 1).detach().numpy(), ALGEBRA)
    found = costate(environment, policy, played, discount=discount)
    expected = []
    for t in range(shape.horizon):
        to_go = sum(discount ** (k - t) * rewards[k].sum() for k in range(t, shape.horizon))
        expected.append(torch.autograd.grad(to_go, states[t], retain_graph=True)[0].numpy())
    assert_close(found[:, :-1], np.stack(expected, 1), ALGEBRA)


@pytest.mark.parametrize("name", MAKERS)
def test_costates_are_slopes_of_the_return(name: str) -> None:
    """λ_1 by Taylor rate in s_1, the noise held: no second implementation is trusted."""
    environment, rng = MAKERS[name](), np.random.default_rng(0)
    policy = policies.linear_policy(0.3 * rng.normal(size=(environment.action_size, environment.state_size)))
    start, noise = environment.initial(rng, 1), rng.normal(size=(1, 6, environment.action_size))

    def total(s: np.ndarray) -> np.ndarray:
        return rollout(environment, policy, s, noise).reward.sum(1)

    for factor, rate, step in ((1.0, 2, 1e-2), (1 + PLANTED_FAULT, 1, 1e-6)):
        slope = factor * costate(environment, policy, rollout(environment, policy, start, noise))[:, 0]
        direction = np.sign(slope) + (slope == 0)  # so that slope·direction is not small
        rates = verify.taylor_rates(total, lambda s, x=slope: x[None], start, direction, step=step)
        assert np.all(np.abs(rates[-2:] - rate) <= TAYLOR_RATE) if rate == 2 else abs(rates[0] - 1) <= TAYLOR_RATE


@given(strategies.grid_arrays((2, 3)), strategies.grid_arrays(2), strategies.grid_arrays(3))
def test_bandit_in_closed_form(gain: np.ndarray, bias: np.ndarray, state: np.ndarray) -> None:
    """a ~ N(m, I), m = Ks + b: E r = Π √(w²/(w²+1)) exp(−e²/(2(w²+1))), e = m − Ms; both estimators give its slope."""
    environment, policy = systems.bandit(TARGET, width=2.0), policies.linear_policy(gain, bias)
    noise, weight = gauss_hermite_noise(40, 1, 2)
    played = rollout(environment, policy, np.tile(state, (len(noise), 1)), noise)
    error = gain @ state + bias - TARGET @ state
    value = 4 / 5 * np.exp(-error @ error / 10)
    assert abs(weight @ played.reward[:, 0] - value) <= QUADRATURE
    by_bias = -error / 5 * value
    expected = np.concatenate([np.outer(by_bias, state).ravel(), by_bias])
    for estimator in (pathwise_gradient, score_function_gradient):
        assert np.max(np.abs(weight @ estimator(environment, policy, played) - expected)) <= QUADRATURE


def test_bandit_under_correlated_noise() -> None:
    """A whole-action Gaussian: −E[r ∇log ν] = E[∇r] = ∂_m E r, with C/(C + w²I) in the place of 1/(1 + w²)."""
    environment, covariance = systems.bandit(TARGET, width=2.0), np.array([[1.0, 0.6], [0.6, 0.8]])
    noise, state, mean = gaussian_vector(covariance), np.array([[0.4, -0.2, 0.9]]), np.array([0.3, -0.5])
    x, weight = noise.quadrature(40)
    states = np.tile(state, (len(x), 1))
    reward, slope = environment.reward(states, mean + x), environment.jacobians.reward_action(states, mean + x)
    wide, error = covariance + 4 * np.eye(2), mean - TARGET @ state[0]
    value = 4 / np.sqrt(np.linalg.det(wide)) * np.exp(-0.5 * error @ np.linalg.solve(wide, error))
    truth = -np.linalg.solve(wide, error) * value
    assert abs(weight @ reward - value) <= QUADRATURE
    assert np.max(np.abs(-(weight * reward) @ noise.score(x) - truth)) <= QUADRATURE
    assert np.max(np.abs(weight @ slope - truth)) <= QUADRATURE


def test_pendulum_stays_on_the_circle_and_hangs_at_rest() -> None:
    environment, policy = systems.pendulum(), policies.linear_policy(np.zeros((1, 3)))
    played = sample_rollout(environment, policy, np.random.default_rng(0), batch=5, horizon=100)
    assert np.max(np.abs(np.hypot(played.state[..., 0], played.state[..., 1]) - 1)) <= ALGEBRA
    for angle in (0.0, np.pi):
        rest = np.array([[np.cos(angle), np.sin(angle), 0.0]])
        assert np.max(np.abs(environment.transition(rest, np.zeros((1, 1))) - rest)) <= ALGEBRA
    assert environment.reward(np.array([[1.0, 0.0, 0.0]]), np.zeros((1, 1)))[0] == 0


def test_bad_numbers() -> None:
    for make, message in (
        (lambda: unchecked(systems.bandit)(np.zeros(3)), r"target has shape \(3,\), expected \(A, S\)"),
        (lambda: systems.bandit(TARGET * np.nan), "finite numbers"),
        (lambda: systems.bandit(TARGET, width=0.0), "width must be a positive number, got 0.0"),
        (lambda: systems.pendulum(damping=1.0), r"damping must lie in \(0, 1\), got 1.0"),
        (lambda: systems.pendulum(torque=-1.0), "torque must be a positive number"),
        (lambda: systems.obstacle(radius=float("nan")), "radius must be a positive number, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def shared_point_mass(seed: int = 0) -> Environment:
    rng = np.random.default_rng(seed)
    gain, price, start = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(2, 3))
    return systems.shared_point_mass(rng.normal(size=3), gain=gain, price=price, start=start)


@settings(max_examples=15)
@given(strategies.seeds())
def test_shared_point_mass(seed: int) -> None:
    errors = verify.check_environment(shared_point_mass(seed), seed=seed % 100)
    assert {"parameters.initial_state", "parameters.transition", "parameters.reward"} < set(errors)
    assert max(errors.values()) < 1e-7
    assert max(verify.check_environment(systems.shared_point_mass(np.zeros(2)), seed=seed % 100).values()) < 1e-9


@pytest.mark.parametrize(("which", "entry"), [("initial_state", (1, 2)), ("transition", (1, 0)), ("reward", (1,))])
def test_planted_fault_in_a_jacobian_of_theta_is_seen(which: str, entry: tuple[int, ...]) -> None:
    environment = shared_point_mass()
    right = getattr(environment.parameters, which)

    def wrong(*x: np.ndarray) -> np.ndarray:
        out = np.array(right(*x))
        out[(slice(None), *entry)] *= 1 + PLANTED_FAULT
        return out

    faulty = replace(environment, parameters=replace(environment.parameters, **{which: wrong}))
    with pytest.raises(AssertionError, match=rf"parameters\.{which}\[{', '.join(map(str, entry))}\] is"):
        verify.check_environment(faulty)
    missing = replace(environment, parameters=replace(environment.parameters, **{which: None}))
    with pytest.raises(AssertionError, match=rf"parameters\.{which} is None, which says zero: it\["):
        verify.check_environment(missing)


def test_parameters_of_another_environment_are_refused() -> None:
    environment = shared_point_mass()
    for change, message in (
        ({"theta": environment.parameters.theta + 0.1}, r"at\(parameters.theta\) is another environment: its init"),
        ({"theta": np.zeros((3, 1))}, r"theta has shape \(3, 1\), expected \(P,\)"),
        ({"reward": lambda s, a: np.zeros((3, len(s)))}, r"parameters.reward has shape \(3, 6\), expected \(6, 3\)"),
    ):
        parameters = unchecked(replace)(environment.parameters, **{k: v for k, v in change.items() if k != "theta"})
        object.__setattr__(parameters, "theta", change.get("theta", parameters.theta))  # past the type check
        with pytest.raises(AssertionError, match=message):
            verify.check_environment(replace(environment, parameters=parameters))


def test_bad_couplings() -> None:
    theta = np.zeros(3)
    for arguments, message in (
        ({"gain": np.zeros(2)}, r"gain has shape \(2,\), expected \(3,\)"),
        ({"price": np.full(3, np.nan)}, r"price has shape \(3,\), expected \(3,\) of finite numbers"),
        ({"start": np.zeros((3, 2))}, r"start has shape \(3, 2\), expected \(2, 3\)"),
        ({"time_step": 0.0}, "time_step must be a positive number, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            unchecked(systems.shared_point_mass)(theta, **arguments)
    with pytest.raises(ValueError, match=r"theta has shape \(1, 3\), expected \(P,\)"):
        unchecked(systems.shared_point_mass)(np.zeros((1, 3)))
