"""The reference numbers of this project, measured elsewhere on the same draw, to all their printed digits."""

import numpy as np
import pytest

from vgrad_lab.discrete.estimator_moments import exact_moments, row
from vgrad_lab.discrete.estimator_types import Options, Problem, hidden_rewards, random_problem, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, expected_scale, mixed_probability
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.discrete.u_statistic import leave_one_out_variance
from vgrad_lab.impact import grpo_scale

# name, ddof: (scale, cosine) for real rewards at G = 2 and 4 and binary ones at G = 4
TABLE = {
    ("rloo", 1): ((1, 1), (1, 1), (1, 1)),
    ("reinforce", 1): ((1, 1), (1, 1), (1, 1)),
    ("group_mean", 1): ((0.5, 1), (0.75, 1), (0.75, 1)),
    ("dr_grpo", 1): ((0.1667, 1), (0.25, 1), (0.25, 1)),
    ("standardised", 1): ((0.347, 0.9766), (0.635, 0.9892), (1.414, 1)),
    ("standardised", 0): ((0.491, 0.9766), (0.733, 0.9892), (1.632, 1)),
    ("sequence_mean", 1): ((0.222, 0.9421), (0.332, 0.9421), (0.348, 0.9292)),
    ("grpo", 1): ((0.159, 0.9378), (0.290, 0.9342), (0.657, 0.9292)),
    ("token_mean", 1): ((0.223, 0.9953), (0.344, 0.9987), (0.348, 0.9978)),
    ("verl_default", 1): ((0.160, 0.9574), (0.297, 0.9823), (0.657, 0.9978)),
}


def close(found: float, printed: float, digits: int) -> bool:
    """Whether a number rounds to the printed one; some were rounded twice, .65646 to .6565 to .657."""
    return abs(found - printed) <= 0.55 * 10**-digits


@pytest.mark.parametrize("key", TABLE, ids=lambda k: f"{k[0]}-ddof{k[1]}")
def test_scale_and_cosine(key: tuple[str, int]) -> None:
    name, ddof = key
    for (binary, group), (scale, cosine) in zip(((False, 2), (False, 4), (True, 4)), TABLE[key], strict=True):
        found = row(ESTIMATORS[name], reference_problem(binary=binary), group=group, options=Options(ddof=ddof))
        assert close(found.scale, scale, 4 if scale == 0.1667 else 3), (name, group, found.scale)
        assert close(found.cosine, cosine, 4), (name, group, found.cosine)


def with_offset(problem: Problem, hidden: np.ndarray) -> tuple[Problem, np.ndarray]:
    """+2 on the reward of every first token."""
    moved = hidden.copy()
    moved[:, 0] += 2
    return Problem(problem.tree, problem.logits, problem.reward + 2), moved


@pytest.mark.parametrize(
    ("name", "plain", "offset"),
    [
        ("reinforce", 1.880, 8.199),
        ("reward_to_go", 1.480, 4.881),
        ("expected_baseline", 1.934, 1.934),
        ("remax", 2.478, 2.478),
        ("value_baseline", 1.064, 1.064),
        ("theorem_2", 0.665, 0.665),
        ("best_prefix_baseline", 1.053, 1.053),
    ],
)
def test_variance_per_answer(name: str, plain: float, offset: float) -> None:
    problem = reference_problem()
    hidden = hidden_rewards(problem.tree, seed=1)
    for (p, r), printed in (((problem, hidden), plain), (with_offset(problem, hidden), offset)):
        found = exact_moments(ESTIMATORS[name], p, group=1, options=Options(token_reward=r))
        assert close(found.variance, printed, 3)


def test_mean_squared_error_of_leave_one_out() -> None:
    for group, printed in ((2, 1.958798), (3, 0.975214), (4, 0.648748)):
        found = exact_moments(ESTIMATORS["rloo"], reference_problem(), group=group)
        assert close(found.variance, printed, 6)
        assert close(leave_one_out_variance(reference_problem(), group), printed, 6)


def test_bias_by_the_critic_error() -> None:
    """Percent of ∇J at λ = 0, .5, .95, 1 for a critic with error N(0, .25)."""
    error = 0.5 * np.random.default_rng(0).standard_normal(7)
    for decay, printed in ((0.0, 25.6), (0.5, 17.6), (0.95, 2.2), (1.0, 0.0)):
        options = Options(decay=decay, critic_error=error)
        found = row(ESTIMATORS["ppo"], reference_problem(), group=1, options=options)
        assert close(100 * found.bias, printed, 1)


def coin(success: float) -> Problem:
    """One token of two; the second succeeds."""
    return Problem(token_tree(2, 1, end=None), np.log([[1 - success, success]]), np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("group", "success", "printed", "digits"),
    [
        (2, 0.02, 0.7071, 4),
        (2, 0.5, 0.7071, 4),
        (8, 0.02, 2.407, 3),
        (8, 0.1, 2.177, 3),
        (8, 0.5, 1.736, 3),
    ],
)
def test_group_scale(group: int, success: float, printed: float, digits: int) -> None:
    found = row(ESTIMATORS["standardised"], coin(success), group=group)
    assert close(found.scale, printed, digits)
    assert abs(found.expected - found.scale) < 1e-12


def test_group_scale_in_large_groups_and_mixed_ones() -> None:
    assert close(row(ESTIMATORS["dynamic_sampling"], coin(0.1), group=8).scale, 3.823, 3)
    assert abs(mixed_probability(coin(0.1), 8) - (1 - 0.9**8 - 0.1**8)) < 1e-12
    for success in (0.1, 0.5):
        limit = 1 / np.sqrt(success * (1 - success))
        far = [float(grpo_scale(np.array([success]), g, eps=0.0)[0]) / limit - 1 for g in (50, 500)]
        assert np.all(np.abs(far) < [0.15, 0.015])
        assert expected_scale(ESTIMATORS["standardised"], coin(success), group=500) / limit - 1 == pytest.approx(far[1])


def test_the_hazard_of_equal_float32_rewards() -> None:
    """Five 123.456s: the libraries' formula in float32 against exactly zero here; ledger K11 has the other groups."""
    reward, problem = np.full(5, 123.456, dtype=np.float32), random_problem()
    same = Problem(problem.tree, problem.logits, np.full(15, 123.456, dtype=np.float32))
    for eps, printed in ((1e-4, 0.07), (1e-6, 0.80), (1e-8, 0.89)):
        theirs = np.abs((reward - reward.mean()) / (reward.std(ddof=1) + np.float32(eps))).max()
        assert theirs == pytest.approx(printed, rel=0.01)
        ours = exact_moments(ESTIMATORS["standardised"], same, group=2, options=Options(eps=eps))
        assert not ours.mean.any()
        assert ours.variance == 0
