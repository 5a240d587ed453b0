"""The recall task and its training loop."""

import numpy as np
import pytest
import torch

from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec
from vgrad_lab.sequence.tasks import RecallTask, draw_recall
from vgrad_lab.sequence.training import recall_quality, train_recall
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec


def test_every_answer_was_shown() -> None:
    task = RecallTask(pairs=3, keys=5, values=4)
    cases = draw_recall(task, 50, rng=np.random.default_rng(0))
    assert cases.inputs.shape == cases.targets.shape == (50, 11)
    assert torch.equal(cases.inputs[:, 1:], cases.targets[:, :-1])
    assert cases.scored.nonzero().flatten().tolist() == list(task.queries) == [6, 8, 10]
    shown = torch.gather(cases.inputs, 1, cases.source)
    assert torch.equal(shown, cases.targets[:, cases.scored])
    keys = torch.gather(cases.inputs, 1, cases.source - 1)
    assert torch.equal(keys, cases.inputs[:, list(task.queries)])
    assert int(shown.min()) >= 5
    assert all(len(set(row.tolist())) == 3 for row in cases.inputs[:, 0:6:2])


def test_training_learns_one_pair_and_repeats() -> None:
    task = RecallTask(pairs=1, keys=2, values=3)
    runs = []
    for _ in range(2):
        model = Transformer(TransformerSpec(task.vocab, width=16, max_length=4), seed=0, dtype=torch.float32)
        before = recall_quality(model, task)
        losses = train_recall(model, task, steps=40, batch=32, learning_rate=1e-2, seed=1)
        runs.append((losses, recall_quality(model, task)))
    assert runs[0] == runs[1]
    assert before.accuracy < 0.6 < 0.95 < runs[0][1].accuracy
    assert runs[0][1].entropy < before.entropy


def test_refusals() -> None:
    with pytest.raises(ValueError, match="1 ≤ pairs ≤ keys"):
        RecallTask(pairs=9)
    with pytest.raises(ValueError, match="batch is 0"):
        draw_recall(RecallTask(), 0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="vocabulary 16"):
        train_recall(GRU(RecurrentSpec(3), seed=0), RecallTask(), steps=1)
