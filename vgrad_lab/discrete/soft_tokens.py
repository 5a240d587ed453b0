"""Soft tokens with Gumbel noise and the density whose ratio SofT-GRPO takes (arXiv 2511.06411), by quadrature.

A soft token is y = softmax(g/τ) with g = log p + noise; the policy's log density of the stored g is
Σ_j (−z_j − e^{−z_j}), z = g − log p. Its derivative is a likelihood ratio, not a pathwise derivative.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

CLAMP = (-1.5, 3.0)
"""Bounds of the noise in the authors' code."""


@dataclass(frozen=True)
class SoftNodes:
    """Nodes of a quadrature over the perturbed log-probabilities g, whose weights sum to 1.

    perturbed: g up to a common shift (Q,V), which no soft token sees. score: ∂ log density/∂ log p_j given the soft
    token. inside: where the noise is not at a bound of its clamp.
    """

    weight: Float[ndarray, " Q"]
    perturbed: Float[ndarray, "Q V"]
    score: Float[ndarray, "Q V"]
    inside: Bool[ndarray, "Q V"]


def _check(log_p: ndarray, most: int) -> None:
    if log_p.ndim != 1 or not 2 <= len(log_p) <= most:
        raise ValueError(f"log_p has shape {log_p.shape}; the quadrature takes 2 to {most} tokens, (V,)")
    if not np.all(np.isfinite(log_p)) or abs(np.exp(log_p).sum() - 1) > 1e-9:
        raise ValueError("log_p must be finite log-probabilities that sum to 1; subtract their log-sum-exp first")


def gumbel_nodes(log_p: Float[ndarray, " V"], *, spacing: float = 0.25, reach: float = 40.0) -> SoftNodes:
    """Nodes for Gumbel noise that is not clamped: a trapezoidal rule over the differences d_j = g_j − g_V.

    x_j = e^{−g_j} are independent exponentials of rate p_j, so that d has the density
    (V−1)! Π_j p_j e^{−d_j}/(Σ_j p_j e^{−d_j})^V and, given d, the summed log density has the mean derivative
    1 − V p_j e^{−d_j}/Σ_k p_k e^{−d_k} in log p_j.

    log_p: 2 or 3 tokens. spacing, reach: of the rule around the location of d, in nats; take spacing about τ/2 for
    soft tokens of temperature τ below ½. Raises ValueError for other log_p. Ledger: K09.
    """
    _check(log_p, 3)
    if not 0 < spacing <= 1 or not reach > 0:
        raise ValueError(f"spacing is {spacing}, reach {reach}; give 0 < spacing ≤ 1 and a positive reach")
    count, v = int(reach / spacing), len(log_p)
    line = spacing * np.arange(-count, count + 1)
    d = np.array(list(product(line, repeat=v - 1))) if v == 2 else np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    perturbed = np.column_stack([d + (log_p - log_p[-1])[:-1], np.zeros(len(d))])
    exponent = log_p - perturbed
    total = np.logaddexp.reduce(exponent, axis=1)
    weight = spacing ** (v - 1) * math.factorial(v - 1) * np.exp(exponent.sum(1) - v * total)
    score = 1 - v * np.exp(exponent - total[:, None])
    return SoftNodes(weight, perturbed, score, np.ones(score.shape, dtype=bool))


def _line(low: float, high: float, count: int) -> tuple[ndarray, ndarray]:
    """Nodes and weights of a Gumbel variable clamped to [low, high]: its two atoms and Gauss–Legendre between."""
    node, weight = np.polynomial.legendre.leggauss(count)
    inner = low + (high - low) * (node + 1) / 2
    density = np.exp(-inner - np.exp(-inner)) * weight * (high - low) / 2
    below, above = math.exp(-math.exp(-low)), -math.expm1(-math.exp(-high))
    return np.array([low, *inner, high]), np.array([below, *density, above])


def clamped_nodes(
    log_p: Float[ndarray, " V"], *, clamp: tuple[float, float] = CLAMP, scale: float = 1.0, count: int = 40
) -> SoftNodes:
    """Nodes for noise clamped to [a, b] before it is scaled, with the derivative that the code's log density has.

    g = log p + s·clamp(G); the score is 1 − e^{−z_j}, z = g − log p, whatever s and the clamp are: the formula of the
    density of s = 1 without a clamp, of which it is the density only then.

    log_p: 2 or 3 tokens. scale: s, the factor of the noise. count: Gauss–Legendre nodes between the bounds. Raises
    ValueError for other log_p, a > b, s ≤ 0. Ledger: K09.clamp, K09.scale.
    """
    _check(log_p, 3)
    low, high = clamp
    if not low < high or not np.isfinite([low, high]).all() or not scale > 0 or count < 2:
        raise ValueError(f"clamp is {clamp}, scale {scale}, count {count}; give a < b, a positive scale, count ≥ 2")
    node, weight = _line(low, high, count)
    v = len(log_p)
    grid = np.stack(np.meshgrid(*[np.arange(count + 2)] * v), -1).reshape(-1, v)
    z = scale * node[grid]
    inside = (grid > 0) & (grid < count + 1)
    return SoftNodes(np.asarray(weight[grid].prod(1)), log_p + z, 1 - np.exp(-z), inside)


def soft_token(perturbed: Float[ndarray, "Q V"], temperature: float) -> Float[ndarray, "Q V"]:
    """y = softmax(g/τ). Raises ValueError for τ ≤ 0."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; give τ > 0")
    shifted = np.exp((perturbed - perturbed.max(1, keepdims=True)) / temperature)
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


Payoff = Callable[[ndarray], ndarray]
"""A reward of soft tokens: (Q,V) -> (Q,)."""


def soft_value(nodes: SoftNodes, payoff: Payoff, *, temperature: float) -> float:
    """E[f(y)]."""
    return float(nodes.weight @ payoff(soft_token(nodes.perturbed, temperature)))


def density_gradient(
    nodes: SoftNodes,
    payoff: Payoff,
    *,
    temperature: float,
    entries: Bool[ndarray, " V"] | None = None,
    mean: bool = False,
    pass_bounds: bool = True,
) -> Float[ndarray, " V"]:
    """Mean likelihood-ratio gradient in log p_j, E[f(y) ∂ log density/∂ log p_j].

    entries: tokens whose log density is counted (None: all; the code takes log p > −3). mean: average over them as the
    code does, instead of the sum that is a log density. pass_bounds: let the derivative through where the noise is at
    its clamp. Raises ValueError for no entry. Ledger: K09, K09.mean, K09.clamp.
    """
    counted = np.ones(nodes.score.shape[1], dtype=bool) if entries is None else entries
    if not counted.any():
        raise ValueError("no entry is counted; give at least one token")
    score = np.where(counted & (nodes.inside | pass_bounds), nodes.score, 0.0)
    found = (nodes.weight * payoff(soft_token(nodes.perturbed, temperature))) @ score
    return np.asarray(found / counted.sum() if mean else found)


def density_second_moments(
    nodes: SoftNodes, payoff: Payoff, *, temperature: float
) -> tuple[Float[ndarray, " V"], Float[ndarray, " V"]]:
    """E[(f(y) ∂ log density/∂ log p_j)²] for the density of g, and for that of y itself, which has the same mean.

    Given y the derivative for g has the mean s_j of ``gumbel_nodes`` and the variance (1 − s_j)²/V.

    nodes: of ``gumbel_nodes``. Ledger: K09.marginal.
    """
    weight = nodes.weight * payoff(soft_token(nodes.perturbed, temperature)) ** 2
    own = weight @ nodes.score**2
    return np.asarray(own + weight @ (1 - nodes.score) ** 2 / nodes.score.shape[1]), np.asarray(own)


def to_logits(log_p: Float[ndarray, " V"], gradient: Float[ndarray, " V"]) -> Float[ndarray, " V"]:
    """Chain rule of the log-softmax: from ∂/∂log p to ∂/∂z, g_j − p_j Σ_k g_k."""
    return np.asarray(gradient - np.exp(log_p) * gradient.sum())
