"""GRPO on answers of several tokens: sample, reward, advantage, one on-policy step; evaluated by sampling.

Departures from library trainers: no ratio (one step per batch is on-policy), no reference model, every micro-batch is
weighed by the whole update's answers, and what a checkpoint says about sampling is not read.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.generation import Rollouts, check_mismatch, sample, token_logprobs
from vgrad_lab.checkpoints.grpo import GrpoSettings, learning_rates, make_optimizer
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.precision import recomputing, running
from vgrad_lab.checkpoints.probe import EVALUATION_SEED
from vgrad_lab.checkpoints.sampled_tasks import SampledTask, Task, evaluation_examples
from vgrad_lab.integrations.scale import loss_weight
from vgrad_lab.stats import mean_with_standard_error

Loss = Literal["grpo", "dr_grpo", "dapo"]
"""TRL's words for what an answer's Σ_t log π is divided by: its own length, max_tokens, or the update's mean length."""


@dataclass(frozen=True)
class SampledSettings(GrpoSettings):
    """One GRPO protocol for sampled answers; ``budgets``, ``prompts`` and ``group_size`` as in `GrpoSettings`.

    loss: how answers of different lengths are weighed. evaluation_samples: answers to each evaluation prompt.
    evaluation_prompts: at most so many of the task's. micro_batch: prompts, each with its group, at a time.

    Raises UserError as `GrpoSettings` does, for an unknown loss and for a KL penalty.
    """

    loss: Loss = "dapo"
    evaluation_samples: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        known_loss(self.loss)
        if self.evaluation_samples < 1 or self.evaluation_prompts < 2 or self.micro_batch < 1:
            raise UserError(
                f"evaluation_samples is {self.evaluation_samples}, evaluation_prompts {self.evaluation_prompts}, "
                f"micro_batch {self.micro_batch}; a standard error needs 2 prompts, and there is no less than 1 sample"
            )
        if self.kl > 0:
            raise UserError(
                f"kl is {self.kl}: for answers of several tokens the gradient of a KL penalty has a part through the "
                "sampled prefixes, which a sum over tokens leaves out; set kl to 0"
            )


def known_loss(name: str) -> Loss:
    """The name, if a loss has it. Raises UserError otherwise."""
    if name not in get_args(Loss):
        raise UserError(f"loss is {name!r}; choose one of {', '.join(get_args(Loss))}")
    return cast(Loss, name)


def settings_for(task: Task, settings: GrpoSettings, *, loss: str | None = None) -> GrpoSettings:
    """The protocol in the words of a task's kind: `SampledSettings` for sampled answers, with a loss of its own.

    Raises UserError for a loss that is not known, or one given to a task whose answers are one token.
    """
    if isinstance(task, SampledTask):
        known = {} if loss is None else {"loss": known_loss(loss)}
        return SampledSettings(**{**vars(settings), **known})
    if loss is not None:
        raise UserError(f"loss is {loss!r}, but label copying has answers of one token, which no loss weighs; omit it")
    return settings


@dataclass(frozen=True)
class Evaluation:
    """Sampled reward of each evaluation prompt, mean answer length in tokens, share of answers that ended."""

    reward: Float[ndarray, " Q"]
    answer_length: float
    ended: float


def train(checkpoint: Checkpoint, task: SampledTask, settings: GrpoSettings, *, seed: int) -> dict[str, Any]:
    """Run GRPO from a checkpoint (whose model is changed in place) and evaluate it at every budget.

    seed: of the prompts drawn and the answers sampled; every evaluation takes the same random numbers, so that before
    and after differ by the model alone. Standard errors are over evaluation prompts, None where these do not differ.
    Raises UserError when there are fewer than two of these, or logits or gradients become non-finite. Returns the keys
    of `grpo.train` (None for what sampled answers leave undefined) and those named here: errors, dead groups, lengths,
    how it was evaluated.
    """
    given = cast(SampledSettings, settings_for(task, settings))
    with running(checkpoint.model, given.precision):
        return _run(checkpoint, task, given, seed)


def _run(checkpoint: Checkpoint, task: SampledTask, given: SampledSettings, seed: int) -> dict[str, Any]:
    model, total = checkpoint.model, given.budgets[-1]
    order = np.random.default_rng([seed, 1])
    shuffled = [order.permutation(len(task.prompts)) for _ in range(-(-total * given.prompts // len(task.prompts)))]
    examples = [task.prompts[i] for i in np.concatenate(shuffled).tolist()]
    optimizer, rates = make_optimizer(model, given), learning_rates(given)
    curve, dead, mismatch = {0: evaluate(checkpoint, task, given)}, [], []
    for update in range(1, total + 1):
        for group in optimizer.param_groups:
            group["lr"] = float(given.learning_rate * rates[update - 1])
        rollouts = sample(
            checkpoint,
            task,
            examples[(update - 1) * given.prompts : update * given.prompts],
            group_size=given.group_size,
            rng=np.random.default_rng([seed, 2, update]),
            micro_batch=given.micro_batch,
        )
        dead.append(float(np.mean(rollouts.reward.max(1) == rollouts.reward.min(1))))
        with recomputing(model, given.recompute):  # not while sampling: a cache cannot be computed again
            mismatch.append(backward(model, rollouts, given, max_tokens=task.max_tokens))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), given.clip or math.inf)
        if not bool(torch.isfinite(norm)):
            raise UserError(f"the gradient is not finite at update {update}; lower the learning rate")
        optimizer.step()
        if update in given.budgets:
            curve[update] = evaluate(checkpoint, task, given)
    return _result(given, curve, dead) | {"policy_mismatch": float(np.mean(mismatch))}


def backward(model: Any, rollouts: Rollouts, settings: SampledSettings, *, max_tokens: int) -> float:
    """Leave the gradient of the loss −Σ_i w_i Â_i Σ_t log π(o_{i,t}|q, o_{i,<t}) in the model's parameters.

    w_i as in TRL: 1/(B|o_i|) for grpo, 1/(B·max_tokens) for dr_grpo, 1/Σ_j|o_j| for dapo, over the B = Q·G answers of
    the update, however it is cut into micro-batches. Answers with advantage 0 are left out, which changes nothing.
    Returns the largest mean difference over a micro-batch, nats a token, of these log π from those while sampling;
    raises UserError where it is no rounding.
    """
    advantage = from_group(rollouts.reward, settings.baseline, ddof=settings.ddof, eps=settings.eps).reshape(-1)
    length = rollouts.answer_length
    scale = loss_weight(settings.loss, length, max_completion_length=max_tokens, window_tokens=float(length.sum()))
    weight = scale * torch.from_numpy(advantage).to(scale)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    size, worst = settings.micro_batch * settings.group_size, 0.0
    for start in range(0, len(length), size):
        rows = torch.arange(start, min(start + size, len(length)), device=length.device)
        rows = rows[weight[rows] != 0]
        if len(rows):
            logp, real = token_logprobs(model, rollouts, rows)
            apart = (logp.detach() - rollouts.logp[rows, : logp.shape[1]]).abs().sum() / real.sum()
            worst = max(worst, check_mismatch(model, float(apart), settings.precision))
            torch.autograd.backward(-(weight[rows].to(logp) * logp.sum(1)).sum())
    return worst


def evaluate(checkpoint: Checkpoint, task: SampledTask, settings: SampledSettings) -> Evaluation:
    """Sampled reward on the evaluation prompts, always with the same random numbers. Raises UserError below two."""
    examples = evaluation_examples(task, settings.evaluation_prompts)
    if len(examples) < 2:
        raise UserError("the task has 1 evaluation prompt, but a standard error needs 2; add prompts")
    rollouts = sample(
        checkpoint,
        task,
        examples,
        group_size=settings.evaluation_samples,
        rng=np.random.default_rng([EVALUATION_SEED, 2]),
        micro_batch=settings.micro_batch,
    )
    length, ended = rollouts.answer_length.double().mean(), rollouts.ended.double().mean()
    return Evaluation(rollouts.reward.mean(1), float(length), float(ended))


def _result(settings: SampledSettings, curve: dict[int, Evaluation], dead: list[float]) -> dict[str, Any]:
    """Plain numbers of a run."""
    before, after = curve[0], [curve[k] for k in settings.budgets]
    gain = np.mean([x.reward - before.reward for x in after], axis=0)
    return {
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "budgets": list(settings.budgets),
        "reward_before": float(before.reward.mean()),
        "reward_before_standard_error": _error(before.reward),
        "reward_after": [float(x.reward.mean()) for x in after],
        "reward_standard_error": [_error(x.reward) for x in after],
        "reward_restricted_before": None,
        "reward_restricted_after": None,
        "label_mass_after": None,
        "gain_mean": float(gain.mean()),
        "gain_standard_error": _error(gain),
        "dead_groups": [float(np.mean(dead[:k])) for k in settings.budgets],
        "answer_length_before": before.answer_length,
        "answer_length_after": [x.answer_length for x in after],
        "ended_before": before.ended,
        "ended_after": [x.ended for x in after],
        "evaluation_prompts": len(before.reward),
        "evaluation_samples": settings.evaluation_samples,
        "loss": settings.loss,
    }


def _error(x: Float[ndarray, " Q"]) -> float | None:
    """Standard error of the mean over prompts; None where none differs, for what was not seen has no estimate."""
    return float(mean_with_standard_error(x)[1]) if np.ptp(x) > 0 else None
