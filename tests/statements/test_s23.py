"""S23: the per-sample gap is noise, and its closed form."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.one_step import one_step, sampled_group_gap
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT


@given(st.integers(0, 2**31), st.sampled_from(["standardised", "group_mean", "leave_one_out"]))
def test_closed_form_equals_enumeration(seed: int, baseline: str) -> None:
    head, hidden, target = checks.draw_task(np.random.default_rng(seed))
    m = one_step(head, hidden, target, group_size=4, baseline=baseline, ddof=0, eps=0.0)
    for key, value in checks.enumerate_one_step(head, hidden, int(target[0]), 4, baseline).items():
        got = float(getattr(m, key)[0])
        assert abs(got - value) <= CLOSED_FORM * max(1.0, abs(value)), key
        if abs(value) > 1e-3:
            assert abs((1 + PLANTED_FAULT) * got - value) > CLOSED_FORM * max(1.0, abs(value))


def test_unbiased_costate_has_a_large_per_sample_gap() -> None:
    case = checks.s23_counterexample()
    assert case.refutes
    assert case.claimed == pytest.approx(2 * abs(1 - 0.2), rel=1e-12)


def test_usable_signal_per_sample_is_negative_in_most_tasks() -> None:
    rng = np.random.default_rng(0)
    tasks = [one_step(*checks.draw_task(rng), group_size=8, ddof=0, eps=0.0) for _ in range(500)]
    negative = np.mean([float((m.signal - m.gap_per_sample)[0]) < 0 for m in tasks])
    assert negative > 0.95


def test_sampled_group_gap_has_the_enumerated_mean() -> None:
    rng = np.random.default_rng(1)
    head, hidden, target = checks.draw_task(rng, vocabulary=3)
    m = one_step(head, hidden, target, group_size=3)
    p, y = m.probability[0], int(target[0])
    groups = np.array(list(itertools.product(range(3), repeat=3)))
    from vgrad_lab.advantage import from_group

    costate = (from_group((groups == y).astype(float))[..., None] * (head - p @ head)[groups]).mean(1)
    exact = np.prod(p[groups], 1) @ np.linalg.norm(costate - m.value_gradient[0], axis=1) * np.sqrt(m.signal[0])
    drawn = sampled_group_gap(head, m, target, group_size=3, groups=20_000, rng=rng)[0]
    assert_mean_close(drawn, float(exact), detectable=0.2 * float(exact))


def test_bad_input_is_refused() -> None:
    head, hidden, target = checks.draw_task(np.random.default_rng(0))
    with pytest.raises(ValueError, match="S must agree"):
        unchecked(one_step)(head[:, :3], hidden, target, group_size=8)
    with pytest.raises(ValueError, match="token ids"):
        one_step(head, hidden, np.array([9]), group_size=8)
    with pytest.raises(ValueError, match="non-finite"):
        one_step(head * np.nan, hidden, target, group_size=8)
    with pytest.raises(ValueError, match="group_size"):
        one_step(head, hidden, target, group_size=1)


def test_evidence_passes() -> None:
    assert checks.s23_closed_form(examples=2).passed
