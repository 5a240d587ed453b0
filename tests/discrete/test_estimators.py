"""Estimators by name: what each gives per sample, by literal formulas; names, options and refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked, whole
from vgrad_lab.discrete import estimator_rules as rules
from vgrad_lab.discrete import estimators as module
from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem, hidden_rewards, random_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, find, token_advantage
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.discrete.trajectory_gradient import theorem_2_advantage
from vgrad_lab.tolerances import ALGEBRA
from vgrad_lab.verify import difference_quotients

PROBLEM = random_problem(seed=1)


def literal(name: str, reward: list[float], length: list[int], longest: int) -> list[float]:
    """What a group's samples are multiplied with, by plain loops; ddof 1, no ε but the libraries' own."""
    size = len(reward)
    mean, total = sum(reward) / size, sum(length)
    spread = (sum((r - mean) ** 2 for r in reward) / (size - 1)) ** 0.5
    eps = {"trl_default": 1e-4, "trl_dr_grpo": 1e-4, "verl_default": 1e-6}.get(name, 0.0)
    found = []
    for i, (r, n) in enumerate(zip(reward, length, strict=True)):
        others = [x for j, x in enumerate(reward) if j != i]
        centred, standard = r - mean, (r - mean) / (spread + eps)
        found.append({
            "rloo": r - sum(others) / (size - 1),
            "u_statistic": sum(r - x for x in others) / (size - 1),
            "group_mean": centred,
            "dr_grpo": centred / longest,
            "standardised": standard,
            "dynamic_sampling": standard,
            "sequence_mean": centred / n,
            "grpo": standard / n,
            "gspo": standard / n,
            "token_mean": centred * size / total,
            "dapo": standard * size / total,
            "trl_default": standard * size / total,
            "verl_default": standard * size / total,
            "trl_dr_grpo": standard / longest,
        }[name])  # fmt: skip
    return found


GROUPED = [name for name, e in ESTIMATORS.items() if e.group is not None]


@pytest.mark.parametrize("name", GROUPED)
def test_groups_by_literal_formulas(name: str) -> None:
    rng = np.random.default_rng(2)
    for group in (2, 3, 8):
        answers = rng.integers(0, PROBLEM.tree.size, (20, group))
        found = token_advantage(ESTIMATORS[name], PROBLEM, answers)
        for row, weight in zip(answers, found, strict=True):
            reward, length = PROBLEM.reward[row], PROBLEM.tree.length[row]
            if np.ptp(reward) == 0:
                assert not weight.any()
                continue
            expected = np.array(literal(name, reward.tolist(), length.tolist(), 3))[:, None]
            drawn = PROBLEM.tree.scored[row]
            np.testing.assert_allclose(weight, expected * drawn, rtol=1e-10, atol=ALGEBRA)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_options_of_the_standard_deviation(ddof: int, eps: float) -> None:
    answers = np.array([[0, 5, 9], [1, 2, 3]])
    reward = PROBLEM.reward[answers]
    expected = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, ddof=ddof, keepdims=True) + eps)
    for name in ("standardised", "dynamic_sampling"):
        found = token_advantage(ESTIMATORS[name], PROBLEM, answers, options=Options(ddof=ddof, eps=eps))
        np.testing.assert_allclose(found[:, :, 0], expected, rtol=ALGEBRA)
    found = token_advantage(ESTIMATORS["dr_grpo"], PROBLEM, answers, options=Options(longest=7))
    np.testing.assert_allclose(found[:, :, 0], (reward - reward.mean(1, keepdims=True)) / 7, rtol=ALGEBRA)


def test_defaults_stand_where_no_options_are_given() -> None:
    answers = np.array([[0, 5, 9], [1, 2, 3]])
    for name, eps in (("trl_default", 1e-4), ("trl_dr_grpo", 1e-4), ("verl_default", 1e-6), ("grpo", 0.0)):
        e = ESTIMATORS[name]
        assert (e.defaults.eps, e.defaults.ddof) == (eps, 1)
        given_alike = token_advantage(e, PROBLEM, answers, options=Options(eps=eps))
        np.testing.assert_array_equal(token_advantage(e, PROBLEM, answers), given_alike)
    assert ESTIMATORS["ppo_coded"].defaults.decay == 0.95
    assert ESTIMATORS["ppo"].defaults.decay == 1


def test_gspo_is_the_slope_of_its_ratio() -> None:
    """∇ Σ_i Â_i (π(o_i)/π_old(o_i))^{1/|o_i|} at π = π_old, by difference quotients."""
    tree, shape = PROBLEM.tree, PROBLEM.logits.shape
    answers = np.array([[0, 4, 8, 11]])
    reward, length = PROBLEM.reward[answers[0]], tree.length[answers[0]]
    advantage = (reward - reward.mean()) / reward.std(ddof=1)
    old = np.log(PROBLEM.probability[answers[0]])

    def surrogate(rows):
        new = np.array([np.log(replace(PROBLEM, logits=z.reshape(shape)).probability[answers[0]]) for z in rows])
        return (advantage * np.exp((new - old) / length)).mean(1)

    slope = difference_quotients(surrogate, PROBLEM.logits.reshape(1, -1))[0]
    weight = token_advantage(find("gspo"), PROBLEM, answers)[0]
    score = np.stack([PROBLEM.direction(tree.scored * row) for row in np.eye(3)], axis=1)[answers[0]]
    np.testing.assert_allclose(np.einsum("gt,gtp->p", weight, score) / 4, slope, atol=1e-9)
    np.testing.assert_array_equal(weight, token_advantage(find("grpo"), PROBLEM, answers)[0])


def test_baselines_of_single_samples() -> None:
    tree, reward = PROBLEM.tree, PROBLEM.reward
    answers = np.arange(tree.size)[:, None]
    greedy = max(range(tree.size), key=lambda b: sum(
        PROBLEM.logits[n, v] == PROBLEM.logits[n].max() for n, v in zip(tree.node[b], tree.tokens[b], strict=True)
    ) if all(PROBLEM.logits[n, v] == PROBLEM.logits[n].max()
             for n, v, s in zip(tree.node[b], tree.tokens[b], tree.scored[b], strict=True) if s) else -1)  # fmt: skip
    assert rules.greedy_answer(PROBLEM) == greedy
    mean = float(PROBLEM.probability @ reward)
    for name, baseline in (("reinforce", 0.0), ("expected_baseline", mean), ("remax", reward[greedy])):
        found = token_advantage(ESTIMATORS[name], PROBLEM, answers)
        np.testing.assert_allclose(found[:, 0], (reward - baseline)[:, None] * tree.scored, atol=ALGEBRA)
    found = token_advantage(ESTIMATORS["reinforce"], PROBLEM, answers, options=Options(baseline=-2.0))
    np.testing.assert_allclose(found[:, 0], (reward + 2)[:, None] * tree.scored, atol=ALGEBRA)
    found = token_advantage(ESTIMATORS["theorem_2"], PROBLEM, answers)
    np.testing.assert_array_equal(found[:, 0], theorem_2_advantage(tree, PROBLEM.logits, reward))


def test_a_greedy_tie_goes_to_the_smaller_token() -> None:
    tree = token_tree(3, 3)
    assert rules.greedy_answer(Problem(tree, np.zeros(tree.logits_shape), np.arange(15.0))) == 0
    tree = token_tree(2, 3, end=1)
    assert tree.answers[rules.greedy_answer(Problem(tree, np.zeros(tree.logits_shape), np.arange(4.0)))] == (0, 0, 0)


@settings(max_examples=15)
@given(st.floats(0, 1), st.integers(0, 99))
def test_gae_by_its_definition(decay: float, seed: int) -> None:
    """Â_t = Σ_k λ^k δ_{t+k}, the critic being value plus error, hidden rewards at their tokens."""
    problem, tree = random_problem(seed=seed), PROBLEM.tree
    rng = np.random.default_rng(seed)
    hidden, error = hidden_rewards(tree, seed=seed), rng.standard_normal(len(tree.prefixes))
    np.testing.assert_allclose(hidden.sum(1), problem.reward, atol=ALGEBRA)
    options = Options(decay=decay, critic_error=error, token_reward=hidden)
    found = token_advantage(ESTIMATORS["ppo"], problem, np.arange(tree.size)[:, None], options=options)[:, 0]
    for b in range(tree.size):
        n = int(tree.length[b])
        value = []
        for t in range(n):
            through = np.array([a[:t] == tree.answers[b][:t] for a in tree.answers])
            future = hidden[:, t:].sum(1)
            value.append(np.average(future[through], weights=problem.probability[through]) + error[tree.node[b, t]])
        delta = hidden[b, :n] + np.array([*value[1:], 0.0]) - np.array(value)
        expected = [sum(decay ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)]
        np.testing.assert_allclose(found[b, :n], expected, atol=1e-10)
        assert not found[b, n:].any()


def test_whitening_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 15, (5, 3))
    found = token_advantage(ESTIMATORS["ppo_coded"], PROBLEM, answers)
    plain = token_advantage(ESTIMATORS["ppo"], PROBLEM, answers, options=Options(decay=0.95))
    for q, row in enumerate(answers):
        drawn = PROBLEM.tree.scored[row]
        tokens = plain[q][drawn]
        white = (tokens - tokens.mean()) / np.sqrt(tokens.var(ddof=1) + 1e-8)
        np.testing.assert_allclose(found[q][drawn], white * 3 / drawn.sum(), rtol=1e-10)
        assert not found[q][~drawn].any()
    single = rules.whiten(np.array([[[2.0, 0.0]]]), np.array([[1]]))
    assert not single.any(), "one token has no spread: centred, it is zero"


@pytest.mark.parametrize("value", [0.1, 0.7, 123.456])
@pytest.mark.parametrize("name", GROUPED)
def test_equal_float32_rewards_give_exactly_zero(name: str, value: float) -> None:
    """Where the libraries' formula does not: rounding of the mean, divided by a spread that is rounding too."""
    problem = replace(PROBLEM, reward=np.full(15, value, dtype=np.float32))
    for group in (5, 7, 8):
        assert not token_advantage(ESTIMATORS[name], problem, np.arange(group)[None]).any()


def test_nearly_equal_rewards_are_not_zero() -> None:
    reward = np.full(15, 0.7, dtype=np.float32)
    reward[3] = np.nextafter(reward[3], np.float32(1))
    problem = replace(PROBLEM, reward=reward)
    assert all(token_advantage(ESTIMATORS[n], problem, np.arange(8)[None]).any() for n in GROUPED)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RLOO", "did you mean rloo?"),
        ("Dr. GRPO", "did you mean dr_grpo?"),
        ("re-max", "did you mean remax?"),
        ("grop", "did you mean grpo?"),
        ("gsop", "did you mean gspo?"),
        ("xyzzy", f"choose one of {', '.join(ESTIMATORS)}"),
    ],
)
def test_unknown_names_get_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=whole(f"unknown estimator {name!r}; {hint}")):
        find(name)


def test_every_name_finds_its_own() -> None:
    assert all(find(name).name == name for name in ESTIMATORS)
    assert all(e.formula and e.source for e in ESTIMATORS.values())
    known = set(Options.__dataclass_fields__)
    assert all(set(e.reads) <= known for e in ESTIMATORS.values())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_options_that_are_not_read_do_not_matter(name: str) -> None:
    e = ESTIMATORS[name]
    answers = np.array([[0, 5, 9], [1, 2, 14]])
    error, hidden = np.linspace(-1, 1, 7), hidden_rewards(PROBLEM.tree, seed=1)
    others = {
        "ddof": 0, "eps": 0.3, "baseline": 1.5, "longest": 9, "decay": 0.5, "critic_error": error,
        "token_reward": hidden, "step": 1, "keep": 0.8,
    }  # fmt: skip
    plain = token_advantage(e, PROBLEM, answers)
    for option, value in others.items():
        changed = token_advantage(e, PROBLEM, answers, options=replace(e.defaults, **{option: value}))
        # no change: hidden rewards under an exact critic (fact 4 of the source), anchors weighted by their inclusion
        exact = (option, name) in (("token_reward", "ppo"), ("token_reward", "ppo_coded"), ("keep", "trepo_anchors"))
        same = np.allclose(changed, plain, atol=ALGEBRA)
        assert same == (option not in e.reads or exact), (option, name)


def test_refusals() -> None:
    answers, rloo = np.array([[0, 1]]), ESTIMATORS["rloo"]
    for bad in (np.array([[0, 15]]), np.array([[-1, 0]])):
        with pytest.raises(ValueError, match=r"answers must be groups \(Q, G\) of rows 0 … 14"):
            token_advantage(rloo, PROBLEM, bad)
    with pytest.raises(ValueError, match=r"answers must be groups"):
        unchecked(token_advantage)(rloo, PROBLEM, np.array([0, 1]))
    for name in GROUPED:
        with pytest.raises(ValueError, match="needs G ≥ 2 samples per prompt, got G = 1"):
            token_advantage(ESTIMATORS[name], PROBLEM, answers[:, :1])
        with pytest.raises(ValueError, match=whole(f"{name} needs G ≥ 2 answers per group, got G = 1")):
            module.expected_scale(ESTIMATORS[name], PROBLEM, group=1)
    with pytest.raises(ValueError, match="reinforce needs G ≥ 1"):
        module.expected_scale(ESTIMATORS["reinforce"], PROBLEM, group=0)
    with pytest.raises(ValueError, match="token_reward must sum to the reward of every answer"):
        token_advantage(ESTIMATORS["ppo"], PROBLEM, answers, options=Options(token_reward=np.zeros((15, 3))))
    for error in (np.zeros(6), np.full(7, np.nan)):
        with pytest.raises(ValueError, match="critic_error has shape .*; give a finite number per prefix, 7"):
            token_advantage(ESTIMATORS["ppo"], PROBLEM, answers, options=Options(critic_error=error))
    with pytest.raises(ValueError, match="unknown aggregation 'median'"):
        unchecked(rules.length_factor)("median", answers, longest=3)
    same = replace(PROBLEM, reward=np.ones(15))
    with pytest.raises(ValueError, match="no group is mixed: all answers that ever come have one reward; give rewards"):
        module.expected_scale(replace(ESTIMATORS["rloo"], mixed_only=True), same, group=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ddof": 2}, "ddof is 2 and eps 0.0; give ddof 0 or 1 and eps ≥ 0"),
        ({"eps": -0.1}, "ddof is 1 and eps -0.1; give ddof 0 or 1 and eps ≥ 0"),
        ({"eps": float("nan")}, "ddof is 1 and eps nan; give ddof 0 or 1 and eps ≥ 0"),
        ({"longest": 0}, "longest is 0 and step 2; give numbers of tokens of at least 1"),
        ({"step": 0}, "longest is None and step 0; give numbers of tokens of at least 1"),
        ({"keep": 0.0}, "keep is 0.0; give a probability above 0 and at most 1"),
        ({"keep": 1.5}, "keep is 1.5; give a probability above 0 and at most 1"),
        ({"decay": 1.1}, "decay is 1.1 and baseline 0.0; give λ in [0, 1] and a finite number"),
        ({"baseline": float("inf")}, "decay is 1.0 and baseline inf; give λ in [0, 1] and a finite number"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        Options(**options)


def test_sets_stand_alone() -> None:
    sets = ESTIMATORS["trepo_anchors"]
    message = whole(
        "trepo_anchors has sets; they are for single samples: no token, group, token_mean, mixed_only, whitened"
    )
    for change in ({"group": "group_mean"}, {"token": rules.gae}, {"aggregation": "token_mean"}, {"whitened": True}):
        with pytest.raises(ValueError, match=message):
            replace(sets, **change)


def test_problems_that_do_not_fit() -> None:
    tree = token_tree(3, 3)
    logits, reward = np.zeros(tree.logits_shape), np.zeros(15)
    with pytest.raises(ValueError, match="reward holds NaN"):
        Problem(tree, logits, np.full(15, np.nan))
    with pytest.raises(ValueError, match="logits hold NaN"):
        Problem(tree, np.full_like(logits, np.inf), reward)
    fine = Problem(tree, logits, reward)
    for features in (np.zeros((6, 3, 2)), np.full((7, 3, 2), np.nan)):
        object.__setattr__(fine, "features", features)  # past the type checks that only pytest turns on
        with pytest.raises(ValueError, match=r"features have shape .*; give finite ones, \(7, 3\) \+ \(P,\)"):
            fine.__post_init__()


def test_the_problem_that_is_drawn_is_the_same_every_time() -> None:
    first, again, other = random_problem(seed=5), random_problem(seed=5), random_problem(seed=6)
    np.testing.assert_array_equal(first.reward, again.reward)
    assert not np.array_equal(first.reward, other.reward)
    binary = random_problem(seed=5, binary=True)
    np.testing.assert_array_equal(binary.reward, first.reward > 0)
    np.testing.assert_array_equal(binary.logits, first.logits)


def test_an_own_estimator_needs_a_rule_only() -> None:
    """Rank in the group instead of the reward, written by a reader."""
    own = Estimator(
        "ranks", "(rank_i − mean) g_i", "a reader", "biased",
        group=lambda reward, options: (reward[:, :, None] > reward[:, None, :]).sum(2) - (reward.shape[1] - 1) / 2,
    )  # fmt: skip
    weight = token_advantage(own, PROBLEM, np.array([[0, 5, 9]]))
    order = np.argsort(np.argsort(PROBLEM.reward[[0, 5, 9]])) - 1.0
    np.testing.assert_array_equal(weight[0], order[:, None] * PROBLEM.tree.scored[[0, 5, 9]])
    assert module.verdict(own, PROBLEM, group=3) == "biased"
