"""Evidence and counterexamples for KL terms in the loss and in the reward (K01–K04); NumPy only."""

import numpy as np
from numpy import ndarray

from vgrad_lab.discrete.kl import (
    Place,
    Term,
    kl_term_gradient,
    kl_value,
    local_kl_gradient,
    prefix_kl,
    sequence_kl,
    sequence_kl_gradient,
)
from vgrad_lab.discrete.off_policy import shifted
from vgrad_lab.discrete.token_tree import TokenTree, answer_probability, token_tree, weighted_score
from vgrad_lab.experiments.verify_estimators import TREES, deviation
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA

COIN = np.log(np.array([[0.5, 0.5]]))
LEANING = np.log(np.array([[0.9, 0.1]]))


def draw_policies(rng: np.random.Generator) -> tuple[TokenTree, ndarray, ndarray, ndarray]:
    """A random tree with logits of π, of the reference and of the policy that the answers come from."""
    vocab, horizon, end = TREES[int(rng.integers(len(TREES)))]
    tree = token_tree(vocab, horizon, end=end)
    logits = rng.standard_normal(tree.logits_shape)
    size = float(2 ** rng.uniform(-4, 1))
    return tree, logits, shifted(logits, size, rng), shifted(logits, size, rng)


def one_prefix(rng: np.random.Generator) -> tuple[TokenTree, ndarray, ndarray, ndarray]:
    """The same for a single token of 2 to 6 kinds."""
    tree = token_tree(int(rng.integers(2, 7)), 1, end=None)
    return tree, *rng.standard_normal((3, *tree.logits_shape))


def k01_values(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[k1] and E[k3] of whole answers against KL(π‖ref)."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, ref, _ = draw_policies(rng)
        for term in ("k1", "k3"):
            worst = max(worst, deviation(kl_value(tree, pi, ref, term), sequence_kl(tree, pi, ref)))
    return Evidence(worst, ALGEBRA, f"E[k1] and E[k3] against KL(π‖ref) over {examples} trees")


def k01_second() -> Counterexample:
    """E[k2] for π = (.5, .5), ref = (.9, .1): 0.7339 where KL = 0.5108."""
    tree = token_tree(2, 1, end=None)
    found, exact = kl_value(tree, COIN, LEANING, "k2"), sequence_kl(tree, COIN, LEANING)
    return Counterexample(found, exact, 0.1, "E[log²(π/ref)]/2 against KL(π‖ref)")


def k02_table(*, seed: int = 0, examples: int = 20) -> Evidence:
    """k1, k2, k3 in the loss at one prefix against 0, ∇KL(π‖ref), ∇KL(ref‖π); answers of π."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, ref, _ = one_prefix(rng)
        forward, reverse = (local_kl_gradient(tree, pi, ref, reverse=r) for r in (False, True))
        table: dict[Term, ndarray] = {"k1": 0 * forward, "k2": forward, "k3": reverse}
        for term, expected in table.items():
            worst = max(worst, deviation(kl_term_gradient(tree, pi, ref, term=term), expected))
    return Evidence(worst, ALGEBRA, f"three terms in the loss at one prefix over {examples} draws")


def k02_third() -> Counterexample:
    """∂/∂z_1 of k3 in the loss for π = (.5, .5), ref = (.9, .1): −0.4 where ∂KL(π‖ref)/∂z_1 = −0.5493."""
    tree = token_tree(2, 1, end=None)
    found, exact = kl_term_gradient(tree, COIN, LEANING, term="k3"), sequence_kl_gradient(tree, COIN, LEANING)
    return Counterexample(float(found[0]), float(exact[0]), 0.1, "k3 in the loss against ∇KL(π‖ref)")


def k02_ratio(*, seed: int = 0, examples: int = 20) -> Evidence:
    """ρk1 and ρk3 in the loss at one prefix against ∇KL(π‖ref), ρk2 against ∇E[k2]; answers of any policy."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, ref, beta = one_prefix(rng)
        forward = local_kl_gradient(tree, pi, ref)
        second = kl_term_gradient(tree, pi, ref, term="k2", place="reward") + forward
        table: dict[Term, ndarray] = {"k1": forward, "k2": second, "k3": forward}
        for term, expected in table.items():
            found = kl_term_gradient(tree, pi, ref, term=term, place="token_ratio", behaviour=beta)
            worst = max(worst, deviation(found, expected))
    return Evidence(worst, ALGEBRA, f"ρ times each term in the loss at one prefix over {examples} draws")


def k03_reward(*, seed: int = 0, examples: int = 20) -> Evidence:
    """k1 in the reward, of whole answers or to go, against ∇KL(π‖ref); k3 for its own token against its difference."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, ref, beta = draw_policies(rng)
        exact = sequence_kl_gradient(tree, pi, ref)
        for place in ("reward", "reward_to_go"):
            for behaviour in (None, beta):
                found = kl_term_gradient(tree, pi, ref, term="k1", place=place, behaviour=behaviour)
                worst = max(worst, deviation(found, exact))
        forward, reverse = (local_kl_gradient(tree, pi, ref, reverse=r) for r in (False, True))
        own = kl_term_gradient(tree, pi, ref, term="k3", place="own_reward")
        worst = max(worst, deviation(own, forward - reverse))
    return Evidence(worst, ALGEBRA, f"k1 and k3 in the reward over {examples} trees")


def k03_third() -> Counterexample:
    """∂/∂z_1 of k3 in the reward, π = (.5, .5), ref = (.9, .1): −0.1493 where ∂KL(π‖ref)/∂z_1 = −0.5493."""
    tree = token_tree(2, 1, end=None)
    found = kl_term_gradient(tree, COIN, LEANING, term="k3", place="reward")
    exact = sequence_kl_gradient(tree, COIN, LEANING)
    return Counterexample(float(found[0]), float(exact[0]), 0.1, "k3 in the reward against ∇KL(π‖ref)")


def k04_future(*, seed: int = 0, examples: int = 20) -> Evidence:
    """∇KL less what per-token terms give, against E[Σ_t g_t Σ_{s>t} KL(o_<s)]; per-token terms against their part."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, ref, _ = draw_policies(rng)
        local = local_kl_gradient(tree, pi, ref)
        along = np.where(tree.scored, prefix_kl(tree, pi, ref)[tree.node], 0.0)
        later = along.sum(1, keepdims=True) - along.cumsum(1)
        missing = weighted_score(tree, pi, answer_probability(tree, pi)[:, None] * later)
        worst = max(worst, deviation(local + missing, sequence_kl_gradient(tree, pi, ref)))
        pairs: tuple[tuple[Term, Place], ...] = (("k2", "loss"), ("k3", "token_ratio"), ("k1", "own_reward"))
        for term, place in pairs:
            worst = max(worst, deviation(kl_term_gradient(tree, pi, ref, term=term, place=place), local))
        reverse = local_kl_gradient(tree, pi, ref, reverse=True)
        worst = max(worst, deviation(kl_term_gradient(tree, pi, ref, term="k3"), reverse))
    return Evidence(worst, ALGEBRA, f"∇KL of answers, its part per token and the rest over {examples} trees")


def k04_sequence(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Σ_t k1 and Σ_t k3 of the answer before the whole answer's ratio, in the loss, against ∇KL(π‖ref)."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, ref, beta = draw_policies(rng)
        exact = sequence_kl_gradient(tree, pi, ref)
        for term in ("k1", "k3"):
            for behaviour in (None, beta):
                place: Place = "sequence_ratio"
                found = kl_term_gradient(tree, pi, ref, term=term, place=place, behaviour=behaviour)
                worst = max(worst, deviation(found, exact))
    return Evidence(worst, ALGEBRA, f"sums of an answer before the answer's ratio over {examples} trees")


def k04_first_token() -> Counterexample:
    """A root that agrees with the reference, token 0 ends, after token 1 π = (.5, .5) and ref = (.9, .1).

    Per token the root's logits get 0; ∂KL/∂z_1 = ¼ KL(after 1) = 0.1277.
    """
    tree = token_tree(2, 2, end=0)
    pi, ref = np.concatenate([COIN, COIN]), np.concatenate([COIN, LEANING])
    found = kl_term_gradient(tree, pi, ref, term="k3", place="token_ratio")
    exact = sequence_kl_gradient(tree, pi, ref)
    return Counterexample(float(found[1]), float(exact[1]), 0.1, "ρk3 per token against ∇KL(π‖ref) of the answer")
