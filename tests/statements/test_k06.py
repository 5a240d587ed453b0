"""K06: the ratio of a token alone."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.estimator_types import reference_problem
from vgrad_lab.discrete.off_policy import off_policy_gradient
from vgrad_lab.discrete.token_tree import objective, objective_gradient, token_tree
from vgrad_lab.experiments import verify_off_policy as checks
from vgrad_lab.tolerances import ALGEBRA


@given(strategies.seeds())
def test_parts(seed: int) -> None:
    assert checks.k06_parts(seed=seed, examples=1).passed


def test_one_token_or_no_shift_is_exact() -> None:
    for tree, shift in ((token_tree(4, 1, end=None), 1.0), (token_tree(3, 3), 0.0)):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            beta, away = rng.standard_normal((2, *tree.logits_shape))
            reward, pi = rng.standard_normal(tree.size), beta + shift * away
            found = off_policy_gradient(tree, pi, beta, reward)
            assert np.abs(found - objective_gradient(tree, pi, reward)).max() <= ALGEBRA


def test_error_by_shift() -> None:
    """The note's numbers, a shift drawn with seed 7."""
    found = checks.k06_stale_future()
    assert found.refutes
    assert [found.claimed, found.true] == pytest.approx([0.125, 0.2], abs=ALGEBRA)
    problem = reference_problem()
    tree, old, reward = problem.tree, problem.logits, problem.reward
    away, mean = np.random.default_rng(7).standard_normal(old.shape), objective(tree, old, reward)
    for size, token, none, raw in ((0.05, 0.9, 1.7, 2.4), (0.2, 3.7, 7.1, 9.9), (0.5, 9.8, 18.6, 25.4)):
        pi = old + size * away
        exact = objective_gradient(tree, pi, reward)
        rows = [(mean, "token", token), (0.0, "token", token), (mean, "none", none), (0.0, "none", raw)]
        for baseline, ratio, expected in rows:
            error = np.linalg.norm(off_policy_gradient(tree, pi, old, reward - baseline, ratio=ratio) - exact)
            assert 100 * error / np.linalg.norm(exact) == pytest.approx(expected, abs=0.0501)
