"""Deterministic checks and counterexamples of R01–R06: policy gradients from response-level rewards, by enumeration."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import gae, return_to_go
from vgrad_lab.discrete.token_task import TokenTask, along, draw_task, fifteen_answers
from vgrad_lab.discrete.token_tree import (
    TokenTree,
    conditional_value,
    objective,
    objective_gradient,
    prefix_probability,
    token_logprob,
)
from vgrad_lab.discrete.trajectory_gradient import (
    equation_26_weight,
    lemma_1_weight,
    mean_direction,
    response_advantage,
    theorem_1_weight,
    theorem_2_advantage,
    token_values,
    value_baseline_advantage,
)
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM

DISCOUNTS = (1.0, 0.9, 0.5)
FLOOR = 1e-2
"""Residuals are relative to the larger of this and the size of the truth."""


def tasks(seed: int, examples: int) -> Iterator[tuple[TokenTask, float, np.random.Generator]]:
    """Random tasks of 2-4 tokens, 1-4 steps, with and without an end, each with a discount and a generator."""
    rng = np.random.default_rng(seed)
    for i in range(examples):
        vocab, horizon = int(rng.integers(2, 5)), int(rng.integers(1, 4))
        end = (None, 0, vocab - 1)[i % 3]
        scale = 10.0 ** rng.uniform(-1, 0.5)
        horizon += vocab == 2
        yield draw_task(rng, vocab=vocab, horizon=horizon, end=end, scale=scale), DISCOUNTS[i % 2 + i % 3 // 2], rng


def relative(found: ndarray, truth: ndarray) -> float:
    """‖found − truth‖ / max(‖truth‖, 1e-2)."""
    return float(np.linalg.norm(found - truth) / max(float(np.linalg.norm(truth)), FLOOR))


def cosine(found: ndarray, truth: ndarray) -> float:
    """Cosine of the angle between two directions."""
    return float(found @ truth / (np.linalg.norm(found) * np.linalg.norm(truth)))


def direction_error(task: TokenTask, weight: Float[ndarray, "B T"], reward: Float[ndarray, " B"]) -> float:
    """Relative distance of E Σ_t w_t g_t from ∇E[RM]."""
    return relative(
        mean_direction(task.tree, task.logits, weight), objective_gradient(task.tree, task.logits, reward)
    )  # fmt: skip


def returns(task: TokenTask, *, discount: float) -> Float[ndarray, "B T"]:
    """G_t = Σ_{k≥t} γ^{k−t} r_k along each answer."""
    return return_to_go(along(task.tree, task.token_reward), discount=discount)


def of_prefixes(tree: TokenTree, number: Float[ndarray, " N"]) -> Float[ndarray, "B T"]:
    """One number per open prefix, as a weight on the token that is drawn there."""
    return np.where(tree.scored, number[tree.node], 0.0)


def r01_lemma_1(*, seed: int = 0, examples: int = 20) -> Evidence:
    """∇J = E Σ_t γ^{t−1} Q g_t, and the same with the drawn return G_t, for J = E Σ_t γ^{t−1} r_t."""
    worst = 0.0
    for task, discount, _ in tasks(seed, examples):
        reward, weight = task.reward(discount=discount), discount ** np.arange(task.tree.horizon)
        exact = lemma_1_weight(task.tree, task.logits, task.token_reward, discount=discount)
        for form in (exact, returns(task, discount=discount) * weight):
            worst = max(worst, direction_error(task, form, reward))
    return Evidence(worst, ALGEBRA, f"{examples} trees, γ in {{1, .9, .5}}, relative to max(‖∇J‖, 1e-2)")


def r02_offsets(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E Σ_t c(o_<t) g_t = 0 for random functions c of the prefix."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        c = of_prefixes(task.tree, rng.normal(size=len(task.tree.prefixes)))
        worst = max(worst, float(np.abs(mean_direction(task.tree, task.logits, c)).max()))
    return Evidence(worst, ALGEBRA, "largest entry, offsets N(0,1)")


def r03_theorem_1(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Theorem 1 with the inner mean and with RM itself, rewards shifted by a constant of the prompt."""
    worst = 0.0
    for task, discount, rng in tasks(seed, examples):
        reward = task.reward(discount=discount)
        seen = reward + rng.normal()
        for form in (theorem_1_weight(task.tree, task.logits, seen), response_advantage(task.tree, seen)):
            worst = max(worst, direction_error(task, form, reward))
    return Evidence(worst, ALGEBRA, "response-level rewards against the gradient of the sum of token rewards")


def recovered_reward(
    tree: TokenTree, logits: Float[ndarray, "N V"], gradient: Float[ndarray, " P"]
) -> Float[ndarray, " B"]:
    """RM − E[RM] of every answer from ∇E[RM] with respect to the logits: Σ_t ∇_{o_<t,o_t} / P(o_≤t)."""
    here = along(tree, np.repeat(prefix_probability(tree, logits)[:, None], tree.vocab, axis=1))
    chance = np.where(tree.scored, here * np.exp(token_logprob(tree, logits)), 1.0)
    return np.asarray((along(tree, gradient.reshape(tree.logits_shape)) / chance).sum(1))


def r03_only(*, seed: int = 0, examples: int = 20) -> Evidence:
    """A response-level direction fixes its reward up to a constant: the reward is read off the direction."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        logits = np.tanh(task.logits)  # no probability so small that reading it off loses digits
        reward = rng.normal(size=task.tree.size)
        direction = mean_direction(task.tree, logits, response_advantage(task.tree, reward))
        centred = reward - objective(task.tree, logits, reward)
        worst = max(worst, relative(recovered_reward(task.tree, logits, direction), centred))
    return Evidence(worst, CLOSED_FORM, "RM − E[RM] recovered from E[RM g], relative")


def r03_zero_reward() -> Counterexample:
    """E Σ_t γ^{t−1} RM g_t against ∇E[RM] and ∇E[γ^{T−1} RM] at γ = ½: parallel to neither."""
    task = fifteen_answers()
    reward, t = task.reward(), np.arange(3)
    printed = mean_direction(task.tree, task.logits, response_advantage(task.tree, reward) * 0.5**t)
    discounted = objective_gradient(task.tree, task.logits, 0.5 ** (task.tree.length - 1) * reward)
    plain = cosine(printed, objective_gradient(task.tree, task.logits, reward))
    detail = f"cosine with ∇E[RM]; with ∇E[γ^(T−1) RM] {cosine(printed, discounted):.4f}"
    return Counterexample(1.0, plain, 0.01, detail)


def r04_equation_26(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Eq. 26 equals E Σ_t Q g_t, Lemma 1 without its factor γ^{t−1}."""
    worst = 0.0
    for task, discount, _ in tasks(seed, examples):
        weight = equation_26_weight(task.tree, task.logits, task.reward(discount=discount), discount=discount)
        q = token_values(task.tree, task.logits, task.token_reward, discount=discount)[1]
        found, truth = (mean_direction(task.tree, task.logits, w) for w in (weight, q))
        worst = max(worst, relative(found, truth))
    return Evidence(worst, ALGEBRA, "RM = Σ γ^(t−1) r; relative")


def r05_theorem_2(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Theorem 2 against the exact gradient, γ in {1, .9, .5}."""
    worst = 0.0
    for task, discount, _ in tasks(seed, examples):
        reward = task.reward(discount=discount)
        worst = max(worst, direction_error(task, theorem_2_advantage(task.tree, task.logits, reward), reward))
    return Evidence(worst, ALGEBRA, "relative to max(‖∇J‖, 1e-2)")


def r06_pointwise(*, seed: int = 0, examples: int = 20) -> Evidence:
    """A_t = γ^{t−1}(Q − V) on every token and Σ_t A_t = RM − E[RM] on every answer."""
    worst = 0.0
    for task, discount, _ in tasks(seed, examples):
        tree, reward = task.tree, task.reward(discount=discount)
        found = theorem_2_advantage(tree, task.logits, reward)
        v, q = token_values(tree, task.logits, task.token_reward, discount=discount)
        gaps = (
            found - (q - v) * discount ** np.arange(tree.horizon),
            found.sum(1) - (reward - objective(tree, task.logits, reward)),
        )
        worst = max(worst, *(float(np.abs(gap).max()) for gap in gaps))
    return Evidence(worst, ALGEBRA, "largest difference over tokens and answers, rewards N(0,1)")


def r06_hidden(*, seed: int = 0, examples: int = 20) -> Evidence:
    """RM − E[RM | o_<t] = γ^{t−1}(G_t − V(o_<t)) on every token of every answer."""
    worst = 0.0
    for task, discount, _ in tasks(seed, examples):
        found = value_baseline_advantage(task.tree, task.logits, task.reward(discount=discount))
        v, _ = token_values(task.tree, task.logits, task.token_reward, discount=discount)
        hidden = (returns(task, discount=discount) - v) * discount ** np.arange(task.tree.horizon)
        worst = max(worst, float(np.abs((found - hidden)[task.tree.scored]).max()))
    return Evidence(worst, ALGEBRA, "largest difference over tokens and answers, rewards N(0,1)")


def two_placements(
    task: TokenTask, *, decay: float, discount: float = 1.0, critic_error: Float[ndarray, " N"] | None = None
) -> tuple[Float[ndarray, "B T"], Float[ndarray, "B T"]]:
    """GAE with the rewards at their tokens, and with their sum on the last token; exact critics of each, plus an error.

    The error is one number per prefix and the same for both.
    """
    tree, last = task.tree, np.arange(task.tree.horizon) == task.tree.length[:, None] - 1
    paid = along(tree, task.token_reward)
    end = np.where(last, paid.sum(1, keepdims=True), 0.0)
    error = np.zeros(len(tree.prefixes)) if critic_error is None else critic_error
    exact, _ = token_values(tree, task.logits, task.token_reward, discount=discount)
    late = conditional_value(tree, task.logits, discount ** (tree.length - 1) * end.sum(1))[:, :-1]
    late = np.where(tree.scored, late * discount ** -np.arange(tree.horizon, dtype=float), 0.0)
    critics = (np.pad(value + of_prefixes(tree, error), ((0, 0), (0, 1))) for value in (exact, late))
    first, second = (
        np.where(tree.scored, gae(reward, critic, discount=discount, decay=decay), 0.0)
        for reward, critic in zip((paid, end), critics, strict=True)
    )
    return first, second


def r06_gae(*, seed: int = 0, examples: int = 20) -> Evidence:
    """With exact critics GAE(λ) does not see whether rewards are paid at their tokens or all at the end."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        found, truth = two_placements(task, decay=float(rng.uniform()))
        worst = max(worst, float(np.abs(found - truth).max()))
    return Evidence(worst, ALGEBRA, "largest difference over tokens, γ = 1, λ uniform in [0, 1]")
