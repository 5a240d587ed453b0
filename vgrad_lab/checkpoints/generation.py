"""Sampled answers of a causal language model, rewarded, and their log-probabilities with gradient.

The policy is π^(1/temperature) over the full vocabulary, without top-k, top-p or penalties.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.decoding import Stopping, batches, generate, padding_token, parameter_names, precision
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.rewards import check_source, score
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask, encode_examples, stop_tokens

MISMATCH = 0.01
"""Largest mean difference, nats, of a token's log-probability while sampling and while differentiating."""
MISMATCH_BELOW_FLOAT32 = 0.25
"""The same with weights or products in bfloat16."""


@dataclass(frozen=True)
class Rollouts:
    """Q·G sampled answers, row b = q·G + g.

    Args:
        tokens: prompt, answer, then padding that no causal position before it reads.
        prompt_length: tokens of each row's prompt.
        answer_length: tokens of its answer, at least 1, the end token or those of the stop text among them.
        logp: log-probability of each answer token under the tempered policy, nats; 0 beyond the answer.
        reward: of each answer.
        texts: what the reward saw, without end token and from before the stop text.
        ended: False for an answer that was cut off at ``max_tokens``.
        temperature: of the policy.
    """

    tokens: Int64[Tensor, "B T"]
    prompt_length: Int64[Tensor, "B"]
    answer_length: Int64[Tensor, "B"]
    logp: Float[Tensor, "B N"]
    reward: Float64[ndarray, "Q G"]
    texts: tuple[tuple[str, ...], ...]
    ended: Bool[Tensor, "B"]
    temperature: float


def sample(
    checkpoint: Checkpoint,
    task: SampledTask,
    examples: Sequence[Example],
    *,
    group_size: int,
    rng: np.random.Generator,
    micro_batch: int = 64,
) -> Rollouts:
    """Sample a group of answers to each example and reward them; the model is used as it is, without gradient.

    examples: Q of them. group_size: G answers each. rng: the only source of randomness. micro_batch: prompts at a time.

    Raises:
        UserError: a prompt that the model cannot read, logits that are not finite, or a reward that is no number.
        ValueError: no example, or a group or micro-batch below 1.
    """
    if not examples or group_size < 1 or micro_batch < 1:
        raise ValueError(f"got {len(examples)} examples, group_size {group_size}, micro_batch {micro_batch}; give ≥ 1")
    check_source(task.reward)
    prompts = encode_examples(checkpoint, task, examples)
    uniform = rng.random((len(prompts), group_size, task.max_tokens))
    stopping = Stopping(stop_tokens(checkpoint, task), task.stop, checkpoint.tokenizer)
    answers: list[list[int]] = [[]] * (len(prompts) * group_size)
    logp = torch.zeros(len(answers), task.max_tokens, dtype=precision(checkpoint.model), device=checkpoint.model.device)
    ended = torch.zeros(len(answers), dtype=torch.bool, device=logp.device)
    for chosen in batches(checkpoint.model, [len(p) for p in prompts], micro_batch):
        part = generate(
            checkpoint.model,
            [prompts[q] for q in chosen],
            uniform[chosen],
            temperature=task.temperature,
            stopping=stopping,
        )
        rows = (torch.tensor(chosen)[:, None] * group_size + torch.arange(group_size)).flatten()
        for row, answer in zip(rows.tolist(), part[0], strict=True):
            answers[row] = answer
        logp[rows], ended[rows] = part[1], part[2]
    return _rollouts(checkpoint, task, examples, prompts, answers, logp, ended)


def _rollouts(
    checkpoint: Checkpoint,
    task: SampledTask,
    examples: Sequence[Example],
    prompts: list[list[int]],
    answers: list[list[int]],
    logp: Tensor,
    ended: Tensor,
) -> Rollouts:
    """Answers put behind their prompts, read and rewarded."""
    group, stop = len(answers) // len(prompts), stop_tokens(checkpoint, task)
    texts = [answer_text(checkpoint.tokenizer, answer, stop, task.stop) for answer in answers]
    reward = [
        score(task.reward, prompt=examples[b // group].prompt, completion=text, row=examples[b // group].row)
        for b, text in enumerate(texts)
    ]
    rows = [[*prompts[b // group], *answer] for b, answer in enumerate(answers)]
    lengths = torch.tensor([len(answer) for answer in answers], device=logp.device)
    tokens = torch.full((len(rows), max(map(len, rows))), padding_token(checkpoint.model))
    for b, row in enumerate(rows):
        tokens[b, : len(row)] = torch.tensor(row)
    return Rollouts(
        tokens=tokens.to(logp.device),
        prompt_length=torch.tensor([len(p) for p in prompts], device=logp.device).repeat_interleave(group),
        answer_length=lengths,
        logp=logp[:, : int(lengths.max())],
        reward=np.array(reward, dtype=np.float64).reshape(len(prompts), group),
        texts=tuple(tuple(texts[q * group : (q + 1) * group]) for q in range(len(prompts))),
        ended=ended,
        temperature=task.temperature,
    )


def answer_text(tokenizer: Any, answer: list[int], stop: tuple[int, ...], texts: tuple[str, ...]) -> str:
    """Text of an answer without its end token, cut before the first stop text; other special tokens stay visible."""
    kept = answer[:-1] if answer and answer[-1] in stop else answer
    text = str(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return text[: min((text.index(s) for s in texts if s in text), default=len(text))]


def token_logprobs(
    model: Any, rollouts: Rollouts, rows: slice | Int64[Tensor, "R"] = slice(None)
) -> tuple[Float[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """log π of each answer token under the tempered policy, with gradient, and which entries are answer tokens.

    One forward pass without cache over right-padded rows: causal, so no mask. N is the longest answer among the rows.
    Beyond an answer the log-probability is 0.
    """
    prompt, answer = rollouts.prompt_length[rows], rollouts.answer_length[rows]
    width, first = int((prompt + answer).max()), int(prompt.min())
    tokens = rollouts.tokens[rows, :width]
    kept = {"logits_to_keep": width - first + 1} if "logits_to_keep" in parameter_names(model) else {}
    logits = model(input_ids=tokens, use_cache=False, **kept).logits[:, first - 1 - width : -1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / rollouts.temperature
    logp = logits.gather(-1, tokens[:, first:, None].to(logits.device))[..., 0] - logits.logsumexp(-1)
    step = torch.arange(int(answer.max()), device=answer.device)
    real = step < answer[:, None]
    place = (prompt[:, None] + step).clamp(max=width - 1) - first
    found = logp.to(place.device).gather(1, place)
    return torch.where(real, found, torch.zeros_like(found)), real


def check_mismatch(model: Any, mismatch: float, precision: str = "float32") -> float:
    """Return the mean difference, nats a token, of log-probabilities while sampling and while differentiating.

    Raises UserError where it is more than rounding: the two passes would be two policies.
    """
    wide = precision == "float32" and model.dtype in (torch.float32, torch.float64)
    allowed = MISMATCH if wide else MISMATCH_BELOW_FLOAT32
    if not mismatch <= allowed:
        raise UserError(
            f"the answers' log-probabilities differ by {mismatch:.2g} nats a token between sampling and the pass that "
            f"is differentiated (allowed: {allowed:g}); {type(model).__name__} reads a cached or padded prompt "
            "differently, or is not finite"
        )
    return mismatch
