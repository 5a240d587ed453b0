"""Deterministic checks and counterexample of R08: readings of TRePO, VinePPO's segments, rollouts, by enumeration."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from vgrad_lab.discrete.token_task import TokenTask, draw_task, sixteen_answers
from vgrad_lab.discrete.token_tree import answer_probability, conditional_value, objective_gradient
from vgrad_lab.discrete.trajectory_gradient import mean_direction, own_sample_advantage, theorem_2_advantage
from vgrad_lab.discrete.trepo import (
    READINGS,
    Anchors,
    adv_interp,
    anchored_second_moment,
    anchors_ht,
    anchors_of_length,
    expected_advantage,
    independent_anchors,
    one_set,
    rollout_moment,
    segment,
    segment_length,
    steps_after,
    value_interp,
    vine_advantage,
)
from vgrad_lab.experiments.verify_trajectory import FLOOR, direction_error, relative, tasks
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE


def anchored_mean(task: TokenTask, anchors: Anchors, advantage: Float[ndarray, "K B T"]) -> Float[ndarray, " P"]:
    """Mean direction over answers and sets of positions."""
    return mean_direction(task.tree, task.logits, expected_advantage(anchors, advantage))


def node_values(task: TokenTask) -> Float[ndarray, "B T1"]:
    """Exact values at every node of every answer."""
    return conditional_value(task.tree, task.logits, task.reward())


def equal_length(rng: np.random.Generator) -> TokenTask:
    """A random task whose answers all have the same length, 1-4."""
    vocab = int(rng.integers(2, 4))
    return draw_task(rng, vocab=vocab, horizon=int(rng.integers(1, 7 - vocab)), scale=10.0 ** rng.uniform(-1, 0.5))


def interpolated_part(task: TokenTask, anchors: Anchors) -> Float[ndarray, " P"]:
    """Mean direction of the interpolated advantages alone, those of chosen tokens left out."""
    return anchored_mean(task, anchors, adv_interp(task.tree, node_values(task), anchors) * ~anchors.chosen)


def r08_zero(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Interpolated advantages have mean direction 0; the whole is Σ_t P(t ∈ S) E[A_t g_t]."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        task = equal_length(rng)
        keep = rng.uniform(size=task.tree.horizon)
        anchors = independent_anchors(task.tree, keep=keep)
        worst = max(worst, float(np.abs(interpolated_part(task, anchors)).max()))
        whole = anchored_mean(task, anchors, adv_interp(task.tree, node_values(task), anchors))
        exact = theorem_2_advantage(task.tree, task.logits, task.reward()) * keep
        worst = max(worst, relative(whole, mean_direction(task.tree, task.logits, exact)))
    return Evidence(worst, ALGEBRA, "answers of one length, every position kept with a probability of its own")


def r08_value(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Values interpolated: mean direction Σ_t E[1/length of t's segment] E[A_t g_t]."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        task = equal_length(rng)
        anchors = independent_anchors(task.tree, keep=rng.uniform(size=task.tree.horizon))
        found = anchored_mean(task, anchors, value_interp(task.tree, node_values(task), anchors))
        shrink = expected_advantage(anchors, 1 / np.maximum(segment_length(task.tree, anchors), 1))
        exact = theorem_2_advantage(task.tree, task.logits, task.reward()) * shrink
        worst = max(worst, relative(found, mean_direction(task.tree, task.logits, exact)))
    return Evidence(worst, ALGEBRA, "answers of one length; relative")


def r08_anchors(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Chosen tokens over their inclusion probability: ∇J, also where positions depend on the answer's length."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        keep = rng.uniform(0.1, 1, size=task.tree.horizon)
        for anchors in (independent_anchors(task.tree, keep=keep), anchors_of_length(task.tree, count=1)):
            found = anchors_ht(task.tree, node_values(task), anchors)
            worst = max(worst, direction_error(task, expected_advantage(anchors, found), task.reward()))
    return Evidence(worst, ALGEBRA, "relative to max(‖∇J‖, 1e-2)")


def stopping_times(task: TokenTask, rng: np.random.Generator) -> Iterator[Anchors]:
    """Boundaries drawn before the answer, after a token, and by a random rule on the prefix."""
    yield independent_anchors(task.tree, keep=float(rng.uniform()))
    yield one_set(task.tree, steps_after(task.tree, int(rng.integers(task.tree.vocab))))
    yield one_set(task.tree, (rng.random(len(task.tree.prefixes)) < 0.5)[task.tree.node])


def r08_segment(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Segment differences, undivided: ∇J for boundaries that are stopping times."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        for anchors in stopping_times(task, rng):
            found = segment(task.tree, node_values(task), anchors)
            worst = max(worst, direction_error(task, expected_advantage(anchors, found), task.reward()))
    return Evidence(worst, ALGEBRA, "relative to max(‖∇J‖, 1e-2); three kinds of boundaries")


def step_number(starts: Bool[ndarray, "B T"]) -> Float[ndarray, "B T"]:
    """Number of the step that each token belongs to, from 0."""
    begun = starts.copy()
    begun[:, 0] = True
    return begun.cumsum(1) - 1.0


def r08_limit(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Values for the first m steps only: the mean of E[A_t g_t] over their tokens, nothing of the others."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        starts = steps_after(task.tree, int(rng.integers(task.tree.vocab)))
        most = int(rng.integers(1, 3))
        found = vine_advantage(task.tree, task.logits, task.reward(), starts, most_steps=most)
        kept = theorem_2_advantage(task.tree, task.logits, task.reward()) * (step_number(starts) < most)
        worst = max(worst, relative(*(mean_direction(task.tree, task.logits, w) for w in (found, kept))))
    return Evidence(worst, ALGEBRA, "relative; steps end with a random token")


def rollout_outcomes(task: TokenTask, rollouts: int) -> Iterator[tuple[float, Float[ndarray, "B T1"]]]:
    """Every outcome of K rollouts from each open prefix: its probability and the values along each answer.

    The product over prefixes of B^K continuations: for trees of two or three prefixes.
    """
    tree, chance, reward = task.tree, answer_probability(task.tree, task.logits), task.reward()
    behind = []
    for prefix in tree.prefixes:
        rows = [b for b, answer in enumerate(tree.answers) if answer[: len(prefix)] == prefix]
        behind.append([(rows[i], chance[rows[i]] / chance[rows].sum()) for i in range(len(rows))])
    for drawn in itertools.product(*(itertools.product(rows, repeat=rollouts) for rows in behind)):
        mean = np.array([np.mean([reward[b] for b, _ in own]) for own in drawn])
        value = np.where(tree.scored, mean[tree.node], reward[:, None])
        yield float(np.prod([p for own in drawn for _, p in own])), np.column_stack([value, reward])


def rollout_errors(
    task: TokenTask, anchors: Anchors, *, reading: str, rollouts: int, planted: float = 0.0
) -> tuple[float, float]:
    """Errors, relative, of the mean direction and of what ``rollout_moment`` says is added, against all outcomes."""
    exact = READINGS[reading](task.tree, node_values(task), anchors)
    mean, second = np.zeros(task.logits.size), 0.0
    for p, value in rollout_outcomes(task, rollouts):
        advantage = READINGS[reading](task.tree, value, anchors)
        mean += p * anchored_mean(task, anchors, advantage)
        second += p * anchored_second_moment(task.tree, task.logits, anchors, advantage)
    extra = second - anchored_second_moment(task.tree, task.logits, anchors, exact)
    said = rollout_moment(task.tree, task.logits, task.reward(), anchors, reading=reading, rollouts=rollouts)
    found = relative(mean, anchored_mean(task, anchors, exact))
    return found, abs(said * (1 + planted) - extra) / max(extra, FLOOR)


def r08_rollouts(*, seed: int = 0, examples: int = 4) -> Evidence:
    """K fresh rollouts per value: the mean stays, the second moment grows by c/K; all outcomes are listed."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(min(examples, 8)):
        task = draw_task(rng, vocab=2, horizon=2, end=0)
        anchors = independent_anchors(task.tree, keep=float(rng.uniform(0.2, 0.8)))
        reading = sorted(READINGS)[i % len(READINGS)]
        worst = max(worst, *rollout_errors(task, anchors, reading=reading, rollouts=1 + i % 2))
    return Evidence(worst, QUADRATURE, "trees of two prefixes, K = 1 and 2, relative")


def r08_own_sample(*, seed: int = 0, examples: int = 20) -> Evidence:
    """A baseline of K rollouts that counts the answer itself: (1 − 1/K) ∇J."""
    worst = 0.0
    for task, _, rng in tasks(seed, examples):
        k = int(rng.integers(1, 9))
        case = (task.tree, task.logits, task.reward())
        found = mean_direction(task.tree, task.logits, own_sample_advantage(*case, rollouts=k))
        worst = max(worst, relative(found, (1 - 1 / k) * objective_gradient(*case)))
    return Evidence(worst, ALGEBRA, "K from 1 to 8, relative to max(‖∇J‖, 1e-2)")


def r08_interpolation() -> Counterexample:
    """Scale of the mean direction against ∇J with advantages interpolated, four tokens, each chosen with chance ½."""
    task = sixteen_answers()
    anchors = independent_anchors(task.tree, keep=0.5)
    truth = objective_gradient(task.tree, task.logits, task.reward())
    scales = {}
    for name in ("adv_interp", "value_interp"):
        mean = anchored_mean(task, anchors, READINGS[name](task.tree, node_values(task), anchors))
        scales[name] = float(mean @ truth / (truth @ truth))
    detail = f"scale against ∇J; with interpolated values {scales['value_interp']:.4f}, and another direction"
    return Counterexample(1.0, scales["adv_interp"], 0.4, detail)
