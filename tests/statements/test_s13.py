"""S13: Jacobians between positions, within a layer and across layers of a transformer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_sequence as checks
from vgrad_lab.sequence.credit_flow import hidden_jacobian
from vgrad_lab.sequence.trace import trace


@settings(max_examples=20)
@given(st.sampled_from(["pre", "post"]), st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_within_a_layer_nothing_crosses_positions(kind: checks.Kind, vocab: int, layers: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = checks.build(kind, vocab=vocab, layers=layers, seed=seed)
    forbidden, allowed = checks.forbidden_and_allowed(checks.reach(trace(model, checks.draw_batch(rng, model)[0]), rng))
    assert np.all(forbidden == 0.0)
    assert np.all(allowed > 1e-6)


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_full_jacobians_between_layers(kind: checks.Kind) -> None:
    model = checks.build(kind, vocab=3, layers=2, seed=0)
    result = trace(model, checks.draw_batch(np.random.default_rng(0), model)[0])
    norms = np.array(
        [[float(hidden_jacobian(result, source=(low, 0), target=(m, 2)).norm()) for m in range(3)] for low in range(3)]
    )
    assert np.all(norms[np.tril_indices(3)] == 0.0)
    assert np.all(norms[np.triu_indices(3, 1)] > 1e-2)


def test_the_check_sees_a_state_that_does_cross() -> None:
    rng = np.random.default_rng(0)
    model = checks.build("gru", vocab=3, layers=2, seed=0)
    forbidden, _ = checks.forbidden_and_allowed(checks.reach(trace(model, checks.draw_batch(rng, model)[0]), rng))
    assert np.any(forbidden > 1e-2)


def test_evidence_and_counterexample() -> None:
    assert checks.s13_depth(examples=5).passed
    assert checks.s13_counterexample().refutes
