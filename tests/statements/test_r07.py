"""R07: what response-level rewards cost in variance."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import fifteen_answers
from vgrad_lab.discrete.token_tree import answer_probability, objective_gradient, response_score, token_tree
from vgrad_lab.discrete.trajectory_gradient import (
    direction_variance,
    mean_direction,
    theorem_2_advantage,
    value_baseline_advantage,
)
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.experiments import verify_trajectory_variance as variance
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

PUBLISHED = {
    "RM": (1.880, 8.199),
    "G_t": (1.480, 4.881),
    "RM − E[RM]": (1.934, 1.934),
    "RM − RM(greedy)": (2.478, 2.478),
    "G_t − E[G_t]": (1.283, 1.283),
    "RM − E[RM|o_<t]": (1.064, 1.064),
    "RM − b*(o_<t)": (1.053, 1.053),
    "Theorem 2": (0.665, 0.665),
}
"""Trace of the covariance per answer; second column: 2 more for each first token."""


@pytest.mark.parametrize("column", [0, 1])
def test_the_published_table(column: int) -> None:
    task = fifteen_answers(first=2.0 * column)
    found = variance.variances(task)
    assert {name: round(x, 3) for name, x in found.items()} == {name: x[column] for name, x in PUBLISHED.items()}
    truth = objective_gradient(task.tree, task.logits, task.reward())
    for weight in variance.variance_rows(task).values():
        assert checks.relative(mean_direction(task.tree, task.logits, weight), truth) <= ALGEBRA


def test_token_rewards_help_where_the_baseline_is_of_the_prompt() -> None:
    assert variance.r07_prompt_baseline().refutes


@settings(max_examples=15)
@given(seeds())
def test_means_in_the_place_of_samples(seed: int) -> None:
    assert variance.r07_order(seed=seed, examples=3).passed


@settings(max_examples=15)
@given(seeds())
def test_theorem_2_varies_least_where_prefixes_share_nothing(seed: int) -> None:
    for task, _, _ in checks.tasks(seed, 2):
        found = variance.variances(task)
        assert found["Theorem 2"] <= found["RM − E[RM|o_<t]"] * (1 + 1e-12)
        assert (
            found["RM − b*(o_<t)"]
            <= min(found[name] for name in ("RM", "RM − E[RM]", "RM − RM(greedy)", "RM − E[RM|o_<t]")) * (1 + 1e-9)
            + 1e-12
        )


def test_where_prefixes_share_parameters_the_order_may_be_reversed() -> None:
    """One parameter of two tokens: RM − E[RM|o_<t] does not vary at all, Theorem 2 has 3/64."""
    tree = token_tree(2, 2, end=None)
    features = np.zeros((3, 2, 1))
    features[:, 1] = 1.0
    logits = np.array([[0.0, 0.0], [0.0, -np.log(3)], [0.0, np.log(3)]])
    reward = np.array([-0.25, 0.75, -0.75, 0.25])  # nothing rides on the first token, one unit on the second
    truth = features.reshape(-1, 1).T @ objective_gradient(tree, logits, reward)
    assert truth == pytest.approx(3 / 16)
    found, single = (
        direction_variance(tree, logits, form(tree, logits, reward), features=features)
        for form in (theorem_2_advantage, value_baseline_advantage)
    )
    assert single == pytest.approx(0.0, abs=1e-16)
    assert found == pytest.approx(3 / 64)


@settings(max_examples=15)
@given(seeds())
def test_constants(seed: int) -> None:
    assert variance.r07_constant(seed=seed, examples=3).passed


def test_centring_helps_or_hurts() -> None:
    assert variance.r07_centring().refutes
    for first, helps in ((0.0, False), (2.0, True)):
        task = fifteen_answers(first=first)
        found = variance.variances(task)
        square = (response_score(task.tree, task.logits) ** 2).sum(1) * answer_probability(task.tree, task.logits)
        best, mean = square @ task.reward() / square.sum(), answer_probability(task.tree, task.logits) @ task.reward()
        assert bool(found["RM − E[RM]"] < found["RM"]) is helps
        assert bool(abs(mean - best) < abs(best)) is helps


def test_evidence_sees_a_planted_fault() -> None:
    assert variance.r07_order().passed
    assert variance.r07_constant().passed
    task = fifteen_answers()
    found = variance.variances(task)
    weight = theorem_2_advantage(task.tree, task.logits, task.reward()) * (1 + PLANTED_FAULT)
    assert abs(direction_variance(task.tree, task.logits, weight) - found["Theorem 2"]) > ALGEBRA
