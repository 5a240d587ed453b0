"""Writers on many machines and what dead ones leave behind."""

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.atomic import OLD, TEMPORARY, require_writable, write_file
from vgrad_lab.checkpoints.errors import UserError


def at_once(count: int, act: Callable[[int], object]) -> list[BaseException]:
    """Errors of so many threads that act together."""
    barrier, errors = threading.Barrier(count), list[BaseException]()

    def one(k: int) -> None:
        barrier.wait()
        try:
            for _ in range(20):
                act(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def temporary(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(f"{TEMPORARY}*")]


def test_writers_with_one_process_number_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on several machines or in several containers: same process number, same folder, same file."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert at_once(8, lambda k: write_file(tmp_path / "a.json", f"{k}" * 5000)) == []
    assert len({*(tmp_path / "a.json").read_text()}) == 1
    assert temporary(tmp_path) == []


def test_many_may_ask_at_once_whether_a_folder_can_be_written(tmp_path: Path) -> None:
    assert at_once(8, lambda _: require_writable(tmp_path / "run")) == []
    assert list((tmp_path / "run").iterdir()) == []


def test_the_temporary_name_tells_host_and_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1.cluster/../x" * 9)
    monkeypatch.setattr(Path, "replace", lambda self, target: None)
    write_file(tmp_path / ("a" * 200), "text")
    (name,) = temporary(tmp_path)
    assert "-node_1_cluster_x" in name
    assert f"-{os.getpid()}-" in name


def test_leftovers_of_dead_writers_are_ignored_and_go_when_they_are_old(tmp_path: Path) -> None:
    record = {"unit": "a", "status": "done", "stage": "s", "protocol": "p", "seed": 0, "checkpoint": {"step": 1}}
    store.publish(tmp_path, record)
    fresh = tmp_path / store.UNITS / f"{TEMPORARY}b.json-host-1-ab.tmp"
    old = [tmp_path / f"{TEMPORARY}c-host-1-ab.tmp", tmp_path / store.UNITS / f"{TEMPORARY}b.json-host-2-cd.tmp"]
    lock = tmp_path / store.UNITS / f"{TEMPORARY}step1.lock"
    for path in (fresh, *old, lock):
        path.write_text("{")
    for path in (*old, lock):
        os.utime(path, (path.stat().st_mtime - OLD - 60,) * 2)
    assert list(store.read_records(tmp_path)) == ["a"]
    require_writable(tmp_path)
    assert [path.exists() for path in (fresh, *old, lock)] == [True, False, False, True]
    assert list((tmp_path / store.UNITS).glob("*.corrupt")) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    write_file(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(UserError, match=f"cannot write .*a \\({os.strerror(code)}\\)"):
        write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert temporary(tmp_path) == []
