"""Forecast: weights come back, moments carry each baseline's factor, schedules, bad checkpoints are named."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny_models
from tests.helpers import unchecked
from vgrad_lab.advantage import Baseline
from vgrad_lab.checkpoints import expected_update, grpo
from vgrad_lab.checkpoints import forecast as module
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.expected_update import heard, moments
from vgrad_lab.checkpoints.forecast import forecast
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import evaluation_prompts
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene, thinned
from vgrad_lab.checkpoints.tasks import LabelCopy

TASK = LabelCopy()
CHEAP = ForecastSettings(prompts=16, micro_batch=4, evaluation_prompts=32, points=2, passes=2)
ADAMW = grpo.GrpoSettings(learning_rate=2e-3, budgets=(3, 8), evaluation_prompts=64)
SGD = grpo.GrpoSettings(optimizer="sgd", learning_rate=0.5, clip=None, budgets=(3, 8), evaluation_prompts=64)


def tiny(family: str = "Olmo2", **changes: Any) -> Checkpoint:
    return Checkpoint(tiny_models.model(family, **changes), tiny_models.tokenizer(), "0" * 64, Path("tiny"))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_same(before: dict[str, torch.Tensor], model: Any) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    assert all(p.grad is None for p in model.parameters())


class Bag(torch.nn.Module):
    """A model of one embedding and one head; its state is the mean of the tokens' embeddings so far."""

    def __init__(self, vocabulary: int = 320, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.head = torch.nn.Linear(width, vocabulary, bias=False)
        with torch.no_grad():
            labels = [tiny_models.tokenizer().encode(f" {y}")[0] for y in TASK.labels]
            self.head.weight[labels] += torch.randn(4, width) + 4 * self.embedding.weight.mean(0)
            self.embedding.weight.add_(1.0)
            self.head.weight[labels] += 0.8

    device = torch.device("cpu")

    def base_model(self, *, input_ids: torch.Tensor, use_cache: bool) -> Any:
        assert not use_cache
        total = self.embedding(input_ids).cumsum(1)
        return SimpleNamespace(last_hidden_state=total / torch.arange(1, input_ids.shape[1] + 1)[:, None])

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head


@pytest.fixture(scope="module")
def bag() -> Checkpoint:
    return Checkpoint(Bag(), tiny_models.tokenizer(), "0" * 64, Path("bag"))


def scene(checkpoint: Checkpoint, rl: grpo.GrpoSettings, settings: ForecastSettings) -> Scene:
    parameters = list(checkpoint.model.parameters())
    evaluation = evaluation_prompts(checkpoint, TASK, settings.evaluation_prompts)
    return Scene(checkpoint.model, parameters, evaluation, rl, settings, 30)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rl", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_weights_come_back_bit_for_bit(rl: grpo.GrpoSettings, tied: bool) -> None:
    checkpoint = tiny(tie_word_embeddings=tied)
    before = weights(checkpoint.model)
    first = forecast(checkpoint, TASK, rl, CHEAP)
    assert_same(before, checkpoint.model)
    np.testing.assert_array_equal(first.reward, forecast(checkpoint, TASK, rl, CHEAP).reward)


def test_weights_come_back_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, looks = tiny(), iter(range(3))
    before, plain = weights(checkpoint.model), expected_update.look

    def fails(s: Scene) -> Any:
        if next(looks, None) is None:
            assert any(not torch.equal(before[k], v) for k, v in s.model.state_dict().items()), "not on its way yet"
            raise KeyboardInterrupt
        return plain(s)

    monkeypatch.setattr(expected_update, "look", fails)
    with pytest.raises(KeyboardInterrupt):
        forecast(checkpoint, TASK, ADAMW, CHEAP)
    assert_same(before, checkpoint.model)


def test_dropout_is_off_and_comes_back() -> None:
    checkpoint = tiny("GPTNeoX", hidden_dropout=0.5)
    calm = forecast(checkpoint, TASK, ADAMW, CHEAP)
    checkpoint.model.train()
    checkpoint.model.get_output_embeddings().eval()
    modes = [m.training for m in checkpoint.model.modules()]
    np.testing.assert_array_equal(calm.reward, forecast(checkpoint, TASK, ADAMW, CHEAP).reward)
    assert modes == [m.training for m in checkpoint.model.modules()]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_family_is_forecast(family: str) -> None:
    f = forecast(tiny(family), TASK, ADAMW, CHEAP)
    assert len(f.reward) == 9
    assert f.reward[-1] > f.reward[0]
    assert np.all((f.lower <= f.reward)[1:] & (f.reward <= f.upper)[1:])
    assert f.backward == 3 * len(f.turns) * CHEAP.prompts + (8 * ADAMW.prompts if f.rehearsed else 0)


def test_schedules_are_those_of_transformers() -> None:
    from transformers import get_scheduler

    for name, warm in (("constant", 0), ("linear", 0), ("linear", 3), ("cosine", 0), ("cosine", 4)):
        rl = dataclasses.replace(ADAMW, schedule=name, warmup=warm, budgets=(10,))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = get_scheduler(name, optimizer, num_warmup_steps=warm, num_training_steps=10)
        expected = []
        for _ in range(10):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        np.testing.assert_allclose(grpo.learning_rates(rl), expected, atol=1e-12)


def test_a_schedule_of_ones_is_none_and_of_zeros_stands_still() -> None:
    checkpoint = tiny()
    plain = forecast(checkpoint, TASK, ADAMW, CHEAP)
    np.testing.assert_array_equal(plain.reward, forecast(checkpoint, TASK, ADAMW, CHEAP, schedule=np.ones(8)).reward)
    still = forecast(checkpoint, TASK, ADAMW, CHEAP, schedule=np.zeros(8)).reward
    np.testing.assert_allclose(still, np.full(9, plain.reward[0]), rtol=1e-12)
    assert len(forecast(checkpoint, TASK, ADAMW, CHEAP, updates=0).reward) == 1
    assert len(forecast(checkpoint, TASK, ADAMW, CHEAP, updates=20).reward) == 21


@pytest.mark.parametrize("group", [2, 4, 64])
def test_every_baseline_has_its_factor(bag: Checkpoint, group: int) -> None:
    """E ĝ = mean of κ(p)∂p: leave-one-out is ∇J itself, the group's mean (G−1)/G of it, ddof a factor of s."""

    def found(baseline: Baseline, ddof: int = 1) -> expected_update.Moments:
        rl = dataclasses.replace(SGD, baseline=baseline, ddof=ddof, group_size=group, eps=0.0)
        s = scene(bag, rl, CHEAP)
        return moments(s, module.fresh_prompts(bag, TASK, CHEAP, 0))

    exact = found("leave_one_out")
    assert exact.slope == pytest.approx(exact.norm2, rel=1e-4)
    assert found("group_mean").slope == pytest.approx(exact.slope * (group - 1) / group, rel=1e-4)
    ratio = np.sqrt(group / (group - 1))
    assert found("standardised", 0).slope == pytest.approx(found("standardised", 1).slope * ratio, rel=1e-4)


def saturated(sign: float) -> Checkpoint:
    """A bag whose label A has probability 0 or 1 exactly."""
    model = Bag()
    label = tiny_models.tokenizer().encode(" A")[0]
    with torch.no_grad():
        model.embedding.weight.fill_(1.0)
        model.head.weight.zero_()
        model.head.weight[label] = sign * 1e4
    return Checkpoint(model, tiny_models.tokenizer(), "0" * 64, Path("saturated"))


@pytest.mark.parametrize("rl", [ADAMW, SGD, dataclasses.replace(SGD, clip=1.0)], ids=["adamw", "sgd", "clipped"])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_without_a_gradient_the_curve_is_flat(rl: grpo.GrpoSettings, sign: float) -> None:
    """p is 1 for a quarter of the prompts and 0 for the rest, so that every group is dead (sign +)."""
    checkpoint = saturated(sign)
    if sign < 0:  # the other labels: one token takes all
        with torch.no_grad():
            checkpoint.model.head.weight[0] = 1e4
    f = forecast(checkpoint, TASK, rl, CHEAP)
    np.testing.assert_allclose(f.reward, np.full(9, f.reward[0]), atol=2e-9)
    assert np.all(np.isfinite([f.lower, f.upper]))


def test_rare_success_is_heard_rarely() -> None:
    """A: the chance that an update has a mixed group; a sampled variance without any success would not know."""
    rl = dataclasses.replace(ADAMW, prompts=1, group_size=2)
    p = np.array([0.25])
    assert heard(p, rl, 10**6) == pytest.approx(2 * 0.25 * 0.75)
    assert heard(np.array([1e-6]), rl, 30) == pytest.approx(2e-6 * 2e-6 * 30, rel=1e-3)
    assert heard(np.zeros(1), rl, 30) > 0
    assert heard(np.full(4, 0.5), grpo.GrpoSettings(), 30) == pytest.approx(1.0)


class Adapter(torch.nn.Module):
    """A linear layer with a low-rank addition that starts at zero."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = torch.nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.up = torch.nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def test_only_trained_parameters_move(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny("Llama")
    for p in checkpoint.model.parameters():
        p.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter"):
        forecast(checkpoint, TASK, ADAMW, CHEAP)
    for layer in checkpoint.model.model.layers:
        layer.mlp.down_proj = Adapter(layer.mlp.down_proj)
    moved, plain = [], expected_update.move

    def watched(parameters: list[torch.Tensor], direction: list[torch.Tensor], length: float) -> None:
        moved.append(len(parameters))
        plain(parameters, direction, length)

    monkeypatch.setattr(expected_update, "move", watched)
    before = weights(checkpoint.model)
    f = forecast(checkpoint, TASK, dataclasses.replace(ADAMW, learning_rate=1e-2), CHEAP)
    assert_same(before, checkpoint.model)
    assert set(moved) == {4}
    assert f.reward[-1] > f.reward[0]


def test_checkpoints_that_cannot_be_forecast_are_named() -> None:
    checkpoint = tiny()
    with pytest.raises(UserError, match="two micro-batches"):
        ForecastSettings(prompts=7, micro_batch=4)
    for change in ({"passes": 0}, {"points": 0}, {"turn": 0.0}):
        with pytest.raises(UserError, match="positive"):
            ForecastSettings(**change)
    for bad in ({"updates": -1}, {"updates": 3, "schedule": np.ones(4)}, {"schedule": np.array([1.0, np.nan])}):
        with pytest.raises(ValueError, match="updates is -1|one per update"):
            unchecked(forecast)(checkpoint, TASK, ADAMW, CHEAP, **bad)
    with pytest.raises(ValueError, match="its schedule ends"):
        unchecked(forecast)(checkpoint, TASK, dataclasses.replace(ADAMW, schedule="linear"), CHEAP, updates=9)
    with pytest.raises(UserError, match="float32"):
        forecast(Checkpoint(tiny().model.bfloat16(), checkpoint.tokenizer, "0", Path("b")), TASK, ADAMW, CHEAP)
    with torch.no_grad():
        next(iter(checkpoint.model.parameters()))[:] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        forecast(checkpoint, TASK, ADAMW, CHEAP)


def test_a_step_that_explodes_is_named_and_undone() -> None:
    checkpoint = tiny()
    before = weights(checkpoint.model)
    with pytest.raises(UserError, match="not finite along the forecast"):
        forecast(checkpoint, TASK, dataclasses.replace(ADAMW, learning_rate=1e36), CHEAP)
    assert_same(before, checkpoint.model)


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_few_prompts_stand_for_all(size: int) -> None:
    checkpoint = tiny()
    settings = dataclasses.replace(CHEAP, evaluation_prompts=256, ray_prompts=size)
    whole = scene(checkpoint, ADAMW, settings)
    n = len(whole.evaluation.last)
    whole = dataclasses.replace(whole, evaluation=dataclasses.replace(whole.evaluation, template=np.arange(n)))
    success = np.random.default_rng(size).random(n) ** 3
    few = thinned(whole, success)
    kept = few.evaluation.template
    assert len(few.evaluation.last) == len(set(kept)) <= size
    np.testing.assert_array_equal(few.evaluation.tokens, whole.evaluation.tokens[kept])
    np.testing.assert_array_equal(few.evaluation.target, whole.evaluation.target[kept])
    assert few.evaluation.weight.sum() == pytest.approx(1.0, abs=1e-12)
    exact = whole.evaluation.weight @ success
    assert few.evaluation.weight @ success[kept] == pytest.approx(exact, abs=0.6 / size)
    same = dataclasses.replace(whole, settings=dataclasses.replace(settings, ray_prompts=n))
    assert thinned(same, success) is same


@pytest.mark.parametrize("changes", [{}, {"kl": 0.1}, {"learning_rate": 1.0}], ids=["plain", "kl", "overshoots"])
@pytest.mark.parametrize("rl", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_cost_counts_each_prompt_that_passed(
    rl: grpo.GrpoSettings, changes: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward: prompts through the backbone, the check's own aside. Backward: as many as had a gradient taken."""
    checkpoint, seen = tiny(), []
    hook = checkpoint.model.base_model.register_forward_hook(lambda _m, _a, k, _o: seen.append(k), with_kwargs=True)
    monkeypatch.setattr(module, "check_answer_logits", lambda *_: None)
    rl = dataclasses.replace(rl, **changes)
    f = forecast(checkpoint, TASK, rl, dataclasses.replace(CHEAP, ray_prompts=5))
    hook.remove()
    assert f.forward == sum(len(k["input_ids"]) for k in seen), "the copy for the KL penalty has the hook too"
    assert f.rehearsed == (rl.optimizer == "sgd" or rl.kl > 0 or f.overshoots)
    assert f.overshoots == (rl.optimizer == "adamw" and rl.learning_rate == 1.0)
    rehearsed = 8 * (16 if rl.optimizer == "adamw" else 8) if f.rehearsed else 0
    assert f.backward == 3 * len(f.turns) * CHEAP.prompts + rehearsed


@pytest.mark.parametrize(
    "bad", [{"ray_prompts": 0}, {"rehearsed_prompts": 0}, {"evaluation_prompts": 0}, {"points": 0}, {"turn": 0.0}]
)
def test_a_forecast_without_prompts_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="give positive numbers"):
        ForecastSettings(**bad)
