"""S08: Lemma 1, its exact conditions, and the jump formula."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab import strategies, verify
from vgrad_lab.continuous.noise import NOISES, exponential, gaussian, panels, uniform
from vgrad_lab.experiments import verify_continuous_one_step as checks
from vgrad_lab.tolerances import PLANTED_FAULT, QUADRATURE


@pytest.mark.parametrize("reward", list(checks.REWARDS))
@given(strategies.noises(), strategies.grid_arrays(1, bound=2.0))
def test_lemma(reward: str, noise: tuple[str, float], mean: np.ndarray) -> None:
    value, slope, breaks = checks.REWARDS[reward]
    name, scale = noise
    found = verify.check_score_equals_pathwise(NOISES[name](scale), value, slope, mean=float(mean[0]), breaks=breaks)
    assert abs(found.jump) <= QUADRATURE


@pytest.mark.parametrize("noise", list(NOISES))
@pytest.mark.parametrize("reward", [*checks.REWARDS, "step"])
def test_jump_formula(noise: str, reward: str) -> None:
    value, slope, breaks = checks.STEP if reward == "step" else checks.REWARDS[reward]
    for mean in (-0.7, 0.3):
        found = verify.score_and_pathwise(NOISES[noise](0.8), value, slope, mean=mean, breaks=breaks)
        scale = max(1.0, abs(found.score_function))
        assert abs(found.pathwise - (found.score_function - found.jump)) <= QUADRATURE * scale
        # Jumps of the reward are what the pathwise form misses, jumps of the density what the score function misses.
        jump_of_reward = float(NOISES[noise](0.8).density(np.array([-mean]))[0]) if reward == "step" else 0.0
        assert abs(found.pathwise + jump_of_reward - found.truth) <= QUADRATURE * scale


def test_uniform_noise() -> None:
    found = checks.s08_uniform()
    assert found.refutes
    assert found.claimed == 0
    width, mean = 0.7, 0.4
    step = verify.score_and_pathwise(uniform(width), np.sin, np.cos, mean=mean)
    closed = (np.sin(mean + width) - np.sin(mean - width)) / (2 * width)
    assert abs(step.pathwise - closed) <= QUADRATURE
    assert abs(step.jump + closed) <= QUADRATURE
    with pytest.raises(AssertionError, match=r"pathwise is right\. Jumps of the density break the score-function form"):
        verify.check_score_equals_pathwise(uniform(width), np.sin, np.cos, mean=mean)


def test_exponential_noise() -> None:
    """Exp(1), r = a at ā = 0.3: SF = 1.3, PD = 1 = ∂E r, and the jump is r(ā) = 0.3."""
    found = verify.score_and_pathwise(exponential(1.0), lambda a: a, np.ones_like, mean=0.3)
    for value, expected in zip(
        (found.score_function, found.pathwise, found.jump, found.truth), (1.3, 1.0, 0.3, 1.0), strict=True
    ):
        assert abs(value - expected) <= QUADRATURE


def test_both_forms_agree_and_are_wrong() -> None:
    found = checks.s08_both_wrong()
    assert found.refutes
    assert found.claimed == 0
    assert abs(found.true - 0.5) <= QUADRATURE
    with pytest.raises(AssertionError, match="both forms agree and both are wrong"):
        verify.check_score_equals_pathwise(uniform(1.0), *checks.STEP[:2], mean=0.3, breaks=checks.STEP[2])


def test_slope_without_a_mean() -> None:
    """r = sin(a e^{a²/2}), ν = N(0, 1): ∫_{|a|<A} |r'|ν grows without bound though rν and its limits are harmless."""

    def absolute_slope(cut: float) -> float:
        a, weight = panels((-cut, cut), (), count=4000)
        slope = np.cos(a * np.exp(a**2 / 2)) * (1 + a**2) * np.exp(a**2 / 2)
        return float(weight @ (np.abs(slope) * gaussian(1.0).density(a)))

    found = [absolute_slope(cut) for cut in (1.0, 1.5, 2.0, 2.5)]
    np.testing.assert_allclose(found, [0.70, 1.38, 2.38, 3.95], atol=0.006)


def test_planted_fault_is_seen() -> None:
    with pytest.raises(AssertionError, match="`slope` is not the derivative"):
        verify.check_score_equals_pathwise(gaussian(1.0), np.sin, lambda a: np.cos(a) * (1 + PLANTED_FAULT), mean=0.2)


@settings(max_examples=10)
@given(strategies.seeds())
def test_evidence(seed: int) -> None:
    assert checks.s08_lemma(seed=seed, examples=15).passed
    assert checks.s08_jump(seed=seed, examples=30).passed
