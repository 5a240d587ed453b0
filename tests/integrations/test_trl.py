"""The callback inside real GRPO runs of TRL (the opt-in tier: TRL is in the extra ``trl``)."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny_models
from tests.integrations.test_scale import SINGLE
from tests.integrations.trl_runs import even_reward, make_trainer, one_token_reward
from vgrad_lab.integrations import credit_log, doctor
from vgrad_lab.integrations.trl import WRAPPED, VGradCallback
from vgrad_lab.one_step import one_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def record_losses(trainer: Any) -> list[tuple[int, Any, dict[str, Any]]]:
    """Step, copy of the model and inputs of every micro-batch, filled while the trainer trains."""
    kept: list[tuple[int, Any, dict[str, Any]]] = []
    original = trainer.compute_loss

    def spy(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.model.training:
            twin = copy.deepcopy(trainer.model).double()
            for module in twin.modules():
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            kept.append((trainer.state.global_step + 1, twin, {k: v for k, v in inputs.items() if v is not None}))
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy
    return kept


def direct_norms(model: Any, inputs: dict[str, Any], temperature: float) -> list[torch.Tensor]:
    """‖∂(Â Σ ℓ)/∂h‖ per answer at the embedding, between the layers and at the head's input (HF's own states)."""
    model.config.use_cache = False
    model.gradient_checkpointing_disable()
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    out = model.base_model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    width = inputs["prompt_ids"].shape[1]
    logits = out.last_hidden_state[:, width - 1 : -1] @ model.get_output_embeddings().weight.T / temperature
    logp = torch.log_softmax(logits, -1).gather(2, inputs["completion_ids"][..., None])[..., 0]
    surrogate = (inputs["advantages"][:, None] * logp * inputs["completion_mask"]).sum()
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    return [g.flatten(1).norm(dim=1).detach() for g in torch.autograd.grad(surrogate, states)]


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "bnpo", "sapo", "luspo"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 4, "gradient_checkpointing": True, "temperature": 0.7},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "num_iterations": 1, "scale_rewards": "none"},
    ],
    ids=["plain", "accumulated", "checkpointed", "reentrant", "two-updates-per-generation"],
)
def test_costates_of_a_real_run(tmp_path: Path, loss: str, changes: dict[str, Any]) -> None:
    """Within 1e-6 of the direct derivative, weights in float64 (TRL's own log-probabilities are in float32)."""
    model = tiny_models.model("Olmo2", initializer_range=0.3).double().train()
    trainer = make_trainer(tmp_path, even_reward, model=model, callbacks=[VGradCallback()], loss_type=loss, **changes)
    kept = record_losses(trainer)
    trainer.train()
    steps = credit_log.steps(credit_log.read(tmp_path))
    assert [r["step"] for r in steps] == [1, 2]
    for record in steps:
        if "steps_per_generation" in changes and record["step"] == 2:
            continue  # off-policy: the ratio has left 1
        rows = [direct_norms(m, i, trainer.temperature) for step, m, i in kept if step == record["step"]]
        wanted = [float(torch.cat(layer).mean()) for layer in zip(*rows, strict=True)]
        found = [*record["costate_norm"][:-1], record["costate_norm_head"]]
        assert found == pytest.approx(wanted, rel=SINGLE)
        assert min(wanted) > 0


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo"])
@pytest.mark.parametrize("scale", ["group", "none", "batch"])
@pytest.mark.parametrize(("accumulation", "per_generation", "generations"), [(4, 4, 1), (4, 2, 2)])
def test_scales_of_a_real_run(
    tmp_path: Path, loss: str, scale: str, accumulation: int, per_generation: int, generations: int
) -> None:
    """Accumulated and checkpointed, one or two generations a step: λ̂, and κ from the trainer's own advantages."""
    rng = np.random.default_rng(0)
    reward, advantage = [], []

    def coin(completion_ids: list[list[int]], **_: Any) -> list[float]:
        reward.append(rng.integers(0, 2, len(completion_ids)).astype(float))
        return reward[-1].tolist()

    model = tiny_models.model("Olmo2", initializer_range=0.3).double().train()
    trainer = make_trainer(
        tmp_path, coin, model=model, callbacks=[VGradCallback()], loss_type=loss, scale_rewards=scale,
        gradient_accumulation_steps=accumulation, steps_per_generation=per_generation, gradient_checkpointing=True,
        per_device_train_batch_size=4,
    )  # fmt: skip
    original = trainer._generate_and_score_completions

    def spy(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        advantage.append(output["advantages"].double().numpy().copy())
        return output

    trainer._generate_and_score_completions = spy
    kept = record_losses(trainer)
    trainer.train()
    steps = credit_log.steps(credit_log.read(tmp_path))
    assert len(advantage) == generations * len(steps)
    for i, record in enumerate(steps):
        rows = [direct_norms(m, x, trainer.temperature) for step, m, x in kept if step == record["step"]]
        wanted = [float(torch.cat(layer).mean()) for layer in zip(*rows, strict=True)]
        assert [*record["costate_norm"][:-1], record["costate_norm_head"]] == pytest.approx(wanted, rel=SINGLE)
        mine = slice(i * generations, (i + 1) * generations)
        r = np.concatenate(reward[mine]).reshape(-1, 4)
        a = np.concatenate(advantage[mine]).reshape(-1, 4)
        kappa = (a * (r - r.mean(1, keepdims=True))).mean() / r.var(1, ddof=1).mean()
        assert record["grpo_scale"] == pytest.approx(kappa, rel=SINGLE)


@pytest.mark.parametrize("schedule", ["linear", "cosine_with_restarts"])
def test_rates_ahead_are_those_that_come(tmp_path: Path, schedule: str) -> None:
    asked: list[Any] = []

    def own(progress: Any) -> np.ndarray:
        asked.append(progress)
        return np.full(progress.remaining + 1, 0.5)

    trainer = make_trainer(
        tmp_path, one_token_reward, callbacks=[VGradCallback(forecast=own)], lr_scheduler_type=schedule, max_steps=5,
        warmup_steps=2, max_completion_length=1,
    )  # fmt: skip
    trainer.train()
    steps = credit_log.steps(credit_log.read(tmp_path))
    rates = [r["learning_rate"] for r in steps]
    assert [r["forecast_kind"] for r in steps] == ["given"] * 5
    for k, progress in enumerate(asked):
        assert progress.rate_ahead[: 5 - k] == pytest.approx(rates[k:], rel=SINGLE)


def sharp_reward(model: Any) -> Any:
    """1 for the model's own likeliest first answer token."""
    tokenizer = tiny_models.tokenizer()

    def reward(completion_ids: list[list[int]], prompts: list[str], **_: Any) -> list[float]:
        right = {}
        for prompt in set(prompts):
            with torch.no_grad():
                right[prompt] = int(model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].argmax())
        return [float(ids[0] == right[p]) for ids, p in zip(completion_ids, prompts, strict=True)]

    return reward


def test_signal_of_one_token_answers_is_the_closed_form(tmp_path: Path) -> None:
    """Σ, E⟨λ̂,G⟩ and Λ of the prompts whose right token was sampled, weighted by the chance of that."""
    model = tiny_models.model("Olmo2", initializer_range=0.3).train()
    settings = {"max_completion_length": 1, "per_device_train_batch_size": 32, "num_generations": 16}
    reward = sharp_reward(copy.deepcopy(model))
    trainer = make_trainer(tmp_path, reward, model=model, callbacks=[VGradCallback()], temperature=0.5, **settings)
    kept = record_losses(trainer)
    trainer.train()
    defined = 0
    for record in credit_log.steps(credit_log.read(tmp_path)):
        (twin, inputs) = next((m, i) for step, m, i in kept if step == record["step"])
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        with torch.no_grad():
            hidden = twin.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -2].numpy()
        head = twin.get_output_embeddings().weight.detach().numpy() / 0.5
        won = inputs["advantages"].numpy() > 0
        prompts = inputs["prompt_ids"].numpy()
        total = {"signal": 0.0, "alignment": 0.0, "costate_gap": 0.0}
        distinct = np.unique(prompts, axis=0)
        for row in distinct:
            rows = (prompts == row).all(1)
            if not (rows & won).any():
                continue
            best = int(np.flatnonzero(rows & won)[0])
            target = inputs["completion_ids"][best : best + 1, 0].numpy()
            m = one_step(head, hidden[best : best + 1], target, group_size=16)
            weight = 1 / (1 - (1 - m.success[0]) ** 16) / len(distinct)
            total["signal"] += weight * m.signal[0]
            total["alignment"] += weight * m.alignment[0]
            total["costate_gap"] += weight * m.gap_conditional[0]
        if total["signal"]:
            defined += 1
            assert {k: record[k] for k in total} == pytest.approx(total, rel=1000 * SINGLE)
        else:
            assert "signal" not in record
    assert defined


def test_signal_is_not_logged_where_it_is_not_defined(tmp_path: Path) -> None:
    for name, reward, changes in (
        ("several right tokens", even_reward, {"max_completion_length": 1}),
        ("real", even_reward, {"max_completion_length": 3}),
        ("long", one_token_reward, {"max_completion_length": 3}),
        ("truncated", one_token_reward, {"max_completion_length": 1, "top_k": 5}),
    ):
        trainer = make_trainer(tmp_path / name, reward, callbacks=[VGradCallback()], **changes)
        trainer.train()
        for record in credit_log.steps(credit_log.read(tmp_path / name)):
            assert not {"signal", "alignment", "costate_gap"} & set(record), name
            assert "dead_groups" in record
            assert ("success" in record) == (name != "real"), name


def test_numbers_reach_the_trackers_and_training_is_unchanged(tmp_path: Path) -> None:
    """The same weights with and without, bit for bit; names in the trainer's own log; nothing left behind."""
    weights = []
    for callbacks in ([], [VGradCallback()]):
        trainer = make_trainer(tmp_path / str(len(callbacks)), even_reward, callbacks=callbacks)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)
    names = {name for entry in trainer.state.log_history for name in entry}
    for name in ("costate_norm/head", "costate_norm/layer_00", "dead_groups", "headroom", "first_share"):
        assert f"vgrad/{name}" in names
    assert not set(WRAPPED) & set(trainer.__dict__)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())


def test_every_skips_costates_but_not_groups(tmp_path: Path) -> None:
    make_trainer(tmp_path, even_reward, callbacks=[VGradCallback(every=3)], max_steps=5).train()
    steps = credit_log.steps(credit_log.read(tmp_path))
    assert [("costate_norm" in r, "dead_groups" in r) for r in steps] == [
        (True, True), (False, True), (False, True), (True, True), (False, True),
    ]  # fmt: skip


def test_a_second_train_appends_and_evaluation_is_left_alone(tmp_path: Path) -> None:
    from datasets import Dataset

    callback = VGradCallback()
    trainer = make_trainer(tmp_path, even_reward, num_generations_eval=2, per_device_eval_batch_size=4)
    trainer.eval_dataset = Dataset.from_dict({"prompt": ["b =", "bb ="]})
    assert callback.attach(trainer).attach(trainer) is callback
    trainer.args.eval_strategy, trainer.args.eval_steps = "steps", 1
    trainer.train()
    trainer.train()
    assert callback.problem is None
    records = credit_log.read(tmp_path)
    assert [r["kind"] for r in records] == ["start", "step", "step", "end"] * 2


@pytest.mark.parametrize(
    "where", ["_end_micro_batch", "_prepare", "_take_generation", "_end_step", "_begin", "forecast"]
)
def test_a_fault_never_stops_the_run(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    callback = VGradCallback(forecast=broken) if where == "forecast" else VGradCallback()
    if where != "forecast":
        monkeypatch.setattr(callback, where, broken)
    reward = one_token_reward
    trainer = make_trainer(tmp_path, reward, callbacks=[callback], max_completion_length=1)
    with caplog.at_level(logging.WARNING, "vgrad_lab"):
        trainer.train()
    assert trainer.state.global_step == 2
    assert callback.problem == "ZeroDivisionError: planted"
    assert len([r for r in caplog.records if "planted" in r.getMessage()]) == 1
    assert not set(WRAPPED) & set(trainer.__dict__)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules())
    log = tmp_path / credit_log.NAME
    if log.exists():
        assert json.loads(log.read_text().splitlines()[-1]) == {"kind": "disabled", "reason": callback.problem}


def test_a_log_that_cannot_be_written_never_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / credit_log.NAME).mkdir()
    callback = VGradCallback()
    trainer = make_trainer(tmp_path, even_reward, callbacks=[callback])
    trainer.train()
    assert trainer.state.global_step == 2
    assert "IsADirectoryError" in str(callback.problem)


def test_a_trainer_without_groups_disables_the_callback(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    callback = VGradCallback()
    config = SFTConfig(
        output_dir=str(tmp_path), max_steps=1, use_cpu=True, bf16=False, report_to="none", save_strategy="no"
    )
    SFTTrainer(
        model=tiny_models.model("Olmo2").train(), args=config, train_dataset=Dataset.from_dict({"text": ["a b c"] * 8}),
        processing_class=tiny_models.tokenizer(), callbacks=[callback],
    ).train()  # fmt: skip
    assert "GRPOTrainer" in str(callback.problem)


def test_doctor_reads_a_real_run_of_dead_groups(tmp_path: Path) -> None:
    def never(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [0.0] * len(completion_ids)

    make_trainer(tmp_path, never, callbacks=[VGradCallback()], max_steps=20).train()
    result = doctor.diagnose(tmp_path)
    assert {"dead_groups", "reward_flat"} <= {f["name"] for f in result["findings"]}
    assert "all failed in 100%" in doctor.describe(result)
