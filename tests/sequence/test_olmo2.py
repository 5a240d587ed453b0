"""The statements on a real OLMo-2 of the transformers library, patched to double precision."""

import numpy as np
import torch

from vgrad_lab.experiments.verify_sequence import (
    draw_batch,
    forbidden_and_allowed,
    reach,
    recursion_error,
)
from vgrad_lab.experiments.verify_value_gradient import Problem, exact_errors, first_only_errors
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.sequence.trace import Patch, trace
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT


def test_trace_is_the_library_forward(olmo2: HookedDecoder) -> None:
    inputs = torch.tensor([[0, 1, 2, 0]])
    found = trace(olmo2, inputs)
    reference = olmo2.decoder(input_ids=inputs, output_hidden_states=True)
    assert torch.equal(found.logits, reference.logits)
    assert torch.equal(found.hidden[:-1], torch.stack(reference.hidden_states[:-1]))
    assert torch.equal(found.head_input, reference.hidden_states[-1])
    assert not torch.equal(found.hidden[-1], reference.hidden_states[-1])
    moved = trace(olmo2, inputs, patch=Patch(1, 0, torch.zeros(8, dtype=torch.float64)))
    assert not torch.equal(moved.logits[:, 3], found.logits[:, 3])
    assert torch.equal(trace(olmo2, inputs).logits, found.logits)


def test_s13_same_layer_jacobians_are_zero(olmo2: HookedDecoder) -> None:
    rng = np.random.default_rng(0)
    forbidden, allowed = forbidden_and_allowed(reach(trace(olmo2, draw_batch(rng, olmo2)[0]), rng))
    assert np.all(forbidden == 0.0)
    assert allowed.min() > 1e-3


def test_s14_recursions(olmo2: HookedDecoder) -> None:
    batch = draw_batch(np.random.default_rng(1), olmo2, length=3)
    for check in ("step", "sum", "depth", "cache"):
        assert recursion_error(check, olmo2, *batch) <= ALGEBRA
    assert recursion_error("step", olmo2, *batch, layer=0) > 0.05


def test_s21_exact(olmo2: HookedDecoder) -> None:
    rng = np.random.default_rng(2)
    problem = Problem(olmo2, 3, rng.normal(size=27))
    for tokens in (0, 1, 2):
        assert exact_errors(problem, rng, tokens=tokens).max() <= ALGEBRA
    assert exact_errors(problem, rng, tokens=1, planted=PLANTED_FAULT).max() > ALGEBRA
    first_only = first_only_errors(problem, tokens=0)
    assert first_only[-1].max() <= ALGEBRA
    assert first_only[:-1].min() > 0.05
