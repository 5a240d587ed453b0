"""Estimators whose answers come from an older policy: against the on-policy moments, single answers, plain loops."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers import unchecked
from vgrad_lab.discrete.estimator_moments import exact_moments
from vgrad_lab.discrete.estimator_types import Problem, random_problem, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, find, token_advantage
from vgrad_lab.discrete.off_policy import Clip, importance_ratio, off_policy_gradient, shifted
from vgrad_lab.discrete.off_policy_moments import compared, off_policy_moments
from vgrad_lab.discrete.token_tree import token_score
from vgrad_lab.tolerances import ALGEBRA

PLAIN = [name for name, e in ESTIMATORS.items() if not e.whitened and e.sets is None and not e.mixed_only]
SMALL = random_problem(2, 2, seed=3)


def moved(problem: Problem, seed: int, size: float = 0.6) -> np.ndarray:
    return shifted(problem.logits, size, np.random.default_rng(seed))


@pytest.mark.parametrize("name", PLAIN)
def test_without_a_shift_they_are_the_on_policy_moments(name: str) -> None:
    for clip in (None, Clip(0.2, 0.28, cap=3.0)):
        mean, variance = off_policy_moments(find(name), SMALL, SMALL.logits, group=3, clip=clip)
        expected = exact_moments(find(name), SMALL, group=3)
        np.testing.assert_allclose(mean, expected.mean, rtol=0, atol=ALGEBRA)
        assert variance == pytest.approx(expected.variance, rel=1e-10, abs=ALGEBRA)


def by_loops(
    name: str, problem: Problem, logits: np.ndarray, ratio: str, clip: Clip | None
) -> tuple[np.ndarray, float]:
    """Every pair of answers, every token, every branch written out."""
    rho = importance_ratio(problem.tree, logits, problem.logits, ratio)  # type: ignore[arg-type]
    score, p = token_score(problem.tree, logits), problem.probability
    mean, second = np.zeros(logits.size), 0.0
    for pair in itertools.product(range(problem.tree.size), repeat=2):
        weight = token_advantage(find(name), problem, np.array([pair]))[0]
        direction = np.zeros(logits.size)
        for i, b in enumerate(pair):
            for t in range(problem.tree.length[b]):
                w, r = weight[i, t], rho[b, t]
                if clip and ((w > 0 and r > 1 + clip.high) or (w < 0 and r < 1 - clip.low)):
                    continue
                direction += w * r * score[b, t] / 2
        chance = p[list(pair)].prod()
        mean += chance * direction
        second += chance * direction @ direction
    return mean, second - mean @ mean


@pytest.mark.parametrize("name", ["rloo", "grpo", "dapo", "gspo", "reinforce", "ppo"])
@pytest.mark.parametrize("clip", [None, Clip(0.2, 0.3)], ids=["free", "clipped"])
def test_by_loops_over_pairs(name: str, clip: Clip | None) -> None:
    for ratio in ("none", "token", "sequence", "geometric"):
        logits = moved(SMALL, 1)
        mean, variance = off_policy_moments(find(name), SMALL, logits, group=2, ratio=ratio, clip=clip)
        expected, spread = by_loops(name, SMALL, logits, ratio, clip)
        np.testing.assert_allclose(mean, expected, rtol=0, atol=ALGEBRA)
        assert variance == pytest.approx(spread, rel=1e-10)


def test_the_mean_of_leave_one_out_is_that_of_the_baseline() -> None:
    """Unclipped, a group's advantage has the mean R − J of β's answers: one call of off_policy_gradient."""
    problem = reference_problem()
    logits = moved(problem, 7, 0.5)
    advantage = problem.reward - problem.probability @ problem.reward
    for ratio in ("none", "token", "sequence"):
        mean, _ = off_policy_moments(find("rloo"), problem, logits, group=3, ratio=ratio)
        exact = off_policy_gradient(problem.tree, logits, problem.logits, advantage, ratio=ratio)
        np.testing.assert_allclose(mean, exact, rtol=0, atol=ALGEBRA)
    sequence, _ = off_policy_moments(find("rloo"), problem, logits, group=2, ratio="sequence")
    truth = replace(problem, logits=logits).gradient
    assert compared(sequence, truth, 1.0).error <= ALGEBRA
    short = exact_moments(find("gspo"), problem, group=3).mean
    found, _ = off_policy_moments(find("gspo"), problem, problem.logits, group=3, ratio="geometric")
    np.testing.assert_allclose(found, short, rtol=0, atol=ALGEBRA)


def test_a_bound_on_the_weight_lowers_the_variance() -> None:
    problem = reference_problem()
    logits = moved(problem, 7, 1.5)
    spreads = [off_policy_moments(find("reinforce"), problem, logits, group=1, ratio="sequence", most=most)[1]
               for most in (1.0, 2.0, 1e9)]  # fmt: skip
    free = off_policy_moments(find("reinforce"), problem, logits, group=1, ratio="sequence")[1]
    assert spreads[0] < spreads[1] < spreads[2]
    assert spreads[2] == pytest.approx(free, rel=ALGEBRA)


def test_single_samples_average() -> None:
    one = off_policy_moments(find("reinforce"), SMALL, moved(SMALL, 2), group=1)
    four = off_policy_moments(find("reinforce"), SMALL, moved(SMALL, 2), group=4)
    np.testing.assert_array_equal(one[0], four[0])
    assert four[1] == one[1] / 4


def test_shared_parameters() -> None:
    """With features the direction is that of the logits pulled back."""
    features = np.random.default_rng(4).standard_normal((*SMALL.logits.shape, 3))
    shared = replace(SMALL, features=features)
    for clip in (None, Clip()):
        plain, _ = off_policy_moments(find("rloo"), SMALL, moved(SMALL, 5), group=2, clip=clip)
        pulled, _ = off_policy_moments(find("rloo"), shared, moved(SMALL, 5), group=2, clip=clip)
        np.testing.assert_allclose(pulled, plain @ features.reshape(-1, 3), rtol=0, atol=10 * ALGEBRA)


def test_compared_by_hand() -> None:
    found = compared(np.array([3.0, 4.0]), np.array([2.0, 0.0]), 0.5)
    assert found.scale == pytest.approx(1.5)
    assert found.cosine == pytest.approx(0.6)
    assert found.error == pytest.approx(math.sqrt(17) / 2)
    assert found.bend == pytest.approx(0.8)
    assert found.variance == 0.5
    for nothing in (np.zeros(2), np.array([1e-15, 1e-15])):
        empty = compared(nothing, np.array([1.0, 0.0]), 2.0)
        assert math.isnan(empty.cosine)
        assert math.isnan(empty.bend)
        assert empty.error == pytest.approx(1)
    assert math.isnan(compared(np.ones(2), np.zeros(2), 0.0).scale)


def test_bad_input() -> None:
    pi = moved(SMALL, 0)
    with pytest.raises(ValueError, match="whitened"):
        off_policy_moments(find("ppo_coded"), SMALL, pi, group=2)
    with pytest.raises(ValueError, match="one of the two"):
        off_policy_moments(find("rloo"), SMALL, pi, group=2, clip=Clip(), most=2.0)
    with pytest.raises(ValueError, match="groups"):
        off_policy_moments(find("rloo"), reference_problem(), reference_problem().logits, group=8)
    with pytest.raises(ValueError, match="must be equal"):
        unchecked(compared)(np.zeros(2), np.zeros(3), 0.0)
