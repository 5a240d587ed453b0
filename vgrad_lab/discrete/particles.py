"""Particles of value gradient flow (arXiv 2604.14265): target, kernel step, transport budget, best of N.

The formulas are those of secondary sources (reading notes, not the paper's text or code). No policy parameter moves:
N particles start at draws of a reference and follow a kernel-smoothed reward gradient for L steps; the best is kept.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Gradient = Callable[[ndarray], ndarray]
"""∂R/∂a at each particle: (B,A) -> (B,A)."""


def gaussian_kernel(
    x: Float[ndarray, "B A"], y: Float[ndarray, "C A"], *, bandwidth: float = 1.0
) -> Float[ndarray, "B C"]:
    """k(x, y) = exp(−‖x − y‖²/2σ²); its gradient is at most 1/(σ√e) long. Raises ValueError for σ ≤ 0."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}; give σ > 0")
    return np.asarray(np.exp(-((x[:, None] - y[None]) ** 2).sum(2) / (2 * bandwidth**2)))


def flow_direction(
    particles: Float[ndarray, "B A"], gradient: Gradient, *, temperature: float = 0.0, bandwidth: float = 1.0
) -> Float[ndarray, "B A"]:
    """Direction of each particle: kernel-smoothed ascent, with repulsion unless the temperature is 0.

    φ(x) = (1/N) Σ_j (k(a_j, x) ∂R(a_j)/α + ∂_{a_j} k(a_j, x)), α the temperature; for α = 0 its limit up to the factor
    1/α, (1/N) Σ_j k(a_j, x) ∂R(a_j).

    particles: N of them. gradient: ∂R/∂a. Raises ValueError for α < 0, σ ≤ 0, no particle, or a gradient of another
    shape. Ledger: K10.
    """
    if particles.ndim != 2 or not len(particles) or not temperature >= 0:
        raise ValueError(f"particles {particles.shape}, temperature {temperature}; give (N,A) with N ≥ 1, and α ≥ 0")
    slope = np.asarray(gradient(particles))
    if slope.shape != particles.shape or not np.all(np.isfinite(slope)):
        raise ValueError(f"the gradient has shape {slope.shape}; give finite numbers, one vector a particle")
    kernel = gaussian_kernel(particles, particles, bandwidth=bandwidth)
    if temperature == 0:
        return np.asarray(kernel @ slope / len(particles))
    apart = (kernel.sum(1)[:, None] * particles - kernel @ particles) / bandwidth**2
    return np.asarray((kernel @ slope / temperature + apart) / len(particles))


def flow(
    particles: Float[ndarray, "B A"],
    gradient: Gradient,
    *,
    steps: int,
    step: float,
    temperature: float = 0.0,
    bandwidth: float = 1.0,
) -> Float[ndarray, "B A"]:
    """Particles after L steps a ← a + ε φ(a). Raises ValueError for L < 0, ε < 0. Ledger: K10."""
    if steps < 0 or not step >= 0:
        raise ValueError(f"steps is {steps}, step {step}; give L ≥ 0 and ε ≥ 0")
    moved = np.asarray(particles, dtype=float)
    for _ in range(steps):
        moved = moved + step * flow_direction(moved, gradient, temperature=temperature, bandwidth=bandwidth)
    return moved


def best_of(particles: Float[ndarray, "B A"], reward: Float[ndarray, " B"]) -> Float[ndarray, " A"]:
    """The particle of the largest reward. Raises ValueError unless there is one finite reward a particle."""
    if reward.shape != (len(particles),) or not np.all(np.isfinite(reward)):
        raise ValueError(f"reward has shape {reward.shape}; give one finite number for each of {len(particles)}")
    return np.asarray(particles[int(np.argmax(reward))])


def best_of_n_value(reward: Float[ndarray, " B"], probability: Float[ndarray, " B"], count: int) -> float:
    """E[max of N rewards], the actions drawn from finitely many: Σ_r r (P(R ≤ r)^N − P(R < r)^N).

    reward, probability: one each per action. Raises ValueError for N < 1 and probabilities that don't sum to 1.
    Ledger: K10.best_of_n.
    """
    if count < 1 or probability.shape != reward.shape or abs(probability.sum() - 1) > 1e-9 or probability.min() < 0:
        raise ValueError(f"count is {count}; give N ≥ 1 and probabilities of the actions that sum to 1")
    order = np.argsort(reward)
    below = np.concatenate([[0.0], probability[order].cumsum()])
    return float(reward[order] @ (below[1:] ** count - below[:-1] ** count))


def squared_mmd(
    x: Float[ndarray, "B A"], y: Float[ndarray, "C A"], *, bandwidth: float = 1.0
) -> float:  # fmt: skip
    """MMD² of two clouds of particles with the Gaussian kernel, between 0 and 2."""
    inner = [gaussian_kernel(a, b, bandwidth=bandwidth).mean() for a, b in ((x, x), (x, y), (y, y))]
    return float(max(0.0, inner[0] - 2 * inner[1] + inner[2]))


def budget(*, steps: int, step: float, slope: float, temperature: float, bandwidth: float = 1.0) -> float:
    """The stated bound on MMD² between start and end, (2εL/(σ√e))(c/α + 1/(σ√e)), c a bound on ‖∂R‖.

    Ledger: K10.budget.
    """
    reach = _reach(steps, step, slope, temperature, bandwidth)
    return 2 * reach / (bandwidth * np.sqrt(np.e))


def sharper_budget(*, steps: int, step: float, slope: float, temperature: float, bandwidth: float = 1.0) -> float:
    """A smaller bound on MMD², 2 − 2e^{−D²/2σ²} ≤ (D/σ)², D = εL(c/α + 1/(σ√e)); derived here.

    Quadratic in the way D that a particle can go, where the stated one, 2D/(σ√e), is linear. Ledger: K10.budget.
    """
    reach = _reach(steps, step, slope, temperature, bandwidth)
    return float(-2 * np.expm1(-(reach**2) / (2 * bandwidth**2)))


def _reach(steps: int, step: float, slope: float, temperature: float, bandwidth: float) -> float:
    if not temperature > 0 or not bandwidth > 0 or steps < 0 or not step >= 0 or not slope >= 0:
        raise ValueError(
            f"temperature {temperature}, bandwidth {bandwidth}, steps {steps}, step {step}, slope {slope}; "
            "give α, σ > 0 and the others ≥ 0"
        )
    return steps * step * (slope / temperature + 1 / (bandwidth * np.sqrt(np.e)))


def tilted(
    reward: Float[ndarray, " B"], temperature: float, log_reference: Float[ndarray, " B"] | None = None
) -> Float[ndarray, " B"]:
    """The target over finitely many actions, ∝ ref(a) e^{R(a)/α}; a flat reference where none is given.

    It maximises E[R] − α KL(·‖ref), with the maximum α log Σ ref e^{R/α}.

    Raises ValueError for α ≤ 0 or non-finite numbers. Ledger: K10.target.
    """
    log_reference = np.full(len(reward), -np.log(len(reward))) if log_reference is None else log_reference
    if not temperature > 0 or not np.all(np.isfinite(reward)) or not np.all(np.isfinite(log_reference)):
        raise ValueError(f"temperature is {temperature}; give α > 0, finite rewards and log-probabilities")
    exponent = log_reference + reward / temperature
    weight = np.exp(exponent - exponent.max())
    return np.asarray(weight / weight.sum())
