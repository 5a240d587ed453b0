"""What rewards alone say, from G independent answers a prompt, for any smaller group: hypergeometric U-statistics."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.group_estimate import Estimate, check_reward, is_binary, over_prompts, same_reward, undefined
from vgrad_lab.checkpoints.group_signal import GroupRule
from vgrad_lab.impact import binary_advantages

NOT_BINARY = "rewards other than 0 and 1"


def choose_share(count: Float[ndarray, "*Q"], total: int, size: int) -> Float[ndarray, "*Q"]:
    """C(count, size)/C(total, size): chance that ``size`` answers, drawn without return, are all among ``count``.

    Raises ValueError for a size outside 0 … total.
    """
    if not 0 <= size <= total:
        raise ValueError(f"cannot draw {size} of {total} answers")
    step = np.arange(size)
    return np.asarray(np.prod(np.maximum(count[..., None] - step, 0) / (total - step), axis=-1))


def reward_mean(reward: Float[ndarray, "Q G"]) -> Estimate:
    """E[R] over prompts and answers; for rewards 0 and 1 the success probability p."""
    return over_prompts(check_reward(reward).mean(1))


def reward_variance(reward: Float[ndarray, "Q G"]) -> Estimate:
    """E_q Var(R|q), p(1 − p) for rewards 0 and 1."""
    if check_reward(reward).shape[1] < 2:
        return undefined("needs 2 answers per prompt, got 1")
    return over_prompts(reward.var(1, ddof=1))


def pass_at_k(reward: Float[ndarray, "Q G"], k: int) -> Estimate:
    """Chance that one of k answers has reward 1, E_q[1 − (1 − p_q)^k], by 1 − C(G−s, k)/C(G, k) for s successes.

    Undefined for rewards other than 0 and 1 and for k > G. Raises ValueError for k < 1.
    """
    samples = check_reward(reward).shape[1]
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not is_binary(reward):
        return undefined(f"{NOT_BINARY}: no success to count")
    if k > samples:
        return undefined(f"needs {k} answers per prompt, got {samples}")
    return over_prompts(1 - choose_share(samples - reward.sum(1), samples, k))


def dead_share(reward: Float[ndarray, "Q G"], size: int) -> Estimate:
    """Share of groups of ``size`` whose rewards are all equal: Σ_r C(G_r, n)/C(G, n), G_r answers of reward r.

    Undefined for n > G. Ledger: S22.sampled.
    """
    samples = check_reward(reward).shape[1]
    if size > samples:
        return undefined(f"needs {size} answers per prompt, got {samples}")
    return over_prompts(choose_share(same_reward(reward), samples, size).sum(1))


def scale(reward: Float[ndarray, "Q G"], rule: GroupRule) -> Estimate:
    """E_q κ_n(p_q) for rewards 0 and 1 (``impact.grpo_scale``), a polynomial of degree n − 1 in p, without bias.

    Σ_k P(k of n−1 answers drawn without return succeed) [Â(1,k+1) − Â(0,k)]. Undefined for other rewards and for
    n − 1 > G. Ledger: S22.sampled.
    """
    samples, drawn = check_reward(reward).shape[1], rule.size - 1
    if not is_binary(reward):
        return undefined(f"{NOT_BINARY}: the expected update need not be a multiple of the gradient")
    if drawn > samples:
        return undefined(f"needs {drawn} answers per prompt, got {samples}")
    won, lost = binary_advantages(rule.size, rule.baseline, ddof=rule.ddof, eps=rule.eps)
    jump = won - lost
    return over_prompts(hypergeometric(reward.sum(1), samples, drawn) @ jump, exact=bool(np.ptp(jump) == 0))


def hypergeometric(count: Float[ndarray, " Q"], total: int, drawn: int) -> Float[ndarray, "Q K"]:
    """Chance that k = 0 … drawn of ``drawn`` answers, taken without return, are among the ``count`` of ``total``."""
    from scipy.stats import hypergeom

    return np.asarray(hypergeom.pmf(np.arange(drawn + 1), total, np.rint(count)[:, None].astype(int), drawn))
