"""Evidence and counterexamples for soft tokens, particles and equal rewards in float32 (K09–K11); NumPy only."""

import math
from itertools import product

import numpy as np
from numpy import ndarray

from vgrad_lab.advantage import from_group
from vgrad_lab.discrete.float_groups import EPSILON, naive_advantage
from vgrad_lab.discrete.particles import (
    best_of_n_value,
    budget,
    flow,
    flow_direction,
    gaussian_kernel,
    sharper_budget,
    squared_mmd,
    tilted,
)
from vgrad_lab.discrete.soft_tokens import (
    Payoff,
    SoftNodes,
    clamped_nodes,
    density_gradient,
    density_second_moments,
    gumbel_nodes,
    soft_token,
    to_logits,
)
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE

LOGITS = np.array([1.0, 0.0, -0.5])
WIDE = (-4.0, 60.0)
"""A clamp out of reach: e^{−e⁴} and e^{−60} are left."""


def log_softmax(logits: ndarray) -> ndarray:
    """Log-probabilities of one row of logits."""
    return np.asarray(logits - np.logaddexp.reduce(logits))


def first_token(y: ndarray) -> ndarray:
    """The share of the first token."""
    return y[:, 0]


def first_token_slope(y: ndarray) -> ndarray:
    """Its gradient in y."""
    return np.tile(np.eye(y.shape[1])[0], (len(y), 1))


def random_payoff(rng: np.random.Generator, vocab: int) -> tuple[Payoff, Payoff]:
    """f(y) = b·y + yᵀCy with entries of order one, and its gradient."""
    slope, half = rng.standard_normal(vocab), rng.standard_normal((vocab, vocab)) / vocab
    curve = half + half.T
    return lambda y: y @ slope + ((y @ curve) * y).sum(1) / 2, lambda y: slope + y @ curve


def pathwise(nodes: SoftNodes, slope: Payoff, *, temperature: float) -> ndarray:
    """∂E[f(y)]/∂log p_j for g = log p + noise, whatever the noise's law: E[(y_j/τ)(f_j − y·∇f)]."""
    y = soft_token(nodes.perturbed, temperature)
    steep = slope(y)
    return np.asarray(nodes.weight @ (y * (steep - (y * steep).sum(1, keepdims=True)))) / temperature


def k09_density(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The summed density's gradient against the mean slope of f, two or three tokens, τ between ½ and 2."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(examples):
        vocab = 3 if i % 10 == 0 else 2
        log_p, (payoff, slope) = log_softmax(rng.standard_normal(vocab)), random_payoff(rng, vocab)
        temperature = float(2 ** rng.uniform(-1, 1))
        nodes = gumbel_nodes(log_p)
        found = density_gradient(nodes, payoff, temperature=temperature)
        worst = max(worst, float(np.abs(found - pathwise(nodes, slope, temperature=temperature)).max()))
    return Evidence(worst, QUADRATURE, f"the density's gradient against the pathwise one over {examples} draws")


def k09_average() -> Counterexample:
    """∂E[y_1]/∂z_1 for z = (1, 0, −½), τ = ½: the average over three entries gives a third of it."""
    log_p = log_softmax(LOGITS)
    nodes = gumbel_nodes(log_p)
    exact, found = (
        to_logits(log_p, density_gradient(nodes, first_token, temperature=0.5, mean=mean)) for mean in (False, True)
    )
    return Counterexample(float(found[0]), float(exact[0]), 0.1, "averaged log density against ∂E[y_1]/∂z_1")


def k09_clamp() -> Counterexample:
    """The same slope with noise clamped to [−1.5, 3], the log density of the clamped noise differentiated as coded."""
    log_p = log_softmax(LOGITS)
    nodes = clamped_nodes(log_p)
    found = to_logits(log_p, density_gradient(nodes, first_token, temperature=0.5))
    exact = to_logits(log_p, pathwise(nodes, first_token_slope, temperature=0.5))
    return Counterexample(
        float(found[0]), float(exact[0]), 0.005, "clamped noise: its log density against ∂E[y_1]/∂z_1"
    )


def k09_scale() -> Counterexample:
    """E[∂ log density/∂ log p_j] for noise ½·G in the density of G: 1 − Γ(3/2) = 0.1138 where a score has 0."""
    nodes = clamped_nodes(log_softmax(LOGITS[:2]), clamp=WIDE, scale=0.5, count=200)
    return Counterexample(float((nodes.weight @ nodes.score)[0]), 0.0, 0.1, "mean of the coded score, scaled noise")


def k09_marginal(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Second moments of the density's gradient: g's against draws of all noises on a grid, y's the smaller one."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        log_p, (payoff, _) = log_softmax(rng.standard_normal(2)), random_payoff(rng, 2)
        whole, own = density_second_moments(gumbel_nodes(log_p), payoff, temperature=1.0)
        grid = clamped_nodes(log_p, clamp=(-4.0, 40.0), count=110)
        found = (grid.weight * payoff(soft_token(grid.perturbed, 1.0)) ** 2) @ grid.score**2
        worst = max(worst, float(np.abs(found - whole).max()), float(np.max(own - whole)))
    return Evidence(worst, QUADRATURE, f"second moments of both densities over {examples} draws")


def k10_target(*, seed: int = 0, examples: int = 20) -> Evidence:
    """max E[R] − α KL(·‖ref) over all distributions against α log Σ ref e^{R/α}, and the shortfall α KL(q‖target)."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        size, alpha = int(rng.integers(2, 7)), float(2 ** rng.uniform(-2, 2))
        reward = rng.standard_normal(size)
        ref, other = 0.99 * rng.dirichlet(np.ones(size), 2) + 0.01 / size
        best = tilted(reward, alpha, np.log(ref))
        top = alpha * np.log(ref @ np.exp(reward / alpha))
        for p in (best, other):
            trade = p @ reward - alpha * (p @ np.log(p / ref))
            worst = max(worst, abs(float(top - trade - alpha * (p @ np.log(p / best)))))
    return Evidence(worst, QUADRATURE, f"the tilted target over {examples} draws")


def k10_reference() -> Counterexample:
    """Mean direction at x = ½ of particles spread as ref·e^{R/α}: R = −a²/2, α = 1, ref = N(1, 1), σ = 1.

    The flow at rest there would have 0; spread as e^{R/α} alone it has. By Gauss–Hermite.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    particles = (0.5 + node / np.sqrt(2))[:, None]  # ref·e^{R} = N(½, ½)
    kernel = gaussian_kernel(particles, np.array([[0.5]]))[:, 0]
    terms = kernel * (-particles[:, 0] - (particles[:, 0] - 0.5))
    return Counterexample(0.0, float(weight @ terms / weight.sum()), 0.1, "direction at ref·e^{R/α}, at x = ½")


def k10_rest(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean direction at random points of particles spread as e^{R/α}, R = −c(a − m)²/2: zero. Trapezoidal rule."""
    rng, worst = np.random.default_rng(seed), 0.0
    node = np.linspace(-12, 12, 601)
    weight = 0.04 * np.exp(-(node**2) / 2) / math.sqrt(2 * math.pi)
    for _ in range(examples):
        middle, x = rng.standard_normal(2)
        curve, alpha, sigma = 2 ** rng.uniform(-1, 1, 3)
        a = middle + node * np.sqrt(alpha / curve)
        kernel = gaussian_kernel(a[:, None], np.array([[x]]), bandwidth=float(sigma))[:, 0]
        worst = max(worst, abs(float(weight @ (kernel * (-curve * (a - middle) / alpha - (a - x) / sigma**2)))))
    return Evidence(worst, ALGEBRA, f"the direction at e^{{R/α}} over {examples} draws")


def k10_budget(*, seed: int = 0, examples: int = 20) -> Evidence:
    """MMD² between start and end of a flow against both bounds: largest excess, R = Σ sin a."""
    rng, worst = np.random.default_rng(seed), -np.inf
    for _ in range(examples):
        size, alpha, sigma = int(rng.integers(1, 4)), float(2 ** rng.uniform(-3, 1)), float(2 ** rng.uniform(-1, 1))
        steps, step = int(rng.integers(0, 12)), float(rng.uniform(0, 0.2))
        start = rng.standard_normal((6, size))
        end = flow(start, np.cos, steps=steps, step=step, temperature=alpha, bandwidth=sigma)
        found, slope = squared_mmd(start, end, bandwidth=sigma), math.sqrt(size)
        reach = (steps * step) * (slope / alpha + 1 / (sigma * math.sqrt(math.e)))
        stated = budget(steps=steps, step=step, slope=slope, temperature=alpha, bandwidth=sigma)
        sharper = sharper_budget(steps=steps, step=step, slope=slope, temperature=alpha, bandwidth=sigma)
        worst = max(worst, found - sharper, sharper - stated, sharper - (reach / sigma) ** 2)
    return Evidence(float(worst), ALGEBRA, f"largest excess over the bounds over {examples} flows")


def k10_best_of_n(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[max of N] in closed form against all N-tuples of actions, and no step moves nothing."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        size, count = int(rng.integers(2, 5)), int(rng.integers(1, 5))
        reward, p = rng.integers(0, 3, size).astype(float), rng.dirichlet(np.ones(size))
        rows = np.array(list(product(range(size), repeat=count)))
        expected = float(p[rows].prod(1) @ reward[rows].max(1))
        worst = max(worst, abs(best_of_n_value(reward, p, count) - expected))
        start = rng.standard_normal((count, 2))
        worst = max(worst, float(np.abs(flow(start, np.cos, steps=0, step=0.1) - start).max()))
    return Evidence(worst, ALGEBRA, f"best of N by enumeration over {examples} draws")


def k10_ascent(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Slope of the mean reward along φ without repulsion against (1/N²) Σ_ij k_ij ∂R_i·∂R_j; how far it is negative."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        start, sigma = rng.standard_normal((int(rng.integers(1, 7)), 2)), float(2 ** rng.uniform(-1, 1))
        way, h = flow_direction(start, np.cos, bandwidth=sigma), 1e-3
        rise = [float(np.sin(start + s * h * way).sum(1).mean()) for s in (-2, -1, 1, 2)]
        slope = (8 * (rise[2] - rise[1]) - (rise[3] - rise[0])) / (12 * h)
        kernel = np.exp(-((start[:, None] - start) ** 2).sum(2) / (2 * sigma**2))
        form = float((kernel * (np.cos(start) @ np.cos(start).T)).mean())
        worst = max(worst, abs(slope - form), -form)
    return Evidence(worst, QUADRATURE, f"slope of the mean reward over {examples} clouds")


def k10_summit() -> Counterexample:
    """Particles at 0 and ½ under R = −a², α → 0, one step of 0.1: the best reward falls from 0 to −0.0019."""
    start = np.array([[0.0], [0.5]])
    end = start + 0.1 * flow_direction(start, lambda a: -2 * a)
    return Counterexample(0.0, float(-(end**2).min()), 1e-3, "largest reward of two particles, before and after a step")


def k11_equal() -> Counterexample:
    """Eight rewards of 0.7 in float32 with ε = 1e-8: |Â| = 0.8085 where it is 0."""
    found = np.abs(naive_advantage(np.full(8, 0.7, np.float32), "oat")).max()
    return Counterexample(float(found), 0.0, 0.5, "largest |Â| of eight equal rewards")


def k11_exact(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Largest |Â| of this project's three baselines for groups of equal float32 rewards: exactly zero."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        reward = np.full((1, int(rng.integers(2, 65))), rng.standard_normal() * 10 ** rng.uniform(-3, 3), np.float32)
        for eps in (0.0, *EPSILON.values()):
            for baseline in ("standardised", "group_mean", "leave_one_out"):
                worst = max(worst, float(np.abs(from_group(reward, baseline, eps=eps)).max()))
    return Evidence(worst, 0.0, f"equal float32 rewards over {examples} groups")
