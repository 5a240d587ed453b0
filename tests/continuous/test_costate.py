import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import Spec, assert_close, build, specs
from tests.helpers import whole
from vgrad_lab.continuous import environments, policies
from vgrad_lab.continuous.costate import closed_loop_jacobian, closed_loop_reward_gradient, costate
from vgrad_lab.continuous.estimators import extra_terms, pathwise_gradient, score_function_gradient
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
