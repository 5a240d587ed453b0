"""Rungs from the loopback hub: whole or not at all, whatever the wire, the disk and the process do."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests import tiny_models
from tests.loopback_hub import FAULTS, Files, Hub, Repository, blob, folder_files, serve
from vgrad_lab.checkpoints import cache as cache_module
from vgrad_lab.checkpoints import hub as hub_module
from vgrad_lab.checkpoints import hub_client
from vgrad_lab.checkpoints.audit import audit
from vgrad_lab.checkpoints.cache import cached_rungs, clear_unfinished, default_cache, evict, read_record
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.hub import fetch
from vgrad_lab.checkpoints.inventory import HubFile, Inventory, take_inventory
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import content_identity, load_checkpoint, quiet
from vgrad_lab.checkpoints.plan import make_plan
from vgrad_lab.checkpoints.prefetch import walk
from vgrad_lab.checkpoints.resolve import Ladder, resolve
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, LadderSpec
from vgrad_lab.experiments import fetch_commands

NAME = "ours/ladder"
SPEC = LadderSpec(name="ours", pattern=FOLDER_PATTERN, repository=NAME)
SHARD = "/ours/ladder/resolve/*/model-00001*"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Main and three rungs of a tiny OLMo-2 in several shards."""
    branches = {}
    for seed, branch in enumerate(("main", "step1", "step2", "step3")):
        folder = tmp_path_factory.mktemp("hub") / branch
        with quiet():
            tiny_models.model(seed=seed).save_pretrained(folder, max_shard_size="30KB")
            tiny_models.tokenizer().save_pretrained(folder)
        branches[branch] = folder_files(folder)
    return Repository(NAME, branches)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "FIRST_WAIT", 0.001)


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    with serve(repository) as running:
        yield running


def known(hub: Hub) -> tuple[Ladder, tuple[Inventory, ...]]:
    ladder = resolve(SPEC, endpoint=hub.endpoint)
    return ladder, audit(ladder).usable


def weights(hub: Hub) -> list[str]:
    """Requests for weights so far."""
    return [asked for asked in hub.requests if ".safetensors" in asked and "index" not in asked]


def test_a_fetched_ladder_is_a_ladder(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    found = [fetch(ladder, one, tmp_path) for one in inventories]
    rungs = list_rungs(found[0].rung.path.parent)
    assert [rung.name for rung in rungs] == ["step000001", "step000002", "step000003"]
    assert [one.rung for one in found] == list(rungs)
    for one in found:
        assert content_identity(one.rung.path) == one.identity == load_checkpoint(one.rung.path).sha256
        assert not one.passing
    asked = len(hub.requests)
    assert fetch(ladder, inventories[0], tmp_path) == found[0]
    assert len(hub.requests) == asked
    assert all(f"/{one.commit}/" in "".join(weights(hub)) for one in ladder.rungs)
    assert len(cached_rungs(tmp_path)) == 3
    assert not list(tmp_path.rglob(".unfinished*/*"))


@pytest.mark.parametrize(("kind", "times"), [("truncate", 1), ("short", 1), ("flip", 1), ("500", 3), ("truncate", 3)])
def test_a_fault_that_passes_is_overcome(hub: Hub, tmp_path: Path, kind: str, times: int) -> None:
    ladder, inventories = known(hub)
    hub.plant(SHARD, kind, times=times)  # type: ignore[arg-type]
    found = fetch(ladder, inventories[0], tmp_path)
    assert content_identity(found.rung.path) == found.identity


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncate", "the body ended after|closed|peer"),
        ("short", "no more than|the body ended after"),
        ("flip", "its size or SHA-256 differs.* a damaged file"),
        ("500", "the hub answered with status 500 after 4 attempts"),
        ("404", "the file is not there"),
        ("gated", "access is gated"),
    ],
)
def test_a_fault_that_stays_publishes_nothing(hub: Hub, tmp_path: Path, kind: str, message: str) -> None:
    ladder, inventories = known(hub)
    hub.plant(SHARD, kind)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message) as raised:
        fetch(ladder, inventories[0], tmp_path)
    assert "step1, model-00001" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert cached_rungs(tmp_path) == ()
    with pytest.raises(UserError, match="no checkpoint"):
        list_rungs(next(tmp_path.iterdir()))
    hub.heal()
    found = fetch(ladder, inventories[0], tmp_path)
    assert content_identity(found.rung.path) == found.identity


def test_a_download_is_continued_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    hub.plant(SHARD, "truncate")
    with pytest.raises(UserError):
        fetch(ladder, inventories[0], tmp_path)
    part = next(tmp_path.glob("*/.unfinished*/model-00001*"))
    half = part.read_bytes()
    size = next(file.size for file in inventories[0].files if file.path == part.name)
    assert len(half) == size // 2
    hub.heal()
    asked = len(hub.requests)
    found = fetch(ladder, inventories[0], tmp_path)
    assert (found.rung.path / part.name).read_bytes()[: len(half)] == half
    assert not [one for one in hub.requests[asked:] if "config.json" in one]  # what was whole is not asked for again


def test_a_killed_process_leaves_no_rung_and_is_continued(repository: Repository, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from vgrad_lab.checkpoints.hub import fetch\n"
        "from vgrad_lab.checkpoints.inventory import take_inventory\n"
        "from vgrad_lab.checkpoints.resolve import resolve\n"
        "from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, LadderSpec\n"
        "spec = LadderSpec(name='ours', pattern=FOLDER_PATTERN, repository='ours/ladder')\n"
        "ladder = resolve(spec, endpoint=sys.argv[1])\n"
        "fetch(ladder, take_inventory(ladder)[0], Path(sys.argv[2]))\n"
    )
    with serve(repository, rate=50e3) as hub:
        command = [sys.executable, "-c", code, hub.endpoint, str(tmp_path)]
        process = subprocess.Popen(command, env=hub.environment(), cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/.unfinished*/model-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        hub.rate = None
        assert cached_rungs(tmp_path) == ()
        ladder, inventories = known(hub)
        found = fetch(ladder, inventories[0], tmp_path)
    assert content_identity(found.rung.path) == found.identity


def test_weights_that_cannot_be_used(repository: Repository, tmp_path: Path) -> None:
    messages = {"missing shard": "lacks model-", "bin only": "only as .bin"}
    for fault, message in messages.items():
        with serve(FAULTS[fault](repository)) as hub:
            ladder = resolve(SPEC, endpoint=hub.endpoint)
            with pytest.raises(UserError, match=message):
                fetch(ladder, take_inventory(ladder)[2], tmp_path)
            assert not weights(hub)
    with serve(FAULTS["bin only"](repository)) as hub:
        ladder = resolve(SPEC, endpoint=hub.endpoint)
        found = fetch(ladder, take_inventory(ladder)[2], tmp_path, allow_bin=True)
    assert (found.rung.path / "pytorch_model.bin").read_bytes() == b"a pickle"
    assert found.identity is None


def test_code_is_never_fetched(repository: Repository, tmp_path: Path) -> None:
    with serve(FAULTS["python file"](repository)) as hub:
        ladder = resolve(SPEC, endpoint=hub.endpoint)
        found = fetch(ladder, take_inventory(ladder)[2], tmp_path)
        assert not [one for one in hub.requests if ".py" in one]
    assert not list(found.rung.path.glob("*.py"))


@pytest.mark.parametrize("path", ["../evil.safetensors", "/etc/evil.safetensors", "a/../../b.safetensors", ".hidden"])
def test_names_that_leave_the_folder_are_refused(hub: Hub, tmp_path: Path, path: str) -> None:
    ladder, inventories = known(hub)
    evil = replace(inventories[0], files=(HubFile(path, 3, "0" * 64),), shards=frozenset({path}))
    with pytest.raises(UserError, match="expected a plain name"):
        fetch(ladder, evil, tmp_path)


def test_no_room_is_seen_before_a_byte(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder, inventories = known(hub)
    usage = type("Usage", (), {"free": 200_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"has 200.0 kB free, but .* needed and 150.0 kB stay free; make room"):
        fetch(ladder, inventories[0], tmp_path, margin=150_000)
    with pytest.raises(UserError, match="make room"):
        next(walk(ladder, inventories, tmp_path, margin=100_000))
    assert not weights(hub)
    fetch(ladder, inventories[0], tmp_path, margin=1000)


def test_a_walk_that_keeps_needs_room_for_all(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder, inventories = known(hub)
    usage = type("Usage", (), {"free": make_plan(inventories).peak_bytes + 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="make room"):
        next(walk(ladder, inventories, tmp_path, keep=True, margin=1000))
    assert not weights(hub)
    assert len(list(walk(ladder, inventories, tmp_path, margin=1000))) == 3


def test_a_disk_that_fills_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived stays; one line says what to do; the next fetch goes on."""
    ladder, inventories = known(hub)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "_stream", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left on device.*; make room with") as raised:
            fetch(ladder, inventories[0], tmp_path)
    assert "\n" not in str(raised.value)
    assert cached_rungs(tmp_path) == ()
    assert fetch(ladder, inventories[0], tmp_path).identity is not None


def test_a_cache_that_cannot_be_made(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch(ladder, inventories[0], tmp_path / "file")
    assert not weights(hub)


def test_a_changed_or_damaged_rung_is_fetched_again(hub: Hub, repository: Repository, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    folder = fetch(ladder, inventories[0], tmp_path).rung.path
    shard = next(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    found = fetch(ladder, inventories[0], tmp_path)
    assert content_identity(folder) == found.identity
    hub.repositories[NAME] = repository.with_branch("step1", dict(repository.branches["main"]))
    changed = resolve(SPEC, endpoint=hub.endpoint)
    again = fetch(changed, take_inventory(changed)[0], tmp_path)
    assert content_identity(folder) == again.identity != found.identity


def test_eviction_touches_only_what_was_fetched(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    folder = fetch(ladder, inventories[0], tmp_path).rung.path
    (folder / "notes.txt").write_text("mine")
    (one,) = cached_rungs(tmp_path)
    size = one.size
    assert evict(folder) == size > 0
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="was not fetched by vgrad"):
        evict(folder)
    with pytest.raises(UserError, match="is in the way and holds files that were not fetched"):
        fetch(ladder, inventories[0], tmp_path)
    second = fetch(ladder, inventories[1], tmp_path).rung.path
    evict(second)
    assert not second.exists()


def test_a_record_cannot_point_outside(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    folder = fetch(ladder, inventories[0], tmp_path).rung.path
    record = read_record(folder)
    assert record is not None
    (tmp_path / "precious").write_text("mine")
    cache_module.write_record(folder, {**record, "files": {**record["files"], "../../precious": {"bytes": 4}}})
    evict(folder)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_link_to_a_rung_is_not_evicted(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    folder = fetch(ladder, inventories[0], tmp_path / "cache").rung.path
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="was not fetched by vgrad"):
        evict(tmp_path / "link")
    assert content_identity(folder)
    assert (folder / "config.json").exists()


def test_an_eviction_cut_short_leaves_no_checkpoint(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder, inventories = known(hub)
    folder = fetch(ladder, inventories[0], tmp_path).rung.path
    unlink, calls = Path.unlink, []

    def dies(path: Path, missing_ok: bool = False) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            evict(folder)
    with pytest.raises(UserError, match="no checkpoint"):
        list_rungs(folder.parent)
    assert fetch(ladder, inventories[0], tmp_path).rung == list_rungs(folder.parent)[0]


def test_unfinished_downloads_are_cleared(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    hub.plant(SHARD, "truncate")
    with pytest.raises(UserError):
        fetch(ladder, inventories[0], tmp_path)
    assert clear_unfinished(tmp_path) > 0
    assert clear_unfinished(tmp_path) == 0


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VGRAD_CACHE", raising=False)
    assert default_cache() == tmp_path / "vgrad_lab"
    monkeypatch.setenv("VGRAD_CACHE", str(tmp_path / "ours"))
    assert default_cache() == tmp_path / "ours"


def on_disk(folder: Path) -> int:
    """Rungs, finished or not, that lie in a cache."""
    return len([path for path in folder.glob("*/*") if path.is_dir() and any(path.iterdir())])


def test_a_walk_holds_two_rungs_at_most(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    seen = []
    for step in walk(ladder, inventories, tmp_path):
        assert step.fetched is not None
        time.sleep(0.1)
        assert on_disk(tmp_path) <= 2
        assert content_identity(step.fetched.rung.path) == step.fetched.identity
        seen.append(step.name)
    assert seen == ["step1", "step2", "step3"]
    assert cached_rungs(tmp_path) == ()


def test_a_walk_evicts_nothing_that_was_kept(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    mine = fetch(ladder, inventories[1], tmp_path).rung.path
    assert len(list(walk(ladder, inventories, tmp_path))) == 3
    assert [one.path for one in cached_rungs(tmp_path)] == [mine]
    list(walk(ladder, inventories, tmp_path, keep=True))
    list(walk(ladder, inventories, tmp_path))
    assert len(cached_rungs(tmp_path)) == 3


def test_a_walk_goes_on_after_a_rung_that_fails(hub: Hub, tmp_path: Path) -> None:
    ladder, inventories = known(hub)
    hub.plant(f"/ours/ladder/resolve/{ladder.rungs[1].commit}/*", "500")
    steps = list(walk(ladder, inventories, tmp_path))
    assert [step.fetched is None for step in steps] == [False, True, False]
    assert "status 500 after 4 attempts" in str(steps[1].problem)


def test_a_walk_that_is_left_stops_its_thread(repository: Repository, tmp_path: Path) -> None:
    with serve(repository) as hub:
        ladder, inventories = known(hub)
        steps = walk(ladder, inventories, tmp_path)
        next(steps)
        hub.rate = 5e3  # the next rung would take far longer than is allowed here
        start = time.monotonic()
        steps.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert not (tmp_path / "ours--ladder--ours" / "step000001").exists()


def test_local_folders_are_taken_where_they_lie(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "ladder" / "step000010")
    ladder = resolve(LadderSpec(name="mine", pattern=FOLDER_PATTERN, folder=tmp_path / "ladder"))
    steps = list(walk(ladder, take_inventory(ladder), tmp_path / "cache"))
    assert [step.fetched.rung.path for step in steps if step.fetched] == [tmp_path / "ladder" / "step000010"]
    assert (tmp_path / "ladder" / "step000010" / "config.json").exists()
    assert not (tmp_path / "cache").exists()


def test_work_hides_downloads(tmp_path: Path) -> None:
    """n rungs with download d and work c ≥ d take d + n·c, not n·(d + c); a third of the gain is asked for."""
    n, seconds, size = 4, 0.4, 200_000
    files = {f"step{k}": {"config.json": blob("{}"), **shard(k, size)} for k in range(n)}
    with serve(Repository(NAME, {"main": {}, **files}), rate=size / seconds) as hub:
        ladder = resolve(SPEC, endpoint=hub.endpoint)
        inventories = take_inventory(ladder)[:n]
        start = time.monotonic()
        for one in inventories:
            fetch(ladder, one, tmp_path / "alone")
        alone = time.monotonic() - start
        work = 1.2 * alone / n
        start = time.monotonic()
        for step in walk(ladder, inventories, tmp_path / "walk"):
            assert step.fetched
            time.sleep(work)
        walked = time.monotonic() - start
    assert walked < (alone + n * work) - (1 - 1 / n) * alone / 3


def shard(k: int, size: int) -> Files:
    return {"model.safetensors": blob(bytes([k]) * size, large=True)}


def vgrad(*arguments: object) -> Result:
    app = typer.Typer()
    fetch_commands.add_to(app)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_commands(repository: Repository, tmp_path: Path) -> None:
    """Fetch some, list, evict one, evict all; exit code 1 when a rung could not be fetched."""
    spec, cache = tmp_path / "ours.yaml", tmp_path / "cache"
    spec.write_text(f"repository: {NAME}\npattern: '{FOLDER_PATTERN}'\n")
    with serve(repository, default=True) as hub:
        done = vgrad("fetch", spec, "--to", 2, "--cache", cache)
        assert done.exit_code == 0
        assert [line.split()[0] for line in done.output.splitlines()] == ["step1", "step2"]
        hub.plant("*/resolve/*/model-00001*", "404")
        failed = vgrad("fetch", spec, "--cache", cache, "--json")
        assert failed.exit_code == 1
        rows = json.loads(failed.output)
        assert [row["problem"] is None for row in rows] == [True, True, False]
        assert rows[0]["sha256"] == content_identity(Path(rows[0]["path"]))
    assert "2 rungs in" in vgrad("evict", "--cache", cache).output
    wrong = vgrad("evict", "ours", "--rung", "step9", "--cache", cache)
    assert isinstance(wrong.exception, UserError)
    assert "step1" in str(wrong.exception)
    assert isinstance(vgrad("evict", "our", "--cache", cache).exception, UserError)
    assert isinstance(vgrad("evict", "ours", "--all", "--cache", cache).exception, UserError)
    assert isinstance(vgrad("evict", "--rung", 1, "--cache", cache).exception, UserError)
    assert "1 rungs evicted" in vgrad("evict", "ours", "--rung", 1, "--cache", cache).output
    assert list(cache.glob("*/.unfinished*/*"))
    last = json.loads(vgrad("evict", "--all", "--cache", cache, "--json").output)
    assert last["freed"] > last["rungs"][0]["bytes"] > 0
    assert not list(cache.glob("*/*/*"))


def test_a_refused_ladder_is_not_fetched(repository: Repository, tmp_path: Path) -> None:
    spec, cache = tmp_path / "ours.yaml", tmp_path / "cache"
    spec.write_text(f"repository: {NAME}\npattern: '{FOLDER_PATTERN}'\n")
    with serve(FAULTS["duplicate rung"](repository), default=True) as hub:
        assert isinstance(vgrad("fetch", spec, "--cache", cache).exception, UserError)
        assert not weights(hub)
        assert vgrad("fetch", spec, "--cache", cache, "--allow", "duplicate").exit_code == 0
