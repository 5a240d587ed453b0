"""S16: the fixed-token path and the sampling path of a relaxed token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments import verify_relaxation as relaxation
from vgrad_lab.experiments import verify_sequence as checks
from vgrad_lab.sequence.credit_flow import hidden_jacobian
from vgrad_lab.sequence.sampling import (
    relaxed_total_jacobian,
    relaxed_trace,
    sampling_path_jacobian,
    soft_token,
    straight_through_jacobian,
)
from vgrad_lab.sequence.trace import Patch, patching, trace
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

kinds = st.sampled_from(["pre", "post", "gru"])


@settings(max_examples=20)
@given(kinds, st.integers(2, 4), st.integers(1, 3), st.floats(0.3, 3), st.booleans(), st.integers(0, 2**31 - 1))
def test_fixed_and_sampling_path_make_the_whole(
    kind: checks.Kind, vocab: int, layers: int, temperature: float, gumbel: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = checks.build(kind, vocab=vocab, layers=layers, seed=seed)
    inputs = checks.draw_batch(rng, model, length=3)[0]
    noise = torch.from_numpy(rng.gumbel(size=(2, vocab))) if gumbel else None
    assert checks.sampling_path_error(model, inputs, temperature=temperature, noise=noise) <= ALGEBRA


@pytest.mark.parametrize("kind", ["pre", "post", "gru"])
def test_in_a_transformer_the_sampling_path_is_all_there_is(kind: checks.Kind) -> None:
    model = checks.build(kind, vocab=3, layers=2, seed=0)
    inputs = torch.tensor([[0, 1, 2]])
    relaxed = relaxed_trace(model, inputs, position=1)
    fixed = hidden_jacobian(relaxed, source=(2, 1), target=(2, 2))
    sampling = sampling_path_jacobian(model, relaxed, position=1, target=(2, 2))
    total = relaxed_total_jacobian(model, inputs, position=1, target=(2, 2))
    assert (float(fixed.norm()) == 0.0) == (kind != "gru")
    assert float(sampling.norm()) > 1e-3
    assert checks.relative_error(fixed + (1 + PLANTED_FAULT) * sampling, total) > ALGEBRA


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(2, 5))
def test_straight_through_is_off_by_twice_the_probability(seed: int, vocab: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(vocab, 2.0))
    assert abs(checks.straight_through_ratio(p, 0) - 2 * p[0]) <= ALGEBRA
    if abs(p[0] - 0.5) > 0.01:
        assert abs(checks.straight_through_ratio(p, 0) - 1) > 0.01


def straight_through_autograd(
    model: checks.SequenceModel, inputs: torch.Tensor, backward: str, temperature: float
) -> torch.Tensor:
    """dh_3^(L)/dh_2^(L) with the token of position 3 fed as soft + (hard − soft).detach()."""
    natural = trace(model, inputs)
    state = natural.hidden[-1, :, 1].detach().requires_grad_()
    logits = model.read_out(state)
    soft = (logits / temperature).softmax(-1) if backward == "softmax" else logits
    hard = torch.nn.functional.one_hot(inputs[:, 2], model.vocab).to(soft.dtype)
    table = model.token_table().detach()
    offset = (natural.hidden[0, :, 2] - table[inputs[:, 2]]).detach()
    token = (soft + (hard - soft).detach()) @ table + offset
    result = model(inputs, edit=patching(Patch(0, 2, token)))
    assert checks.relative_error(result.hidden.detach(), natural.hidden.detach()) <= ALGEBRA
    columns = result.hidden[-1, :, 2].unbind(-1)
    return torch.stack([torch.autograd.grad(c.sum(), state, retain_graph=True)[0] for c in columns], dim=1)


@settings(max_examples=15)
@given(kinds, st.sampled_from(["identity", "softmax"]), st.integers(2, 4), st.floats(0.3, 3), st.integers(0, 2**31 - 1))
def test_straight_through_passes_what_its_backward_says(
    kind: checks.Kind, backward: str, vocab: int, temperature: float, seed: int
) -> None:
    model = checks.build(kind, vocab=vocab, layers=2, seed=seed)
    inputs = checks.draw_batch(np.random.default_rng(seed), model, length=3)[0]
    found = straight_through_jacobian(
        model, trace(model, inputs), position=1, target=(2, 2), backward=backward, temperature=temperature
    )
    truth = straight_through_autograd(model, inputs, backward, temperature)
    assert checks.relative_error(found, truth) <= ALGEBRA
    if float(truth.norm()) > 1e-2:
        assert checks.relative_error((1 + PLANTED_FAULT) * found, truth) > ALGEBRA


@settings(max_examples=15)
@given(st.integers(0, 2**31 - 1))
def test_missing_term_is_a_covariance(seed: int) -> None:
    assert relaxation.s16_covariance(seed=seed, examples=1).passed


def test_another_covariance_is_another_term() -> None:
    rng = np.random.default_rng(0)
    model = checks.build("pre", vocab=3, layers=2, seed=0)
    missing, reading, q, table, slope = relaxation.missing_term_parts(
        model, checks.draw_batch(rng, model, length=3)[0], 1.0
    )
    moved = q * (1 + PLANTED_FAULT * torch.tensor([1.0, 0, 0]))
    faulty = reading @ relaxation.explicit_covariance(moved / moved.sum(-1, keepdim=True), table, slope)
    assert checks.relative_error(faulty, missing) > ALGEBRA


@given(st.integers(0, 2**31 - 1))
def test_straight_through_is_exact_for_affine_payoffs_with_the_softmax_backward(seed: int) -> None:
    assert relaxation.s16_straight_through(seed=seed, examples=1).passed


@given(st.floats(0.01, 0.99), st.floats(-5, 5), st.floats(-5, 5))
def test_identity_backward_is_off_even_for_affine_payoffs(x: float, first: float, second: float) -> None:
    p, b = np.array([x, 1 - x]), np.array([first, second])
    bias = relaxation.straight_through_bias(p, b, np.tile(b, (2, 1)), backward="identity")
    truth = x * (1 - x) * (first - second) * np.array([1, -1])
    assert np.abs(bias - (b - truth)).max() <= ALGEBRA * 10
    assert relaxation.s16_identity_backward().refutes


def test_curved_payoffs_break_the_softmax_backward() -> None:
    p = np.array([0.2, 0.3, 0.5])
    corner = np.eye(3)[0]
    bias = relaxation.straight_through_bias(p, corner, 2 * np.outer(corner, corner), backward="softmax")
    assert np.abs(bias).max() > 0.05


def test_evidence_and_refusals() -> None:
    assert checks.s16_chain(examples=4).passed
    assert relaxation.s16_covariance(examples=4).passed
    natural = trace(checks.build("pre", vocab=3, layers=1, seed=0), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="'identity' or 'softmax'"):
        unchecked(straight_through_jacobian)(None, natural, position=1, target=(1, 2), backward="hard")
    model = checks.build("pre", vocab=3, layers=1, seed=0)
    with pytest.raises(ValueError, match="temperature is 0"):
        unchecked(soft_token)(model, torch.zeros(1, 8, dtype=torch.float64), temperature=0.0)
    with pytest.raises(ValueError, match="position is 2"):
        relaxed_trace(model, torch.tensor([[0, 1, 2]]), position=2)
