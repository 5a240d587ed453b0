"""`vgrad`: the command line. Heavy libraries load inside the commands, so that ``--help`` is instant."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from vgrad_lab import __version__
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments import forecast_command

INTERRUPTED = 130

app = typer.Typer(
    name="vgrad",
    help="The value-gradient theory of critic-free RL for language models, made executable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
ladder = typer.Typer(name="ladder", help="Make a ladder of pretraining checkpoints.", no_args_is_help=True)
app.add_typer(ladder)
app.command()(forecast_command.forecast)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Seed = Annotated[int, typer.Option(help="Seed.", min=0)]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"vgrad_lab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Shared options."""


class _Stopped(Exception):
    """An interrupt about which the command has its own line to say."""


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it continues.")] = Path("runs/embedded"),
    tiny: Annotated[bool, typer.Option("--tiny", help="The same path in under a minute, with toy sizes.")] = False,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(help="Processes for measuring and RL, one thread each.", min=1)] = 2,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain the embedded ladder, measure it, run GRPO from each checkpoint, write the report.

    A second call continues where the first stopped and never repeats finished work.

    Examples: `vgrad reproduce` · `vgrad reproduce --tiny --out /tmp/tiny` · `vgrad reproduce --seed 1 --out runs/seed1`
    """
    from vgrad_lab.experiments import embedded_ladder

    settings = embedded_ladder.TINY if tiny else embedded_ladder.SETTINGS
    result = embedded_ladder.run(
        out, embedded_ladder.with_seed(settings, seed), workers=workers, progress=not (quiet or json_)
    )
    if json_:
        typer.echo(_json(result))
    else:
        typer.echo(embedded_ladder.describe(result))
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def verify(
    all_: Annotated[bool, typer.Option("--all", help="Every statement, written to verify.json (or to --out).")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Ledger id (S08, S17.sharp) or the paper's name (lemma-1); repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON here, also when a check fails.")] = None,
    seed: Seed = 0,
    examples: Annotated[int, typer.Option(help="Random systems per check.", min=1)] = 20,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the ledger's deterministic checks and print statement, verdict, residual.

    Without options: every statement, printed and not written. Exit code 1 when a check failed.

    Examples: `vgrad verify --all` · `vgrad verify --only lemma-1 --examples 200` · `vgrad verify --json`
    """
    from vgrad_lab.checkpoints import atomic
    from vgrad_lab.experiments import verify_ledger

    if all_ and only:
        raise UserError("--all and --only were both given; choose one")
    target = out or (Path("verify.json") if all_ else None)
    if target and target.is_dir():
        raise UserError(f"--out is {target}, a folder; give the name of a file")
    if target:
        atomic.require_writable(target.parent)
    found: list[dict[str, Any]] = []
    complete = False
    try:
        for row in verify_ledger.rows(only=only, seed=seed, examples=examples, progress=not quiet):
            found.append(row)
        complete = True
    except KeyboardInterrupt:
        pass
    written = verify_ledger.document(found, only=only, seed=seed, examples=examples, complete=complete)
    if target:
        atomic.write_file(target, _json(written) + "\n")
    typer.echo(_json(written) if json_ else verify_ledger.table(found) + (f"\nwritten to {target}" if target else ""))
    if not complete:
        raise _Stopped(f"interrupted after {len(found)} rows" + (f", kept in {target}" if target else ""))
    if verify_ledger.failed(found):
        raise typer.Exit(1)


@ladder.command("pretrain")
def ladder_pretrain(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoints go; an unfinished ladder continues.")],
    seed: Seed = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="Toy sizes, seconds.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; the weights depend on it.", min=1)] = 2,
    quiet: Quiet = False,
) -> None:
    """Pretrain the embedded ladder of OLMo-2 checkpoints from text that ships with Python.

    Examples: `vgrad ladder pretrain runs/ladder1 --seed 1` · `vgrad ladder pretrain /tmp/l --tiny`
    """
    from dataclasses import replace

    from vgrad_lab.checkpoints import embedded

    settings = replace(embedded.TINY if tiny else embedded.LadderSettings(), seed=seed)
    rungs = embedded.pretrain(settings, folder, progress=not quiet, threads=threads)
    typer.echo(f"{len(rungs)} checkpoints in {folder}, steps {rungs[0].step} to {rungs[-1].step}")


@app.command()
def measure(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder, or a ladder (a folder of step<number> folders).")],
    out: Annotated[Path | None, typer.Option(help="Run folder to publish the records in.")] = None,
    alpha: Annotated[float, typer.Option(help="α of the headroom, per unit reward.")] = 1.0,
    group: Annotated[int, typer.Option(help="GRPO group size inside Λ and κ.", min=2)] = 8,
    prompts: Annotated[int, typer.Option(help="Evaluation prompts drawn.", min=1)] = 256,
    json_: Json = False,
) -> None:
    """Measure Σ, both readings of Λ, headroom, P_gap and the trivial baselines, before any RL.

    Examples: `vgrad measure runs/embedded/ladder/step001000` · `vgrad measure runs/embedded/ladder --json`
    """
    from vgrad_lab.checkpoints import probe
    from vgrad_lab.experiments import one_checkpoint

    if alpha <= 0:
        raise UserError(f"alpha is {alpha}; give a positive number")
    settings = probe.MeasureSettings(alpha=alpha, group_size=group, prompts=prompts)
    _finish(one_checkpoint.run(path, measures=settings, out=out), one_checkpoint.describe_measures, json_)


@app.command()
def rl(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder, or a ladder (a folder of step<number> folders).")],
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
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; repeatable. Default 0.")] = None,
    json_: Json = False,
) -> None:
    """Run GRPO on the label-copying task from a checkpoint and record the reward at each budget.

    Examples: `vgrad rl runs/embedded/ladder/step001000` · `vgrad rl PATH --optimizer sgd --lr 0.01 --seed 0 --seed 1`
    """
    from dataclasses import replace

    from vgrad_lab.checkpoints import grpo
    from vgrad_lab.experiments import one_checkpoint

    default = grpo.default_settings(optimizer)
    settings = replace(
        default,
        learning_rate=default.learning_rate if lr is None else lr,
        clip=default.clip if clip is None else clip or None,
        group_size=group,
        budgets=tuple(budget or default.budgets),
    )
    records = one_checkpoint.run(path, rl=settings, seeds=tuple(seed or (0,)), out=out)
    _finish(records, one_checkpoint.describe_rl, json_)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run folder with records.jsonl.")]) -> None:
    """Write the HTML report, its figures and its tables from the records of a run.

    Example: `vgrad report runs/embedded`
    """
    from vgrad_lab.checkpoints.report import write_report

    typer.echo(f"report: {write_report(run)}")


@app.command()
def credit(
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it continues.")] = Path("runs/credit"),
    seeds: Annotated[int, typer.Option(help="Number of seeds; the intervals are over them.", min=2)] = 5,
    seed: Annotated[int, typer.Option(help="First seed.", min=0)] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="The same path in seconds, with toy sizes.")] = False,
    workers: Annotated[int, typer.Option(help="Processes, one thread each.", min=1)] = 2,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train GRUs and transformers on three tasks and measure who sends credit to whom; write records and report.

    A second call continues where the first stopped and never repeats finished work.

    Examples: `vgrad credit` · `vgrad credit --tiny --seeds 2 --out /tmp/tiny` · `vgrad credit --seed 5 --out runs/more`
    """
    from vgrad_lab.experiments import credit_flow

    settings = credit_flow.with_seeds(credit_flow.TINY if tiny else credit_flow.SETTINGS, seeds, first=seed)
    result = credit_flow.run(out, settings, workers=workers, progress=not (quiet or json_))
    if json_:
        typer.echo(_json(result))
    else:
        typer.echo(credit_flow.describe(result))
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def doctor(run: Annotated[Path, typer.Argument(help="A TRL run's folder, or its log.")], json_: Json = False) -> None:
    """Say what is wrong with a GRPO run, from the log of VGradCallback. Exit code 1 when something is.

    Examples: `vgrad doctor out/grpo` · `vgrad doctor out/grpo --json`
    """
    from vgrad_lab.integrations import doctor as page

    result = page.diagnose(run)
    typer.echo(_json(result) if json_ else page.describe(result))
    raise typer.Exit(int(not result["healthy"]))


def _finish(records: list[dict[str, Any]], describe: Any, json_: bool) -> None:
    if json_:
        typer.echo(_json(records))
    else:
        typer.echo(describe(records))
    if any(r["status"] != "done" for r in records):
        raise typer.Exit(1)


def main() -> NoReturn:
    """Entry point: a user's error is one line and exit code 2, work that failed exit code 1, an interrupt 130."""
    # Before torch loads: threads that spin while they wait slow training many times on a busy machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except UserError as error:
        print(f"vgrad: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except _Stopped as stop:
        print(f"vgrad: {stop}", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = "checkpoints" if error.name in ("transformers", "tokenizers", "safetensors") else "torch"
        if error.name not in ("torch", "transformers", "tokenizers", "safetensors"):
            raise
        print(f"vgrad: {error.name} is not installed; run: pip install 'vgrad_lab[{extra}]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"vgrad: {error.strerror or error}{where}; check the path, its rights and free space", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print("vgrad: interrupted; run the same command again to continue", file=sys.stderr)  # noqa: T201
        raise
    sys.exit(0)
