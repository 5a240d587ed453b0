"""Claims with a lease: several workers share one folder, and a dead worker's unit is free again.

The claims of a unit are the files ``claims/<unit>.0``, ``.1``, …; the highest one counts. Whoever creates the next one,
which the file system lets one worker do, holds the unit; nobody replaces or deletes another's claim while the unit is
open, so that two workers never take the same claim over. A holder touches its file; a claim that was not touched for
a lease is void. Ages are told by the file system's own clock, so that the clocks of the machines may differ.
"""

import glob
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.errors import UserError

CLAIMS = "claims"
LEASE = 120.0
"""Seconds; above the 60 s for which NFS may show an old time."""
BEATS = 4
"""Touches per lease."""


@dataclass(frozen=True)
class Claim:
    """A unit held by this process.

    Args:
        path: file of the claim.
        unit: id of the unit.
        owner: name that the holder was given.
    """

    path: Path
    unit: str
    owner: str


def new_owner() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def clock(folder: Path) -> float:
    """Seconds since the epoch by the file system's own clock: the time of a file just touched there.

    Raises UserError when the folder cannot be written.
    """
    probe = folder / CLAIMS / f".clock-{uuid.uuid4().hex}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        seconds = probe.stat().st_mtime
        probe.unlink()
    except OSError as error:
        raise _no_claim(folder, error) from error
    return seconds


def is_held(folder: Path, unit: str, *, lease: float = LEASE, now: float | None = None) -> bool:
    """Whether a living worker holds the unit; `now` is the time by `clock`, read if it is not given."""
    path = _latest(folder, unit)[1]
    return path is not None and _lives(path, lease, clock(folder) if now is None else now)


def take(folder: Path, unit: str, *, owner: str, lease: float = LEASE) -> Claim | None:
    """Claim a unit, or None when another holds it. Look for its record again after this.

    Raises UserError when the folder cannot be written.
    """
    number, latest = _latest(folder, unit)
    if latest is not None and _lives(latest, lease, clock(folder)):
        return None
    path = folder / CLAIMS / f"{unit}.{number + 1}"
    content = json.dumps({"owner": owner, "place": _place(), "pid": os.getpid(), "born": _born(os.getpid())})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_claim(folder, error) from error
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except FileExistsError:
        return None
    except OSError as error:
        with suppress(OSError):
            os.utime(path, (0, 0))  # created, not written: nobody need wait for it
        raise _no_claim(folder, error) from error
    return Claim(path, unit, owner)


def release(folder: Path, unit: str, owner: str) -> None:
    """Give up a claim without a record, if `owner` still holds it: the next worker need not wait for the lease."""
    path = _latest(folder, unit)[1]
    if path is not None and _read(path).get("owner") == owner:
        with suppress(OSError):
            os.utime(path, (0, 0))


def forget(folder: Path, unit: str) -> None:
    """Delete all claims of a unit whose record is published, the highest first.

    Whatever their numbers: one that was made while another worker deleted those below it stands alone.
    """
    numbers = (path.name.removeprefix(f"{unit}.") for path in (folder / CLAIMS).glob(f"{glob.escape(unit)}.*"))
    for number in sorted((int(n) for n in numbers if n.isdecimal()), reverse=True):
        (folder / CLAIMS / f"{unit}.{number}").unlink(missing_ok=True)


def still_held(claim: Claim) -> bool:
    """Whether nobody has taken the claim over (its holder was stopped for longer than the lease)."""
    number = int(claim.path.name.rsplit(".", 1)[1])
    return claim.path.exists() and not claim.path.with_name(f"{claim.unit}.{number + 1}").exists()


@contextmanager
def heartbeat(claim: Claim, *, lease: float = LEASE) -> Iterator[None]:
    """Touch the claim while the block runs."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(lease / BEATS):
            with suppress(OSError):  # a hiccup of the file system costs one beat
                if still_held(claim):
                    os.utime(claim.path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _latest(folder: Path, unit: str) -> tuple[int, Path | None]:
    """Number and file of the highest claim; −1 and None when there is none."""
    number = -1
    while (folder / CLAIMS / f"{unit}.{number + 1}").exists():
        number += 1
    return number, None if number < 0 else folder / CLAIMS / f"{unit}.{number}"


def _lives(path: Path, lease: float, now: float) -> bool:
    """Touched within a lease (before or after now: a clock that was set back must not keep a claim for ever)."""
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return False
    return abs(now - touched) <= lease and not _is_gone(_read(path))


def _read(path: Path) -> dict[str, Any]:
    """What a claim says; empty for one that is not written yet."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return given if isinstance(given, dict) else {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine that has ended; False where that cannot be told."""
    if _place() is None or holder.get("place") != _place() or not isinstance(holder.get("pid"), int):
        return False
    return _born(holder["pid"]) != holder.get("born")


@cache
def _place() -> str | None:
    """Name of this boot of this machine and its process numbers (containers have their own); None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _born(pid: int) -> str | None:
    """Start time of a living process, in ticks since the boot; None for one that has ended or is not known here."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return None if state in ("Z", "X") else rest[18]


def _no_claim(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot claim units in {folder} ({error.strerror or error}); "
        "choose a folder that every worker can write, with space left"
    )
