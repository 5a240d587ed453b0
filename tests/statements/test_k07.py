"""K07: GSPO's geometric ratio."""

import numpy as np
import pytest

from vgrad_lab.discrete.estimator_types import reference_problem
from vgrad_lab.discrete.off_policy import off_policy_gradient
from vgrad_lab.discrete.token_tree import objective, objective_gradient, token_tree
from vgrad_lab.experiments import verify_off_policy as checks
from vgrad_lab.tolerances import ALGEBRA


def test_constant_reward() -> None:
    found = checks.k07_constant_reward()
    assert found.refutes
    assert found.claimed == pytest.approx(-0.06, abs=ALGEBRA)


def test_error_by_shift() -> None:
    """The note's cosines; with answers of one length there is no bend without a shift, and one with it."""
    problem = reference_problem()
    fixed = token_tree(3, 3, end=None)
    rng = np.random.default_rng(0)
    cases = [(problem.tree, problem.logits, problem.reward, (0.942, 0.941, 0.937, 0.929)),
             (fixed, rng.standard_normal(fixed.logits_shape), rng.standard_normal(fixed.size), None)]  # fmt: skip
    for tree, old, reward, expected in cases:
        away, cosines = np.random.default_rng(7).standard_normal(old.shape), []
        for size in (0.0, 0.05, 0.2, 0.5):
            exact = objective_gradient(tree, old + size * away, reward)
            advantage = reward - objective(tree, old, reward)
            found = off_policy_gradient(tree, old + size * away, old, advantage, ratio="geometric")
            cosines.append(float(found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)))
        if expected:
            assert cosines == pytest.approx(expected, abs=5.01e-4)
        else:
            assert cosines[0] == pytest.approx(1, abs=ALGEBRA)
            assert cosines[3] < 0.999
