"""The YAML file of `vgrad sweep`: which ladders, task, protocols, seeds and stages, and where the work runs."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.filled import filled, known, read_yaml, several
from vgrad_lab.checkpoints.findings import nearest
from vgrad_lab.checkpoints.forecast import ForecastPlan, plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings
from vgrad_lab.checkpoints.ladders import Rung, list_rungs
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.sampled_grpo import SampledSettings
from vgrad_lab.checkpoints.sampled_tasks import NO_FORECAST, SampledTask, Task
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.schedule import Policy
from vgrad_lab.checkpoints.sweep import Unit, make_units, rung_units
from vgrad_lab.checkpoints.task_files import task_of
from vgrad_lab.experiments.sweep_ladders import HubLadder, check_folder, read_ladders

KEYS = ("ladders", "out", "task", "stages", "seeds", "measures", "protocols", "forecast", "executor", "policy")
STAGES = ("measure", "rl", "forecast")


@dataclass(frozen=True)
class Where:
    """Where units run.

    Args:
        kind: local, ray or submitit.
        workers: units at a time; with gpus, one per GPU of this machine instead (local).
        threads: threads, and cores asked for, of each unit.
        gpus: GPUs asked for by each unit: 0 or 1.
        address: of a running Ray cluster; none starts one on this machine.
        cluster: slurm or local (submitit).
        partition: of SLURM.
        minutes: limit of one unit (submitit).
        memory_gb: memory of one unit (submitit).
    """

    kind: Literal["local", "ray", "submitit"] = "local"
    workers: int = 2
    threads: int = 1
    gpus: int = 0
    address: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    minutes: int = 60
    memory_gb: int = 16

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "minutes", "memory_gb"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.gpus not in (0, 1):
            raise UserError(f"gpus is {self.gpus}; a unit takes 0 or 1")


@dataclass(frozen=True)
class SweepConfig:
    """A sweep: units come from ladders, task, stages, protocols and seeds; the rest says where and when they run."""

    ladders: tuple[Path | HubLadder, ...]
    out: Path
    task: Task
    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    measures: MeasureSettings
    protocols: tuple[GrpoSettings, ...]
    forecast: ForecastSettings
    executor: Where
    policy: Policy


def read_config(path: Path) -> SweepConfig:
    """A sweep from a YAML file; relative paths lie beside the file.

    Raises UserError for a file that cannot be read, an unknown key (with the nearest), a wrong type or value.
    """
    values = known(read_yaml(path, "a sweep"), KEYS, str(path))
    if "ladders" not in values:
        raise UserError(f"{path} has no ladders; add one such as ladders: [runs/embedded/ladder]")
    ladders = read_ladders(values["ladders"], path.parent, f"{path}: ladders")
    stages = tuple(several(values.get("stages", STAGES[:2]), str, f"{path}: stages"))
    for stage in stages:
        if stage not in STAGES:
            raise UserError(f"{path}: stages has {stage!r}; {nearest(stage, list(STAGES))}")
    seeds = tuple(several(values.get("seeds", [0]), int, f"{path}: seeds"))
    if not ladders or not stages or not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: ladders, stages and seeds each need an entry; seeds are different and not negative")
    given_protocols = values.get("protocols", [{}])
    if not isinstance(given_protocols, list) or not given_protocols:
        raise UserError(f"{path}: protocols is {given_protocols!r}; expected a list of mappings")
    task = task_of(values.get("task", {}), path.parent, f"{path}: task")
    if isinstance(task, SampledTask) and "forecast" in stages:
        raise UserError(f"{path}: stages has forecast, but {NO_FORECAST}; leave it out")
    protocols = tuple(_protocol(p, task, f"{path}: protocols") for p in given_protocols)
    if len(set(protocols)) < len(protocols):
        raise UserError(f"{path}: protocols holds one protocol twice; leave one of them out")
    return SweepConfig(
        ladders=ladders,
        out=path.parent / str(values.get("out", f"runs/{path.stem}")),
        task=task,
        stages=stages,
        seeds=seeds,
        measures=filled(MeasureSettings, values.get("measures", {}), f"{path}: measures"),
        protocols=protocols,
        forecast=filled(ForecastSettings, values.get("forecast", {}), f"{path}: forecast"),
        executor=filled(Where, values.get("executor", {}), f"{path}: executor"),
        policy=filled(Policy, values.get("policy", {}), f"{path}: policy"),
    )


def units_of(config: SweepConfig) -> list[Unit]:
    """Units of a sweep on the folders among its ladders, in their order.

    Raises UserError for a folder that is no ladder, or equal rungs.
    """
    folders = [entry for entry in config.ladders if isinstance(entry, Path)]
    for folder in folders:
        check_folder(folder)
    rungs = [rung for folder in folders for rung in list_rungs(folder)]
    measures, rl, forecasts = _stages(config)
    return make_units(rungs, config.task, measures=measures, rl=rl, seeds=config.seeds, forecasts=forecasts)


def rung_units_of(config: SweepConfig, rung: Rung, sha256: str, *, allow_bin: bool = False) -> list[Unit]:
    """Units of a sweep on one rung of a hub, whose files need not be there yet."""
    measures, rl, forecasts = _stages(config)
    return rung_units(
        rung,
        sha256,
        config.task,
        measures=measures,
        rl=rl,
        seeds=config.seeds,
        forecasts=forecasts,
        allow_bin=allow_bin,
    )


def _stages(
    config: SweepConfig,
) -> tuple[MeasureSettings | None, tuple[GrpoSettings, ...], tuple[ForecastPlan, ...]]:
    """Settings of measuring, RL and forecasts, where they are asked for."""
    plans = (plan_of(protocol, config.forecast) for protocol in config.protocols)
    return (
        config.measures if "measure" in config.stages else None,
        config.protocols if "rl" in config.stages else (),
        tuple(plans) if "forecast" in config.stages else (),
    )


def _protocol(given: object, task: Task, where: str) -> GrpoSettings:
    """A protocol of its task's kind; learning rate and clip default to those of its optimiser."""
    cls = SampledSettings if isinstance(task, SampledTask) else GrpoSettings
    values = known(given, [f.name for f in fields(cls)], where)
    default = default_settings(str(values.get("optimizer", "adamw")))
    rate, clip = default.learning_rate, default.clip
    settings: GrpoSettings = filled(cls, {"learning_rate": rate, "clip": clip, **values}, where)
    return settings
