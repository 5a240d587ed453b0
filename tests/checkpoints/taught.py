"""Models of few parameters that a forecast is tried on: tiny ones taught the task for a while, and free logits."""

import copy
import dataclasses
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests import tiny_models
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import answer_logits, on_device
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts, label_tokens

TASK = LabelCopy()
VOCABULARY = 320


def checkpoint_of(model: Any) -> Checkpoint:
    """A checkpoint of a model over the tiny tokenizer."""
    return Checkpoint(model, tiny_models.tokenizer(), "0" * 64, Path("tiny"))


def twin(checkpoint: Checkpoint) -> Checkpoint:
    """The same with weights of its own, to be trained."""
    return dataclasses.replace(checkpoint, model=copy.deepcopy(checkpoint.model))


@cache
def taught(family: str, success: float = 0.4, *, seed: int = 0) -> Checkpoint:
    """A tiny model taught right answers until a batch's mean success exceeds ``success``; never train it itself."""
    model = tiny_models.model(family, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    rng = np.random.default_rng([seed, 77])
    for _ in range(300):
        batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 32, rng=rng))
        tokens, last, target = on_device(model, batch, slice(0, 32))
        logp = torch.log_softmax(answer_logits(model, tokens, last), -1)[torch.arange(32), target]
        if float(logp.detach().exp().mean()) > success:
            break
        optimizer.zero_grad()
        torch.autograd.backward(-logp.mean())
        optimizer.step()
    optimizer.zero_grad()
    return checkpoint_of(model.eval())


class Free(torch.nn.Module):
    """Free logits that all prompts share, the right answer first: every prompt has the same p and the same gradient.

    With the other logits equal it is a coin of log-odds u − ln(V − 1), which no update takes off its line.
    """

    device = torch.device("cpu")

    def __init__(self, success: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(VOCABULARY, dtype=torch.float64))
        with torch.no_grad():
            self.weight[0] = np.log(success / (1 - success)) + np.log(VOCABULARY - 1)
        labels = torch.from_numpy(label_tokens(TASK, tiny_models.tokenizer()))
        order = torch.arange(VOCABULARY).repeat(VOCABULARY, 1)
        order[labels, labels], order[labels, 0] = 0, labels
        self.register_buffer("order", order)
        self.register_buffer("labels", labels)

    def base_model(self, *, input_ids: Tensor, use_cache: bool) -> Any:
        """States: the label that a prompt's tokens so far hold (each prompt states one), else token 0."""
        assert not use_cache
        stated = torch.where(torch.isin(input_ids, self.labels), input_ids, 0).cummax(1).values
        return SimpleNamespace(last_hidden_state=stated[..., None].double())

    def get_output_embeddings(self) -> Any:
        """Logits with the first and the stated label's entry exchanged."""
        return lambda stated: self.weight[self.order[stated[..., 0].long()]]
