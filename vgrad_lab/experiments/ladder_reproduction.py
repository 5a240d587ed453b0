"""The main job on a ladder of real checkpoints: audit, fetch, measure, forecast, GRPO, record, report."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from vgrad_lab.checkpoints.atomic import require_writable, write_file
from vgrad_lab.checkpoints.audit import Audit, audit_record, require
from vgrad_lab.checkpoints.cache import rung_folder
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings
from vgrad_lab.checkpoints.ladder_walk import run_ladder
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.memory import memory_needed, require_forecast_memory, require_memory
from vgrad_lab.checkpoints.precision import Precision
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.report import write_report
from vgrad_lab.checkpoints.resident import ResidentExecutor
from vgrad_lab.checkpoints.resolve import Ladder, find
from vgrad_lab.checkpoints.sampled_grpo import settings_for
from vgrad_lab.checkpoints.sampled_tasks import SampledTask, Task
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.schedule import Policy
from vgrad_lab.checkpoints.store import canonical, export, read_records
from vgrad_lab.checkpoints.sweep import Unit, rung_units

LARGE = 100_000_000
"""Parameters from which on AdamW's default rate is that of LARGE_RATE."""
LARGE_RATE = 1e-5
"""A rate of common practice for models of 10⁹ parameters, taken over and not derived; the embedded ladder's 1e-4 was
chosen on half a million."""


@dataclass(frozen=True)
class Protocol:
    """What is done on each rung: measuring once, RL once per protocol and seed, a forecast of each protocol."""

    task: Task
    measures: MeasureSettings
    rl: tuple[GrpoSettings, ...]
    seeds: tuple[int, ...]
    forecast: ForecastSettings | None


@dataclass(frozen=True)
class Place:
    """Where the work runs.

    Args:
        device: cpu or cuda.
        gpus: names that CUDA_VISIBLE_DEVICES takes, a process for each; none on the CPU.
        workers: processes on the CPU.
    """

    device: str
    gpus: tuple[str, ...] = ()
    workers: int = 1

    @property
    def threads(self) -> int:
        """Of each process: one on the CPU, where results then repeat; beside a GPU its share of the cores."""
        return max((os.cpu_count() or 1) // len(self.gpus), 1) if self.gpus else 1


def make_protocol(
    task: Task,
    *,
    optimizers: Sequence[str] = ("adamw",),
    rate: float | None = None,
    seeds: tuple[int, ...] = (0,),
    precision: Precision = "float32",
    recompute: bool = False,
    states: str = "device",
    forecast: bool = True,
    tiny: bool = False,
    parameters: int = 0,
) -> Protocol:
    """The paper's protocol with the choices that a large model asks for.

    rate: learning rate; default that of the optimiser, for AdamW from 10⁸ parameters on LARGE_RATE. tiny: toy sizes.
    parameters: of the model. Raises UserError for an optimiser that is not known or one rate for several.
    """
    if rate is not None and len(set(optimizers)) > 1:
        raise UserError(f"one learning rate, {rate:g}, was given for {' and '.join(optimizers)}; run them one by one")
    protocols = []
    for name in dict.fromkeys(optimizers):
        default = default_settings(name)
        own = LARGE_RATE if name == "adamw" and parameters >= LARGE else default.learning_rate
        made = replace(default, learning_rate=own if rate is None else rate, precision=precision, recompute=recompute)
        made = replace(made, states="host" if states == "host" else "device")
        if tiny:
            made = replace(made, prompts=4, budgets=(1, 2, 3, 4), evaluation_prompts=32)
        protocols.append(settings_for(task, made))
    measures = MeasureSettings(prompts=32, sampled_groups=8) if tiny else MeasureSettings()
    ahead = ForecastSettings(passes=1, prompts=16, points=2, evaluation_prompts=32) if tiny else ForecastSettings()
    wanted = forecast and not isinstance(task, SampledTask)
    return Protocol(task, replace(measures, precision=precision), tuple(protocols), seeds, ahead if wanted else None)


def choose_place(device: str, *, gpus: int | None = None, workers: int = 1) -> Place:
    """Where to run: `auto` is cuda where torch sees a GPU. gpus: how many to use; default all.

    Raises UserError for a device that is not there, or fewer GPUs than asked for.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {device!r}; choose one of auto, cpu, cuda")
    there = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not there):
        if gpus:
            raise UserError(f"{gpus} GPUs were asked for, but the work runs on the CPU; omit --gpus")
        return Place("cpu", workers=workers)
    wanted = there if gpus is None else gpus
    if not 1 <= wanted <= there:
        raise UserError(
            f"{max(wanted, 1)} GPUs were asked for, but torch sees {there}; choose a number it sees, or cpu"
        )
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or map(str, range(there))
    return Place("cuda", gpus=tuple(named)[:wanted])


def model_config(result: Audit) -> Any:
    """Configuration of the ladder's models, as `transformers` reads that of the first usable rung.

    Raises UserError for one that it cannot read.
    """
    given = dict(result.usable[0].config or {})
    kind = given.pop("model_type", None)
    try:
        return AutoConfig.for_model(kind, **given)
    except Exception as error:  # whatever a library makes of a wrong configuration
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{result.usable[0].rung} has a config.json that cannot be used ({reason})") from error


def parameters_of(result: Audit) -> int:
    """Parameters of the ladder's models, from the configuration alone."""
    return memory_needed(model_config(result), GrpoSettings(prompts=1), length=1).weights // 4


def require_card(result: Audit, protocol: Protocol, available: int) -> None:
    """Refuse a protocol that does not fit into so many bytes of a card. Raises UserError, naming what would fit."""
    config = model_config(result)
    for settings in protocol.rl:
        require_memory(config, settings, available)
    if protocol.forecast is not None:
        require_forecast_memory(config, available)


def run(
    folder: Path,
    result: Audit,
    protocol: Protocol,
    place: Place,
    *,
    cache: Path,
    keep: bool = False,
    policy: Policy | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Do all that is not done yet on the rungs of an audited ladder, and write the report; counts, seconds, paths.

    Each rung is loaded once per process for all work on it; the next is fetched and read meanwhile. Raises UserError
    for a ladder that the audit refuses, a folder that cannot be written, or a card that is too small.
    """
    require(result)
    require_writable(folder)
    if place.device == "cuda":
        require_card(result, protocol, torch.cuda.get_device_properties(0).total_memory)
    write_file(folder / "audit.json", canonical(audit_record(result)) + "\n")
    made: list[Unit] = []

    def units(rung: Rung, sha256: str) -> list[Unit]:
        made.extend(own := units_of(protocol, rung, sha256, allow_bin="bin only" in result.allowed))
        return own

    clock = [time.perf_counter()]
    order = [path_of(result.ladder, one.rung, cache) for one in result.usable]
    with ResidentExecutor(place.workers, threads=place.threads, gpus=place.gpus, order=order) as executor:
        counts = run_ladder(
            result.ladder,
            result.usable,
            cache,
            units,
            folder,
            executor,
            policy=policy,
            device=place.device,
            keep=keep,
            allow_bin="bin only" in result.allowed,
            progress=progress,
        )
    export(folder)
    clock.append(time.perf_counter())
    return summary(folder, made, counts, clock)


def units_of(protocol: Protocol, rung: Rung, sha256: str, *, allow_bin: bool = False) -> list[Unit]:
    """All units of a rung, measuring first."""
    return rung_units(
        rung,
        sha256,
        protocol.task,
        measures=protocol.measures,
        rl=protocol.rl,
        seeds=protocol.seeds,
        forecasts=[plan_of(one, protocol.forecast) for one in protocol.rl] if protocol.forecast else (),
        allow_bin=allow_bin,
    )


def summary(folder: Path, units: Sequence[Unit], counts: dict[str, int], clock: list[float]) -> dict[str, Any]:
    """Write the report, and say what became of the units and where it is; as `embedded_ladder.run` does."""
    report = write_report(folder)
    clock.append(time.perf_counter())
    records = read_records(folder)
    states = {unit.id: records.get(unit.id, {"status": "open", "error": "no record"}) for unit in units}
    return {
        **counts,
        "checkpoints": len({unit.sha256 for unit in units}),
        "seconds": {
            name: round(after - before, 1)
            for name, before, after in zip(("fetching, measuring and RL", "report"), clock, clock[1:], strict=False)
        },
        "report": str(report),
        "records": str(folder / "records.jsonl"),
        "errors": {name: state["error"] for name, state in states.items() if state["status"] != "done"},
    }


def path_of(ladder: Ladder, name: str, cache: Path) -> Path:
    """Where a rung lies or will lie."""
    named = find(ladder, name)
    return rung_folder(cache, ladder, named) if ladder.spec.folder is None else ladder.spec.folder / named.name
