"""Files and folders that appear whole or not at all, whenever the process is killed."""

import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vgrad_lab.checkpoints.errors import UserError

TEMPORARY = ".unfinished-"
"""Prefix of everything that is not published yet; safe to delete when no process is writing."""


OLD = 86400.0
"""Seconds after which the temporary file of a write counts as left by a dead writer."""


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file beside its place, flush it to the disk, and move it into place; folders above it are made.

    The temporary name holds host, process and a random part, so that writers on several machines never meet.

    Raises UserError when that fails (no rights, no space, a file where a folder should be).
    """
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{TEMPORARY}{path.name[:120]}-{_writer()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); choose a folder that you can write, with space left"
        ) from error


def _writer() -> str:
    host = re.sub(r"[^A-Za-z0-9]+", "_", socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def require_writable(folder: Path) -> None:
    """Make a folder and try to write in it, before any long work. Raises UserError when that fails.

    Temporary files in it and in its sub-folders that a dead writer left a day ago are deleted; many processes may do
    this at once.
    """
    probe = folder / f"{TEMPORARY}probe-{_writer()}.tmp"
    write_file(probe, "")
    with suppress(OSError):  # the clock of the file system, and files that another process deletes at this moment
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        for path in (*folder.glob(f"{TEMPORARY}*.tmp"), *folder.glob(f"*/{TEMPORARY}*.tmp")):
            with suppress(OSError):
                if path.is_file() and now - path.stat().st_mtime > OLD:
                    path.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; without an exception in the block it becomes `path`, files flushed first.

    What stood at `path` before is replaced.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_temporary(folder: Path) -> None:
    """Delete what an interrupted process left behind in a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(path: Path) -> None:
    """Flush a file or, where the system allows it, a folder's entries to the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
