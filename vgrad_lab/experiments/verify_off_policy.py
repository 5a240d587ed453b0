"""Evidence and counterexamples for importance ratios and clipping (K05–K08); NumPy only."""

import numpy as np
from numpy import ndarray

from vgrad_lab.discrete.off_policy import Clip, Ratio, importance_ratio, kept, off_policy_gradient
from vgrad_lab.discrete.token_tree import (
    action_value,
    answer_probability,
    log_policy,
    objective_gradient,
    prefix_probability,
    reward_of,
    token_score,
    token_tree,
)
from vgrad_lab.experiments.verify_estimators import deviation
from vgrad_lab.experiments.verify_kl import draw_policies
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA


def k05_sequence(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E_β[ρ A Σ_t g_t] with the whole answer's ratio against ∇J, for two constant baselines."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, _, beta = draw_policies(rng)
        reward = rng.standard_normal(tree.size)
        for baseline in (0.0, float(answer_probability(tree, beta) @ reward)):
            found = off_policy_gradient(tree, pi, beta, reward - baseline, ratio="sequence")
            worst = max(worst, deviation(found, objective_gradient(tree, pi, reward)))
    return Evidence(worst, ALGEBRA, f"the sequence ratio against ∇J over {examples} trees")


def k06_parts(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Ratios of the token alone, up to it and from it on against Σ P(prefix) Σ_v π g Q with P and Q of β or π."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, _, beta = draw_policies(rng)
        reward, p = rng.standard_normal(tree.size), np.exp(log_policy(tree, pi))
        of: dict[Ratio, tuple[ndarray, ndarray]] = {"token": (beta, beta), "prefix": (pi, beta), "suffix": (beta, pi)}
        for ratio, (visits, follows) in of.items():
            q = action_value(tree, follows, reward)
            rows = prefix_probability(tree, visits)[:, None] * p * (q - (p * q).sum(1, keepdims=True))
            found = off_policy_gradient(tree, pi, beta, reward, ratio=ratio)
            worst = max(worst, deviation(found, rows.ravel()))
    return Evidence(worst, ALGEBRA, f"what partial ratios estimate over {examples} trees")


def k06_stale_future() -> Counterexample:
    """Token 0 ends, 1 pays if another 1 follows; π = β but after 1: π(1) = .8, β(1) = .5.

    ∂J/∂z_1 at the root is ¼·0.8 = 0.2; with the token's ratio ¼·0.5 = 0.125.
    """
    tree = token_tree(2, 2, end=0)
    pi, beta = np.log(np.array([[0.5, 0.5], [0.2, 0.8]])), np.log(np.full((2, 2), 0.5))
    reward = reward_of(tree, lambda answer: float(answer == (1, 1)))
    found, exact = off_policy_gradient(tree, pi, beta, reward), objective_gradient(tree, pi, reward)
    return Counterexample(float(found[1]), float(exact[1]), 0.05, "the token's ratio against ∇J at the first token")


def k07_constant_reward() -> Counterexample:
    """Two tokens an answer, reward 1 for all, β even, π(1) = .8 throughout: the geometric ratio gives −0.06.

    ∂J/∂z = 0, while E_β[√(ρ_1 ρ_2)] falls as π leaves β.
    """
    tree = token_tree(2, 2, end=None)
    pi, beta = np.tile(np.log(np.array([[0.2, 0.8]])), (3, 1)), np.zeros((3, 2))
    found = off_policy_gradient(tree, pi, beta, np.ones(4), ratio="geometric")
    return Counterexample(float(found[1]), 0.0, 0.05, "the geometric ratio against ∇J for a constant reward")


def k08_left_out(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The clipped direction plus the tokens that clipping leaves out, against the unclipped one; inert at π = β."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        tree, pi, _, beta = draw_policies(rng)
        advantage = rng.standard_normal(tree.size)
        clip = Clip(float(rng.uniform(0, 0.5)), float(rng.uniform(0, 0.5)))
        rho = importance_ratio(tree, pi, beta, "token")
        per_token = np.where(tree.scored, advantage[:, None], 0.0)
        out = (rho * per_token > np.clip(rho, 1 - clip.low, 1 + clip.high) * per_token) & tree.scored
        probability = answer_probability(tree, beta)
        removed = np.einsum("b,bt,btp->p", probability, rho * per_token * out, token_score(tree, pi))
        clipped = off_policy_gradient(tree, pi, beta, advantage, clip=clip)
        worst = max(worst, deviation(clipped + removed, off_policy_gradient(tree, pi, beta, advantage)))
        worst = max(worst, float(np.any((kept(rho, per_token, clip) == out) & tree.scored)))
        still = off_policy_gradient(tree, pi, pi, advantage, clip=clip)
        worst = max(worst, deviation(still, objective_gradient(tree, pi, advantage)))
    return Evidence(worst, ALGEBRA, f"what clipping leaves out over {examples} trees")


def k08_bandit() -> Counterexample:
    """One of two tokens pays, β(1) = .5, π(1) = .7, advantage ±½, bounds 0.2: the clipped direction is 0, ∂J = 0.21."""
    tree = token_tree(2, 1, end=None)
    pi, beta = np.log(np.array([[0.3, 0.7]])), np.zeros((1, 2))
    found = off_policy_gradient(tree, pi, beta, np.array([-0.5, 0.5]), clip=Clip())
    exact = objective_gradient(tree, pi, np.array([0.0, 1.0]))
    return Counterexample(float(found[1]), float(exact[1]), 0.1, "the clipped token ratio against ∇J")
