"""Noise of shift policies: frozen dataclasses of plain functions, with where the density jumps.

Components of an action are independent and share one density ν. Lemma 1 of the paper needs a ν without jumps; ``jumps``
lists them, so that the correction can be computed and checked.
"""

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
) -> Noise:
    """A noise from its functions; the quadrature follows. ``vgrad_lab.verify.check_policy`` tests that they agree."""

    def quadrature(extra: tuple[float, ...] = ()) -> tuple[ndarray, ndarray]:
        nodes, weights = panels(support, (*breaks, *extra))
        return nodes, weights * density(nodes)

    return Noise(name, density, score, draw, mean, variance, support, breaks, jumps, quadrature)


def panels(
    support: tuple[float, float], breaks: tuple[float, ...], *, count: int = 64
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Nodes and weights of ∫ over ``support`` by 20-point Gauss–Legendre panels, none of which straddles a break.

    Each smooth stretch gets panels in proportion to its length, about ``count`` in all.
    """
    low, high = support
    points = sorted({low, high, *(x for x in breaks if low < x < high)})
    edges = [np.linspace(a, b, 1 + int(np.ceil(count * (b - a) / (high - low)))) for a, b in pairwise(points)]
    left, width = np.concatenate([e[:-1] for e in edges]), np.concatenate([np.diff(e) for e in edges])
    nodes = left[:, None] + width[:, None] * (_PANEL_NODES + 1) / 2
    return nodes.ravel(), (width[:, None] * _PANEL_WEIGHTS / 2).ravel()


def _positive(scale: float) -> float:
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"a noise scale must be a positive number, got {scale}")
    return float(scale)


def gaussian(scale: float = 1.0) -> Noise:
    """N(0, scale²)."""
    s = _positive(scale)
    return custom(
        "gaussian",
        density=lambda x: np.exp(-0.5 * (x / s) ** 2) / (s * np.sqrt(2 * np.pi)),
        score=lambda x: -x / s**2,
        draw=lambda rng, shape: s * rng.standard_normal(shape),
        mean=0.0,
        variance=s**2,
        support=(-9 * s, 9 * s),
    )


def laplace(scale: float = 1.0) -> Noise:
    """Density exp(−|x|/scale)/(2·scale): a kink at 0, no jump."""
    s = _positive(scale)
    return custom(
        "laplace",
        density=lambda x: np.exp(-np.abs(x) / s) / (2 * s),
        score=lambda x: -np.sign(x) / s,
        draw=lambda rng, shape: rng.laplace(0.0, s, shape),
        mean=0.0,
        variance=2 * s**2,
        support=(-45 * s, 45 * s),
        breaks=(0.0,),
    )


def logistic(scale: float = 1.0) -> Noise:
    """Density 1/(4·scale·cosh²(x/(2·scale)))."""
    s = _positive(scale)
    return custom(
        "logistic",
        density=lambda x: 0.25 / (s * np.cosh(0.5 * x / s) ** 2),
        score=lambda x: -np.tanh(0.5 * x / s) / s,
        draw=lambda rng, shape: rng.logistic(0.0, s, shape),
        mean=0.0,
        variance=(np.pi * s) ** 2 / 3,
        support=(-45 * s, 45 * s),
    )


def uniform(scale: float = 1.0) -> Noise:
    """Uniform on [−scale, scale]: jumps at both ends, which Lemma 1 does not survive (ledger S08)."""
    s = _positive(scale)
    return custom(
        "uniform",
        density=lambda x: np.where(np.abs(x) <= s, 0.5 / s, 0.0),
        score=lambda x: np.zeros_like(x),
        draw=lambda rng, shape: rng.uniform(-s, s, shape),
        mean=0.0,
        variance=s**2 / 3,
        support=(-s, s),
        jumps=((-s, 0.5 / s), (s, -0.5 / s)),
    )


def exponential(scale: float = 1.0) -> Noise:
    """Density exp(−x/scale)/scale for x ≥ 0: one jump, at 0; its mean is ``scale``."""
    s = _positive(scale)
    return custom(
        "exponential",
        density=lambda x: np.where(x >= 0, np.exp(-np.maximum(x, 0) / s) / s, 0.0),
        score=lambda x: np.where(x >= 0, -1 / s, 0.0),
        draw=lambda rng, shape: rng.exponential(s, shape),
        mean=s,
        variance=s**2,
        support=(0.0, 45 * s),
        jumps=((0.0, 1 / s),),
    )


NOISES: dict[str, Callable[[float], Noise]] = {
    "gaussian": gaussian,
    "laplace": laplace,
    "logistic": logistic,
    "uniform": uniform,
    "exponential": exponential,
}
"""Noise constructors by name; each takes a scale."""
