"""Token trees: counts, probabilities, scores and values against brute force, Taylor rates and refusals."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked, whole
from vgrad_lab import strategies as plain
from vgrad_lab.discrete import strategies
from vgrad_lab.discrete import token_tree as module
from vgrad_lab.discrete.token_tree import (
    TokenTree,
    action_value,
    answer_probability,
    check_per_token,
    conditional_value,
    linear_logits,
    objective,
    objective_gradient,
    prefix_probability,
    pull_back,
    response_score,
    reward_of,
    token_logprob,
    token_score,
    token_tree,
    weighted_response_score,
    weighted_score,
)
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE
from vgrad_lab.verify import difference_quotients, taylor_rates

CASES = strategies.tree_cases()


def by_hand(vocab: int, horizon: int, end: int | None) -> list[tuple[int, ...]]:
    """Answers by filtering all V^T sequences, in lexicographic order."""
    found = []
    for row in itertools.product(range(vocab), repeat=horizon):
        cut = row[: row.index(end) + 1] if end in row else row
        if cut not in found:
            found.append(cut)
    return found


@given(plain.tree_shapes(max_answers=100))
def test_the_answers_are_all_and_in_order(shape: plain.TreeShape) -> None:
    tree = token_tree(shape.vocab, shape.horizon, end=shape.end)
    expected = by_hand(*shape)
    assert sorted(tree.answers) == sorted(expected)
    padded = [tuple(row) for row in tree.tokens.tolist()]
    assert padded == sorted(padded)
    k = shape.vocab - (shape.end is not None)
    assert tree.size == len(expected)
    assert len(tree.prefixes) == sum(k**t for t in range(shape.horizon))
    assert tree.prefixes[0] == ()
    assert list(tree.prefixes) == sorted(tree.prefixes, key=lambda p: (len(p), p))
    for row, answer in enumerate(tree.answers):
        assert len(answer) == tree.length[row]
        assert [tree.prefixes[n] for n in tree.node[row, : len(answer)]] == [answer[:t] for t in range(len(answer))]
        assert np.all(tree.node[row, len(answer) :] == 0)
        assert np.all(tree.tokens[row, len(answer) :] == shape.end)


def test_the_tree_of_the_reference_numbers() -> None:
    tree = token_tree(3, 3)
    assert (tree.size, tree.logits_shape) == (15, (7, 3))
    assert token_tree(2, 4, end=None).size == 16
    assert np.all(token_tree(2, 4, end=None).length == 4)


@given(CASES)
def test_probability_is_the_product_of_its_softmaxes(case: strategies.TreeCase) -> None:
    tree, logits, reward = case
    policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = []
    for answer in tree.answers:
        nodes = [tree.prefixes.index(answer[:t]) for t in range(len(answer))]
        expected.append(np.prod([policy[n, v] for n, v in zip(nodes, answer, strict=True)]))
    probability = answer_probability(tree, logits)
    np.testing.assert_allclose(probability, expected, rtol=ALGEBRA)
    assert abs(probability.sum() - 1) < ALGEBRA
    assert np.all(token_logprob(tree, logits)[~tree.scored] == 0)
    assert abs(objective(tree, logits, reward) - np.dot(expected, reward)) < ALGEBRA
    for n, prefix in enumerate(tree.prefixes):
        through = [p for a, p in zip(tree.answers, expected, strict=True) if a[: len(prefix)] == prefix]
        assert abs(prefix_probability(tree, logits)[n] - sum(through)) < ALGEBRA


@given(CASES)
def test_the_scores_are_derivatives_of_the_log_probability(case: strategies.TreeCase) -> None:
    tree, logits, _ = case
    direction = np.random.default_rng(0).standard_normal(logits.size)
    rates = taylor_rates(
        lambda z: token_logprob(tree, z.reshape(logits.shape)).ravel(),
        lambda z: token_score(tree, z.reshape(logits.shape)).reshape(-1, z.size),
        logits.ravel(),
        direction,
    )
    assert np.all(rates > 2 - TAYLOR_RATE)
    np.testing.assert_allclose(response_score(tree, logits), token_score(tree, logits).sum(1), atol=ALGEBRA)
    np.testing.assert_allclose(answer_probability(tree, logits) @ response_score(tree, logits), 0, atol=ALGEBRA)
    assert np.all(token_score(tree, logits)[~tree.scored] == 0)


@given(CASES)
def test_the_gradient_is_the_derivative_of_the_objective(case: strategies.TreeCase) -> None:
    tree, logits, reward = case
    found = difference_quotients(
        lambda rows: np.array([objective(tree, z.reshape(logits.shape), reward) for z in rows]), logits.reshape(1, -1)
    )
    np.testing.assert_allclose(objective_gradient(tree, logits, reward), found[0], atol=QUADRATURE)
    scores = (answer_probability(tree, logits) * reward) @ response_score(tree, logits)
    np.testing.assert_allclose(objective_gradient(tree, logits, reward), scores, atol=ALGEBRA)


def test_a_planted_error_of_the_gradient_is_seen() -> None:
    tree = token_tree(3, 3)
    rng = np.random.default_rng(1)
    logits, reward = rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.size)
    rates = taylor_rates(
        lambda z: np.array(objective(tree, z.reshape(logits.shape), reward)),
        lambda z: (1 + PLANTED_FAULT) * objective_gradient(tree, z.reshape(logits.shape), reward),
        logits.ravel(),
        rng.standard_normal(logits.size),
        step=1e-3,
    )
    assert rates[-1] < 2 - TAYLOR_RATE


@given(CASES)
def test_values_are_conditional_means(case: strategies.TreeCase) -> None:
    tree, logits, reward = case
    probability, value, q = (
        answer_probability(tree, logits),
        *(f(tree, logits, reward) for f in (conditional_value, action_value)),
    )
    assert value.shape == (tree.size, tree.horizon + 1)
    for row, answer in enumerate(tree.answers):
        for t in range(tree.horizon + 1):
            same = [a[: min(t, len(answer))] == answer[: min(t, len(answer))] for a in tree.answers]
            assert abs(value[row, t] - np.average(reward[same], weights=probability[same])) < 1e-10
            if t < len(answer):
                assert abs(q[tree.node[row, t], tree.tokens[row, t]] - value[row, t + 1]) < ALGEBRA
    assert np.all(value[:, -1] == reward)


@given(CASES, st.integers(0, 99))
def test_weighted_scores_sum_token_scores(case: strategies.TreeCase, seed: int) -> None:
    tree, logits, _ = case
    weight = np.random.default_rng(seed).standard_normal(tree.tokens.shape)
    each = np.einsum("bt,btp->bp", weight, token_score(tree, logits))
    np.testing.assert_allclose(weighted_response_score(tree, logits, weight), each, atol=ALGEBRA)
    np.testing.assert_allclose(weighted_score(tree, logits, weight), each.sum(0), atol=1e-11)


def test_shared_parameters_by_the_chain_rule() -> None:
    tree, rng = token_tree(3, 3, end=2), np.random.default_rng(2)
    features, weight = rng.standard_normal((*tree.logits_shape, 4)), rng.standard_normal(4)
    reward = rng.standard_normal(tree.size)  # one fixed direction: no chance of a remainder that changes its sign
    rates = taylor_rates(
        lambda w: np.array(objective(tree, linear_logits(features, w), reward)),
        lambda w: pull_back(features, objective_gradient(tree, linear_logits(features, w), reward)),
        weight,
        rng.standard_normal(4),
    )
    assert np.all(np.abs(rates - 2) < TAYLOR_RATE)
    scores = response_score(tree, linear_logits(features, weight))
    np.testing.assert_allclose(pull_back(features, scores)[3], pull_back(features, scores[3]), atol=ALGEBRA)
    with pytest.raises(ValueError, match=r"20 logits in its last axis, expected N·V = 21"):
        pull_back(features, np.zeros(20))


@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    tree, rng = token_tree(3, 4), np.random.default_rng(3)
    logits, reward = scale * rng.standard_normal(tree.logits_shape), 1e6 + rng.standard_normal(tree.size)
    assert abs(answer_probability(tree, logits).sum() - 1) < ALGEBRA
    for found in (objective_gradient(tree, logits, reward), conditional_value(tree, logits, reward)):
        assert np.all(np.isfinite(found))
    assert not objective_gradient(tree, logits, np.full(tree.size, 0.7)).any()
    near = objective_gradient(tree, logits, 1e6 + 2.0**-20 * (np.arange(tree.size) % 2))
    np.testing.assert_allclose(near * 2.0**20, objective_gradient(tree, logits, np.arange(tree.size) % 2.0), rtol=1e-9)


def test_numbers_in_float32_are_read_as_they_are() -> None:
    tree, rng = token_tree(3, 3), np.random.default_rng(6)
    logits = rng.standard_normal(tree.logits_shape).astype(np.float32)
    reward = rng.standard_normal(tree.size).astype(np.float32)
    for function in (objective_gradient, conditional_value, action_value):
        exact = function(tree, logits.astype(float), reward.astype(float))
        np.testing.assert_allclose(function(tree, logits, reward), exact, rtol=ALGEBRA, atol=ALGEBRA)
    assert abs(answer_probability(tree, logits).sum() - 1) < ALGEBRA


def test_a_large_tree_needs_no_array_of_scores() -> None:
    tree, rng = token_tree(5, 6), np.random.default_rng(4)
    logits, reward = rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.size)
    weight = np.where(tree.scored, (answer_probability(tree, logits) * reward)[:, None], 0.0)
    np.testing.assert_allclose(
        weighted_score(tree, logits, weight), objective_gradient(tree, logits, reward), atol=ALGEBRA
    )
    with pytest.raises(ValueError, match=r"would hold \d+ numbers.*weighted_score"):
        response_score(tree, logits)


def test_reward_of_reads_the_drawn_tokens() -> None:
    tree = token_tree(2, 3, end=1)
    assert tree.answers == ((0, 0, 0), (0, 0, 1), (0, 1), (1,))
    np.testing.assert_array_equal(reward_of(tree, len), [3, 3, 2, 1])
    with pytest.raises(ValueError, match="reward holds NaN"):
        reward_of(tree, lambda _: float("nan"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 3), "a token tree needs vocab ≥ 2 and horizon ≥ 1, got vocab 1 and horizon 3"),
        ((3, 0), "a token tree needs vocab ≥ 2 and horizon ≥ 1, got vocab 3 and horizon 0"),
        ((3, 3, 3), "end is 3; give a token in 0 … 2, or None for answers of one length"),
        ((3, 3, -1), "end is -1; give a token in 0 … 2, or None for answers of one length"),
        (
            (10, 6),
            "vocab 10 and horizon 6 make 597871 answers, more than 200000 or too long to list; "
            "give a smaller vocabulary or a shorter horizon",
        ),
    ],
)
def test_trees_that_cannot_be(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        token_tree(*arguments[:2], **({"end": arguments[2]} if len(arguments) > 2 else {}))


@pytest.mark.parametrize("shape", [(2, 10**9, None), (2, 10**9, 0), (3, 10**6, 0), (2, 5000, 0)])
def test_trees_far_too_deep_are_refused_at_once(shape: tuple[int, int, int | None]) -> None:
    with pytest.raises(ValueError, match="answers, more than 200000 or too long to list"):
        token_tree(*shape[:2], end=shape[2])
    with pytest.raises(ValueError, match="make 5001 answers"):
        token_tree(2, 5000)


def test_a_tree_is_refused_at_its_size_not_before() -> None:
    assert module.MOST_ANSWERS >= token_tree(7, 6, end=None).size == 7**6


def test_bad_input_is_refused() -> None:
    tree = token_tree(3, 3)
    logits, reward = np.zeros(tree.logits_shape), np.zeros(tree.size)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="logits hold NaN or infinite"):
            token_logprob(tree, np.full_like(logits, bad))
        with pytest.raises(ValueError, match="reward holds NaN or infinite"):
            objective(tree, logits, np.full_like(reward, bad))
    with pytest.raises(ValueError, match=r"logits have shape \(3, 7\); give one row per open prefix, \(7, 3\)"):
        unchecked(module.log_policy)(tree, logits.T)
    for function in (objective, objective_gradient, action_value, conditional_value):
        with pytest.raises(ValueError, match=r"reward has shape \(14,\); give one number per answer, \(15,\)"):
            unchecked(function)(tree, logits, reward[:-1])
    for function in (weighted_score, weighted_response_score):
        with pytest.raises(ValueError, match=r"weight has shape \(15, 4\); give one number per token, \(15, 3\)"):
            unchecked(function)(tree, logits, np.zeros((15, 4)))
    with pytest.raises(ValueError, match="is not zero after the end of an answer"):
        check_per_token(tree, np.ones((15, 3)), name="token_reward")
    with pytest.raises(ValueError, match="token_reward holds NaN"):
        check_per_token(tree, np.full((15, 3), np.nan), name="token_reward")
    with pytest.raises(ValueError, match=r"token_reward has shape \(15, 2\)"):
        unchecked(check_per_token)(tree, np.zeros((15, 2)), name="token_reward")
    np.testing.assert_array_equal(check_per_token(tree, 1.0 * tree.scored, name="x"), tree.scored)


def test_ragged_answers_are_refused() -> None:
    tree = token_tree(3, 3)
    short = token_tree(3, 3)
    object.__setattr__(short, "node", tree.node[:, :2])
    with pytest.raises(ValueError, match=r"node has shape \(15, 2\), expected .* pad ragged answers"):
        short.__post_init__()
    holes = tree.scored.copy()
    holes[5, 1] = False
    with pytest.raises(ValueError, match="scored must be True from the first token on"):
        replace(tree, scored=holes)


def test_the_token_that_ends_an_answer_is_scored() -> None:
    """An estimator that leaves the end's score out is not unbiased."""
    tree, rng = token_tree(3, 3), np.random.default_rng(5)
    logits, reward = rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.size)
    mean = answer_probability(tree, logits) * reward
    unscored = np.where(tree.tokens == tree.end, 0.0, 1.0) * mean[:, None]
    gradient = objective_gradient(tree, logits, reward)
    assert np.linalg.norm(weighted_score(tree, logits, unscored) - gradient) > 0.1 * np.linalg.norm(gradient)


@given(plain.tree_shapes(max_vocab=3, max_horizon=2, max_answers=9), strategies.tree_cases(binary=True))
def test_strategies_stay_in_bounds(shape: plain.TreeShape, case: strategies.TreeCase) -> None:
    assert shape.vocab in (2, 3)
    assert shape.horizon in (1, 2)
    assert isinstance(case.tree, TokenTree)
    assert case.tree.size <= 30
    assert set(case.reward) <= {0.0, 1.0}
    assert np.all(np.abs(case.logits) <= 3)
