"""The run's own log: one JSON object a line, appended and flushed, read back whatever the end of the run was."""

import json
import math
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.store import canonical

NAME = "vgrad.jsonl"
FORMAT = 1


def finite(value: Any) -> Any:
    """The value with None for each number that JSON has no word for."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append(path: Path, record: dict[str, Any]) -> None:
    """Append one record and flush it; a line that an interrupted run left unfinished is closed first.

    Raises OSError when that fails, TypeError for what JSON cannot hold.
    """
    line = canonical(finite(record)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, 2)
            line = line if stream.read(1) == b"\n" else "\n" + line
        stream.write(line.encode())
        stream.flush()


def find(run: Path) -> Path:
    """The log of a run, given as its folder or as the file. Raises UserError when there is none."""
    path = run / NAME if run.is_dir() else run
    if path.is_file():
        return path
    if not run.exists():
        raise UserError(f"{run} does not exist; give the output_dir of a run with VGradCallback, or its {NAME}")
    raise UserError(f"{run} holds no {NAME}; was VGradCallback among the trainer's callbacks? (docs/trl.md)")


def read(run: Path) -> list[dict[str, Any]]:
    """All records of a run in order; an unfinished line is left out where a run was interrupted.

    Raises UserError for a missing or empty log, a broken line anywhere else, another format, or no step.
    """
    path = find(run)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check its rights") from error
    parsed = [(number, _record(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    records = []
    for i, (number, record) in enumerate(parsed):
        if record is not None:
            records.append(record)
        elif i + 1 < len(parsed) and (parsed[i + 1][1] or {}).get("kind") != "start":
            raise UserError(f"{path} line {number} is no record of VGradCallback; the file is damaged or another's")
    starts = [r for r in records if r["kind"] == "start"]
    if any(r.get("format") != FORMAT for r in starts):
        raise UserError(
            f"{path} has format {starts[0].get('format')}, this version reads {FORMAT}; use the same vgrad_lab"
        )
    if not any(r["kind"] == "step" for r in records):
        raise UserError(f"{path} holds no step; the run ended before its first update, or the log is empty")
    return records


def steps(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Step records in order of their step; where a resumed run wrote a step again, the later one counts."""
    latest = {r["step"]: r for r in records if r["kind"] == "step"}
    return [latest[k] for k in sorted(latest)]


def _record(line: str) -> dict[str, Any] | None:
    """The line's record, or None when it is not one."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("kind") not in ("start", "step", "end", "disabled"):
        return None
    if value["kind"] == "step" and (not isinstance(value.get("step"), int) or isinstance(value["step"], bool)):
        return None
    return value
