"""`vgrad forecast`: the RL curve of a checkpoint, or which checkpoint of a ladder to start from, before any RL."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.checkpoint_commands import TaskFile
from vgrad_lab.experiments.command_line import Json, Quiet, as_json

OVERSHOOTS = "steps of this rate are too large for a ray: rehearsed by a run with a seed of its own"


def forecast(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder, or a ladder (a folder of step<number> folders).")],
    task: TaskFile = None,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    lr: Annotated[float | None, typer.Option(help="Learning rate; default 1e-4 (adamw), 1e-2 (sgd).")] = None,
    clip: Annotated[
        float | None, typer.Option(help="Gradient-norm clip, 0 for none; default 1 (adamw), none (sgd).")
    ] = None,
    group: Annotated[int, typer.Option(help="Samples per prompt.", min=2)] = 8,
    baseline: Annotated[str, typer.Option(help="standardised, group_mean (no std) or leave_one_out.")] = "standardised",
    schedule: Annotated[str, typer.Option(help="Learning rate: constant, linear or cosine.")] = "constant",
    warmup: Annotated[int, typer.Option(help="Updates over which the rate rises from 0.", min=0)] = 0,
    kl: Annotated[float, typer.Option(help="β of the KL penalty against the checkpoint.", min=0)] = 0.0,
    budget: Annotated[
        list[int] | None, typer.Option(help="Updates to show; repeatable, the last is the run's. Default 10 20 25 30.")
    ] = None,
    passes: Annotated[int, typer.Option(help="Times that the gradient is measured.", min=1)] = 3,
    prompts: Annotated[int, typer.Option(help="Prompts for each of them.", min=16)] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for records, figures and a page.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forecast the GRPO reward curve with a 90 % band; rank a ladder's checkpoints by the gain.

    Examples: `vgrad forecast runs/embedded/ladder/step001000` · `vgrad forecast runs/embedded/ladder --out runs/next`
    """
    from vgrad_lab.checkpoints import grpo
    from vgrad_lab.checkpoints.forecast import plan_of
    from vgrad_lab.checkpoints.scene import ForecastSettings
    from vgrad_lab.experiments import one_checkpoint

    default = grpo.default_settings(optimizer)
    rl = dataclasses.replace(
        default,
        learning_rate=default.learning_rate if lr is None else lr,
        clip=default.clip if clip is None else clip or None,
        group_size=group,
        baseline=grpo.known_baseline(baseline),
        schedule=grpo.known_schedule(schedule),
        warmup=warmup,
        kl=kl,
        budgets=tuple(budget or default.budgets),
    )
    plan = plan_of(rl, ForecastSettings(passes=passes, prompts=prompts, seed=seed))
    records = one_checkpoint.run(path, task=_labels(task), forecast=plan, out=out, progress=not (quiet or json_))
    _finish(records, out, json_)


def _labels(file: Path | None) -> Any:
    """The label-copying task of a file, or the default one. Raises UserError for sampled answers."""
    from vgrad_lab.checkpoints.task_files import read_task
    from vgrad_lab.checkpoints.tasks import LabelCopy

    task = LabelCopy() if file is None else read_task(file)
    if not isinstance(task, LabelCopy):
        raise UserError(
            f"{file} asks for sampled answers; a forecast needs the exact chance of success of each prompt, which only "
            "one-token labels give. Judge by a short run: vgrad rl PATH --task FILE --budget 5"
        )
    return task


def _finish(records: list[dict[str, Any]], out: Path | None, json_: bool) -> None:
    """Write the page, print, and exit with code 1 when a checkpoint failed."""
    page = None
    if out is not None:
        from vgrad_lab.checkpoints.report.start import write_start

        page = write_start(out)
    typer.echo(as_json(records) if json_ else describe(records))
    if page is not None and not json_:
        typer.echo(f"page: {page}")
    if any(r["status"] != "done" for r in records):
        raise typer.Exit(1)


def describe(records: list[dict[str, Any]]) -> str:
    """One checkpoint: the curve at its budgets with the band. A ladder: checkpoints by gain, largest first."""
    from vgrad_lab.checkpoints.report.start import advice, cost, ranked

    rows = ranked(records)
    lines: list[str] = []
    if len(records) == 1 and rows:
        result = rows[0].record["result"]
        lines.append(f"{'updates':>8}{'reward':>10}{'90 % band':>20}{'gain':>10}")
        for k in (0, *result["budgets"]):
            reward, low, high = (result[name][k] for name in ("reward", "lower", "upper"))
            gain = reward - result["reward"][0]
            lines.append(f"{k:>8}{reward:>10.4f}{f'{low:.4f} to {high:.4f}':>20}{gain:>+10.4f}")
    elif rows:
        last = rows[0].record["result"]["budgets"][-1]
        lines.append(f"{'checkpoint':<14}{'R before':>10}{f'R after {last}':>14}{'90 % band':>20}{'gain':>10}")
        for r in rows:
            band = f"{r.low:.4f} to {r.high:.4f}"
            lines.append(f"{r.name:<14}{r.before:>10.4f}{r.after:>14.4f}{band:>20}{r.gain:>+10.4f}")
    if rows:
        if factors := [f for r in rows for f in r.record["result"]["noise_factor"]]:
            lines.append(f"noise leaves {min(factors):.2f} to {max(factors):.2f} of a full sign step")
        if over := [r.name for r in rows if r.record["result"].get("overshoots")]:
            lines.append(f"{OVERSHOOTS}: {', '.join(over)}")
        lines += [*(advice(rows) if len(rows) > 1 else []), cost(rows)]
    lines += [f"{r['checkpoint']['name']} FAILED: {r['error']}" for r in records if r["status"] != "done"]
    return "\n".join(lines)
