"""K05: the ratio of the whole answer."""

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.off_policy import importance_ratio
from vgrad_lab.discrete.token_tree import answer_probability, objective_gradient, response_score, token_tree
from vgrad_lab.experiments import verify_off_policy as checks


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.k05_sequence(seed=seed, examples=1).passed


def test_answers_that_are_never_drawn_break_it() -> None:
    """β drawn with top-k: its less likely answers never come, the others more often; the ratio of both kinds."""
    tree = token_tree(3, 3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pi, beta = rng.standard_normal((2, *tree.logits_shape))
        reward, drawn = rng.standard_normal(tree.size), answer_probability(tree, beta)
        kept = drawn >= np.sort(drawn)[5]
        exact = objective_gradient(tree, pi, reward)
        for share in (1.0, drawn[kept].sum()):
            ratio = importance_ratio(tree, pi, beta)[:, 0] * share
            found = np.where(kept, drawn / drawn[kept].sum() * ratio * reward, 0.0) @ response_score(tree, pi)
            assert np.abs(found - exact).max() > 1e-3
