import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import whole
from vgrad_lab import strategies, verify
from vgrad_lab.continuous import noise, policies
from vgrad_lab.continuous.noise import Noise
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE

LAWS: dict[str, tuple[Callable[[float], Noise], Callable[[float], object]]] = {
    "gaussian": (noise.gaussian, lambda s: scipy.stats.norm(scale=s)),
    "laplace": (noise.laplace, lambda s: scipy.stats.laplace(scale=s)),
    "logistic": (noise.logistic, lambda s: scipy.stats.logistic(scale=s)),
    "uniform": (noise.uniform, lambda s: scipy.stats.uniform(-s, 2 * s)),
    "exponential": (noise.exponential, lambda s: scipy.stats.expon(scale=s)),
    "student_t": (noise.student_t, lambda s: scipy.stats.t(5, scale=s)),
    "student_t 3": (lambda s: noise.student_t(s, dof=3.0), lambda s: scipy.stats.t(3, scale=s)),
    "student_t 200": (lambda s: noise.student_t(s, dof=200.0), lambda s: scipy.stats.t(200, scale=s)),
    "triangle": (noise.triangle, lambda s: scipy.stats.triang(0.5, loc=-s, scale=2 * s)),
    "epanechnikov": (noise.epanechnikov, lambda s: scipy.stats.beta(2, 2, loc=-s, scale=2 * s)),
    "gamma": (noise.gamma, lambda s: scipy.stats.gamma(2, scale=s)),
    "gamma 1.2": (lambda s: noise.gamma(s, shape=1.2), lambda s: scipy.stats.gamma(1.2, scale=s)),
    "gamma 7": (lambda s: noise.gamma(s, shape=7.0), lambda s: scipy.stats.gamma(7, scale=s)),
    "truncated_gaussian": (noise.truncated_gaussian, lambda s: scipy.stats.truncnorm(-1, 1, scale=s)),
    "truncated_gaussian 3": (
        lambda s: noise.truncated_gaussian(s, bound=3.0),
        lambda s: scipy.stats.truncnorm(-3, 3, scale=s),
    ),
}
NAMES = st.sampled_from(list(LAWS))
SCALES = st.integers(-8, 8).map(lambda i: 2.0 ** (i / 4))


def middle(law: Noise, fraction: float) -> np.ndarray:
    """A point where ν is smooth: ``fraction`` of the way through the law's mass, off its breaks."""
    x, weight = law.quadrature(())
    point = x[np.searchsorted(np.cumsum(weight), fraction)]
    return np.array([point])


def test_every_noise_is_here_and_named_by_its_jumps() -> None:
    assert {name.split()[0] for name in LAWS} == set(noise.NOISES)
    assert set(strategies.CONTINUOUS_NOISES) == {n for n, make in noise.NOISES.items() if not make(1.0).jumps}
    assert set(strategies.JUMPING_NOISES) == {n for n, make in noise.NOISES.items() if make(1.0).jumps}


@given(NAMES, SCALES)
def test_density_is_that_of_scipy(name: str, scale: float) -> None:
    make, reference = LAWS[name]
    law, right = make(scale), reference(scale)
    x = np.linspace(-3.3 * scale, 9.1 * scale, 57)
    np.testing.assert_allclose(law.density(x), right.pdf(x), rtol=CLOSED_FORM, atol=ALGEBRA)
    assert abs(law.mean - right.mean()) <= ALGEBRA * scale
    assert abs(law.variance - right.var()) <= CLOSED_FORM * scale**2


@given(NAMES, SCALES, st.integers(-32, 32).map(lambda i: i / 16))
def test_quadrature_moments_and_masses(name: str, scale: float, cut: float) -> None:
    law = LAWS[name][0](scale)
    x, weight = law.quadrature((cut * scale,))
    assert np.all(weight >= 0)
    assert abs(weight.sum() - 1) <= QUADRATURE
    assert abs(weight[x <= cut * scale].sum() - LAWS[name][1](scale).cdf(cut * scale)) <= QUADRATURE
    assert abs(weight @ x - law.mean) <= QUADRATURE * scale
    assert abs(weight @ (x - law.mean) ** 2 - law.variance) <= QUADRATURE * max(1.0, law.variance)


@given(NAMES, SCALES, st.integers(1, 15).map(lambda i: i / 16))
def test_score_is_the_slope_of_the_log_density(name: str, scale: float, fraction: float) -> None:
    law = LAWS[name][0](scale)
    point, corners = middle(law, fraction), [*law.breaks, *(x for x, _ in law.jumps)]
    room = min([scale, *(abs(point[0] - x) for x in corners)])

    def rates(factor: float, step: float) -> np.ndarray:
        slope = factor * law.score(point)[:, None]
        log = lambda x: np.log(law.density(x))  # noqa: E731
        return verify.taylor_rates(log, lambda _: slope, point, np.array([room]), step=step)

    right = rates(1.0, 0.02)
    assert np.all(np.isinf(right) | (np.abs(right - 2) <= TAYLOR_RATE) | (right > 2))  # infinite where log ν is linear
    if abs(law.score(point)[0]) * room > 0.05:
        assert rates(1 + PLANTED_FAULT, 1e-6)[0] <= 1 + TAYLOR_RATE


@pytest.mark.parametrize("name", list(LAWS))
def test_score_outside_the_support_is_zero_and_a_policy_passes(name: str) -> None:
    law = LAWS[name][0](0.7)
    policy = policies.linear_policy(np.array([[0.3, -0.2]]), noise=law)
    verify.check_policy(policy, np.random.default_rng(0).normal(size=(4, 2)))
    if abs(law.support[0]) < 5:
        outside = np.array([law.support[0] - 0.1, law.support[0] - 5])
        assert not law.density(outside).any()
        assert not law.score(outside).any()
    broken = replace(law, score=lambda x: law.score(x) * (1 + PLANTED_FAULT))
    if name != "uniform":
        with pytest.raises(AssertionError, match=r"noise.score\[0\] is"):
            verify.check_policy(replace(policy, noise=broken), np.zeros((4, 2)))


@pytest.mark.parametrize("name", list(LAWS))
def test_jumps_are_all_and_only_those_listed(name: str) -> None:
    law = LAWS[name][0](0.7)
    listed = dict(law.jumps)
    for place in {*law.breaks, *listed, *(x for x in law.support if abs(x) < 50), 0.0, 0.31}:
        below, above = law.density(np.nextafter(place, [-np.inf, np.inf]))
        assert abs(above - below - listed.get(place, 0.0)) <= ALGEBRA * max(1.0, abs(listed.get(place, 0.0)))
    # What is left of ν' after the jumps integrates to minus their sum: no jump is missing anywhere.
    x, weight = law.quadrature(())
    assert abs(weight @ law.score(x) + sum(listed.values())) <= QUADRATURE


@pytest.mark.parametrize("name", list(LAWS))
def test_draws_follow_the_law(name: str) -> None:
    """Bounded statistics, so that the z-test is calibrated under heavy tails too."""
    law = LAWS[name][0](0.7)
    corner = law.mean + 0.2

    def statistics(x: np.ndarray) -> np.ndarray:
        return np.stack([x / (1 + np.abs(x)), np.cos(x), np.sin(2 * x), (x <= corner) * 1.0], axis=1)

    x, weight = law.quadrature((0.0, corner))
    draws = statistics(law.draw(np.random.default_rng(0), (100_000,)))
    assert_mean_close(draws, weight @ statistics(x), detectable=0.03)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean_close(draws + 0.03, weight @ statistics(x), detectable=0.03)


def test_singular_slopes_are_integrated() -> None:
    """∫ ν/√|a| against scipy's closed form for N(0, 1): E|a|^(−1/2) = 2^(−1/4) Γ(1/4)/√π."""
    x, weight = noise.gaussian().quadrature((0.0,))
    closed = 2**-0.25 * scipy.special.gamma(0.25) / np.sqrt(np.pi)
    assert abs(weight @ np.abs(x) ** -0.5 - closed) <= QUADRATURE


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scales(scale: float) -> None:
    for make in noise.NOISES.values():
        with pytest.raises(ValueError, match=whole(f"a noise scale must be a positive number, got {scale}")):
            make(scale)


DOF = "dof must be a number above 2, got {}: below, the noise has no variance; use a larger one"
SHAPE = "shape must be a number above 1, got {}: at 1 use exponential, below ν is unbounded"
BOUND = "bound must lie in (0, 30] scales, got {}; without a bound use gaussian"


@pytest.mark.parametrize(
    ("make", "number", "message"),
    [
        *((lambda x: noise.student_t(dof=x), x, DOF) for x in (2.0, -1.0, math.nan, math.inf)),
        *((lambda x: noise.gamma(shape=x), x, SHAPE) for x in (1.0, 0.5, math.nan, math.inf)),
        *((lambda x: noise.truncated_gaussian(bound=x), x, BOUND) for x in (0.0, -1.0, 30.5, math.nan, math.inf)),
    ],
)
def test_bad_shapes(make: Callable[[float], Noise], number: float, message: str) -> None:
    with pytest.raises(ValueError, match=whole(message.format(number))):
        make(number)


ENDS = {
    "gaussian": (-9, 9),
    "laplace": (-45, 45),
    "logistic": (-45, 45),
    "uniform": (-1, 1),
    "exponential": (0, 45),
    "triangle": (-1, 1),
    "epanechnikov": (-1, 1),
    "truncated_gaussian": (-1, 1),
}
BREAKS = {"laplace": (0,), "triangle": (-1, 0, 1), "epanechnikov": (-1, 1), "gamma": (0,)}


@pytest.mark.parametrize("name", noise.NOISES)
def test_names_scales_and_ends(name: str) -> None:
    plain, wide = noise.NOISES[name](), noise.NOISES[name](2.0)
    assert plain.name == wide.name == name
    for law, scale in ((plain, 1), (wide, 2)):
        assert law.breaks == tuple(scale * x for x in BREAKS.get(name, ()))
        if name in ENDS:
            assert law.support == tuple(scale * x for x in ENDS[name])
    assert wide.variance == pytest.approx(4 * plain.variance)


def test_shapes_unless_told() -> None:
    for make, option, number in (
        (noise.student_t, "dof", 5.0),
        (noise.gamma, "shape", 2.0),
        (noise.truncated_gaussian, "bound", 1.0),
    ):
        assert make().variance == make(**{option: number}).variance != make(**{option: number + 1}).variance
    assert noise.truncated_gaussian(bound=30.0).support == (-30.0, 30.0)


def test_scores_are_zero_at_the_ends_where_the_density_is() -> None:
    for make in (noise.triangle, noise.epanechnikov):
        assert make(2.0).score(np.array([-2.0, 2.0])).tolist() == [0.0, 0.0]
    assert noise.gamma(2.0).score(np.zeros(1)).tolist() == noise.gamma(2.0).density(np.zeros(1)).tolist() == [0.0]


def test_ends_belong_to_laws_that_jump_there() -> None:
    for law in (noise.uniform(2.0), noise.truncated_gaussian(2.0)):
        (low, up), (high, down) = law.jumps
        x = np.array([low, high])
        assert law.density(x).tolist() == pytest.approx([up, -down])
        assert law.score(1.01 * x).tolist() == [0.0, 0.0]
    assert noise.truncated_gaussian(2.0).score(np.array([-2.0, 2.0, 2.1])).tolist() == [0.5, -0.5, 0.0]
    assert noise.exponential(2.0).density(np.zeros(1)) == [0.5]
    assert noise.exponential(2.0).score(np.array([0.0, -0.1])).tolist() == [-0.5, 0.0]


class Edge(np.random.Generator):
    """Draws one end of every interval."""

    def __init__(self, end: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.end = end

    def uniform(self, low: float = 0.0, high: float = 1.0, size: tuple[int, ...] = ()) -> np.ndarray:
        return np.full(size, (low, high)[self.end])


def test_draws_at_the_edge_stay_inside() -> None:
    law = noise.truncated_gaussian(2.0, bound=30.0)
    assert [law.draw(Edge(end), (1,))[0] for end in (0, 1)] == [-60.0, 60.0]


@pytest.mark.parametrize("name", noise.NOISES)
def test_panels_of_the_quadrature(name: str) -> None:
    law, panels = noise.NOISES[name](), 512 if name in ("student_t", "gamma") else 128
    assert len(law.quadrature()[0]) == 20 * panels
    assert len(law.quadrature((law.support[1] + 1, law.support[0] - 1, *law.support))[0]) == 20 * panels


def flat(**options: object) -> Noise:
    """Uniform on (0, 1)."""
    return noise.custom(
        "flat",
        density=np.ones_like,
        score=np.zeros_like,
        draw=lambda rng, shape: rng.uniform(size=shape),
        mean=0.5,
        variance=1 / 12,
        support=(0.0, 1.0),
        **options,
    )


def test_a_noise_of_ones_own_gets_the_panels_it_asks_for() -> None:
    for options, panels in (({}, 128), ({"count": 3}, 3)):
        x, weight = flat(**options).quadrature(())
        assert len(x) == 20 * panels
        assert abs(weight @ np.exp(x) - np.expm1(1.0)) <= CLOSED_FORM


def test_a_chart_is_not_asked_for_the_ends_of_the_support() -> None:
    """x = 1 − e^(−u) has no u at x = 1."""
    chart = noise.Chart(
        ends=(0.0, 40.0),
        point=lambda u: -np.expm1(-u),
        slope=lambda u: np.exp(-u),
        inverse=lambda x: -math.log1p(-x),
    )
    law = flat(chart=chart, breaks=(0.0, 1.0), count=16)
    for breaks in ((), (0.0, 1.0), (1.0, 2.0)):
        x, weight = law.quadrature(breaks)
        assert len(x) == 20 * 16
        assert abs(weight @ np.exp(x) - np.expm1(1.0)) <= CLOSED_FORM
    x, weight = law.quadrature((0.25,))
    assert abs(weight @ np.abs(x - 0.25) - 0.3125) <= CLOSED_FORM


def test_how_far_the_charts_reach() -> None:
    """Student's t to 10^(18/(dof − 2)) widths √dof, at most 10⁶⁵; gamma from e^(−40/(shape − 1)), at least e^−700."""
    for dof, reach in ((5.0, 1e6), (8.0, 1e3), (2.2, 1e65)):
        law = noise.student_t(2.0, dof=dof)
        low, high = law.support
        assert high == -low == pytest.approx(2 * np.sqrt(dof) * reach, rel=1e-6)
        assert law.quadrature()[0].max() == pytest.approx(high, rel=1e-3)
    for shape, least in ((2.0, -40.0), (5.0, -10.0), (1.05, -700.0)):
        law = noise.gamma(2.0, shape=shape)
        assert law.support == (0.0, pytest.approx(2 * scipy.special.gammainccinv(shape, 1e-18)))
        assert np.log(law.quadrature()[0].min() / 2) == pytest.approx(least, abs=1e-2)
