"""S06: the Bellman equation of the value gradient."""

import numpy as np
from hypothesis import given, settings

from vgrad_lab import strategies
from vgrad_lab.experiments import verify_continuous as checks


@settings(max_examples=50)
@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.s06_bellman(seed=seed, examples=4).passed


def test_without_domination_it_fails() -> None:
    """T = 1, a = s³ξ⁻²e^{−s²/ξ}, r = a: V(s) = se^{−s²} has slope 1 at 0, and Dr is 0 there for every ξ."""
    noise = np.linspace(0, 1, 1001)[1:]

    def reward(s: float) -> np.ndarray:
        return s**3 / noise**2 * np.exp(-(s**2) / noise)

    slopes = (reward(1e-5) - reward(-1e-5)) / 2e-5
    assert np.max(np.abs(slopes)) < 1e-3
    s = 0.3
    u = np.linspace(0, 1, 200_001)
    value = np.trapezoid(
        np.where(u > 0, s**3 / np.maximum(u, 1e-12) ** 2 * np.exp(-(s**2) / np.maximum(u, 1e-12)), 0), u
    )
    assert abs(value - s * np.exp(-(s**2))) < 1e-9
