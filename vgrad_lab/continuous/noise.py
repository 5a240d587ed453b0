"""Noise of shift policies: frozen dataclasses of plain functions, with where the density jumps.

Components of an action are independent and share one density ν. Lemma 1 of the paper needs a ν without jumps; ``jumps``
lists them, so that the correction can be computed and checked. ``noise_families`` holds the laws with a shape, and
``noise_vector`` the Gaussian whose components are not independent.
"""

from collections.abc import Callable

import numpy as np

from vgrad_lab.continuous.noise_families import epanechnikov, gamma, student_t, triangle, truncated_gaussian
from vgrad_lab.continuous.noise_law import Chart as Chart
from vgrad_lab.continuous.noise_law import Noise as Noise
from vgrad_lab.continuous.noise_law import custom as custom
from vgrad_lab.continuous.noise_law import panels as panels
from vgrad_lab.continuous.noise_law import positive


def gaussian(scale: float = 1.0) -> Noise:
    """N(0, scale²)."""
    s = positive(scale)
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
    s = positive(scale)
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
    s = positive(scale)
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
    s = positive(scale)
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
    s = positive(scale)
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


NOISES: dict[str, Callable[..., Noise]] = {
    "gaussian": gaussian,
    "laplace": laplace,
    "logistic": logistic,
    "uniform": uniform,
    "exponential": exponential,
    "student_t": student_t,
    "triangle": triangle,
    "epanechnikov": epanechnikov,
    "gamma": gamma,
    "truncated_gaussian": truncated_gaussian,
}
"""Noise constructors by name; each takes a scale, and a shape where it has one."""
