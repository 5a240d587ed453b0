"""Value gradient flow's particles: step, limits, budget, target, best of N."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from tests.helpers import unchecked
from vgrad_lab import strategies
from vgrad_lab.discrete.particles import (
    best_of,
    best_of_n_value,
    budget,
    flow,
    flow_direction,
    gaussian_kernel,
    sharper_budget,
    squared_mmd,
    tilted,
)
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT


def bowl(x: ndarray) -> ndarray:
    """Gradient of R = −‖x‖²/2."""
    return -x


def wave(x: ndarray) -> ndarray:
    """Gradient of R = Σ sin x, at most √A long."""
    return np.cos(x)


@given(strategies.seeds(), st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.0, 0.3, 1.0]), strategies.scales())
def test_direction_is_the_written_sum(seed: int, count: int, size: int, temperature: float, bandwidth: float) -> None:
    x = np.random.default_rng(seed).standard_normal((count, size))
    expected = np.zeros_like(x)
    for i, j in product(range(count), repeat=2):
        k = np.exp(-np.sum((x[j] - x[i]) ** 2) / (2 * bandwidth**2))
        pull = k * wave(x)[j]
        push = -(x[j] - x[i]) / bandwidth**2 * k
        expected[i] += (pull if temperature == 0 else pull / temperature + push) / count
    found = flow_direction(x, wave, temperature=temperature, bandwidth=bandwidth)
    assert np.abs(found - expected).max() <= 100 * ALGEBRA * max(1.0, float(np.abs(expected).max()))
    if np.abs(expected).max() > 0.01:
        assert np.abs(found - (1 + PLANTED_FAULT) * expected).max() > 1e-6


def test_the_limit_of_no_temperature() -> None:
    x = np.random.default_rng(0).standard_normal((5, 2))
    cold = 1e-9 * flow_direction(x, wave, temperature=1e-9)
    np.testing.assert_allclose(cold, flow_direction(x, wave), rtol=0, atol=1e-8)


@given(strategies.seeds(), st.integers(0, 20), strategies.scales(), st.sampled_from([0.1, 1.0]))
def test_both_budgets_hold(seed: int, steps: int, bandwidth: float, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    start = rng.standard_normal((6, 2))
    settings = {"steps": steps, "step": float(rng.uniform(0, 0.2)), "temperature": temperature, "bandwidth": bandwidth}
    found = squared_mmd(start, flow(start, wave, **settings), bandwidth=bandwidth)
    stated, sharper = budget(slope=np.sqrt(2), **settings), sharper_budget(slope=np.sqrt(2), **settings)
    assert found <= sharper + ALGEBRA <= stated + 2 * ALGEBRA


def test_the_sharper_budget_is_attained() -> None:
    """One particle far from any other under a constant slope, no repulsion of its own: it goes c/α εL."""
    start = np.zeros((1, 1))
    end = flow(start, lambda x: np.ones_like(x), steps=5, step=0.1, temperature=1e-4)
    found = squared_mmd(start, end)
    assert found == pytest.approx(-2 * np.expm1(-((0.5 / 1e-4) ** 2) / 2), abs=ALGEBRA)
    near = squared_mmd(start, flow(start, lambda x: np.ones_like(x), steps=1, step=1e-5, temperature=1e-4))
    assert near == pytest.approx(sharper_budget(steps=1, step=1e-5, slope=1.0, temperature=1e-4), rel=1e-3)
    assert budget(steps=1, step=1e-5, slope=1.0, temperature=1e-4) > 10 * near


def test_budgets_by_hand() -> None:
    """L = 3, ε = .1, c = 2, α = .5, σ = 2: D = .3 (4 + 1/(2√e)), and 2D/(2√e), 2 − 2e^{−D²/8}."""
    settings = {"steps": 3, "step": 0.1, "slope": 2.0, "temperature": 0.5, "bandwidth": 2.0}
    way = 0.3 * (4 + 0.5 / np.sqrt(np.e))
    assert budget(**settings) == pytest.approx(way / np.sqrt(np.e), rel=ALGEBRA)
    assert sharper_budget(**settings) == pytest.approx(2 - 2 * np.exp(-(way**2) / 8), rel=ALGEBRA)


def test_direction_of_two_particles_by_hand() -> None:
    """At 0 and 1, σ = ½, no reward: each is pushed off by k/(2σ²) = 2e^{−2}."""
    x = np.array([[0.0], [1.0]])
    found = flow_direction(x, np.zeros_like, temperature=3.0, bandwidth=0.5)
    np.testing.assert_allclose(found, [[-2 * np.exp(-2)], [2 * np.exp(-2)]], atol=ALGEBRA)


def test_no_steps_is_best_of_n() -> None:
    start = np.random.default_rng(2).standard_normal((7, 2))
    np.testing.assert_array_equal(flow(start, bowl, steps=0, step=0.1), start)
    nearest = start[np.argmin((start**2).sum(1))]
    np.testing.assert_array_equal(best_of(start, -(start**2).sum(1)), nearest)


@given(strategies.seeds(), st.integers(2, 4), st.integers(1, 4))
def test_value_of_the_best_of_n_by_enumeration(seed: int, actions: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    reward, p = rng.integers(0, 3, actions).astype(float), rng.dirichlet(np.ones(actions))
    expected = sum(
        float(np.prod(p[list(draw)])) * reward[list(draw)].max() for draw in product(range(actions), repeat=count)
    )
    assert best_of_n_value(reward, p, count) == pytest.approx(expected, abs=ALGEBRA)


def test_mean_reward_rises_but_the_best_may_fall() -> None:
    """Σ_ij k_ij ∂R_i·∂R_j ≥ 0; yet a neighbour's slope drags a particle off the summit it stands on."""
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((6, 2))
        assert (wave(x) * flow_direction(x, wave)).sum() >= 0
    pair = np.array([[0.0], [0.5]])
    moved = flow(pair, bowl, steps=1, step=0.1)
    assert (moved**2).sum(1).min() > 0
    assert (moved**2).mean() < (pair**2).mean()
    apart = flow_direction(pair * 0.1, bowl, temperature=5.0)
    assert (bowl(pair * 0.1) * apart).sum() < 0, "repulsion may lower the mean reward"


@given(strategies.seeds(), st.integers(2, 6), strategies.scales())
def test_the_target_is_the_best_trade(seed: int, actions: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    reward, ref, other = rng.standard_normal(actions), *rng.dirichlet(np.ones(actions), 2)
    ref, other = (0.99 * p + 0.01 / actions for p in (ref, other))

    def trade(p: ndarray) -> float:
        return float(p @ reward - temperature * (p @ np.log(p / ref)))

    best = tilted(reward, temperature, np.log(ref))
    assert best.sum() == pytest.approx(1, abs=ALGEBRA)
    assert trade(best) == pytest.approx(temperature * np.log(ref @ np.exp(reward / temperature)), abs=1e-10)
    assert trade(other) <= trade(best) + ALGEBRA
    shortfall = temperature * float(other @ np.log(other / best))
    assert trade(best) - trade(other) == pytest.approx(shortfall, abs=1e-10)
    np.testing.assert_allclose(tilted(reward, temperature), tilted(reward + 5, temperature), atol=ALGEBRA)


def test_kernel_and_distance() -> None:
    x = np.array([[0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(gaussian_kernel(x, x, bandwidth=1.0), [[1, np.exp(-1)], [np.exp(-1), 1]])
    assert squared_mmd(x, x) == 0
    assert squared_mmd(x, x + 100) == pytest.approx(1 + np.exp(-1))


def test_bad_input() -> None:
    x = np.zeros((2, 1))
    settings = {"steps": 1, "step": 0.1, "slope": 1.0, "temperature": 1.0}
    for change in ({"temperature": 0.0}, {"steps": -1}, {"step": -1.0}, {"slope": float("nan")}, {"bandwidth": 0.0}):
        for bound in (budget, sharper_budget):
            with pytest.raises(ValueError, match="give α, σ > 0"):
                unchecked(bound)(**{**settings, **change})
    for call, message in (
        (lambda: gaussian_kernel(x, x, bandwidth=0.0), "σ > 0"),
        (lambda: flow_direction(x, bowl, temperature=-1.0), "α ≥ 0"),
        (lambda: flow_direction(x, lambda a: a[:1]), "one vector a particle"),
        (lambda: flow(x, bowl, steps=-1, step=0.1), "L ≥ 0"),
        (lambda: unchecked(best_of)(x, np.zeros(3)), "one finite number for each of 2"),
        (lambda: best_of_n_value(np.zeros(2), np.array([0.5, 0.6]), 2), "sum to 1"),
        (lambda: tilted(np.zeros(2), 0.0), "α > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
