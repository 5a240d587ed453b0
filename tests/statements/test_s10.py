"""S10: what dividing by the group's spread does to the policy gradient."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.advantage import from_group
from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.impact import grpo_scale
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

probability = st.floats(0.001, 0.999)


@given(st.integers(0, 2**31), st.integers(2, 5), st.sampled_from(["standardised", "group_mean", "leave_one_out"]))
def test_scale_by_enumeration(seed: int, n: int, baseline: str) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(3))
    for ddof, eps in ((0, 0.0), (1, 1e-4)):
        got = checks.expected_logit_gradient(p, np.eye(3)[1], n, baseline, ddof=ddof, eps=eps)
        scale = grpo_scale(p[1:2], n, baseline=baseline, ddof=ddof, eps=eps)[0]
        truth = p[1] * (np.eye(3)[1] - p)
        assert np.abs(got - scale * truth).max() <= ALGEBRA
        if np.abs(truth).max() > 0.01:
            assert np.abs(got - (1 + PLANTED_FAULT) * scale * truth).max() > ALGEBRA


def test_reference_values() -> None:
    got = grpo_scale(np.array([1e-9, 0.01, 0.05, 0.1, 0.25, 0.5]), 8, ddof=0, eps=0.0)
    np.testing.assert_allclose(got, [2.6458, 2.6089, 2.4731, 2.3277, 2.0261, 1.8557], atol=5e-5)


@given(probability, st.integers(2, 64))
def test_bounds_and_special_group_sizes(p: float, n: int) -> None:
    kappa = grpo_scale(np.array([p]), n, ddof=0, eps=0.0)[0]
    upper = min(np.sqrt(n - 1), np.sqrt((n - 1) / n) / np.sqrt(p * (1 - p)))
    assert 2 * (n - 1) / n - 1e-9 <= kappa <= upper + 1e-9
    assert grpo_scale(np.array([p]), 2, ddof=0, eps=0.0)[0] == pytest.approx(1, abs=ALGEBRA)
    assert grpo_scale(np.array([p]), 3, ddof=0, eps=0.0)[0] == pytest.approx(np.sqrt(2), abs=ALGEBRA)
    assert grpo_scale(np.array([p]), n, baseline="leave_one_out")[0] == pytest.approx(1, abs=1e-10)
    assert grpo_scale(np.array([p]), n, baseline="group_mean")[0] == pytest.approx((n - 1) / n, abs=1e-10)


@pytest.mark.parametrize(("n", "expected"), [(2, 0.1575), (8, 0.125), (16, 0.021), (32, -0.043)])
def test_real_rewards_break_the_standardised_identity(n: int, expected: float) -> None:
    """The middle logit's derivative through counts of each reward (multinomial), against the truth −.2025."""
    p, reward = np.array([0.45, 0.45, 0.1]), np.array([0.0, 1.0, 10.0])
    from scipy.stats import multinomial

    total = 0.0
    for i in range(n + 1):
        for j in range(n + 1 - i):
            count = np.array([i, j, n - i - j])
            mean = count @ reward / n
            spread = np.sqrt(count @ (reward - mean) ** 2 / n)
            if spread > 0:
                score = (count / n)[:, None] * (np.eye(3) - p)
                total += multinomial.pmf(count, n, p) * ((reward - mean) / spread) @ score[:, 1]
    assert total == pytest.approx(expected, abs=6e-4)
    assert abs(total - -0.2025) > 0.1
    if n == 2:
        assert checks.expected_logit_gradient(p, reward, 2, "standardised")[1] == pytest.approx(total, abs=ALGEBRA)


def test_mixing_prompts_in_a_group_breaks_it() -> None:
    """Two samples of each of two prompts in one group of four: the factor is κ_4 of neither prompt."""
    p = np.array([0.9, 0.9, 0.2, 0.2])
    outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    weight = np.prod(np.where(outcomes == 1, p, 1 - p), 1)
    advantage = from_group(outcomes, "standardised", ddof=0, eps=0.0)

    def factor(sample: int) -> float:
        score = outcomes[:, sample] - p[sample]
        return float(weight @ (advantage[:, sample] * score)) / (p[sample] * (1 - p[sample]))

    for sample in (0, 2):
        alone = grpo_scale(p[sample : sample + 1], 4, ddof=0, eps=0.0)[0]
        assert abs(factor(sample) - alone) > 0.01
    assert abs(float(weight @ advantage[:, 0])) > 0.1, "and a prompt is rewarded for being easy"


def test_counterexample_refutes() -> None:
    assert checks.s10_nonbinary_counterexample().refutes
    assert checks.s10_scale(examples=3).passed


@given(probability, st.integers(2, 32), st.sampled_from([0.0, 1e-4, 0.1]))
def test_the_four_baselines_in_closed_form(p: float, n: int, eps: float) -> None:
    """κ_n(p) = E[s²/(s·√(n/(n − ddof)) + ε)]/(p(1 − p)) over K ~ Bin(n, p); 1 and (n − 1)/n without the spread."""
    from scipy.stats import binom

    k = np.arange(1, n)
    weight, s = binom.pmf(k, n, p), np.sqrt(k * (n - k)) / n
    for ddof in (0, 1):
        closed = float(weight @ (s**2 / (s * np.sqrt(n / (n - ddof)) + eps))) / (p * (1 - p))
        assert grpo_scale(np.array([p]), n, ddof=ddof, eps=eps)[0] == pytest.approx(closed, rel=1e-9)
    for baseline, closed in (("leave_one_out", 1.0), ("group_mean", (n - 1) / n)):
        assert grpo_scale(np.array([p]), n, baseline=baseline)[0] == pytest.approx(closed, rel=1e-9)
