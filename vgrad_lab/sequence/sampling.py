"""The sampling path: what a relaxed token lets through from one state to the states that read the token."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vgrad_lab.sequence.credit_flow import hidden_jacobian
from vgrad_lab.sequence.trace import Patch, SequenceModel, Trace, patching, trace


def soft_token(
    model: SequenceModel, state: Float[Tensor, "B S"], *, temperature: float = 1.0,
    noise: Float[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B S"]:  # fmt: skip
    """E^T softmax((z + noise)/τ), z the logits of last-layer states: the embedding that a relaxed token feeds back.

    noise: none for the deterministic relaxation, Gumbel draws for Gumbel-softmax. Raises ValueError for τ ≤ 0.
    """
    return _soft_weights(model.read_out(state), temperature, noise) @ model.token_table()


def relaxed_trace(
    model: SequenceModel, inputs: Int[Tensor, "B T"], *, position: int, temperature: float = 1.0,
    noise: Float[Tensor, "B V"] | None = None,
) -> Trace:  # fmt: skip
    """Trace in which the token after ``position`` is fed as a soft token (its embedding detached), all others fixed."""
    natural = trace(model, inputs)
    _check_position(position, inputs)
    soft = soft_token(model, natural.hidden[-1, :, position].detach(), temperature=temperature, noise=noise)
    return trace(
        model, inputs, patch=Patch(0, position + 1, (soft + _offset(model, natural, inputs, position)).detach())
    )


def sampling_path_jacobian(
    model: SequenceModel, relaxed: Trace, *, position: int, target: tuple[int, int], temperature: float = 1.0,
    noise: Float[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B S S"]:  # fmt: skip
    """(1/τ) (∂h_k^(m)/∂e) E^T C(q) ∂z/∂h_t^(L), q = softmax((z + noise)/τ): the second term of eq. 20.

    relaxed: from ``relaxed_trace`` with the same arguments; target = (m, k); (B, out, in). The factor C(q) is a
    covariance: E^T C(q) W = Cov_q(e_o, w_o). Ledger S16.
    """
    slope = logit_slope(model, relaxed, position=position)
    q = _soft_weights(model.read_out(relaxed.hidden[-1, :, position]).detach(), temperature, noise)
    reading = hidden_jacobian(relaxed, source=(0, position + 1), target=target)
    return reading @ cross_covariance(q, model.token_table().detach(), slope) / temperature


def logit_slope(model: SequenceModel, natural: Trace, *, position: int) -> Float[Tensor, "B V S"]:
    """∂z/∂h_t^(L) at t = ``position``, one row w_o for every token o."""
    state = natural.hidden[-1, :, position].detach().requires_grad_()
    logits = model.read_out(state)
    return torch.stack([torch.autograd.grad(c.sum(), state, retain_graph=True)[0] for c in logits.unbind(-1)], dim=1)


def cross_covariance(
    weight: Float[Tensor, "B V"], table: Float[Tensor, "V S"], slope: Float[Tensor, "B V S"]
) -> Float[Tensor, "B S S"]:
    """Cov_q(e_o, w_o) = Σ_o q_o (e_o − ē)(w_o − w̄)^T = E^T C(q) W, rows of ``table`` and ``slope``. Ledger S16."""
    centred = table - (weight @ table).unsqueeze(1)
    spread = slope - (weight.unsqueeze(1) @ slope)
    return (weight.unsqueeze(-1) * centred).transpose(1, 2) @ spread


def straight_through_jacobian(
    model: SequenceModel, natural: Trace, *, position: int, target: tuple[int, int],
    backward: Literal["identity", "softmax"] = "softmax", temperature: float = 1.0,
) -> Float[Tensor, "B S S"]:  # fmt: skip
    """What a straight-through token passes back: (∂h_k^(m)/∂e) E^T B ∂z/∂h_t^(L) at the drawn token's own embedding.

    B = C(softmax(z/τ))/τ for the softmax backward, the identity matrix for the identity backward. natural: from
    ``trace``. It is the derivative of nothing. Raises ValueError for another backward. Ledger S16.straight_through.
    """
    if backward not in ("identity", "softmax"):
        raise ValueError(f"backward is {backward!r}; give 'identity' or 'softmax'")
    slope = logit_slope(model, natural, position=position)
    reading = hidden_jacobian(natural, source=(0, position + 1), target=target)
    if backward == "identity":
        return reading @ model.token_table().detach().T @ slope
    q = _soft_weights(model.read_out(natural.hidden[-1, :, position]).detach(), temperature, None)
    return reading @ cross_covariance(q, model.token_table().detach(), slope) / temperature


def relaxed_total_jacobian(
    model: SequenceModel, inputs: Int[Tensor, "B T"], *, position: int, target: tuple[int, int],
    temperature: float = 1.0, noise: Float[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B S S"]:  # fmt: skip
    """dh_k^(m)/dh_t^(L) by autograd when the next token is the soft token of h_t^(L): the left side of eq. 20."""
    natural = trace(model, inputs)
    _check_position(position, inputs)
    state = natural.hidden[-1, :, position].detach().requires_grad_()
    soft = soft_token(model, state, temperature=temperature, noise=noise)
    put_state = patching(Patch(model.layers, position, state))
    put_token = patching(Patch(0, position + 1, soft + _offset(model, natural, inputs, position)))
    result = model(inputs, edit=lambda layer, start, h: put_token(layer, start, put_state(layer, start, h)))
    reached = result.hidden[target[0], :, target[1]]
    rows = [torch.autograd.grad(column.sum(), state, retain_graph=True)[0] for column in reached.unbind(-1)]
    return torch.stack(rows, dim=1)


def _offset(model: SequenceModel, natural: Trace, inputs: Tensor, position: int) -> Tensor:
    """What layer 0 adds to the token's own embedding (a position embedding, or 0)."""
    return (natural.hidden[0, :, position + 1] - model.token_table()[inputs[:, position + 1]]).detach()


def _soft_weights(logits: Tensor, temperature: float, noise: Tensor | None) -> Tensor:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; give a positive number")
    return ((logits if noise is None else logits + noise) / temperature).softmax(-1)


def _check_position(position: int, inputs: Tensor) -> None:
    if not 0 <= position < inputs.shape[1] - 1:
        raise ValueError(f"position is {position}; give one of 0 … {inputs.shape[1] - 2} (the next input is relaxed)")
