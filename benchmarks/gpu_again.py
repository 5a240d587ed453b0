"""Part d of benchmarks/gpu.py: what differs between two equal runs, two precisions, two devices."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gpu_rates import guarded
from gpu_setup import Job

from vgrad_lab.checkpoints.embedded import TINY as TINY_LADDER
from vgrad_lab.checkpoints.embedded import pretrain
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings, train
from vgrad_lab.checkpoints.ladders import Rung, list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.precision import running
from vgrad_lab.checkpoints.probe import MeasureSettings, measure
from vgrad_lab.checkpoints.tasks import LabelCopy

Row = dict[str, Any]
NAMES = ("reward_before", "signal", "costate_gap_conditional", "headroom_within", "gradient_l1", "gradient_l2_squared",
         "entropy")  # fmt: skip
"""What is compared of a measure."""


def run(job: Job) -> dict[str, Any]:
    """On the rung of part b's ladder whose reward is nearest 0.3, or on a toy ladder's where there is none."""
    rung, where = find_rung(job)
    rl = default_settings("adamw")
    rl = (
        replace(rl, group_size=16, budgets=(5, 10), evaluation_prompts=32)
        if job.tiny
        else replace(rl, learning_rate=1e-5)
    )
    result: Row = {"rung": rung.name, "ladder": where, "learning_rate": rl.learning_rate, "updates": rl.budgets[-1]}
    others: dict[str, Callable[[], Row]] = {
        "same run twice": lambda: runs(job, rung, rl, rl),
        "bfloat16 run": lambda: runs(job, rung, rl, replace(rl, precision="bfloat16")),
        "other seed": lambda: runs(job, rung, rl, rl, seed=1),
        "bfloat16 measure": lambda: measures(job, rung, job.device, "bfloat16"),
        "measure on the CPU": lambda: measures(job, rung, "cpu", "float32"),
    }
    for name, compare in others.items():
        result[name] = guarded(job.device, compare)
        job.save(result)
    return result


def find_rung(job: Job) -> tuple[Rung, str]:
    """A rung of part b's ladder from which RL has something to do, else one of a toy ladder."""
    try:
        rungs, where = list_rungs(job.work / "ladder"), "part b"
    except UserError:
        settings = replace(TINY_LADDER, device=job.device)
        rungs, where = pretrain(settings, job.work / "toy", progress=False, threads=1), "a toy ladder"
    report = job.report.with_name("part-b.json")
    measured = json.loads(report.read_text(encoding="utf-8"))["result"] if report.is_file() else {}
    known = {row["name"]: abs(row["reward_before"] - 0.3) for row in measured.get("checkpoints", ())}
    return min(rungs, key=lambda rung: known.get(rung.name, 1.0)), where


def trained(job: Job, rung: Rung, rl: GrpoSettings, seed: int) -> tuple[list[float], list[torch.Tensor], Any]:
    """Rewards at the budgets, weights on the host before and after, of one run."""
    checkpoint = load_checkpoint(rung.path, device=job.device)
    before = [p.detach().cpu().clone() for p in checkpoint.model.parameters()]
    found = train(checkpoint, LabelCopy(), rl, seed=seed)
    after = [p.detach().cpu() for p in checkpoint.model.parameters()]
    return [found["reward_before"], *found["reward_after"]], before, after


def runs(job: Job, rung: Rung, one: GrpoSettings, other: GrpoSettings, *, seed: int = 0) -> Row:
    """Largest difference of the rewards, and ‖θ − θ'‖ over the way ‖θ − θ₀‖ that the first run went."""
    first, before, weights = trained(job, rung, one, 0)
    second, _, others = trained(job, rung, other, seed)
    apart = sum(float((a - b).double().square().sum()) for a, b in zip(weights, others, strict=True))
    way = sum(float((a - b).double().square().sum()) for a, b in zip(weights, before, strict=True))
    return {
        "reward_difference": max(abs(a - b) for a, b in zip(first, second, strict=True)),
        "largest_weight_difference": max(
            float((a - b).abs().max()) for a, b in zip(weights, others, strict=True)
        ),
        "weight_difference_over_way": (apart / way) ** 0.5 if way > 0 else None,
        "rewards": [first, second],
    }  # fmt: skip


def measures(job: Job, rung: Rung, device: str, precision: str) -> Row:
    """Relative difference of each quantity of a measure from this device's in float32."""
    settings = MeasureSettings(prompts=32, sampled_groups=4) if job.tiny else MeasureSettings()
    first = measured(rung, job.device, "float32", settings)
    second = measured(rung, device, precision, settings)
    return {name: abs(second[name] - first[name]) / max(abs(first[name]), 1e-300) for name in NAMES}


def measured(rung: Rung, device: str, precision: str, settings: MeasureSettings) -> Row:
    """One measure of a checkpoint that is loaded for it."""
    checkpoint = load_checkpoint(rung.path, device=device)
    with running(checkpoint.model, precision):  # type: ignore[arg-type]
        return measure(checkpoint, LabelCopy(), settings)
