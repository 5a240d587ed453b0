"""K10: particles of value gradient flow."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.particles import budget, flow, flow_direction, squared_mmd
from vgrad_lab.experiments import verify_neighbours as checks
from vgrad_lab.tolerances import ALGEBRA


@given(strategies.seeds())
def test_rest(seed: int) -> None:
    assert checks.k10_rest(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_target(seed: int) -> None:
    assert checks.k10_target(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_budget(seed: int) -> None:
    assert checks.k10_budget(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_best_of_n(seed: int) -> None:
    assert checks.k10_best_of_n(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_ascent(seed: int) -> None:
    assert checks.k10_ascent(seed=seed, examples=1).passed


def test_reference_is_forgotten() -> None:
    found = checks.k10_reference()
    assert found.refutes
    assert found.true == pytest.approx(-1 / np.sqrt(6), abs=1e-9)


def test_a_border_breaks_it() -> None:
    """Actions in [0, 1], R = 0: spread evenly the mean direction at x is k(1, x) − k(0, x)."""
    node, weight = np.polynomial.legendre.leggauss(40)
    a, x = (node + 1) / 2, 0.2
    kernel = np.exp(-((a - x) ** 2) / 2)
    found = float(weight / 2 @ (-(a - x) * kernel))
    assert found == pytest.approx(np.exp(-0.32) - np.exp(-0.02), abs=ALGEBRA)
    assert abs(found) > 0.1


def test_a_steeper_reward_breaks_the_budget() -> None:
    start = np.zeros((1, 1))
    settings = {"steps": 1, "step": 0.1, "temperature": 1.0}
    end = flow(start, lambda a: np.full_like(a, 20.0), **settings)
    assert squared_mmd(start, end) > budget(slope=1.0, **settings)
    assert squared_mmd(start, end) <= budget(slope=20.0, **settings)


def test_another_bandwidth_breaks_the_budget() -> None:
    """Way and kernel of bandwidth 1, distance measured with a kernel of bandwidth 0.1."""
    start = np.zeros((1, 1))
    settings = {"steps": 1, "step": 0.1, "temperature": 1.0}
    end = flow(start, np.ones_like, **settings)
    assert squared_mmd(start, end) <= budget(slope=1.0, **settings)
    assert squared_mmd(start, end, bandwidth=0.1) > budget(slope=1.0, **settings)


def test_repulsion_breaks_the_ascent() -> None:
    """Close to the summit repulsion outweighs a flat reward."""
    pair = np.array([[-0.05], [0.05]])
    assert float((-pair * flow_direction(pair, lambda a: -a, temperature=5.0)).sum()) < 0
    assert float((-pair * flow_direction(pair, lambda a: -a)).sum()) > 0


def test_summit() -> None:
    found = checks.k10_summit()
    assert found.refutes
    start = np.array([[0.0], [0.5]])
    end = flow(start, lambda a: -2 * a, steps=1, step=0.1)
    assert (end**2).min() > 0
    assert (end**2).mean() < (start**2).mean()
