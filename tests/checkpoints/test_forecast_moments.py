"""Moments of the forecast against their population values, by enumeration of every batch and every answer."""

import math
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints import expected_update, grpo
from vgrad_lab.checkpoints.expected_update import moments
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene
from vgrad_lab.checkpoints.tasks import PromptBatch
from vgrad_lab.impact import grpo_scale
from vgrad_lab.tolerances import PLANTED_FAULT

SINGLE = PLANTED_FAULT / 1000
"""The moments take probabilities in float32, whatever the weights are."""
SGD = grpo.GrpoSettings(optimizer="sgd", clip=None, group_size=2, prompts=5, eps=0.1)


class Table(torch.nn.Module):
    """One row of logits per prompt (a single token), plus one row that all prompts share; float64."""

    def __init__(self, prompts: int, vocabulary: int, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.own = torch.nn.Parameter(torch.from_numpy(0.5 * rng.normal(size=(prompts, vocabulary))))
        self.shared = torch.nn.Parameter(torch.from_numpy(rng.normal(size=vocabulary)))

    device = torch.device("cpu")

    def base_model(self, *, input_ids: Tensor, use_cache: bool) -> Any:
        assert not use_cache
        return SimpleNamespace(last_hidden_state=self.own[input_ids] + 3 * self.shared)

    def get_output_embeddings(self) -> Any:
        return torch.nn.Identity()


def batch(prompts: tuple[int, ...], target: tuple[int, ...]) -> PromptBatch:
    """Prompts of one token each; target: the right answer of each kind of prompt."""
    q = np.array(prompts)
    zeros = np.zeros(len(q), dtype=np.int64)
    return PromptBatch(q[:, None], zeros, np.array(target)[q], np.unique(target), np.full(len(q), 1 / len(q)), zeros)


def scene(model: Table, rl: grpo.GrpoSettings, *, micro_batch: int, count: int) -> Scene:
    settings = ForecastSettings(prompts=micro_batch * count, micro_batch=micro_batch)
    return Scene(model, list(model.parameters()), batch((0,), (0,)), rl, settings, 30)


def flat(parts: Any) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in parts]).numpy()


def slopes(model: Table, value: Tensor) -> np.ndarray:
    return flat(torch.autograd.grad(value, list(model.parameters()), retain_graph=True))


def log_odds(model: Table, prompt: int) -> Tensor:
    return torch.log_softmax(model.own[prompt] + 3 * model.shared, -1)


def updates(model: Table, rl: grpo.GrpoSettings, prompt: int, right: int) -> Iterator[tuple[float, Any, np.ndarray]]:
    """Chance, answers and ascent of every group that one prompt can sample, by REINFORCE on each answer."""
    logp = log_odds(model, prompt)
    score = np.array([slopes(model, x) for x in logp])
    chance = logp.detach().exp().numpy()
    for answers in product(range(len(chance)), repeat=rl.group_size):
        reward = np.array([[float(a == right) for a in answers]])
        advantage = from_group(reward, rl.baseline, ddof=rl.ddof, eps=rl.eps)[0]
        yield math.prod(chance[list(answers)]), answers, advantage @ score[list(answers)] / rl.group_size


@pytest.mark.parametrize(("micro_batch", "count", "left_over"), [(1, 2, 0), (1, 3, 0), (2, 2, 1)])
def test_slope_and_norm_are_unbiased(micro_batch: int, count: int, left_over: int) -> None:
    """Mean over all batches of prompts = ⟨∇J, E ĝ⟩ and ‖E ĝ‖² of the task, which a plug-in misses."""
    rl = grpo.GrpoSettings(optimizer="sgd", clip=None, group_size=3)
    kinds, right = 3, (0, 1, 0)
    model = Table(kinds, 4, seed=2)
    gain = np.array([slopes(model, log_odds(model, q)[right[q]].exp()) for q in range(kinds)])
    p = np.array([log_odds(model, q)[right[q]].exp().item() for q in range(kinds)])
    ascent = grpo_scale(p, 3)[:, None] * gain
    j, g = gain.mean(0), ascent.mean(0)
    found, plug_in = [], []
    s = scene(model, rl, micro_batch=micro_batch, count=count)
    for prompts in product(range(kinds), repeat=micro_batch * count):
        m = moments(s, batch((*prompts, *(0,) * left_over), right))
        found.append((m.slope, m.norm2))
        plug_in.append(float(flat(m.ascent) @ flat(m.ascent)))
        mean = ascent[list(prompts)].mean(0)
        np.testing.assert_allclose(flat(m.ascent), mean, atol=SINGLE * float(np.abs(ascent).max()))
    assert min(row[1] for row in found) > 0, "none cut off at zero"
    truth = np.array([j @ g, g @ g])
    np.testing.assert_allclose(np.mean(found, 0), truth, rtol=SINGLE, atol=1e-15)
    assert np.all(np.abs(np.mean(found, 0) * (1 + PLANTED_FAULT) - truth) > SINGLE * abs(truth[0]))
    assert np.mean(plug_in) > (1 + PLANTED_FAULT) * truth[1]


@pytest.mark.parametrize(
    ("right", "vocabulary", "micro_batch", "count", "baseline"),
    [
        ((0, 1), 2, 1, 2, "standardised"),
        ((0, 1), 2, 1, 2, "group_mean"),
        ((2,), 3, 1, 2, "standardised"),
        ((2,), 3, 1, 2, "leave_one_out"),
        ((1,), 2, 1, 3, "standardised"),
        ((0,), 2, 2, 2, "standardised"),
    ],
)
def test_noise_is_the_variance_of_one_update(
    right: tuple[int, ...],
    vocabulary: int,
    micro_batch: int,
    count: int,
    baseline: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mean over all prompts and answers = Cov(ĝ of one prompt)/prompts, for each parameter."""
    rl = grpo.GrpoSettings(optimizer="sgd", clip=None, group_size=2, prompts=5, eps=0.1, baseline=baseline)
    model = Table(len(right), vocabulary, seed=4)
    atoms = [
        (chance / len(right), q, answers, ascent)
        for q in range(len(right))
        for chance, answers, ascent in updates(model, rl, q, right[q])
    ]
    weight, each = np.array([a[0] for a in atoms]), np.array([a[3] for a in atoms])
    variance = (weight @ each**2 - (weight @ each) ** 2) / rl.prompts
    queue: list[tuple[int, ...]] = []

    def answers_of(probability: Tensor, number: int, **_: Any) -> Tensor:
        assert number == rl.group_size
        return torch.tensor([queue.pop(0) for _ in range(len(probability))])

    monkeypatch.setattr(torch, "multinomial", answers_of)
    monkeypatch.setattr(expected_update, "heard", lambda *_: 1.0)  # no floor for rare success
    s, total = scene(model, rl, micro_batch=micro_batch, count=count), np.zeros(each.shape[1])
    for chosen in product(range(len(atoms)), repeat=micro_batch * count):
        queue[:] = [atoms[i][2] for i in chosen]
        m = moments(s, batch(tuple(atoms[i][1] for i in chosen), right))
        total += math.prod(weight[list(chosen)]) * flat(m.variance)
    tolerance = SINGLE * float(variance.max())
    np.testing.assert_allclose(total, variance, rtol=SINGLE, atol=tolerance)
    assert np.abs(total * (1 + PLANTED_FAULT) - variance).max() > tolerance
