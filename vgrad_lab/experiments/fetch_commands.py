"""`vgrad ladder fetch | evict`: rungs of a hub brought into a cache of our own, and deleted from it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.checkpoints.audit import audit, require
from vgrad_lab.checkpoints.cache import CachedRung, cached_rungs, clear_unfinished, default_cache
from vgrad_lab.checkpoints.cache import evict as evict_folder
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import nearest
from vgrad_lab.checkpoints.plan import gigabytes
from vgrad_lab.checkpoints.prefetch import Step, walk
from vgrad_lab.experiments.command_line import Json, as_json
from vgrad_lab.experiments.ladder_commands import Allow, Every, From, Name, Rungs, To, chosen_ladder

Cache = Annotated[Path | None, typer.Option(help="Folder of the cache; by default VGRAD_CACHE or ~/.cache/vgrad_lab.")]


def fetch(
    name: Name,
    rung: Rungs = None,
    start: From = None,
    stop: To = None,
    every: Every = None,
    allow: Allow = None,
    cache: Cache = None,
    json_: Json = False,
) -> None:
    """Fetch rungs by commit into a cache, after the audit; what is there is kept, what broke off is continued.

    Each file is checked by size and SHA-256. Exit code 1 when a rung could not be fetched; the others are.

    Examples: `vgrad ladder fetch olmo2-1b --rung 50000` · `vgrad ladder fetch my_ladder.yaml --cache /data/ladders`
    """
    result = audit(chosen_ladder(name, rung, start, stop, every), allow=allow or (), progress=not json_)
    require(result)
    allow_bin = "bin only" in result.allowed
    rows = []
    for step in walk(result.ladder, result.usable, cache or default_cache(), keep=True, allow_bin=allow_bin):
        rows.append(_row(step))
        if not json_:
            typer.echo(f"{step.name}  {rows[-1]['path'] or 'FAILED ' + str(step.problem)}")
    if json_:
        typer.echo(as_json(rows))
    raise typer.Exit(int(any(row["problem"] for row in rows)))


def evict(
    name: Annotated[str | None, typer.Argument(help="Ladder or repository; without it, the cache is listed.")] = None,
    rung: Rungs = None,
    everything: Annotated[bool, typer.Option("--all", help="All ladders, and downloads that broke off.")] = False,
    cache: Cache = None,
    json_: Json = False,
) -> None:
    """Delete fetched rungs from the cache, or list them. Files that were not fetched are never touched.

    Examples: `vgrad ladder evict` · `vgrad ladder evict olmo2-1b --rung 50000` · `vgrad ladder evict --all`
    """
    folder = cache or default_cache()
    if everything and (name or rung):
        raise UserError("--all was given with a ladder or rungs; choose one")
    if rung and not name:
        raise UserError("rungs were given without a ladder; give its name, as in vgrad ladder evict olmo2-1b --rung 50")
    there = cached_rungs(folder)
    chosen = there if name is None else _chosen(there, name, rung or [])
    rows = [{**_facts(one), "bytes": one.size, "path": str(one.path)} for one in chosen]
    delete = everything or name is not None
    freed = sum(evict_folder(one.path) for one in chosen) if delete else 0
    freed += clear_unfinished(folder) if everything else 0
    if json_:
        typer.echo(as_json({"cache": str(folder), "evicted": delete, "freed": freed, "rungs": rows}))
        return
    for row in rows:
        typer.echo(f"{row['ladder']}  {row['rung']}  {gigabytes(row['bytes'])}")
    total = f"{gigabytes(freed)} freed" if delete else gigabytes(sum(row["bytes"] for row in rows))
    typer.echo(f"{len(rows)} rungs {'evicted from' if delete else 'in'} {folder}, {total}")


def add_to(ladder: typer.Typer) -> None:
    """Add the commands of this module to the `ladder` command."""
    ladder.command()(fetch)
    ladder.command()(evict)


def _row(step: Step) -> dict[str, Any]:
    found = step.fetched
    facts = {"rung": step.name, "step": found.rung.step if found else None, "problem": step.problem}
    return facts | {"path": str(found.rung.path) if found else None, "sha256": found.identity if found else None}


def _facts(one: CachedRung) -> dict[str, Any]:
    return {key: one.record.get(key) for key in ("ladder", "repository", "rung", "step", "commit")}


def _chosen(there: tuple[CachedRung, ...], name: str, rungs: list[str]) -> tuple[CachedRung, ...]:
    """Rungs of a ladder in the cache; a wrong name is met with the nearest that are there."""
    of_it = [one for one in there if name in (one.record.get("ladder"), one.record.get("repository"))]
    if not of_it:
        names = {str(one.record.get("ladder")) for one in there}
        raise UserError(f"no rung of {name} in the cache: {nearest(name, names) if names else 'it is empty'}")
    for wanted in rungs:
        if not any(_is(one, wanted) for one in of_it):
            known = [str(one.record.get("rung")) for one in of_it]
            raise UserError(f"no rung {wanted} of {name} in the cache: {nearest(wanted, known)}")
    return tuple(one for one in of_it if not rungs or any(_is(one, wanted) for wanted in rungs))


def _is(one: CachedRung, wanted: str) -> bool:
    return wanted in (one.record.get("rung"), str(one.record.get("step")))
