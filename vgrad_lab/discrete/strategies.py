"""Hypothesis strategies for token trees with a policy and a reward; needs Hypothesis.

A reader's own estimator against the exact gradient::

    @given(strategies.tree_cases())
    def test_estimator(case):
        mean = answer_probability(case.tree, case.logits) @ my_direction(case.tree, case.logits, case.reward)
        assert np.allclose(mean, objective_gradient(*case))

Everything shrinks: to two tokens, one step, logits of zero, rewards of zero.
"""

from typing import Any, NamedTuple

from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.token_tree import TokenTree, token_tree
from vgrad_lab.strategies import composite, grid_arrays, sampled_from, steady, tree_shapes


class TreeCase(NamedTuple):
    """A tree, the logits of a policy on it (N,V), and a reward per answer (B,)."""

    tree: TokenTree
    logits: Float[ndarray, "N V"]
    reward: Float[ndarray, " B"]


@composite
def tree_cases(
    draw: Any,
    *,
    max_vocab: int = 3,
    max_horizon: int = 3,
    max_answers: int = 30,
    binary: bool | None = None,
    bound: float = 3.0,
) -> TreeCase:
    """Small trees with logits in [−bound, bound] and rewards that are binary, real in [−2, 2], or either (None)."""
    shape = draw(tree_shapes(max_vocab=max_vocab, max_horizon=max_horizon, max_answers=max_answers))
    tree = steady(token_tree)(shape.vocab, shape.horizon, end=shape.end)
    logits = draw(grid_arrays((len(tree.prefixes), tree.vocab), bound=bound))
    reward = draw(grid_arrays(len(tree.tokens), bound=2.0))
    if draw(sampled_from([True, False])) if binary is None else binary:
        reward = (reward > 0).astype(float)
    return TreeCase(tree, logits, reward)
