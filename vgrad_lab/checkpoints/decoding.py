"""Decoding with a KV cache: each prompt read once for its whole group, each token drawn from a given uniform number.

A token is the inverse of the cumulative distribution at its own number, so answers depend neither on how prompts are
batched nor on which answers end early. `model.generate` draws from the global generator, reads a prompt once per sample
and applies what a checkpoint brings along (top-k, penalties), so only the library's models and caches are used.
"""

import inspect
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError


@dataclass(frozen=True)
class Stopping:
    """When an answer ends.

    Args:
        tokens: ids that end it.
        texts: texts that end it; ``tokenizer`` turns tokens into text.
        tokenizer: a `transformers` tokenizer, needed for texts only.
    """

    tokens: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    tokenizer: Any = None

    def ends(self, answer: Int64[Tensor, "B N"]) -> Bool[Tensor, "B"]:
        """Whether the last token of each answer so far ends it."""
        stop = torch.tensor(self.tokens, dtype=torch.long, device=answer.device)
        ended = torch.isin(answer[:, -1], stop)
        if self.texts:
            reach = max(len(text.encode()) for text in self.texts) + 8  # a token holds a byte or more; some room
            tails = self.tokenizer.batch_decode(answer[:, -reach:].tolist(), clean_up_tokenization_spaces=False)
            found = [any(text in tail for text in self.texts) for tail in tails]
            ended |= torch.tensor(found, device=answer.device)
        return ended


def precision(model: Any) -> torch.dtype:
    """float64 for probabilities that are summed up, float32 where the device has none."""
    return torch.float32 if model.device.type == "mps" else torch.float64


def batches(model: Any, lengths: list[int], size: int) -> list[list[int]]:
    """Indices of prompts that go together: the longest first, at most ``size`` of them.

    Equal lengths only for a model without position ids (ALiBi, state-space), which cannot be told where a padded prompt
    starts, and for eager attention in float64, whose masked rows overflow to NaN.
    """
    order = sorted(range(len(lengths)), key=lambda q: -lengths[q])
    eager = getattr(model.config, "_attn_implementation", None) == "eager" and model.dtype == torch.float64
    pads = "position_ids" in parameter_names(model) and not eager
    runs = [list(run) for _, run in groupby(order, key=lambda q: 0 if pads else lengths[q])]
    return [run[i : i + size] for run in runs for i in range(0, len(run), size)]


@torch.no_grad()
def generate(
    model: Any,
    prompts: list[list[int]],
    uniform: Float64[ndarray, "Q G N"],
    *,
    temperature: float = 1.0,
    stopping: Stopping | None = None,
) -> tuple[list[list[int]], Float[Tensor, "B N"], Bool[Tensor, "B"]]:
    """Answers of G = uniform.shape[1] samples a prompt, at most N tokens each, from given uniform numbers in [0, 1).

    Padding stands left of a prompt, hidden by mask and positions; answers that have ended leave the batch.

    Returns:
        Tokens of each answer, their log-probabilities (0 beyond the answer) and whether each ended by ``stopping``.

    Raises:
        UserError: the model keeps no cache that can be shared, or its logits are not finite.
    """
    (q, g, n), device = uniform.shape, model.device
    stopping = stopping or Stopping()
    draws = torch.from_numpy(uniform).reshape(q * g, n).to(device, precision(model))
    answer = torch.zeros(q * g, n, dtype=torch.long, device=device)
    logp = torch.zeros_like(draws)
    length, ended = torch.zeros_like(answer[:, 0]), torch.zeros(q * g, dtype=torch.bool, device=device)
    live = torch.arange(q * g, device=device)
    reader = _Reader(model, prompts)
    logits = reader.keep(live // g)
    for t in range(n):
        answer[live, t], logp[live, t] = draw(logits, draws[live, t], temperature)
        length[live] = t + 1
        stops = stopping.ends(answer[live, : t + 1])
        ended[live] = stops
        if t + 1 == n or bool(stops.all()):
            break
        if bool(stops.any()):
            reader.keep(torch.nonzero(~stops)[:, 0])
            live = live[~stops]
        logits = reader.read(answer[live, t])
    return [row[:k] for row, k in zip(answer.tolist(), length.tolist(), strict=True)], logp, ended


def draw(
    logits: Float[Tensor, "B V"], uniform: Float[Tensor, "B"], temperature: float
) -> tuple[Int64[Tensor, "B"], Float[Tensor, "B"]]:
    """One token a row, the first whose cumulative probability exceeds ``uniform``, and its log-probability.

    Raises UserError for logits that are not finite (−∞, a token that cannot come, may stand).
    """
    logp = torch.log_softmax(logits.to(uniform.dtype) / temperature, -1)
    if bool(torch.isnan(logp).any()):
        raise UserError("logits are not finite while sampling; the checkpoint or the learning rate is broken")
    cumulative = logp.exp().cumsum(-1)
    total = cumulative[:, -1:]
    below = torch.nextafter(total, torch.zeros_like(total))  # so that rounding never picks a token beyond the last
    token = torch.searchsorted(cumulative, torch.minimum(uniform[:, None] * total, below), right=True)
    return token[:, 0], logp.gather(1, token)[:, 0]


class _Reader:
    """A model that reads on: its cache, and the mask and positions of the rows that are still read."""

    def __init__(self, model: Any, prompts: list[list[int]]) -> None:
        longest = max(map(len, prompts))
        tokens = torch.full((len(prompts), longest), padding_token(model))
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        names = parameter_names(model)
        self.model, self.padded, self.last = model, "position_ids" in names, "logits_to_keep" in names
        self.slot = "past_key_values" if "past_key_values" in names else "cache_params"
        self.cache: Any = None
        self.mask = mask.to(model.device)
        self.position = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.logits = self._forward(tokens.to(model.device))

    def keep(self, rows: Int64[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """Go on with these rows, which may repeat; returns their last logits."""
        if not hasattr(self.cache, "reorder_cache"):
            raise UserError(f"{type(self.model).__name__} keeps no cache that a group can share; choose another model")
        self.cache.reorder_cache(rows)
        self.mask, self.position, self.logits = self.mask[rows], self.position[rows], self.logits[rows]
        return self.logits

    def read(self, token: Int64[Tensor, "B"]) -> Float[Tensor, "B V"]:
        """Read one more token a row; returns the logits of the next."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        self.position = self.position[:, -1:] + 1
        self.logits = self._forward(token[:, None])
        return self.logits

    def _forward(self, tokens: Tensor) -> Tensor:
        given: dict[str, Any] = {"attention_mask": self.mask, "position_ids": self.position} if self.padded else {}
        given |= {"logits_to_keep": 1} if self.last else {}
        given |= {self.slot: self.cache} if self.cache is not None else {}
        out = self.model(input_ids=tokens, use_cache=True, **given)
        self.cache = getattr(out, self.slot, None)
        logits: Tensor = out.logits[:, -1].to(self.mask.device)
        return logits


def parameter_names(model: Any) -> frozenset[str]:
    """Names of what the model's forward takes."""
    return frozenset(inspect.signature(model.forward).parameters)


def padding_token(model: Any) -> int:
    """A token that the model knows, for places that nothing reads."""
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    return pad if isinstance(pad, int) and 0 <= pad < model.get_input_embeddings().num_embeddings else 0
