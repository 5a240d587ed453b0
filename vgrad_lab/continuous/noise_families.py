"""Noises with a bounded support, a heavy tail or a shape: what Lemma 1 allows, and one law that it does not."""

import math

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous.noise_law import Chart, Noise, custom, positive


def student_t(scale: float = 1.0, *, dof: float = 5.0) -> Noise:
    """Student's t: density ∝ (1 + x²/(dof·scale²))^(−(dof+1)/2), no jump; moments below dof are finite.

    Raises ValueError unless dof > 2, so that mean and variance exist. The quadrature (in u, x ∝ sinh u) goes as far as
    second moments at 1e-17 need; rewards of higher degree, or dof below 2.3, lose digits. Ledger: S08.
    """
    s = positive(scale)
    if not 2 < dof < math.inf:
        raise ValueError(f"dof must be a number above 2, got {dof}: below, the noise has no variance; use a larger one")
    width = s * math.sqrt(dof)
    log_top = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(math.pi) - math.log(width)
    end = math.asinh(math.sqrt(math.expm1(min(36 / (dof - 2), 130.0) * math.log(10))))
    return custom(
        "student_t",
        density=lambda x: np.exp(log_top - (dof + 1) / 2 * np.log1p((x / width) ** 2)),
        score=lambda x: -(dof + 1) * x / (width**2 + x**2),
        draw=lambda rng, shape: s * rng.standard_t(dof, shape),
        mean=0.0,
        variance=s**2 * dof / (dof - 2),
        support=(-width * math.sinh(end), width * math.sinh(end)),
        chart=Chart(
            (-end, end), lambda u: width * np.sinh(u), lambda u: width * np.cosh(u), lambda x: math.asinh(x / width)
        ),
        count=512,
    )


def triangle(scale: float = 1.0) -> Noise:
    """Density (1 − |x|/scale)/scale on [−scale, scale]: three kinks, no jump."""
    s = positive(scale)
    return custom(
        "triangle",
        density=lambda x: np.maximum(1 - np.abs(x) / s, 0) / s,
        score=lambda x: -np.divide(np.sign(x), s - np.abs(x), out=np.zeros_like(x), where=np.abs(x) < s),
        draw=lambda rng, shape: rng.triangular(-s, 0.0, s, shape),
        mean=0.0,
        variance=s**2 / 6,
        support=(-s, s),
        breaks=(-s, 0.0, s),
    )


def epanechnikov(scale: float = 1.0) -> Noise:
    """Density ¾(1 − (x/scale)²)/scale on [−scale, scale]: kinks at both ends, no jump."""
    s = positive(scale)
    return custom(
        "epanechnikov",
        density=lambda x: 0.75 * np.maximum(1 - (x / s) ** 2, 0) / s,
        score=lambda x: -np.divide(2 * x, s**2 - x**2, out=np.zeros_like(x), where=np.abs(x) < s),
        draw=lambda rng, shape: s * (2 * rng.beta(2, 2, shape) - 1),
        mean=0.0,
        variance=s**2 / 5,
        support=(-s, s),
        breaks=(-s, s),
    )


def gamma(scale: float = 1.0, *, shape: float = 2.0) -> Noise:
    """Gamma: density ∝ x^(shape−1) exp(−x/scale) for x ≥ 0; no jump, and its mean is shape·scale.

    Raises ValueError unless shape > 1; at 1 it is ``exponential``, which jumps. The quadrature is in u = log(x/scale);
    below a shape of 1.06 it loses digits of E[score], whose integrand is x^(shape−2). Ledger: S08.
    """
    from scipy.special import gammainccinv

    s = positive(scale)
    if not 1 < shape < math.inf:
        raise ValueError(f"shape must be a number above 1, got {shape}: at 1 use exponential, below ν is unbounded")
    log_top = -math.lgamma(shape) - math.log(s)
    ends = -min(40 / (shape - 1), 700.0), math.log(float(gammainccinv(shape, 1e-18)))

    def density(x: ndarray) -> ndarray:
        inside = np.maximum(x / s, 1e-320)
        return np.where(x > 0, np.exp(log_top + (shape - 1) * np.log(inside) - inside), 0.0)

    return custom(
        "gamma",
        density=density,
        score=lambda x: np.where(x > 0, (shape - 1) / np.where(x > 0, x, 1.0) - 1 / s, 0.0),
        draw=lambda rng, size: rng.gamma(shape, s, size),
        mean=shape * s,
        variance=shape * s**2,
        support=(0.0, s * math.exp(ends[1])),
        breaks=(0.0,),
        chart=Chart(ends, lambda u: s * np.exp(u), lambda u: s * np.exp(u), lambda x: math.log(x / s)),
        count=512,
    )


def truncated_gaussian(scale: float = 1.0, *, bound: float = 1.0) -> Noise:
    """N(0, scale²) conditioned on |x| ≤ bound·scale: a jump at each end, which Lemma 1 does not survive (ledger S08).

    Raises ValueError unless bound is a positive number of scales, at most 30.
    """
    s = positive(scale)
    if not 0 < bound <= 30:
        raise ValueError(f"bound must lie in (0, 30] scales, got {bound}; without a bound use gaussian")
    mass = math.erf(bound / math.sqrt(2))
    height = math.exp(-0.5 * bound**2) / (mass * s * math.sqrt(2 * math.pi))
    end = bound * s

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> ndarray:
        from scipy.special import ndtri

        inside = ndtri(rng.uniform((1 - mass) / 2, (1 + mass) / 2, shape))
        return np.clip(s * inside, -end, end)

    return custom(
        "truncated_gaussian",
        density=lambda x: np.where(
            np.abs(x) <= end, np.exp(-0.5 * (x / s) ** 2) / (mass * s * math.sqrt(2 * np.pi)), 0
        ),
        score=lambda x: np.where(np.abs(x) <= end, -x / s**2, 0.0),
        draw=draw,
        mean=0.0,
        variance=s**2 * (1 - 2 * bound * math.exp(-0.5 * bound**2) / (mass * math.sqrt(2 * math.pi))),
        support=(-end, end),
        jumps=((-end, height), (end, -height)),
    )
