import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy import ndarray

from vgrad_lab import verify
from vgrad_lab.tolerances import PLANTED_FAULT, TAYLOR_RATE


@dataclass(frozen=True)
class Slopes:
    transition_state: Callable[..., ndarray]
    transition_action: Callable[..., ndarray]
    reward_state: Callable[..., ndarray]
    reward_action: Callable[..., ndarray]


@dataclass(frozen=True)
class Pendulum:
    """A reader's own environment: three functions and four Jacobians, nothing of this package."""

    initial: Callable[..., ndarray]
    transition: Callable[..., ndarray]
    reward: Callable[..., ndarray]
    jacobians: Slopes | None = None
    action_size: int | None = 1


def transition(state: ndarray, action: ndarray) -> ndarray:
    angle, speed = state.T
    speed = 0.9 * speed - np.sin(angle) + action[:, 0]
    return np.stack([angle + 0.1 * speed, speed], axis=1)


def transition_state(state: ndarray, action: ndarray) -> ndarray:
    cos = np.cos(state[:, 0])
    rows = [[1 - 0.1 * cos, np.full_like(cos, 0.09)], [-cos, np.full_like(cos, 0.9)]]
    return np.moveaxis(np.array(rows), 2, 0)


PENDULUM = Pendulum(
    lambda rng, batch: rng.normal(size=(batch, 2)),
    transition,
    lambda s, a: np.cos(s[:, 0]) - 0.1 * (s[:, 1] * a[:, 0]) ** 2,
    Slopes(
        transition_state,
        lambda s, a: np.tile([[0.1], [1.0]], (len(s), 1, 1)),
        lambda s, a: np.stack([-np.sin(s[:, 0]), -0.2 * s[:, 1] * a[:, 0] ** 2], 1),
        lambda s, a: -0.2 * s[:, 1:] ** 2 * a,
    ),
)


def with_jacobian(name: str, function: Callable[..., ndarray]) -> Pendulum:
    return replace(PENDULUM, jacobians=replace(PENDULUM.jacobians, **{name: function}))


def test_right_environment_passes() -> None:
    errors = verify.check_environment(PENDULUM)
    assert set(errors) == {"transition_state", "transition_action", "reward_state", "reward_action"}
    assert max(errors.values()) < 1e-9
    assert verify.check_environment(replace(PENDULUM, jacobians=None)) == {}


ENTRIES = [
    *[("transition_state", (i, j)) for i in range(2) for j in range(2)],
    *[("transition_action", (i, 0)) for i in range(2)],
    *[("reward_state", (i,)) for i in range(2)],
    ("reward_action", (0,)),
]


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_planted_fault_in_one_entry_is_named(name: str, entry: tuple[int, ...]) -> None:
    right = getattr(PENDULUM.jacobians, name)

    def wrong(state: ndarray, action: ndarray) -> ndarray:
        out = right(state, action).copy()
        out[(slice(None), *entry)] *= 1 + PLANTED_FAULT
        return out

    label = re.escape(f"jacobians.{name}[{', '.join(map(str, entry))}] is")
    with pytest.raises(AssertionError, match=label) as failure:
        verify.check_environment(with_jacobian(name, wrong))
    rate = float(re.search(r"rate (\S+),", str(failure.value)).group(1))
    assert abs(rate - 1) <= TAYLOR_RATE


def test_orientation_errors() -> None:
    turned = with_jacobian("transition_state", lambda s, a: np.swapaxes(transition_state(s, a), 1, 2))
    with pytest.raises(AssertionError, match=r"transition_state is transposed: entry \[out, in\]"):
        verify.check_environment(turned)
    flat = with_jacobian("transition_action", lambda s, a: np.tile([[0.1, 1.0]], (len(s), 1, 1)))
    with pytest.raises(AssertionError, match=r"shape \(6, 1, 2\), expected \(6, 2, 1\); it is transposed"):
        verify.check_environment(flat)
    with pytest.raises(AssertionError, match=r"reward_state has shape \(6, 1\), expected \(6, 2\); the order is"):
        verify.check_environment(with_jacobian("reward_state", lambda s, a: s[:, :1]))
    with pytest.raises(AssertionError, match=r"reward_action\[0\] is nan"):
        verify.check_environment(with_jacobian("reward_action", lambda s, a: a * np.nan))


def _in_place(state: ndarray, action: ndarray) -> ndarray:
    state += 1
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": lambda s, a: s}, r"reward gives shape \(6, 2\), expected \(6,\)"),
        ({"transition": lambda s, a: s[0]}, r"transition gives shape \(2,\), expected \(6, 2\)"),
        ({"reward": lambda s, a: s[:, 0] - s[:, 0].mean()}, "reward mixes rows"),
        ({"reward": lambda s, a: np.random.default_rng().normal(size=len(s))}, "another value for the same input"),
        ({"reward": lambda s, a: s[:, 0] * np.nan}, "reward gives non-finite values"),
        ({"transition": _in_place}, "transition changes its input in place"),
        ({"initial": lambda rng, batch: np.zeros(2)}, r"initial\(rng, 6\) gives shape \(2,\)"),
    ],
)
def test_wrong_functions(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        verify.check_environment(replace(PENDULUM, **change))


def test_objects_that_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="lacks initial, transition, reward"):
        verify.check_environment(object())
    with pytest.raises(ValueError, match=r"check_environment\(…, action_size=A\)"):
        verify.check_environment(replace(PENDULUM, action_size=None))
    assert verify.check_environment(replace(PENDULUM, action_size=None), action_size=1)


def test_taylor_rates() -> None:
    x, d = np.array([0.3, -0.7]), np.array([1.0, 0.5])

    def function(z: ndarray) -> ndarray:
        return np.array([np.sin(z[0]) * z[1], np.exp(z[1])])

    def slope(z: ndarray) -> ndarray:
        return np.array([[np.cos(z[0]) * z[1], np.sin(z[0])], [0.0, np.exp(z[1])]])

    assert np.all(np.abs(verify.taylor_rates(function, slope, x, d) - 2) <= TAYLOR_RATE)
    late = verify.taylor_rates(function, lambda z: slope(z) * (1 + PLANTED_FAULT), x, d, step=1e-5)
    assert np.all(np.abs(late - 1) <= TAYLOR_RATE)
    assert np.all(np.isinf(verify.taylor_rates(lambda z: 3 * z, lambda z: 3 * np.eye(2), x, d)))
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(2, 2\)"):
        verify.taylor_rates(function, lambda z: z, x, d)
    with pytest.raises(ValueError, match="not finite near this point"):
        verify.taylor_rates(lambda z: z * np.nan, lambda z: np.eye(2), x, d)


@dataclass(frozen=True)
class Triangle:
    """A reader's own noise: the triangle on [−1, 1], written without this package."""

    density: Callable[[ndarray], ndarray]
    score: Callable[[ndarray], ndarray]
    breaks: tuple[float, ...]
    jumps: tuple[tuple[float, float], ...]
    quadrature: Callable[[tuple[float, ...]], tuple[ndarray, ndarray]]


def _triangle_quadrature(extra: tuple[float, ...]) -> tuple[ndarray, ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = sorted({-1.0, 0.0, 1.0, *(e for e in extra if -1 < e < 1)})
    pairs = list(pairwise(edges))
    x = np.concatenate([(a + b) / 2 + (b - a) / 2 * nodes for a, b in pairs])
    w = np.concatenate([(b - a) / 2 * weights for a, b in pairs])
    return x, w * np.maximum(1 - np.abs(x), 0)


TRIANGLE = Triangle(
    lambda x: np.maximum(1 - np.abs(x), 0),
    lambda x: -np.sign(x) / np.maximum(1 - np.abs(x), 1e-300),
    (-1.0, 0.0, 1.0),
    (),
    _triangle_quadrature,
)


@dataclass(frozen=True)
class Policy:
    theta: ndarray
    mean_action: Callable[..., ndarray]
    state_jacobian: Callable[..., ndarray]
    parameter_jacobian: Callable[..., ndarray]
    noise: Triangle


POLICY = Policy(
    np.array([0.4, -0.2]),
    lambda theta, s: np.sin(theta[0] * s[:, :1]) + theta[1] * s[:, 1:] ** 2,
    lambda theta, s: np.stack([theta[0] * np.cos(theta[0] * s[:, :1]), 2 * theta[1] * s[:, 1:]], 2),
    lambda theta, s: np.stack([s[:, :1] * np.cos(theta[0] * s[:, :1]), s[:, 1:] ** 2], 2),
    TRIANGLE,
)
STATES = np.random.default_rng(0).normal(size=(4, 2))


def test_right_policy_passes() -> None:
    assert max(verify.check_policy(POLICY, STATES).values()) < 1e-7


@pytest.mark.parametrize("name", ["state_jacobian", "parameter_jacobian"])
@pytest.mark.parametrize("entry", [0, 1])
def test_planted_fault_in_a_policy(name: str, entry: int) -> None:
    right = getattr(POLICY, name)
    factor = np.where(np.arange(2) == entry, 1 + PLANTED_FAULT, 1.0)
    wrong = replace(POLICY, **{name: lambda theta, s: right(theta, s) * factor})
    with pytest.raises(AssertionError, match=re.escape(f"{name}[0, {entry}] is")):
        verify.check_policy(wrong, STATES)


def test_planted_faults_in_a_noise() -> None:
    def check(**change: Any) -> None:
        verify.check_policy(replace(POLICY, noise=replace(TRIANGLE, **change)), STATES)

    with pytest.raises(AssertionError, match=r"noise.score\[0\] is"):
        check(score=lambda x: TRIANGLE.score(x) * (1 + PLANTED_FAULT))
    with pytest.raises(AssertionError, match="integrates to 1.001"):
        check(quadrature=lambda e: (_triangle_quadrature(e)[0], 1.001 * _triangle_quadrature(e)[1]))
    with pytest.raises(AssertionError, match=r"at 0.5; jumps lists 0.3"):
        check(jumps=((0.5, 0.3),))
    with pytest.raises(AssertionError, match=r"mean_action gives shape \(4,\)"):
        verify.check_policy(replace(POLICY, mean_action=lambda theta, s: s[:, 0]), STATES)


def test_lemma_for_a_readers_noise() -> None:
    found = verify.check_score_equals_pathwise(TRIANGLE, np.sin, np.cos, mean=0.3)
    assert found.jump == 0
    with pytest.raises(AssertionError, match="`slope` is not the derivative"):
        verify.check_score_equals_pathwise(TRIANGLE, np.sin, lambda a: np.cos(a) * (1 + PLANTED_FAULT), mean=0.3)
    with pytest.raises(AssertionError, match=r"score-function is right\. Jumps of the density"):
        verify.check_score_equals_pathwise(TRIANGLE, lambda a: (a > 0) * 1.0, np.zeros_like, mean=0.3, breaks=(0.0,))
