"""S22: signal, gap and alignment on the one-token task."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab import impact
from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.one_step import one_step
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

seeds = st.integers(0, 2**31)


@given(seeds)
def test_alignment_is_the_scaled_signal(seed: int) -> None:
    head, hidden, target = checks.draw_task(np.random.default_rng(seed))
    m = one_step(head, hidden, target, group_size=4, ddof=0, eps=0.0)
    exact = checks.enumerate_one_step(head, hidden, int(target[0]), 4, "standardised")
    scale = max(1.0, exact["alignment"])
    assert abs(m.alignment[0] - exact["alignment"]) <= ALGEBRA * scale
    assert abs(m.scale[0] * m.signal[0] - exact["alignment"]) <= ALGEBRA * scale
    if m.signal[0] > 1e-6:
        assert abs((1 + PLANTED_FAULT) * m.alignment[0] - exact["alignment"]) > ALGEBRA * scale


@given(seeds, st.sampled_from(["standardised", "group_mean", "leave_one_out"]), st.integers(2, 16))
def test_chain_of_lower_bounds(seed: int, baseline: str, n: int) -> None:
    m = one_step(*checks.draw_task(np.random.default_rng(seed)), group_size=n, baseline=baseline)
    usable_conditional, usable_sample = m.signal - m.gap_conditional, m.signal - m.gap_per_sample
    assert m.alignment >= usable_conditional - 1e-9
    assert usable_conditional >= usable_sample - 1e-9


def test_perfect_alignment_with_negative_usable_signal() -> None:
    case = checks.s22_counterexample()
    assert case.refutes
    assert case.claimed == pytest.approx(-0.61, abs=5e-3)
    assert case.true == pytest.approx(2.61, abs=5e-3)


def test_gauge_changes_the_signal_and_no_logit() -> None:
    head, hidden, target = checks.draw_task(np.random.default_rng(0))
    a = one_step(head, hidden, target, group_size=8)
    b = one_step(head / 10, hidden * 10, target, group_size=8)
    np.testing.assert_allclose(a.probability, b.probability, rtol=1e-12)
    assert b.signal[0] == pytest.approx(a.signal[0] / 100, rel=1e-9)


def test_conditioning_on_less_than_the_prefix_breaks_it() -> None:
    """Two prefixes share one state but have opposite value gradients: with û given the state only, E⟨û,G⟩ ≠ E⟨λ̂,G⟩."""
    gradient = np.array([[1.0], [-1.0]])
    costate = gradient
    pooled = np.repeat(costate.mean(0, keepdims=True), 2, axis=0)
    assert impact.alignment(gradient, costate) == 1.0
    assert impact.alignment(gradient, pooled) == 0.0


def test_array_functions_agree_with_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    head, hidden, target = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), rng.integers(0, 6, 5)
    m = one_step(head, hidden, target, group_size=8)
    conditional = m.scale[:, None] * m.value_gradient
    assert impact.signal(m.value_gradient) == pytest.approx(m.signal.mean(), rel=1e-12)
    assert impact.costate_gap(m.value_gradient, conditional) == pytest.approx(m.gap_conditional.mean(), rel=1e-12)
    assert impact.alignment(m.value_gradient, conditional) == pytest.approx(m.alignment.mean(), rel=1e-12)
    with pytest.raises(ValueError, match="weight must be"):
        impact.signal(m.value_gradient, weight=np.ones(5))


def test_evidence_passes() -> None:
    assert checks.s22_alignment(examples=3).passed
