"""Policy gradients from response-level rewards (arXiv 2506.02553), exactly on a token tree.

A form of the gradient is a weight per token: E Σ_t w_t ∇log π(o_t|o_<t) is its mean direction. Weights are zero after
the end of an answer.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.token_task import along, check_discount
from vgrad_lab.discrete.token_tree import (
    TokenTree,
    answer_probability,
    check_per_token,
    check_reward,
    conditional_value,
    log_policy,
    pull_back,
    weighted_response_score,
    weighted_score,
)


def mean_direction(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    weight: Float[ndarray, "B T"],
    *,
    sampler: Float[ndarray, " B"] | None = None,
) -> Float[ndarray, " P"]:
    """E Σ_t w_t g_t with respect to the logits, g_t = ∇log π(o_t|o_<t).

    sampler: probability of each answer under the policy that draws them; the differentiated one itself by default.
    Raises ValueError for weights that don't fit or aren't zero after the end and a sampler that is no distribution.
    """
    check_per_token(tree, weight, name="weight")
    if sampler is None:
        chance = answer_probability(tree, logits)
    else:
        chance = check_reward(tree, sampler, name="sampler")
        if chance.min() < 0 or abs(chance.sum() - 1) > 1e-9:
            raise ValueError(f"sampler sums to {chance.sum():.6g}; give the probability of every answer")
    return weighted_score(tree, logits, chance[:, None] * weight)


def direction_variance(
    tree: TokenTree,
    logits: Float[ndarray, "N V"],
    weight: Float[ndarray, "B T"],
    *,
    features: Float[ndarray, "N V P"] | None = None,
) -> float:
    """Trace of the covariance of Σ_t w_t g_t for one answer, E‖Σ_t w_t g_t‖² − ‖E Σ_t w_t g_t‖².

    features: of ``linear_logits``, for parameters that prefixes share; the logits themselves by default.
    """
    check_per_token(tree, weight, name="weight")
    chance = answer_probability(tree, logits)
    direction = weighted_response_score(tree, logits, weight)
    if features is not None:
        direction = pull_back(features, direction)
    mean = chance @ direction
    return float(chance @ ((direction - mean) ** 2).sum(1))


def token_values(
    tree: TokenTree, logits: Float[ndarray, "N V"], token_reward: Float[ndarray, "N V"], *, discount: float = 1.0
) -> tuple[Float[ndarray, "B T"], Float[ndarray, "B T"]]:
    """V(o_<t) and Q(o_<t, o_t) of token rewards along each answer, by Bellman's recursion; 0 after the end.

    Q(o_<t, v) = r(o_<t, v) + γ V(o_<t, v), V = Σ_v π(v) Q, and V = 0 once an answer is over.

    token_reward: one row per open prefix. Raises ValueError for γ outside (0, 1] or logits that don't fit. Ledger: R01.
    """
    check_discount(discount)
    policy, q = np.exp(log_policy(tree, logits)), token_reward.astype(float)
    for t in reversed(range(tree.horizon - 1)):
        on = np.flatnonzero(tree.scored[:, t + 1])
        here, token, child = tree.node[on, t], tree.tokens[on, t], tree.node[on, t + 1]
        q[here, token] = token_reward[here, token] + discount * (policy * q).sum(1)[child]
    value = (policy * q).sum(1)[tree.node]
    return np.where(tree.scored, value, 0.0), np.where(tree.scored, q[tree.node, tree.tokens], 0.0)


def lemma_1_weight(
    tree: TokenTree, logits: Float[ndarray, "N V"], token_reward: Float[ndarray, "N V"], *, discount: float = 1.0
) -> Float[ndarray, "B T"]:
    """Weights of Lemma 1, γ^{t−1} Q(o_<t, o_t); its objective is E Σ_t γ^{t−1} r_t. Ledger: R01."""
    return token_values(tree, logits, token_reward, discount=discount)[1] * discount ** np.arange(tree.horizon)


def theorem_1_weight(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]
) -> Float[ndarray, "B T"]:
    """Weights of Theorem 1 (eq. 21), E[RM | o_≤t]: nothing but the response-level reward. Ledger: R03."""
    return np.where(tree.scored, conditional_value(tree, logits, reward)[:, 1:], 0.0)


def equation_26_weight(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"], *, discount: float
) -> Float[ndarray, "B T"]:
    """Weights of eq. 26, γ^{−(t−1)} E[RM | o_≤t]: larger for later tokens. Ledger: R04."""
    check_discount(discount)
    return theorem_1_weight(tree, logits, reward) * discount ** -np.arange(tree.horizon, dtype=float)


def theorem_2_advantage(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]
) -> Float[ndarray, "B T"]:
    """Advantages of Theorem 2 (eq. 28), A_t = E[RM | o_≤t] − E[RM | o_<t]. Ledger: R05.

    reward: one number per answer. Raises ValueError for logits or rewards that don't fit or are not finite.
    """
    return np.where(tree.scored, np.diff(conditional_value(tree, logits, reward), axis=1), 0.0)


def response_advantage(
    tree: TokenTree, reward: Float[ndarray, " B"], *, baseline: float | Float[ndarray, "B T"] = 0.0
) -> Float[ndarray, "B T"]:
    """RM − b on every drawn token; b one number, or one per token (of the prefix alone, or it biases). Ledger: R03."""
    return np.where(tree.scored, check_reward(tree, reward)[:, None] - baseline, 0.0)


def value_baseline_advantage(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]
) -> Float[ndarray, "B T"]:
    """RM − E[RM | o_<t]: Theorem 2 with one sample in the place of its first mean. Ledger: R06.hidden."""
    return response_advantage(tree, reward, baseline=conditional_value(tree, logits, reward)[:, :-1])


def own_sample_advantage(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"], *, rollouts: int
) -> Float[ndarray, "B T"]:
    """Mean advantage given the answer, if a baseline of K rollouts counts the answer itself as one of them.

    RM − (RM + (K−1) E[RM|o_<t])/K = (1 − 1/K)(RM − E[RM|o_<t]). Raises ValueError for K < 1. Ledger: R08.rollouts.
    """
    if rollouts < 1:
        raise ValueError(f"rollouts is {rollouts}; give at least 1")
    return value_baseline_advantage(tree, logits, reward) * (1 - 1 / rollouts)


def best_baseline(
    tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"]
) -> Float[ndarray, "B T"]:
    """The baseline that makes each token's own second moment smallest; 0 after the end. Ledger: R05.optimal.

    b*_t = E[‖g_t‖² RM | o_<t] / E[‖g_t‖² | o_<t], g_t with respect to the logits; V(o_<t) where nothing can be drawn
    but one token. Raises ValueError for logits or rewards that don't fit or are not finite.
    """
    policy = np.exp(log_policy(tree, logits))
    after = np.zeros(tree.logits_shape)
    after[tree.node[tree.scored], tree.tokens[tree.scored]] = theorem_1_weight(tree, logits, reward)[tree.scored]
    share = policy * _score_square(policy)
    mass = share.sum(1)
    found = np.where(mass > 0, (share * after).sum(1) / np.where(mass > 0, mass, 1.0), (policy * after).sum(1))
    return np.where(tree.scored, found[tree.node], 0.0)


def _score_square(policy: Float[ndarray, "N V"]) -> Float[ndarray, "N V"]:
    """‖e(v) − π‖² of each token, from the probabilities of the others: exact however near 1 one of them is."""
    others = 1 - np.eye(policy.shape[1])
    return np.asarray((policy @ others) ** 2 + policy**2 @ others)


def token_second_moment(
    tree: TokenTree, logits: Float[ndarray, "N V"], weight: Float[ndarray, "B T"]
) -> Float[ndarray, " T"]:
    """E[w_t² ‖g_t‖²] of each token; their sum is the second moment of the whole where prefixes share no parameters."""
    check_per_token(tree, weight, name="weight")
    square = along(tree, _score_square(np.exp(log_policy(tree, logits))))
    return np.asarray(answer_probability(tree, logits) @ (weight**2 * square))


def top_k_probability(tree: TokenTree, logits: Float[ndarray, "N V"], *, k: int) -> Float[ndarray, " B"]:
    """Probability of each answer when only the k likeliest tokens of every prefix are drawn, renormalised.

    Ties go to the smaller token. Raises ValueError unless 1 ≤ k ≤ V. Ledger: R03.
    """
    if not 1 <= k <= tree.vocab:
        raise ValueError(f"k is {k}; give a number of tokens between 1 and V = {tree.vocab}")
    policy = np.exp(log_policy(tree, logits))
    kept = np.zeros(tree.logits_shape)
    np.put_along_axis(kept, np.argsort(-logits, axis=1, kind="stable")[:, :k], 1.0, axis=1)
    kept = kept * policy / (kept * policy).sum(1, keepdims=True)
    return np.asarray(np.where(tree.scored, kept[tree.node, tree.tokens], 1.0).prod(1))
