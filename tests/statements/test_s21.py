"""S21: the expected costate is the value gradient of the discrete policy, and what breaks it."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.experiments import verify_answers as ends
from vgrad_lab.experiments import verify_value_gradient as checks
from vgrad_lab.experiments.verify_sequence import KINDS, Kind, build
from vgrad_lab.sequence.enumeration import (
    all_sequences,
    expected_costate,
    expected_group_advantage,
    sequence_probability,
    value,
    value_gradient,
)
from vgrad_lab.sequence.trace import Patch, trace
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE

shapes = (
    st.sampled_from(KINDS), st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31 - 1),
)  # fmt: skip


def problem(kind: Kind, vocab: int, layers: int, horizon: int, seed: int) -> checks.Problem:
    reward = np.random.default_rng(seed).normal(size=vocab**horizon)
    return checks.Problem(build(kind, vocab=vocab, layers=layers, seed=seed), horizon, reward)


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_rows_of_a_prefix_are_its_answers(tokens: int) -> None:
    case = problem("pre", 3, 1, 3, 0)
    cases, rows = case.after(tokens)
    answers = all_sequences(3, 3)[rows]
    assert torch.equal(answers[:, tokens:], cases.targets[:, cases.sampled])
    assert torch.equal(answers[:, :tokens], cases.inputs[:, 1 : 1 + tokens])


@settings(max_examples=25)
@given(*shapes)
def test_expected_costate_is_the_value_gradient(kind: Kind, vocab: int, layers: int, horizon: int, seed: int) -> None:
    case, rng = problem(kind, vocab, layers, horizon, seed), np.random.default_rng(seed)
    for tokens in range(horizon):
        assert checks.exact_errors(case, rng, tokens=tokens).max() <= ALGEBRA
    assert checks.exact_errors(case, rng, tokens=0, planted=PLANTED_FAULT).max() > ALGEBRA


@pytest.mark.parametrize("kind", KINDS)
def test_action_values_are_return_type_too(kind: Kind) -> None:
    """Â_k = E[R | o_≤k] in place of R."""
    case = problem(kind, 3, 2, 2, 0)
    cases, _ = case.after(0)
    chance = sequence_probability(trace(case.model, cases.inputs), cases).detach().numpy().reshape(3, 3)
    first = (chance * case.reward.reshape(3, 3)).sum(1) / chance.sum(1)
    advantage = np.stack([np.repeat(first, 3), case.reward], axis=1)
    found, truth = expected_costate(case.model, cases, advantage), value_gradient(case.model, cases, case.reward)
    assert checks.errors(found, truth).max() <= ALGEBRA


@pytest.mark.parametrize("kind", ["pre", "post"])
def test_return_on_the_first_token_alone_is_wrong_below_the_last_layer(kind: Kind) -> None:
    found = np.array([checks.first_only_errors(problem(kind, 3, 3, 3, seed), tokens=0)[:, 0] for seed in range(6)])
    assert found[:, -1].max() <= ALGEBRA
    assert found[:, :-1].min() > 0.01


def test_return_on_the_first_token_alone_is_wrong_everywhere_in_a_gru() -> None:
    found = np.array([checks.first_only_errors(problem("gru", 3, 2, 3, seed), tokens=0)[:, 0] for seed in range(6)])
    assert found.min() > 0.01


def test_reward_that_reads_the_state_breaks_it() -> None:
    case = problem("pre", 3, 2, 2, 1)
    cases, _ = case.after(0)
    h = trace(case.model, cases.inputs[:1]).hidden[1, 0, 0].detach().requires_grad_()
    total = value(case.model, cases, case.reward, patch=Patch(1, 0, h)) + 0.5 * (h**2).sum()
    truth = torch.autograd.grad(total, h)[0]
    found = expected_costate(case.model, cases, case.reward)[1, 0]
    assert float((found - truth).norm() / truth.norm()) > 0.1
    assert float((found + h.detach() - truth).norm() / truth.norm()) <= ALGEBRA


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_state_alone_does_not_determine_the_value_gradient(layer: int) -> None:
    assert checks.prefix_dependence(build("pre", vocab=3, layers=3, seed=0), layer=layer) > 0.1
    assert checks.s21_prefix().refutes


def test_tokens_of_another_policy_break_it() -> None:
    case = problem("pre", 3, 2, 2, 2)
    cases, _ = case.after(0)
    own, other = (
        sequence_probability(trace(model, cases.inputs), cases).detach().numpy()
        for model in (case.model, build("pre", vocab=3, layers=2, seed=99))
    )
    found = expected_costate(case.model, cases, case.reward * other / own)
    assert checks.errors(found, value_gradient(case.model, cases, case.reward)).min() > 0.1


@settings(max_examples=10)
@given(st.sampled_from(KINDS), st.integers(2, 3), st.integers(0, 2**31 - 1), st.integers(0, 1))
def test_own_mean_and_leave_one_out_scale_it(kind: Kind, vocab: int, seed: int, tokens: int) -> None:
    case = problem(kind, vocab, 2, 2, seed)
    for group in (2, 3):
        for baseline, factor in (("group_mean", (group - 1) / group), ("leave_one_out", 1.0)):
            found = checks.group_errors(case, baseline, group=group, tokens=tokens, factor=factor)
            assert found.max() <= ALGEBRA
            faulty = checks.group_errors(case, baseline, group=group, tokens=tokens, factor=factor + PLANTED_FAULT)
            assert faulty.max() > ALGEBRA


@settings(max_examples=10)
@given(st.integers(0, 2**31 - 1))
def test_binary_standardised_scales_it_by_kappa(seed: int) -> None:
    assert checks.s21_group(seed=seed, examples=2).passed


def test_standardised_real_rewards_are_not_a_multiple() -> None:
    case = problem("pre", 3, 2, 2, 3)
    cases, _ = case.after(0)
    chance = sequence_probability(trace(case.model, cases.inputs), cases).detach().numpy()
    rule = partial(from_group, ddof=0, eps=0.0)
    advantage = expected_group_advantage(rule, case.reward, chance, group=3)
    found = expected_costate(case.model, cases, advantage).flatten()
    truth = value_gradient(case.model, cases, case.reward).flatten()
    assert float(torch.cosine_similarity(found, truth, dim=0)) < 0.9999


@settings(max_examples=40)
@given(st.integers(0, 2**31 - 1))
def test_relaxed_gap_is_within_its_bound(seed: int) -> None:
    assert checks.s21_relaxed(seed=seed, examples=10).passed


def test_relaxed_gap_bound_is_attained_in_the_limit_and_can_fail() -> None:
    head, table = np.array([[1.0], [-1.0]]), np.array([[0.0], [1.0]])
    ratios = [
        checks.relaxed_gap_ratio(head, table, np.array([[2.0]]), np.zeros(1), np.array([1 - q, q]))
        for q in (0.3, 0.1, 0.01, 1e-4)
    ]
    np.testing.assert_allclose(ratios, [0.4, 0.8, 0.98, 0.9998], rtol=1e-9)


def test_a_kink_breaks_the_relaxed_bound() -> None:
    """Q(x) = |x − ½| has zero curvature wherever it has one, so its bound would be 0; the gap is not."""
    p = np.array([0.7, 0.3])
    covariance = np.diag(p) - np.outer(p, p)
    relaxed_slope = np.sign(p[1] - 0.5)
    gap = covariance @ (np.array([0.5, 0.5]) - relaxed_slope * np.array([0.0, 1.0]))
    assert np.linalg.norm(gap) > 0.1


def test_evidence_and_counterexample() -> None:
    assert checks.s21_exact(examples=5).passed
    assert checks.s21_group(examples=2).passed
    assert checks.s21_relaxed().passed
    assert checks.s21_counterexample().refutes


def test_relaxed_check_survives_saturated_draws() -> None:
    assert checks.s21_relaxed(seed=1178, examples=2).passed


ended = (st.sampled_from(KINDS), st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31 - 1))


def answers(kind: Kind, vocab: int, layers: int, horizon: int, seed: int) -> ends.Answers:
    return ends.answers(build(kind, vocab=vocab, layers=layers, seed=seed), horizon, np.random.default_rng(seed))


@settings(max_examples=12)
@given(*ended)
def test_answers_that_end_early_with_any_critic(kind: Kind, vocab: int, layers: int, horizon: int, seed: int) -> None:
    """PPO with λ = 1; the reward less its critic is the same advantage on every scored token."""
    case = answers(kind, vocab, layers, horizon, seed)
    critic = ends.prefix_values(case.cases, np.random.default_rng(seed))
    assert ends.gae_errors(case, critic, decay=1.0).max() <= ALGEBRA
    assert ends.gae_errors(case, critic, decay=1.0, planted=PLANTED_FAULT).max() > ALGEBRA
    for tokens in range(horizon):
        cases, rows = case.after(tokens)
        reward = case.reward[rows]
        advantage = reward[:, None] - ends.prefix_values(cases, np.random.default_rng(seed))[:, :-1]
        found, truth = expected_costate(case.model, cases, advantage), value_gradient(case.model, cases, reward)
        assert checks.errors(found, truth).max() <= ALGEBRA


@settings(max_examples=15)
@given(*ended, st.floats(0, 1))
def test_the_exact_critic_allows_any_lambda(
    kind: Kind, vocab: int, layers: int, horizon: int, seed: int, decay: float
) -> None:
    case = answers(kind, vocab, layers, horizon, seed)
    critic = ends.exact_values(case.cases, case.chance(), case.reward)
    assert ends.gae_errors(case, critic, decay=decay).max() <= ALGEBRA


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_lambda_needs_the_exact_critic(kind: Kind) -> None:
    for seed in range(3):
        case = answers(kind, 3, 2, 3, seed)
        critic = ends.prefix_values(case.cases, np.random.default_rng(seed))
        assert ends.gae_errors(case, critic, decay=0.9).max() > 0.01
        assert ends.gae_errors(case, 0 * critic, decay=0.9).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_discount_breaks_it(kind: Kind) -> None:
    for seed in range(3):
        case = answers(kind, 3, 2, 3, seed)
        critic = ends.exact_values(case.cases, case.chance(), case.reward)
        assert ends.gae_errors(case, 0 * critic, decay=1.0, discount=0.9).max() > 0.01


@settings(max_examples=8)
@given(st.integers(0, 2**31 - 1), st.sampled_from(["leave_one_out", "group_mean", "standardised"]), st.integers(0, 1))
def test_groups_of_answers_that_end_early(seed: int, baseline: Baseline, tokens: int) -> None:
    case = ends.draw_answers(np.random.default_rng(seed), binary=True, horizon=2)
    for group in (2, 3):
        assert ends.group_errors(case, baseline, group=group, tokens=tokens).max() <= QUADRATURE


@pytest.mark.parametrize("kind", KINDS)
def test_dividing_by_the_length_turns_the_value_gradient_round(kind: Kind) -> None:
    found, own, reward = ends.length_case(build(kind, vocab=2, layers=2, seed=0))
    assert checks.errors(found[None, None], own[None, None]).max() <= ALGEBRA
    assert float(torch.cosine_similarity(found, reward, dim=0)) == pytest.approx(-1, abs=1e-9)
    assert ends.s21_length().refutes


def test_answers_evidence() -> None:
    assert ends.s21_answers(examples=4).passed
    assert ends.s21_group_answers(examples=2).passed
