from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import Spec, assert_close, build, by_functions, specs
from tests.helpers import unchecked, whole
from vgrad_lab import strategies
from vgrad_lab.continuous import environments, oracles
from vgrad_lab.continuous import gradient_critic as vgl
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.environments import linear_quadratic
from vgrad_lab.continuous.hybrid import hybrid_gradient
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.continuous.policies import ShiftPolicy, linear_policy
from vgrad_lab.continuous.rollout import Rollout, rollout, sample_rollout
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT

HORIZON, STARTS = 4, 5


def linear(system: strategies.LinearSystem, seed: int) -> tuple[oracles.Environment, ShiftPolicy]:
    goal = np.random.default_rng(seed).normal(size=len(system.A))
    environment = linear_quadratic(system.A, system.B, system.Q, system.R, goal=goal)
    return environment, linear_policy(system.K, system.bias, noise=gaussian(0.7))


def population(environment: oracles.Environment, policy: ShiftPolicy, seed: int) -> tuple[Rollout, np.ndarray]:
    """A few starts along every sequence of a noise grid that is exact for products of affine functions."""
    noise, weight = oracles.gauss_hermite_noise(2, HORIZON, 1, scale=0.7)
    start = np.random.default_rng(seed).normal(size=(STARTS, environment.state_size))
    played = rollout(environment, policy, np.repeat(start, len(noise), 0), np.tile(noise, (STARTS, 1, 1)))
    return played, np.tile(weight / STARTS, STARTS)


SYSTEMS = strategies.linear_systems(max_state=3, max_action=1)


@given(specs(), strategies.seeds())
def test_targets_with_decay_one_are_costates(spec: Spec, seed: int) -> None:
    system = build(spec)
    arguments = (by_functions(system.environment), system.policy, system.rollout)
    noise = np.random.default_rng(seed).normal(size=system.rollout.state.shape)  # any critic
    target, blend = vgl.blended_costate(*arguments, noise, discount=system.discount)
    expected = costate(system.environment, system.policy, system.rollout, discount=system.discount)
    assert_close(target, expected, ALGEBRA)
    assert_close(blend, expected, ALGEBRA)


@given(SYSTEMS, strategies.discounts(), strategies.discounts(), strategies.seeds())
def test_an_exact_critic_is_exact_for_every_decay(
    system: strategies.LinearSystem, discount: float, decay: float, seed: int
) -> None:
    environment, policy = linear(system, seed)
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(1, 6, 1))
    start = np.tile(rng.normal(size=(1, len(system.A))), (2, 1))
    played = rollout(environment, policy, start, np.concatenate([noise, -noise]))
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=6, discount=discount)
    exact = oracles.value_gradient(oracle, played.state)
    target, _ = vgl.blended_costate(environment, policy, played, exact, discount=discount, decay=decay)
    scale = max(1.0, float(np.max(np.abs(exact))))
    assert np.max(np.abs(target[:, 0].mean(0) - exact[0, 0])) <= ALGEBRA * scale


@given(SYSTEMS, strategies.discounts(), strategies.discounts(), strategies.seeds())
def test_the_fit_is_the_closed_form_of_the_population(
    system: strategies.LinearSystem, discount: float, decay: float, seed: int
) -> None:
    environment, policy = linear(system, seed)
    played, weight = population(environment, policy, seed)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=HORIZON, discount=discount)
    for features, selection in (
        (vgl.affine_features, np.eye(len(system.A) + 1)),
        (vgl.constant_features, np.eye(len(system.A) + 1)[-1:]),
    ):
        options = {"features": features, "discount": discount, "decay": decay, "weight": weight}
        critic = vgl.learn_gradient_critic(environment, policy, played, **options)
        found = vgl.predict(critic, played.state)
        z = np.concatenate([played.state, np.ones((*played.state.shape[:2], 1))], 2)
        w, y = vgl.population_critic(oracle, played.state[:, 0], selection, decay=decay)
        scale = max(1.0, float(np.max(np.abs(found))))
        assert np.max(np.abs(found - np.einsum("tsz,btz->bts", w, z))) <= CLOSED_FORM * scale
        # the mean of the policy gradient that uses the blend, by enumeration and in closed form
        _, blend = vgl.blended_costate(environment, policy, played, found, discount=discount, decay=decay)
        gradient = weight @ hybrid_gradient(
            environment, policy, played, immediate="pathwise", discount=discount, value_gradient=blend
        )
        expected = vgl.expected_gradient(oracle, played.state[:, 0], y)
        scale = max(1.0, float(np.max(np.abs(expected))))
        assert np.max(np.abs(gradient - expected)) <= CLOSED_FORM * scale
        if np.max(np.abs(expected)) > 0.1 * scale:
            assert np.max(np.abs(gradient * (1 + PLANTED_FAULT) - expected)) > CLOSED_FORM * scale


@given(SYSTEMS, strategies.discounts(), strategies.discounts(), strategies.seeds())
def test_affine_features_learn_the_value_gradient(
    system: strategies.LinearSystem, discount: float, decay: float, seed: int
) -> None:
    environment, policy = linear(system, seed)
    played, weight = population(environment, policy, seed)
    critic = vgl.learn_gradient_critic(environment, policy, played, discount=discount, decay=decay, weight=weight)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=HORIZON, discount=discount)
    exact = oracles.value_gradient(oracle, played.state)
    scale = max(1.0, float(np.max(np.abs(exact))))
    assert np.max(np.abs(vgl.predict(critic, played.state) - exact)) <= CLOSED_FORM * scale


def test_a_poor_critic_biases_every_decay_below_one() -> None:
    rng = np.random.default_rng(0)
    A, B = np.array([[0.9, 0.4], [-0.3, 0.8]]), np.array([[0.2], [1.0]])
    environment = linear_quadratic(A, B, np.eye(2), np.eye(1) / 10, initial_mean=np.array([1.0, 0.0]))
    policy = linear_policy(np.array([[-0.1, -0.3]]), noise=gaussian(0.5))
    start = environment.initial(rng, 50)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=6, discount=0.9)
    truth = oracles.parameter_gradient(oracle, start)
    bias = []
    for decay in (0.0, 0.5, 0.9, 1.0):
        _, blend = vgl.population_critic(oracle, start, np.eye(3)[-1:], decay=decay)
        bias.append(float(np.linalg.norm(vgl.expected_gradient(oracle, start, blend) - truth) / np.linalg.norm(truth)))
    assert bias[-1] <= CLOSED_FORM
    assert bias[0] > bias[1] > bias[2] > 0.01


def powers(state: np.ndarray) -> np.ndarray:
    return np.concatenate([state**k for k in range(4)], axis=1)


def test_it_fits_a_network_with_enough_features() -> None:
    environment = build(Spec(strategies.RolloutShape(1, 1, 1, 1), "tanh", "tanh", 1.0, 0)).environment
    policy = linear_policy(np.array([[0.2]]), noise=gaussian(0.3))
    played = sample_rollout(environment, policy, np.random.default_rng(3), batch=4, horizon=1)
    critic = vgl.learn_gradient_critic(environment, policy, played, features=powers)  # four features, four rollouts
    assert_close(vgl.predict(critic, played.state), costate(environment, policy, played), CLOSED_FORM)


SYSTEM = build(Spec(strategies.RolloutShape(3, 2, 2, 1), "linear-quadratic", "linear", 1.0, 0))
PARTS, STATE = (SYSTEM.environment, SYSTEM.policy, SYSTEM.rollout), SYSTEM.rollout.state
ORACLE = oracles.linear_quadratic_oracle(SYSTEM.environment, SYSTEM.policy, horizon=2)


def one_row() -> Rollout:
    return Rollout(STATE[:1], SYSTEM.rollout.action[:1], SYSTEM.rollout.noise_draw[:1], SYSTEM.rollout.reward[:1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda f=f: f(decay=1.5), "decay (λ) must lie in [0, 1], got 1.5")
            for f in (
                lambda decay: vgl.blended_costate(*PARTS, STATE, decay=decay),
                lambda decay: vgl.learn_gradient_critic(*PARTS, decay=decay),
                lambda decay: vgl.population_critic(ORACLE, STATE[:, 0], np.eye(3), decay=decay),
            )
        ),
        *(
            (lambda f=f: f(discount=1.5), "discount must lie in [0, 1], got 1.5")
            for f in (
                lambda discount: vgl.blended_costate(*PARTS, STATE, discount=discount),
                lambda discount: vgl.learn_gradient_critic(*PARTS, discount=discount),
            )
        ),
        (
            lambda: vgl.blended_costate(*PARTS, STATE[:, 1:]),
            "value_gradient has shape (3, 2, 2), expected (3, 3, 2), one row per node; predict(critic, rollout.state) "
            "gives it",
        ),
        (
            lambda: vgl.learn_gradient_critic(*PARTS, weight=np.array([1.0, -1.0, 1.0])),
            "weight must be 3 numbers ≥ 0, one per rollout, got shape (3,)",
        ),
        (
            lambda: unchecked(vgl.learn_gradient_critic)(*PARTS, weight=np.ones(2)),
            "weight must be 3 numbers ≥ 0, one per rollout, got shape (2,)",
        ),
        (
            lambda: vgl.learn_gradient_critic(*PARTS[:2], one_row()),
            "1 rollouts cannot fit 3 features; give at least 3",
        ),
        (
            lambda: vgl.predict(vgl.learn_gradient_critic(*PARTS), STATE[:, 2:]),
            "the critic has weights for 2 steps, the rollout 0; learn one for this horizon",
        ),
        (
            lambda: vgl.population_critic(ORACLE, STATE[:, 0], np.ones((1, 2))),
            "selection has shape (1, 2), expected (F, 3): one column per entry of z",
        ),
        (
            lambda: vgl.expected_gradient(ORACLE, STATE[:, 0], np.ones((3, 2, 2))),
            "value_gradient has shape (3, 2, 2), expected (3, 2, 3)",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def test_by_default_costates_without_discount() -> None:
    assert vgl.constant_features(STATE[:, 0]).tolist() == [[1.0]] * 3
    critic, plain = (
        vgl.learn_gradient_critic(*PARTS, **named)
        for named in ({}, {"features": vgl.affine_features, "discount": 1.0, "decay": 1.0, "weight": np.ones(3)})
    )
    assert np.array_equal(critic.weight, plain.weight)
    for found, expected in zip(
        vgl.blended_costate(*PARTS, STATE), vgl.blended_costate(*PARTS, STATE, discount=1.0, decay=1.0), strict=True
    ):
        assert np.array_equal(found, expected)
    found, expected = (vgl.population_critic(ORACLE, STATE[:, 0], np.eye(3), **n) for n in ({}, {"decay": 1.0}))
    assert np.array_equal(found, expected)


def test_what_a_poor_critic_learns_from_noisy_rollouts_in_closed_form() -> None:
    """One feature, φ = s_1 + 2: the fit over an exact grid of noise is ``population_critic`` at every step."""
    environment = environments.random_linear_quadratic(np.random.default_rng(5), 2, 1)
    policy = linear_policy(np.array([[0.2, -0.1]]), np.array([0.4]), noise=gaussian(0.8))
    grid, weight = oracles.gauss_hermite_noise(3, 3, 1, scale=0.8)
    start = np.array([[0.5, -1.0], [1.0, 0.3]])
    draws, states = np.tile(grid, (2, 1, 1)), np.repeat(start, len(grid), axis=0)
    played = rollout(environment, policy, states, draws)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3, discount=0.9)
    selection = np.array([[1.0, 0.0, 2.0]])
    for decay in (0.0, 0.6, 1.0):
        learned = vgl.learn_gradient_critic(
            environment,
            policy,
            played,
            features=lambda s: s[:, :1] + 2,
            discount=0.9,
            decay=decay,
            weight=np.tile(weight, 2) / 2,
        )
        expected, _ = vgl.population_critic(oracle, start, selection, decay=decay)
        across = np.stack([w.T @ selection for w in learned.weight])
        assert_close(across, expected[:3], CLOSED_FORM)


def test_a_rollout_may_count_nothing() -> None:
    assert vgl.learn_gradient_critic(*PARTS, weight=np.array([1.0, 0.0, 1.0])).weight.shape == (2, 3, 2)
