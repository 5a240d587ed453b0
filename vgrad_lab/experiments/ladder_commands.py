"""`vgrad ladder list | audit | plan`: a ladder on a hub or in a folder, looked at before anything is fetched."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.checkpoints.audit import Audit, audit, audit_record, require
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.known_ladders import KNOWN, find_spec
from vgrad_lab.checkpoints.plan import Plan, duration, gigabytes, make_plan, plan_record
from vgrad_lab.checkpoints.resolve import Ladder, NamedRung, resolve, select
from vgrad_lab.experiments.command_line import Json, as_json

Name = Annotated[str, typer.Argument(help="A built-in ladder, owner/name of one, a YAML file, or a folder.")]
Rungs = Annotated[list[str] | None, typer.Option("--rung", help="Step or name of a rung; repeatable.")]
From = Annotated[int | None, typer.Option("--from", help="First step.", min=0)]
To = Annotated[int | None, typer.Option("--to", help="Last step.", min=0)]
Every = Annotated[int | None, typer.Option(help="Only steps that this divides.", min=1)]
Allow = Annotated[list[str] | None, typer.Option(help="Kind of finding to let pass; repeatable, and recorded.")]
Out = Annotated[Path | None, typer.Option(help="Write the result as JSON here.")]


def list_(
    name: Annotated[str | None, typer.Argument(help="A ladder; without it, the built-in ones.")] = None,
    rung: Rungs = None,
    start: From = None,
    stop: To = None,
    every: Every = None,
    json_: Json = False,
) -> None:
    """List the built-in ladders, or the rungs that a ladder really has.

    Examples: `vgrad ladder list` · `vgrad ladder list olmo2-1b --every 100000` · `vgrad ladder list my_ladder.yaml`
    """
    if name is None:
        if rung or (start, stop, every) != (None, None, None):
            raise UserError("rungs were asked for without a ladder; give its name, as in vgrad ladder list olmo2-1b")
        known = list(KNOWN.values())
        if json_:
            typer.echo(as_json([{k: getattr(s, k) for k in ("name", "repository", "pattern", "note")} for s in known]))
        else:
            typer.echo(_table([[s.name, s.repository, s.note] for s in known]))
        return
    ladder = chosen_ladder(name, rung, start, stop, every)
    if json_:
        typer.echo(as_json([{**asdict(r), "tokens": _tokens(ladder, r)} for r in ladder.rungs]))
        return
    rows = [[r.step, _billions(_tokens(ladder, r)), r.name, r.commit[:8]] for r in ladder.rungs]
    typer.echo(_table([["step", "tokens", "rung", "commit"], *rows]))
    typer.echo(f"{len(rows)} rungs in {ladder.spec.place}")


def audit_(
    name: Name,
    rung: Rungs = None,
    start: From = None,
    stop: To = None,
    every: Every = None,
    allow: Allow = None,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Compare the rungs of a ladder through metadata alone: hashes, shards, config.json. Exit code 1 when refused.

    Refused: equal weights in two rungs or in main, missing shards, another architecture or RoPE base, weights only as
    .bin, code in the repository. What is allowed stays in the record.

    Examples: `vgrad ladder audit olmo2-1b-paper` · `vgrad ladder audit pythia-1b --to 1000 --allow duplicate`
    """
    result = audit(chosen_ladder(name, rung, start, stop, every), allow=allow or (), progress=not json_)
    record = audit_record(result)
    _write(out, record)
    typer.echo(as_json(record) if json_ else describe_audit(result))
    raise typer.Exit(int(bool(result.refused)))


def plan_(
    name: Name,
    rung: Rungs = None,
    start: From = None,
    stop: To = None,
    every: Every = None,
    allow: Allow = None,
    rate: Annotated[float, typer.Option(help="Download rate in MB per second.")] = 100.0,
    compute: Annotated[float, typer.Option(help="Seconds of work per rung.")] = 0.0,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Print what a ladder costs: bytes to download, room on the disk, time. The audit comes first.

    One rung is fetched while the one before it is in use, and each is evicted after use: two are on the disk at most.

    Examples: `vgrad ladder plan olmo2-1b-paper` · `vgrad ladder plan olmo2-1b --every 100000 --rate 50 --compute 900`
    """
    result = audit(chosen_ladder(name, rung, start, stop, every), allow=allow or (), progress=not json_)
    require(result)
    plan = make_plan(result.usable, rate=rate * 1e6, compute=compute)
    record = {**plan_record(plan), "audit": audit_record(result)}
    _write(out, record)
    typer.echo(as_json(record) if json_ else describe_plan(plan, result))


def add_to(ladder: typer.Typer) -> None:
    """Add the commands of this module to the `ladder` command."""
    ladder.command("list")(list_)
    ladder.command("audit")(audit_)
    ladder.command("plan")(plan_)


def describe_audit(result: Audit) -> str:
    """Findings, refused ones first, and the verdict."""
    ladder = result.ladder
    how = "files hashed on disk" if ladder.spec.folder else "metadata alone, no weights fetched"
    lines = [f"{len(ladder.rungs)} rungs of {ladder.spec.place}, {_span(ladder)}; {how}"]
    for one in sorted(result.findings, key=lambda finding: (finding not in result.refused, not finding.refuses)):
        word = "REFUSED" if one in result.refused else "allowed" if one.refuses else "note"
        lines.append(f"{word:8} {one.kind}: {one.detail}")
    if result.refused:
        kinds = " ".join(f"--allow '{kind}'" for kind in dict.fromkeys(one.kind for one in result.refused))
        lines.append(f"verdict: refused; leave those rungs out, or let them pass with {kinds}")
    else:
        allowed = any(one.refuses for one in result.findings)
        lines.append(f"verdict: {'allowed as asked' if allowed else 'clean'}; {len(result.usable)} rungs usable")
    return "\n".join(lines)


def describe_plan(plan: Plan, result: Audit) -> str:
    """The plan in a few lines."""
    ladder = result.ladder
    whole = plan.weight_bytes + plan.other_bytes
    if ladder.spec.folder:
        return (
            f"{len(plan.rungs)} rungs in {ladder.spec.place}: {gigabytes(whole)} on disk already, nothing to download"
        )
    lines = [
        f"{len(plan.rungs)} rungs of {ladder.spec.place}, {_span(ladder)}",
        f"download  {gigabytes(plan.weight_bytes)} of weights, {gigabytes(plan.other_bytes)} of other files",
        f"disk      {gigabytes(plan.peak_bytes)} with one rung fetched ahead and eviction after use; "
        f"{gigabytes(whole)} if all are kept",
        f"time      {duration(plan.download_seconds)} of downloads at {plan.rate / 1e6:g} MB/s",
    ]
    if plan.compute:
        lines.append(f"          {duration(plan.total_seconds)} with {duration(plan.compute)} of work per rung")
    left_out = len(ladder.rungs) - len(plan.rungs)
    if left_out:
        lines.append(f"left out  {left_out} rungs that the audit cannot use")
    if any(one.refuses for one in result.findings):
        lines.append(f"allowed   {', '.join(result.allowed)}")
    return "\n".join(lines)


def chosen_ladder(name: str, rungs: list[str] | None, start: int | None, stop: int | None, every: int | None) -> Ladder:
    """The rungs that a command's arguments choose of a ladder."""
    return select(resolve(find_spec(name)), rungs or (), start=start, stop=stop, every=every)


def _write(out: Path | None, record: dict[str, Any]) -> None:
    from vgrad_lab.checkpoints.atomic import write_file

    if out is not None:
        if out.is_dir():
            raise UserError(f"--out is {out}, a folder; give the name of a file")
        write_file(out, as_json(record) + "\n")


def _span(ladder: Ladder) -> str:
    return f"steps {ladder.rungs[0].step} to {ladder.rungs[-1].step}"


def _tokens(ladder: Ladder, rung: NamedRung) -> int | None:
    """Tokens seen; from the step where the ladder says how many a step takes, else from the name."""
    per_step = ladder.spec.tokens_per_step
    if per_step is not None:
        return rung.step * per_step
    return None if rung.tokens is None else rung.tokens * 10**9


def _billions(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens / 1e9:.1f}B"


def _table(rows: list[list[Any]]) -> str:
    """Rows in columns."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
