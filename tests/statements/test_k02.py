"""K02: KL terms in the loss at one prefix."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.kl import kl_term_gradient, local_kl_gradient
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.experiments import verify_kl as checks
from vgrad_lab.tolerances import ALGEBRA

TREE = token_tree(4, 1, end=None)


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@given(strategies.seeds())
def test_table(seed: int) -> None:
    assert checks.k02_table(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_ratio(seed: int) -> None:
    assert checks.k02_ratio(seed=seed, examples=1).passed


def test_k3_pulls_towards_the_other_divergence() -> None:
    found = checks.k02_third()
    assert found.refutes
    assert found.claimed == pytest.approx(-0.4, abs=ALGEBRA)
    assert found.true == pytest.approx(np.log(1 / 9) / 4, abs=ALGEBRA)
    errors = []
    for seed in range(200):
        pi, ref = np.random.default_rng(seed).standard_normal((2, *TREE.logits_shape))
        errors.append(relative(kl_term_gradient(TREE, pi, ref, term="k3"), local_kl_gradient(TREE, pi, ref)))
    assert 0.2 < np.median(errors) < 1


def test_near_the_reference_the_two_agree() -> None:
    pi, away = np.random.default_rng(0).standard_normal((2, *TREE.logits_shape))
    errors = [
        relative(kl_term_gradient(TREE, pi, pi + h * away, term="k3"), local_kl_gradient(TREE, pi, pi + h * away))
        for h in (0.1, 0.01)
    ]
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.3)


def test_tokens_of_another_policy_break_the_table() -> None:
    for seed in range(20):
        pi, ref, beta = np.random.default_rng(seed).standard_normal((3, *TREE.logits_shape))
        forward, reverse = (local_kl_gradient(TREE, pi, ref, reverse=r) for r in (False, True))
        for term, expected in (("k1", 0 * forward), ("k2", forward), ("k3", reverse)):
            found = kl_term_gradient(TREE, pi, ref, term=term, behaviour=beta)
            assert np.abs(found - expected).max() > 0.01


def test_ratio_does_not_help_k2() -> None:
    for seed in range(20):
        pi, ref = np.random.default_rng(seed).standard_normal((2, *TREE.logits_shape))
        found = kl_term_gradient(TREE, pi, ref, term="k2", place="token_ratio")
        assert np.abs(found - local_kl_gradient(TREE, pi, ref)).max() > 0.003
