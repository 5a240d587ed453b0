"""K09: the density of soft tokens."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab import strategies
from vgrad_lab.discrete.soft_tokens import clamped_nodes, density_gradient, gumbel_nodes, to_logits
from vgrad_lab.experiments import verify_neighbours as checks
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE


@settings(max_examples=10)
@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.k09_density(seed=seed, examples=2).passed


@settings(max_examples=10)
@given(strategies.seeds())
def test_marginal(seed: int) -> None:
    assert checks.k09_marginal(seed=seed, examples=1).passed


def test_the_average_is_a_fraction() -> None:
    found = checks.k09_average()
    assert found.refutes
    assert found.claimed == pytest.approx(found.true / 3, abs=ALGEBRA)


def test_dropped_entries_turn_it() -> None:
    """Two of three tokens have log p > −3: in the logits the direction is no multiple of the true one."""
    log_p = checks.log_softmax(np.array([1.0, 0.5, -4.0]))
    nodes = gumbel_nodes(log_p)

    def direction(entries: np.ndarray | None) -> np.ndarray:
        found = density_gradient(nodes, lambda y: y[:, 2], temperature=1.0, entries=entries, mean=True)
        return to_logits(log_p, found)

    whole, part = direction(None), direction(log_p > -3)
    assert part @ whole / np.linalg.norm(part) / np.linalg.norm(whole) < 0.9


def test_a_clamp_breaks_it() -> None:
    found = checks.k09_clamp()
    assert found.refutes
    assert [found.claimed, found.true] == pytest.approx([0.1985, 0.2194], abs=5e-5)
    log_p = checks.log_softmax(checks.LOGITS)
    stopped = density_gradient(clamped_nodes(log_p), checks.first_token, temperature=0.5, pass_bounds=False)
    assert to_logits(log_p, stopped)[0] == pytest.approx(0.158, abs=5e-4)
    wide = clamped_nodes(log_p, clamp=(-4.0, 40.0), count=100)
    free = density_gradient(wide, checks.first_token, temperature=1.0)
    exact = checks.pathwise(gumbel_nodes(log_p), checks.first_token_slope, temperature=1.0)
    np.testing.assert_allclose(free, exact, rtol=0, atol=QUADRATURE, err_msg="a clamp out of reach changes nothing")


def test_another_scale_breaks_it() -> None:
    found = checks.k09_scale()
    assert found.refutes
    assert found.claimed == pytest.approx(1 - math.gamma(1.5), abs=QUADRATURE)
