"""Readings of TRePO against np.interp and loops, the published table, refusals."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked, whole
from vgrad_lab.discrete import strategies
from vgrad_lab.discrete.token_task import TokenTask, draw_task, fifteen_answers, sixteen_answers
from vgrad_lab.discrete.token_tree import (
    answer_probability,
    conditional_value,
    objective_gradient,
    response_score,
    token_score,
    token_tree,
)
from vgrad_lab.discrete.trajectory_gradient import mean_direction
from vgrad_lab.discrete.trepo import (
    READINGS,
    Anchors,
    adv_interp,
    anchored_second_moment,
    anchors_ht,
    anchors_of_length,
    expected_advantage,
    independent_anchors,
    one_set,
    reads_the_past_alone,
    rollout_moment,
    segment,
    segment_length,
    steps_after,
    value_interp,
    vine_advantage,
)
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE

CASES = strategies.tree_cases()


def by_hand(reading: str, value: np.ndarray, length: int, chosen: np.ndarray) -> np.ndarray:
    """One row of a reading, from np.interp and loops; without the weights of anchors_ht."""
    found = np.zeros(len(chosen))
    inside = np.flatnonzero(chosen[:length])
    step = np.diff(value)[:length]
    if reading == "anchors_ht":
        found[inside] = step[inside]
    elif reading == "adv_interp" and len(inside):
        found[:length] = np.interp(np.arange(length), inside, step[inside])
    elif reading in ("value_interp", "segment"):
        known = sorted({0, length, *inside.tolist()})
        line = np.interp(np.arange(length + 1), known, value[known])
        for a, b in itertools.pairwise(known):
            found[a:b] = value[b] - value[a] if reading == "segment" else np.diff(line)[a:b]
    return found


@settings(max_examples=40)
@given(CASES, st.sampled_from(sorted(READINGS)), st.sampled_from(["independent", "length", "rule"]))
def test_readings_by_hand(case: strategies.TreeCase, reading: str, kind: str) -> None:
    tree = case.tree
    value = conditional_value(*case)
    rng = np.random.default_rng(0)
    anchors = {
        "independent": lambda: independent_anchors(tree, keep=rng.uniform(0.1, 0.9, tree.horizon)),
        "length": lambda: anchors_of_length(tree, count=2),
        "rule": lambda: one_set(tree, rng.random(tree.tokens.shape) < 0.5),
    }[kind]()
    found = READINGS[reading](tree, value, anchors)
    inclusion = anchors.inclusion
    for k, sets in enumerate(anchors.chosen):
        for b, chosen in enumerate(sets):
            expected = by_hand(reading, value[b], int(tree.length[b]), chosen)
            if reading == "anchors_ht":
                expected = expected / np.where(inclusion[b] > 0, inclusion[b], 1)
            np.testing.assert_allclose(found[k, b], expected, atol=1e-12)


@given(CASES)
def test_sets_of_positions(case: strategies.TreeCase) -> None:
    tree = case.tree
    keep = np.linspace(0, 1, tree.horizon)
    np.testing.assert_allclose(independent_anchors(tree, keep=keep).inclusion, keep * tree.scored, atol=1e-15)
    for count in range(1, tree.horizon + 1):
        anchors = anchors_of_length(tree, count=count)
        most = np.minimum(count, tree.length)
        np.testing.assert_allclose(anchors.inclusion.sum(1), most)
        expected = (most / tree.length)[:, None] * tree.scored
        np.testing.assert_allclose(anchors.inclusion, expected)
        drawn = anchors.chosen.sum(2) * (anchors.probability > 0)
        assert np.all((drawn == most) | (anchors.probability == 0))


@given(CASES)
def test_segment_lengths(case: strategies.TreeCase) -> None:
    tree = case.tree
    anchors = independent_anchors(tree, keep=0.5)
    for sets, lengths in zip(anchors.chosen, segment_length(tree, anchors), strict=True):
        for b, chosen in enumerate(sets):
            length = int(tree.length[b])
            known = sorted({0, length, *np.flatnonzero(chosen[:length]).tolist()})
            expected = np.zeros(tree.horizon)
            for start, stop in itertools.pairwise(known):
                expected[start:stop] = stop - start
            np.testing.assert_array_equal(lengths[b], expected)


def moments(task: TokenTask, anchors: Anchors, advantage: np.ndarray) -> tuple[float, float, float]:
    """Scale against ∇J, residual of the direction relative to the mean, variance."""
    mean = mean_direction(task.tree, task.logits, expected_advantage(anchors, advantage))
    truth = objective_gradient(task.tree, task.logits, task.reward())
    scale = float(mean @ truth / (truth @ truth))
    off = float(np.linalg.norm(mean - scale * truth) / np.linalg.norm(mean))
    second = anchored_second_moment(task.tree, task.logits, anchors, advantage)
    return scale, off, second - float(mean @ mean)


def test_the_published_table() -> None:
    """Answers of four tokens, each position kept with probability ½: scale, residual, variance, to all digits."""
    task = sixteen_answers()
    anchors, value = independent_anchors(task.tree, keep=0.5), conditional_value(task.tree, task.logits, task.reward())
    printed = {
        anchors_ht: (1.0, 8.53),
        adv_interp: (0.5, 2.76),
        segment: (1.0, 3.76),
    }
    for reading, (scale, variance) in printed.items():
        found = moments(task, anchors, reading(task.tree, value, anchors))
        assert found[0] == pytest.approx(scale, abs=ALGEBRA)
        assert found[1] <= ALGEBRA
        assert round(found[2], 2) == variance
    found = moments(task, anchors, value_interp(task.tree, value, anchors))
    assert (round(found[0], 4), round(found[1], 3), round(found[2], 2)) == (0.5533, 0.024, 1.48)
    between = adv_interp(task.tree, value, anchors) * ~anchors.chosen
    mean = mean_direction(task.tree, task.logits, expected_advantage(anchors, between))
    assert np.abs(mean).max() <= ALGEBRA
    assert round(anchored_second_moment(task.tree, task.logits, anchors, between), 2) == 0.63
    rescaled = 4 * moments(task, anchors, adv_interp(task.tree, value, anchors))[2]
    assert round(rescaled, 1) == 11.1


def test_published_figures_with_answers_that_end() -> None:
    task = fifteen_answers()
    value = conditional_value(task.tree, task.logits, task.reward())
    anchors = independent_anchors(task.tree, keep=0.5)
    scale, off, _ = moments(task, anchors, value_interp(task.tree, value, anchors))
    assert round(scale, 3) == 0.743
    assert round(float(np.sqrt(1 - off**2)), 4) == 0.9948
    ahead = anchors_of_length(task.tree, count=1)
    assert round(moments(task, ahead, segment(task.tree, value, ahead))[1], 3) == 0.048
    assert moments(task, ahead, anchors_ht(task.tree, value, ahead))[1] <= ALGEBRA


@given(CASES)
def test_second_moment_by_hand(case: strategies.TreeCase) -> None:
    tree, logits, _ = case
    anchors = anchors_of_length(tree, count=1)
    advantage = np.random.default_rng(0).normal(size=anchors.chosen.shape) * tree.scored
    direction = np.einsum("kbt,btp->kbp", advantage, token_score(tree, logits))
    chance = answer_probability(tree, logits) * anchors.probability
    expected = (chance * (direction**2).sum(-1)).sum()
    assert anchored_second_moment(tree, logits, anchors, advantage) == pytest.approx(expected, rel=1e-12)
    mean = mean_direction(tree, logits, expected_advantage(anchors, advantage))
    np.testing.assert_allclose(mean, np.einsum("kb,kbp->p", chance, direction), atol=1e-12)


@pytest.mark.parametrize("reading", ["anchors_ht", "adv_interp"])
def test_separate_rollouts_by_hand(reading: str) -> None:
    """Q_t and V_t from rollouts of their own: each chosen token's A_t has variance (s_t² + s_{t+1}²)/K by itself."""
    task = fifteen_answers()
    tree, logits, reward = task.tree, task.logits, task.reward()
    mean = conditional_value(tree, logits, reward)
    spread = conditional_value(tree, logits, reward**2) - mean**2
    anchors = independent_anchors(tree, keep=0.5)
    score, chance = token_score(tree, logits), answer_probability(tree, logits)
    expected = 0.0
    for k, sets in enumerate(anchors.chosen):
        for b, chosen in enumerate(sets):
            for t in np.flatnonzero(chosen):
                weight = by_hand(
                    "adv_interp", np.cumsum(np.arange(tree.horizon + 1) == t + 1.0), tree.length[b], chosen
                )
                if reading == "anchors_ht":
                    weight = 2.0 * (np.arange(tree.horizon) == t)
                direction = weight @ score[b]
                share = chance[b] * anchors.probability[k, b] * (spread[b, t] + spread[b, t + 1])
                expected += share * direction @ direction
    found = rollout_moment(tree, logits, reward, anchors, reading=reading, rollouts=3, shared=False)
    assert found == pytest.approx(expected / 3, rel=QUADRATURE)


@settings(max_examples=12)
@given(CASES, st.integers(1, 9))
def test_what_rollouts_add_falls_as_one_over_their_number(case: strategies.TreeCase, rollouts: int) -> None:
    anchors = independent_anchors(case.tree, keep=0.5)
    for reading in READINGS:
        one, many = (rollout_moment(*case, anchors, reading=reading, rollouts=k) for k in (1, rollouts))
        assert many == pytest.approx(one / rollouts, rel=1e-12, abs=1e-300)


def test_steps() -> None:
    tree = token_tree(3, 4, end=0)
    starts = steps_after(tree, 2)
    for b, answer in enumerate(tree.answers):
        expected = [t == 0 or answer[t - 1] == 2 for t in range(len(answer))]
        assert starts[b, : len(answer)].tolist() == expected
        assert not starts[b, len(answer) :].any()
    assert reads_the_past_alone(tree, starts)
    assert not reads_the_past_alone(tree, tree.tokens == 2)
    assert not reads_the_past_alone(tree, np.arange(4) == tree.length[:, None] - 1)


def test_vine_steps_by_hand() -> None:
    task = draw_task(np.random.default_rng(2), vocab=3, horizon=4, end=0)
    tree, reward = task.tree, task.reward()
    value = conditional_value(tree, task.logits, reward)
    starts = steps_after(tree, 2)
    for most in (None, 1, 2, 9):
        found = vine_advantage(tree, task.logits, reward, starts, most_steps=most)
        for b, answer in enumerate(tree.answers):
            begins = [*np.flatnonzero(starts[b]).tolist(), len(answer)]
            for i, (a, c) in enumerate(itertools.pairwise(begins)):
                last = most is not None and i + 1 >= most
                after = reward[b] if last else value[b, c]
                before = reward[b] if most is not None and i >= most else value[b, a]
                np.testing.assert_allclose(found[b, a:c], after - before, atol=1e-14)
            assert not found[b, len(answer) :].any()


def test_one_step_is_the_value_baseline_at_the_prompt() -> None:
    task = fifteen_answers()
    starts = np.zeros(task.tree.tokens.shape, dtype=bool)
    found = vine_advantage(task.tree, task.logits, task.reward(), starts, most_steps=1)
    mean = answer_probability(task.tree, task.logits) @ task.reward()
    np.testing.assert_allclose(found, (task.reward() - mean)[:, None] * task.tree.scored, atol=1e-14)
    direction = (task.reward() - mean)[:, None] * response_score(task.tree, task.logits)
    expected = answer_probability(task.tree, task.logits) @ direction
    np.testing.assert_allclose(mean_direction(task.tree, task.logits, found), expected, atol=1e-14)


def test_refusals() -> None:
    task = fifteen_answers()
    tree, case = task.tree, (task.tree, task.logits, task.reward())
    anchors = independent_anchors(tree, keep=0.5)
    with pytest.raises(ValueError, match=whole("keep must lie in [0, 1], got 1.5")):
        independent_anchors(tree, keep=1.5)
    with pytest.raises(ValueError, match="keep must lie"):
        independent_anchors(tree, keep=float("nan"))
    with pytest.raises(ValueError, match=whole("count is 0; choose at least 1 position")):
        anchors_of_length(tree, count=0)
    with pytest.raises(ValueError, match=r"keep has shape \(2,\); give one number or one per position, \(3,\)"):
        unchecked(independent_anchors)(tree, keep=np.array([0.5, 0.5]))
    few = np.ones((2, 2), dtype=bool)
    for refused in (one_set, reads_the_past_alone, lambda _, starts: unchecked(vine_advantage)(*case, starts)):
        with pytest.raises(ValueError, match=r"positions have shape \(2, 2\); give a truth value per token"):
            unchecked(refused)(tree, few)
    with pytest.raises(ValueError, match="reward has shape"):
        unchecked(rollout_moment)(tree, task.logits, np.ones(3), anchors, reading="segment", rollouts=1)
    with pytest.raises(ValueError, match=whole("token is 3; give one in 0 … 2")):
        steps_after(tree, 3)
    with pytest.raises(ValueError, match="sum to 1 for every answer"):
        Anchors(anchors.chosen, anchors.probability * 2)
    with pytest.raises(ValueError, match="sum to 1 for every answer"):
        Anchors(anchors.chosen[:2], np.repeat([[-1.0], [2.0]], 15, axis=1))
    with pytest.raises(ValueError, match="unknown reading 'trepo'; choose one of anchors_ht, adv_interp"):
        rollout_moment(*case, anchors, reading="trepo", rollouts=1)
    with pytest.raises(ValueError, match=whole("rollouts is 0; give at least 1 per value")):
        rollout_moment(*case, anchors, reading="segment", rollouts=0)
    for reading in ("segment", "value_interp"):
        with pytest.raises(ValueError, match=f"{reading} reads each value once"):
            rollout_moment(*case, anchors, reading=reading, rollouts=1, shared=False)
    with pytest.raises(ValueError, match=whole("most_steps is 0; estimate the value of at least 1 step")):
        vine_advantage(*case, steps_after(tree, 2), most_steps=0)
    for reading in READINGS.values():
        with pytest.raises(ValueError, match=whole("value has shape (15, 3); give one per node, (15, 4)")):
            unchecked(reading)(tree, np.zeros((15, 3)), anchors)
        with pytest.raises(ValueError, match="value holds NaN or infinite values"):
            reading(tree, np.full((15, 4), np.inf), anchors)
    with pytest.raises(ValueError, match="too many; give a shorter horizon"):
        independent_anchors(token_tree(2, 12, end=None), keep=0.5)
