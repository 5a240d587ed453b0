"""S24: headroom is well defined, non-negative and monotone in α."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.impact import headroom, headroom_bernoulli

alphas = st.floats(1e-2, 1e3)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), alphas)
def test_bounds_and_monotone(rewards: list[float], alpha: float) -> None:
    reward = np.array(rewards)
    span, h = float(np.ptp(reward)), headroom(reward, alpha)
    slack = 1e-11 * max(span, 1.0) + 1e-13 / alpha
    assert -slack <= h <= min(reward.max() - reward.mean(), alpha * span**2 / 8) + slack
    assert headroom(reward, 2 * alpha) >= h - slack


@given(st.floats(0, 1), alphas)
def test_bernoulli_form(p: float, alpha: float) -> None:
    atoms = headroom(np.array([0.0, 1.0]), alpha, weight=np.array([1 - p, p]))
    assert headroom_bernoulli(np.array([p]), alpha)[0] == pytest.approx(atoms, abs=1e-12)


def test_constant_reward_has_none() -> None:
    assert headroom(np.full(5, 0.3), 2.0) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be positive"):
        headroom(np.array([0.0, 1.0]), alpha)
    with pytest.raises(ValueError, match="alpha must be positive"):
        headroom_bernoulli(np.array([0.5]), alpha)


def test_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        headroom_bernoulli(np.array([1.2]), 1.0)


def test_evidence_passes() -> None:
    assert checks.s24_headroom(examples=3).passed
