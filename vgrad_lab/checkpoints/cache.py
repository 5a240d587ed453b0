"""A cache of fetched rungs: one folder per ladder, one sub-folder `step<number>` per rung, each with a record.

The record says what was fetched; only that is ever deleted. A folder without one is the user's and is left alone.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.atomic import TEMPORARY, require_writable, write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import rung_name
from vgrad_lab.checkpoints.plan import gigabytes
from vgrad_lab.checkpoints.resolve import Ladder, NamedRung

RECORD = "fetched.json"
"""Written last into a fetched rung: repository, commit, size and SHA-256 of each file."""
MARGIN = 100_000_000
"""Bytes of the disk that are left free."""
FIRST_OUT = "config.json"
"""Deleted before anything else: a folder without it is no checkpoint, wherever a deletion is cut short."""


@dataclass(frozen=True)
class CachedRung:
    """One fetched rung: its folder and its record."""

    path: Path
    record: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of the files that were fetched and are still there."""
        paths = [self.path / name for name in self.record["files"]]
        return sum(path.stat().st_size for path in paths if path.is_file())


def default_cache() -> Path:
    """`VGRAD_CACHE`, else `vgrad_lab` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    if given := os.environ.get("VGRAD_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vgrad_lab"


def ladder_folder(cache: Path, ladder: Ladder) -> Path:
    """Folder of a ladder in a cache: repository and the ladder's name, in letters that every file system takes."""
    text = f"{ladder.spec.repository}--{ladder.spec.name}".replace("/", "--")
    return cache / re.sub(r"[^\w.-]+", "_", text)


def rung_folder(cache: Path, ladder: Ladder, rung: NamedRung) -> Path:
    """Folder of a rung in a cache, named as `list_rungs` reads it."""
    return ladder_folder(cache, ladder) / rung_name(rung.step)


def read_record(folder: Path) -> dict[str, Any] | None:
    """What was fetched into a folder; None where nothing was."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else None


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Say what was fetched into a folder."""
    write_file(folder / RECORD, json.dumps(record, indent=1) + "\n")


def is_whole(folder: Path, commit: str) -> bool:
    """Whether a folder holds all files of a commit, each with its size."""
    record = read_record(folder)
    if record is None or record.get("commit") != commit:
        return False
    sizes = {folder / name: facts["bytes"] for name, facts in record["files"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())


def cached_rungs(cache: Path) -> tuple[CachedRung, ...]:
    """All fetched rungs of a cache, by folder."""
    found = (CachedRung(path.parent, read_record(path.parent) or {}) for path in sorted(cache.glob(f"*/*/{RECORD}")))
    return tuple(one for one in found if one.record)


class InUse(UserError):
    """A rung that another process works on."""


class Use:
    """Keeps a fetched rung from being evicted by another process until it is ended; a killed process ends its own.

    Without file locks (Windows, some network disks) nothing is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._handle = _lock(folder, alone=False)

    def end(self) -> None:
        """Let the rung go; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _lock(folder: Path, *, alone: bool) -> int | None:
    """An open file beside a rung, locked; None where that is not known. Raises BlockingIOError if `alone` and used."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder.with_name(f".{folder.name}.used"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        handle = _lock(folder, alone=True)
    except BlockingIOError as error:
        raise InUse(f"{folder} is used by another process; wait until it has ended") from error
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def evict(folder: Path) -> int:
    """Delete what was fetched into a folder, and nothing else; returns the bytes freed.

    The folder itself goes when it is empty then. A deletion that was cut short is finished by the next.

    Raises:
        InUse: another process works on the rung (see `Use`).
        UserError: the folder has no record of a fetch (so it is not the cache's), or a file cannot be deleted.
    """
    with _alone(folder):
        return delete(folder)


def delete(folder: Path) -> int:
    """As `evict`, whoever uses the rung."""
    record = read_record(folder)
    if record is None or folder.is_symlink():
        raise UserError(f"{folder} was not fetched by vgrad (no {RECORD}); delete it yourself if you want it gone")
    freed = 0
    try:
        for name in sorted(record["files"], key=lambda name: (name != FIRST_OUT, name)):
            path = folder / Path(name).name
            if path.is_file():
                freed += path.stat().st_size
            path.unlink(missing_ok=True)
        (folder / RECORD).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise UserError(f"cannot evict {folder} ({error.strerror or error}); check the rights of the folder") from error
    return freed


def clear_unfinished(cache: Path) -> int:
    """Delete downloads that were never finished; returns the bytes freed. No fetch may be running."""
    freed = 0
    for path in sorted(cache.glob(f"*/{TEMPORARY}step*")):
        if path.is_dir() and not path.is_symlink():
            freed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
    return freed


def require_space(cache: Path, needed: int, *, margin: int = MARGIN) -> None:
    """Make a cache folder and see that it can be written and has room, before a byte is fetched.

    Args:
        cache: the folder.
        needed: bytes that will be on the disk at one time.
        margin: bytes that must stay free.

    Raises:
        UserError: the folder cannot be written, or the disk has less than `needed` + `margin` bytes free.
    """
    require_writable(cache)
    free = shutil.disk_usage(cache).free
    if free < needed + margin:
        raise UserError(
            f"{cache} has {gigabytes(free)} free, but {gigabytes(needed)} are needed and {gigabytes(margin)} stay "
            "free; make room with `vgrad ladder evict`, choose another folder with --cache, or take fewer rungs"
        )
