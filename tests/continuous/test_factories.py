"""Environments from arrays and by name: starts, defaults, the laws of random systems, refusals in full."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers import unchecked, whole
from vgrad_lab.continuous import environments, payoffs, systems
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.noise_law import panels
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM

EYE = np.eye(2)
MAP, PAYOFF = Map(np.ones((2, 3)), np.zeros(2)), Payoff(EYE, np.eye(1))
STATE, ACTION = np.array([[0.5, -1.0], [2.0, 0.25]]), np.array([[1.0, -0.5], [0.5, 3.0]])


def linear(**change: Any) -> Environment:
    arguments = {"A": np.ones((3, 3)), "B": np.ones((3, 2)), "Q": np.eye(3), "R": EYE}
    return unchecked(environments.linear_quadratic)(**arguments | change)


def network(**change: Any) -> Environment:
    weights = {"state_weight": np.ones((5, 3)), "action_weight": np.ones((5, 2)), "output_weight": np.ones((3, 5))}
    return unchecked(environments.tanh_network)(**weights | {"bias": np.zeros(5), "goal": np.zeros(3)} | change)


@pytest.mark.parametrize("make", [linear, network, lambda **c: environments.from_arrays(MAP, PAYOFF, **c)])
def test_starts_are_standard_normal_unless_said(make: Callable[..., Environment]) -> None:
    size = make().state_size
    drawn = np.random.default_rng(3).standard_normal((4, size))
    assert np.array_equal(make().initial(np.random.default_rng(3), 4), drawn)
    assert np.array_equal(make(initial_scale=0.5).initial(np.random.default_rng(3), 4), 0.5 * drawn)


def test_starts_have_the_mean_given() -> None:
    mean, drawn = np.array([1.0, -2.0, 0.5]), np.random.default_rng(3).standard_normal((4, 3))
    made = linear(initial_mean=mean, initial_scale=2.0)
    assert np.array_equal(made.initial(np.random.default_rng(3), 4), mean + 2 * drawn)


def test_starts_may_all_be_the_same() -> None:
    mean = np.array([1.0, -2.0, 0.5])
    made = linear(initial_mean=mean, initial_scale=0.0)
    assert np.array_equal(made.initial(np.random.default_rng(3), 2), [mean, mean])


def test_costs_of_a_network_default_to_a_quarter_of_the_mean_square() -> None:
    made = network(goal=np.array([1.0, 0.0, -1.0]))
    state, action = np.array([[2.0, 3.0, 1.0]]), np.array([[1.0, -2.0]])
    assert made.reward(state, action)[0] == pytest.approx(np.exp(-(1 + 9 + 4) / 12 - 5 / 8), rel=ALGEBRA)
    steep = network(state_cost=2 * np.eye(3), action_cost=3 * EYE)
    assert steep.reward(state / 10, action / 10)[0] == pytest.approx(np.exp(-2 * 0.14 - 3 * 0.05), rel=ALGEBRA)


def test_a_linear_quadratic_environment_by_hand() -> None:
    A, B = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[0.5], [1.0]])
    made = environments.linear_quadratic(A, B, 2 * EYE, np.array([[3.0]]), goal=np.array([1.0, 0.0]))
    assert made.transition(np.array([[1.0, 2.0]]), np.array([[4.0]])).tolist() == [[7.0, 2.0]]
    assert made.reward(np.array([[2.0, 2.0]]), np.array([[1.0]])).tolist() == [-13.0]
    assert (made.state_size, made.action_size) == (2, 1)
    assert environments.linear_quadratic(A, B, EYE, EYE[:1, :1]).reward(EYE[:1], np.zeros((1, 1))).tolist() == [-1.0]


def test_laws_of_a_random_linear_quadratic_environment() -> None:
    """‖A‖₂ = norm; entries of B of variance 1/A; Q and R are Wishart of mean I, plus 0.1."""
    made = environments.random_linear_quadratic(np.random.default_rng(0), 60, 40)
    inner, payoff = made.dynamics.inner, made.payoff
    assert np.linalg.svd(inner[:, :60], compute_uv=False)[0] == pytest.approx(0.9, rel=1e3 * ALGEBRA)
    assert np.var(inner[:, 60:]) == pytest.approx(1 / 40, rel=0.1)
    for cost, size in ((payoff.state_cost, 60), (payoff.action_cost, 40)):
        values = np.linalg.eigvalsh(cost)
        assert 0.1 <= values[0] < 0.11
        assert np.trace(cost) / size == pytest.approx(1.1, rel=0.1)
    other = environments.random_linear_quadratic(np.random.default_rng(0), 3, 2, norm=0.5)
    assert np.linalg.svd(other.dynamics.inner[:, :3], compute_uv=False)[0] == pytest.approx(0.5, rel=1e3 * ALGEBRA)


def test_laws_of_a_random_tanh_network() -> None:
    """Variances 1/S, 1/A, 0.09, 1/width and 1; hidden width S unless said."""
    made = environments.random_tanh_network(np.random.default_rng(0), 60, 40, width=400)
    weights = made.dynamics
    assert weights.inner.shape == (400, 100)
    for part, variance in (
        (weights.inner[:, :60], 1 / 60),
        (weights.inner[:, 60:], 1 / 40),
        (weights.shift, 0.09),
        (weights.outer, 1 / 400),
        (made.payoff.goal, 1.0),
    ):
        assert np.var(part) == pytest.approx(variance, rel=0.3)
    assert environments.random_tanh_network(np.random.default_rng(0), 3, 2).dynamics.inner.shape == (3, 5)


TRANSPOSED = "; it looks transposed: Jacobians and matrices are (out, in)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear(A=np.ones((3, 2))), "A has shape (3, 2), expected (3, 3)"),
        (lambda: linear(B=np.ones(3)), "B has shape (3,), expected (S, A)"),
        (lambda: linear(B=np.full((3, 2), np.nan)), "B holds non-finite values; give finite numbers"),
        (lambda: linear(Q=EYE), "Q has shape (2, 2), expected (3, 3)"),
        (lambda: linear(R=np.eye(3)), "R has shape (3, 3), expected (2, 2)"),
        (lambda: linear(goal=np.zeros(2)), "goal has shape (2,), expected (3,)"),
        (lambda: linear(initial_mean=np.zeros(2)), "initial_mean has shape (2,), expected (3,)"),
        (lambda: network(state_weight=np.ones(5)), "weights have shapes (5,), (5, 2); expected matrices"),
        (lambda: network(action_weight=np.ones(5)), "weights have shapes (5, 3), (5,); expected matrices"),
        (lambda: network(action_weight=np.ones((4, 2))), "action_weight has shape (4, 2), expected (5, 2)"),
        (
            lambda: network(state_weight=np.full((5, 3), np.inf)),
            "state_weight holds non-finite values; give finite numbers",
        ),
        (lambda: network(bias=np.zeros(4)), "bias has shape (4,), expected (5,)"),
        (
            lambda: network(output_weight=np.ones((5, 3))),
            f"output_weight has shape (5, 3), expected (3, 5){TRANSPOSED}",
        ),
        (lambda: network(state_cost=EYE), "state_cost has shape (2, 2), expected (3, 3)"),
        (lambda: network(action_cost=np.eye(3)), "action_cost has shape (3, 3), expected (2, 2)"),
        (lambda: network(goal=np.zeros(2)), "goal has shape (2,), expected (3,)"),
    ],
)
def test_arrays_that_do_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((systems.pendulum, name) for name in ("time_step", "gravity", "torque", "damping", "cost")),
        *((systems.obstacle, name) for name in ("time_step", "radius", "height", "action_cost")),
        (lambda width: systems.bandit(EYE, width=width), "width"),
        (lambda time_step: systems.shared_point_mass(EYE[0], time_step=time_step), "time_step"),
    ],
)
@pytest.mark.parametrize("number", [0.0, -1.0, np.inf, np.nan])
def test_numbers_that_have_to_be_positive(make: Callable[..., Environment], name: str, number: float) -> None:
    with pytest.raises(ValueError, match=whole(f"{name} must be a positive number, got {number}")):
        make(**{name: number})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unchecked(systems.bandit)(np.zeros(3)), "target has shape (3,), expected (A, S) of finite numbers"),
        (lambda: systems.bandit(np.full((2, 2), np.inf)), "target has shape (2, 2), expected (A, S) of finite numbers"),
        (
            lambda: systems.pendulum(damping=1.0),
            "damping must lie in (0, 1), got 1.0; it is the share of speed lost in one step",
        ),
        (
            lambda: unchecked(systems.shared_point_mass)(EYE),
            "theta has shape (2, 2), expected (P,) of finite numbers",
        ),
        (
            lambda: unchecked(systems.shared_point_mass)(EYE[0], start=np.zeros((2, 3))),
            "start has shape (2, 3), expected (2, 2) of finite numbers, to fit theta",
        ),
        (
            lambda: systems.shared_point_mass(EYE[0], gain=np.array([0.0, np.nan])),
            "gain has shape (2,), expected (2,) of finite numbers, to fit theta",
        ),
        (
            lambda: unchecked(systems.shared_point_mass)(EYE[0], price=np.zeros(3)),
            "price has shape (3,), expected (2,) of finite numbers, to fit theta",
        ),
    ],
)
def test_refusals_of_named_systems(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def test_starts_of_named_systems_fill_their_boxes() -> None:
    """Bandit ±1; pendulum every angle and ω in ±1; obstacle within 0.1 of (−1, 0, 0, 0)."""
    rng = np.random.default_rng(0)
    start = systems.pendulum().initial(rng, 1000)
    turned = [systems.bandit(EYE).initial(rng, 1000), start[:, 2], np.arctan2(start[:, 1], start[:, 0]) / np.pi]
    for x in (*turned, (systems.obstacle().initial(rng, 1000) - [-1.0, 0.0, 0.0, 0.0]) / 0.1):
        assert np.all(np.abs(x) <= 1 + 1e3 * ALGEBRA)
        assert np.all(x.min(0) < -0.98)
        assert np.all(x.max(0) > 0.98)


def test_the_bandit_is_one_wide_by_default() -> None:
    assert systems.bandit(EYE).reward(np.zeros((1, 2)), np.ones((1, 2)))[0] == pytest.approx(np.exp(-1), rel=ALGEBRA)


FULL = np.array([[1.0, 0.5], [0.25, 2.0]])


@pytest.mark.parametrize("cost", [np.diag([1.0, 3.0]), FULL], ids=["diagonal", "full"])
@pytest.mark.parametrize("goal", [None, np.array([0.5, -0.5])], ids=["origin", "goal"])
@pytest.mark.parametrize("exponential", [False, True])
def test_payoffs_by_columns_equal_those_by_rows(cost: np.ndarray, goal: np.ndarray | None, exponential: bool) -> None:
    p = Payoff(cost, 0.5 * EYE, goal, exponential)
    slopes, x = payoffs.slopes(p), np.concatenate([STATE, ACTION], axis=1).T[None].copy()
    kept, reward, out = x.copy(), np.empty((1, 2)), np.empty_like(x)
    payoffs.reward_columns(p, slopes, x, np.empty_like(x), reward)
    payoffs.gradient_columns(p, slopes, x, reward, out)
    assert np.array_equal(x, kept)
    np.testing.assert_allclose(reward[0], payoffs.reward(p, STATE, ACTION), rtol=ALGEBRA)
    np.testing.assert_allclose(out[0, :2].T, payoffs.state_gradient(p, STATE, ACTION), rtol=ALGEBRA)
    np.testing.assert_allclose(out[0, 2:].T, payoffs.action_gradient(p, STATE, ACTION), rtol=ALGEBRA)


def test_slopes_use_a_column_only_where_both_costs_are_diagonal() -> None:
    diagonal = payoffs.slopes(Payoff(np.diag([1.0, 3.0]), np.array([[2.0]]), np.array([4.0, 5.0])))
    assert diagonal.diagonal.tolist() == [[-2.0], [-6.0], [-4.0]]
    assert diagonal.total.tolist() == [-1.0, -3.0, -2.0]
    assert diagonal.centre.tolist() == [[4.0], [5.0], [0.0]]
    for p in (Payoff(FULL, EYE), Payoff(EYE, FULL)):
        full = payoffs.slopes(p)
        assert full.diagonal is None
        assert full.centre is None
        assert full.total.tolist() == [0.5] * 4
        assert np.array_equal(full.state, -(p.state_cost + p.state_cost.T))
        assert np.array_equal(full.action, -(p.action_cost + p.action_cost.T))


def test_panels_by_default_and_their_digits_at_both_ends() -> None:
    """128 panels of 20 nodes; nodes keep their relative digits near an end at zero, on either side."""
    right, weight = panels((0.0, 1.0), ())
    left, mirrored = panels((-1.0, 0.0), ())
    assert len(right) == 128 * 20
    np.testing.assert_allclose(left, -right[::-1], rtol=CLOSED_FORM)
    np.testing.assert_allclose(mirrored, weight[::-1], rtol=CLOSED_FORM)
    assert len(panels((0.0, 1.0), (0.0, 0.25, 1.0), count=4)[0]) == 4 * 20


def test_point_mass_by_hand_with_and_without_theta() -> None:
    """p' = p + Δv, v' = v + Δ·e^(gain·θ)·a; r = −p² − v²/10 − e^(price·θ)·a²/20; start (−1, 0) + start·θ."""
    theta, state, action = np.array([0.5, -1.0]), np.array([[2.0, 3.0]]), np.array([[4.0]])
    plain = systems.shared_point_mass(theta)
    assert plain.transition(state, action)[0] == pytest.approx([2.6, 3.8])
    assert plain.reward(state, action)[0] == pytest.approx(-5.7)
    assert plain.initial(np.random.default_rng(0), 4000).mean(0) == pytest.approx([-1.0, 0.0], abs=0.01)
    assert plain.initial(np.random.default_rng(0), 4000).std(0) == pytest.approx([0.1, 0.1], rel=0.05)
    first = plain.initial(np.random.default_rng(5), 1)
    assert np.array_equal(first, [-1.0, 0.0] + 0.1 * np.random.default_rng(5).standard_normal((1, 2)))
    gain, price, start = np.array([1.0, 1.0]), np.array([2.0, 0.0]), np.array([[2.0, 0.0], [0.0, 3.0]])
    shared = systems.shared_point_mass(theta, gain=gain, price=price, start=start, time_step=0.5)
    for made in (shared, shared.parameters.at(theta)):
        assert made.transition(state, action)[0] == pytest.approx([3.5, 3 + 2 * np.exp(-0.5)])
        assert made.reward(state, action)[0] == pytest.approx(-4.9 - 0.8 * np.e)
        assert made.initial(np.random.default_rng(0), 4000).mean(0) == pytest.approx([0.0, -3.0], abs=0.01)
        assert made.dynamics is not None
        assert made.dynamics.shift.tolist() == [0.0, 0.0]
        assert made.dynamics.inner @ [2.0, 3.0, 4.0] == pytest.approx(made.transition(state, action)[0])
    moved = shared.parameters.at(theta + 1)
    assert moved.transition(state, action)[0] == pytest.approx([3.5, 3 + 2 * np.exp(1.5)])
