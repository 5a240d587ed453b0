"""Statistics: what they compute, and that the assertion can fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab import stats


def test_mean_assertion_fails_when_it_must() -> None:
    samples = np.random.default_rng(0).normal(1.0, 1.0, 4000)
    stats.assert_mean_close(samples, 1.0, detectable=0.2)
    with pytest.raises(AssertionError, match="standard errors"):
        stats.assert_mean_close(samples, 1.2, detectable=0.2)
    with pytest.raises(ValueError, match="samples detect only"):
        stats.assert_mean_close(samples, 1.0, detectable=0.01)


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=20), st.integers(0, 99))
def test_spearman_matches_scipy(values: list[int], seed: int) -> None:
    from scipy.stats import spearmanr

    x = np.array(values, dtype=float)
    y = np.random.default_rng(seed).integers(0, 4, len(x)).astype(float)
    got = stats.spearman(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(got)
    else:
        assert got == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_bootstrap_covers_the_truth_at_about_its_level() -> None:
    rng, hits = np.random.default_rng(1), 0
    for trial in range(200):
        x = rng.normal(size=40)
        interval = stats.bootstrap(lambda i, x=x: float(x[i].mean()), 40, level=0.9, resamples=200, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 160 <= hits <= 195  # binomial(200, ~.88): outside has probability below 1e-3 on either side


def test_fast_spearman_interval_is_the_bootstrap_of_spearman() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 6, 15).astype(float), rng.normal(size=15)
    slow = stats.bootstrap(lambda i: stats.spearman(x[i], y[i]), 15, resamples=300, seed=4)
    fast = stats.spearman_interval(x, y, resamples=300, seed=4)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)


def test_interval_of_ties_is_undefined() -> None:
    interval = stats.spearman_interval(np.array([1.0, 1.0, 1.0, 2.0]), np.arange(4.0), resamples=100)
    assert np.isnan(interval.low)


def test_z_score_of_a_constant_is_zero() -> None:
    assert np.all(stats.z_score(np.full(4, 3.0)) == 0)
    z = stats.z_score(np.array([1.0, 2.0, 4.0]))
    assert z.mean() == pytest.approx(0, abs=1e-15)
    assert z.std() == pytest.approx(1)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="non-finite"):
        stats.mean_with_standard_error(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="empty"):
        stats.ranks(np.array([]))
    with pytest.raises(ValueError, match="at least 2"):
        stats.mean_with_standard_error(np.array([1.0]))
    with pytest.raises(ValueError, match="level"):
        stats.bootstrap(lambda i: 0.0, 3, level=1.0)
    with pytest.raises(ValueError, match="at least 2"):
        stats.bootstrap(lambda i: 0.0, 1)
