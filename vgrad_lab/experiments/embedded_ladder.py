"""The main job: pretrain the embedded ladder, measure every rung, run GRPO from it, compare prediction and gain."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.atomic import require_writable
from vgrad_lab.checkpoints.embedded import TINY as TINY_LADDER
from vgrad_lab.checkpoints.embedded import LadderSettings, pretrain
from vgrad_lab.checkpoints.executors import LocalExecutor
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.report import write_report
from vgrad_lab.checkpoints.schedule import run_units
from vgrad_lab.checkpoints.store import export, read_records
from vgrad_lab.checkpoints.sweep import make_units
from vgrad_lab.checkpoints.tasks import LabelCopy

STATEMENTS = ("S17", "S22", "S23", "S24", "S26", "S26.forecast", "S27")


@dataclass(frozen=True)
class Settings:
    """One run: the ladder, what is measured, which RL protocols with which seeds."""

    ladder: LadderSettings
    measures: MeasureSettings
    rl: tuple[GrpoSettings, ...]
    seeds: tuple[int, ...]


SETTINGS = Settings(
    ladder=LadderSettings(),
    measures=MeasureSettings(),
    rl=(default_settings("adamw"), default_settings("sgd")),
    seeds=(0, 1, 2),
)
TINY = Settings(
    ladder=TINY_LADDER,
    measures=MeasureSettings(prompts=32, sampled_groups=8),
    rl=(GrpoSettings(prompts=4, budgets=(1, 2, 3, 4), evaluation_prompts=32, learning_rate=1e-3),),
    seeds=(0, 1),
)


def with_seed(settings: Settings, seed: int) -> Settings:
    """The same run from another pretraining seed (the seed that matters: GRPO seeds hardly move the ranking)."""
    return replace(settings, ladder=replace(settings.ladder, seed=seed))


def run(folder: Path, settings: Settings, *, workers: int = 2, progress: bool = True) -> dict[str, Any]:
    """Do all that is not done yet and write the report; returns counts, seconds per part and paths.

    Raises UserError for a folder that cannot be written or holds a ladder of other settings.
    """
    require_writable(folder)
    clock = [time.perf_counter()]
    rungs = pretrain(settings.ladder, folder / "ladder", progress=progress)
    clock.append(time.perf_counter())
    units = make_units(rungs, LabelCopy(), measures=settings.measures, rl=settings.rl, seeds=settings.seeds)
    counts = run_units(units, folder, LocalExecutor(workers), progress=progress)
    export(folder)
    clock.append(time.perf_counter())
    report = write_report(folder)
    clock.append(time.perf_counter())
    parts = ("pretraining", "measuring_and_rl", "report")
    records = read_records(folder)
    errors = {u.id: records[u.id]["error"] for u in units if records[u.id]["status"] != "done"}
    return {
        **counts,
        "checkpoints": len(rungs),
        "seconds": {p: round(b - a, 1) for p, a, b in zip(parts, clock, clock[1:], strict=False)},
        "report": str(report),
        "records": str(folder / "records.jsonl"),
        "errors": errors,
    }


def describe(result: dict[str, Any]) -> str:
    """What a person wants to read at the end."""
    seconds = ", ".join(f"{name.replace('_', ' ')} {s:.0f} s" for name, s in result["seconds"].items())
    lines = [
        f"{result['checkpoints']} checkpoints; units: {result['done']} done now, {result['kept']} kept from before, "
        f"{result['failed']} failed ({seconds})",
        *(f"FAILED {unit}: {error}" for unit, error in result["errors"].items()),
        f"records: {result['records']}",
        f"report:  {result['report']}",
    ]
    return "\n".join(lines)
