"""Deterministic checks and counterexamples of S19: what attention weights say about the size of a Jacobian."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.ledger.types import Counterexample, Evidence
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
