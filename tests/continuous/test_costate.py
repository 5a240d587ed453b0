from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import Spec, assert_close, build, specs
from tests.helpers import unchecked, whole
from vgrad_lab.continuous import environments, policies
from vgrad_lab.continuous.costate import check_discount, closed_loop_jacobian, closed_loop_reward_gradient, costate
from vgrad_lab.continuous.estimators import extra_terms, pathwise_gradient, pathwise_terms, score_function_gradient
from vgrad_lab.continuous.parameters import environment_terms
from vgrad_lab.continuous.rollout import Rollout, sample_rollout
from vgrad_lab.tolerances import ALGEBRA

ENVIRONMENT = environments.random_tanh_network(np.random.default_rng(0), 3, 2)
POLICY = policies.linear_policy(0.3 * np.ones((2, 3)))


def played() -> Rollout:
    return sample_rollout(ENVIRONMENT, POLICY, np.random.default_rng(1), batch=4, horizon=5)


@given(specs())
def test_recursion_with_closed_loop_arrays(spec: Spec) -> None:
    system = build(spec)
    arguments = system.environment, system.policy, system.rollout
    found = costate(*arguments, discount=system.discount)
    assert not found[:, -1].any()
    carried = np.einsum("btij,bti->btj", closed_loop_jacobian(*arguments), found[:, 1:])
    assert_close(found[:, :-1], closed_loop_reward_gradient(*arguments) + system.discount * carried, ALGEBRA)


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_discount_outside(discount: float) -> None:
    rollout = played()
    for function in (costate, pathwise_gradient, score_function_gradient):
        with pytest.raises(ValueError, match=whole(f"discount must lie in [0, 1], got {discount}")):
            function(ENVIRONMENT, POLICY, rollout, discount=discount)


def test_without_jacobians() -> None:
    bare = environments.Environment(3, 2, ENVIRONMENT.initial, ENVIRONMENT.transition, ENVIRONMENT.reward)
    message = (
        "this environment has no Jacobians, so there are no costates: give it Jacobians(transition_state, "
        "transition_action, reward_state, reward_action) and check them with vgrad_lab.verify.check_environment"
    )
    with pytest.raises(ValueError, match=whole(message)):
        costate(bare, POLICY, played())


def test_baseline_shape_and_effect() -> None:
    rollout = played()
    with pytest.raises(ValueError, match=whole("baseline has shape (4, 4), expected (4, 5), one number per step")):
        score_function_gradient(ENVIRONMENT, POLICY, rollout, baseline=np.zeros((4, 4)))
    plain = score_function_gradient(ENVIRONMENT, POLICY, rollout)
    constant = score_function_gradient(ENVIRONMENT, POLICY, rollout, baseline=np.full((4, 5), 2.0))
    scores = np.einsum(
        "bta,btap->bp",
        -POLICY.noise.score(rollout.noise_draw),
        np.stack([POLICY.parameter_jacobian(POLICY.theta, rollout.state[:, t]) for t in range(5)], 1),
    )
    assert_close(plain - constant, 2 * scores, ALGEBRA)


def test_extra_terms_need_something() -> None:
    rollout = played()
    message = "give at least one of initial_state, dynamics and reward; without them there is nothing to add"
    with pytest.raises(ValueError, match=whole(message)):
        extra_terms(rollout, costate(ENVIRONMENT, POLICY, rollout))


def test_ends_of_the_discount() -> None:
    for discount in (0.0, 1.0):
        check_discount(discount)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("initial_state", (4, 3), "(4, 3, P)"),
        ("dynamics", (4, 4, 3, 1), "(4, 5, 3, P)"),
        ("reward", (4, 4, 1), "(4, 5, P)"),
    ],
)
def test_extra_terms_that_do_not_fit(name: str, shape: tuple[int, ...], expected: str) -> None:
    rollout = played()
    message = f"{name} has shape {shape}, expected {expected}: the axis of θ is the last"
    with pytest.raises(ValueError, match=whole(message)):
        unchecked(extra_terms)(rollout, costate(ENVIRONMENT, POLICY, rollout), **{name: np.zeros(shape)})


def shared(**functions: Callable[..., np.ndarray]) -> environments.Environment:
    """The environment with θ also in its start, transition and reward, or in some of them otherwise."""
    numbers = np.random.default_rng(3).normal(size=(3, 8))
    made = {
        "initial_state": lambda s: s[:, :, None] * numbers,
        "transition": lambda s, a: (s * a[:, :1])[:, :, None] * numbers,
        "reward": lambda s, a: (s[:, :1] + a[:, 1:]) * numbers[0],
    }
    return replace(
        ENVIRONMENT,
        parameters=environments.ParameterJacobians(theta=POLICY.theta, at=lambda t: ENVIRONMENT, **(made | functions)),
    )


@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_terms_of_the_environment_are_read_along_the_rollout(discount: float) -> None:
    rollout, environment = played(), shared()
    numbers, options = np.random.default_rng(3).normal(size=(3, 8)), {} if discount == 1 else {"discount": discount}
    slope, weight = costate(ENVIRONMENT, POLICY, rollout, **options), discount ** np.arange(5)
    state, action = rollout.state[:, :-1], rollout.action
    found = pathwise_terms(environment, POLICY, rollout, **options)
    assert_close(found.costate, slope, ALGEBRA)
    assert_close(found.policy, pathwise_gradient(ENVIRONMENT, POLICY, rollout, **options), ALGEBRA)
    assert_close(found.initial_state, (state[:, 0] * slope[:, 0]) @ numbers, ALGEBRA)
    along = state * action[..., :1] * slope[:, 1:] * discount * weight[:, None]
    assert_close(found.dynamics, along.sum(1) @ numbers, ALGEBRA)
    assert_close(found.reward, np.outer((state[..., 0] + action[..., 1]) @ weight, numbers[0]), ALGEBRA)
    again = environment_terms(environment, POLICY, rollout, slope, found.policy, **options)
    assert_close(again.total, found.total, ALGEBRA)
    bare = environment_terms(ENVIRONMENT, POLICY, rollout, slope, found.policy, **options)
    assert [bare.dynamics.shape, bare.reward.shape, bare.initial_state.shape] == [(4, 8)] * 3


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("initial_state", (4, 8, 3), (4, 3, 8)),
        ("transition", (4, 8, 3), (4, 3, 8)),
        ("reward", (8, 4), (4, 8)),
    ],
)
def test_jacobians_in_theta_that_do_not_fit(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    message = (
        f"parameters.{name} gives shape {shape}, expected {expected}: rows, then the axes of the value, then those of "
        "θ; vgrad_lab.verify.check_environment checks it"
    )
    with pytest.raises(ValueError, match=whole(message)):
        pathwise_terms(shared(**{name: lambda *x: np.zeros(shape)}), POLICY, played())


def test_another_theta_is_refused() -> None:
    message = (
        "the environment was made with another θ than the policy's, so their terms do not add up: take "
        "environment.parameters.at(policy.theta) and roll out again"
    )
    with pytest.raises(ValueError, match=whole(message)):
        pathwise_terms(shared(), replace(POLICY, theta=POLICY.theta + 0.1), played())
