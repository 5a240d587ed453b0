"""K01: values of k1, k2, k3."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.kl import sequence_kl
from vgrad_lab.discrete.off_policy import log_ratio
from vgrad_lab.discrete.token_tree import answer_probability, token_tree
from vgrad_lab.experiments import verify_kl as checks
from vgrad_lab.tolerances import ALGEBRA


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.k01_values(seed=seed, examples=1).passed


def test_answers_of_another_policy_break_it() -> None:
    tree = token_tree(3, 3)
    for seed in range(20):
        pi, ref, beta = np.random.default_rng(seed).standard_normal((3, *tree.logits_shape))
        x, p = log_ratio(tree, pi, ref, "token"), answer_probability(tree, beta)
        exact = sequence_kl(tree, pi, ref)
        for terms in (x, np.exp(-x) - 1 + x):
            assert abs(p @ np.where(tree.scored, terms, 0.0).sum(1) - exact) > 1e-4


def test_k2() -> None:
    found = checks.k01_second()
    assert found.refutes
    assert found.claimed == pytest.approx((np.log(5 / 9) ** 2 + np.log(5) ** 2) / 4, abs=ALGEBRA)
    assert found.true == pytest.approx(np.log(25 / 9) / 2, abs=ALGEBRA)
