"""The credit study: who sends credit to whom in a GRU and in a transformer, before, while and after they learn.

Three tasks, two ways to be equal (parameters, training compute), a token-only network as control. One record per
(task, model, seed), published when it is done: a second run continues, a unit that fails is a record with its error.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vgrad_lab.checkpoints.atomic import require_writable, write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.store import digest, lines, publish, read_records
from vgrad_lab.experiments.credit_flow_measure import Measures, measure
from vgrad_lab.experiments.credit_flow_models import MODELS, Sizes, contestant
from vgrad_lab.experiments.credit_flow_page import write_report
from vgrad_lab.experiments.credit_flow_pool import in_processes
from vgrad_lab.provenance import versions
from vgrad_lab.sequence.tasks import DelayedTask, LabelTask, RecallTask, Task
from vgrad_lab.sequence.training import train_stages

PROTOCOL_VERSION = 1
"""Raise it whenever the same settings would mean different work: old records then stay apart."""
STAGE = "credit"


@dataclass(frozen=True)
class Settings:
    """Tasks, sizes, training and how much is measured; ``stages`` are shares of the training, 0 before the first step.

    width, layers, heads, steps and batch are the transformer's; the other models are matched to it.
    """

    tasks: dict[str, Task] = field(
        default_factory=lambda: {
            "delayed recall": DelayedTask(delay=9, values=8),
            "associative recall": RecallTask(pairs=3, keys=6, values=6),
            "label copying": LabelTask(fill=8, labels=6, markers=3, fillers=4),
        }
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    stages: tuple[float, ...] = (0.0, 0.05, 0.25, 1.0)
    width: int = 48
    layers: int = 2
    heads: int = 4
    steps: int = 600
    batch: int = 32
    learning_rate: float = 5e-3
    scored: int = 512
    measured: int = 128
    jacobians: int = 16
    prompts: int = 4
    group: int = 8


SETTINGS = Settings()
TINY = Settings(
    tasks={
        "delayed recall": DelayedTask(delay=2, values=3),
        "associative recall": RecallTask(pairs=2, keys=3, values=3),
        "label copying": LabelTask(fill=2, labels=3, markers=1, fillers=2),
    },
    seeds=(0, 1), stages=(0.0, 0.5, 1.0), width=8, heads=2, steps=20, batch=16,
    scored=32, measured=16, jacobians=3, prompts=2, group=4,
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """One model on one task with one seed."""

    task: str
    model: str
    seed: int
    settings: Settings

    @property
    def id(self) -> str:
        """Readable id that ends in a hash of everything the result depends on."""
        return f"{self.task.replace(' ', '-')}-{self.model}-s{self.seed}-{digest([self._facts(), PROTOCOL_VERSION])}"

    def record(self) -> dict[str, Any]:
        """The record of this unit before it has a result."""
        return {
            "unit": self.id, "stage": STAGE, "status": "failed", "error": None, **self._facts(),
            "versions": versions(), "device": "cpu", "result": None,
        }  # fmt: skip

    def _facts(self) -> dict[str, Any]:
        kept = {k: v for k, v in asdict(self.settings).items() if k not in ("tasks", "seeds")}
        task = self.settings.tasks[self.task]
        return {
            "task": self.task, "task_settings": {"kind": type(task).__name__, **asdict(task)},
            "model": self.model, "seed": self.seed, "settings": kept,
        }  # fmt: skip


def with_seeds(settings: Settings, count: int, *, first: int = 0) -> Settings:
    """The same study with ``count`` seeds from ``first`` on; an interval needs at least 2."""
    if count < 2:
        raise UserError(f"seeds is {count}; give at least 2, an interval over seeds needs them (5 or more are better)")
    return replace(settings, seeds=tuple(range(first, first + count)))


def make_units(settings: Settings) -> list[Unit]:
    """All units, seed by seed, so that an unfinished run holds whole seeds."""
    return [Unit(t, m, s, settings) for s in settings.seeds for t in settings.tasks for m in MODELS]


def run_unit(unit: Unit) -> dict[str, Any]:
    """Train one model and measure it at each stage; an exception becomes a failed record with its text."""
    record = unit.record()
    try:
        result = _train_and_measure(unit)
        digest(result)  # refuses NaN and infinity before anything is published
    except Exception as error:
        return {**record, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {**record, "status": "done", "result": result}


def run_and_publish(folder: Path, unit: Unit) -> str:
    """Run one unit on one thread and publish its record and run time in ``folder``; returns its status."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    record = run_unit(unit)
    publish(folder, record, seconds=time.perf_counter() - start)
    return str(record["status"])


def run(folder: Path, settings: Settings = SETTINGS, *, workers: int = 2, progress: bool = True) -> dict[str, Any]:
    """Do every unit that has no finished record, then write records.jsonl, summary.json, figures and report.md.

    Raises UserError for a folder that cannot be written. Failed units are tried again by the next run.
    """
    require_writable(folder)
    start = time.perf_counter()
    units = make_units(settings)
    published = read_records(folder)
    todo = [u for u in units if published.get(u.id, {}).get("status") != "done"]
    counts = {"done": 0, "failed": 0, "kept": len(units) - len(todo)}
    for unit, status in in_processes(run_and_publish, folder, todo, workers=workers, total=len(units), bar=progress):
        if status is None:
            publish(folder, {**unit.record(), "error": "the worker process died (killed, out of memory, or a crash)"})
        counts[status or "failed"] += 1
    records = export(folder, units)
    report = write_report(folder, records)
    errors = {r["unit"]: r["error"] for r in records if r["status"] != "done"}
    seconds = round(time.perf_counter() - start, 1)
    return {**counts, "seconds": seconds, "report": str(report), "records": str(folder / "records.jsonl"),
            "errors": errors}  # fmt: skip


def export(folder: Path, units: list[Unit]) -> list[dict[str, Any]]:
    """Write records.jsonl, in the order of the units and of this study alone; returns the records."""
    published = read_records(folder)
    records = [published[u.id] for u in units if u.id in published]
    write_file(folder / "records.jsonl", lines(records))
    return records


def describe(result: dict[str, Any]) -> str:
    """What a person wants to read at the end."""
    rows = [
        f"units: {result['done']} done now, {result['kept']} kept from before, {result['failed']} failed "
        f"({result['seconds']:.0f} s)",
        *(f"FAILED {unit}: {error}" for unit, error in result["errors"].items()),
        f"records: {result['records']}",
        f"report:  {result['report']}",
    ]
    return "\n".join(rows)


def _train_and_measure(unit: Unit) -> dict[str, Any]:
    s, task = unit.settings, unit.settings.tasks[unit.task]
    who = contestant(unit.model, task, Sizes(s.width, s.layers, s.heads, s.steps, s.batch), seed=unit.seed)
    reads = Measures(s.scored, s.measured, s.jacobians, s.prompts, s.group)

    def stages() -> Iterator[dict[str, Any]]:
        stops = [round(share * who.steps) for share in s.stages]
        pauses = train_stages(
            who.model, task, steps=who.steps, stops=stops, batch=s.batch, learning_rate=s.learning_rate, seed=unit.seed
        )
        for share, stop, _ in zip(s.stages, stops, pauses, strict=True):
            yield {"share": share, "step": stop, **measure(who.model, task, reads, seed=unit.seed)}

    return {
        "parameters": who.parameters,
        "width": who.model.width,
        "steps": who.steps,
        "flops": who.flops,
        "stages": list(stages()),
    }
