"""Deterministic checks and counterexamples of S18 (grouped heads) and S19 (attention weights and Jacobians)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.experiments.verify_sequence import jacobian_rank
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.sequence.transformer import Block, Transformer, TransformerSpec
from vgrad_lab.tolerances import CLOSED_FORM


@dataclass(frozen=True)
class Head:
    """Query, key and value matrices of one attention head, each (head width, width)."""

    query: Tensor
    key: Tensor
    value: Tensor


def draw_head(rng: np.random.Generator, *, width: int, head_width: int) -> Head:
    """A head with standard normal entries."""
    return Head(*(torch.from_numpy(rng.normal(size=(head_width, width))) for _ in range(3)))


def attend(head: Head, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output (head width) and weights (T) of the last position of ``x`` (T, width)."""
    scores = (x @ head.key.T) @ (head.query @ x[-1]) / head.query.shape[0] ** 0.5
    weight = scores.softmax(0)
    return weight @ (x @ head.value.T), weight


def head_jacobian(head: Head, x: Tensor, position: int) -> Tensor:
    """∂o_t/∂x_j = α_j (W_V + (v_j − o_t)(W_K^T q_t)^T/√d_h) for j = position before the last position t."""
    output, weight = attend(head, x)
    spread = torch.outer(head.value @ x[position] - output, head.key.T @ (head.query @ x[-1]))
    return weight[position] * (head.value + spread / head.query.shape[0] ** 0.5)


def s19_head(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The Jacobian of one head, closed form against autograd."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(examples):
        length, width, head_width = (int(rng.integers(2, 6)) for _ in range(3))
        head, x = draw_head(rng, width=width, head_width=head_width), torch.from_numpy(rng.normal(size=(length, width)))
        position = int(rng.integers(length - 1))
        exact = torch.autograd.functional.jacobian(lambda y, head=head: attend(head, y)[0], x)[:, position]  # type: ignore[no-untyped-call]
        worst = max(worst, float((head_jacobian(head, x, position) - exact).norm() / (exact.norm() + 1e-3)))
    return Evidence(worst, CLOSED_FORM, "relative to ‖J‖ + 1e-3, a position before the query")


def two_hops(strength: float = 30.0) -> tuple[float, float]:
    """Largest direct weight α_31 of two layers that read one position back, and ∂y_3/∂x_1 of the two together."""
    scores = torch.full((3, 3), -torch.inf, dtype=torch.float64).triu(1)
    scores[1, 0] = scores[2, 1] = strength
    weight = scores.softmax(-1)
    x = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: y + weight @ y + weight @ (y + weight @ y), x)  # type: ignore[no-untyped-call]
    return float(weight[2, 0]), float(jacobian[2, 0])


def s19_counterexample() -> Counterexample:
    """Two layers whose direct weight from position 3 to position 1 is nothing, and the Jacobian between them."""
    weight, jacobian = two_hops()
    return Counterexample(weight, jacobian, 0.9, f"α_31 = {weight:.2g} in both layers, J_(3←1) = {jacobian:.4f}")


def value_path_power(weight: Tensor, value: Tensor) -> float:
    """Σ_j ‖α_j W_V‖_F²: the value path's total squared size over the positions read."""
    return float(sum(((a * value) ** 2).sum() for a in weight))


def grouped_rank(heads: int, groups: int, head_width: int, *, layers: int = 1) -> int:
    """Most rank of the attention path through ``layers`` layers with shared key-value heads, g = heads/groups.

    n_kv·((layers−1)·min(g, 2)·d_h + min(g·d_h, d_h + min(g, d_h))): a state leaves its position through its keys and
    values alone, and in the last layer one query for each head reads them. Ledger S18.grouped.
    """
    shared = heads // groups
    last = min(shared * head_width, head_width + min(shared, head_width))
    return groups * ((layers - 1) * min(shared, 2) * head_width + last) if layers > 0 else 0


def grouped_case(
    heads: int, groups: int, head_width: int, *, layers: int, seed: int, norm: Literal["pre", "post"] = "pre"
) -> tuple[int, int]:
    """Rank of ∂h_5^(L)/∂h_1^(0) in a random transformer of width 40, and its bound."""
    spec = TransformerSpec(
        4, width=40, layers=layers, heads=heads, head_width=head_width, key_value_heads=groups, norm=norm
    )  # fmt: skip
    inputs = torch.tensor([[0, 1, 2, 3, 0]])
    rank = jacobian_rank(Transformer(spec, seed=seed), inputs, source=(0, 0), target=(layers, 4))
    return rank, min(spec.width, grouped_rank(heads, groups, head_width, layers=layers))


def s18_grouped(*, seed: int = 0, examples: int = 5) -> Evidence:
    """Rank of the attention path with shared key-value heads through 1-3 layers; residual = excess over the bound."""
    rng, excess, attained = np.random.default_rng(seed), -(10**9), 0
    for _ in range(examples):
        groups, shared, head_width, layers = (int(rng.integers(1, n)) for n in (3, 5, 4, 4))
        rank, bound = grouped_case(
            groups * shared, groups, head_width, layers=layers, seed=int(rng.integers(2**31)),
            norm="pre" if rng.random() < 0.5 else "post",
        )  # fmt: skip
        excess, attained = max(excess, rank - bound), attained + (rank == bound)
    return Evidence(float(excess), 0.0, f"largest rank − bound; attained in {attained} of {examples} transformers")


@dataclass(frozen=True)
class BlockPath:
    """A pre-norm block's Jacobian from position s to t ≠ s in closed form, its bound, and the weights α_ts per head."""

    jacobian: Tensor
    bound: float
    weight: Tensor


def norm_jacobian(h: Tensor, gain: Tensor, eps: float) -> Tensor:
    """∂ RMSnorm/∂h = diag(g)(I − h h^T/(d ρ²))/ρ, ρ² = mean h² + eps."""
    rho = (h.square().mean() + eps).sqrt()
    eye = torch.eye(len(h), dtype=h.dtype)
    return gain[:, None] * (eye - torch.outer(h, h) / (len(h) * rho**2)) / rho


def block_path(block: Block, h: Tensor, *, source: int) -> BlockPath:
    """∂(block output at the last position)/∂h_s = (I + MLP') Σ_heads W_O α_s (W_V + (v_s − o)(W_K^T q)^T/√d_h) N'_s.

    h: (T, width), source < T − 1. bound: with the norm of each factor, ‖N'_s‖ ≤ ‖g‖_∞/rms(h_s). Pre-norm blocks only.
    """
    if not block.pre or not 0 <= source < len(h) - 1:
        raise ValueError(f"source is {source}; give one of 0 … {len(h) - 2} and a pre-norm block")
    attention, norm = block.attention, block.attention_norm
    h = h.detach()
    alpha, query, _, value = (part[0].detach() for part in attention.weigh(norm(h[None])))
    width, shared = attention.head_width, attention.heads // attention.groups
    weights = attention.query_key_value.weight.detach()[attention.heads * width :]
    keys, values = weights.reshape(2, attention.groups, width, -1)
    reading, size = torch.zeros(len(h[0]), len(h[0]), dtype=h.dtype), 0.0
    for i in range(attention.heads):
        out = attention.output.weight.detach()[:, i * width : (i + 1) * width]
        spread, pull = value[i, source] - alpha[i, -1] @ value[i], keys[i // shared].T @ query[i, -1] / width**0.5
        reading += out @ (alpha[i, -1, source] * (values[i // shared] + torch.outer(spread, pull)))
        inside = torch.linalg.matrix_norm(values[i // shared], 2) + spread.norm() * pull.norm()
        size += float(alpha[i, -1, source] * torch.linalg.matrix_norm(out, 2) * inside)
    middle = (h + attention(norm(h[None]))[0])[-1].detach()
    outer = torch.autograd.functional.jacobian(lambda u: u + block.network(block.network_norm(u)), middle)  # type: ignore[no-untyped-call]
    eps = float(norm.eps or 0.0)
    rms = float((h[source].square().mean() + eps).sqrt())
    bound = float(torch.linalg.matrix_norm(outer, 2)) * size * float(norm.weight.detach().abs().max()) / rms
    inner = norm_jacobian(h[source], norm.weight.detach(), eps)
    return BlockPath(outer @ reading @ inner, bound, alpha[:, -1, source])


def draw_block(rng: np.random.Generator) -> tuple[Block, Tensor, int]:
    """A random pre-norm block with possibly grouped heads, states of random size, and a source position."""
    groups, shared, head_width = (int(rng.integers(1, 4)) for _ in range(3))
    spec = TransformerSpec(
        2, width=8, layers=1, heads=groups * shared, head_width=head_width, key_value_heads=groups
    )  # fmt: skip
    block: Block = Transformer(spec, seed=int(rng.integers(2**31))).blocks[0]  # type: ignore[assignment]
    for norm in (block.attention_norm, block.network_norm):
        norm.weight.data.copy_(torch.from_numpy(rng.normal(size=8)))
    length = int(rng.integers(2, 6))
    h = torch.from_numpy(rng.normal(size=(length, 8)) * 10 ** rng.uniform(-1, 1, size=(length, 1)))
    return block, h, int(rng.integers(length - 1))


def block_errors(block: Block, h: Tensor, source: int) -> tuple[float, float]:
    """Relative error of the closed form against autograd, and ‖J‖ over its bound."""
    path = block_path(block, h, source=source)
    exact = torch.autograd.functional.jacobian(lambda x: block(x[None])[0, -1], h)[:, source]  # type: ignore[no-untyped-call]
    size = float(torch.linalg.matrix_norm(exact, 2))
    return float((path.jacobian - exact).norm() / exact.norm().clamp(min=1e-9)), size / path.bound


def s19_block(*, seed: int = 0, examples: int = 20) -> Evidence:
    """A whole pre-norm block: its cross-position Jacobian in closed form, and the bound that its factors give."""
    rng = np.random.default_rng(seed)
    found = np.array([block_errors(*draw_block(rng)) for _ in range(examples)]).reshape(-1, 2)
    over = max(0.0, float(found[:, 1].max(initial=0.0)) - 1)
    detail = f"relative to ‖J‖; largest ratio to the bound {found[:, 1].max(initial=0.0):.3f}"
    return Evidence(max(float(found[:, 0].max(initial=0.0)), over), CLOSED_FORM, detail)
