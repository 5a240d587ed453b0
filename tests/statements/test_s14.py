"""S14: the one-step recursion (15) and the recursions that are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_sequence as checks
from vgrad_lab.sequence.credit_flow import empirical_costate
from vgrad_lab.sequence.recursion import cache_recursion, direct_sum, immediate_credit, one_step_recursion
from vgrad_lab.sequence.trace import trace
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

sizes = (st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**31 - 1))
transformers = st.sampled_from(["pre", "post"])
few = settings(max_examples=12)


def error(check: str, kind: checks.Kind, vocab: int, layers: int, seed: int, layer: int = -1) -> float:
    model = checks.build(kind, vocab=vocab, layers=layers, seed=seed)
    batch = checks.draw_batch(np.random.default_rng(seed), model, length=3)
    return checks.recursion_error(check, model, *batch, layer=layer)


@few
@given(transformers, *sizes)
def test_at_the_last_layer_it_is_true_and_empty(kind: checks.Kind, vocab: int, layers: int, seed: int) -> None:
    assert error("step", kind, vocab, layers, seed) <= ALGEBRA
    model = checks.build(kind, vocab=vocab, layers=layers, seed=seed)
    inputs, targets, advantage = checks.draw_batch(np.random.default_rng(seed), model)
    result = trace(model, inputs)
    immediate = immediate_credit(result, targets, advantage)[-1]
    assert checks.relative_error(immediate, empirical_costate(result, targets, advantage)[-1]) <= ALGEBRA


@pytest.mark.parametrize("kind", ["pre", "post"])
@pytest.mark.parametrize("seed", range(5))
def test_below_the_last_layer_it_fails(kind: checks.Kind, seed: int) -> None:
    assert min(error("step", kind, 3, 3, seed, layer=layer) for layer in (0, 1, 2)) > 0.01


@few
@given(st.sampled_from(checks.KINDS), *sizes)
def test_sum_over_later_positions(kind: checks.Kind, vocab: int, layers: int, seed: int) -> None:
    assert error("sum", kind, vocab, layers, seed) <= ALGEBRA


@few
@given(transformers, *sizes)
def test_one_step_in_depth(kind: checks.Kind, vocab: int, layers: int, seed: int) -> None:
    assert error("depth", kind, vocab, layers, seed) <= ALGEBRA


def test_one_step_in_depth_needs_a_transformer() -> None:
    assert error("depth", "gru", 3, 1, 0) > 0.01


@few
@given(st.sampled_from(checks.KINDS), *sizes)
def test_one_step_in_time_for_the_cache(kind: checks.Kind, vocab: int, layers: int, seed: int) -> None:
    assert error("cache", kind, vocab, layers, seed) <= ALGEBRA


@few
@given(*sizes)
def test_one_step_at_the_top_of_a_gru(vocab: int, layers: int, seed: int) -> None:
    assert error("step", "gru", vocab, layers, seed) <= ALGEBRA


def test_one_step_fails_below_the_top_of_a_gru() -> None:
    assert error("step", "gru", 3, 2, 0, layer=1) > 0.01


def test_planted_faults_are_found() -> None:
    model = checks.build("pre", vocab=3, layers=2, seed=0)
    inputs, targets, advantage = checks.draw_batch(np.random.default_rng(0), model, length=3)
    result = trace(model, inputs)
    truth = empirical_costate(result, targets, advantage)
    faulty = advantage.copy()
    faulty[:, -1] *= 1 + PLANTED_FAULT
    assert checks.relative_error(direct_sum(result, targets, faulty, layer=0), truth[0]) > ALGEBRA
    assert checks.relative_error(one_step_recursion(result, targets, faulty, layer=2), truth[2]) > ALGEBRA
    pairs = zip(
        cache_recursion(model, inputs, targets, faulty), cache_recursion(model, inputs, targets, advantage), strict=True
    )
    assert max(checks.relative_error(a, b) for a, b in pairs) > ALGEBRA


def test_evidence_and_counterexample() -> None:
    for check in (checks.s14_top, checks.s14_sum, checks.s14_depth, checks.s14_cache, checks.s14_gru):
        assert check(examples=2).passed
    assert checks.s14_counterexample().refutes
    with pytest.raises(ValueError, match="'cache'"):
        error("other", "pre", 2, 1, 0)
