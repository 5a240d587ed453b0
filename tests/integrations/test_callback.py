"""The callback on a trainer in the shape of TRL's (test_trl.py has the real one, in the opt-in tier)."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny_models
from tests.helpers import unchecked
from tests.integrations.fake_grpo import PROMPT, FakeGRPO
from vgrad_lab.integrations import credit_log, window
from vgrad_lab.integrations.outlook import Progress
from vgrad_lab.integrations.trl import WRAPPED, VGradCallback
from vgrad_lab.one_step import one_step
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT

SINGLE = PLANTED_FAULT / 1000
"""OLMo-2's norms are computed in float32."""


def five(completion_ids: Tensor) -> Tensor:
    """1 for token 5 first: one right token."""
    return (completion_ids[:, 0] == 5).double()


def even(completion_ids: Tensor) -> Tensor:
    """1 for an even first token: several right tokens."""
    return (completion_ids[:, 0] % 2 == 0).double()


def run(folder: Path, reward: Any = five, *, callback: Any = None, **changes: Any) -> tuple[FakeGRPO, Any, list[Any]]:
    trainer = FakeGRPO(folder, reward, **changes)
    callback = (VGradCallback() if callback is None else callback).attach(trainer)
    trainer.train()
    found = credit_log.steps(credit_log.read(folder)) if (folder / credit_log.NAME).is_file() else []
    return trainer, callback, found


def replay(folder: Path, check: Any, reward: Any = five, **changes: Any) -> list[dict[str, Any]]:
    """Run once; on each step hand a copy of the model before its update and the step's inputs to ``check``."""
    trainer = FakeGRPO(folder, reward, **changes)
    original, kept = trainer.compute_loss, []

    def spy(model: Any, inputs: dict[str, Tensor], return_outputs: bool = False) -> Tensor:
        twin = copy.deepcopy(trainer.model)
        for module in twin.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        kept.append((trainer.state.global_step + 1, twin, inputs))
        return original(model, inputs)

    trainer.compute_loss = spy  # type: ignore[method-assign]
    VGradCallback().attach(trainer)
    trainer.train()
    records = credit_log.steps(credit_log.read(folder))
    for record in records:
        check(record, [(twin, inputs) for step, twin, inputs in kept if step == record["step"]])
    return records


@pytest.mark.parametrize("length", [1, 3])
def test_costate_norms_are_the_direct_ones(tmp_path: Path, length: int) -> None:
    def check(record: dict[str, Any], parts: list[Any]) -> None:
        norms = []
        for twin, inputs in parts:
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
            out = twin.base_model(input_ids=ids, output_hidden_states=True, use_cache=False)
            logits = out.last_hidden_state[:, PROMPT - 1 : -1] @ twin.get_output_embeddings().weight.T
            logp = torch.log_softmax(logits, -1).gather(2, inputs["completion_ids"][..., None])[..., 0]
            states = [*out.hidden_states[:-1], out.last_hidden_state]
            found = torch.autograd.grad((inputs["advantages"][:, None] * logp).sum(), states)
            norms.append([g.flatten(1).norm(dim=1) for g in found])
        truth = [float(torch.cat(layer).mean()) for layer in zip(*norms, strict=True)]
        found_norms = [*record["costate_norm"][:-1], record["costate_norm_head"]]
        assert found_norms == pytest.approx(truth, rel=SINGLE)
        assert found_norms != pytest.approx([v * (1 + PLANTED_FAULT) for v in truth], rel=SINGLE)
        assert record["last_share"] == pytest.approx(1.0) if length == 1 else record["last_share"] < 1

    replay(tmp_path, check, even, length=length)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_signal_is_the_weighted_closed_form(tmp_path: Path, accumulation: int, temperature: float) -> None:
    def check(record: dict[str, Any], parts: list[Any]) -> None:
        twin = parts[0][0]
        inputs = {n: torch.cat([p[n] for _, p in parts]) for n in ("prompt_ids", "completion_ids")}
        with torch.no_grad():
            hidden = twin.base_model(input_ids=inputs["prompt_ids"], use_cache=False).last_hidden_state[:, -1].numpy()
        head = twin.get_output_embeddings().weight.detach().numpy() / temperature
        prompts, right = inputs["prompt_ids"].numpy(), inputs["completion_ids"][:, 0].numpy() == 5
        distinct, total = np.unique(prompts, axis=0), np.zeros(3)
        for row in distinct:
            rows = (prompts == row).all(1)
            if (rows & right).any():
                first = int(np.flatnonzero(rows)[0])
                m = one_step(head, hidden[first : first + 1], np.array([5]), group_size=8)
                each = np.array([m.signal[0], m.alignment[0], m.gap_conditional[0]])
                total += each / (1 - (1 - m.success[0]) ** 8) / len(distinct)
        found = [record.get(name, 0.0) for name in ("signal", "alignment", "costate_gap")]
        assert found == pytest.approx(total, rel=SINGLE)

    records = replay(tmp_path, check, accumulation=accumulation, temperature=temperature, prompts=8)
    assert any("signal" in r for r in records)


def test_signal_is_undefined_off_policy_with_several_right_tokens_and_with_other_heads(tmp_path: Path) -> None:
    _, _, records = run(tmp_path / "reuse", generate_every=2, steps=4, prompts=8)
    assert ["signal" in r for r in records][1::2] == [False, False]
    assert ["dead_groups" in r for r in records] == [True, False, True, False]
    _, callback, records = run(tmp_path / "several", even, steps=6, prompts=8)
    assert callback.problem is None
    assert "signal" not in records[-1]
    assert "success" in records[-1]
    for name, value in (("top_k", 5), ("top_p", 0.9), ("generation_kwargs", {"top_k": 3})):
        trainer = FakeGRPO(tmp_path, five)
        assert window.plain_head(trainer) is not None
        setattr(trainer.args, name, value)
        assert window.plain_head(trainer) is None
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        trainer = FakeGRPO(tmp_path, five)
        setattr(trainer.model.config, name, 30.0)
        assert window.plain_head(trainer) is None


def test_two_right_tokens_that_no_group_shows_together_are_found_by_their_number(tmp_path: Path) -> None:
    """Groups of two show two right tokens in one group seldom; the surplus of successes gives them away."""
    _, callback, records = run(tmp_path, lambda ids: (ids[:, 0] != 3).double(), steps=3, prompts=16, group=2)
    assert "signal" not in records[-1]
    assert not callback._single


@pytest.mark.parametrize("seed", range(4))
def test_one_right_token_is_never_called_several(tmp_path: Path, seed: int) -> None:
    model = tiny_models.causal("Olmo2", seed=seed)
    _, callback, records = run(tmp_path, model=model, steps=12, prompts=8)
    assert callback._single
    assert all(0 <= r["forecast_final"] <= 1 for r in records if "forecast_final" in r)


def test_trackers_get_numbers_only_and_the_log_gets_the_gradient_norm(tmp_path: Path) -> None:
    trainer, _, records = run(tmp_path)
    metrics = trainer._metrics["train"]
    assert all(isinstance(v, float) for values in metrics.values() for v in values)
    assert len(metrics["vgrad/costate_norm/layer_00"]) == 3
    assert "vgrad/learning_rate" not in metrics
    assert [r["grad_norm"] for r in records] == [1.5, 2.5, 3.5]
    assert [r["kind"] for r in credit_log.read(tmp_path)] == ["start", "step", "step", "step", "end"]


def test_a_forecast_of_the_users_own_is_asked_each_step(tmp_path: Path) -> None:
    asked: list[Progress] = []

    def mine(progress: Progress) -> np.ndarray:
        asked.append(progress)
        return np.linspace(0.0, 0.5, progress.remaining + 1)

    _, _, records = run(tmp_path, callback=VGradCallback(forecast=mine))
    assert [p.remaining for p in asked] == [2, 1, 0]
    assert asked[-1].gradient_norm[:2] == pytest.approx([1.5, 2.5], rel=CLOSED_FORM)
    assert [r["forecast_final"] for r in records] == [0.5, 0.5, 0.0]
    assert asked[0].optimizer == "adamw"


def test_every_and_nothing_left_behind(tmp_path: Path) -> None:
    trainer, _, records = run(tmp_path, callback=VGradCallback(every=2))
    assert ["costate_norm" in r for r in records] == [True, False, True]
    assert all("dead_groups" in r for r in records)
    assert not set(WRAPPED) & set(trainer.__dict__)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())


@pytest.mark.parametrize("fault", ["loss", "layers", "packed", "log"])
def test_faults_are_said_once_and_training_goes_on(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = FakeGRPO(tmp_path, five)
    callback = VGradCallback(log="a/b\0c" if fault == "log" else credit_log.NAME).attach(trainer)
    if fault == "loss":
        trainer.loss_type = "new_loss"
    if fault == "packed":
        callback._prepare = lambda inputs: setattr(  # type: ignore[method-assign]
            callback, "_batch", window.MicroBatch(torch.ones(3), PROMPT, torch.ones(3).long(), None)
        )
    if fault == "layers":
        trainer.model.config.num_hidden_layers = 99
    before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    with caplog.at_level(logging.WARNING, "vgrad_lab"):
        trainer.train()
    assert trainer.state.global_step == 3
    assert not torch.equal(before, torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    said = [r.getMessage() for r in caplog.records if "VGradCallback" in r.getMessage()]
    if fault == "layers":  # the head's input is watched all the same
        records = credit_log.steps(credit_log.read(tmp_path))
        assert callback.problem is None
        assert all(r["costate_norm"] == [] and r["costate_norm_head"] >= 0 for r in records)
    else:
        assert len(said) == 1
        assert str(callback.problem) in said[0]


def test_without_a_trainer_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    callback = VGradCallback()
    with caplog.at_level(logging.WARNING, "vgrad_lab"):
        callback.on_train_begin(None, object(), None)
    assert callback.problem is not None
    with pytest.raises(ValueError, match="every is 0"):
        unchecked(VGradCallback.__init__)(callback, every=0)
