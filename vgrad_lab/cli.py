"""`vgrad`: the command line. Heavy libraries load inside the commands, so that ``--help`` is instant."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vgrad_lab import __version__
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments import (
    checkpoint_commands,
    estimators_command,
    fetch_commands,
    forecast_command,
    ladder_commands,
    readings_command,
    report_command,
    reproduce_command,
    sweep_command,
    verify_command,
)
from vgrad_lab.experiments.command_line import Json, Quiet, Seed, Stopped, as_json

INTERRUPTED = 130
CHECKPOINTS = ("transformers", "tokenizers", "safetensors", "huggingface_hub", "yaml")
"""Modules that the extra of this name brings."""

app = typer.Typer(
    name="vgrad",
    help="The value-gradient theory of critic-free RL for language models, made executable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
ladder = typer.Typer(
    name="ladder",
    help="Ladders of pretraining checkpoints: make, list, audit, plan, fetch, evict.",
    no_args_is_help=True,
)
app.add_typer(ladder)
ladder_commands.add_to(ladder)
fetch_commands.add_to(ladder)
app.command()(forecast_command.forecast)


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


app.command()(reproduce_command.reproduce)
app.command()(verify_command.verify)
app.command()(estimators_command.estimators)


@ladder.command("pretrain")
def ladder_pretrain(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoints go; an unfinished ladder continues.")],
    seed: Seed = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="Toy sizes, seconds.")] = False,
    family: Annotated[str, typer.Option(help="Architecture: olmo2, llama or gpt_neox.")] = "olmo2",
    threads: Annotated[int, typer.Option(help="CPU threads; the weights depend on it.", min=1)] = 2,
    quiet: Quiet = False,
) -> None:
    """Pretrain the embedded ladder of small checkpoints (OLMo-2 by default) from text that ships with Python.

    Examples: `vgrad ladder pretrain runs/ladder1 --seed 1` · `vgrad ladder pretrain /tmp/l --tiny --family llama`
    """
    from dataclasses import replace

    from vgrad_lab.checkpoints import embedded

    settings = replace(embedded.TINY if tiny else embedded.LadderSettings(), seed=seed, family=family)
    rungs = embedded.pretrain(settings, folder, progress=not quiet, threads=threads)
    typer.echo(f"{len(rungs)} checkpoints in {folder}, steps {rungs[0].step} to {rungs[-1].step}")


app.command()(checkpoint_commands.measure)
app.command()(checkpoint_commands.rl)


app.command()(readings_command.readings)
app.command()(report_command.report)
app.command()(sweep_command.sweep)


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
        typer.echo(as_json(result))
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
    typer.echo(as_json(result) if json_ else page.describe(result))
    raise typer.Exit(int(not result["healthy"]))


def main() -> NoReturn:
    """Entry point: a user's error is one line and exit code 2, work that failed exit code 1, an interrupt 130."""
    # Before torch loads: threads that spin while they wait slow training many times on a busy machine (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except UserError as error:
        print(f"vgrad: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except Stopped as stop:
        print(f"vgrad: {stop}", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = "checkpoints" if error.name in CHECKPOINTS else "torch"
        if error.name not in ("torch", *CHECKPOINTS):
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
