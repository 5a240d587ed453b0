"""Fetch a rung by its commit: continued where it stopped, checked by size and SHA-256, published whole or not at all.

The client of the hub starts a file again when its process was killed; here a part stays and is continued.
"""

import errno
import hashlib
import re
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.atomic import TEMPORARY
from vgrad_lab.checkpoints.cache import (
    MARGIN,
    delete,
    is_whole,
    read_record,
    require_space,
    rung_folder,
    write_record,
)
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.hub_client import DamagedBody, ask
from vgrad_lab.checkpoints.inventory import TIMEOUT, HubFile, Inventory, choose_weights, needed_files, weights_identity
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.resolve import Ladder, NamedRung, find

COMMIT = re.compile(r"[0-9a-f]{40}")
PLAIN = re.compile(r"[\w-][\w.-]*")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Fetched:
    """A rung on the disk.

    Args:
        rung: as `list_rungs` would give it.
        passing: whether it may be evicted after use; False for one that is kept, and for a local folder.
        identity: what `content_identity` must be; None where the hub does not say.
    """

    rung: Rung
    passing: bool
    identity: str | None = None


def fetch(
    ladder: Ladder,
    inventory: Inventory,
    cache: Path,
    *,
    keep: bool = True,
    allow_bin: bool = False,
    margin: int = MARGIN,
    stop: threading.Event | None = None,
) -> Fetched:
    """One rung of a ladder in a cache: found there, or fetched file by file by its commit. Code is never fetched.

    A rung of a local folder is taken where it lies.

    Args:
        ladder: the rung's ladder.
        inventory: what the rung holds, from `take_inventory`.
        cache: folder of our own, see `default_cache`.
        keep: record that it is to stay; a rung that was kept once is never evicted by a walk.
        allow_bin: fetch weights that exist only as `.bin`; `load_checkpoint` must be told so too.
        margin: bytes of the disk to leave free.
        stop: set it to end a download early; what has come stays and is continued next time.

    Raises:
        UserError: no such rung, weights missing or only `.bin`, no room or no right to write, a file that the hub does
            not give or gives wrongly after all attempts, a folder in the way that was not fetched.
    """
    rung = find(ladder, inventory.rung)
    if ladder.spec.folder is not None:
        return Fetched(Rung(rung.step, ladder.spec.folder / rung.name, rung.name), passing=False)
    files = _wanted(inventory, rung, allow_bin=allow_bin)
    target = rung_folder(cache, ladder, rung)
    part = target.with_name(f"{TEMPORARY}{target.name}-{rung.commit[:12]}")
    if not is_whole(target, rung.commit):
        here = sum(path.stat().st_size for path in part.glob("*") if path.is_file())
        require_space(cache, max(sum(file.size for file in files) - here, 0), margin=margin)
        with _only_one(part):
            if not is_whole(target, rung.commit):  # no other process was quicker
                _make_way(target)
                for file in files:
                    _fetch_file(ladder, rung, file, part / file.path, stop or threading.Event())
                write_record(part, _record(ladder, rung, files, part, inventory) | {"kept": keep})
                part.rename(target)
    record = read_record(target) or {}
    if keep and not record.get("kept"):
        write_record(target, record | {"kept": True})
    found = Rung(rung.step, target, target.name)
    return Fetched(found, passing=not (keep or record.get("kept")), identity=record.get("identity"))


def is_cached(ladder: Ladder, inventory: Inventory, cache: Path) -> bool:
    """Whether `fetch` would find this rung whole."""
    rung = find(ladder, inventory.rung)
    return is_whole(rung_folder(cache, ladder, rung), rung.commit)


def _wanted(inventory: Inventory, rung: NamedRung, *, allow_bin: bool) -> tuple[HubFile, ...]:
    """Files to fetch, weights last; refuses what cannot be loaded afterwards."""
    weights = choose_weights(inventory)
    if inventory.problem is not None:
        raise UserError(f"{inventory.rung} cannot be fetched: {inventory.problem}")
    if weights.missing or not weights.files:
        lacking = ", ".join(weights.missing[:3]) or "weights"
        raise UserError(f"{inventory.rung} lacks {lacking} on the hub; leave this rung out")
    if weights.kind == "bin" and not allow_bin:
        raise UserError(
            f"{inventory.rung} has its weights only as .bin, which can run code when loaded; leave it out, or allow it "
            "with --allow 'bin only' (it is then read with weights_only)"
        )
    if not COMMIT.fullmatch(rung.commit):
        raise UserError(f"{inventory.rung} has the commit {rung.commit!r}; expected 40 hex digits")
    files = needed_files(inventory)
    for file in files:
        if not PLAIN.fullmatch(file.path):
            raise UserError(f"{inventory.rung} has the file {file.path!r}; expected a plain name without folders")
    return tuple(sorted(files, key=lambda file: (file in weights.files, file.path)))


def _only_one(part: Path) -> AbstractContextManager[Any]:
    """A lock on the folder of an unfinished download, which is made."""
    from filelock import FileLock

    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(part, error) from error
    return FileLock(part.with_name(f"{part.name}.lock"))


def _make_way(target: Path) -> None:
    """Remove another or a damaged commit from where the rung goes; refuse what was not fetched."""
    if target.exists() and read_record(target) is not None:
        delete(target)
    if target.exists():
        raise UserError(f"{target} is in the way and holds files that were not fetched; move it elsewhere")


def _fetch_file(ladder: Ladder, rung: NamedRung, file: HubFile, path: Path, stop: threading.Event) -> None:
    """One file; attempts count anew as long as more of it arrives."""
    about = f"{ladder.spec.repository} at {rung.name}, {file.path}"
    while True:
        before = path.stat().st_size if path.is_file() else 0
        try:
            return ask(lambda: _attempt(ladder, rung, file, path, stop), about=about, sleep=lambda s: _pause(stop, s))
        except UserError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in (*NO_ROOM, *NO_RIGHT):
                raise _cannot_write(path, error.__cause__) from error
            if not path.is_file() or path.stat().st_size <= before:
                raise


def _pause(stop: threading.Event, seconds: float) -> None:
    stop.wait(seconds)


def _attempt(ladder: Ladder, rung: NamedRung, file: HubFile, path: Path, stop: threading.Event) -> None:
    """Ask for what is missing of a file, then check all of it. A wrong file is deleted; a short one stays."""
    if stop.is_set():
        raise UserError("the download was stopped")
    have = path.stat().st_size if path.is_file() else 0
    if have > file.size:
        path.unlink()
        have = 0
    if have < file.size or file.size == 0:
        _stream(ladder, rung, file, path, have, stop)
    have = path.stat().st_size
    if have < file.size:
        raise ConnectionError(f"the body ended after {have} of {file.size} bytes")
    if have > file.size or (file.sha256 is not None and _sha256(path) != file.sha256):
        path.unlink()
        raise DamagedBody("what arrived is not the file of the metadata (its size or SHA-256 differs)")


def _stream(ladder: Ladder, rung: NamedRung, file: HubFile, path: Path, have: int, stop: threading.Event) -> None:
    """Write the bytes from `have` on to the end of what is there, flushed to the disk."""
    from huggingface_hub import get_session, get_token, hf_hub_url, hf_raise_for_status

    url = hf_hub_url(str(ladder.spec.repository), file.path, revision=rung.commit, endpoint=ladder.endpoint)
    headers = {"accept-encoding": "identity"} | ({"range": f"bytes={have}-"} if have else {})
    headers |= {"authorization": f"Bearer {token}"} if (token := get_token()) else {}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # the hub's file ends before ours: begin again
            path.unlink()
            raise ConnectionError(f"the hub has no more than {have} of {file.size} bytes")
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        follows = response.headers.get("content-range", "").startswith(f"bytes {have}-")
        with path.open("ab" if have and response.status_code == 206 and follows else "wb") as out:
            for chunk in response.iter_bytes():  # a size of chunks would lose the last one of a cut body
                if stop.is_set():
                    raise UserError("the download was stopped")
                if out.tell() + len(chunk) > file.size:
                    raise ConnectionError(f"the hub sends more than the {file.size} bytes of the metadata")
                out.write(chunk)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cannot_write(path: Path, error: OSError) -> UserError:
    what = "make room with `vgrad ladder evict`" if error.errno in NO_ROOM else "choose a folder that you can write"
    return UserError(
        f"cannot write {path} ({error.strerror or error}); {what}, or give another one with --cache; "
        "what has arrived stays and is continued"
    )


def _record(
    ladder: Ladder, rung: NamedRung, files: tuple[HubFile, ...], part: Path, inventory: Inventory
) -> dict[str, Any]:
    """What was fetched, as JSON holds it."""
    facts = {file.path: {"bytes": file.size, "sha256": file.sha256 or _sha256(part / file.path)} for file in files}
    identity = weights_identity(choose_weights(inventory))
    where = {"repository": ladder.spec.repository, "ladder": ladder.spec.name}
    return where | {"rung": rung.name, "step": rung.step, "commit": rung.commit, "identity": identity, "files": facts}
