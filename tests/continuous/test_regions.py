"""Quadratures of boxes and balls, the noises on them, and the Cantor functions."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers import unchecked, whole
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


@pytest.mark.parametrize(
    "make", [lambda: regions.box(WIDTHS[:2]), lambda: regions.box(WIDTHS), lambda: regions.ball(3, 1.2)]
)
@pytest.mark.parametrize("offset", [0.31, -0.17])
def test_the_section_is_the_slope_of_the_volume_below(make: Callable[[], Region], offset: float) -> None:
    """d/db of the volume where w·x < b is the section's area over ‖w‖; no section beyond the region."""
    region = make()
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


GRID = "panels in each of {} directions: give at least 1, and at most 10⁶ nodes in all"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (
                lambda size=size: unchecked(regions.box)(np.ones(size)),
                f"a region has 1 to 3 dimensions, got {size}: its quadrature is a grid",
            )
            for size in (0, 4)
        ),
        *(
            (
                lambda width=width: unchecked(regions.box)(np.array([1.0, width])),
                f"half_width must be positive, got {np.array([1.0, width])}",
            )
            for width in (-1.0, 0.0, math.inf, math.nan)
        ),
        *(
            (
                lambda radius=radius: unchecked(regions.ball)(2, radius),
                f"radius must be a positive number, got {radius}",
            )
            for radius in (-1.0, 0.0, math.inf, math.nan)
        ),
        (lambda: unchecked(regions.ball)(3, 1.0, parts=50), f"50 {GRID.format(3)}"),
        (lambda: unchecked(regions.ball)(3, 1.0, parts=7), f"7 {GRID.format(3)}"),
        (lambda: unchecked(regions.box)(np.ones(2), parts=0), f"0 {GRID.format(2)}"),
        (
            lambda: unchecked(noise_region.gaussian_on)(regions.ball(2, 1.0), np.eye(3)),
            "covariance has shape (3, 3), the region 2 dimensions",
        ),
        (
            lambda: unchecked(noise_region.gaussian_on)(regions.box(np.ones(3)), 1e-6 * np.eye(3)),
            f"400 {GRID.format(3)}",
        ),
        (
            lambda: noise_singular.cantor_tent(1.3).quadrature((-1.3, 0.5)),
            "the quadrature of this noise allows no break inside ±1.3, got (-1.3, 0.5)",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def test_a_mean_of_another_size() -> None:
    noise, reward, _ = verify_lemma.draw_step(np.random.default_rng(0), 2)
    flat = Piecewise(reward.below, reward.below_slope, reward.above, reward.above_slope, np.zeros(2), 0.0)
    with pytest.raises(ValueError, match="expected a vector of 2 numbers"):
        unchecked(score_and_pathwise_vector)(noise, flat, mean=np.zeros(2))


@pytest.mark.parametrize(("size", "count"), [(1, 24), (2, 24), (3, 16)])
def test_grids_have_one_panel_a_line_unless_told(size: int, count: int) -> None:
    for parts in (1, 3):
        named = {} if parts == 1 else {"parts": parts}
        box, ball = regions.box(WIDTHS[:size], **named), regions.ball(size, 1.3, **named)
        assert len(box.volume(None)[1]) == (count * parts) ** size
        assert len(ball.volume(None)[1]) == (24 * parts) ** size
        assert len(ball.surface(None)[2]) == 2 * (24 * parts) ** (size - 1)
        for region, again in ((box, regions.box(WIDTHS[:size])), (ball, regions.ball(size, 1.3))):
            assert len(again.refined(parts).volume(None)[1]) == len(region.volume(None)[1])
    assert regions.box(WIDTHS[:1], parts=62500).size == 1  # 10⁶ nodes are not too many
    assert regions.box(WIDTHS, parts=6).size == 3


def test_edges_belong_to_a_region_and_rows_are_apart() -> None:
    for region in (regions.box(np.array([1.0, 2.0])), regions.ball(2, 1.0)):
        x = np.array([[[1.0, 0.0], [0.0, -1.0], [1.1, 0.0]], [[0.0, 0.0], [0.0, 2.5], [-1.0, 0.0]]])
        assert region.contains(x).tolist() == [[True, True, False], [True, False, True]]
    half = unchecked(regions.box)(np.array([1, 2])).half_width
    assert half.dtype == float


def test_room_to_a_corner_and_to_touching() -> None:
    cut = np.array([3.0, 4.0]), 5.0
    assert regions.box(np.array([1.0, 2.0])).room(cut) == pytest.approx(0.0)  # through (−1, 2)
    assert regions.box(np.array([1.0, 0.25])).room(cut) == pytest.approx(0.2)  # 4 and 5, over 5
    assert regions.box(np.array([1.0, 0.25])).room((cut[0], -5.0)) == pytest.approx(0.2)
    assert regions.box(np.array([1.0, 0.25])).room((cut[0], 1.0)) == pytest.approx(0.2)  # 2 and 1
    assert regions.ball(2, 1.5).room(cut) == pytest.approx(0.5)
    assert regions.ball(2, 0.7).room((cut[0], -5.0)) == pytest.approx(0.3)


def test_room_of_a_noise_is_the_least_of_three() -> None:
    cut, far = (np.array([3.0, 4.0]), 5.0), (np.array([3.0, 4.0]), 50.0)
    flat = noise_region.uniform_on(regions.box(np.array([1.0, 0.25])))
    assert [flat.room(x) for x in (None, far, cut)] == pytest.approx([0.25, 0.25, 0.2])
    bell = noise_region.gaussian_on(regions.box(np.array([1.0, 0.25])), np.diag([0.04, 0.01]))
    assert [bell.room(x) for x in (None, far, cut)] == pytest.approx([0.1, 0.1, 0.1])
    assert bell.room((cut[0], 4.05)) == pytest.approx(0.01)


def test_sections_of_intervals_and_at_the_edge() -> None:
    for region in (regions.box(np.array([1.0])), regions.ball(1, 1.0)):
        for offset, expected in ((0.5, [0.25]), (-1.0, [-0.5]), (2.5, []), (-7.0, [])):
            x, weight = region.section((np.array([2.0]), offset))
            assert x[weight > 0].ravel().tolist() == pytest.approx(expected)
            assert weight.sum() == (1.0 if expected else 0.0)


def test_densities_of_a_noise_keep_all_axes() -> None:
    law, x = noise_region.uniform_on(regions.box(np.array([0.5, 2.0]))), np.zeros((3, 4, 2))
    assert law.density(x) == pytest.approx(np.full((3, 4), 0.25))
    assert law.density(5 + x).tolist() == np.zeros((3, 4)).tolist()
    assert law.score(x).shape == x.shape
    assert law.draw(np.random.default_rng(0), ()).shape == (2,)


@pytest.mark.parametrize("covariance", [0.01 * np.eye(2), np.array([[0.5, 0.2], [0.2, 0.8]])])
def test_single_draws_of_a_noise_follow_its_density(covariance: np.ndarray) -> None:
    """One draw at a time, and a density above 1."""
    law, rng = noise_region.gaussian_on(regions.box(np.array([0.3, 0.2])), covariance), np.random.default_rng(0)
    x, weight = law.volume(None)
    draws = np.stack([law.draw(rng, (1,))[0] for _ in range(3000)])
    scale = np.sqrt(weight @ x**2)
    assert_mean_close((draws / scale) ** 2, np.ones(2), detectable=0.3)
    assert_mean_close(draws / scale, np.zeros(2), detectable=0.3)


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
    rng = np.random.default_rng(2)
    single = np.array([law.draw(rng, (1,))[0] for _ in range(3000)])
    assert_mean_close(single**2 / law.variance, 1.0, detectable=0.3)
    assert law.draw(rng, (3, 2)).shape == (3, 2)


def test_cantor_function_is_one_from_one_on_and_gives_the_tent_its_density() -> None:
    assert noise_singular.cantor_function(np.array([1.0, 1.5, 2.0])).tolist() == [1.0, 1.0, 1.0]
    law = noise_singular.cantor_tent(2.0)
    assert (law.name, law.mean, law.support, law.variance) == ("cantor_tent", 0.0, (-2.0, 2.0), 5 / 6)
    assert law.density(np.array([0.0, 1.0, -1.0, 2.0, -3.0])).tolist() == [0.5, 0.25, 0.25, 0.0, 0.0]
    assert law.density(np.array([1.5])) == pytest.approx(1 / 6)
    assert noise_singular.cantor_tent().support == (-1.0, 1.0)
    assert len(law.quadrature((-2.0, 2.0))[0]) == len(law.quadrature(())[0])
