"""Ratios and clips: exact directions against the true gradient and against the surrogate's own derivative."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from numpy import ndarray

from tests.helpers import unchecked
from vgrad_lab import strategies
from vgrad_lab.discrete.estimator_types import reference_problem
from vgrad_lab.discrete.off_policy import (
    Clip,
    Ratio,
    importance_ratio,
    kept,
    log_ratio,
    off_policy_gradient,
    off_policy_surrogate,
    shifted,
    truncated_gradient,
)
from vgrad_lab.discrete.strategies import TreeCase, tree_cases
from vgrad_lab.discrete.token_tree import (
    action_value,
    answer_probability,
    log_policy,
    objective,
    objective_gradient,
    prefix_probability,
    token_logprob,
    token_score,
    token_tree,
)
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE
from vgrad_lab.verify import taylor_rates

TREE = token_tree(3, 3)


def other(case: TreeCase, seed: int, size: float = 1.0) -> ndarray:
    """Another policy on the tree of a case."""
    return shifted(case.logits, size, np.random.default_rng(seed))


def draw(seed: int, *, size: float = 0.5) -> tuple[ndarray, ndarray, ndarray]:
    """Logits of π and β on TREE, and an advantage per answer."""
    rng = np.random.default_rng(seed)
    behaviour = rng.standard_normal(TREE.logits_shape)
    return shifted(behaviour, size, rng), behaviour, rng.standard_normal(TREE.size)


def relative(found: ndarray, expected: ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@given(tree_cases(), strategies.seeds())
def test_the_sequence_ratio_is_exact(case: TreeCase, seed: int) -> None:
    found = off_policy_gradient(case.tree, case.logits, other(case, seed), case.reward, ratio="sequence")
    exact = objective_gradient(case.tree, case.logits, case.reward)
    assert np.abs(found - exact).max() <= ALGEBRA
    if np.abs(exact).max() > 1e-3:
        assert np.abs(found - (1 + PLANTED_FAULT) * exact).max() > ALGEBRA


@given(tree_cases(), strategies.seeds())
def test_a_constant_baseline_leaves_only_ratios_that_have_mean_one_alone(case: TreeCase, seed: int) -> None:
    behaviour, one = other(case, seed), np.ones(case.tree.size)
    for ratio in ("token", "prefix", "suffix", "sequence"):
        assert np.abs(off_policy_gradient(case.tree, case.logits, behaviour, one, ratio=ratio)).max() <= ALGEBRA
    fixed = off_policy_gradient(case.tree, case.logits, case.logits, one, ratio="none")
    assert np.abs(fixed).max() <= ALGEBRA


def test_a_constant_baseline_matters_without_a_ratio_and_with_a_geometric_one() -> None:
    for ratio in ("none", "geometric"):
        pi, beta, _ = draw(0)
        assert np.abs(off_policy_gradient(TREE, pi, beta, np.ones(TREE.size), ratio=ratio)).max() > 0.01


@given(tree_cases(), strategies.seeds())
def test_what_each_partial_ratio_estimates(case: TreeCase, seed: int) -> None:
    """Visits and values of β or π: token β, β; prefix π, β; suffix β, π. Σ P(prefix) Σ_v π(v) g(v) Q(v)."""
    beta = other(case, seed)
    p = np.exp(log_policy(case.tree, case.logits))
    for ratio, visits, follows in (("token", 0, 0), ("prefix", 1, 0), ("suffix", 0, 1), ("sequence", 1, 1)):
        q = action_value(case.tree, (beta, case.logits)[follows], case.reward)
        reach = prefix_probability(case.tree, (beta, case.logits)[visits])[:, None]
        expected = (reach * p * (q - (p * q).sum(1, keepdims=True))).ravel()
        found = off_policy_gradient(case.tree, case.logits, beta, case.reward, ratio=ratio)
        assert np.abs(found - expected).max() <= ALGEBRA


@given(tree_cases(), strategies.seeds())
def test_without_a_shift_every_ratio_but_the_geometric_is_exact(case: TreeCase, seed: int) -> None:
    exact = objective_gradient(case.tree, case.logits, case.reward)
    for ratio in ("none", "token", "prefix", "suffix", "sequence"):
        for clip in (None, Clip(), Clip(low=0.2, high=0.28, cap=3.0)):
            found = off_policy_gradient(case.tree, case.logits, case.logits, case.reward, ratio=ratio, clip=clip)
            assert np.abs(found - exact).max() <= ALGEBRA
    score = token_score(case.tree, case.logits).sum(1) / case.tree.length[:, None]
    per_answer = (answer_probability(case.tree, case.logits) * case.reward) @ score
    found = off_policy_gradient(case.tree, case.logits, case.logits, case.reward, ratio="geometric")
    assert np.abs(found - per_answer).max() <= ALGEBRA


@pytest.mark.parametrize("ratio", ["none", "token", "sequence", "geometric"])
@pytest.mark.parametrize("clip", [None, Clip(), Clip(0.2, 0.28), Clip(0.1, 0.3, cap=1.5)], ids=str)
def test_gradient_is_the_surrogates_derivative(ratio: Ratio, clip: Clip | None) -> None:
    if ratio == "none" and clip is not None:
        clip = None
    for seed in range(6):
        pi, beta, advantage = draw(seed)
        rng = np.random.default_rng(100 + seed)

        def value(z: ndarray, beta: ndarray = beta, advantage: ndarray = advantage) -> ndarray:
            return np.array(off_policy_surrogate(TREE, z, beta, advantage, ratio=ratio, clip=clip))

        def slope(z: ndarray, beta: ndarray = beta, advantage: ndarray = advantage, factor: float = 1.0) -> ndarray:
            found = off_policy_gradient(TREE, z, beta, advantage, ratio=ratio, clip=clip)
            return factor * found.reshape(z.shape)

        along = rng.standard_normal(pi.shape) + slope(pi) * (3 / np.linalg.norm(slope(pi)))
        rates = taylor_rates(value, slope, pi, along, step=2e-4, halvings=2)
        assert np.abs(rates - 2).max() <= TAYLOR_RATE, f"seed {seed}"
        wrong = taylor_rates(value, lambda z, f=slope: f(z, factor=1 + PLANTED_FAULT), pi, along, step=2e-4, halvings=2)
        assert np.abs(wrong - 2).max() > TAYLOR_RATE


def test_clipped_tokens_by_hand() -> None:
    """A ratio of 1.5 or 0.5 with either sign: the surrogate is flat where the policy moved too far already."""
    ratio = np.array([[1.5, 0.5, 1.0, 1.25, 4.0]])
    for clip, sign, expected in (
        (Clip(), 1.0, [False, True, True, False, False]),
        (Clip(), -1.0, [True, False, True, True, True]),
        (Clip(0.2, 0.28), 1.0, [False, True, True, True, False]),
        (Clip(0.2, 0.28, cap=3.0), -1.0, [True, False, True, True, False]),
        (Clip(0.2, 0.28, cap=3.0), 0.0, [True] * 5),
        (None, 1.0, [True] * 5),
    ):
        assert kept(ratio, np.full((1, 5), sign), clip).tolist() == [expected]


def test_clip_is_the_unclipped_direction_minus_the_tokens_left_out() -> None:
    pi, beta, advantage = draw(3)
    rho = importance_ratio(TREE, pi, beta, "token")
    per_token = np.where(TREE.scored, advantage[:, None], 0.0)
    left_out = (rho * per_token > np.clip(rho, 0.8, 1.28) * per_token) & TREE.scored
    score = token_score(TREE, pi)
    removed = np.einsum("b,bt,btp->p", answer_probability(TREE, beta), rho * per_token * left_out, score)
    whole = off_policy_gradient(TREE, pi, beta, advantage, ratio="token")
    clipped = off_policy_gradient(TREE, pi, beta, advantage, ratio="token", clip=Clip(0.2, 0.28))
    assert left_out.any()
    np.testing.assert_allclose(clipped, whole - removed, rtol=0, atol=ALGEBRA)


def test_a_random_advantage_by_its_positive_and_negative_part() -> None:
    """Advantages ±1 or 2 with known chances: the mean direction is the sum of two calls."""
    pi, beta, _ = draw(4)
    chance = np.random.default_rng(0).dirichlet(np.ones(3), TREE.size)
    values = np.array([-1.0, 1.0, 2.0])
    clip = Clip(0.1, 0.2)
    whole = sum(
        off_policy_gradient(TREE, pi, beta, np.where(one, values[k], 0.0), clip=clip) * chance[b, k]
        for k in range(3)
        for b in range(TREE.size)
        for one in [np.arange(TREE.size) == b]
    )
    positive = off_policy_gradient(TREE, pi, beta, chance @ np.maximum(values, 0), clip=clip)
    negative = off_policy_gradient(TREE, pi, beta, chance @ np.minimum(values, 0), clip=clip)
    np.testing.assert_allclose(positive + negative, whole, rtol=0, atol=ALGEBRA)


def test_bias_grows_with_the_shift_and_clipping_adds_to_it() -> None:
    """Means over 40 draws of the relative error at shifts .05, .2, .5 (advantage minus its mean under β)."""
    table = {name: np.zeros(3) for name in ("none", "token", "suffix", "sequence", "clip")}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        beta, away = rng.standard_normal((2, *TREE.logits_shape))
        reward = rng.standard_normal(TREE.size)
        advantage = reward - answer_probability(TREE, beta) @ reward
        for i, size in enumerate((0.05, 0.2, 0.5)):
            pi = beta + size * away
            exact = objective_gradient(TREE, pi, reward)
            for name, row in table.items():
                ratio, clip = ("token", Clip()) if name == "clip" else (name, None)
                row[i] += relative(off_policy_gradient(TREE, pi, beta, advantage, ratio=ratio, clip=clip), exact) / 40
    for name in ("none", "token", "suffix"):
        assert np.all(np.diff(table[name]) > 0)
        assert table[name][0] > 0.005
    assert table["sequence"].max() <= ALGEBRA
    assert np.all(table["none"] > 1.2 * table["token"])
    assert np.all(table["token"] > 1.2 * table["suffix"])
    assert table["clip"][0] == pytest.approx(table["token"][0], rel=0.2), "within the bounds nothing is left out"
    assert table["clip"][2] > 1.5 * table["token"][2]


def test_reference_numbers() -> None:
    """On the project's reference tree, A = R − J, a shift drawn with seed 7: error in per cent, cosine for GSPO."""
    problem = reference_problem()
    tree, old, reward = problem.tree, problem.logits, problem.reward
    away = np.random.default_rng(7).standard_normal(old.shape)
    advantage = reward - objective(tree, old, reward)
    for size, token, none, cosine in ((0.05, 0.9, 1.7, 0.941), (0.2, 3.7, 7.1, 0.937), (0.5, 9.8, 18.6, 0.929)):
        pi = old + size * away
        exact = objective_gradient(tree, pi, reward)
        for ratio, expected in (("token", token), ("none", none), ("sequence", 0.0)):
            found = off_policy_gradient(tree, pi, old, advantage, ratio=ratio)
            assert 100 * relative(found, exact) == pytest.approx(expected, abs=0.0501)
        found = off_policy_gradient(tree, pi, old, advantage, ratio="geometric")
        assert found @ exact / np.linalg.norm(found) / np.linalg.norm(exact) == pytest.approx(cosine, abs=5.01e-4)


def test_truncation_keeps_every_token_and_bounds_its_weight() -> None:
    pi, beta, advantage = draw(5)
    loose = truncated_gradient(TREE, pi, beta, advantage, most=1e9, ratio="sequence")
    np.testing.assert_allclose(loose, objective_gradient(TREE, pi, advantage), rtol=0, atol=ALGEBRA)
    rho = np.minimum(importance_ratio(TREE, pi, beta, "token"), 1.1)
    weight = answer_probability(TREE, beta)[:, None] * np.where(TREE.scored, rho * advantage[:, None], 0.0)
    tight = truncated_gradient(TREE, pi, beta, advantage, most=1.1)
    np.testing.assert_allclose(tight, np.einsum("bt,btp->p", weight, token_score(TREE, pi)), rtol=0, atol=ALGEBRA)


def test_policies_that_never_meet_stay_finite() -> None:
    """Logits of ±1e4: ratios overflow, the directions don't, and the sequence ratio is still exact."""
    rng = np.random.default_rng(0)
    far = np.where(rng.random(TREE.logits_shape) < 0.5, -1e4, 0.0) + rng.standard_normal(TREE.logits_shape)
    near, reward = rng.standard_normal(TREE.logits_shape), rng.standard_normal(TREE.size)
    for pi, beta in ((near, far), (far, near)):
        exact = objective_gradient(TREE, pi, reward)
        assert np.abs(off_policy_gradient(TREE, pi, beta, reward, ratio="sequence") - exact).max() <= ALGEBRA
        for ratio in get_args(Ratio):
            for clip in (None, Clip(cap=3.0)):
                assert np.all(np.isfinite(off_policy_gradient(TREE, pi, beta, reward, ratio=ratio, clip=clip)))
            assert np.all(np.isfinite(truncated_gradient(TREE, pi, beta, reward, ratio=ratio)))


def test_ratios_of_one_answer() -> None:
    """An answer of two tokens with ratios 2 and ½·e: prefix 2, e; suffix e, e/2; geometric √e."""
    tree = token_tree(2, 2)
    pi, beta = np.zeros((2, 2)), np.zeros((2, 2))
    row = int(np.argmax((tree.length == 2) & (tree.tokens[:, 1] == 1)))
    first, second = tree.tokens[row]
    p, b = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[0.9, 0.1], [0.5, 0.5]])
    assert (first, second) == (1, 1)
    b[1] = [1 - 1 / np.e, 1 / np.e]
    pi, beta = np.log(p), np.log(b)
    expected = {
        "none": [1, 1], "token": [2, np.e / 2], "prefix": [2, np.e], "suffix": [np.e, np.e / 2],
        "sequence": [np.e, np.e], "geometric": [np.sqrt(np.e)] * 2,
    }  # fmt: skip
    for kind, ratios in expected.items():
        np.testing.assert_allclose(importance_ratio(tree, pi, beta, kind)[row], ratios, rtol=1e-14)
    short = int(np.argmax(tree.length == 1))
    assert importance_ratio(tree, pi, beta, "sequence")[short, 1] == 0
    assert log_ratio(tree, pi, beta, "sequence")[short, 1] == 0
    assert token_logprob(tree, pi)[row].sum() == pytest.approx(np.log(0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 1.0}, "low 1.0"),
        ({"low": -0.1}, "low -0.1"),
        ({"high": -0.1}, "high -0.1"),
        ({"high": float("nan")}, "high nan"),
        ({"cap": 1.1}, "above 1 \\+ high = 1.2"),
    ],
)
def test_bad_bounds(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clip(**settings)


def test_shifted() -> None:
    z = np.zeros((2, 3))
    one, other = (shifted(z, size, np.random.default_rng(0)) for size in (1.0, 0.25))
    np.testing.assert_array_equal(other, one / 4)
    np.testing.assert_array_equal(one, np.random.default_rng(0).standard_normal((2, 3)))


def test_bad_input() -> None:
    pi, beta, advantage = draw(0)
    with pytest.raises(ValueError, match="nats overflows"):
        importance_ratio(TREE, pi, np.where(np.arange(3) > 0, beta, -1e4))
    with pytest.raises(ValueError, match="unknown ratio 'answer'; choose one of none, token"):
        unchecked(log_ratio)(TREE, pi, beta, "answer")
    with pytest.raises(ValueError, match="advantage has shape"):
        unchecked(off_policy_gradient)(TREE, pi, beta, advantage[:-1])
    with pytest.raises(ValueError, match="advantage holds NaN"):
        unchecked(off_policy_gradient)(TREE, pi, beta, np.full(TREE.size, np.nan))
    with pytest.raises(ValueError, match="logits have shape"):
        unchecked(log_ratio)(TREE, pi, beta[:-1])
    with pytest.raises(ValueError, match="counts as data"):
        off_policy_surrogate(TREE, pi, beta, advantage, ratio="prefix")
    with pytest.raises(ValueError, match="positive bound"):
        truncated_gradient(TREE, pi, beta, advantage, most=0.0)
