"""Headroom H_α from sampled rewards: a logarithm of a mean, which no fixed number of samples estimates without bias.

An expectation over G samples is a polynomial of degree ≤ G in the law of R, and ln E e^{αR} is none. But the powers of
a mean up to the G-th are estimable, and with them the first G terms of a Chebyshev series of the logarithm: what is
left is a bias with a bound known in advance, whatever the law on [0, 1]. Where the bound is not small, there is no
number.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.polynomial import chebyshev

from vgrad_lab.checkpoints.group_estimate import Estimate, check_reward, jackknife, over_prompts, undefined

BIAS_ALLOWED = 1e-5
"""Largest bound on the bias, as a share of min(1, α), with which a headroom is still a number: H_α ≤ min(1, α/8)."""
ROUNDING = 2.0**-48
"""Part of every bound: what float64 leaves of a logarithm near 0, which a small α magnifies."""
LARGE = 20.0
"""α beyond which no series of ``DEGREE`` terms is near, and float64 no longer tells ρ from 1."""
DEGREE = 24
"""Most terms of a series: beyond it float64 gains nothing where the bias is small."""
OUT_OF_RANGE = "rewards outside [0, 1]: their range is not known"


def power_means(x: Float[ndarray, "*Q G"], degree: int) -> Float[ndarray, "*Q K"]:
    """(E x)^j for j = 0 … degree without bias: mean over j-subsets of the product, e_j(x_1 … x_G)/C(G, j).

    By E_j ← ((g−j) E_j + j x_g E_{j−1})/g, convex combinations all. Raises ValueError for a degree above G.
    """
    if not 0 <= degree <= x.shape[-1]:
        raise ValueError(f"degree is {degree}; {x.shape[-1]} samples allow powers 0 … {x.shape[-1]}")
    found = np.zeros((*x.shape[:-1], degree + 1))
    found[..., 0] = 1
    power = np.arange(1, degree + 1)
    for g in range(1, x.shape[-1] + 1):
        step = np.maximum(g - power, 0) * found[..., 1:] + np.minimum(power, g) * x[..., g - 1, None] * found[..., :-1]
        found[..., 1:] = step / g
    return found


def _logarithm(scale: float, degree: int) -> tuple[ndarray, float, float]:
    """ln(1 + scale·(1+x)/2) on [−1, 1] as a polynomial in x, a bound on its error, and one on its slope.

    = ln(scale ρ/4) − 2 Σ_j (−1/ρ)^j T_j(x)/j, ρ = a + √(a² − 1), a = 1 + 2/scale; the terms left out sum to at most
    2 ρ^{−d−1}/((d + 1)(1 − 1/ρ)).
    """
    a = 1 + 2 / scale
    rho = a + math.sqrt(a * a - 1)
    order = np.arange(1, degree + 1)
    series = np.concatenate([[math.log(scale * rho / 4)], -2 * (-1 / rho) ** order / order])
    left = 2 * rho ** -(degree + 1.0) / ((degree + 1) * (1 - 1 / rho)) + ROUNDING
    return chebyshev.cheb2poly(series), left, 2 * rho / (rho - 1) ** 2


def _exponential(alpha: float, degree: int) -> tuple[ndarray, float]:
    """e^{α(1+x)/2} on [−1, 1] as a polynomial in x and a bound on its error: e^{α/2}(I_0 + 2 Σ_j I_j T_j)(α/2)."""
    from scipy.special import ive

    order = np.arange(degree + 60)
    series = math.exp(alpha) * ive(order, alpha / 2) * np.where(order, 2, 1)
    return chebyshev.cheb2poly(series[: degree + 1]), float(series[degree + 1 :].sum())


def _refused(reward: ndarray, alpha: float) -> str:
    check_reward(reward)
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha must be positive, got {alpha}")
    if reward.min() < 0 or reward.max() > 1:
        return OUT_OF_RANGE
    return _too_biased(math.inf, alpha, reward.shape[1]) if alpha > LARGE else ""


def _too_biased(bias: float, alpha: float, samples: int) -> str:
    return (
        f"at α = {alpha:g} an estimate from {samples} answers per prompt may be biased by {bias:.1g}, more than "
        f"{_allowed(alpha):g}"
    )


def _allowed(alpha: float) -> float:
    return BIAS_ALLOWED * min(1.0, alpha)


def within_per_prompt(reward: Float[ndarray, "Q G"], alpha: float) -> tuple[Float[ndarray, " Q"], float]:
    """(1/α) ln E[e^{αR}|q] − E[R|q] of each prompt, and the bound on its bias.

    y = (e^{αR} − 1)/(e^α − 1) lies in [0, 1], and E e^{αR} = 1 + (e^α − 1) E y. Rewards in [0, 1].
    """
    scale = math.expm1(alpha)
    degree = min(reward.shape[1], DEGREE)
    terms, left, _ = _logarithm(scale, degree)
    x = 2 * np.expm1(alpha * reward) / scale - 1
    return (power_means(x, degree) * terms).sum(1) / alpha - reward.mean(1), left / alpha


def headroom_within(reward: Float[ndarray, "Q G"], alpha: float) -> Estimate:
    """H_α within prompts, E_q[(1/α) ln E[e^{αR}|q] − E[R|q]] (eq. 28), with a bias below ``BIAS_ALLOWED``.

    reward: R of G independent answers to each prompt, in [0, 1]. alpha: inverse temperature > 0, per unit reward.
    Undefined for rewards outside [0, 1] and where α is too large for G. Raises ValueError for α ≤ 0 or non-finite
    rewards. Ledger: S24.sampled.
    """
    if why := _refused(reward, alpha):
        return undefined(why)
    found, bias = within_per_prompt(reward, alpha)
    if not bias <= _allowed(alpha):
        return undefined(_too_biased(bias, alpha, reward.shape[1]))
    return over_prompts(found, bias=bias)


@dataclass(frozen=True)
class Between:
    """Parts of H_α between prompts.

    x: of each prompt, with mean 2(e^{α p_q} − 1)/(e^α − 1) − 1. mean: R̄. terms: of the logarithm. bias: its bound.
    """

    x: Float[ndarray, " Q"]
    mean: Float[ndarray, " Q"]
    terms: Float[ndarray, " K"]
    alpha: float
    bias: float

    def value(self, index: Int[ndarray, "*n q"]) -> Float[ndarray, "*n"]:
        """(1/α) ln E_q e^{α p_q} − E_q p_q over these prompts, as many as the series has terms or more."""
        logarithm = (power_means(self.x[index], len(self.terms) - 1) * self.terms).sum(-1)
        return np.asarray(logarithm / self.alpha - self.mean[index].mean(-1))


def between(reward: Float[ndarray, "Q G"], alpha: float, degree: int) -> Between:
    """The parts of ``headroom_between``; degree: of the logarithm's series, at most the number of prompts.

    A misfit δ of e^{αp} moves the logarithm's series by no more than its slope allows.
    """
    terms, left = _exponential(alpha, min(reward.shape[1], DEGREE))
    scale = math.expm1(alpha)
    x = 2 * ((power_means(2 * reward - 1, len(terms) - 1) * terms).sum(1) - 1) / scale - 1
    logarithm, rest, slope = _logarithm(scale, degree)
    return Between(x, reward.mean(1), logarithm, alpha, (rest + slope * 2 * left / scale) / alpha)


def headroom_between(reward: Float[ndarray, "Q G"], alpha: float) -> Estimate:
    """H_α between prompts, (1/α) ln E_q e^{α p_q} − E_q p_q, p_q = E[R|q] (§6), with a bias below ``BIAS_ALLOWED``.

    e^{α p_q} from the answers of a prompt, then the logarithm from products over different prompts: both series are cut
    where the bound on their error is known. It measures how prompts differ, not what sampling finds (ledger S27).

    reward, alpha, errors and what is undefined: as ``headroom_within``; 2 prompts and, for the logarithm, so many that
    the bound is small. Ledger: S24.sampled.
    """
    if why := _refused(reward, alpha):
        return undefined(why)
    prompts = len(reward)
    if prompts < 2:
        return undefined(f"needs 2 prompts, got {prompts}")
    degree = min(prompts - 1, DEGREE)  # one prompt less in the jackknife
    found = between(reward, alpha, degree)
    if not found.bias <= _allowed(alpha):
        return undefined(f"{_too_biased(found.bias, alpha, reward.shape[1])} (with {prompts} prompts)")
    return jackknife(found.value, prompts, bias=found.bias)
