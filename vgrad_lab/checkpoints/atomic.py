"""Files and folders that appear whole or not at all, whenever the process is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgrad_lab.checkpoints.errors import UserError

TEMPORARY = ".unfinished-"
"""Prefix of everything that is not published yet; safe to delete when no process is writing."""


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file beside its place, flush it to the disk, and move it into place; folders above it are made.

    Raises UserError when that fails (no rights, no space, a file where a folder should be).
    """
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); choose a folder that you can write, with space left"
        ) from error


def require_writable(folder: Path) -> None:
    """Make a folder and try to write in it, before any long work. Raises UserError when that fails."""
    probe = folder / f"{TEMPORARY}probe"
    write_file(probe, "")
    probe.unlink()


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
