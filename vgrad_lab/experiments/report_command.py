"""`vgrad report`: the page of a run, or of several side by side."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with records.jsonl; several are compared.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the comparison; default: compared, beside the first run.")
    ] = None,
) -> None:
    """Write the HTML report, its figures and its tables from the records of a run, or of each run and a comparison.

    Examples: `vgrad report runs/embedded` · `vgrad report runs/embedded runs/seed1 runs/seed2 --out runs/compared`
    """
    from vgrad_lab.checkpoints.errors import UserError
    from vgrad_lab.checkpoints.report import write_comparison, write_report
    from vgrad_lab.checkpoints.report.compare import run_names

    if len(runs) == 1 and out is not None:
        raise UserError("--out is the folder of a comparison, and one run was given; give several, or leave --out away")
    names = run_names(runs)
    for name, run in zip(names, runs, strict=True):
        typer.echo(f"report: {write_report(run)}" if len(runs) == 1 else f"report of {name}: {write_report(run)}")
    if len(runs) > 1:
        typer.echo(f"comparison: {write_comparison(runs, runs[0].parent / 'compared' if out is None else out)}")
