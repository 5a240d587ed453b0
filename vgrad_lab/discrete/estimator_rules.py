"""The rules estimators are declared with: advantages of groups, numbers per token, aggregation over tokens."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab import advantage
from vgrad_lab.discrete import trepo
from vgrad_lab.discrete.estimator_types import Aggregation, Estimator, Options, Problem, SetRule
from vgrad_lab.discrete.token_tree import check_per_token, conditional_value
from vgrad_lab.discrete.trajectory_gradient import response_advantage

_WHITENING_EPS = 1e-8


def pair_advantage(reward: Float[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
    """Mean difference to the others of the group: the U-statistic's form of leave-one-out.

    Â_i = (1/(G−1)) Σ_{j≠i} (R_i − R_j), so that (1/G) Σ_i Â_i g_i = C(G,2)^{−1} Σ_{i<j} ½ (g_i − g_j)(R_i − R_j).

    Raises ValueError for G < 2 or non-finite rewards.
    """
    advantage.group_mean(reward)  # its checks
    return np.asarray((reward[:, :, None] - reward[:, None, :]).sum(2) / (reward.shape[1] - 1))


def group_advantage(estimator: Estimator, reward: Float[ndarray, "Q G"], options: Options) -> Float[ndarray, "Q G"]:
    """Advantage of each sample from the rewards of its group; 1 where the estimator has none."""
    if estimator.group is None:
        return np.ones(reward.shape)
    if estimator.group == "pairs":
        return pair_advantage(reward)
    if isinstance(estimator.group, str):
        above = reward - reward.min(1, keepdims=True)  # no group baseline sees a shift; rewards far from 0 keep digits
        return advantage.from_group(above, estimator.group, ddof=options.ddof, eps=options.eps)
    return np.asarray(estimator.group(reward, options))


def length_factor(aggregation: Aggregation, length: Int[ndarray, "Q G"], *, longest: int) -> Float[ndarray, "Q G"]:
    """Factor on the summed tokens of each sample: 1, 1/longest, 1/|o_i| or G/Σ_j |o_j|."""
    if aggregation == "sum":
        return np.ones(length.shape)
    if aggregation == "constant":
        return np.full(length.shape, 1 / longest)
    if aggregation == "sequence_mean":
        return 1 / length
    if aggregation == "token_mean":
        return np.broadcast_to(length.shape[1] / length.sum(1, keepdims=True), length.shape)
    raise ValueError(f"unknown aggregation {aggregation!r}; choose sum, constant, sequence_mean or token_mean")


def whiten(weight: Float[ndarray, "Q G T"], length: Int[ndarray, "Q G"]) -> Float[ndarray, "Q G T"]:
    """Centre and scale over all drawn tokens of a group, as PPO code does.

    (a − mean)/√(var + 1e-8), var with Bessel's correction; zero for a single token; zero after the end.
    """
    drawn = np.arange(weight.shape[2]) < length[:, :, None]
    count = length.sum(1)[:, None, None]
    centred = np.where(drawn, weight - weight.sum((1, 2), keepdims=True) / count, 0.0)
    variance = (centred**2).sum((1, 2), keepdims=True) / np.maximum(count - 1, 1)
    return np.asarray(centred / np.sqrt(variance + _WHITENING_EPS))


def constant_baseline(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """R − b, b = ``options.baseline``."""
    return response_advantage(problem.tree, problem.reward, baseline=float(options.baseline))


def expected_baseline(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """R − E[R]: what group baselines come to in a large group."""
    return response_advantage(problem.tree, problem.reward, baseline=float(problem.probability @ problem.reward))


def best_constant(problem: Problem) -> float:
    """The constant baseline of least variance, b* = E[‖g‖² R]/E[‖g‖²], g = Σ_t g_t; E[R] where g is always zero."""
    square = (problem.direction(1.0 * problem.tree.scored) ** 2).sum(1)
    mass = float(problem.probability @ square)
    weighted = float((problem.probability * square) @ problem.reward)
    return weighted / mass if mass > 0 else float(problem.probability @ problem.reward)


def best_constant_baseline(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """R − b*."""
    return response_advantage(problem.tree, problem.reward, baseline=best_constant(problem))


def greedy_answer(problem: Problem) -> int:
    """Row of the answer made of the likeliest token at each prefix; ties go to the smaller token."""
    best = problem.logits.argmax(1)
    follows = (problem.tree.tokens == best[problem.tree.node]) | ~problem.tree.scored
    return int(np.flatnonzero(follows.all(1))[0])


def greedy_baseline(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """R − R(greedy answer), ReMax."""
    return response_advantage(problem.tree, problem.reward, baseline=float(problem.reward[greedy_answer(problem)]))


def token_rewards(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """``options.token_reward``, or the whole reward at each answer's last token.

    Raises ValueError unless it fits the tree and sums to the reward of every answer.
    """
    tree = problem.tree
    if options.token_reward is None:
        last = np.arange(tree.horizon) == tree.length[:, None] - 1
        return np.where(last, problem.reward[:, None], 0.0)
    found = check_per_token(tree, options.token_reward, name="token_reward")
    if not np.allclose(found.sum(1), problem.reward, rtol=1e-9, atol=1e-9):
        raise ValueError("token_reward must sum to the reward of every answer; give rewards that are its parts")
    return found


def reward_to_go(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """G_t = Σ_{k≥t} r_k of token rewards, no baseline."""
    return np.where(problem.tree.scored, advantage.return_to_go(token_rewards(problem, options)), 0.0)


def critic(problem: Problem, options: Options) -> Float[ndarray, "B T1"]:
    """The exact value E[Σ_{k≥t} r_k | o_<t] plus ``options.critic_error`` at each prefix; 0 from the end on.

    Raises ValueError for an error of another shape or not finite.
    """
    tree, reward = problem.tree, token_rewards(problem, options)
    error = np.zeros(len(tree.prefixes)) if options.critic_error is None else options.critic_error
    if error.shape != (len(tree.prefixes),) or not np.all(np.isfinite(error)):
        raise ValueError(f"critic_error has shape {error.shape}; give a finite number per prefix, {len(tree.prefixes)}")
    past = np.cumsum(reward, axis=1) - reward
    value = conditional_value(tree, problem.logits, problem.reward)[:, :-1] - past + error[tree.node]
    return np.column_stack([np.where(tree.scored, value, 0.0), np.zeros(tree.size)])


def gae(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """GAE(λ) with the critic above, λ = ``options.decay``, γ = 1."""
    return advantage.gae(token_rewards(problem, options), critic(problem, options), decay=options.decay)


def vine_advantage(problem: Problem, options: Options) -> Float[ndarray, "B T"]:
    """VinePPO with exact values: v(end of the step) − v(its start) on its tokens; steps of ``options.step`` tokens."""
    tree = problem.tree
    starts = tree.scored & (np.arange(tree.horizon) % options.step == 0)
    return trepo.vine_advantage(tree, problem.logits, problem.reward, starts)


def trepo_reading(name: str) -> SetRule:
    """A reading of TRePO with exact values; each position is chosen with ``options.keep``, before the answer."""
    reading = trepo.READINGS[name]

    def rule(problem: Problem, options: Options) -> tuple[Float[ndarray, "K B"], Float[ndarray, "K B T"]]:
        anchors = trepo.independent_anchors(problem.tree, keep=float(options.keep))
        value = conditional_value(problem.tree, problem.logits, problem.reward)
        return anchors.probability, reading(problem.tree, value, anchors)

    return rule
