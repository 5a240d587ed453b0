"""Bad input gives one clear error, in every public function that takes it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.continuous.systems import by_functions
from tests.helpers import unchecked
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import environments, estimators, oracles, policies
from vgrad_lab.continuous.costate import adjoint, costate
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


def changed(**arrays: np.ndarray) -> Rollout:
    """The rollout as plain arrays, some of them others, past the type check."""
    made = Rollout(PLAYED.state, PLAYED.action, PLAYED.noise_draw, PLAYED.reward)
    for name, array in arrays.items():
        object.__setattr__(made, name, array)
    return made


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"state": PLAYED.state[:, :-1]}, r"rollout.state has shape \(4, 5, 3\), expected \(4, 6, 3\).*one more node"),
        ({"state": PLAYED.state[:, :, :2]}, r"rollout.state has shape \(4, 6, 2\), expected \(4, 6, 3\)"),
        ({"action": PLAYED.action[:2]}, r"rollout.action has shape \(2, 5, 2\), expected \(4, 5, 2\)"),
        ({"noise_draw": PLAYED.state[:, 1:]}, r"rollout.noise_draw has shape \(4, 5, 3\), expected \(4, 5, 2\)"),
        ({"state": PLAYED.state * np.nan}, "rollout.state holds non-finite"),
        ({"reward": np.full((4, 5), np.inf)}, "rollout.reward holds non-finite"),
        ({"noise_draw": PLAYED.noise_draw * np.nan}, "rollout.noise_draw holds non-finite"),
    ],
)
def test_rollouts(name: str, arrays: dict[str, np.ndarray], message: str) -> None:
    for environment in (ENVIRONMENT, by_functions(ENVIRONMENT)):
        with pytest.raises(ValueError, match=message):
            unchecked(ESTIMATORS[name])(environment, POLICY, changed(**arrays))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_policies(name: str) -> None:
    with pytest.raises(ValueError, match="policy.theta holds non-finite"):
        ESTIMATORS[name](ENVIRONMENT, replace(POLICY, theta=POLICY.theta * np.nan), PLAYED)
    turned = replace(
        POLICY, mean_map=None, parameter_jacobian=lambda t, s: np.swapaxes(POLICY.parameter_jacobian(t, s), 1, 2)
    )
    with pytest.raises(ValueError, match=r"parameter_jacobian gives shape \(4, 8, 2\), expected \(4, 2, 8\)"):
        ESTIMATORS[name](ENVIRONMENT, turned, PLAYED)


@pytest.mark.parametrize("function", [costate, adjoint, *ESTIMATORS.values(), extra_terms, return_to_go])
@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan"), float("inf")])
def test_discounts(function: Callable[..., Any], discount: float) -> None:
    arguments: dict[Any, tuple[Any, ...]] = {return_to_go: (PLAYED.reward,), extra_terms: (PLAYED, COSTATE)}
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\]"):
        function(*arguments.get(function, (ENVIRONMENT, POLICY, PLAYED)), discount=discount)


SYSTEM = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "negative horizon": (
        lambda: sample_rollout(ENVIRONMENT, POLICY, np.random.default_rng(0), batch=2, horizon=-1),
        "batch and horizon must be at least 1, got 2 and -1",
    ),
    "oracle's horizon": (
        lambda: oracles.linear_quadratic_oracle(SYSTEM, policies.linear_policy(np.zeros((1, 2))), horizon=-1),
        "horizon must be at least 1, got -1",
    ),
    "grid's horizon": (lambda: oracles.gauss_hermite_noise(3, -1, 1), "must be at least 1, got -1 and 1"),
    "reward": (
        lambda: rollout(
            replace(by_functions(ENVIRONMENT), reward=lambda s, a: s[:, 0] * np.nan),
            POLICY,
            np.zeros((2, 3)),
            np.zeros((2, 4, 2)),
        ),
        "reward is nan in row 0 at step 1",
    ),
    "gain": (lambda: policies.linear_policy(np.full((1, 2), np.nan)), "K holds non-finite"),
    "weights": (
        lambda: policies.tanh_policy(np.ones((1, 2)), np.zeros(1), np.full((1, 1), np.inf)),
        "output_weight holds non-finite",
    ),
    "baseline": (
        lambda: estimators.score_function_gradient(ENVIRONMENT, POLICY, PLAYED, baseline=np.full((4, 5), np.nan)),
        "baseline holds non-finite",
    ),
    "costs": (
        lambda: environments.from_arrays(ENVIRONMENT.dynamics, Payoff(np.eye(2), np.eye(2))),
        r"state_cost has shape \(2, 2\), expected \(3, 3\)",
    ),
    "scale": (
        lambda: environments.from_arrays(ENVIRONMENT.dynamics, ENVIRONMENT.payoff, initial_scale=float("nan")),
        "initial_scale must be a number that is not negative, got nan",
    ),
    "reward in θ": (
        lambda: unchecked(extra_terms)(PLAYED, COSTATE, reward=np.zeros((4, 4, 1))),
        r"reward has shape \(4, 4, 1\), expected \(4, 5, P\): the axis of θ is the last",
    ),
    "start in θ, turned": (
        lambda: unchecked(extra_terms)(PLAYED, COSTATE, initial_state=np.zeros((4, 2, 3))),
        r"initial_state has shape \(4, 2, 3\), expected \(4, 3, P\)",
    ),
    "costates": (
        lambda: unchecked(extra_terms)(PLAYED, COSTATE[:, 1:], initial_state=np.zeros((4, 3, 3))),
        r"costate has shape \(4, 5, 3\), expected \(4, 6, 3\)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_everything_else(case: str) -> None:
    make, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        make()
