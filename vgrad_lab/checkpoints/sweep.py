"""Units of work over a ladder: what each depends on, what it does, and the record it leaves."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import describe
from vgrad_lab.checkpoints.forecast import ForecastPlan, forecast_result
from vgrad_lab.checkpoints.grpo import GrpoSettings, facts, train
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.loading import Checkpoint, content_identity, load_checkpoint
from vgrad_lab.checkpoints.precision import running
from vgrad_lab.checkpoints.probe import MeasureSettings, measure, measure_facts
from vgrad_lab.checkpoints.sampled_grpo import train as train_sampled
from vgrad_lab.checkpoints.sampled_measure import measure_sampled
from vgrad_lab.checkpoints.sampled_tasks import NO_FORECAST, SampledTask, Task, task_name
from vgrad_lab.checkpoints.store import digest
from vgrad_lab.checkpoints.tasks import task_identity
from vgrad_lab.provenance import versions

PROTOCOL_VERSION = 1
"""Raise it whenever the same settings would mean different work: old records then stay apart."""
Stage = Literal["measure", "rl", "forecast"]
Settings = MeasureSettings | GrpoSettings | ForecastPlan


@dataclass(frozen=True)
class Unit:
    """One piece of work: a stage on one checkpoint with one seed."""

    stage: Stage
    rung: Rung
    sha256: str
    task: Task
    settings: Settings
    seed: int
    allow_bin: bool = False

    @property
    def protocol(self) -> str:
        """Hash of the stage, its settings and the protocol version."""
        return digest([self.stage, recorded(self.settings), PROTOCOL_VERSION])

    @property
    def id(self) -> str:
        """Readable id that ends in a hash of everything the result depends on."""
        key = digest([self.sha256, task_identity(self.task), self.protocol, self.seed])
        return f"{self.rung.name}-{self.stage}-s{self.seed}-{key}"

    def run(
        self, *, halvings: int = 0, device: str = "cpu", load: Callable[..., Checkpoint] = load_checkpoint
    ) -> dict[str, Any]:
        """The finished record; a halved micro-batch is named in it. Raises what went wrong.

        load: gives the checkpoint of a folder on a device, with the weights of its files.
        """
        settings = halved(self.settings, halvings)
        if self.allow_bin:
            load = partial(load_checkpoint, allow_bin=True)
        checkpoint = load(self.rung.path, device=device)
        record = {**_record(self), "status": "done", "device": device_name(device)}
        record["checkpoint"]["facts"] = checkpoint.facts
        record["result"] = compute(self, checkpoint, settings)
        return {**record, "micro_batch": micro_batch(settings)} if halvings else record

    def can_halve(self, halvings: int) -> bool:
        """Whether the micro-batch can be halved so many times."""
        return micro_batch(self.settings) >> halvings >= 1

    def failed(self, error: str) -> dict[str, Any]:
        """The record of a failure."""
        return {**_record(self), "error": error}


def micro_batch(settings: Settings) -> int:
    """Prompts that go through the model at a time."""
    return settings.rl.micro_batch if isinstance(settings, ForecastPlan) else settings.micro_batch


def halved(settings: Settings, times: int) -> Settings:
    """The same settings with the micro-batch halved so many times, at least 1."""
    size = max(micro_batch(settings) >> times, 1)
    if isinstance(settings, ForecastPlan):
        return replace(settings, rl=replace(settings.rl, micro_batch=size))
    return replace(settings, micro_batch=size)


def recorded(settings: Settings) -> dict[str, Any]:
    """Settings as a record holds them and as its hash takes them."""
    if isinstance(settings, GrpoSettings):
        return facts(settings)
    if isinstance(settings, ForecastPlan):
        return {**facts(settings.rl), "forecast": asdict(settings.settings)}
    return measure_facts(settings)


def make_units(
    rungs: Iterable[Rung],
    task: Task,
    *,
    measures: MeasureSettings | None = None,
    rl: Iterable[GrpoSettings] = (),
    seeds: Iterable[int] = (0,),
    forecasts: Iterable[ForecastPlan] = (),
) -> list[Unit]:
    """Units of a sweep in the order of the ladder: measuring once, RL once per setting and seed, forecasts once each.

    Raises UserError when two rungs hold identical weights (a ladder that lies).
    """
    units: list[Unit] = []
    seen: dict[str, str] = {}
    rl, seeds, forecasts = tuple(rl), tuple(seeds), tuple(forecasts)
    for rung in rungs:
        sha = content_identity(rung.path)
        if sha in seen:
            raise UserError(
                f"{rung.name} has the same weights as {seen[sha]}: a ladder must not hold one checkpoint twice; "
                "remove or download one of them again"
            )
        seen[sha] = rung.name
        units += rung_units(rung, sha, task, measures=measures, rl=rl, seeds=seeds, forecasts=forecasts)
    return units


def rung_units(
    rung: Rung,
    sha256: str,
    task: Task,
    *,
    measures: MeasureSettings | None = None,
    rl: Iterable[GrpoSettings] = (),
    seeds: Iterable[int] = (0,),
    forecasts: Iterable[ForecastPlan] = (),
    allow_bin: bool = False,
) -> list[Unit]:
    """Units of one rung whose identity is known, so that its files need not be there yet."""
    seeds = tuple(seeds)
    first = [] if measures is None else [Unit("measure", rung, sha256, task, measures, 0, allow_bin)]
    runs = [Unit("rl", rung, sha256, task, settings, seed, allow_bin) for settings in rl for seed in seeds]
    plans = [Unit("forecast", rung, sha256, task, plan, plan.settings.seed, allow_bin) for plan in forecasts]
    return [*first, *runs, *plans]


def training_facts(rung: Path) -> dict[str, Any]:
    """What a pretraining run wrote beside its weights (``training.json``); empty for a checkpoint from elsewhere."""
    file = rung / "training.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _record(unit: Unit) -> dict[str, Any]:
    checkpoint = {"name": unit.rung.name, "step": unit.rung.step, "sha256": unit.sha256}
    return {
        "unit": unit.id,
        "stage": unit.stage,
        "status": "failed",
        "error": None,
        "checkpoint": {**checkpoint, "training": training_facts(unit.rung.path)},
        "task": task_name(unit.task),
        "protocol": unit.protocol,
        "seed": unit.seed,
        "settings": recorded(unit.settings),
        "versions": versions(),
        "device": "cpu",
        "result": None,
    }


def device_name(device: str) -> str:
    """A device in the words of a record: `cpu`, or a GPU with its name, such as `cuda (NVIDIA H200)`."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if torch.device(device).type == "cuda" else device


def compute(unit: Unit, checkpoint: Checkpoint, settings: Settings) -> dict[str, Any]:
    """Result of a unit under its settings (or those with a smaller micro-batch). Raises ValueError for NaN in it."""
    if isinstance(unit.task, SampledTask):
        result = _sampled(checkpoint, unit.task, settings, unit.seed)
    elif isinstance(settings, MeasureSettings):
        result = measure(checkpoint, unit.task, settings, seed=unit.seed)
    elif isinstance(settings, ForecastPlan):
        with running(checkpoint.model, settings.rl.precision):
            result = forecast_result(checkpoint, unit.task, settings)
    else:
        result = train(checkpoint, unit.task, settings, seed=unit.seed)
    digest(result)  # refuses NaN and infinity before anything is published
    return result


def _sampled(checkpoint: Checkpoint, task: SampledTask, settings: Settings, seed: int) -> dict[str, Any]:
    if isinstance(settings, ForecastPlan):
        raise UserError(f"there is no forecast of this task: {NO_FORECAST}")
    if isinstance(settings, MeasureSettings):
        return measure_sampled(checkpoint, task, settings, seed=seed)
    return train_sampled(checkpoint, task, settings, seed=seed)


def run_unit(unit: Unit) -> dict[str, Any]:
    """Do one unit; an exception becomes a failed record with its text, never a lost sweep."""
    try:
        return unit.run()
    except Exception as error:
        return unit.failed(describe(error))
