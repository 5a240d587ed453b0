"""`vgrad measure` and `vgrad rl`: one checkpoint or each of a ladder, measured or trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.experiments.command_line import Json, as_json

TaskFile = Annotated[
    Path | None, typer.Option("--task", help="YAML file of a task (docs/tasks.md); default: label copying.")
]


def measure(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder, or a ladder (a folder of step<number> folders).")],
    task: TaskFile = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to publish the records in.")] = None,
    alpha: Annotated[float, typer.Option(help="α of the headroom, per unit reward.")] = 1.0,
    group: Annotated[int, typer.Option(help="GRPO group size inside Λ and κ.", min=2)] = 8,
    prompts: Annotated[int, typer.Option(help="Evaluation prompts drawn.", min=1)] = 256,
    answers: Annotated[
        int | None, typer.Option(help="Sampled answers: so many to each prompt; default two groups, at least 8.", min=2)
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Sampled answers: head or a layer's number, then :last or :prompt; repeatable."),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure Σ, both readings of Λ, headroom, P_gap and the trivial baselines, before any RL.

    Examples: `vgrad measure runs/embedded/ladder/step001000` · `vgrad measure PATH --task task.yaml --state 4:prompt`
    """
    from vgrad_lab.checkpoints import probe
    from vgrad_lab.experiments import one_checkpoint

    settings = probe.MeasureSettings(
        alpha=alpha, group_size=group, prompts=prompts, states=tuple(state or ()), answers=answers
    )
    records = one_checkpoint.run(path, task=_read(task), measures=settings, out=out)
    _finish(records, one_checkpoint.describe_measures, json_)


def rl(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder, or a ladder (a folder of step<number> folders).")],
    task: TaskFile = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to publish the records in.")] = None,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    lr: Annotated[float | None, typer.Option(help="Learning rate; default 1e-4 (adamw), 1e-2 (sgd).")] = None,
    clip: Annotated[
        float | None, typer.Option(help="Gradient-norm clip, 0 for none; default 1 (adamw), none (sgd).")
    ] = None,
    group: Annotated[int, typer.Option(help="Samples per prompt.", min=2)] = 8,
    budget: Annotated[
        list[int] | None, typer.Option(help="Updates to record at; repeatable. Default 10 20 25 30.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; repeatable. Default 0.", min=0)] = None,
    loss: Annotated[
        str | None, typer.Option(help="Of sampled answers: grpo, dr_grpo or dapo, as TRL divides; default dapo.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run GRPO from a checkpoint, on label copying or a task of your own, and record the reward at each budget.

    Examples: `vgrad rl runs/embedded/ladder/step001000` · `vgrad rl PATH --task task.yaml --seed 0 --seed 1`
    """
    from dataclasses import replace

    from vgrad_lab.checkpoints import grpo, sampled_grpo
    from vgrad_lab.experiments import one_checkpoint

    default = grpo.default_settings(optimizer)
    settings = replace(
        default,
        learning_rate=default.learning_rate if lr is None else lr,
        clip=default.clip if clip is None else clip or None,
        group_size=group,
        budgets=tuple(budget or default.budgets),
    )
    given = _read(task)
    settings = sampled_grpo.settings_for(given, settings, loss=loss)
    records = one_checkpoint.run(path, task=given, rl=settings, seeds=tuple(seed or (0,)), out=out)
    _finish(records, one_checkpoint.describe_rl, json_)


def _read(file: Path | None) -> Any:
    """The task of a file; without one label copying."""
    from vgrad_lab.checkpoints.task_files import read_task
    from vgrad_lab.checkpoints.tasks import LabelCopy

    return LabelCopy() if file is None else read_task(file)


def _finish(records: list[dict[str, Any]], describe: Any, json_: bool) -> None:
    if json_:
        typer.echo(as_json(records))
    else:
        typer.echo(describe(records))
    if any(r["status"] != "done" for r in records):
        raise typer.Exit(1)
