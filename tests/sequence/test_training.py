"""The tasks and the training loop."""

import numpy as np
import pytest
import torch

from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec
from vgrad_lab.sequence.tasks import DelayedTask, LabelTask, RecallTask, Task, draw, draw_recall
from vgrad_lab.sequence.training import quality, train, train_stages
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

TASKS = (RecallTask(pairs=3, keys=5, values=4), DelayedTask(delay=4, values=3), LabelTask(fill=5, labels=3))


@pytest.mark.parametrize("task", TASKS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_every_answer_was_shown(task: Task, seed: int) -> None:
    cases = draw(task, 50, rng=np.random.default_rng(seed))
    assert cases.inputs.shape == cases.targets.shape == (50, task.length)
    assert torch.equal(cases.inputs[:, 1:], cases.targets[:, :-1])
    assert cases.scored.nonzero().flatten().tolist() == list(task.queries)
    assert torch.equal(torch.gather(cases.inputs, 1, cases.source), cases.targets[:, cases.scored])
    assert bool(cases.shown[cases.source].all()), "a source is one of the shown positions"
    assert 0 <= int(cases.inputs.min()) <= int(cases.inputs.max()) < task.vocab
    again = draw(task, 50, rng=np.random.default_rng(seed))
    assert torch.equal(again.inputs, cases.inputs)


def test_recall_asks_by_key() -> None:
    task = RecallTask(pairs=3, keys=5, values=4)
    cases = draw_recall(task, 50, rng=np.random.default_rng(0))
    keys = torch.gather(cases.inputs, 1, cases.source - 1)
    assert torch.equal(keys, cases.inputs[:, list(task.queries)])
    assert cases.shown.nonzero().flatten().tolist() == [1, 3, 5]
    assert all(len(set(row.tolist())) == 3 for row in cases.inputs[:, 0:6:2])


def test_delayed_recall_asks_for_the_first() -> None:
    task = DelayedTask(delay=4, values=3)
    cases = draw(task, 200, rng=np.random.default_rng(0))
    assert torch.equal(cases.source, torch.zeros(200, 1, dtype=torch.int64))
    assert bool((cases.inputs[:, -1] == 3).all())
    assert cases.inputs[:, :-1].unique().tolist() == [0, 1, 2], "what delays looks like what is asked"


def test_label_copying_states_one_label_once() -> None:
    task = LabelTask(fill=5, labels=3, markers=2, fillers=2)
    cases = draw(task, 300, rng=np.random.default_rng(0))
    body = cases.inputs[:, :-1]
    assert bool(((body < 3).sum(1) == 1).all())
    assert bool((((body >= 3) & (body < 5)).sum(1) == 1).all())
    marker = torch.gather(cases.inputs, 1, cases.source - 1)[:, 0]
    assert torch.equal(marker, cases.inputs[:, -1])
    assert sorted(set(cases.source.flatten().tolist())) == [1, 2, 3, 4, 5, 6], "anywhere before the last marker"


def test_training_learns_one_pair_and_repeats() -> None:
    task = RecallTask(pairs=1, keys=2, values=3)
    runs = []
    for _ in range(2):
        model = Transformer(TransformerSpec(task.vocab, width=16, max_length=4), seed=0, dtype=torch.float32)
        before = quality(model, task)
        losses = train(model, task, steps=40, batch=32, learning_rate=1e-2, seed=1)
        runs.append((losses, quality(model, task)))
    assert runs[0] == runs[1]
    assert before.accuracy < 0.6 < 0.95 < runs[0][1].accuracy
    assert runs[0][1].entropy < before.entropy


def test_a_pause_changes_nothing() -> None:
    task = DelayedTask(delay=2, values=3)
    whole, parts = (GRU(RecurrentSpec(task.vocab), seed=0) for _ in range(2))
    losses = train(whole, task, steps=9, batch=4)
    pauses = list(train_stages(parts, task, steps=9, stops=(0, 2, 9), batch=4))
    assert [len(p) for p in pauses] == [0, 2, 7]
    assert [x for p in pauses for x in p] == losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_training_ends_with_the_last_stop() -> None:
    task = DelayedTask(delay=2, values=3)
    model = GRU(RecurrentSpec(task.vocab), seed=0)
    start = [p.clone() for p in model.parameters()]
    assert list(train_stages(model, task, steps=9, stops=(0,))) == [[]]
    assert all(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="1 ≤ pairs ≤ keys"):
        RecallTask(pairs=9)
    with pytest.raises(ValueError, match="delay ≥ 1"):
        DelayedTask(delay=0)
    with pytest.raises(ValueError, match="labels ≥ 2"):
        LabelTask(labels=1)
    for task in TASKS:
        with pytest.raises(ValueError, match="batch is 0"):
            draw(task, 0, rng=np.random.default_rng(0))
    model = GRU(RecurrentSpec(3), seed=0)
    with pytest.raises(ValueError, match="vocabulary 16"):
        train(model, RecallTask(), steps=1)
    for stops in ((2, 1), (0, 0), (-1,), (4,)):
        with pytest.raises(ValueError, match="0 … 3"):
            train_stages(model, DelayedTask(values=2), steps=3, stops=stops)
