"""Expectations over groups: two listings against each other and against plain loops; refusals; what must be seen."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked, whole
from vgrad_lab import advantage
from vgrad_lab.discrete import groups as module
from vgrad_lab.discrete.groups import all_groups, group_expectation, label_groups, labels
from vgrad_lab.discrete.token_tree import answer_probability, objective_gradient, response_score, token_tree
from vgrad_lab.strategies import simplices
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT


def by_loops(probability, direction, rule, group, keep=None):
    """Mean and variance by Python loops over every tuple."""
    mean, second, total = 0.0, 0.0, 0.0
    for members in itertools.product(range(len(probability)), repeat=group):
        row = np.array([members])
        if keep is not None and not keep(row)[0]:
            continue
        weight = math.prod(probability[i] for i in members)
        drawn = sum(c * direction[i] for c, i in zip(rule(row)[0], members, strict=True)) / group
        mean, second, total = mean + weight * drawn, second + weight * drawn @ drawn, total + weight
    return mean / total, second / total - mean @ mean / total**2, total


@given(simplices(max_size=7), st.integers(1, 4), st.integers(0, 999))
def test_listed_groups_have_the_multinomial_law(p: np.ndarray, group: int, seed: int) -> None:
    tuples, multisets = all_groups(p, group), label_groups(p, group)
    for listed in (tuples, multisets):
        assert abs(listed.weight.sum() - 1) < 1e-11
        assert listed.member.shape == (len(listed.weight), group)
    assert len(tuples.weight) == len(p) ** group
    k = np.count_nonzero(p)
    assert len(multisets.weight) == math.comb(group + k - 1, group)
    assert np.all(np.diff(multisets.member, axis=1) >= 0)
    assert len(np.unique(multisets.member, axis=0)) == len(multisets.weight)
    row = np.random.default_rng(seed).integers(len(multisets.weight))
    same = np.all(np.sort(tuples.member, axis=1) == multisets.member[row], axis=1)
    assert abs(tuples.weight[same].sum() - multisets.weight[row]) < ALGEBRA


RULES = {
    "leave one out": lambda r, n: advantage.leave_one_out(r),
    "standardised": lambda r, n: advantage.group_standardised(r, eps=0.0),
    "token mean": lambda r, n: advantage.group_mean(r) * n.shape[1] / n.sum(1, keepdims=True),
    "squares": lambda r, n: r**2 - r.mean(1, keepdims=True) * n,
}


@given(st.sampled_from(sorted(RULES)), st.integers(2, 3), st.integers(0, 2**32 - 1), st.booleans())
def test_tuples_multisets_and_loops_agree(name: str, group: int, seed: int, mixed: bool) -> None:
    rng = np.random.default_rng(seed)
    size = 6
    probability, direction = rng.dirichlet(np.ones(size)), rng.standard_normal((size, 3))
    reward, length = rng.integers(0, 3, size) / 2, rng.integers(1, 3, size)
    reward[:2] = 0.0, 1.0

    def rule(answers):
        return RULES[name](reward[answers], length[answers])

    keep = (lambda answers: np.ptp(reward[answers], axis=1) > 0) if mixed else None
    mean, variance, kept = by_loops(probability, direction, rule, group, keep)
    for label in (None, labels(reward, length), np.arange(size)):
        found = group_expectation(probability, direction, rule, group=group, label=label, keep=keep)
        np.testing.assert_allclose(found.mean, mean, atol=ALGEBRA)
        assert abs(found.variance - variance) < ALGEBRA * (1 + variance)
        assert abs(found.kept - kept) < ALGEBRA
        np.testing.assert_allclose((probability * found.coefficient) @ direction, mean, atol=ALGEBRA)


def test_a_rule_that_sees_the_order_needs_tuples() -> None:
    """Sample i against the next one only: a rule that is no function of a multiset."""
    rng = np.random.default_rng(0)
    probability, direction, reward = rng.dirichlet(np.ones(5)), rng.standard_normal((5, 2)), rng.standard_normal(5)

    def rule(answers):
        return reward[answers] - np.roll(reward[answers], -1, axis=1)

    mean, variance, _ = by_loops(probability, direction, rule, 3)
    found = group_expectation(probability, direction, rule, group=3)
    np.testing.assert_allclose(found.mean, mean, atol=ALGEBRA)
    assert abs(found.variance - variance) < ALGEBRA
    with pytest.raises(ValueError, match="depends on the order of a group; leave label out"):
        group_expectation(probability, direction, rule, group=3, label=np.arange(5))


def test_a_rule_that_sees_more_than_the_label_is_refused() -> None:
    rng = np.random.default_rng(1)
    probability, direction = np.full(4, 0.25), rng.standard_normal((4, 2))
    reward = np.array([0.0, 0.0, 1.0, 1.0 + PLANTED_FAULT])
    with pytest.raises(ValueError, match="tells answers of one label apart; give finer labels"):
        group_expectation(
            probability,
            direction,
            lambda a: advantage.group_mean(reward[a]),
            group=3,
            label=labels(np.round(reward)),
        )
    np.testing.assert_array_equal(labels(reward), [0, 0, 1, 2])


def test_the_mean_of_a_large_group_on_a_large_tree() -> None:
    """G = 8 over 255 answers, rewards of two values: multisets of 16 labels, never a tuple."""
    tree, rng = token_tree(3, 7), np.random.default_rng(2)
    logits = rng.standard_normal(tree.logits_shape)
    reward = (rng.random(tree.size) < 0.4).astype(float)
    label = labels(reward)
    assert tree.size == 255
    found = group_expectation(
        answer_probability(tree, logits),
        response_score(tree, logits),
        lambda a: advantage.leave_one_out(reward[a]),
        group=8,
        label=label,
    )
    np.testing.assert_allclose(found.mean, objective_gradient(tree, logits, reward), atol=ALGEBRA)
    mean = float(answer_probability(tree, logits) @ reward)
    np.testing.assert_allclose(found.coefficient, reward - mean, atol=ALGEBRA)


def test_large_groups_neither_overflow_nor_lose_weight() -> None:
    for group in (64, 400):
        listed = label_groups(np.array([0.5, 0.5]), group)
        assert abs(listed.weight.sum() - 1) < 1e-9
        assert abs(listed.weight @ (listed.member == 1).sum(1) / group - 0.5) < 1e-9


def test_labels_of_no_probability_are_left_out() -> None:
    p = np.array([0.5, 0.0, 0.5])
    assert set(label_groups(p, 2).member.ravel()) == {0, 2}
    found = group_expectation(p, np.eye(3), lambda a: 1.0 + a, group=2, label=np.arange(3))
    np.testing.assert_allclose(found.mean, [0.5, 0.0, 1.5], atol=ALGEBRA)
    np.testing.assert_allclose(found.coefficient, [1.0, 0.0, 3.0], atol=ALGEBRA)


def test_a_planted_error_is_seen() -> None:
    """The mean moves by 0.1 % when one answer's coefficient does, in each of the listings."""
    rng = np.random.default_rng(3)
    probability, direction, reward = rng.dirichlet(np.ones(5)), rng.standard_normal((5, 2)), rng.standard_normal(5)
    mean, _, _ = by_loops(probability, direction, lambda a: advantage.leave_one_out(reward[a]), 3)
    for label in (None, np.arange(5)):
        found = group_expectation(
            probability,
            direction,
            lambda a: advantage.leave_one_out(reward[a]) * (1 + PLANTED_FAULT * (a == 0)),
            group=3,
            label=label,
        )
        assert np.abs(found.mean - mean).max() > 1e3 * ALGEBRA


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (all_groups, (np.array([0.5, 0.4]), 2), "probabilities must sum to 1 per row; one row is off by 0.1. "
         "Normalise them first"),
        (label_groups, (np.array([1.5, -0.5]), 2), "probabilities must be finite and non-negative"),
        (label_groups, (np.array([np.nan, 0.5]), 2), "probabilities must be finite and non-negative"),
        (all_groups, (np.full(15, 1 / 15), 0), "group is 0; give at least 1 answer per group"),
        (label_groups, (np.full(15, 1 / 15), -1), "group is -1; give at least 1 answer per group"),
        (all_groups, (np.full(15, 1 / 15), 8), "15 answers, G = 8, make 2.56e+09 groups, more than 2000000; "
         "label the answers that a rule can't tell apart"),
        (label_groups, (np.full(200, 1 / 200), 8), "200 labels, G = 8, make 7.29e+13 groups, more than 2000000; "
         "give rewards with fewer distinct values, a smaller group, or a shorter tree"),
    ],
)  # fmt: skip
def test_refusals_of_the_listings(function, arguments, message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        function(*arguments)


def test_refusals_of_the_expectation() -> None:
    p, u, bare = np.full(4, 0.25), np.ones((4, 2)), unchecked(group_expectation)
    one = np.ones_like
    with pytest.raises(ValueError, match="direction has 3 rows, expected one per answer, 4"):
        bare(p, u[:3], one, group=2)
    with pytest.raises(ValueError, match=r"label has shape \(3,\), expected one label per answer, \(4,\)"):
        bare(p, u, one, group=2, label=np.arange(3))
    for label in (np.array([0, 1, 3, 3]), np.array([-1, 0, 1, 2])):
        with pytest.raises(ValueError, match="labels must be the numbers 0 … K−1, each of them used"):
            bare(p, u, one, group=2, label=label)
    with pytest.raises(ValueError, match=r"the coefficients have shape \(16,\), expected one per member, \(16, 2\)"):
        bare(p, u, lambda a: np.ones(len(a)), group=2)
    with pytest.raises(ValueError, match="a coefficient is not finite; check rewards and eps"):
        bare(p, u, lambda a: np.full(a.shape, np.nan), group=2)
    with pytest.raises(ValueError, match="no group is kept"):
        bare(p, u, lambda a: 1.0 * a, group=2, keep=lambda a: np.zeros(len(a), dtype=bool))
    assert module.MOST_GROUPS == 2_000_000
