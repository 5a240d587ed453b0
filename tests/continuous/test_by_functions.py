"""Environments and policies known as functions only: blocks of time, memory layouts, clear errors, planted faults."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.continuous.systems import Spec, assert_close, build, by_functions, specs
from tests.helpers import unchecked, whole
from vgrad_lab.continuous import environments, maps, policies, rollout, systems
from vgrad_lab.continuous.by_functions import halves, jacobian_columns, pair
from vgrad_lab.continuous.costate import adjoint, costate
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.estimators import mean_pathwise_gradient
from vgrad_lab.continuous.rollout import sample_rollout
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

NAMES = ("transition_state", "transition_action", "reward_state", "reward_action")
SMALL = by_functions(environments.random_tanh_network(np.random.default_rng(0), 3, 2))
POLICY = policies.linear_policy(0.3 * np.ones((2, 3)))


def relaid(environment: Environment, order: str) -> Environment:
    """The same Jacobians, each in memory of another order."""
    known = vars(environment.jacobians)
    made = {n: lambda s, a, n=n: np.array(known[n](s, a), order=order) for n in NAMES}
    return replace(environment, jacobians=replace(environment.jacobians, **made))


def by_rows(environment: Environment, policy: policies.ShiftPolicy, played: Any, discount: float) -> np.ndarray:
    """Eq. 6 in plain rows, step after step."""
    found, of = np.zeros(played.state.shape), environment.jacobians
    for t in reversed(range(played.action.shape[1])):
        s, a, future = played.state[:, t], played.action[:, t], discount * found[:, t + 1]
        by_action = of.reward_action(s, a) + np.einsum("bsa,bs->ba", of.transition_action(s, a), future)
        through = np.einsum("ba,bas->bs", by_action, policy.state_jacobian(policy.theta, s))
        found[:, t] = of.reward_state(s, a) + np.einsum("bij,bi->bj", of.transition_state(s, a), future) + through
    return found


@settings(max_examples=30)
@given(specs())
def test_any_mixture_of_arrays_and_functions_obeys_eq_6(spec: Spec) -> None:
    system = build(spec)
    environment, policy = system.environment, system.policy
    expected = by_rows(environment, policy, system.rollout, system.discount)
    for e in (replace(environment, dynamics=None), replace(environment, payoff=None), by_functions(environment)):
        for p in (policy, replace(policy, mean_map=None)):
            played = rollout.rollout(e, p, system.rollout.state[:, 0], system.rollout.noise_draw)
            assert_close(played.reward, system.rollout.reward, ALGEBRA)
            assert_close(costate(e, p, played, discount=system.discount), expected, ALGEBRA)
            both = adjoint(e, p, played, discount=system.discount)
            assert_close(both.costate, expected, ALGEBRA)
            mean, again = mean_pathwise_gradient(e, p, played, discount=system.discount)
            known = mean_pathwise_gradient(environment, policy, system.rollout, discount=system.discount)[0]
            assert_close(mean, known, ALGEBRA)
            assert_close(again, expected, ALGEBRA)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("block", [1, 500, 1 << 18])
def test_memory_layout_and_blocks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, order: str, batch: int, block: int
) -> None:
    monkeypatch.setattr(rollout, "_BLOCK_BYTES", block)
    for environment in (SMALL, systems.pendulum(), replace(systems.obstacle(), dynamics=None)):
        gain = 0.3 * np.ones((environment.action_size, environment.state_size))
        policy = policies.linear_policy(gain)
        played = sample_rollout(environment, policy, np.random.default_rng(1), batch=batch, horizon=7)
        found = costate(relaid(environment, order), policy, played, discount=0.9)
        assert_close(found, by_rows(environment, policy, played, 0.9), ALGEBRA)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_fault_shows(name: str) -> None:
    played = sample_rollout(SMALL, POLICY, np.random.default_rng(1), batch=4, horizon=7)
    right = getattr(SMALL.jacobians, name)
    wrong = replace(SMALL.jacobians, **{name: lambda s, a: right(s, a) * (1 + PLANTED_FAULT)})
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(
            costate(replace(SMALL, jacobians=wrong), POLICY, played), by_rows(SMALL, POLICY, played, 1.0), ALGEBRA
        )


def test_halves_share_one_call() -> None:
    calls: list[int] = []

    def both(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(state))
        return state + action, state * action

    total, product = halves(both)
    s, a = np.full((3, 1), 2.0), np.full((3, 1), 5.0)
    for functions, expected, times in (
        ((total, product), (7, 10), 1),
        ((product, total), (10, 7), 1),
        ((total, halves(both)[1]), (7, 10), 1),
        ((total, lambda s, a: s - a), (7, -3), 1),
        ((halves(lambda s, a: (s, a))[0], product), (2, 10), 1),
        ((total, total), (7, 7), 1),
    ):
        calls.clear()
        found = pair(*functions, s, a)
        assert [x[0, 0] for x in found] == list(expected)
        assert len(calls) == times


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("environment", [systems.pendulum(), systems.bandit(np.ones((2, 4)))])
def test_a_fault_in_one_half_shows(environment: Environment, name: str) -> None:
    """A Jacobian replaced by a faulty one is the one that is used, not what its other half would give beside itself."""
    policy = policies.linear_policy(0.3 * np.ones((environment.action_size, environment.state_size)))
    played = sample_rollout(environment, policy, np.random.default_rng(1), batch=4, horizon=7)
    right = getattr(environment.jacobians, name)
    expected = by_rows(environment, policy, played, 1.0)
    assert_close(costate(environment, policy, played), expected, ALGEBRA)
    faulty = replace(environment.jacobians, **{name: lambda s, a: right(s, a) * (1 + PLANTED_FAULT)})
    changed = replace(environment, jacobians=faulty, dynamics=None)
    if np.any(right(played.state[:, 0], played.action[:, 0])):
        with pytest.raises(AssertionError, match="relative error"):
            assert_close(costate(changed, policy, played), expected, ALGEBRA)


def test_rows_turned_around_are_not_taken_for_the_rollouts_memory() -> None:
    environment = environments.random_tanh_network(np.random.default_rng(0), 3, 2)
    played = sample_rollout(environment, POLICY, np.random.default_rng(1), batch=4, horizon=7)
    parts = {n: getattr(played, n)[::-1] for n in ("state", "action", "noise_draw", "reward")}
    found = costate(environment, POLICY, replace(played, **parts))
    assert_close(found, costate(environment, POLICY, played)[::-1], ALGEBRA)


def test_rewards_of_another_payoff_are_not_used() -> None:
    environment = environments.random_tanh_network(np.random.default_rng(0), 3, 2)
    other = replace(environment, payoff=replace(environment.payoff, goal=np.ones(3)))
    played = sample_rollout(environment, POLICY, np.random.default_rng(1), batch=4, horizon=7)
    bare = replace(played, columns=None)
    assert_close(costate(other, POLICY, played), costate(other, POLICY, bare), ALGEBRA)


BATCH = "write both functions for a batch"
TURNED = "Jacobians are (out, in), this one looks transposed"


def turned(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, 1, 2)


@pytest.mark.parametrize(
    ("name", "function", "given", "expected", "hint"),
    [
        ("transition", lambda s, a: s[:, :2], (4, 2), (4, 3), BATCH),
        ("reward", lambda s, a: s, (28, 3), (28,), BATCH),
        (
            "transition_action",
            lambda s, a: turned(SMALL.jacobians.transition_action(s, a)),
            (28, 2, 3),
            (28, 3, 2),
            TURNED,
        ),
        ("transition_state", lambda s, a: np.eye(3), (3, 3), (28, 3, 3), BATCH),
        ("reward_state", lambda s, a: s[:, 0], (28,), (28, 3), BATCH),
        ("reward_action", lambda s, a: s, (28, 3), (28, 2), BATCH),
        ("mean_action", lambda theta, s: s[:, :1] if len(s) > 1 else s[:, :2], (4, 1), (4, 2), BATCH),
        ("state_jacobian", lambda theta, s: np.ones((len(s), 3, 2)), (28, 3, 2), (28, 2, 3), TURNED),
    ],
)
def test_wrong_shapes(
    name: str, function: Callable[..., np.ndarray], given: tuple[int, ...], expected: tuple[int, ...], hint: str
) -> None:
    change, owner = {name: function}, "jacobians." if name in NAMES else ""
    message = f"{owner}{name} gives shape {given} for {expected[0]} rows, expected {expected}: {hint}"
    jacobians = replace(SMALL.jacobians, **{k: v for k, v in change.items() if k in NAMES})
    functions = {k: v for k, v in change.items() if k in ("transition", "reward")}
    environment = replace(SMALL, jacobians=jacobians, **functions)
    parts = {k: v for k, v in change.items() if k in ("mean_action", "state_jacobian")}
    policy = replace(POLICY, mean_map=None, **parts)
    start, noise = np.zeros((4, 3)), np.zeros((4, 7, 2))
    with pytest.raises(ValueError, match=whole(message)):
        unchecked(costate)(environment, policy, unchecked(rollout.rollout)(environment, policy, start, noise))


@pytest.mark.parametrize(
    "make",
    [
        lambda: systems.bandit(np.ones((2, 4))),
        systems.obstacle,
        lambda: systems.shared_point_mass(np.ones(3), gain=np.ones(3)),
    ],
)
def test_dynamics_as_arrays_are_those_of_the_functions(make: Callable[[], Environment]) -> None:
    rng, environment = np.random.default_rng(0), make()
    s, a = rng.normal(size=(5, environment.state_size)), rng.normal(size=(5, environment.action_size))
    assert_close(maps.value(environment.dynamics, np.hstack([s, a])), environment.transition(s, a), ALGEBRA)


def test_where_a_jacobian_of_a_block_lies() -> None:
    """One matrix where rows share one, in place where columns are contiguous, else a contiguous copy."""
    rng = np.random.default_rng(0)
    assert jacobian_columns("f", np.broadcast_to(np.eye(3), (6, 3, 3)), (3, 3), 3, 2).ndim == 2
    lying = rng.normal(size=(3, 2, 6))
    for found, kept in (
        (lying.transpose(2, 0, 1), True),
        (rng.normal(size=(6, 3, 2)), False),
        (np.broadcast_to(rng.normal(size=(6, 1, 2)), (6, 3, 2)), False),
        (rng.normal(size=(6, 2, 3)).transpose(0, 2, 1), False),
    ):
        made = jacobian_columns("f", found, (3, 2), 3, 2)
        assert np.array_equal(made, found.reshape(3, 2, 3, 2).transpose(0, 2, 3, 1))
        assert np.shares_memory(made, found) is kept
        assert made.flags.c_contiguous is not kept
