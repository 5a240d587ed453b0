"""S19: attention weights and the size of Jacobians."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments import verify_attention as checks
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1))
def test_jacobian_of_one_head(seed: int) -> None:
    assert checks.s19_head(seed=seed, examples=1).passed


def test_planted_fault_is_found() -> None:
    rng = np.random.default_rng(0)
    head, x = checks.draw_head(rng, width=4, head_width=3), torch.from_numpy(rng.normal(size=(5, 4)))
    exact = torch.autograd.functional.jacobian(lambda y: checks.attend(head, y)[0], x)[:, 1]
    found = checks.head_jacobian(head, x, 1)
    assert float((found - exact).norm() / exact.norm()) <= CLOSED_FORM
    assert float(((1 + PLANTED_FAULT) * found - exact).norm() / exact.norm()) > CLOSED_FORM


def test_two_hops_carry_what_no_weight_shows() -> None:
    weight, jacobian = checks.two_hops()
    assert weight < 1e-12
    assert abs(jacobian - 1) < 1e-9
    assert checks.s19_counterexample().refutes


@pytest.mark.parametrize(("scale", "least"), [(1.0, 0.1), (100.0, 10.0), (10000.0, 1000.0)])
def test_one_weight_allows_any_size(scale: float, least: float) -> None:
    """Two equal keys, α = ½, while the query grows."""
    key = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    head = checks.Head(scale * torch.eye(2).double(), key, torch.eye(2).double())
    x = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    _, weight = checks.attend(head, x)
    assert torch.equal(weight, torch.full((2,), 0.5, dtype=torch.float64))
    assert float(checks.head_jacobian(head, x, 0).norm()) > least


@given(st.integers(1, 50))
def test_broad_attention_has_a_smaller_value_path(n: int) -> None:
    value = torch.eye(3, dtype=torch.float64)
    broad, peaked = torch.full((n,), 1 / n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)[0]
    ratio = checks.value_path_power(broad, value) / checks.value_path_power(peaked, value)
    assert abs(ratio - 1 / n) <= ALGEBRA


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1))
def test_a_whole_block_in_closed_form_and_its_bound(seed: int) -> None:
    block, h, source = checks.draw_block(np.random.default_rng(seed))
    error, ratio = checks.block_errors(block, h, source)
    assert error <= CLOSED_FORM
    assert ratio <= 1 + CLOSED_FORM


def test_the_bound_of_a_block_is_attained_in_the_limit_and_can_fail() -> None:
    """One head of width 1, equal keys and no network: every factor is a number, and ‖J‖ its product up to the norm."""
    spec = TransformerSpec(2, width=2, layers=1, heads=1, head_width=1)
    block = Transformer(spec, seed=0).blocks[0]
    for parameter in block.network.parameters():
        parameter.data.zero_()
    block.attention.query_key_value.weight.data.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    h = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    path = checks.block_path(block, h, source=0)
    size = float(torch.linalg.matrix_norm(path.jacobian, 2))
    assert abs(size / path.bound - 1) <= CLOSED_FORM
    assert size * (1 + PLANTED_FAULT) > path.bound


def test_planted_fault_in_a_block_is_found() -> None:
    block, h, source = checks.draw_block(np.random.default_rng(1))
    exact = checks.block_path(block, h, source=source).jacobian
    block.attention.output.weight.data[:, 0] *= 1 + PLANTED_FAULT
    moved = checks.block_path(block, h, source=source).jacobian
    assert float((moved - exact).norm() / exact.norm()) > CLOSED_FORM
    assert checks.block_errors(block, h, source)[0] <= CLOSED_FORM


def test_evidence_and_refusals_of_a_block() -> None:
    assert checks.s19_block(examples=5).passed
    block, h, _ = checks.draw_block(np.random.default_rng(0))
    with pytest.raises(ValueError, match=f"source is {len(h) - 1}"):
        unchecked(checks.block_path)(block, h, source=len(h) - 1)
