"""S02: what the score-function form needs besides a density that is differentiable in θ."""

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.continuous.noise import panels
from vgrad_lab.experiments import verify_continuous_one_step as checks


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.s02_dominated(seed=seed, examples=3).passed


def test_counterexample() -> None:
    found = checks.s02_moving_support()
    assert found.refutes
    assert abs(found.claimed + 0.5) < 1e-9
    assert abs(found.true - 0.5) < 1e-6


def test_sign_density() -> None:
    """p = ½(1 + sgn x·ψ(θ/|x|)), ψ(u) = u|u|/(1+u²), c = sgn x: ∂_θ p(x; 0) = 0 everywhere, and F'(0) = π/2."""

    def psi(u: np.ndarray) -> np.ndarray:
        return u * np.abs(u) / (1 + u**2)

    def mean(theta: float) -> float:
        x, weight = panels((0.0, 1.0), tuple(theta * 2.0**k for k in range(-6, 14)))
        return float(weight @ psi(theta / x))  # both signs of x give the same half

    for theta in (0.5, 0.1, 0.01):
        assert abs(mean(theta) - theta * (np.pi / 2 - np.arctan(theta))) < 1e-9
    slope = mean(1e-4) / 1e-4
    assert abs(slope - np.pi / 2) < 1e-3
    score_form = [abs(psi(np.array(h / 0.3)) / h) for h in (1e-2, 1e-3, 1e-4)]
    assert score_form[0] > score_form[1] > score_form[2]
    assert score_form[2] < 2e-3  # ∂_θ p(x; 0) → 0 at each x, so the score-function form is 0
