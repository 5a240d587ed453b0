"""Disks that are full or cannot be written: real ones where this process may mount, else some that refuse alike."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny_models
from tests.checkpoints.fake_units import Fake, Inline
from tests.checkpoints.real_units import QUICK, works
from tests.loopback_hub import Repository, blob, serve
from vgrad_lab.checkpoints import hub as hub_module
from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.atomic import require_writable
from vgrad_lab.checkpoints.cache import cached_rungs
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.inventory import take_inventory
from vgrad_lab.checkpoints.ladder_walk import run_ladder
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.resolve import resolve
from vgrad_lab.checkpoints.schedule import rows, run_units, table
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, LadderSpec

SMALL = 96 * 1024


@dataclass(frozen=True)
class Disk:
    """A small disk, and what changes it."""

    folder: Path
    grow: Callable[[], object]
    forbid_writing: Callable[[], object]


def mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=777", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A tmpfs of 96 kB; where that cannot be mounted, a folder whose files refuse as its would."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder):
        yield pretended(folder, monkeypatch)
        return

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield Disk(folder, lambda: remount("size=8m"), lambda: remount("ro"))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def pretended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Refuses in `os.open`, which every write passes on its way to the disk, or when a file is flushed."""
    real_open, real_sync, limit, writable = os.open, os.fsync, [SMALL], [True]

    def inside(path: object) -> bool:
        return str(path).startswith(str(folder))

    def open_(path: object, flags: int, *rest: object, **more: object) -> int:
        if inside(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not writable[0]:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real_open(path, flags, *rest, **more)  # type: ignore[arg-type]

    def sync(handle: int) -> None:
        if not writable[0]:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > limit[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_sync(handle)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", sync)
    return Disk(folder, lambda: limit.__setitem__(0, 10**9), lambda: writable.__setitem__(0, False))


@pytest.mark.parametrize("real", [True, False])
def test_a_disk_that_fills_up_stops_the_sweep_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, real: bool
) -> None:
    if real:
        disk: Disk = request.getfixturevalue("disk")
    else:
        (tmp_path / "pretended").mkdir()
        disk = pretended(tmp_path / "pretended", monkeypatch)
    diary, run = tmp_path / "diary", disk.folder / "run"
    todo = [Fake(f"{k:02d}", diary) for k in range(40)]
    with pytest.raises(UserError, match=r"No space left on device.*choose a folder") as raised:
        run_units(todo, run, Inline(), policy=QUICK, progress=False)
    assert "\n" not in str(raised.value)
    kept = store.read_records(run)
    assert 2 < len(kept) < 40
    assert {record["status"] for record in kept.values()} == {"done"}
    assert not list(run.rglob("*.corrupt"))
    disk.grow()
    before = diary.read_text().splitlines()
    counts = run_units(todo, run, Inline(), policy=QUICK, progress=False)
    assert counts == {"done": 40 - len(kept), "failed": 0, "kept": len(kept)}
    assert not {*kept} & {line.split()[1] for line in diary.read_text().splitlines()[len(before) :]}
    run_units(todo, tmp_path / "whole", Inline(), policy=QUICK, progress=False)
    assert store.export(run).read_bytes() == store.export(tmp_path / "whole").read_bytes()


def test_a_folder_that_can_only_be_read_is_one_line_and_its_status_is_told(disk: Disk, tmp_path: Path) -> None:
    disk.grow()
    todo, run = [Fake(c, tmp_path / "diary") for c in "ab"], disk.folder / "run"
    run_units(todo[:1], run, Inline(), policy=QUICK, progress=False)
    (run / "claims" / "fake-b.0").write_text("{}")
    (run / "units" / "fake-b.json").write_text("{")
    disk.forbid_writing()
    for act in (lambda: run_units(todo, run, Inline(), policy=QUICK, progress=False), lambda: require_writable(run)):
        with pytest.raises(UserError, match="Read-only file system.*choose a folder") as raised:
            act()
        assert "\n" not in str(raised.value)
    assert table(rows(todo, run)).endswith("2 units: 1 done, 0 failed, 1 running")


def test_a_cache_that_fills_up_is_rows_with_the_reason(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full though it was said to have room: the units fail, what has arrived is continued after."""
    config = blob('{"architectures": ["LlamaForCausalLM"], "rope_theta": 1e4}')
    files = {f"step{k}": {"config.json": config, "model.safetensors": blob(bytes([k]) * 150_000, large=True)} for k in
             (1, 2)}  # fmt: skip
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**12}))
    if not os.path.ismount(disk.folder):
        real = hub_module._stream

        def full(*arguments: object) -> None:
            if disk_is_small:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(hub_module, "_stream", full)
    disk_is_small = True

    def units(rung: Rung, identity: str) -> list[Fake]:
        return [Fake(rung.name, tmp_path / "diary")]

    with serve(Repository("ours/ladder", {"main": {}, **files})) as hub:
        ladder = resolve(LadderSpec(name="o", pattern=FOLDER_PATTERN, repository="ours/ladder"), endpoint=hub.endpoint)
        at = (ladder, take_inventory(ladder)[:2], disk.folder / "cache", units, tmp_path / "run", Inline())
        assert run_ladder(*at, policy=QUICK, progress=False)["failed"] == 2
        errors = [record["error"] for record in store.read_records(tmp_path / "run").values()]
        assert all("No space left on device" in error and "vgrad ladder evict" in error for error in errors)
        assert cached_rungs(disk.folder / "cache") == ()
        disk.grow()
        disk_is_small = False
        assert run_ladder(*at, policy=QUICK, progress=False) == {"done": 2, "failed": 0, "kept": 0}


def test_checkpoints_in_a_folder_that_can_only_be_read(disk: Disk, tmp_path: Path) -> None:
    disk.grow()
    tiny_models.save(disk.folder / "ladder" / "step000001")
    disk.forbid_writing()
    counts = run_units(
        works(disk.folder / "ladder", tmp_path / "run"), tmp_path / "run", Inline(), policy=QUICK, progress=False
    )
    assert counts == {"done": 2, "failed": 0, "kept": 0}


def test_nan_weights_are_a_row_that_names_the_tensor(tmp_path: Path) -> None:
    """As of a rung that was written while its run diverged; the other rung is done."""
    for k in (1, 2):
        tiny_models.save(tmp_path / "ladder" / f"step{k:06d}", seed=k)
    file = tmp_path / "ladder" / "step000002" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    todo = works(tmp_path / "ladder", tmp_path / "run")
    assert run_units(todo, tmp_path / "run", Inline(), policy=QUICK, progress=False) == {
        "done": 2,
        "failed": 2,
        "kept": 0,
    }
    found = store.read_records(tmp_path / "run").values()
    errors = [record["error"] for record in found if record["status"] == "failed"]
    assert len(errors) == 2
    assert all("model.norm.weight" in error and "holds NaN or infinity" in error for error in errors)
