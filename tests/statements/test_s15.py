"""S15: what sampling blocks in a recurrent network, and what it does not."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_sequence as checks
from vgrad_lab.experiments import verify_value_gradient as values
from vgrad_lab.sequence.trace import trace
from vgrad_lab.tolerances import ALGEBRA


@settings(max_examples=20)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_credit_crosses_time_in_a_gru(vocab: int, layers: int, seed: int) -> None:
    model = checks.build("gru", vocab=vocab, layers=layers, seed=seed)
    assert checks.cross_time_share(model, *checks.draw_batch(np.random.default_rng(seed), model)).min() > 1e-3


@settings(max_examples=20)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_nothing_crosses_in_a_token_only_network(vocab: int, layers: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = checks.build("token", vocab=vocab, layers=layers, seed=seed)
    found = checks.reach(trace(model, checks.draw_batch(rng, model)[0]), rng)
    _, k, _, t = np.indices(found.shape)
    assert np.all(found[k != t] == 0.0)


@settings(max_examples=15)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_yet_its_expected_credit_is_exact(vocab: int, layers: int, horizon: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = checks.build("token", vocab=vocab, layers=layers, seed=seed)
    problem = values.Problem(model, horizon, rng.normal(size=vocab**horizon))
    assert values.exact_errors(problem, rng, tokens=0).max() <= ALGEBRA
    assert values.first_only_errors(problem, tokens=0).max() <= ALGEBRA


def test_evidence_and_counterexample() -> None:
    assert checks.s15_token(examples=3).passed
    assert checks.s15_counterexample().refutes
