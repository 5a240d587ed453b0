"""Bad input gives one clear error, in every public function that takes it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.continuous.systems import by_functions
from tests.helpers import unchecked, whole
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import doors, environments, estimators, oracles, policies
from vgrad_lab.continuous.costate import adjoint, closed_loop_jacobian, closed_loop_reward_gradient, costate
from vgrad_lab.continuous.doors import check_finite
from vgrad_lab.continuous.parameters import extra_terms
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.rollout import Rollout, rollout, sample_rollout

ENVIRONMENT = environments.random_tanh_network(np.random.default_rng(0), 3, 2)
POLICY = policies.linear_policy(0.3 * np.ones((2, 3)))
PLAYED = sample_rollout(ENVIRONMENT, POLICY, np.random.default_rng(1), batch=4, horizon=5)
COSTATE = costate(ENVIRONMENT, POLICY, PLAYED)
ESTIMATORS: dict[str, Callable[..., Any]] = {
    "pathwise": estimators.pathwise_gradient,
    "mean": estimators.mean_pathwise_gradient,
    "terms": estimators.pathwise_terms,
    "score": estimators.score_function_gradient,
}
FIT = "for rewards of shape (4, 5) in this environment; the state has one more node than there are steps"
FINITE = "holds non-finite values; give finite numbers"
BACKWARD: dict[str, Callable[..., Any]] = {
    "costate": costate,
    "adjoint": adjoint,
    "closed_loop_jacobian": closed_loop_jacobian,
    "closed_loop_reward_gradient": closed_loop_reward_gradient,
}


def changed(**arrays: np.ndarray) -> Rollout:
    """The rollout as plain arrays, some of them others, past the type check."""
    made = Rollout(PLAYED.state, PLAYED.action, PLAYED.noise_draw, PLAYED.reward)
    for name, array in arrays.items():
        object.__setattr__(made, name, array)
    return made


@pytest.mark.parametrize("name", [*ESTIMATORS, *BACKWARD])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"state": PLAYED.state[:, :-1]}, f"rollout.state has shape (4, 5, 3), expected (4, 6, 3) {FIT}"),
        ({"state": PLAYED.state[:, :, :2]}, f"rollout.state has shape (4, 6, 2), expected (4, 6, 3) {FIT}"),
        ({"action": PLAYED.action[:2]}, f"rollout.action has shape (2, 5, 2), expected (4, 5, 2) {FIT}"),
        ({"noise_draw": PLAYED.state[:, 1:]}, f"rollout.noise_draw has shape (4, 5, 3), expected (4, 5, 2) {FIT}"),
        ({"state": PLAYED.state * np.nan}, f"rollout.state {FINITE}"),
        ({"reward": np.full((4, 5), np.inf)}, f"rollout.reward {FINITE}"),
        ({"action": np.where(np.arange(2) == 1, np.inf, PLAYED.action)}, f"rollout.action {FINITE}"),
        ({"noise_draw": PLAYED.noise_draw * np.nan}, f"rollout.noise_draw {FINITE}"),
        ({"reward": PLAYED.reward[0]}, "rollout.reward has shape (5,), expected (B, T), both at least 1"),
        ({"reward": PLAYED.reward[:, :0]}, "rollout.reward has shape (4, 0), expected (B, T), both at least 1"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_rollouts(name: str, arrays: dict[str, np.ndarray], message: str, own: bool) -> None:
    """own: with the private memory of the rollout that was changed, which may vouch for what is left of it only."""
    played = changed(**arrays)
    if own:
        object.__setattr__(played, "columns", PLAYED.columns)
    for environment in (ENVIRONMENT, by_functions(ENVIRONMENT)):
        with pytest.raises(ValueError, match=whole(message)):
            unchecked((ESTIMATORS | BACKWARD)[name])(environment, POLICY, played)


def test_memory_that_a_rollout_wrote_cannot_be_spoilt() -> None:
    for array in (PLAYED.state, PLAYED.action, PLAYED.reward):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = np.nan


def test_memory_that_a_rollout_wrote_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(doors, "check_finite", lambda name, x: read.append(name))
    costate(ENVIRONMENT, POLICY, PLAYED)
    assert read == ["rollout.noise_draw", "policy.theta"]
    read.clear()
    costate(ENVIRONMENT, POLICY, replace(PLAYED, action=PLAYED.action.copy()))
    assert read == ["rollout.action", "rollout.noise_draw", "policy.theta"]
    read.clear()
    costate(ENVIRONMENT, POLICY, changed())
    assert read == [*(f"rollout.{x}" for x in ("state", "action", "noise_draw", "reward")), "policy.theta"]


NARROW = policies.linear_policy(0.3 * np.ones((2, 4)))


@pytest.mark.parametrize("name", [*ESTIMATORS, *BACKWARD, "rollout"])
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            NARROW,
            "the policy takes states of size 4, expected 3: its state size is not the environment's; make the policy "
            "for this environment",
        ),
        (
            replace(NARROW, mean_map=None),
            "the policy's mean_action fails for one state of shape (1, 3), expected an action of shape (1, 2): write "
            "it for states (B, 3); it said: matmul: Input operand",  # and what else NumPy says
        ),
        (
            policies.linear_policy(np.ones((1, 3))),
            "the policy's mean_action gives shape (1, 1) for one state, expected (1, 2): its action size is not the "
            "environment's",
        ),
    ],
)
def test_policies_of_another_size(name: str, policy: policies.ShiftPolicy, message: str) -> None:
    call = unchecked((ESTIMATORS | BACKWARD | {"rollout": rollout})[name])
    rest = (PLAYED.state[:, 0], PLAYED.noise_draw) if name == "rollout" else (PLAYED,)
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}") as caught:
        call(ENVIRONMENT, policy, *rest)
    assert caught.value.__cause__ or str(caught.value) == message


@pytest.mark.parametrize("name", ESTIMATORS)
def test_policies(name: str) -> None:
    with pytest.raises(ValueError, match=whole(f"policy.theta {FINITE}")):
        ESTIMATORS[name](ENVIRONMENT, replace(POLICY, theta=POLICY.theta * np.nan), PLAYED)
    turned = replace(
        POLICY, mean_map=None, parameter_jacobian=lambda t, s: np.swapaxes(POLICY.parameter_jacobian(t, s), 1, 2)
    )
    message = (
        "parameter_jacobian gives shape (4, 8, 2), expected (4, 2, 8): Jacobians are (out, in), after the batch; "
        "vgrad_lab.verify.check_policy checks it"
    )
    with pytest.raises(ValueError, match=whole(message)):
        ESTIMATORS[name](ENVIRONMENT, turned, PLAYED)


@pytest.mark.parametrize("function", [costate, adjoint, *ESTIMATORS.values(), extra_terms, return_to_go])
@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan"), float("inf")])
def test_discounts(function: Callable[..., Any], discount: float) -> None:
    arguments: dict[Any, tuple[Any, ...]] = {return_to_go: (PLAYED.reward,), extra_terms: (PLAYED, COSTATE)}
    with pytest.raises(ValueError, match=whole(f"discount must lie in [0, 1], got {discount}")):
        function(*arguments.get(function, (ENVIRONMENT, POLICY, PLAYED)), discount=discount)


SYSTEM = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
DIVERGES = "the rollout diverges; use stabler dynamics, a shorter horizon or smaller noise"
ONE_EACH = "that of the mean action of state (4, 3); give one action for each state"
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "negative horizon": (
        lambda: sample_rollout(ENVIRONMENT, POLICY, np.random.default_rng(0), batch=2, horizon=-1),
        "batch and horizon must be at least 1, got 2 and -1",
    ),
    "oracle's horizon": (
        lambda: oracles.linear_quadratic_oracle(SYSTEM, policies.linear_policy(np.zeros((1, 2))), horizon=-1),
        "horizon must be at least 1, got -1",
    ),
    "grid's horizon": (
        lambda: oracles.gauss_hermite_noise(3, -1, 1),
        "horizon and action_size must be at least 1, got -1 and 1",
    ),
    "reward": (
        lambda: rollout(
            replace(by_functions(ENVIRONMENT), reward=lambda s, a: s[:, 0] * np.nan),
            POLICY,
            np.zeros((2, 3)),
            np.zeros((2, 4, 2)),
        ),
        "reward is nan in row 0 at step 1: the rollout diverges or the reward is not defined there; "
        "use stabler dynamics, a shorter horizon or smaller noise",
    ),
    "one state without its batch": (
        lambda: unchecked(rollout)(ENVIRONMENT, POLICY, np.zeros(3), np.zeros((1, 4, 2))),
        "initial_state has shape (3,), expected (B, 3) for this environment; give one state as state[None, :]",
    ),
    "noise without its steps": (
        lambda: unchecked(rollout)(ENVIRONMENT, POLICY, np.zeros((2, 3)), np.zeros((2, 2))),
        "noise_draw has shape (2, 2), expected (2, T, 2); its axes are row, step and action, none may be left out",
    ),
    "noise that no reward sees": (
        lambda: rollout(
            replace(by_functions(ENVIRONMENT), reward=lambda s, a: np.ones(len(s))),
            POLICY,
            np.zeros((2, 3)),
            np.full((2, 4, 2), np.nan),
        ),
        "noise_draw holds non-finite values; give finite numbers",
    ),
    "state that no reward sees": (
        lambda: rollout(
            replace(by_functions(ENVIRONMENT), transition=lambda s, a: s / 0, reward=lambda s, a: np.ones(len(s))),
            policies.linear_policy(np.zeros((2, 3))),
            np.ones((2, 3)),
            np.zeros((2, 1, 2)),
        ),
        f"state is inf in row 0 at step 2: {DIVERGES}",
    ),
    "action that no reward sees": (
        lambda: rollout(
            replace(by_functions(ENVIRONMENT), transition=lambda s, a: s, reward=lambda s, a: np.ones(len(s))),
            replace(POLICY, mean_map=None, mean_action=lambda theta, s: np.full((len(s), 2), np.nan)),
            np.ones((2, 3)),
            np.zeros((2, 1, 2)),
        ),
        f"action is nan in row 0 at step 1: {DIVERGES}",
    ),
    "last state, after finite ones": (
        lambda: rollout(
            replace(
                by_functions(environments.linear_quadratic(1e150 * np.eye(1), np.eye(1), np.eye(1), np.eye(1))),
                reward=lambda s, a: np.tanh(s[:, 0]),
            ),
            policies.linear_policy(np.zeros((1, 1))),
            np.ones((2, 1)),
            np.zeros((2, 3, 1)),
        ),
        f"state is inf in row 0 at step 4: {DIVERGES}",
    ),
    "action of a batch": (
        lambda: unchecked(policies.score_function)(POLICY, np.zeros((4, 3)), np.zeros((4, 3))),
        f"action has shape (4, 3), expected (4, 2), {ONE_EACH}",
    ),
    "actions of another batch": (
        lambda: unchecked(policies.score_function)(POLICY, np.zeros((4, 3)), np.zeros((1, 2))),
        f"action has shape (1, 2), expected (4, 2), {ONE_EACH}",
    ),
    "gain": (lambda: policies.linear_policy(np.full((1, 2), np.nan)), f"K {FINITE}"),
    "bias": (lambda: policies.linear_policy(np.ones((2, 2)), np.array([0.0, np.inf])), f"bias {FINITE}"),
    "weights": (
        lambda: policies.tanh_policy(np.ones((1, 2)), np.zeros(1), np.full((1, 1), np.inf)),
        f"output_weight {FINITE}",
    ),
    "baseline": (
        lambda: estimators.score_function_gradient(ENVIRONMENT, POLICY, PLAYED, baseline=np.full((4, 5), np.nan)),
        f"baseline {FINITE}",
    ),
    "costs": (
        lambda: environments.from_arrays(ENVIRONMENT.dynamics, Payoff(np.eye(2), np.eye(2))),
        "state_cost has shape (2, 2), expected (3, 3)",
    ),
    "costs of actions": (
        lambda: environments.from_arrays(ENVIRONMENT.dynamics, Payoff(np.eye(3), np.eye(3))),
        "action_cost has shape (3, 3), expected (2, 2)",
    ),
    **{
        f"scale {scale}": (
            lambda scale=scale: environments.from_arrays(ENVIRONMENT.dynamics, ENVIRONMENT.payoff, initial_scale=scale),
            f"initial_scale must be a number that is not negative, got {scale}",
        )
        for scale in (float("nan"), float("inf"), -1.0)
    },
    "reward in θ": (
        lambda: unchecked(extra_terms)(PLAYED, COSTATE, reward=np.zeros((4, 4, 1))),
        "reward has shape (4, 4, 1), expected (4, 5, P): the axis of θ is the last",
    ),
    "start in θ, turned": (
        lambda: unchecked(extra_terms)(PLAYED, COSTATE, initial_state=np.zeros((4, 2, 3))),
        "initial_state has shape (4, 2, 3), expected (4, 3, P): the axis of θ is the last",
    ),
    "costates": (
        lambda: unchecked(extra_terms)(PLAYED, COSTATE[:, 1:], initial_state=np.zeros((4, 3, 3))),
        "costate has shape (4, 5, 3), expected (4, 6, 3)",
    ),
}


def test_large_numbers_are_no_error() -> None:
    """Finite states whose squares overflow pass every door."""
    environment = replace(
        by_functions(environments.linear_quadratic(np.eye(1), np.eye(1), np.eye(1), np.eye(1))),
        reward=lambda s, a: np.tanh(s[:, 0]),
    )
    policy = policies.linear_policy(np.zeros((1, 1)))
    played = rollout(environment, policy, np.full((3, 1), 1e200), np.zeros((3, 4, 1)))
    assert np.all(played.state == 1e200)
    assert np.all(np.isfinite(costate(environment, policy, replace(played, columns=None))))


@pytest.mark.parametrize("case", CASES)
def test_everything_else(case: str) -> None:
    make, message = CASES[case]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"), pytest.raises(ValueError, match=whole(message)):
        make()


def test_infinities_that_cancel_are_found_and_large_sums_are_not() -> None:
    for found in (np.array([np.inf, -np.inf]), np.array([[1.0, np.nan]]), np.array([-np.inf])):
        with pytest.raises(ValueError, match=whole(f"x {FINITE}")):
            check_finite("x", found)
    check_finite("x", np.full(3, 1e308))
    check_finite("x", np.zeros(0))
