"""K03: KL terms in the reward."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.kl import kl_term_gradient, local_kl_gradient, sequence_kl_gradient
from vgrad_lab.discrete.off_policy import log_ratio, off_policy_gradient
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.experiments import verify_kl as checks
from vgrad_lab.tolerances import ALGEBRA

TREE = token_tree(3, 3)


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.k03_reward(seed=seed, examples=1).passed


def test_the_tokens_own_ratio_breaks_it() -> None:
    for seed in range(20):
        pi, ref, beta = np.random.default_rng(seed).standard_normal((3, *TREE.logits_shape))
        penalty, exact = log_ratio(TREE, pi, ref, "token").sum(1), sequence_kl_gradient(TREE, pi, ref)
        assert np.abs(off_policy_gradient(TREE, pi, beta, penalty, ratio="sequence") - exact).max() <= 10 * ALGEBRA
        assert np.abs(off_policy_gradient(TREE, pi, beta, penalty, ratio="token") - exact).max() > 0.01


def test_a_stale_penalty_breaks_it() -> None:
    """log β/ref in the place of log π/ref: short of ∇KL(π‖ref) by ∇KL(π‖β)."""
    for seed in range(20):
        pi, ref, beta = np.random.default_rng(seed).standard_normal((3, *TREE.logits_shape))
        found = off_policy_gradient(TREE, pi, beta, log_ratio(TREE, beta, ref, "token").sum(1), ratio="sequence")
        short = sequence_kl_gradient(TREE, pi, ref) - found
        np.testing.assert_allclose(short, sequence_kl_gradient(TREE, pi, beta), rtol=0, atol=10 * ALGEBRA)
        assert np.abs(short).max() > 0.01


def test_k3_in_the_reward() -> None:
    found = checks.k03_third()
    assert found.refutes
    assert found.claimed == pytest.approx(np.log(1 / 9) / 4 + 0.4, abs=ALGEBRA)
    pi, away = np.random.default_rng(0).standard_normal((2, *TREE.logits_shape))
    one = token_tree(3, 1, end=None)
    ref = pi[:1] + 1e-3 * away[:1]
    small = kl_term_gradient(one, pi[:1], ref, term="k3", place="reward")
    assert np.linalg.norm(small) < 1e-2 * np.linalg.norm(local_kl_gradient(one, pi[:1], ref)), "near π = ref nothing"
