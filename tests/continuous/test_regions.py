"""Quadratures of boxes and balls, the noises on them, and the Cantor functions."""

import math

import numpy as np
import pytest

from tests.helpers import unchecked
from vgrad_lab.continuous import noise_region, noise_singular, regions
from vgrad_lab.continuous.regions import Region
from vgrad_lab.experiments import verify_lemma
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import CLOSED_FORM, QUADRATURE
from vgrad_lab.verify.surface import Piecewise, score_and_pathwise_vector

CUTS = (None, 0.3, -0.2, 5.0, -5.0)
WIDTHS = np.array([0.7, 1.1, 0.9])


def cut_of(size: int, offset: float | None) -> regions.Cut | None:
    return None if offset is None else (np.array([0.8, -0.5, 0.3])[:size], offset)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("offset", CUTS)
def test_volumes_and_surfaces(size: int, offset: float | None) -> None:
    """Measures in closed form, whatever the cut; the divergence theorem for x ↦ (x·x)x."""
    radius, half = 1.3, WIDTHS[:size]
    ball_volume = math.pi ** (size / 2) / math.gamma(size / 2 + 1) * radius**size
    faces = sum(2 * np.prod(2 * np.delete(half, k)) for k in range(size))
    for region, volume, area in (
        (regions.ball(size, radius), ball_volume, size * ball_volume / radius),
        (regions.box(half), np.prod(2 * half), faces),
    ):
        x, weight = region.volume(cut_of(size, offset))
        edge, normal, edge_weight = region.surface(cut_of(size, offset))
        assert np.all(region.contains(x))
        assert abs(weight.sum() - volume) <= CLOSED_FORM * volume
        assert abs(edge_weight.sum() - area) <= CLOSED_FORM * area
        assert np.max(np.abs(np.linalg.norm(normal, axis=1) - 1)) <= CLOSED_FORM
        flux = edge_weight @ ((edge**2).sum(1) * (edge * normal).sum(1))
        inside = weight @ ((size + 2) * (x**2).sum(1))
        assert abs(flux - inside) <= CLOSED_FORM * abs(inside)


@pytest.mark.parametrize("region", [regions.box(WIDTHS[:2]), regions.box(WIDTHS), regions.ball(3, 1.2)])
@pytest.mark.parametrize("offset", [0.31, -0.17])
def test_the_section_is_the_slope_of_the_volume_below(region: Region, offset: float) -> None:
    """d/db of the volume where w·x < b is the section's area over ‖w‖; no section beyond the region."""
    cut = cut_of(region.size, offset)
    assert cut is not None
    area = region.section(cut)[1].sum()

    def below(b: float) -> float:
        x, weight = region.volume((cut[0], b))
        return float(weight[x @ cut[0] < b].sum())

    step = region.room(cut) / 100
    wide, narrow = ((below(offset + h) - below(offset - h)) / (2 * h) for h in (step, step / 2))
    assert abs((4 * narrow - wide) / 3 - area / np.linalg.norm(cut[0])) <= QUADRATURE
    assert region.section((cut[0], 50.0))[1].sum() == 0


def test_noises_draw_what_their_density_says() -> None:
    covariance = np.array([[0.5, 0.2], [0.2, 0.8]])
    for law in (
        noise_region.uniform_on(regions.ball(2, 1.1)),
        noise_region.gaussian_on(regions.box(WIDTHS[:2]), covariance),
    ):
        x, weight = law.volume(None)
        assert abs(weight.sum() - 1) <= QUADRATURE
        draws = law.draw(np.random.default_rng(0), (20000, 1))[:, 0]
        assert np.all(law.region.contains(draws))
        assert np.all(law.density(draws) > 0)
        assert np.all(law.score(np.full((1, 2), 9.0)) == 0)
        assert law.density(np.full((1, 2), 9.0)) == 0
        products = draws[:, :, None] * draws[:, None]
        assert_mean_close(products, np.einsum("n,ni,nj->ij", weight, x, x), detectable=0.05)


def test_a_wide_region_leaves_the_gaussian_alone() -> None:
    law = noise_region.gaussian_on(regions.box(np.array([8.0, 4.0])), np.diag([1.0, 0.04]))
    x, weight = law.volume(None)
    np.testing.assert_allclose(np.einsum("n,ni,nj->ij", weight, x, x), np.diag([1.0, 0.04]), atol=QUADRATURE)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="1 to 3 dimensions"):
        unchecked(regions.box)(np.ones(4))
    with pytest.raises(ValueError, match="half_width must be positive"):
        unchecked(regions.box)(np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="radius must be a positive number"):
        unchecked(regions.ball)(2, math.nan)
    with pytest.raises(ValueError, match="at most 10⁶ nodes"):
        unchecked(regions.ball)(3, 1.0, parts=50)
    with pytest.raises(ValueError, match="the region 2 dimensions"):
        unchecked(noise_region.gaussian_on)(regions.ball(2, 1.0), np.eye(3))
    with pytest.raises(ValueError, match="at most 10⁶ nodes"):
        unchecked(noise_region.gaussian_on)(regions.box(np.ones(3)), 1e-6 * np.eye(3))
    noise, reward, _ = verify_lemma.draw_step(np.random.default_rng(0), 2)
    flat = Piecewise(reward.below, reward.below_slope, reward.above, reward.above_slope, np.zeros(2), 0.0)
    with pytest.raises(ValueError, match="expected a vector of 2 numbers"):
        unchecked(score_and_pathwise_vector)(noise, flat, mean=np.zeros(2))
    with pytest.raises(ValueError, match="no break inside"):
        noise_singular.cantor_tent(1.0).quadrature((0.5,))


def test_cantor_function_and_tent() -> None:
    x = np.array([-1.0, 0.0, 1 / 9, 0.25, 0.5, 0.6, 8 / 9 + 1e-12, 1.0, 2.0])
    np.testing.assert_allclose(noise_singular.cantor_function(x), [0, 0, 0.25, 1 / 3, 0.5, 0.5, 0.75, 1, 1], atol=1e-6)
    nodes, weight = noise_singular.cantor_rule()
    moments = [weight @ nodes**k for k in range(5)]
    np.testing.assert_allclose(moments, [1, 1 / 2, 3 / 8, 5 / 16, 87 / 320], atol=CLOSED_FORM)
    law = noise_singular.cantor_tent(1.3)
    u, share = law.quadrature(())
    assert abs(share.sum() - 1) <= CLOSED_FORM
    assert abs(share @ u**2 - law.variance) <= CLOSED_FORM
    draws = law.draw(np.random.default_rng(1), (20000,))
    assert_mean_close(np.stack([draws, draws**2], 1), np.array([0.0, law.variance]), detectable=0.05)
