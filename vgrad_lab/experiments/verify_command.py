"""`vgrad verify`: the ledger's checks as a table and as a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.command_line import Json, Quiet, Seed, Stopped, as_json


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
        atomic.write_file(target, as_json(written) + "\n")
    typer.echo(as_json(written) if json_ else verify_ledger.table(found) + (f"\nwritten to {target}" if target else ""))
    if not complete:
        raise Stopped(f"interrupted after {len(found)} rows" + (f", kept in {target}" if target else ""))
    if verify_ledger.failed(found):
        raise typer.Exit(1)
