"""KL terms in the loss and in the reward: exact directions against closed forms and against Taylor rates."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from tests.helpers import unchecked
from vgrad_lab import strategies
from vgrad_lab.discrete.kl import (
    Place,
    Term,
    kl_term_gradient,
    kl_term_variance,
    kl_value,
    local_kl_gradient,
    prefix_kl,
    sequence_kl,
    sequence_kl_gradient,
)
from vgrad_lab.discrete.off_policy import importance_ratio, log_ratio, off_policy_gradient, shifted
from vgrad_lab.discrete.strategies import TreeCase, tree_cases
from vgrad_lab.discrete.token_tree import (
    answer_probability,
    log_policy,
    prefix_probability,
    token_logprob,
    token_score,
    token_tree,
    weighted_score,
)
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE
from vgrad_lab.verify import taylor_rates

TERMS, PLACES = get_args(Term), get_args(Place)
LOSSES = ("loss", "token_ratio", "sequence_ratio", "geometric_ratio")
REWARDS = ("reward", "reward_to_go", "own_reward")
TREE = token_tree(3, 3)


def close(found: ndarray, expected: ndarray) -> bool:
    """Equal, and the comparison would see a tenth of a per cent."""
    if np.abs(expected).max() > 1e-3:
        assert np.abs(found - (1 + PLANTED_FAULT) * expected).max() > ALGEBRA
    return float(np.abs(found - expected).max()) <= ALGEBRA


def draw(seed: int, tree: object = TREE) -> tuple[ndarray, ndarray, ndarray]:
    """Logits of π, ref and β."""
    return tuple(np.random.default_rng(seed).standard_normal((3, *tree.logits_shape)))  # type: ignore[attr-defined]


@given(st.integers(2, 6), strategies.seeds())
def test_table_at_one_prefix(vocab: int, seed: int) -> None:
    """k1: 0; k2: ∇KL(π‖ref); k3: ∇KL(ref‖π); with ρ ∇E[k]; in the reward ∇E[k] − E[∇k]."""
    tree = token_tree(vocab, 1, end=None)
    pi, ref, beta = draw(seed, tree)
    p, x = np.exp(log_policy(tree, pi))[0], (log_policy(tree, pi) - log_policy(tree, ref))[0]
    forward, reverse = p * (x - p @ x), p - np.exp(log_policy(tree, ref))[0]
    second = p * (x**2 / 2 - p @ x**2 / 2)
    value = {"k1": forward, "k2": second + forward, "k3": forward}
    loss = {"k1": np.zeros(vocab), "k2": forward, "k3": reverse}
    for term in TERMS:
        assert close(kl_term_gradient(tree, pi, ref, term=term, place="loss"), loss[term])
        for place in ("token_ratio", "sequence_ratio", "geometric_ratio"):
            for behaviour in (None, beta):
                found = kl_term_gradient(tree, pi, ref, term=term, place=place, behaviour=behaviour)
                assert close(found, value[term])
        for place in REWARDS:
            found = kl_term_gradient(tree, pi, ref, term=term, place=place, behaviour=beta)
            assert close(found, value[term] - loss[term])
    assert close(local_kl_gradient(tree, pi, ref), forward)
    assert close(local_kl_gradient(tree, pi, ref, reverse=True), reverse)


def test_values() -> None:
    tree = token_tree(5, 1, end=None)
    pi, ref, _ = draw(0, tree)
    p, q = (np.exp(log_policy(tree, z))[0] for z in (pi, ref))
    kl = float(p @ np.log(p / q))
    assert kl_value(tree, pi, ref, "k1") == pytest.approx(kl, rel=ALGEBRA)
    assert kl_value(tree, pi, ref, "k3") == pytest.approx(kl, rel=ALGEBRA)
    assert kl_value(tree, pi, ref, "k2") == pytest.approx(float(p @ np.log(p / q) ** 2) / 2, rel=ALGEBRA)
    assert prefix_kl(tree, pi, ref)[0] == pytest.approx(kl, rel=ALGEBRA)
    assert abs(kl_value(tree, pi, ref, "k2") / kl - 1) > 0.05


@given(tree_cases(), strategies.seeds())
def test_values_of_whole_answers(case: TreeCase, seed: int) -> None:
    ref = shifted(case.logits, 1.0, np.random.default_rng(seed))
    p, ratio = answer_probability(case.tree, case.logits), importance_ratio(case.tree, case.logits, ref)[:, 0]
    kl = sequence_kl(case.tree, case.logits, ref)
    assert kl == pytest.approx(float(p @ np.log(ratio)), abs=ALGEBRA)
    for term in ("k1", "k3"):
        assert kl_value(case.tree, case.logits, ref, term) == pytest.approx(kl, abs=ALGEBRA)
    assert kl >= -ALGEBRA


def test_gradient_of_the_kl_by_taylor() -> None:
    for tree in (TREE, token_tree(2, 3, end=None), token_tree(4, 2)):
        for seed in range(4):
            pi, ref, along = draw(seed, tree)

            def value(z: ndarray, tree: object = tree, ref: ndarray = ref) -> ndarray:
                return np.array(sequence_kl(tree, z, ref))  # type: ignore[arg-type]

            def slope(z: ndarray, tree: object = tree, ref: ndarray = ref, factor: float = 1.0) -> ndarray:
                return factor * sequence_kl_gradient(tree, z, ref).reshape(z.shape)  # type: ignore[arg-type]

            along += slope(pi) * (3 / np.linalg.norm(slope(pi)))  # not across the gradient: there no fault would show
            steps = {"step": 1e-4, "halvings": 3}
            assert np.abs(taylor_rates(value, slope, pi, along, **steps) - 2).max() <= TAYLOR_RATE
            wrong = taylor_rates(value, lambda z, s=slope: s(z, factor=1 + PLANTED_FAULT), pi, along, **steps)
            assert np.abs(wrong - 2).max() > TAYLOR_RATE


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("place", LOSSES)
def test_terms_in_the_loss_are_derivatives_of_their_loss(term: Term, place: Place) -> None:
    """Σ_o β(o) Σ_t ρ k(x_t) written out, answers of a third policy."""
    kind = {"loss": "none", "token_ratio": "token", "sequence_ratio": "sequence", "geometric_ratio": "geometric"}[place]
    k = {"k1": lambda x: x, "k2": lambda x: x**2 / 2, "k3": lambda x: np.exp(-x) - 1 + x}[term]
    for seed in range(3):
        pi, ref, beta = draw(seed)
        probability, along = answer_probability(TREE, beta), np.random.default_rng(50 + seed).standard_normal(pi.shape)

        def value(z: ndarray, ref: ndarray = ref, beta: ndarray = beta, probability: ndarray = probability) -> ndarray:
            x = token_logprob(TREE, z) - token_logprob(TREE, ref)
            terms = importance_ratio(TREE, z, beta, kind) * np.where(TREE.scored, k(x), 0.0)
            return np.array(probability @ terms.sum(1))

        def slope(z: ndarray, ref: ndarray = ref, beta: ndarray = beta) -> ndarray:
            return kl_term_gradient(TREE, z, ref, term=term, place=place, behaviour=beta).reshape(z.shape)

        if term == "k1" and place == "loss":
            assert abs(float(value(pi + 1e-2 * along) - value(pi))) > 1e-5, "off-policy it is not zero"
        assert np.abs(taylor_rates(value, slope, pi, along, step=1e-3) - 2).max() <= TAYLOR_RATE


@given(tree_cases(), strategies.seeds())
def test_which_places_give_the_gradient_of_the_whole_kl(case: TreeCase, seed: int) -> None:
    tree, pi = case.tree, case.logits
    rng = np.random.default_rng(seed)
    ref, beta = shifted(pi, 1.0, rng), shifted(pi, 1.0, rng)
    exact, local = sequence_kl_gradient(tree, pi, ref), local_kl_gradient(tree, pi, ref)
    for term, place in (("k1", "reward"), ("k1", "reward_to_go"), ("k1", "sequence_ratio"), ("k3", "sequence_ratio")):
        for behaviour in (None, beta):
            found = kl_term_gradient(tree, pi, ref, term=term, place=place, behaviour=behaviour)
            assert np.abs(found - exact).max() <= 10 * ALGEBRA
    for term, place in (("k2", "loss"), ("k1", "token_ratio"), ("k3", "token_ratio"), ("k1", "own_reward")):
        assert np.abs(kl_term_gradient(tree, pi, ref, term=term, place=place) - local).max() <= 10 * ALGEBRA
    reverse = local_kl_gradient(tree, pi, ref, reverse=True)
    assert np.abs(kl_term_gradient(tree, pi, ref, term="k3", place="loss") - reverse).max() <= 10 * ALGEBRA
    own = kl_term_gradient(tree, pi, ref, term="k3", place="own_reward")
    assert np.abs(own - (local - reverse)).max() <= 10 * ALGEBRA


@given(tree_cases(), strategies.seeds())
def test_what_per_token_terms_leave_out(case: TreeCase, seed: int) -> None:
    """∇KL − Σ P ∇KL(prefix) = E[Σ_t g_t Σ_{s>t} KL(o_<s)]: how the policy changes the visits to prefixes."""
    tree, pi = case.tree, case.logits
    ref = shifted(pi, 1.0, np.random.default_rng(seed))
    along = np.where(tree.scored, prefix_kl(tree, pi, ref)[tree.node], 0.0)
    later = along.sum(1, keepdims=True) - along.cumsum(1)
    missing = weighted_score(tree, pi, answer_probability(tree, pi)[:, None] * later)
    found = sequence_kl_gradient(tree, pi, ref) - local_kl_gradient(tree, pi, ref)
    assert np.abs(found - missing).max() <= 10 * ALGEBRA


def test_per_token_terms_are_wrong_by_much() -> None:
    """Relative error of ρk3 per token against ∇KL of the answers over 200 draws: its median lies near a half."""
    errors = []
    for seed in range(200):
        pi, ref, _ = draw(seed)
        exact = sequence_kl_gradient(TREE, pi, ref)
        found = kl_term_gradient(TREE, pi, ref, term="k3", place="token_ratio")
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
    assert 0.3 < np.median(errors) < 0.8
    assert min(errors) > 0.05


def test_penalty_of_stale_answers() -> None:
    """TRL's RLOO takes log β/ref, of the answers' own policy, as the penalty: short of ∇KL(π‖ref) by ∇KL(π‖β)."""
    pi, ref, beta = draw(7)
    stale = (token_logprob(TREE, beta) - token_logprob(TREE, ref)).sum(1)
    found = off_policy_gradient(TREE, pi, beta, stale, ratio="sequence")
    expected = sequence_kl_gradient(TREE, pi, ref) - sequence_kl_gradient(TREE, pi, beta)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ALGEBRA)


def test_policies_far_apart_stay_finite() -> None:
    """Log-ratios of ±1e4 nats, where e^{−x} overflows: k3 in the loss is still Σ P(prefix)(π − ref)."""
    rng = np.random.default_rng(0)
    away = np.where(rng.random(TREE.logits_shape) < 0.5, -1.0, 0.0)
    near = rng.standard_normal(TREE.logits_shape)
    far, less = 1e4 * away + near[::-1], 120 * away + near[::-1]
    for pi, ref in ((near, far), (far, near), (near, less), (less, near)):
        reverse = local_kl_gradient(TREE, pi, ref, reverse=True)
        reached = np.repeat(prefix_probability(TREE, pi) > 0, TREE.vocab)
        found = kl_term_gradient(TREE, pi, ref, term="k3", place="loss")
        assert np.abs(found - reverse)[reached].max() <= ALGEBRA
        for term in TERMS:
            assert np.isfinite(kl_value(TREE, pi, ref, term))
            for place in PLACES:
                assert np.all(np.isfinite(kl_term_gradient(TREE, pi, ref, term=term, place=place)))
    with pytest.raises(ValueError, match="k3 overflows"):
        kl_term_gradient(TREE, far, near, term="k3", place="loss", behaviour=near)
    assert kl_value(TREE, far, near, "k3") == pytest.approx(sequence_kl(TREE, far, near), rel=ALGEBRA)


def test_near_the_reference_nothing_cancels() -> None:
    """At a distance of 1e-6 the three terms agree to first order, each to nine digits of its own."""
    pi, _, away = draw(1)
    ref = pi + 1e-6 * away
    exact = sequence_kl_gradient(TREE, pi, ref)
    found = kl_term_gradient(TREE, pi, ref, term="k3", place="sequence_ratio")
    assert np.linalg.norm(found - exact) <= 1e-9 * np.linalg.norm(exact)
    one, other = (kl_term_gradient(TREE, pi, ref, term=term, place="loss") for term in ("k2", "k3"))
    assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(one)
    assert np.linalg.norm(one - other) > 1e-9 * np.linalg.norm(one)


def test_variance_by_the_answers_one_by_one() -> None:
    """E‖∇‖² − ‖E∇‖² with each answer's own gradient, for every term and place; k1 in the loss is noise alone."""
    pi, ref, beta = draw(2)
    score, x = token_score(TREE, pi), log_ratio(TREE, pi, ref, "token")
    for behaviour in (None, beta):
        drawn = pi if behaviour is None else beta
        p, rho = answer_probability(TREE, drawn), importance_ratio(TREE, pi, drawn, "token")
        own = {
            ("k1", "loss"): np.ones_like(x), ("k2", "loss"): x, ("k3", "loss"): 1 - np.exp(-x),
            ("k3", "token_ratio"): rho * x, ("k1", "token_ratio"): rho * (1 + x),
            ("k1", "reward"): importance_ratio(TREE, pi, drawn) * x.sum(1, keepdims=True),
        }  # fmt: skip
        for (term, place), weight in own.items():
            each = np.einsum("bt,btp->bp", weight, score)
            mean = p @ each
            settings = {"term": term, "place": place, "behaviour": behaviour}
            found = kl_term_variance(TREE, pi, ref, **settings)
            assert found == pytest.approx(float(p @ ((each - mean) ** 2).sum(1)), rel=1e-10)
            np.testing.assert_allclose(kl_term_gradient(TREE, pi, ref, **settings), mean, rtol=0, atol=ALGEBRA)
    far = np.where(np.random.default_rng(0).random(pi.shape) < 0.5, -1e4, 0.0)
    assert np.isfinite(kl_term_variance(TREE, far, pi, term="k2"))
    assert kl_term_variance(TREE, far, pi, term="k3") == np.inf


def test_variance_of_k3_in_the_loss_has_no_bound() -> None:
    """Two tokens, ref even, π = (1 − ε, ε): the rare one gives ref²/π = 1/(4ε) in each of the two logits."""
    tree = token_tree(2, 1, end=None)
    for rare in (1e-2, 1e-4, 1e-8):
        found = kl_term_variance(tree, np.log([[1 - rare, rare]]), np.zeros((1, 2)), term="k3")
        assert found * rare == pytest.approx(2 * 0.5**2, rel=0.2 if rare > 1e-3 else 1e-2)


def test_bad_input() -> None:
    pi, ref, _ = draw(0)
    with pytest.raises(ValueError, match="unknown term 'k4'; choose one of k1, k2, k3"):
        unchecked(kl_term_gradient)(TREE, pi, ref, term="k4")
    with pytest.raises(ValueError, match="unknown term 'kl'"):
        unchecked(kl_value)(TREE, pi, ref, "kl")
    with pytest.raises(ValueError, match="unknown place 'Loss'; choose one of loss, token_ratio"):
        unchecked(kl_term_gradient)(TREE, pi, ref, place="Loss")
    with pytest.raises(ValueError, match="logits have shape"):
        unchecked(prefix_kl)(TREE, pi, ref[:-1])
    with pytest.raises(ValueError, match="NaN"):
        unchecked(sequence_kl_gradient)(TREE, pi, np.full_like(ref, np.nan))
