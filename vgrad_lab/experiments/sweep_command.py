"""`vgrad sweep`: a sweep described by a YAML file, run, continued, or looked at."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.command_line import Json, Quiet, as_json

if TYPE_CHECKING:
    from vgrad_lab.checkpoints.audit import Audit
    from vgrad_lab.checkpoints.executors import Executor, Work
    from vgrad_lab.checkpoints.ladder_walk import MakeUnits
    from vgrad_lab.checkpoints.sweep import Unit
    from vgrad_lab.experiments.sweep_config import SweepConfig, Where
    from vgrad_lab.experiments.sweep_ladders import HubLadder


def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file: ladders, task, protocols, seeds, stages, executor.")],
    out: Annotated[Path | None, typer.Option(help="Run folder instead of the file's.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Say what is done, running, failed and open.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run every unit of a sweep that has no record yet; several machines may share its folder.

    A second call continues where the first stopped and never repeats finished work. Exit code 1 when units failed.
    A ladder of a hub is audited, then fetched rung by rung while the units of the rung before run, and evicted.

    Examples: `vgrad sweep sweep.yaml` · `vgrad sweep sweep.yaml --status`
    """
    from vgrad_lab.checkpoints.schedule import rows, table
    from vgrad_lab.checkpoints.store import export
    from vgrad_lab.experiments.sweep_config import read_config, units_of

    settings, shown = read_config(config), not (quiet or json_)
    folder, units = out or settings.out, units_of(settings)
    walks = [_walk(settings, entry, progress=shown) for entry in settings.ladders if not isinstance(entry, Path)]
    if not status:
        _run(settings, folder, units, walks, progress=shown)
        export(folder)
    works = {work.id: work for work in (*units, *(work for walk in walks for work in walk.units))}
    found = rows(list(works.values()), folder, lease=settings.policy.lease)
    typer.echo(as_json(found) if json_ else table(found))
    if any(row["status"] == "failed" for row in found):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Walk:
    """A ladder of a hub in a sweep: its audit, where its rungs go, and its units."""

    entry: "HubLadder"
    audit: "Audit"
    cache: Path
    make_units: "MakeUnits"
    units: "list[Work]"


def _walk(settings: "SweepConfig", entry: "HubLadder", *, progress: bool) -> Walk:
    from vgrad_lab.checkpoints.ladder_walk import ladder_units
    from vgrad_lab.experiments.sweep_config import rung_units_of
    from vgrad_lab.experiments.sweep_ladders import audited, cache_of

    result, cache = audited(entry, progress=progress), cache_of(entry)
    units_of_rung = partial(rung_units_of, settings, allow_bin="bin only" in result.allowed)
    return Walk(entry, result, cache, units_of_rung, ladder_units(result.ladder, result.usable, cache, units_of_rung))


def _run(settings: "SweepConfig", folder: Path, units: "list[Unit]", walks: list[Walk], *, progress: bool) -> None:
    """Folders first, then ladder by ladder; each audit is kept beside the records."""
    from vgrad_lab.checkpoints.atomic import write_file
    from vgrad_lab.checkpoints.audit import audit_record
    from vgrad_lab.checkpoints.ladder_walk import run_ladder
    from vgrad_lab.checkpoints.schedule import run_units

    where, policy = settings.executor, settings.policy
    device = "cuda" if where.gpus else "cpu"
    if units or not walks:
        run_units(units, folder, make_executor(where, folder), policy=policy, device=device, progress=progress)
    for walk in walks:
        ladder = walk.audit.ladder
        name = re.sub(r"[^\w.-]+", "_", f"{ladder.spec.place}--{ladder.spec.name}")
        write_file(folder / "ladders" / f"{name}.json", as_json(audit_record(walk.audit)) + "\n")
        run_ladder(
            ladder,
            walk.audit.usable,
            walk.cache,
            walk.make_units,
            folder,
            make_executor(where, folder),
            policy=policy,
            device=device,
            keep=walk.entry.keep,
            allow_bin="bin only" in walk.audit.allowed,
            progress=progress,
        )


def make_executor(where: "Where", folder: Path) -> "Executor":
    """The executor that a file asks for. Raises UserError when its library or its GPUs are not there."""
    from vgrad_lab.checkpoints.executors import LocalExecutor

    if where.kind == "local":
        return LocalExecutor(where.workers, threads=where.threads, gpus=_gpus() if where.gpus else ())
    extra = {"ray": "ray", "submitit": "slurm"}[where.kind]
    try:
        if where.kind == "ray":
            from vgrad_lab.integrations.ray_executor import RayExecutor

            return RayExecutor(where.workers, cpus=where.threads, gpus=where.gpus, address=where.address)
        from vgrad_lab.integrations.submitit_executor import SubmititExecutor

        return SubmititExecutor(
            where.workers,
            folder=folder / "submitit",
            cluster=where.cluster,
            cpus=where.threads,
            gpus=where.gpus,
            minutes=where.minutes,
            memory_gb=where.memory_gb,
            partition=where.partition,
        )
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; run: pip install 'vgrad_lab[{extra}]'") from error


def _gpus() -> tuple[str, ...]:
    """GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import os

    import torch

    count = torch.cuda.device_count()
    if not count:
        raise UserError("executor asks for a GPU, but torch sees none; set gpus: 0, or install torch with CUDA")
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count]) if named else tuple(map(str, range(count)))
