"""Token trees: every answer of an autoregressive policy, so that objective, scores and values are finite sums.

A policy is one row of logits per open prefix (a tabular softmax); ``linear_logits`` and ``pull_back`` share parameters
between rows. The token that ends an answer is an action like any other, and it is scored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

MOST_ANSWERS = 200_000
"""Largest number of answers of a tree."""
MOST_NUMBERS = 20_000_000
"""Largest number of entries of one array of scores (160 MB of float64)."""


@dataclass(frozen=True)
class TokenTree:
    """Every answer of at most T tokens over V tokens, in lexicographic order.

    end: the token that closes an answer, itself drawn and scored; None: all answers have T tokens.
    tokens: after the end filled with ``end``. scored: True where a token was drawn. node: the row of the logits (the
    prefix) at which each token was drawn, 0 where none was. prefixes: the N prefixes that are still open, in order of
    length and then lexicographic; the first is (). Made by ``token_tree``. Raises ValueError for arrays that don't fit.
    """

    vocab: int
    horizon: int
    end: int | None
    tokens: Int[ndarray, "B T"]
    scored: Bool[ndarray, "B T"]
    node: Int[ndarray, "B T"]
    prefixes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        expected = (len(self.tokens), self.horizon)
        for name in ("tokens", "scored", "node"):
            found = np.shape(getattr(self, name))
            if found != expected:
                raise ValueError(f"{name} has shape {found}, expected (B, T) = {expected}: pad ragged answers with end")
        if np.any(self.scored[:, 1:] & ~self.scored[:, :-1]) or not np.all(self.scored[:, 0]):
            raise ValueError("scored must be True from the first token on and False only after the last one")

    @property
    def size(self) -> int:
        """Number of answers B."""
        return len(self.tokens)

    @property
    def length(self) -> Int[ndarray, " B"]:
        """Number of drawn tokens |o| of each answer, the end among them."""
        return np.asarray(self.scored.sum(1))

    @property
    def logits_shape(self) -> tuple[int, int]:
        """(N, V), the shape of a policy's logits."""
        return len(self.prefixes), self.vocab

    @property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        """Each answer as the tuple of its drawn tokens."""
        return tuple(tuple(row[:n].tolist()) for row, n in zip(self.tokens, self.length, strict=True))


def token_tree(vocab: int, horizon: int, *, end: int | None = 0) -> TokenTree:
    """The tree of all answers of at most ``horizon`` tokens.

    B = Σ_{t<T} k^{t−1} + k^{T−1} V answers and N = Σ_{t≤T} k^{t−1} prefixes, k = V − 1 (V without an end token).

    Raises ValueError for fewer than 2 tokens, no time step, an end outside the vocabulary, more than MOST_ANSWERS.
    """
    if vocab < 2 or horizon < 1:
        raise ValueError(f"a token tree needs vocab ≥ 2 and horizon ≥ 1, got vocab {vocab} and horizon {horizon}")
    if end is not None and not 0 <= end < vocab:
        raise ValueError(f"end is {end}; give a token in 0 … {vocab - 1}, or None for answers of one length")
    k = vocab if end is None else vocab - 1
    longest = k ** min(horizon - 1, 99) if k > 1 else 1
    ended = 0 if end is None else (longest - 1) // (k - 1) if k > 1 else horizon - 1
    count = longest * vocab + ended
    if count > MOST_ANSWERS or count * horizon > MOST_NUMBERS:
        raise ValueError(
            f"vocab {vocab} and horizon {horizon} make {count:.15g} answers, more than {MOST_ANSWERS} or too long to "
            "list; give a smaller vocabulary or a shorter horizon"
        )
    going = np.array([v for v in range(vocab) if v != end])
    levels = [np.zeros((1, 0), dtype=np.int64)]
    for _ in range(horizon - 1):
        levels.append(np.column_stack([np.repeat(levels[-1], k, axis=0), np.tile(going, len(levels[-1]))]))
    start = np.cumsum([0, *(len(level) for level in levels)])
    tokens, node, drawn = [], [], []
    for t, level in enumerate(levels):
        last = np.array([v for v in range(vocab) if t == horizon - 1 or v == end], dtype=np.int64)
        row = np.repeat(np.arange(len(level)), len(last))
        padded, place = np.full((len(row), horizon), 0 if end is None else end), np.zeros((len(row), horizon), int)
        padded[:, : t + 1] = np.column_stack([level[row], np.tile(last, len(level))])
        for s in range(t + 1):
            place[:, s] = start[s] + row // k ** (t - s)
        tokens.append(padded)
        node.append(place)
        drawn.append(np.tile(np.arange(horizon) <= t, (len(row), 1)))
    order = np.lexsort(np.concatenate(tokens).T[::-1])
    rows, scored, nodes = (np.concatenate(parts)[order] for parts in (tokens, drawn, node))
    prefixes = tuple(tuple(p) for level in levels for p in level.tolist())
    return TokenTree(vocab, horizon, end, rows, scored, nodes, prefixes)


def reward_of(tree: TokenTree, rule: Callable[[tuple[int, ...]], float]) -> Float[ndarray, " B"]:
    """Reward of every answer by a rule on its drawn tokens; raises ValueError for a non-finite one."""
    return check_reward(tree, np.array([float(rule(answer)) for answer in tree.answers]))


def check_logits(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, "N V"]:
    """Return the logits, or raise ValueError unless they are finite with one row per open prefix."""
    if np.shape(logits) != tree.logits_shape:
        raise ValueError(f"logits have shape {np.shape(logits)}; give one row per open prefix, {tree.logits_shape}")
    if not np.all(np.isfinite(logits)):
        raise ValueError("logits hold NaN or infinite values; give finite ones (say −1e4 for 'never')")
    return logits


def check_reward(tree: TokenTree, reward: Float[ndarray, " B"], *, name: str = "reward") -> Float[ndarray, " B"]:
    """Return the reward, or raise ValueError unless it is finite with one number per answer."""
    if np.shape(reward) != (tree.size,):
        raise ValueError(f"{name} has shape {np.shape(reward)}; give one number per answer, ({tree.size},)")
    if not np.all(np.isfinite(reward)):
        raise ValueError(f"{name} holds NaN or infinite values; give finite numbers")
    return reward


def check_per_token(tree: TokenTree, weight: Float[ndarray, "B T"], *, name: str) -> Float[ndarray, "B T"]:
    """Return the numbers per token, or raise ValueError unless they are finite and zero after an answer's end."""
    if np.shape(weight) != tree.tokens.shape:
        raise ValueError(f"{name} has shape {np.shape(weight)}; give one number per token, {tree.tokens.shape}")
    if not np.all(np.isfinite(weight)):
        raise ValueError(f"{name} holds NaN or infinite values; give finite numbers")
    if np.any(weight[~tree.scored] != 0):
        raise ValueError(f"{name} is not zero after the end of an answer; answers differ in length, multiply by scored")
    return weight


def log_policy(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, "N V"]:
    """log π(v | prefix), the log-softmax of each row; its relative error is small even where π is all but 1."""
    shifted = check_logits(tree, logits).astype(float) - logits.max(1, keepdims=True)
    others = np.exp(shifted)
    others[np.arange(len(logits)), logits.argmax(1)] = 0.0
    return np.asarray(shifted - np.log1p(others.sum(1, keepdims=True)))


def token_logprob(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, "B T"]:
    """ℓ_t = log π(o_t | o_<t) of every answer's tokens, nats; 0 where nothing was drawn.

    logits: (N,V). Raises ValueError for logits that don't fit or are not finite.
    """
    return np.where(tree.scored, log_policy(tree, logits)[tree.node, tree.tokens], 0.0)


def answer_probability(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, " B"]:
    """π(o) = Π_t π(o_t | o_<t) of every answer; they sum to 1."""
    return np.asarray(np.exp(token_logprob(tree, logits).sum(1)))


def prefix_probability(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, " N"]:
    """Probability that an answer runs through each open prefix; 1 at the root."""
    before = np.cumsum(np.column_stack([np.zeros(tree.size), token_logprob(tree, logits)[:, :-1]]), axis=1)
    found = np.zeros(len(tree.prefixes))
    found[tree.node[tree.scored]] = np.exp(before[tree.scored])
    return found


def _check_size(tree: TokenTree, rows: int, what: str) -> None:
    count = rows * tree.vocab * len(tree.prefixes)
    if count > MOST_NUMBERS:
        raise ValueError(
            f"{what} would hold {count} numbers, more than {MOST_NUMBERS}; give a smaller tree, or a weighted sum of "
            "scores (weighted_score), which needs only one row"
        )


def token_score(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, "B T P"]:
    """Score of each token with respect to the logits, flattened to P = N·V.

    g_t = ∂ log π(o_t | o_<t)/∂z = e(o_t) − π(·|o_<t) in the row of the prefix, 0 in other rows and after the end.

    Raises ValueError for bad logits and for more than MOST_NUMBERS entries.
    """
    _check_size(tree, tree.size * tree.horizon, "token_score")
    score = np.zeros((*tree.tokens.shape, *tree.logits_shape))
    b, t = np.nonzero(tree.scored)
    row = tree.node[b, t]
    logprob = log_policy(tree, logits)[row]
    score[b, t, row] = -np.exp(logprob)
    score[b, t, row, tree.tokens[b, t]] = -np.expm1(logprob[np.arange(len(b)), tree.tokens[b, t]])  # 1 − π
    return score.reshape(*tree.tokens.shape, -1)


def weighted_response_score(
    tree: TokenTree, logits: Float[ndarray, "N V"], weight: Float[ndarray, "B T"]
) -> Float[ndarray, "B P"]:
    """Σ_t w_t g_t per answer: the direction that per-token advantages w give; w counts for nothing after the end.

    Raises ValueError for bad logits, a weight of another shape and for more than MOST_NUMBERS entries.
    """
    _check_size(tree, tree.size, "a response score")
    if np.shape(weight) != tree.tokens.shape:
        raise ValueError(f"weight has shape {np.shape(weight)}; give one number per token, {tree.tokens.shape}")
    score = np.zeros((tree.size, *tree.logits_shape))
    b, t = np.nonzero(tree.scored)  # an answer passes each prefix at most once, so no entry is written twice
    row = tree.node[b, t]
    logprob = log_policy(tree, logits)[row]
    score[b, row] = -np.exp(logprob) * weight[b, t, None]
    score[b, row, tree.tokens[b, t]] = -np.expm1(logprob[np.arange(len(b)), tree.tokens[b, t]]) * weight[b, t]
    return score.reshape(tree.size, -1)


def response_score(tree: TokenTree, logits: Float[ndarray, "N V"]) -> Float[ndarray, "B P"]:
    """Score of each answer, ∂ log π(o)/∂z = Σ_t g_t; its mean under the policy is zero."""
    return weighted_response_score(tree, logits, np.ones(tree.tokens.shape))


def weighted_score(
    tree: TokenTree, logits: Float[ndarray, "N V"], weight: Float[ndarray, "B T"]
) -> Float[ndarray, " P"]:
    """Σ_b Σ_t w_{b,t} g_{b,t} without an array of scores; with w = π(o) Â_t it is the mean direction.

    Raises ValueError for bad logits and a weight of another shape.
    """
    if np.shape(weight) != tree.tokens.shape:
        raise ValueError(f"weight has shape {np.shape(weight)}; give one number per token, {tree.tokens.shape}")
    cell = tree.node[tree.scored] * tree.vocab + tree.tokens[tree.scored]
    taken = np.bincount(cell, weight[tree.scored], minlength=len(tree.prefixes) * tree.vocab)
    taken = taken.reshape(tree.logits_shape)
    return np.asarray((taken - taken.sum(1, keepdims=True) * np.exp(log_policy(tree, logits))).ravel())


def _values(tree: TokenTree, logits: ndarray, reward: ndarray) -> tuple[ndarray, ndarray, float]:
    """π, Q less the reward of the likeliest answer, and that reward: sure answers and far rewards cost no digits."""
    base = float(check_reward(tree, reward)[token_logprob(tree, logits).sum(1).argmax()])
    policy, after, table = np.exp(log_policy(tree, logits)), reward.astype(float) - base, np.zeros(tree.logits_shape)
    for t in reversed(range(tree.horizon)):
        b = np.flatnonzero(tree.scored[:, t])
        table[tree.node[b, t], tree.tokens[b, t]] = after[b]
        after[b] = (policy * table).sum(1)[tree.node[b, t]]
    return policy, table, base


def action_value(tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]) -> Float[ndarray, "N V"]:
    """Q(prefix, v) = E[R | prefix, v], by recursion from the leaves: no division by a probability.

    reward: one number per answer. Raises ValueError for logits or rewards that don't fit or are not finite.
    """
    _, table, base = _values(tree, logits, reward)
    return table + base


def conditional_value(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]
) -> Float[ndarray, "B T1"]:
    """E[R | o_<t] at each node along each answer; the last one, and all after the end, are R. Raises the same."""
    policy, table, base = _values(tree, logits, reward)
    state = (policy * table).sum(1) + base
    return np.column_stack([np.where(tree.scored, state[tree.node], reward[:, None]), reward])


def objective(tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]) -> float:
    """J = E[R] = Σ_o π(o) R(o)."""
    return float(answer_probability(tree, logits) @ check_reward(tree, reward))


def objective_gradient(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]
) -> Float[ndarray, " P"]:
    """∇J with respect to the logits, exact, from the recursion of the values and so without any score.

    ∂J/∂z(prefix, v) = P(prefix) π(v|prefix) (Q(prefix, v) − V(prefix)), flattened to P = N·V. Raises the same.
    """
    policy, q, _ = _values(tree, logits, reward)
    reach = prefix_probability(tree, logits)[:, None]
    q = q - np.take_along_axis(q, logits.argmax(1)[:, None], 1)  # keeps digits where one π is near 1
    return np.asarray((reach * policy * (q - (policy * q).sum(1, keepdims=True))).ravel())


def linear_logits(features: Float[ndarray, "N V P"], weight: Float[ndarray, " P"]) -> Float[ndarray, "N V"]:
    """z(prefix, v) = φ(prefix, v)·θ: a policy whose prefixes share the parameters θ."""
    return np.asarray(features @ weight)


def pull_back(features: Float[ndarray, "N V P"], gradient: Float[ndarray, "*B NV"]) -> Float[ndarray, "*B P"]:
    """Chain rule of ``linear_logits``: from ∂/∂z, flattened, to ∂/∂θ, over any leading axes.

    Raises ValueError unless the gradient's last axis is N·V.
    """
    count = features.shape[0] * features.shape[1]
    if gradient.shape[-1] != count:
        raise ValueError(f"gradient has {gradient.shape[-1]} logits in its last axis, expected N·V = {count}")
    return np.asarray(gradient @ features.reshape(count, -1))
