"""S25: where headroom is small, and the α that decides it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.impact import headroom_bernoulli


def h(p: float, alpha: float) -> float:
    return float(headroom_bernoulli(np.array([p]), float(alpha))[0])


@given(st.floats(0.05, 30))
def test_peak(alpha: float) -> None:
    peak = 1 / alpha - 1 / np.expm1(alpha)
    assert h(peak, alpha) >= max(h(min(1.01 * peak, 1.0), alpha), h(0.99 * peak, alpha))


@given(st.floats(0.1, 5))
def test_small_when_weak_or_saturated(alpha: float) -> None:
    assert h(1e-6, alpha) <= np.expm1(alpha) * 1e-6 / alpha
    assert h(1 - 1e-6, alpha) <= 1e-6


def test_large_alpha_drops_it() -> None:
    assert h(1e-6, 20) == pytest.approx(0.31, abs=5e-3)
    assert h(1e-6, 100) == pytest.approx(0.86, abs=5e-3)
    assert h(0.05, 20) > h(0.5, 20), "at α = 20 the weak checkpoint has more headroom"
    assert h(0.05, 1) < h(0.5, 1), "at α = 1 the order is the other way round"


def test_evidence_passes() -> None:
    assert checks.s25_peak(examples=3).passed
