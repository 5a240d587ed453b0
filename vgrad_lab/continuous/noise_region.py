"""Noises of a whole action whose density jumps at the boundary of a region: uniform and Gaussian, on boxes and balls.

The boundary is where Lemma 1 gains a surface integral (ledger S08.surface). A policy and an estimator read ``score`` as
they do that of a ``Noise``, on arrays whose last axis is the action.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous.noise_vector import gaussian_vector
from vgrad_lab.continuous.regions import Cut, Region


@dataclass(frozen=True)
class RegionNoise:
    """Law of a whole action inside a region; arrays (…,A), the last axis is the action.

    density: ν(x), (…,), zero outside. score: ∇log ν(x), (…,A), zero outside. draw: (rng, shape) -> (*shape, A).
    volume, section, surface: the quadratures of the region with ν in the weights, so that Σ w g(x) is E g, the integral
    of gν over a hyperplane, and that of gν over the boundary (with outer normals), ν its limit from within. room: (cut)
    -> distance over which E g is smooth while the hyperplane moves.
    """

    region: Region
    density: Callable[[ndarray], ndarray]
    score: Callable[[ndarray], ndarray]
    draw: Callable[[np.random.Generator, tuple[int, ...]], ndarray]
    volume: Callable[[Cut | None], tuple[ndarray, ndarray]]
    surface: Callable[[Cut | None], tuple[ndarray, ndarray, ndarray]]
    section: Callable[[Cut], tuple[ndarray, ndarray]]
    room: Callable[[Cut | None], float]


def uniform_on(region: Region) -> RegionNoise:
    """Uniform on a region: its score is 0, so the score-function form is 0 and wrong. Ledger: S08.surface."""
    height = 1 / float(region.volume(None)[1].sum())
    return _noise(region, lambda x: np.full(x.shape[:-1], height), np.zeros_like, math.inf)


def gaussian_on(region: Region, covariance: Float[ndarray, "A A"]) -> RegionNoise:
    """N(0, C) conditioned on a region.

    ν(x) = exp(−½ xᵀC⁻¹x)/Z inside; a region many standard deviations wide is N(0, C) itself.

    covariance: (A,A), units of action². Raises ValueError for another size, a matrix that ``gaussian_vector`` refuses,
    or a region so wide for C that its grid would exceed 10⁶ nodes. Ledger: S08.surface.
    """
    law = gaussian_vector(covariance)
    if len(law.covariance) != region.size:
        raise ValueError(f"covariance has shape {law.covariance.shape}, the region {region.size} dimensions")
    width = float(np.sqrt(np.linalg.eigvalsh(law.covariance)[0]))
    fine = region.refined(math.ceil(float(region.half_width.max()) / (2.5 * width)))
    x, weight = fine.volume(None)
    mass = float(weight @ law.density(x))
    return _noise(fine, lambda x: law.density(x) / mass, law.score, width)


def _noise(
    region: Region, inside: Callable[[ndarray], ndarray], slope: Callable[[ndarray], ndarray], width: float
) -> RegionNoise:
    """A noise from the density and the score as they are inside."""
    top = float(inside(np.zeros((1, region.size)))[0])

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> ndarray:
        count, found, kept = math.prod(shape), np.zeros((0, region.size)), 1.0
        while len(found) < count:  # uniform on the box around it, kept with probability ν/max ν
            number = 100 + int(1.2 * (count - len(found)) / max(kept, 1e-4))
            x = rng.uniform(-region.half_width, region.half_width, (min(number, 10**6), region.size))
            keep = region.contains(x) & (rng.uniform(size=len(x)) * top <= inside(x))
            found, kept = np.concatenate([found, x[keep]]), float(keep.mean())
        return found[:count].reshape(*shape, region.size)

    def volume(cut: Cut | None = None) -> tuple[ndarray, ndarray]:
        x, weight = region.volume(cut)
        return x, weight * inside(x)

    def surface(cut: Cut | None = None) -> tuple[ndarray, ndarray, ndarray]:
        x, normal, weight = region.surface(cut)
        return x, normal, weight * inside(x)

    def section(cut: Cut) -> tuple[ndarray, ndarray]:
        x, weight = region.section(cut)
        return x, weight * inside(x)

    return RegionNoise(
        region=region,
        density=lambda x: np.where(region.contains(x), inside(x), 0.0),
        score=lambda x: np.where(region.contains(x)[..., None], slope(x), 0.0),
        draw=draw,
        volume=volume,
        surface=surface,
        section=section,
        room=lambda cut: min(width, float(region.half_width.min()), math.inf if cut is None else region.room(cut)),
    )
