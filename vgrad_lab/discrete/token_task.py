"""Token trees with hidden token rewards: how to draw one, and the two on which the published figures were counted."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.token_tree import TokenTree, check_logits, token_tree


@dataclass(frozen=True)
class TokenTask:
    """A tree, a tabular policy, and a reward r(o_<t, o_t) for every token at every prefix.

    logits, token_reward: one row per open prefix, (N,V). Raises ValueError for arrays that don't fit or aren't finite.
    """

    tree: TokenTree
    logits: Float[ndarray, "N V"]
    token_reward: Float[ndarray, "N V"]

    def __post_init__(self) -> None:
        check_logits(self.tree, self.logits)
        if np.shape(self.token_reward) != self.tree.logits_shape or not np.all(np.isfinite(self.token_reward)):
            raise ValueError(
                f"token_reward has shape {np.shape(self.token_reward)}; give one finite number per prefix and token, "
                f"{self.tree.logits_shape}"
            )

    def reward(self, *, discount: float = 1.0) -> Float[ndarray, " B"]:
        """RM(o) = Σ_t γ^{t−1} r(o_<t, o_t), the response-level reward of every answer; γ in (0, 1]."""
        check_discount(discount)
        return np.asarray(along(self.tree, self.token_reward) @ discount ** np.arange(self.tree.horizon))


def check_discount(discount: float) -> None:
    """Raise ValueError unless 0 < γ ≤ 1."""
    if not 0 < discount <= 1:
        raise ValueError(f"discount must lie in (0, 1], got {discount}")


def along(tree: TokenTree, table: Float[ndarray, "N V"]) -> Float[ndarray, "B T"]:
    """Entries of a table over prefixes and tokens along each answer, 0 after its end."""
    return np.where(tree.scored, table[tree.node, tree.tokens], 0.0)


def draw_task(
    rng: np.random.Generator, *, vocab: int = 3, horizon: int = 3, end: int | None = None, scale: float = 0.8
) -> TokenTask:
    """A task with normal logits (standard deviation ``scale``) and standard normal token rewards, drawn in this order.

    Raises ValueError for a tree that can't be built.
    """
    tree = token_tree(vocab, horizon, end=end)
    return TokenTask(tree, scale * rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.logits_shape))


def fifteen_answers(*, first: float = 0.0) -> TokenTask:
    """Three tokens of which the last ends the answer, at most three of them: 15 answers, 21 logits, seed 1.

    first: added to the reward of every first token. Estimator and variance tables of the response-level note are on it.
    """
    task = draw_task(np.random.default_rng(1), vocab=3, horizon=3, end=2)
    offset = np.zeros(task.tree.logits_shape)
    offset[0] = first
    return TokenTask(task.tree, task.logits, task.token_reward + offset)


def sixteen_answers() -> TokenTask:
    """Two tokens, four of them in every answer, seed 3: the tree of the table of interpolated advantages."""
    return draw_task(np.random.default_rng(3), vocab=2, horizon=4)
