"""S03: what the pathwise derivative needs, and when it has the smaller variance."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies, verify
from vgrad_lab.continuous.noise import NOISES
from vgrad_lab.continuous.variance import one_step_moments
from vgrad_lab.experiments import verify_continuous_one_step as checks
from vgrad_lab.tolerances import QUADRATURE


@pytest.mark.parametrize("reward", list(checks.REWARDS))
@given(strategies.noises(), strategies.grid_arrays(1, bound=2.0))
def test_holds(reward: str, noise: tuple[str, float], mean: np.ndarray) -> None:
    value, slope, breaks = checks.REWARDS[reward]
    name, scale = noise
    found = verify.score_and_pathwise(NOISES[name](scale), value, slope, mean=float(mean[0]), breaks=breaks)
    assert abs(found.pathwise - found.truth) <= QUADRATURE * max(1.0, abs(found.truth))


def test_counterexample() -> None:
    found = checks.s03_heaviside()
    assert found.refutes
    assert found.claimed == 0
    assert abs(found.true - 0.38139) < 1e-5


@given(strategies.seeds())
def test_variances(seed: int) -> None:
    assert checks.s03_variance(seed=seed, examples=3).passed


def test_flip() -> None:
    assert abs(checks.s03_flip() - 1.109) < 5e-4
    found = [one_step_moments("sine", frequency=w) for w in (0.5, 1.0, 2.0, 5.0, 10.0)]
    ratios = [moments.pathwise / moments.score_function for moments in found]
    np.testing.assert_allclose(ratios, [0.020, 0.60, 4.49, 25, 100], rtol=0.01)
