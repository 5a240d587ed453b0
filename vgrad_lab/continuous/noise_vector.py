"""The Gaussian noise whose components are not independent.

``Noise`` has one density for each component and cannot hold it. A policy and an estimator read its ``score`` as they do
that of a ``Noise``, on arrays whose last axis is the action.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_MOST_NODES = 10**6


@dataclass(frozen=True)
class VectorNoise:
    """Law N(0, C) of a whole action; arrays (…,A), the last axis is the action.

    density: ν(x), (…,). score: ∇log ν(x) = −C⁻¹x, (…,A). draw: (rng, shape) -> (*shape, A). quadrature: nodes in each
    direction -> x (n,A) and weights (n,) with Σ w g(x) = E g, exact for polynomials of degree 2·nodes − 1.
    """

    covariance: Float[ndarray, "A A"]
    density: Callable[[ndarray], ndarray]
    score: Callable[[ndarray], ndarray]
    draw: Callable[[np.random.Generator, tuple[int, ...]], ndarray]
    quadrature: Callable[[int], tuple[ndarray, ndarray]]


def gaussian_vector(covariance: Float[ndarray, "A A"]) -> VectorNoise:
    """N(0, C) with a full covariance C.

    ν(x) = exp(−½ xᵀC⁻¹x)/√((2π)^A det C); Lemma 1 in A dimensions: E[r ∇_ā log π] = E[∇r]  (eq. 10).

    covariance: (A,A), units of action². Raises ValueError unless it is finite, symmetric and positive definite.
    Ledger: S08.
    """
    covariance = np.array(covariance, dtype=float)
    size = len(covariance)
    if covariance.shape != (size, size) or size == 0 or not np.all(np.isfinite(covariance)):
        raise ValueError(f"covariance has shape {covariance.shape}, expected (A, A) of finite numbers")
    if not np.allclose(covariance, covariance.T, rtol=1e-12, atol=0):
        raise ValueError("covariance is not symmetric; give (C + Cᵀ)/2")
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        low = np.linalg.eigvalsh(covariance)[0]
        raise ValueError(f"covariance has the eigenvalue {low:.3g}; it must be positive definite") from None
    precision = np.linalg.inv(covariance)
    top = 1 / (np.prod(np.diag(root)) * np.sqrt(2 * np.pi) ** size)

    def quadrature(count: int = 20) -> tuple[ndarray, ndarray]:
        if count < 1 or count**size > _MOST_NODES:
            raise ValueError(f"{count} nodes in each of {size} directions make {count**size} nodes; the most is 10⁶")
        node, weight = np.polynomial.hermite_e.hermegauss(count)
        grid = np.stack(np.meshgrid(*[node] * size, indexing="ij"), axis=-1).reshape(-1, size)
        product = np.stack(np.meshgrid(*[weight] * size, indexing="ij"), axis=-1).reshape(-1, size).prod(1)
        return grid @ root.T, product / weight.sum() ** size

    return VectorNoise(
        covariance=covariance,
        density=lambda x: top * np.exp(-0.5 * np.einsum("...i,ij,...j->...", x, precision, x)),
        score=lambda x: -x @ precision,
        draw=lambda rng, shape: rng.standard_normal((*shape, size)) @ root.T,
        quadrature=quadrature,
    )
