"""Evidence and counterexamples for advantages divided by the group's spread (S09.standardised); NumPy only."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy import ndarray

from vgrad_lab.advantage import group_standardised
from vgrad_lab.continuous.noise import NOISES, gaussian, panels
from vgrad_lab.experiments.verify_continuous_one_step import REWARDS, SMOOTH_NOISES, Reward
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import QUADRATURE
from vgrad_lab.verify import score_and_pathwise


def standardised_slope(reward: ndarray, *, ddof: int, eps: float) -> ndarray:
    """∂Â_i/∂r_i of each sample of each group (Q,G), Â_i = (r_i − r̄)/(s + ε): nothing is stopped.

    (1 − 1/n)/(s + ε) − (r_i − r̄)²/((n − ddof) s (s + ε)²).
    """
    n, centred = reward.shape[1], reward - reward.mean(1, keepdims=True)
    s = np.sqrt((centred**2).sum(1, keepdims=True) / (n - ddof))
    return np.asarray((1 - 1 / n) / (s + eps) - centred**2 / ((n - ddof) * s * (s + eps) ** 2))


def given_others(
    reward: Reward, others: ndarray, *, ddof: int, eps: float
) -> tuple[Callable[[ndarray], ndarray], Callable[[ndarray], ndarray]]:
    """a ↦ Â_1 and a ↦ ∂Â_1/∂a with the other rewards of the group held fixed."""
    value, slope, _ = reward

    def group(action: ndarray) -> ndarray:
        return np.column_stack([value(action), np.tile(others, (len(action), 1))])

    return (
        lambda a: group_standardised(group(a), ddof=ddof, eps=eps)[:, 0],
        lambda a: slope(a) * standardised_slope(group(a), ddof=ddof, eps=eps)[:, 0],
    )


def gaussian_scale(n: int, *, ddof: int = 0) -> float:
    """σ·E[Â ∂log π] for r = a ~ N(θ, σ²), ε = 0: E[s]/σ for ddof 0, times √((n−1)/n) for ddof 1.

    E[s]/σ = √(2/n) Γ(n/2)/Γ((n−1)/2).
    """
    spread = math.sqrt(2 / n) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    return spread * math.sqrt((n - 1) / n) if ddof else spread


def stopped_scale(n: int) -> float:
    """σ·E[(1 − 1/n)/s], ddof 0: what is left of E[∂Â/∂a] for r = a when the spread counts as a constant.

    E[σ/s] = √(n/2) Γ(n/2 − 1)/Γ((n−1)/2), infinite for n = 2. Raises ValueError for n below 3.
    """
    if n < 3:
        raise ValueError(f"E[1/s] is infinite for a group of {n}; take n ≥ 3")
    inverse = math.sqrt(n / 2) * math.exp(math.lgamma(n / 2 - 1) - math.lgamma((n - 1) / 2))
    return (1 - 1 / n) * inverse


def three_gaussians(mean: float, scale: float, *, ddof: int) -> tuple[float, float, float]:
    """E[Â ∂log π], E[∂Â/∂a] and E[Â r ∂log π] for n = 3 draws of r = a ~ N(mean, scale²), by quadrature.

    The deviations from the group's mean are a vector in a plane, of Rayleigh length and uniform angle; the group's mean
    is independent of it.
    """
    radius, weight = panels((0.0, 9.0), (), count=4)
    weight = weight * radius * np.exp(-(radius**2) / 2)
    node, share = np.polynomial.hermite_e.hermegauss(3)
    angle = 2 * np.pi * np.arange(12) / 12
    plane = np.array([[2.0, -1.0, -1.0], [0.0, np.sqrt(3), -np.sqrt(3)]]) / np.sqrt(6)
    turn = np.stack([np.cos(angle), np.sin(angle)], 1) @ plane
    noise = scale * (radius[:, None, None, None] * turn[:, None] + node[:, None] / np.sqrt(3)).reshape(-1, 3)
    total = (weight[:, None, None] / 12 * np.ones((12, 1)) * (share / share.sum())).ravel()
    advantage = group_standardised(mean + noise, ddof=ddof, eps=0.0)[:, 0]
    score = noise[:, 0] / scale**2
    return (
        float(total @ (advantage * score)),
        float(total @ standardised_slope(mean + noise, ddof=ddof, eps=0.0)[:, 0]),
        float(total @ (advantage * (mean + noise[:, 0]) * score)),
    )


def binary_eq11(p: float, n: int, *, ddof: int, eps: float) -> float:
    """E[Â r ∂log π] for a reward that is 1 with probability p = sigmoid(z), by the 2ⁿ groups; ∂ is ∂/∂z."""
    reward = np.array(list(product((0.0, 1.0), repeat=n)))
    weight = np.prod(np.where(reward == 1, p, 1 - p), axis=1)
    advantage = group_standardised(reward, ddof=ddof, eps=eps)
    return float(weight @ (advantage * reward * (reward - p))[:, 0])


def draw_group(rng: np.random.Generator, reward: Reward, name: str, scale: float) -> tuple[float, ndarray]:
    """A mean action and the rewards of 2 to 7 other samples.

    Drawn again, 1000 times at most, while they spread less than a quarter and than a third of the noise: there Â is
    all but a jump.
    """
    law = NOISES[name](scale)
    for _ in range(1000):
        mean, count = 0.5 * float(rng.normal()), int(rng.integers(2, 8))
        others = reward[0](mean + law.draw(rng, (count,)))
        if others.std() > min(law.variance**0.5 / 3, 0.25):
            return mean, others
    raise ValueError(f"{name} noise of scale {scale:g} gives no group whose rewards spread")


def s09_standardised(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Given the others E[Â_1 ∂log π(a_1)] = ā'E[∂Â_1/∂a_1] = ∂E Â_1; its mean and eq. 11's left side in closed form."""
    rng, worst, rewards = np.random.default_rng(seed), 0.0, list(REWARDS.values())
    for i in range(examples):
        reward, name = rewards[i % len(rewards)], SMOOTH_NOISES[int(rng.integers(len(SMOOTH_NOISES)))]
        scale, ddof, eps = float(2 ** rng.uniform(-1, 0)), int(rng.integers(2)), float(rng.choice([0.0, 1e-4, 0.1]))
        mean, others = draw_group(rng, reward, name, scale)
        value, slope = given_others(reward, others, ddof=ddof, eps=eps)
        found = score_and_pathwise(NOISES[name](scale), value, slope, mean=mean, breaks=reward[2])
        size = max(1.0, abs(found.pathwise))
        worst = max(worst, *(abs(x - found.pathwise) / size for x in (found.score_function, found.truth)))
        closed = gaussian_scale(3, ddof=ddof) / scale
        expected = np.array([closed, closed, mean * closed])
        worst = max(worst, float(np.max(np.abs(three_gaussians(mean, scale, ddof=ddof) - expected))))
        p, n = float(rng.uniform(0.01, 0.99)), int(rng.integers(2, 8))
        kappa = float(grpo_scale(np.array([p]), n, ddof=ddof, eps=eps)[0])
        worst = max(worst, abs(binary_eq11(p, n, ddof=ddof, eps=eps) - (1 - p) * kappa * p * (1 - p)))
    return Evidence(float(worst), QUADRATURE, f"largest deviation of the three identities over {examples} draws")


def s09_pair() -> Counterexample:
    """n = 2, ε = 0, r = a ~ N(θ, 0.7²): Â = ±1 has slope 0, and E[Â ∂log π] = 1/(√π·0.7) = 0.80599."""
    law, step = gaussian(0.7), (lambda a: np.sign(a), np.zeros_like)
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    found = [score_and_pathwise(law, *step, mean=-0.7 * x, breaks=(0.0,)) for x in node]
    left, right = (
        float(weight @ np.array([getattr(f, form) for f in found])) / weight.sum()
        for form in ("score_function", "pathwise")
    )
    return Counterexample(float(right), float(left), 0.5, "E[∂Â/∂a] against E[Â ∂log π], n = 2, divided by s")
