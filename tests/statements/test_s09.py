"""S09: eq. 11 counts the reward twice; the stop-gradient has no signal."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.helpers import unchecked
from vgrad_lab import strategies, verify
from vgrad_lab.advantage import group_standardised
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.experiments import verify_continuous_one_step as checks
from vgrad_lab.experiments import verify_group
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT, QUADRATURE

LINEAR: checks.Reward = (lambda a: a, np.ones_like, ())


@settings(max_examples=50)
@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.s09_unstopped(seed=seed, examples=4).passed


def test_counterexample() -> None:
    found = checks.s09_stopped()
    assert found.refutes
    assert abs(found.claimed) < 1e-12
    assert abs(found.true - 0.7) < 1e-12


@settings(max_examples=3, deadline=None)
@given(strategies.seeds())
def test_divided_by_the_spread(seed: int) -> None:
    assert verify_group.s09_standardised(seed=seed, examples=4).passed


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_slope_of_the_advantage(ddof: int) -> None:
    """Against complex steps; stopping the spread alone is seen."""
    reward = np.random.default_rng(0).normal(size=(20, 5))
    found = verify_group.standardised_slope(reward, ddof=ddof, eps=0.1)
    moved = reward[:, 0] + 1e-30j
    group = np.column_stack([moved, reward[:, 1:]])
    centred = group - group.mean(1, keepdims=True)
    right = (centred[:, 0] / (np.sqrt((centred**2).sum(1) / (5 - ddof)) + 0.1)).imag / 1e-30
    assert np.max(np.abs(found[:, 0] - right)) <= CLOSED_FORM
    assert np.max(np.abs(found[:, 0] * (1 + PLANTED_FAULT) - right)) > CLOSED_FORM


def test_reference_numbers_of_gaussian_groups() -> None:
    """σ = 0.7: 1.28958 at n = 8 and 1.36036 at n = 16; with the spread alone stopped 1.50451 and 1.45753."""
    found = [verify_group.gaussian_scale(n) / 0.7 for n in (8, 16)]
    stopped = [verify_group.stopped_scale(n) / 0.7 for n in (8, 16)]
    np.testing.assert_allclose(found, [1.28958, 1.36036], atol=5e-6)
    np.testing.assert_allclose(stopped, [1.50451, 1.45753], atol=5e-6)
    with pytest.raises(ValueError, match="take n ≥ 3"):
        unchecked(verify_group.stopped_scale)(2)


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_group_of_eight_by_sampling(ddof: int) -> None:
    """Means of Â ∂log π, of its pathwise form and of eq. 11's left side, r = a ~ N(0.3, 0.7²)."""
    noise = 0.7 * np.random.default_rng(3).standard_normal((60000, 8))
    score, closed = noise / 0.49, verify_group.gaussian_scale(8, ddof=ddof) / 0.7
    advantage = group_standardised(0.3 + noise, ddof=ddof, eps=0.0)
    slope = verify_group.standardised_slope(0.3 + noise, ddof=ddof, eps=0.0)
    for sample, expected in (
        (advantage * score, closed),
        (slope, closed),
        (advantage * (0.3 + noise) * score, 0.3 * closed),
    ):
        assert_mean_close(sample.mean(1), expected, detectable=0.05)


def test_two_samples_jump() -> None:
    """Drop n ≥ 3: Â = ±1 has slope 0, and the score form is 1/(√π σ)."""
    found = verify_group.s09_pair()
    assert found.refutes
    assert found.claimed == 0
    assert abs(found.true - 1 / (np.sqrt(np.pi) * 0.7)) <= QUADRATURE
    # ε > 0 removes the jump, and the identity is back at n = 2.
    value, slope = verify_group.given_others(LINEAR, np.array([0.2]), ddof=0, eps=0.5)
    mended = verify.score_and_pathwise(gaussian(0.7), value, slope, mean=0.3, breaks=(0.2,))
    assert abs(mended.score_function - mended.pathwise) <= QUADRATURE
    assert abs(mended.truth - mended.pathwise) <= QUADRATURE


def test_ties_jump() -> None:
    """Drop "two of the others differ": under ReLU all others may be 0, and Â jumps from 0 to √(n − 1) at a = 0."""
    value, _ = verify_group.given_others(checks.REWARDS["hinge"], np.zeros(3), ddof=0, eps=0.0)
    apart = (lambda a: np.where(a > 0, value(a), 0.0)), (lambda a: np.where(a > 0, 0.0, 0.0))
    found = verify.score_and_pathwise(gaussian(0.7), *apart, mean=0.3, breaks=(0.0,))
    height = np.sqrt(3) * float(gaussian(0.7).density(np.array(-0.3)))
    assert abs(found.pathwise) <= QUADRATURE
    assert abs(found.score_function - height) <= QUADRATURE
    assert abs(found.truth - height) <= QUADRATURE


def test_draws_that_depend_on_each_other_break_it() -> None:
    """n = 3 with a_2 the mirror image of a_1: Â_1 moves with a_1 through r_2 too, and the two means part."""
    radius, weight = checks.panels((1e-9, 9.0), (), count=16)
    angle = 2 * np.pi * (np.arange(64) + 0.5) / 64
    noise = radius[:, None, None] * np.stack([np.cos(angle), -np.cos(angle), np.sin(angle)], axis=1)
    share = np.repeat(weight * radius * np.exp(-(radius**2) / 2) / 64, 64)
    group = noise.reshape(-1, 3)
    score = share @ (group_standardised(group, ddof=0, eps=0.0)[:, 0] * group[:, 0])
    slope = share @ verify_group.standardised_slope(group, ddof=0, eps=0.0)[:, 0]
    assert abs(score - slope) > 0.1


def test_planted_fault_in_the_slope_is_seen() -> None:
    value, slope = verify_group.given_others(LINEAR, np.array([0.0, 1.0, -0.5]), ddof=1, eps=0.0)
    verify.check_score_equals_pathwise(gaussian(0.7), value, slope, mean=0.2)
    with pytest.raises(AssertionError, match="`slope` is not the derivative"):
        verify.check_score_equals_pathwise(gaussian(0.7), value, lambda a: slope(a) * (1 + PLANTED_FAULT), mean=0.2)
