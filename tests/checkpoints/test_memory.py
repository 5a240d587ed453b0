"""Bytes counted from config.json alone against tensors of real runs."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import tiny_models
from tests.checkpoints.taught import TASK
from vgrad_lab.checkpoints import grpo, memory, probe
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.plan import gigabytes
from vgrad_lab.checkpoints.precision import recomputing, running
from vgrad_lab.checkpoints.tasks import draw_prompts, encode_prompts

FAST = grpo.GrpoSettings(prompts=4, budgets=(1,))
OLMO = {"vocab_size": 100_352, "tie_word_embeddings": False}
ONE = transformers.Olmo2Config(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=16, **OLMO
)
SEVEN = transformers.Olmo2Config(
    hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32, **OLMO
)


def size(tensors: Any) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


@pytest.mark.parametrize("family", ["Olmo2", "Llama", "Qwen2", "GPTNeoX"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weights_gradients_and_moments_are_those_of_a_run(family: str, optimizer: Any) -> None:
    """Gradients held before a step and an optimiser's states after it, byte for byte."""
    model = tiny_models.model(family)
    settings = dataclasses.replace(FAST, optimizer=optimizer)
    counted = memory.memory_needed(model.config, settings)
    made = grpo.make_optimizer(model, settings)
    batch = encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, 4, seed=0))
    held: list[int] = []
    made.register_step_pre_hook(lambda *_: held.append(size(p.grad for p in model.parameters() if p.grad is not None)))
    grpo.step(model, made, batch, 0, settings, torch.Generator().manual_seed(0))
    moments = [x for state in made.state.values() for x in state.values() if torch.is_tensor(x) and x.ndim]
    assert counted.weights == size(model.parameters())
    assert counted.gradients == held[0]
    assert counted.moments == size(moments)
    assert counted.host == 2 * counted.weights


@pytest.mark.parametrize("family", ["Olmo2", "Llama", "GPTNeoX", "Qwen2"])
@pytest.mark.parametrize("again", [False, True])
def test_activations_are_those_of_a_pass(family: str, again: bool) -> None:
    """Storages that a real forward pass keeps for the backward one; attention keeps other things on other devices."""
    model = tiny_models.model(family)
    settings = dataclasses.replace(FAST, recompute=again)
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    tokens, last = torch.zeros(4, 24, dtype=torch.int64), torch.full((4,), 23)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
    with running(model, mask=True), recomputing(model, again), hooks:
        torch.log_softmax(probe.answer_logits(model, tokens, last), -1).exp().mean()
    real = sum(x.untyped_storage().nbytes() for x in kept.values())
    counted = memory.memory_needed(model.config, settings, length=24).activations
    assert counted == pytest.approx(real, rel=0.15)


def test_a_smaller_micro_batch_or_recomputing_needs_less() -> None:
    config = tiny_models.config("Olmo2")
    whole, part, again = (
        memory.memory_needed(config, dataclasses.replace(FAST, **change)).activations
        for change in ({}, {"micro_batch": 1}, {"recompute": True})
    )
    assert part == pytest.approx(whole / 4, rel=0.1)
    assert again < 0.3 * whole


def test_a_penalty_and_rounded_matrices_are_counted() -> None:
    config = tiny_models.config("Olmo2")
    plain = memory.memory_needed(config, FAST)
    changed = memory.memory_needed(config, dataclasses.replace(FAST, kl=0.1, precision="bfloat16"))
    model = tiny_models.model("Olmo2")
    matrices = [m.weight for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)]
    assert changed.reference == plain.weights
    assert changed.rounded == size(matrices) // 2
    assert changed.device == plain.device + changed.reference + changed.rounded


def test_one_billion_and_seven() -> None:
    """Weights are 5.94 and 29.2 GB, as the files on the hub; 7B with AdamW fits a card of 141 GB, not one of 80."""
    one, seven = (memory.memory_needed(c, grpo.GrpoSettings(recompute=True)) for c in (ONE, SEVEN))
    assert one.weights == pytest.approx(5.94e9, rel=1e-3)
    assert seven.weights == pytest.approx(29.2e9, rel=1e-3)
    assert 4 * seven.weights < seven.device < 141e9 / memory.SLACK
    host = memory.memory_needed(SEVEN, grpo.GrpoSettings(recompute=True, states="host"))
    assert 2 * seven.weights < host.device < 80e9 / memory.SLACK
    assert host.host - seven.host == 4 * seven.weights
    assert host.describe().startswith("59.0 GB on the device (weights 29.2 GB, gradients 29.2 GB, activations ")


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    memory.require_memory(ONE, grpo.GrpoSettings(), int(80e9))
    with pytest.raises(
        UserError, match=r"needs about 130.4 GB .* has 80.0 GB; with --recompute --states host it needs"
    ):
        memory.require_memory(SEVEN, grpo.GrpoSettings(), int(80e9))
    with pytest.raises(UserError, match=r"has 28.0 GB; with --recompute it needs 2\d"):
        memory.require_memory(ONE, grpo.GrpoSettings(), int(28e9))
    with pytest.raises(UserError, match="take a larger device, a smaller model, or --optimizer sgd"):
        memory.require_memory(ONE, grpo.GrpoSettings(), int(8e9))


def test_a_forecast_that_does_not_fit_is_refused() -> None:
    needed = memory.forecast_needed(ONE)
    assert needed == pytest.approx(95.0e9, rel=0.01)
    memory.require_forecast_memory(ONE, needed)
    with pytest.raises(UserError, match=r"needs about 95.0 GB .* has 80.0 GB; leave it out with --no-forecast"):
        memory.require_forecast_memory(ONE, int(80e9))


SCRIPT = """
import threading, time
from tests import tiny_models
from tests.checkpoints.taught import TASK, checkpoint_of
from vgrad_lab.checkpoints import grpo, probe
from vgrad_lab.checkpoints.forecast import forecast_result, plan_of
from vgrad_lab.checkpoints.scene import ForecastSettings

rl = grpo.GrpoSettings(budgets=(6,), prompts=4, evaluation_prompts=8)
plan = plan_of(rl, ForecastSettings(passes=3, prompts=8, micro_batch=4, points=2, evaluation_prompts=8, ray_prompts=4))
work = {
    "measure": lambda c: probe.measure(c, TASK, probe.MeasureSettings(prompts=16, sampled_groups=4)),
    "rl": lambda c: grpo.train(c, TASK, rl, seed=0),
    "forecast": lambda c: forecast_result(c, TASK, plan),
}
small = checkpoint_of(tiny_models.model("Olmo2"))
sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 4}
large = checkpoint_of(tiny_models.model("Olmo2", num_attention_heads=8, num_key_value_heads=8, **sizes))
weights = 4 * sum(p.numel() for p in large.model.parameters())
for act in work.values():
    act(small)
peak = 0

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def watch():
    global peak
    while True:
        peak = max(peak, used())
        time.sleep(0.002)

before = used()
threading.Thread(target=watch, daemon=True).start()
for name, act in work.items():
    peak = 0
    act(large)
    print(name, (peak - before) / weights)
"""


@pytest.mark.slow
def test_peaks_of_each_stage() -> None:
    """Resident memory above the weights, in units of the weights: gradients; those and moments; a forecast's share."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True)
    seen = {name: float(value) for name, value in (line.split() for line in run.stdout.splitlines() if line)}
    assert 0.9 < seen["measure"] < 1.6
    assert 2.9 < seen["rl"] < 3.4
    assert 9 < seen["forecast"] + 1 < memory.FORECAST_COPIES


def test_the_page_states_these_numbers() -> None:
    """The table of docs/real_ladders.md, line by line."""
    text = (Path(__file__).parents[2] / "docs" / "real_ladders.md").read_text(encoding="utf-8")
    adamw, sgd = grpo.default_settings("adamw"), grpo.default_settings("sgd")
    lines = {
        "AdamW": adamw,
        "AdamW, `--dtype bfloat16`": dataclasses.replace(adamw, precision="bfloat16"),
        "AdamW, `--recompute`": dataclasses.replace(adamw, recompute=True),
        "AdamW, `--recompute --states host`": dataclasses.replace(adamw, recompute=True, states="host"),
        "SGD, `--recompute`": dataclasses.replace(sgd, recompute=True),
    }
    for name, settings in lines.items():
        found = [memory.memory_needed(config, settings) for config in (ONE, SEVEN)]
        cells = [gigabytes(size) for one in found for size in (one.device, one.host)]
        assert f"| {name} | {' | '.join(cells)} |" in text
    needed = [memory.forecast_needed(config) for config in (ONE, SEVEN)]
    assert f"| a forecast | {gigabytes(needed[0])} | 11.9 GB | {gigabytes(needed[1])} | 58.4 GB |" in text
