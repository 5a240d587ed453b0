"""R08: readings of TRePO and VinePPO: which are unbiased, by how much the others are not, and what breaks the first."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import fifteen_answers, sixteen_answers
from vgrad_lab.discrete.token_tree import objective_gradient
from vgrad_lab.discrete.trajectory_gradient import mean_direction, theorem_2_advantage
from vgrad_lab.discrete.trepo import (
    READINGS,
    adv_interp,
    anchors_ht,
    anchors_of_length,
    expected_advantage,
    independent_anchors,
    one_set,
    reads_the_past_alone,
    segment,
    value_interp,
    vine_advantage,
)
from vgrad_lab.experiments import verify_trajectory as base
from vgrad_lab.experiments import verify_trepo as checks
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE

ENDING, EQUAL = fifteen_answers(), sixteen_answers()


def test_interpolation_loses_what_it_stands_for() -> None:
    """Half of ∇J with half of the positions: the interpolated advantages give nothing."""
    assert checks.r08_interpolation().refutes
    for keep in (0.25, 0.5, 0.75):
        anchors = independent_anchors(EQUAL.tree, keep=keep)
        mean = checks.anchored_mean(EQUAL, anchors, adv_interp(EQUAL.tree, checks.node_values(EQUAL), anchors))
        truth = objective_gradient(EQUAL.tree, EQUAL.logits, EQUAL.reward())
        assert base.relative(mean, keep * truth) <= ALGEBRA
        assert base.relative(mean * (1 + PLANTED_FAULT), keep * truth) > ALGEBRA


@settings(max_examples=15)
@given(seeds())
def test_interpolated_advantages_give_zero(seed: int) -> None:
    assert checks.r08_zero(seed=seed, examples=2).passed


def test_positions_that_see_the_answer_break_the_zero() -> None:
    """The position of the largest advantage of each answer: what is interpolated has a direction."""
    advantage = theorem_2_advantage(EQUAL.tree, EQUAL.logits, EQUAL.reward())
    largest = np.arange(4) == np.abs(advantage).argmax(1)[:, None]
    assert not reads_the_past_alone(EQUAL.tree, largest)
    assert np.linalg.norm(checks.interpolated_part(EQUAL, one_set(EQUAL.tree, largest))) > 0.05


def test_answers_that_end_break_the_zero() -> None:
    """Which neighbour an advantage is interpolated to tells how long the answer will be."""
    anchors = independent_anchors(ENDING.tree, keep=0.5)
    assert np.linalg.norm(checks.interpolated_part(ENDING, anchors)) > 0.005


@settings(max_examples=15)
@given(seeds())
def test_interpolated_values_divide_by_the_length_of_the_segment(seed: int) -> None:
    assert checks.r08_value(seed=seed, examples=2).passed


@pytest.mark.parametrize(("kind", "scale", "cosine"), [("equal", 0.5533, 0.9997), ("ending", 0.7432, 0.9948)])
def test_interpolated_values_are_biased(kind: str, scale: float, cosine: float) -> None:
    """The published figures, with answers of four tokens and with answers that end."""
    task = EQUAL if kind == "equal" else ENDING
    anchors = independent_anchors(task.tree, keep=0.5)
    mean = checks.anchored_mean(task, anchors, value_interp(task.tree, checks.node_values(task), anchors))
    truth = objective_gradient(task.tree, task.logits, task.reward())
    assert round(float(mean @ truth / (truth @ truth)), 4) == scale
    assert round(base.cosine(mean, truth), 4) == cosine


def value_error(task: base.TokenTask, anchors: checks.Anchors) -> float:
    """Distance of the mean with interpolated values from Σ_t E[1/length of the segment] E[A_t g_t]."""
    found = checks.anchored_mean(task, anchors, value_interp(task.tree, checks.node_values(task), anchors))
    shrink = expected_advantage(anchors, 1 / np.maximum(checks.segment_length(task.tree, anchors), 1))
    exact = theorem_2_advantage(task.tree, task.logits, task.reward()) * shrink
    return base.relative(found, mean_direction(task.tree, task.logits, exact))


def test_answers_that_end_break_the_division() -> None:
    assert value_error(EQUAL, independent_anchors(EQUAL.tree, keep=0.5)) <= ALGEBRA
    assert value_error(ENDING, independent_anchors(ENDING.tree, keep=0.5)) > 0.01


def test_positions_that_see_the_answer_break_the_division() -> None:
    assert value_error(EQUAL, one_set(EQUAL.tree, EQUAL.tree.tokens == 1)) > 0.01


@settings(max_examples=15)
@given(seeds())
def test_chosen_tokens_over_their_inclusion_probability(seed: int) -> None:
    assert checks.r08_anchors(seed=seed, examples=2).passed


def test_chosen_tokens_undivided_are_biased() -> None:
    """One position of each answer: tokens of long answers are chosen less often."""
    anchors = anchors_of_length(ENDING.tree, count=1)
    alone = checks.node_values(ENDING)
    found = anchors_ht(ENDING.tree, alone, anchors) * anchors.inclusion
    mean = checks.anchored_mean(ENDING, anchors, found)
    truth = objective_gradient(ENDING.tree, ENDING.logits, ENDING.reward())
    assert base.cosine(mean, truth) < 0.99


@settings(max_examples=15)
@given(seeds())
def test_segments_between_stopping_times(seed: int) -> None:
    assert checks.r08_segment(seed=seed, examples=2).passed


@pytest.mark.parametrize(("count", "printed"), [(1, 0.048), (2, 0.095)])
def test_boundaries_from_the_realised_length_break_it(count: int, printed: float) -> None:
    """The published residual for one boundary; chosen tokens over their inclusion probability stay exact."""
    anchors = anchors_of_length(ENDING.tree, count=count)
    mean = checks.anchored_mean(ENDING, anchors, segment(ENDING.tree, checks.node_values(ENDING), anchors))
    truth = objective_gradient(ENDING.tree, ENDING.logits, ENDING.reward())
    along = mean @ truth / (truth @ truth) * truth
    assert round(float(np.linalg.norm(mean - along) / np.linalg.norm(mean)), 3) == printed


@settings(max_examples=15)
@given(seeds())
def test_steps_without_values_give_nothing(seed: int) -> None:
    assert checks.r08_limit(seed=seed, examples=2).passed


def test_a_limit_on_steps_loses_a_part_of_the_gradient() -> None:
    """Every token a step of its own, one value: the first token's part of ∇J is all there is."""
    starts = EQUAL.tree.scored.copy()
    found = vine_advantage(EQUAL.tree, EQUAL.logits, EQUAL.reward(), starts, most_steps=1)
    mean = mean_direction(EQUAL.tree, EQUAL.logits, found).reshape(EQUAL.logits.shape)
    truth = objective_gradient(EQUAL.tree, EQUAL.logits, EQUAL.reward()).reshape(EQUAL.logits.shape)
    np.testing.assert_allclose(mean[0], truth[0], atol=ALGEBRA)
    assert np.abs(mean[1:]).max() <= ALGEBRA
    assert np.linalg.norm(truth[1:]) > 0.5 * np.linalg.norm(truth)


def test_steps_that_look_ahead_break_the_limit() -> None:
    """Steps that start where token 1 will be drawn: which step a token is in tells the token."""
    starts = EQUAL.tree.tokens == 1
    assert not reads_the_past_alone(EQUAL.tree, starts)
    found = vine_advantage(EQUAL.tree, EQUAL.logits, EQUAL.reward(), starts, most_steps=2)
    kept = theorem_2_advantage(EQUAL.tree, EQUAL.logits, EQUAL.reward()) * (checks.step_number(starts) < 2)
    assert base.relative(*(mean_direction(EQUAL.tree, EQUAL.logits, w) for w in (found, kept))) > 0.01


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_fresh_rollouts_leave_the_mean_and_add_to_the_variance(reading: str) -> None:
    """Every outcome of the rollouts, listed: answers of at most three tokens and one rollout, of two and two."""
    for horizon, rollouts in ((3, 1), (2, 2)):
        task = base.draw_task(np.random.default_rng(5), vocab=2, horizon=horizon, end=0)
        anchors = independent_anchors(task.tree, keep=0.4)
        assert max(checks.rollout_errors(task, anchors, reading=reading, rollouts=rollouts)) <= QUADRATURE
    assert checks.rollout_errors(task, anchors, reading=reading, rollouts=1, planted=PLANTED_FAULT)[1] > QUADRATURE


@pytest.mark.parametrize(("rollouts", "scale"), [(2, 0.5), (4, 0.75), (8, 0.875)])
def test_counting_the_answer_itself_shrinks_the_gradient(rollouts: int, scale: float) -> None:
    """Listed: the answer's own reward and K − 1 fresh ones from each prefix make the baseline."""
    assert checks.r08_own_sample().passed
    task = base.draw_task(np.random.default_rng(1), vocab=2, horizon=1)
    reward, fresh = task.reward(), min(rollouts - 1, 3)
    mean = np.zeros(2)
    for p, value in checks.rollout_outcomes(task, fresh):
        baseline = (reward + (rollouts - 1) * value[:, 0]) / rollouts  # E of the K − 1 fresh ones is that of any number
        mean += p * mean_direction(task.tree, task.logits, (reward - baseline)[:, None])
    truth = objective_gradient(task.tree, task.logits, reward)
    np.testing.assert_allclose(mean, scale * truth, atol=ALGEBRA)


def test_evidence_and_counterexample() -> None:
    for check in (checks.r08_zero, checks.r08_value, checks.r08_anchors, checks.r08_segment, checks.r08_limit):
        assert check().passed
    assert checks.r08_rollouts().passed
    assert checks.r08_own_sample().passed
    assert checks.r08_interpolation().refutes
