import numpy as np
import pytest

from vgrad_lab.continuous import noise
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import QUADRATURE


@pytest.mark.parametrize("name", list(noise.NOISES))
def test_quadrature_moments(name: str) -> None:
    law = noise.NOISES[name](0.7)
    x, weight = law.quadrature((0.123,))
    assert abs(weight.sum() - 1) <= QUADRATURE
    assert abs(weight @ x - law.mean) <= QUADRATURE
    assert abs(weight @ (x - law.mean) ** 2 - law.variance) <= QUADRATURE


@pytest.mark.parametrize("name", list(noise.NOISES))
def test_draws_follow_the_law(name: str) -> None:
    law = noise.NOISES[name](0.7)
    draws = law.draw(np.random.default_rng(0), (200_000,))
    both = np.stack([draws, (draws - law.mean) ** 2], axis=1)
    assert_mean_close(both, np.array([law.mean, law.variance]), detectable=0.1)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scales(scale: float) -> None:
    for make in noise.NOISES.values():
        with pytest.raises(ValueError, match="a noise scale must be a positive number"):
            make(scale)
