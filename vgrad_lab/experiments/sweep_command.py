"""`vgrad sweep`: a sweep described by a YAML file, run, continued, or looked at."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.command_line import Json, Quiet, as_json

if TYPE_CHECKING:
    from vgrad_lab.checkpoints.executors import Executor
    from vgrad_lab.experiments.sweep_config import Where


def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file: ladders, task, protocols, seeds, stages, executor.")],
    out: Annotated[Path | None, typer.Option(help="Run folder instead of the file's.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Say what is done, running, failed and open.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run every unit of a sweep that has no record yet; several machines may share its folder.

    A second call continues where the first stopped and never repeats finished work. Exit code 1 when units failed.

    Examples: `vgrad sweep sweep.yaml` · `vgrad sweep sweep.yaml --status`
    """
    from vgrad_lab.checkpoints.schedule import rows, run_units, table
    from vgrad_lab.checkpoints.store import export
    from vgrad_lab.experiments.sweep_config import read_config, units_of

    settings = read_config(config)
    folder, units = out or settings.out, units_of(settings)
    if not status:
        device = "cuda" if settings.executor.gpus else "cpu"
        executor = make_executor(settings.executor, folder)
        run_units(units, folder, executor, policy=settings.policy, device=device, progress=not (quiet or json_))
        export(folder)
    found = rows(units, folder, lease=settings.policy.lease)
    typer.echo(as_json(found) if json_ else table(found))
    if any(row["status"] == "failed" for row in found):
        raise typer.Exit(1)


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
