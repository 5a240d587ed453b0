"""Deterministic checks and counterexamples of S16 and S17: relaxed tokens, their covariance and their temperature."""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab import simplex
from vgrad_lab.experiments.verify_sequence import draw_batch, draw_model, relative_error
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.sequence.credit_flow import hidden_jacobian
from vgrad_lab.sequence.sampling import logit_slope, relaxed_trace, sampling_path_jacobian
from vgrad_lab.sequence.trace import SequenceModel
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE

SLACK = 1e-11
"""Absolute slack of a bound on κ, whose own evaluation near a point mass is good to 1e-15."""


def draw_logits(rng: np.random.Generator, vocabulary: int) -> Float[ndarray, "B V"]:
    """One row: normal logits of a random scale, a few equal atoms above dust, or two atoms."""
    kind = int(rng.integers(3))
    if kind == 0:
        return rng.normal(size=(1, vocabulary)) * 10 ** rng.uniform(-1, 1.5)
    atoms = 2 if kind == 1 else int(rng.integers(1, vocabulary + 1))
    logits = np.full((1, vocabulary), -(10 ** rng.uniform(0, 1.8)))
    logits[0, :atoms] = 0.0
    if kind == 1:
        logits[0, 1] = -(10 ** rng.uniform(-1, 1.8))
    return logits


def softmax(logits: Float[ndarray, "B V"]) -> Float[ndarray, "B V"]:
    """Softmax of each row."""
    weight = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(weight / weight.sum(1, keepdims=True))


def temperature_excess(logits: Float[ndarray, "B V"], temperature: float) -> float:
    """κ(softmax(z/τ)) less its bound by the entropy of softmax(z)."""
    norm = simplex.softmax_covariance_norm(softmax(logits / temperature))
    bound = simplex.temperature_bound(simplex.entropy_of_logits(logits), logits.shape[1], temperature)
    return float((norm - bound).max())


def s17_temperature(*, seed: int = 0, examples: int = 20) -> Evidence:
    """κ(softmax(z/τ)) against its bound by the entropy of softmax(z), τ from .1 to 10; residual = largest excess."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples * 10):
        logits = draw_logits(rng, int(rng.integers(2, 40)))
        worst = max(worst, temperature_excess(logits, float(10 ** rng.uniform(-1, 1))))
    return Evidence(worst, SLACK, f"largest excess over the bound, {examples * 10} distributions, absolute")


def jacobian_over_root_entropy(gap: float, temperature: float) -> float:
    """‖∂o/∂z‖/√(H/ln 2) for two tokens with logits (Δ, 0), soft at τ, H the entropy of softmax(z)."""
    tail = math.exp(-abs(gap) / temperature)
    norm = 2 * tail / (1 + tail) ** 2 / temperature
    return norm / math.sqrt(float(simplex.entropy_of_logits(np.array([[gap, 0.0]]))[0]) / simplex.LN2)


def s17_hot() -> Counterexample:
    """Two tokens, logits 80 apart: Prop. 2's ratio at τ = 2 and at τ = 3."""
    found = {tau: jacobian_over_root_entropy(80.0, tau) for tau in (2.0, 2.1, 3.0, 5.0)}
    shown = ", ".join(f"{ratio:.3g} (τ = {tau:g})" for tau, ratio in found.items())
    return Counterexample(1.0, found[3.0], 1e4, f"‖∂o/∂z‖/√(H/ln 2), V = 2, Δ = 80: {shown}")


def s17_gumbel(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The Gumbel-softmax's mean slope for two tokens: quadrature against the closed form at τ = 1."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        gap = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-2, 2))
        closed = simplex.gumbel_pathwise_slope_at_one(gap)
        worst = max(worst, abs(simplex.gumbel_pathwise_slope(gap, temperature=1.0) / closed - 1))
    return Evidence(worst, QUADRATURE, "relative, logits .01 to 100 apart")


def gumbel_to_discrete(gap: float, temperature: float) -> float:
    """Gumbel-softmax's mean pathwise slope over the discrete one σ(Δ)(1 − σ(Δ)), two tokens."""
    tail = math.exp(-abs(gap))
    return simplex.gumbel_pathwise_slope(gap, temperature=temperature) * (1 + tail) ** 2 / tail


def s17_constants(*, seed: int = 0, examples: int = 20) -> Evidence:
    """κ/√H, (1 − x)/√H and 1 − ‖p‖² against their sharp constants; residual = largest excess."""
    rng, worst = np.random.default_rng(seed), -math.inf
    for _ in range(examples * 10):
        logits = draw_logits(rng, int(rng.integers(2, 40)))
        p, h = softmax(logits), simplex.entropy_of_logits(logits)
        excess = (
            simplex.softmax_covariance_norm(p) - simplex.SOFTMAX_CONSTANT * np.sqrt(h),
            1 - p.max(1) - simplex.CONFIDENCE_CONSTANT * np.sqrt(h),
            1 - (p * p).sum(1) - h / (2 * simplex.LN2),
        )
        worst = max(worst, *(float(e[0]) for e in excess))
    two, four = np.full((1, 2), 0.5), np.full((1, 4), 0.25)
    tight = (
        abs(0.5 / np.sqrt(simplex.entropy(two)[0]) - simplex.SOFTMAX_CONSTANT),
        abs(0.75 / np.sqrt(simplex.entropy(four)[0]) - simplex.CONFIDENCE_CONSTANT),
    )
    return Evidence(max(worst, *map(float, tight)), SLACK, "largest excess, absolute; both constants attained")


def explicit_covariance(weight: Tensor, table: Tensor, slope: Tensor) -> Tensor:
    """E^T (diag q − q q^T) W by matrices, per row of the batch."""
    matrix = torch.diag_embed(weight) - weight.unsqueeze(-1) * weight.unsqueeze(-2)
    return table.T @ matrix @ slope


def missing_term_parts(
    model: SequenceModel, inputs: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Missing term of eq. 20 from position 1 to the last layer of position 2, ∂h/∂e, q, E and W."""
    target = (model.layers, 2)
    relaxed = relaxed_trace(model, inputs, position=1, temperature=temperature)
    missing = sampling_path_jacobian(model, relaxed, position=1, target=target, temperature=temperature)
    weight = (model.read_out(relaxed.hidden[-1, :, 1]).detach() / temperature).softmax(-1)
    reading = hidden_jacobian(relaxed, source=(0, 2), target=target)
    return missing, reading, weight, model.token_table().detach(), logit_slope(model, relaxed, position=1)


def s16_covariance(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The missing term of eq. 20 is (1/τ)(∂h/∂e) Cov_q(e_o, w_o), here with the covariance by matrices."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        model, tau = draw_model(rng, ("pre", "post", "gru")), float(rng.uniform(0.3, 3))
        missing, reading, q, table, slope = missing_term_parts(model, draw_batch(rng, model, length=3)[0], tau)
        worst = max(worst, relative_error(missing, reading @ explicit_covariance(q, table, slope) / tau))
    return Evidence(worst, ALGEBRA, "relative to max(‖missing term‖, 1e-3), three architectures")


def covariance_ratios(missing: Tensor, reading: Tensor, q: Tensor, table: Tensor, slope: Tensor, tau: float) -> Tensor:
    """‖M‖ over its two bounds free of gauge, (B, 2): by the covariances' norms, and by the diameters."""

    def spread(rows: Tensor) -> tuple[Tensor, Tensor]:
        centred = rows - q.unsqueeze(1) @ rows
        covariance = (q.unsqueeze(-1) * centred).transpose(1, 2) @ centred
        return torch.linalg.matrix_norm(covariance, 2), torch.cdist(rows, rows).amax((1, 2))

    (cov_e, diam_e), (cov_w, diam_w) = spread(table.expand(len(q), -1, -1)), spread(slope)
    outer = torch.linalg.matrix_norm(reading, 2) / tau
    by_covariance = outer * (cov_e * cov_w).sqrt()
    by_diameter = outer * diam_e * diam_w * (1 - (q * q).sum(-1)) / 2
    size = torch.linalg.matrix_norm(missing, 2)
    return torch.stack([size / by_covariance, size / by_diameter], dim=-1)


def s17_covariance(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The missing term against its bounds by covariances and by diameters; residual = largest ratio − 1."""
    rng, worst = np.random.default_rng(seed), torch.zeros(2, dtype=torch.float64)
    for _ in range(examples):
        model, tau = draw_model(rng, ("pre", "post", "gru")), float(rng.uniform(0.3, 3))
        parts = missing_term_parts(model, draw_batch(rng, model, length=3)[0], tau)
        worst = torch.maximum(worst, covariance_ratios(*parts, tau).amax(0))
    return Evidence(float(worst.max()) - 1, SLACK, f"largest ratios {worst[0]:.3f} and {worst[1]:.3f}")


def straight_through_bias(
    p: Float[ndarray, " V"], payoff: Float[ndarray, " V"], slope: Float[ndarray, "V V"], *,
    backward: Literal["identity", "softmax"],
) -> Float[ndarray, " V"]:  # fmt: skip
    """E[straight-through gradient] − ∂_z E[φ(o)] for one token: C(p)(E∇φ − φ) or E∇φ − C(p)φ.

    payoff: φ at every one-hot token; slope: row o is ∇φ there.
    """
    covariance = np.diag(p) - np.outer(p, p)
    expected = p @ slope
    return (covariance @ expected if backward == "softmax" else expected) - covariance @ payoff


def s16_straight_through(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Affine payoff: the softmax backward is unbiased; for o_y² it is (2p_y − 1) times the truth off."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        vocab = int(rng.integers(2, 7))
        p, b = rng.dirichlet(np.ones(vocab)), rng.normal(size=vocab)
        affine = straight_through_bias(p, b, np.tile(b, (vocab, 1)), backward="softmax")
        corner = np.eye(vocab)[0]
        square = straight_through_bias(p, corner, 2 * np.outer(corner, corner), backward="softmax")
        expected = (2 * p[0] - 1) * p[0] * (corner - p)
        worst = max(worst, float(np.abs(affine).max()), float(np.abs(square - expected).max()))
    return Evidence(worst, ALGEBRA, "absolute, by enumeration of the token")


def s16_identity_backward() -> Counterexample:
    """φ = o_1, p = (.99, .01): the identity backward passes 1 to z_1, the true slope is p(1 − p)."""
    p, b = np.array([0.99, 0.01]), np.array([1.0, 0.0])
    bias = straight_through_bias(p, b, np.tile(b, (2, 1)), backward="identity")
    truth = float(p[0] * p[1])
    return Counterexample(
        truth + float(bias[0]), truth, 0.5, "∂/∂z_1 of E[o_1], straight-through with identity backward"
    )
