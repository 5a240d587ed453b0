"""K08: what clipping leaves out."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.estimator_types import reference_problem
from vgrad_lab.discrete.off_policy import Clip, importance_ratio, kept, off_policy_gradient, truncated_gradient
from vgrad_lab.discrete.token_tree import answer_probability, objective, objective_gradient
from vgrad_lab.experiments import verify_off_policy as checks
from vgrad_lab.tolerances import ALGEBRA


@given(strategies.seeds())
def test_left_out(seed: int) -> None:
    assert checks.k08_left_out(seed=seed, examples=1).passed


def test_bandit() -> None:
    found = checks.k08_bandit()
    assert found.refutes
    assert [found.claimed, found.true] == pytest.approx([0, 0.21], abs=ALGEBRA)


def test_clipping_adds_bias() -> None:
    problem = reference_problem()
    tree, old, reward = problem.tree, problem.logits, problem.reward
    away, advantage = np.random.default_rng(7).standard_normal(old.shape), reward - objective(tree, old, reward)
    for size, free, clipped in ((0.2, 3.7, 5.3), (0.5, 9.8, 21.5)):
        pi = old + size * away
        exact = objective_gradient(tree, pi, reward)
        for clip, expected in ((None, free), (Clip(), clipped)):
            error = np.linalg.norm(off_policy_gradient(tree, pi, old, advantage, clip=clip) - exact)
            assert 100 * error / np.linalg.norm(exact) == pytest.approx(expected, abs=0.0501)


def test_clip_higher_keeps_more() -> None:
    """The share of β's tokens that still count: symmetric ≤ clip-higher ≤ all; CISPO leaves out none."""
    problem, more = reference_problem(), 0
    tree, old = problem.tree, problem.logits
    probability = answer_probability(tree, old)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pi, advantage = old + 0.5 * rng.standard_normal(old.shape), rng.standard_normal(tree.size)
        rho = importance_ratio(tree, pi, old, "token")
        per_token = np.where(tree.scored, advantage[:, None], 0.0)
        shares = [
            float(probability @ (kept(rho, per_token, clip) & tree.scored).sum(1))
            for clip in (Clip(0.2, 0.2), Clip(0.2, 0.28), None)
        ]
        assert shares[0] <= shares[1] <= shares[2]
        more += shares[0] < shares[1] < shares[2]
        most = float(rho.max())
        np.testing.assert_allclose(
            truncated_gradient(tree, pi, old, advantage, most=most), off_policy_gradient(tree, pi, old, advantage),
            rtol=0, atol=ALGEBRA,
        )  # fmt: skip
    assert more > 5
