"""Forms of the policy gradient from response-level rewards: brute force, the published figures, refusals."""

import numpy as np
import pytest
from hypothesis import given

from tests.helpers import unchecked, whole
from vgrad_lab.discrete import strategies
from vgrad_lab.discrete.token_task import TokenTask, along, draw_task, fifteen_answers, sixteen_answers
from vgrad_lab.discrete.token_tree import (
    answer_probability,
    conditional_value,
    linear_logits,
    log_policy,
    objective_gradient,
    pull_back,
    response_score,
    token_score,
    token_tree,
)
from vgrad_lab.discrete.trajectory_gradient import (
    best_baseline,
    direction_variance,
    equation_26_weight,
    lemma_1_weight,
    mean_direction,
    own_sample_advantage,
    response_advantage,
    theorem_1_weight,
    theorem_2_advantage,
    token_second_moment,
    token_values,
    top_k_probability,
    value_baseline_advantage,
)
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

CASES = strategies.tree_cases()
TASK = fifteen_answers()


def test_the_published_trees() -> None:
    assert (TASK.tree.size, TASK.tree.end, TASK.logits.shape) == (15, 2, (7, 3))
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(TASK.logits, 0.8 * rng.standard_normal((7, 3)))
    np.testing.assert_array_equal(TASK.token_reward, rng.standard_normal((7, 3)))
    other = fifteen_answers(first=2.0)
    np.testing.assert_allclose(other.reward() - TASK.reward(), 2.0, rtol=ALGEBRA)
    assert sixteen_answers().tree.size == 16
    assert np.all(sixteen_answers().tree.length == 4)


def test_reward_is_the_discounted_sum_of_the_tokens() -> None:
    table = dict(zip(TASK.tree.prefixes, TASK.token_reward, strict=True))
    for answer, found in zip(TASK.tree.answers, TASK.reward(discount=0.5), strict=True):
        expected = sum(0.5**t * table[answer[:t]][token] for t, token in enumerate(answer))
        assert found == pytest.approx(expected, abs=1e-14)


def continuations(task: TokenTask, prefix: tuple[int, ...]) -> list[tuple[int, float]]:
    """Rows of the answers behind a prefix with their probabilities given it."""
    chance = answer_probability(task.tree, task.logits)
    rows = [b for b, answer in enumerate(task.tree.answers) if answer[: len(prefix)] == prefix]
    total = sum(chance[b] for b in rows)
    return [(b, chance[b] / total) for b in rows]


@given(seeds())
def test_values_are_means_of_discounted_returns(seed: int) -> None:
    """Bellman's recursion against sums over all continuations."""
    rng = np.random.default_rng(seed)
    task = draw_task(rng, vocab=int(rng.integers(2, 4)), horizon=int(rng.integers(1, 4)), end=(None, 0, 1)[seed % 3])
    discount = float(rng.uniform(0.1, 1))
    reward = along(task.tree, task.token_reward)
    to_go = np.zeros_like(reward)
    for t in range(task.tree.horizon):
        to_go[:, t] = reward[:, t:] @ discount ** np.arange(task.tree.horizon - t)
    v, q = token_values(task.tree, task.logits, task.token_reward, discount=discount)
    for b, answer in enumerate(task.tree.answers):
        for t in range(task.tree.horizon):
            if t >= len(answer):
                assert v[b, t] == q[b, t] == 0
                continue
            for found, prefix in ((v, answer[:t]), (q, answer[: t + 1])):
                expected = sum(chance * to_go[row, t] for row, chance in continuations(task, prefix))
                assert found[b, t] == pytest.approx(expected, abs=1e-12)


@given(CASES)
def test_weights_against_brute_force(case: strategies.TreeCase) -> None:
    tree, logits, reward = case
    task = TokenTask(tree, logits, np.zeros(tree.logits_shape))
    first, second = theorem_1_weight(*case), theorem_2_advantage(*case)
    for b, answer in enumerate(tree.answers):
        for t in range(len(answer)):
            before, after = (
                sum(chance * reward[row] for row, chance in continuations(task, answer[: t + k])) for k in (0, 1)
            )
            assert first[b, t] == pytest.approx(after, abs=1e-12)
            assert second[b, t] == pytest.approx(after - before, abs=1e-12)
            assert value_baseline_advantage(*case)[b, t] == pytest.approx(reward[b] - before, abs=1e-12)
    for weight in (first, second, equation_26_weight(*case, discount=0.5), best_baseline(*case)):
        assert np.all(weight[~tree.scored] == 0)


def test_weights_of_the_discounted_forms_by_hand() -> None:
    task = fifteen_answers()
    case = (task.tree, task.logits, task.reward())
    _, q = token_values(task.tree, task.logits, task.token_reward)
    np.testing.assert_array_equal(lemma_1_weight(task.tree, task.logits, task.token_reward), q)
    _, q = token_values(task.tree, task.logits, task.token_reward, discount=0.5)
    weight = lemma_1_weight(task.tree, task.logits, task.token_reward, discount=0.5)
    np.testing.assert_array_equal(weight, q * [1.0, 0.5, 0.25])
    np.testing.assert_array_equal(equation_26_weight(*case, discount=0.5), theorem_1_weight(*case) * [1.0, 2.0, 4.0])


@pytest.mark.parametrize("rollouts", [1, 2, 5])
def test_a_baseline_that_counts_the_answer_itself(rollouts: int) -> None:
    """RM less the mean of RM itself and of K − 1 rollouts that are V(o_<t) each."""
    value = conditional_value(TASK.tree, TASK.logits, TASK.reward())[:, :-1]
    reward = TASK.reward()[:, None]
    expected = (reward - (reward + (rollouts - 1) * value) / rollouts) * TASK.tree.scored
    found = own_sample_advantage(TASK.tree, TASK.logits, TASK.reward(), rollouts=rollouts)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    with pytest.raises(ValueError, match=whole("rollouts is 0; give at least 1")):
        own_sample_advantage(TASK.tree, TASK.logits, TASK.reward(), rollouts=0)


@given(CASES)
def test_moments_against_per_answer_directions(case: strategies.TreeCase) -> None:
    tree, logits, _ = case
    rng = np.random.default_rng(0)
    weight = rng.normal(size=tree.tokens.shape) * tree.scored
    chance = answer_probability(tree, logits)
    direction = np.einsum("bt,btp->bp", weight, token_score(tree, logits))
    mean = chance @ direction
    np.testing.assert_allclose(mean_direction(tree, logits, weight), mean, atol=1e-12)
    expected = chance @ (direction**2).sum(1) - mean @ mean
    assert direction_variance(tree, logits, weight) == pytest.approx(expected, abs=1e-11)
    assert direction_variance(tree, logits, weight * (1 + PLANTED_FAULT)) != pytest.approx(expected, rel=1e-4, abs=0)
    moment = token_second_moment(tree, logits, weight)
    np.testing.assert_allclose(moment.sum(), expected + mean @ mean, rtol=1e-11)
    other = rng.dirichlet(np.ones(tree.size))
    np.testing.assert_allclose(mean_direction(tree, logits, weight, sampler=other), other @ direction, atol=1e-12)
    features = rng.normal(size=(*tree.logits_shape, 2))
    shared = pull_back(features, direction)
    expected = chance @ (shared**2).sum(1) - (chance @ shared) @ (chance @ shared)
    found = direction_variance(tree, logits, weight, features=features)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(CASES)
def test_best_baseline_is_the_quotient_of_its_moments(case: strategies.TreeCase) -> None:
    tree, logits, reward = case
    task = TokenTask(tree, logits, np.zeros(tree.logits_shape))
    square = (token_score(tree, logits) ** 2).sum(-1)
    found = best_baseline(*case)
    for b, answer in enumerate(tree.answers):
        for t in range(len(answer)):
            rows = continuations(task, answer[:t])
            top = sum(c * square[row, t] * reward[row] for row, c in rows)
            bottom = sum(c * square[row, t] for row, c in rows)
            assert found[b, t] == pytest.approx(top / bottom, abs=1e-10)


def test_best_baseline_where_only_one_token_can_come() -> None:
    tree = token_tree(2, 1, end=None)
    logits, reward = np.array([[900.0, -900.0]]), np.array([3.0, 5.0])
    np.testing.assert_array_equal(best_baseline(tree, logits, reward), [[3.0], [3.0]])
    near = np.array([[40.0, 0.0]])  # the score of the sure token is as small as the other's chance: b* is 5, V is 3
    np.testing.assert_allclose(best_baseline(tree, near, reward), [[5.0], [5.0]])


def test_published_variances() -> None:
    """Trace of the covariance per answer, with and without +2 on each first token: all printed digits."""
    for first, none in ((0.0, 1.880), (2.0, 8.199)):
        task = fifteen_answers(first=first)
        case = (task.tree, task.logits, task.reward())
        mean = float(answer_probability(task.tree, task.logits) @ case[2])
        weights = {
            none: response_advantage(task.tree, case[2]),
            1.934: response_advantage(task.tree, case[2], baseline=mean),
            1.064: value_baseline_advantage(*case),
            0.665: theorem_2_advantage(*case),
            1.053: response_advantage(task.tree, case[2], baseline=best_baseline(*case)),
        }
        for printed, weight in weights.items():
            assert round(direction_variance(task.tree, task.logits, weight), 3) == printed
            truth = objective_gradient(*case)
            assert np.linalg.norm(mean_direction(task.tree, task.logits, weight) - truth) <= ALGEBRA


@given(CASES)
def test_top_k(case: strategies.TreeCase) -> None:
    tree, logits, _ = case
    np.testing.assert_allclose(top_k_probability(tree, logits, k=tree.vocab), answer_probability(tree, logits))
    for k in range(1, tree.vocab + 1):
        chance = top_k_probability(tree, logits, k=k)
        assert chance.sum() == pytest.approx(1)
        assert np.count_nonzero(chance) <= k**tree.horizon
    greedy = tree.answers[int(top_k_probability(tree, logits, k=1).argmax())]
    for t, token in enumerate(greedy):
        row = tree.prefixes.index(greedy[:t])
        assert log_policy(tree, logits)[row, token] == log_policy(tree, logits)[row].max()


def test_scores_are_not_needed_for_the_mean() -> None:
    """The mean of R times the score of the answer: nothing of this module."""
    reward = TASK.reward()
    expected = (answer_probability(TASK.tree, TASK.logits) * reward) @ response_score(TASK.tree, TASK.logits)
    weight = response_advantage(TASK.tree, reward)
    np.testing.assert_allclose(mean_direction(TASK.tree, TASK.logits, weight), expected, atol=1e-15)


def test_shared_parameters_are_pulled_back() -> None:
    features = np.random.default_rng(0).normal(size=(*TASK.logits.shape, 2))
    logits = linear_logits(features, np.array([0.3, -0.7]))
    weight = theorem_2_advantage(TASK.tree, logits, TASK.reward())
    mean = pull_back(features, mean_direction(TASK.tree, logits, weight))
    direction = pull_back(features, np.einsum("bt,btp->bp", weight, token_score(TASK.tree, logits)))
    second = answer_probability(TASK.tree, logits) @ (direction**2).sum(1)
    found = direction_variance(TASK.tree, logits, weight, features=features)
    assert found == pytest.approx(second - mean @ mean)


def test_refusals() -> None:
    tree, logits, reward = TASK.tree, TASK.logits, TASK.reward()
    weight = theorem_1_weight(tree, logits, reward)
    with pytest.raises(ValueError, match=whole("discount must lie in (0, 1], got 0.0")):
        token_values(tree, logits, TASK.token_reward, discount=0.0)
    with pytest.raises(ValueError, match="discount must lie"):
        equation_26_weight(tree, logits, reward, discount=1.5)
    with pytest.raises(ValueError, match="discount must lie"):
        lemma_1_weight(tree, logits, TASK.token_reward, discount=float("nan"))
    with pytest.raises(ValueError, match="discount must lie"):
        TASK.reward(discount=-0.5)
    with pytest.raises(ValueError, match=whole("sampler sums to 2; give the probability of every answer")):
        mean_direction(tree, logits, weight, sampler=np.full(15, 2 / 15))
    with pytest.raises(ValueError, match="give the probability of every answer"):
        mean_direction(tree, logits, weight, sampler=np.array([-1.0, 2.0, *[0.0] * 13]))
    with pytest.raises(ValueError, match="weight is not zero after the end of an answer"):
        mean_direction(tree, logits, np.ones(tree.tokens.shape))
    with pytest.raises(ValueError, match="weight is not zero after the end of an answer"):
        direction_variance(tree, logits, np.ones(tree.tokens.shape))
    for k in (0, 4):
        with pytest.raises(ValueError, match=whole(f"k is {k}; give a number of tokens between 1 and V = 3")):
            top_k_probability(tree, logits, k=k)
    with pytest.raises(ValueError, match="give one finite number per prefix and token"):
        unchecked(TokenTask.__post_init__)(_task_with(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="give one finite number per prefix and token"):
        TokenTask(tree, logits, np.full(logits.shape, np.nan))
    with pytest.raises(ValueError, match="reward has shape"):
        unchecked(theorem_1_weight)(tree, logits, np.ones(3))
    with pytest.raises(ValueError, match="logits hold NaN"):
        theorem_2_advantage(tree, np.full_like(logits, np.nan), reward)


def _task_with(table: np.ndarray) -> TokenTask:
    task = object.__new__(TokenTask)
    for name, value in (("tree", TASK.tree), ("logits", TASK.logits), ("token_reward", table)):
        object.__setattr__(task, name, value)
    return task


def test_values_agree_with_means_of_the_response() -> None:
    """At γ = 1 past rewards and the value to come add up to the mean of the whole response."""
    task = fifteen_answers()
    v, _ = token_values(task.tree, task.logits, task.token_reward)
    paid = along(task.tree, task.token_reward)
    past = paid.cumsum(1) - paid
    expected = conditional_value(task.tree, task.logits, task.reward())[:, :-1]
    np.testing.assert_allclose((past + v)[task.tree.scored], expected[task.tree.scored], atol=1e-14)
