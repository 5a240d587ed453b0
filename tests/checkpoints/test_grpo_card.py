"""GRPO as it runs on a card, here on the CPU: the same records, the host never asked, memory asked for in parts."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests import tiny_models
from tests.checkpoints.taught import TASK, Free, taught, twin
from vgrad_lab import tolerances
from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints import card, grpo, probe
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import forecast_result, plan_of
from vgrad_lab.checkpoints.precision import running
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.tasks import draw_prompts, encode_prompts

FAST = grpo.GrpoSettings(prompts=8, budgets=(1, 3), evaluation_prompts=32)
SYNCS = ("_local_scalar_dense", "nonzero", "is_nonzero", "aten.equal", "aten.item", "unique", "masked_select")


@pytest.mark.parametrize("baseline", ["standardised", "group_mean", "leave_one_out"])
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13])
def test_advantages_on_a_device_equal_those_in_numpy(baseline: Any, size: int) -> None:
    rng = np.random.default_rng(size)
    binary = rng.integers(0, 2, (64, size)).astype(float)
    for reward in (binary, rng.normal(size=(64, size)), np.ones((2, size)), np.full((2, size), 0.1)):
        for ddof, eps in ((1, 1e-4), (0, 0.0)):
            ours = card.advantages(torch.from_numpy(reward), baseline, ddof=ddof, eps=eps).numpy()
            theirs = from_group(reward, baseline, ddof=ddof, eps=eps)
            np.testing.assert_allclose(ours, theirs, rtol=tolerances.ALGEBRA, atol=1e-14)
            assert np.array_equal(ours == 0, theirs == 0)


@pytest.mark.parametrize(("family", "optimizer"), [("Olmo2", "adamw"), ("Olmo2", "sgd"), ("GPTNeoX", "adamw")])
def test_both_paths_give_the_same_record(family: str, optimizer: str) -> None:
    settings = dataclasses.replace(grpo.default_settings(optimizer), prompts=8, budgets=(1, 3), evaluation_prompts=32)
    here, there = (grpo.train(twin(taught(family)), TASK, settings, seed=5, on_card=c) for c in (False, True))
    for key, value in here.items():
        assert there[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5, abs=1e-7)), key
    assert here["gain_mean"] != 0


@pytest.mark.parametrize(
    "change",
    [{"micro_batch": 3}, {"micro_batch": 1, "kl": 0.3}, {"recompute": True}, {"states": "host"}],
    ids=lambda c: " ".join(c),
)
def test_less_memory_gives_the_same_run(change: dict[str, Any]) -> None:
    """Gradients of parts add up to the whole's; layers computed twice and moments on the host change nothing."""
    base = dataclasses.replace(FAST, kl=change.get("kl", 0.0))
    models = [twin(taught("Olmo2")) for _ in range(2)]
    whole, part = (
        grpo.train(c, TASK, s, seed=2) for c, s in zip(models, (base, dataclasses.replace(base, **change)), strict=True)
    )
    assert part["reward_after"] == pytest.approx(whole["reward_after"], rel=1e-4)
    for a, b in zip(*(m.model.parameters() for m in models), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_a_part_too_few_is_seen() -> None:
    """The comparison above finds a gradient that leaves a prompt out."""
    base = dataclasses.replace(FAST, optimizer="sgd", learning_rate=0.5, clip=None, budgets=(1,))
    models = [twin(taught("Olmo2")) for _ in range(2)]
    batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 8, seed=0))
    for c, settings in zip(models, (base, dataclasses.replace(base, prompts=7)), strict=True):
        generator = torch.Generator().manual_seed(1)
        grpo.step(c.model, grpo.make_optimizer(c.model, settings), batch, 0, settings, generator)
    gap = max(float((a - b).detach().abs().max()) for a, b in zip(*(m.model.parameters() for m in models), strict=True))
    assert gap > 2e-5


def test_host_moments_equal_those_on_the_device_bit_for_bit() -> None:
    models = [twin(taught("GPTNeoX")) for _ in range(2)]
    runs = [
        grpo.train(c, TASK, dataclasses.replace(FAST, states=s, schedule="cosine", warmup=1), seed=0)
        for c, s in zip(models, ("device", "host"), strict=True)
    ]
    assert runs[0] == runs[1]
    assert all(torch.equal(a, b) for a, b in zip(*(m.model.parameters() for m in models), strict=True))


class Questions(TorchDispatchMode):
    """Counts operations for which the host would wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.count.update([name] if any(word in name for word in SYNCS) else [])
        return func(*args, **(kwargs or {}))


def updates(settings: grpo.GrpoSettings, model: Any) -> Callable[[int], None]:
    """A function that makes the update of an index as `train` makes it on a card."""
    batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 4 * settings.prompts, seed=0))
    placed, watch = card.place(model, batch), card.Watch(model.device)
    optimizer, generator = grpo.make_optimizer(model, settings), torch.Generator().manual_seed(0)
    return lambda i: grpo.step(model, optimizer, placed, i, settings, generator, watch=watch)


@pytest.mark.parametrize("family", ["Olmo2", "Llama", "Qwen2", "Qwen3", "GPTNeoX", "GPT2", "Gemma"])
@pytest.mark.parametrize(("optimizer", "precision"), [("adamw", "bfloat16"), ("sgd", "float32")])
def test_the_host_asks_nothing_during_updates(family: str, optimizer: str, precision: Any) -> None:
    from tests.checkpoints.test_precision import model_of

    model = model_of(family)
    settings = dataclasses.replace(FAST, optimizer=optimizer, precision=precision, micro_batch=5)
    with running(model, precision, mask=True), Questions() as questions:
        update = updates(settings, model)
        for i in range(3):
            update(i)
    assert questions.count == Counter()


def test_a_question_is_counted() -> None:
    """Without the given mask the library asks once a pass, and the CPU path asks once an update."""
    with Questions() as questions:
        updates(FAST, twin(taught("Olmo2")).model)(0)
    assert questions.count.total() == 1
    batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 8, seed=0))
    model = twin(taught("Olmo2")).model
    with running(model, mask=True), Questions() as questions:
        grpo.step(model, grpo.make_optimizer(model, FAST), batch, 0, FAST, torch.Generator().manual_seed(0))
    assert questions.count.total() == 1


def test_an_update_runs_where_no_value_can_be_read() -> None:
    """On the meta device any look at a value raises; prompts are moved before the updates, not during them."""
    model = tiny_models.model("Olmo2").to("meta")
    settings = dataclasses.replace(FAST, optimizer="sgd")
    with running(model, mask=True):
        update = updates(settings, model)
        for i in range(2):
            update(i)
    batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 8, seed=0))
    optimizer, generator = grpo.make_optimizer(model, settings), torch.Generator().manual_seed(0)
    with running(model, mask=True), pytest.raises(RuntimeError):
        grpo.step(model, optimizer, batch, 0, settings, generator)


def test_the_watch_names_the_first_update_that_was_not_finite() -> None:
    watch = card.Watch(torch.device("cpu"))
    for i, finite in enumerate((True, True, False, True)):
        watch.note(torch.tensor(finite), i)
    watch.check(2)
    for asked in (3, 4):
        with pytest.raises(UserError, match="not finite at update 3; lower the learning rate"):
            watch.check(asked)


@pytest.mark.parametrize("on_card", [False, True])
def test_an_explosion_is_told_at_the_next_budget(on_card: bool) -> None:
    settings = dataclasses.replace(FAST, optimizer="sgd", learning_rate=1e30, clip=None, budgets=(4,))
    with pytest.raises(UserError, match=r"not finite (at|after)"):
        grpo.train(twin(taught("Olmo2")), TASK, settings, seed=0, on_card=on_card)


def test_samples_do_not_depend_on_the_parts() -> None:
    """Drawn row by row from one generator: on the CPU a smaller micro-batch samples the same answers."""
    chance = torch.softmax(torch.randn(12, 50, generator=torch.Generator().manual_seed(0)), -1)
    draws = []
    for size in (12, 5, 1):
        generator = torch.Generator().manual_seed(3)
        parts = [torch.multinomial(part, 8, replacement=True, generator=generator) for part in chance.split(size)]
        draws.append(torch.cat(parts))
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(draws))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("precision", "float16", "precision is 'float16'; choose one of float32, bfloat16"),
        ("states", "disk", "states 'disk'; give at least 1 prompt, and device or host"),
        ("micro_batch", 0, "micro_batch is 0"),
    ],
)
def test_bad_settings_are_refused(name: str, value: object, message: str) -> None:
    settings = dataclasses.replace(FAST)
    object.__setattr__(settings, name, value)
    with pytest.raises(UserError, match=message):
        settings.__post_init__()


def test_old_protocols_keep_their_facts() -> None:
    """What came later is no part of a record at its default, and is at any other value."""
    later = {"precision", "recompute", "states"}
    assert not later & set(grpo.facts(FAST))
    changed = dataclasses.replace(FAST, precision="bfloat16", recompute=True, states="host")
    assert later <= set(grpo.facts(changed))


@pytest.mark.parametrize("family", ["Olmo2", "Qwen2"])
def test_measures_and_forecasts_agree_with_those_of_a_card(family: str) -> None:
    """With the mask given as on a card, each number of a record within float32 tolerance."""
    checkpoint = twin(taught(family))
    measures = probe.MeasureSettings(prompts=24, sampled_groups=8)
    plan = plan_of(FAST, ForecastSettings(passes=2, prompts=16, points=3, evaluation_prompts=24, ray_prompts=12))
    here = [probe.measure(checkpoint, TASK, measures), forecast_result(checkpoint, TASK, plan)]
    with running(checkpoint.model, mask=True):
        there = [probe.measure(checkpoint, TASK, measures), forecast_result(checkpoint, TASK, plan)]
    for one, other in zip(here, there, strict=True):
        assert flat(other) == pytest.approx(flat(one), rel=1e-4, abs=1e-7)


def flat(value: Any) -> list[float]:
    """All numbers of a record, in order."""
    if isinstance(value, dict):
        return [x for key in sorted(value) for x in flat(value[key])]
    if isinstance(value, list):
        return [x for item in value for x in flat(item)]
    return [float(value)] if isinstance(value, int | float) else []


def test_prompts_are_moved_once_on_a_card_and_not_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    place = grpo.place
    monkeypatch.setattr(grpo, "place", lambda model, batch: moved.append(1) or place(model, batch))
    for on_card in (True, False):
        grpo.train(twin(taught("Olmo2")), TASK, FAST, seed=0, on_card=on_card)
    assert moved == [1]


def test_a_logit_of_minus_infinity_is_not_finite() -> None:
    """It leaves loss and gradient finite: the logits are looked at too."""
    model = Free(0.5)
    with torch.no_grad():
        model.weight[7] = -torch.inf
    batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 8, seed=0))
    settings = dataclasses.replace(FAST, optimizer="sgd")
    with pytest.raises(UserError, match="not finite at update 1"):
        grpo.step(model, grpo.make_optimizer(model, settings), batch, 0, settings, torch.Generator().manual_seed(0))
