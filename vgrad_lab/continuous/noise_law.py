"""What a noise is, and its quadrature: panels that no break straddles, in a coordinate of the noise's choice."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_PANEL_NODES, _PANEL_WEIGHTS = np.polynomial.legendre.leggauss(20)


@dataclass(frozen=True)
class Noise:
    """One-dimensional law of a noise component.

    density: ν(x). score: (log ν)'(x), zero where ν is zero. draw: (rng, shape) -> samples. mean, variance: moments.
    support: where ν > 0 up to a mass below 1e-17. breaks: points at which ν is not smooth.
    jumps: (x, ν(x+) − ν(x−)) at each discontinuity. quadrature: (breaks) -> nodes ξ and weights w with
    Σ w g(ξ) = ∫ g ν, where ``breaks`` are the points at which g itself is not smooth.
    """

    name: str
    density: Callable[[ndarray], ndarray]
    score: Callable[[ndarray], ndarray]
    draw: Callable[[np.random.Generator, tuple[int, ...]], ndarray]
    mean: float
    variance: float
    support: tuple[float, float]
    breaks: tuple[float, ...]
    jumps: tuple[tuple[float, float], ...]
    quadrature: Callable[[tuple[float, ...]], tuple[ndarray, ndarray]]


@dataclass(frozen=True)
class Chart:
    """A coordinate x = point(u) in which a quadrature is done: for heavy tails and for powers at an end of the support.

    ends: the range of u. slope: dx/du. inverse: u of x.
    """

    ends: tuple[float, float]
    point: Callable[[ndarray], ndarray]
    slope: Callable[[ndarray], ndarray]
    inverse: Callable[[float], float]


def custom(
    name: str,
    *,
    density: Callable[[ndarray], ndarray],
    score: Callable[[ndarray], ndarray],
    draw: Callable[[np.random.Generator, tuple[int, ...]], ndarray],
    mean: float,
    variance: float,
    support: tuple[float, float],
    breaks: tuple[float, ...] = (),
    jumps: tuple[tuple[float, float], ...] = (),
    chart: Chart | None = None,
    count: int = 128,
) -> Noise:
    """A noise from its functions; the quadrature follows. ``vgrad_lab.verify.check_policy`` tests that they agree.

    chart: coordinate of the quadrature, x itself by default. count: about how many panels it gets.
    """

    def quadrature(extra: tuple[float, ...] = ()) -> tuple[ndarray, ndarray]:
        points = (*breaks, *extra)
        if chart is None:
            nodes, weights = panels(support, points, count=count)
            return nodes, weights * density(nodes)
        inside = tuple(chart.inverse(x) for x in points if support[0] < x < support[1])
        u, weights = panels(chart.ends, inside, count=count)
        nodes = chart.point(u)
        return nodes, weights * chart.slope(u) * density(nodes)

    return Noise(name, density, score, draw, mean, variance, support, breaks, jumps, quadrature)


def panels(
    support: tuple[float, float], breaks: tuple[float, ...], *, count: int = 128
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Nodes and weights of ∫ over ``support`` by 20-point Gauss–Legendre panels, none of which straddles a break.

    Each smooth stretch gets panels in proportion to its length, about ``count`` in all. On a stretch of length L from p
    the panels are equal in τ, x = p + L·τ²(3 − 2τ): quadratic at both ends, so that an integrand that is infinite there
    like 1/√|x − p| is smooth in τ.
    """
    low, high = support
    points = sorted({low, high, *(x for x in breaks if low < x < high)})
    nodes, weights = [], []
    for a, b in pairwise(points):
        number = int(np.ceil(count * (b - a) / (high - low)))
        t = ((np.arange(number)[:, None] + (_PANEL_NODES + 1) / 2) / number).ravel()
        nodes.append(np.where(t < 0.5, a + (b - a) * t**2 * (3 - 2 * t), b - (b - a) * (1 - t) ** 2 * (1 + 2 * t)))
        weights.append(np.tile(_PANEL_WEIGHTS, number) * (b - a) * 3 * t * (1 - t) / number)
    return np.concatenate(nodes), np.concatenate(weights)


def positive(scale: float) -> float:
    """The scale as a float. Raises ValueError unless it is a positive number."""
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"a noise scale must be a positive number, got {scale}")
    return float(scale)
