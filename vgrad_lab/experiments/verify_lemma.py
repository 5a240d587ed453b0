"""Evidence and counterexamples where Lemma 1 ends (S08): surfaces in several dimensions, singular functions."""

from collections.abc import Callable

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous.noise_region import RegionNoise, gaussian_on, uniform_on
from vgrad_lab.continuous.noise_singular import cantor_rule, cantor_tent
from vgrad_lab.continuous.regions import ball, box
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import QUADRATURE
from vgrad_lab.verify import score_and_pathwise
from vgrad_lab.verify.surface import Piecewise, score_and_pathwise_vector

Piece = tuple[Callable[[ndarray], ndarray], Callable[[ndarray], ndarray]]
"""A smooth reward and its gradient."""


def draw_region_noise(rng: np.random.Generator, size: int) -> RegionNoise:
    """Uniform or Gaussian with a full covariance, on a box or a ball of about unit size."""
    widths = np.exp(0.3 * rng.standard_normal(size))
    region = box(widths) if rng.integers(2) else ball(size, float(widths[0]))
    if rng.integers(2):
        return uniform_on(region)
    root = np.diag(rng.uniform(0.5, 1.5, size)) + np.tril(0.5 * rng.standard_normal((size, size)), -1)
    return gaussian_on(region, root @ root.T)


def draw_reward(rng: np.random.Generator, size: int) -> Piecewise:
    """Smooth, a Heaviside of a half-space, |w·a − b|, or two different pieces."""
    (u, v, normal), offset = rng.standard_normal((3, size)), 0.3 * float(rng.standard_normal())
    normal = normal if rng.integers(2) else np.eye(size)[int(rng.integers(size))]
    zero: Piece = (lambda a: np.zeros(len(a)), np.zeros_like)
    one: Piece = (lambda a: np.ones(len(a)), np.zeros_like)
    wave: Piece = (lambda a: np.sin(a @ u), lambda a: np.cos(a @ u)[:, None] * u)
    bowl: Piece = (lambda a: 1 + (a @ v) ** 2, lambda a: 2 * (a @ v)[:, None] * v)
    fall: Piece = (lambda a: offset - a @ normal, lambda a: np.tile(-normal, (len(a), 1)))
    rise: Piece = (lambda a: a @ normal - offset, lambda a: np.tile(normal, (len(a), 1)))
    below, above = ((wave, wave), (zero, one), (fall, rise), (wave, bowl))[int(rng.integers(4))]
    return Piecewise(below[0], below[1], above[0], above[1], normal, offset)


def draw_step(rng: np.random.Generator, size: int) -> tuple[RegionNoise, Piecewise, ndarray]:
    """A noise, a reward and a mean action whose hyperplane keeps 0.05 off the region's corners: E r bends there."""
    while True:
        noise, reward, mean = draw_region_noise(rng, size), draw_reward(rng, size), 0.4 * rng.standard_normal(size)
        if noise.room((reward.normal, float(reward.offset - reward.normal @ mean))) > 0.05:
            return noise, reward, mean


def s08_surface(*, seed: int = 0, examples: int = 20) -> Evidence:
    """PD = SF − ∫[r]ν n dS + ∮ rν n dS and both forms against ∂E r, boxes and balls in 1 to 3 dimensions."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(examples):
        noise, reward, mean = draw_step(rng, 3 if i % 10 == 9 else 1 + i % 2)
        worst = max(worst, score_and_pathwise_vector(noise, reward, mean=mean).residual)
    return Evidence(worst, QUADRATURE, f"largest residual of the three identities over {examples} noises and rewards")


def s08_disc() -> Counterexample:
    """Uniform noise on the unit disc, r = a_1: the score is 0, so SF = 0; ∂E r = 1, all of it from the circle."""
    linear = (lambda a: a[:, 0], lambda a: np.tile([1.0, 0.0], (len(a), 1)))
    reward = Piecewise(*linear, *linear, np.array([1.0, 0.0]), 0.0)
    found = score_and_pathwise_vector(uniform_on(ball(2, 1.0)), reward, mean=np.array([0.3, -0.2]))
    return Counterexample(float(found.score_function[0]), float(found.truth[0]), 0.9, "SF against ∂E a_1, uniform disc")


def cosine_mean(mean: float, scale: float) -> float:
    """∫ ν(x − ā) dc(x) for ν = (1 + cos(πu/scale))/(2·scale), by the Fourier transform e^{iω/2}Π cos(ω/3ᵏ) of dc.

    Exact where ±scale around the mean covers [0, 1].
    """
    w = np.pi / scale
    return float((1 + np.cos(w * (0.5 - mean)) * np.prod(np.cos(w / 3.0 ** np.arange(1, 40)))) / (2 * scale))


def _sine(frequency: float) -> tuple[Callable[[ndarray], ndarray], Callable[[ndarray], ndarray]]:
    return lambda a: np.sin(frequency * a), lambda a: frequency * np.cos(frequency * a)


def s08_singular(*, seed: int = 0, examples: int = 20) -> Evidence:
    """∂E c(ā + ξ) = ∫ ν dc for raised-cosine noises, by Fourier; PD = ∂E r and SF = 0 for the Cantor tent, smooth r."""
    rng, worst = np.random.default_rng(seed), 0.0
    x, weight = cantor_rule()
    for _ in range(examples):
        scale = float(rng.uniform(1, 4))
        mean = float(rng.uniform(1 - scale, scale))
        density = (1 + np.cos(np.pi * (x - mean) / scale)) / (2 * scale)
        worst = max(worst, abs(float(weight @ density) - cosine_mean(mean, scale)))
        w = float(rng.uniform(0.2, 2))
        tent = cantor_tent(float(2 ** rng.uniform(-1, 1)))
        found = score_and_pathwise(tent, *_sine(w), mean=mean)
        worst = max(worst, abs(found.pathwise - found.truth), abs(found.score_function))
    return Evidence(float(worst), QUADRATURE, f"largest deviation over {examples} scales and means")


def s08_cantor_reward() -> Counterexample:
    """r the Cantor function, a smooth density at ā = ½: r' = 0 almost everywhere, so PD = 0, and ∂E r = ∫ ν dc."""
    return Counterexample(0.0, cosine_mean(0.5, 1.0), 0.5, "PD against ∂E c(ā + ξ), raised-cosine noise")


def s08_cantor_both() -> Counterexample:
    """r = c, ν(u) = c(1 − |u|) at ā = 0: no jump anywhere, SF = PD = 0, and ∂E r = ∫ (1 − c) dc = ½."""
    x, weight = cantor_rule()
    true = float(weight @ cantor_tent(1.0).density(x))
    return Counterexample(0.0, true, 0.4, "SF = PD = 0 against ∂E r, Cantor reward and Cantor density")
