"""Records on disk: one unit, one file, published by write → fsync → rename; JSONL exported from them.

A unit's id is a hash of what it depends on (content of the checkpoint, task, protocol, seed, stage), so a finished unit
is never run twice and a changed protocol is a new unit. Timings stand apart, so that records repeat byte for byte.
"""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.atomic import write_file

UNITS, TIMINGS = "units", "timings"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no NaN: equal values, equal bytes. Raises ValueError for NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def publish(folder: Path, record: dict[str, Any], *, seconds: float | None = None) -> None:
    """Publish one record under its unit id, and its run time beside it."""
    if seconds is not None:
        timing = {"unit": record["unit"], "stage": record["stage"], "seconds": round(seconds, 3)}
        write_file(folder / TIMINGS / f"{record['unit']}.json", canonical(timing) + "\n")
    write_file(folder / UNITS / f"{record['unit']}.json", canonical(record) + "\n")


def read_records(folder: Path, kind: str = UNITS) -> dict[str, dict[str, Any]]:
    """All published records by unit id; an unreadable file is set aside as ``*.corrupt`` and counts as not run."""
    found = ((path, _read(path)) for path in sorted((folder / kind).glob("*.json")))
    return {str(record["unit"]): record for _, record in found if record is not None}


def read_record(folder: Path, unit: str) -> dict[str, Any] | None:
    """The published record of one unit, or None; an unreadable file is set aside as by `read_records`."""
    return _read(folder / UNITS / f"{unit}.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["unit"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        with suppress(OSError):  # another reader has set it aside, or the folder may only be read
            path.replace(path.with_suffix(".corrupt"))
        return None
    return dict(record)


def export(folder: Path) -> Path:
    """Write records.jsonl and timings.jsonl, sorted, from the published units; returns the former."""
    records = sorted(read_records(folder).values(), key=record_order)
    for name, rows in (("timings.jsonl", read_records(folder, TIMINGS).values()), ("records.jsonl", records)):
        write_file(folder / name, lines(rows))
    return folder / "records.jsonl"


def lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(canonical(row) + "\n" for row in rows)


def record_order(record: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key: pretraining step, then stage, settings, seed."""
    return record["checkpoint"]["step"], record["stage"], record["protocol"], record["seed"], record["unit"]
