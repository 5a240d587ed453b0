"""Measure a checkpoint on a task of sampled answers, before any RL: rewards, signal, gap, headroom, or why undefined.

What ``probe.measure`` reads off one softmax is here estimated from independent answers to each prompt: without bias
where that is possible, with a stated bound for the headroom, not at all elsewhere.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints import group_rewards
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.generation import Rollouts, check_mismatch, sample
from vgrad_lab.checkpoints.group_costates import Place, checked_layout, place_of, score_products
from vgrad_lab.checkpoints.group_estimate import Estimate, over_prompts, product_of_means, undefined
from vgrad_lab.checkpoints.group_headroom import headroom_between, headroom_within, within_per_prompt
from vgrad_lab.checkpoints.group_signal import PER_SAMPLE, GroupRule, SignalEstimates, contributing, estimate_signal
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.precision import running
from vgrad_lab.checkpoints.probe import EVALUATION_SEED, MeasureSettings
from vgrad_lab.checkpoints.sampled_tasks import SampledTask, evaluation_examples

LEAST = 8
"""Fewest answers to a prompt unless the caller says how many: so many that H_1 is defined."""
PLACES = (Place("head_input", "last"), Place(0, "prompt"))
"""The state of the one-token measures, which sees the first answer token, and the one that sees all of the answer."""


def measure_sampled(
    checkpoint: Checkpoint,
    task: SampledTask,
    settings: MeasureSettings,
    *,
    seed: int,
) -> dict[str, Any]:
    """All measures of one checkpoint on a task of sampled answers, each as value, standard error, or reason.

    R, pass@k, entropies, dead groups, κ, H_α; at every place Σ, E⟨λ̂,G⟩, Λ and P_gap = (Σ − Λ) H_α. Standard errors
    treat the prompts as drawn at random. Keys as in ``probe.measure`` where the measure is the same; those of signal
    and gap stand for the first place, and under "places" for every one.

    settings: α, the group that GRPO will use, at most so many prompts, places (default `PLACES`), answers a prompt;
    micro_batch: prompts while sampling, answers while differentiating. seed: of the answers. Raises UserError for what
    cannot be sampled or differentiated, and for logits that differ between the two. Ledger: S22.sampled, S24.sampled.
    """
    places = tuple(dict.fromkeys(map(place_of, settings.states))) or PLACES
    checked_layout(checkpoint.model, places)
    rule = GroupRule(settings.group_size, settings.baseline, settings.ddof, settings.eps)
    with running(checkpoint.model, settings.precision):
        rollouts = sample(
            checkpoint,
            task,
            evaluation_examples(task, settings.prompts),
            group_size=_answers(settings),
            rng=np.random.default_rng([EVALUATION_SEED, 3, seed]),
            micro_batch=settings.micro_batch,
        )
        needed = contributing(rollouts.reward)  # the others add exactly 0, whatever their scores
        products = score_products(checkpoint.model, rollouts, places, needed=needed, micro_batch=settings.micro_batch)
    check_mismatch(checkpoint.model, products.mismatch, settings.precision)
    try:
        at = {name: place_measures(rollouts.reward, gram, settings.alpha, rule) for name, gram in products.gram.items()}
    except ValueError as error:
        raise UserError(f"{checkpoint.path} cannot be measured: {error}") from error
    at_places = {name: {k: e.record() for k, e in found.items()} for name, found in at.items()}
    return {
        **{name: estimate.record() for name, estimate in reward_measures(rollouts, settings.alpha, rule).items()},
        **at_places[places[0].name],
        "place": places[0].name,
        "places": at_places,
        **_conditions(checkpoint.model, rollouts, settings),
        "policy_mismatch": products.mismatch if needed.any() else None,
    }


def _answers(settings: MeasureSettings) -> int:
    if settings.answers is not None and settings.answers < 2:
        raise UserError(f"answers is {settings.answers}; give at least 2 to a prompt, 4 for a signal")
    return max(2 * settings.group_size, LEAST) if settings.answers is None else settings.answers


def _conditions(model: Any, rollouts: Rollouts, settings: MeasureSettings) -> dict[str, Any]:
    """What the measures were taken with; ``kind`` tells them from the closed forms of ``probe.measure``.

    contributing: prompts whose answers say something of Σ, Λ and the alignment.
    """
    prompts, answers = rollouts.reward.shape
    found = {
        "kind": "sampled",
        "alpha": settings.alpha,
        "group_size": settings.group_size,
        "baseline": settings.baseline,
        "k": settings.group_size,
        "prompts": prompts,
        "answers": answers,
        "contributing": int(contributing(rollouts.reward).sum()),
        "temperature": rollouts.temperature,
        "vocabulary": int(model.get_input_embeddings().num_embeddings),
        "parameters": sum(x.numel() for x in model.parameters()),
    }
    return found if settings.precision == "float32" else {**found, "precision": settings.precision}


def reward_measures(rollouts: Rollouts, alpha: float, rule: GroupRule) -> dict[str, Estimate]:
    """What needs no gradient: of rewards, lengths and the log-probabilities of the answers.

    answer_entropy: H(π(·|q)) = E[−log π(o|q)], nats. entropy: E[−log π(o|q)/|o|], nats per token.
    """
    reward, shape = rollouts.reward, rollouts.reward.shape
    surprise = -rollouts.logp.cpu().double().sum(1).numpy().reshape(shape)
    length = rollouts.answer_length.cpu().double().numpy().reshape(shape)
    dead = group_rewards.dead_share(reward, rule.size)
    return {
        "reward_before": group_rewards.reward_mean(reward),
        "success_variance": group_rewards.reward_variance(reward),
        "pass_at_k": group_rewards.pass_at_k(reward, rule.size),
        "dead_groups": dead,
        "mixed_group": dead if dead.value is None else replace(dead, value=1 - dead.value),
        "grpo_scale": group_rewards.scale(reward, rule),
        "entropy": over_prompts((surprise / length).mean(1)),
        "answer_entropy": over_prompts(surprise.mean(1)),
        "answer_length": over_prompts(length.mean(1)),
        "ended": over_prompts(rollouts.ended.cpu().double().numpy().reshape(shape).mean(1)),
        "headroom_within": headroom_within(reward, alpha),
        "headroom_between": headroom_between(reward, alpha),
    }


def place_measures(
    reward: Float[ndarray, "Q G"], gram: Float[ndarray, "Q G G"], alpha: float, rule: GroupRule
) -> dict[str, Estimate]:
    """Σ, E⟨λ̂,G⟩, Λ and P_gap at one state. Ledger: S22.sampled."""
    found = estimate_signal(reward, gram, rule)
    return {
        "signal": found.signal,
        "alignment": found.alignment,
        "costate_gap_conditional": found.gap,
        "costate_bias_squared": found.bias_squared,
        "costate_gap_per_sample": undefined(PER_SAMPLE),
        "impact_score": _impact_score(found, reward, alpha),
    }


def _impact_score(found: SignalEstimates, reward: ndarray, alpha: float) -> Estimate:
    """(Σ − Λ) H_α within prompts, each product from two different prompts."""
    if found.usable is None:
        return undefined(f"Λ is undefined: {found.gap.reason}")
    headroom = headroom_within(reward, alpha)
    if headroom.value is None:
        return undefined(f"H is undefined: {headroom.reason}")
    per_prompt, bias = within_per_prompt(reward, alpha)
    usable = float(found.usable.mean())
    return product_of_means(found.usable, per_prompt, bias=abs(usable) * bias)
