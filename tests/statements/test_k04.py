"""K04: KL terms over whole answers."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.kl import kl_term_gradient, local_kl_gradient, sequence_kl_gradient
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.experiments import verify_kl as checks
from vgrad_lab.tolerances import ALGEBRA

TREE = token_tree(3, 3)


@given(strategies.seeds())
def test_future(seed: int) -> None:
    assert checks.k04_future(seed=seed, examples=1).passed


@given(strategies.seeds())
def test_sequence(seed: int) -> None:
    assert checks.k04_sequence(seed=seed, examples=1).passed


def test_by_how_much() -> None:
    found = checks.k04_first_token()
    assert found.refutes
    assert found.claimed == pytest.approx(0, abs=ALGEBRA)
    assert found.true == pytest.approx(np.log(25 / 9) / 8, abs=ALGEBRA)
    errors = []
    for seed in range(200):
        pi, ref, _ = np.random.default_rng(seed).standard_normal((3, *TREE.logits_shape))
        exact = sequence_kl_gradient(TREE, pi, ref)
        found = kl_term_gradient(TREE, pi, ref, term="k3", place="token_ratio")
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
    assert [min(errors), np.median(errors), max(errors)] == pytest.approx([0.073, 0.415, 3.03], rel=0.01)


def test_answers_of_another_policy_break_it() -> None:
    for seed in range(20):
        pi, ref, beta = np.random.default_rng(seed).standard_normal((3, *TREE.logits_shape))
        found = kl_term_gradient(TREE, pi, ref, term="k3", place="token_ratio", behaviour=beta)
        assert np.abs(found - local_kl_gradient(TREE, pi, ref)).max() > 0.01


def test_the_geometric_ratio_does_not_do() -> None:
    for seed in range(20):
        pi, ref = np.random.default_rng(seed).standard_normal((2, *TREE.logits_shape))
        found = kl_term_gradient(TREE, pi, ref, term="k3", place="geometric_ratio")
        assert np.abs(found - sequence_kl_gradient(TREE, pi, ref)).max() > 0.01
