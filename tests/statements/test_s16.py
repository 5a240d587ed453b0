"""S16: the fixed-token path and the sampling path of a relaxed token."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments import verify_sequence as checks
from vgrad_lab.sequence.credit_flow import hidden_jacobian
from vgrad_lab.sequence.sampling import relaxed_total_jacobian, relaxed_trace, sampling_path_jacobian, soft_token
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


def test_evidence_and_refusals() -> None:
    assert checks.s16_chain(examples=4).passed
    model = checks.build("pre", vocab=3, layers=1, seed=0)
    with pytest.raises(ValueError, match="temperature is 0"):
        unchecked(soft_token)(model, torch.zeros(1, 8, dtype=torch.float64), temperature=0.0)
    with pytest.raises(ValueError, match="position is 2"):
        relaxed_trace(model, torch.tensor([[0, 1, 2]]), position=2)
