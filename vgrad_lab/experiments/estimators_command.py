"""`vgrad estimators`: which policy-gradient estimator is biased, and by how much, exactly."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.command_line import Json, Seed, as_json

REMEDY = " --group, --vocab or --horizon, or --binary, which has fewer distinct rewards"


def estimators(
    vocab: Annotated[int, typer.Option(help="Tokens of the vocabulary.")] = 3,
    horizon: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 3,
    group: Annotated[int, typer.Option(help="Answers per group.")] = 4,
    end: Annotated[int, typer.Option(help="Token that ends an answer; -1 for answers of one length.")] = 0,
    binary: Annotated[bool, typer.Option("--binary", help="Rewards 0 and 1 instead of real ones.")] = False,
    spread: Annotated[float, typer.Option(help="Standard deviation of the policy's logits.")] = 1.0,
    seed: Seed = 0,
    names: Annotated[str | None, typer.Option(help="Estimators to show, separated by commas; all by default.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every table of docs/estimators.md, on its own problem.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON here.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figure of --full.")] = None,
    json_: Json = False,
) -> None:
    """Print expectation and variance of each estimator on a small token tree, by exact sums over all groups.

    c is the scale of the expected direction against ∇J, residual the share of it that points elsewhere.

    Examples: `vgrad estimators` · `vgrad estimators --binary --names rloo,grpo` · `vgrad estimators --end -1 --group 2`
    """
    from vgrad_lab.checkpoints import atomic
    from vgrad_lab.experiments import estimator_table as page

    if full and names is not None:
        raise UserError("--full and --names were both given; choose one")
    if figures and not full:
        raise UserError("--figures draws the study; give --full too, or leave it out")
    _check_targets(out, figures)
    try:
        if full:
            result = page.document("vgrad estimators --full", seed=1, content=page.study())
        else:
            result = _one_table(vocab, horizon, group, end, binary, spread, seed, names)
    except ValueError as error:
        raise UserError(_remedy(str(error))) from error
    if out:
        atomic.write_file(out, as_json(result) + "\n")
    if figures:
        from vgrad_lab.experiments.estimator_figure import draw

        draw(result, figures)
    typer.echo(as_json(result) if json_ else _shown(result["tables"] if full else [result]))
    if out and not json_:
        typer.echo(f"written to {out}")


def _check_targets(out: Path | None, figures: Path | None) -> None:
    """Raise UserError where a result or a figure could not be written in the end."""
    from vgrad_lab.checkpoints import atomic

    if out and out.is_dir():
        raise UserError(f"--out is {out}, a folder; give the name of a file")
    for folder in filter(None, (out and out.parent, figures)):
        atomic.require_writable(folder)


def _one_table(
    vocab: int, horizon: int, group: int, end: int, binary: bool, spread: float, seed: int, names: str | None
) -> dict[str, Any]:
    """The table of one random problem, with the command that gives it again."""
    from vgrad_lab.discrete.estimator_types import random_problem
    from vgrad_lab.experiments import estimator_table as page

    chosen = [name.strip().lower() for name in names.split(",") if name.strip()] if names is not None else None
    if chosen == []:
        raise UserError("--names is empty; give names as in --names rloo,grpo, or leave it out for all")
    if vocab >= 2 and not -1 <= end < vocab:
        raise UserError(f"--end is {end}; give a token in 0 … {vocab - 1}, or -1 for answers of one length")
    if not spread >= 0:
        raise UserError(f"--spread is {spread:g}; give a number that is not negative")
    command = f"vgrad estimators --vocab {vocab} --horizon {horizon} --group {group} --end {end} --spread {spread!r}"
    command += f" --seed {seed}" + (" --binary" if binary else "") + (f" --names {','.join(chosen)}" if chosen else "")
    problem = random_problem(vocab, horizon, end=None if end == -1 else end, binary=binary, spread=spread, seed=seed)
    return page.document(command, seed=seed, content=page.table(problem, group=group, names=chosen))


def _shown(tables: list[dict[str, Any]]) -> str:
    """The tables as text; where one left rows out for their size, what makes it smaller."""
    from vgrad_lab.experiments import estimator_table as page

    large = any("more than" in why for part in tables for why in part["left_out"].values())
    found = "\n\n".join(page.text(part) for part in tables)
    return f"{found}\nfor the rows left out give a smaller{REMEDY}" if large else found


def _remedy(error: str) -> str:
    """The error with the options that make a problem smaller in the place of the package's own advice."""
    reason, more, _ = error.partition("; ") if "more than" in error else (error, "", "")
    return f"{reason}; give a smaller{REMEDY}" if more else error
