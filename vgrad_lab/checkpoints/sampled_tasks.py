"""Tasks whose answers are sampled token by token: prompts, a reward, and how to sample."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import EVALUATION_SEED
from vgrad_lab.checkpoints.rewards import Reward, right_answer
from vgrad_lab.checkpoints.tasks import LabelCopy, task_identity


@dataclass(frozen=True)
class Example:
    """A prompt, and the row of the prompts file that it came from as JSON (the right answer and whatever else)."""

    prompt: str
    row: str = "{}"


@dataclass(frozen=True)
class SampledTask:
    """Answer prompts in at most ``max_tokens`` tokens, sampled from π(·|·)^(1/temperature) over the full vocabulary.

    Group size and number of prompts belong to the protocol, not to the task.

    Args:
        prompts: examples to train on.
        evaluation: examples to measure and evaluate on; empty: those to train on.
        reward: what an answer is worth.
        temperature: of sampling, of the policy gradient and of evaluation.
        max_tokens: longest answer, the end token among its tokens.
        stop: texts that end an answer; the reward sees what stands before the first of them.
        eos: whether the tokenizer's end token ends an answer.

    Raises:
        UserError: no prompt, a row without the right answer that the reward needs, or a number out of range.
    """

    prompts: tuple[Example, ...]
    evaluation: tuple[Example, ...] = ()
    reward: Reward = field(default_factory=Reward)
    temperature: float = 1.0
    max_tokens: int = 16
    stop: tuple[str, ...] = ()
    eos: bool = True

    def __post_init__(self) -> None:
        if not self.prompts:
            raise UserError("the task has no prompt; give at least one")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(f"temperature is {self.temperature}; give a positive number, since RL needs random answers")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}; give at least 1")
        if not all(self.stop):
            raise UserError(f"stop is {list(self.stop)}; an empty text would stop every answer, leave it out")
        for example in (*self.prompts, *self.evaluation):
            if not example.prompt:
                raise UserError("a prompt is empty; leave it out of the prompts file")
            if self.reward.needs_answer:
                right_answer(self.reward, json.loads(example.row), example.prompt)


Task = LabelCopy | SampledTask
NO_FORECAST = "the forecast needs closed forms over one token, which a task with sampled answers does not have"
"""Why there is no forecast of a SampledTask."""


def task_name(task: Task) -> str:
    """Name in a record: the kind, and the first digits of `task_identity`."""
    kind = "label-copy" if isinstance(task, LabelCopy) else "sampled"
    return f"{kind}-{task_identity(task)[:8]}"


def evaluation_examples(task: SampledTask, count: int) -> tuple[Example, ...]:
    """At most ``count`` examples to evaluate on, in the file's order: the same for every checkpoint and seed."""
    given = task.evaluation or task.prompts
    if len(given) <= count:
        return given
    chosen = np.random.default_rng(EVALUATION_SEED).permutation(len(given))[:count]
    return tuple(given[i] for i in sorted(chosen.tolist()))


def stop_tokens(checkpoint: Checkpoint, task: SampledTask) -> tuple[int, ...]:
    """Token ids that end an answer: the tokenizer's end token and those of the model's generation settings.

    Raises UserError when the task wants an end token and the checkpoint has none.
    """
    if not task.eos:
        return ()
    settings = getattr(checkpoint.model, "generation_config", None)
    given = getattr(settings, "eos_token_id", None)
    found = {checkpoint.tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])} - {None}
    if not found:
        raise UserError(
            f"the tokenizer of {checkpoint.path} has no end token; set eos: false in the task, so that answers end at "
            "a stop text or at max_tokens"
        )
    return tuple(sorted(found))


def encode_examples(checkpoint: Checkpoint, task: SampledTask, examples: Sequence[Example]) -> list[list[int]]:
    """Tokens of each prompt.

    Raises:
        UserError: a prompt has no token, ends in the end token, holds one that the model does not know, or leaves no
            room for ``max_tokens`` in the model's context.
    """
    stop = stop_tokens(checkpoint, task)
    size = checkpoint.model.get_input_embeddings().num_embeddings
    context = getattr(checkpoint.model.config.get_text_config(), "max_position_embeddings", None)
    encoded: list[list[int]] = [checkpoint.tokenizer.encode(e.prompt) for e in examples]
    for example, tokens in zip(examples, encoded, strict=True):
        problem = _problem(tokens, stop, size, context, task.max_tokens)
        if problem:
            raise UserError(f"prompt {example.prompt[:60]!r} {problem}")
    return encoded


def _problem(tokens: list[int], stop: tuple[int, ...], size: int, context: Any, room: int) -> str | None:
    if not tokens:
        return "has no token; leave it out"
    if tokens[-1] in stop:
        return "is encoded with the end token behind it; use the tokenizer of a causal language model"
    if max(tokens) >= size:
        return f"has token {max(tokens)}, but the model knows {size}; tokenizer and weights do not belong together"
    if isinstance(context, int) and len(tokens) + room > context:
        return (
            f"has {len(tokens)} tokens, with max_tokens {room} more than the model's context of {context}; shorten it, "
            "or lower max_tokens"
        )
    return None
