"""Sweeps straight from the loopback hub: each rung fetched once, run, evicted; several walkers in one folder."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.fake_units import Fake, Inline
from tests.checkpoints.test_sweep_schedule import starts
from tests.loopback_hub import FAULTS, Hub, Repository, blob, serve
from vgrad_lab.checkpoints import claims, hub_client, store
from vgrad_lab.checkpoints.audit import audit
from vgrad_lab.checkpoints.cache import InUse, Use, cached_rungs, evict
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.hub import fetch
from vgrad_lab.checkpoints.inventory import Inventory
from vgrad_lab.checkpoints.ladder_walk import ladder_units, run_ladder, rung_of
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.loading import content_identity
from vgrad_lab.checkpoints.resolve import Ladder, resolve
from vgrad_lab.checkpoints.schedule import Policy, rows
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, LadderSpec

NAME = "ours/ladder"
SPEC = LadderSpec(name="ours", pattern=FOLDER_PATTERN, repository=NAME)
QUICK = Policy(retries=0, pause=0.01, lease=5.0, poll=0.02)
CONFIG = blob('{"architectures": ["LlamaForCausalLM"], "rope_theta": 1e4}')


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "FIRST_WAIT", 0.001)


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {f"step{k}": {"config.json": CONFIG, "model.safetensors": blob(bytes([k]) * 9000, large=True)} for k in
             (1, 2, 3, 4)}  # fmt: skip
    with serve(Repository(NAME, {"main": {}, **files})) as running:
        yield running


@dataclass(frozen=True)
class OnRung(Fake):
    """A unit that needs the files of its rung while it runs."""

    rung: Rung | None = None
    sha256: str = ""

    def run(self, *, halvings: int, device: str) -> dict[str, Any]:
        assert self.rung is not None
        assert content_identity(self.rung.path) == self.sha256
        record = super().run(halvings=halvings, device=device)
        assert content_identity(self.rung.path) == self.sha256
        return record


@dataclass(frozen=True)
class Walk:
    """What a test needs of a ladder on the hub."""

    ladder: Ladder
    inventories: tuple[Inventory, ...]
    home: Path
    each: int = 2
    seconds: float = 0.0

    @property
    def diary(self) -> Path:
        return self.home / "diary"

    def units(self, rung: Rung, identity: str) -> list[OnRung]:
        names = (f"{rung.name}-{i}" for i in range(self.each))
        return [OnRung(n, self.diary, seconds=self.seconds, rung=rung, sha256=identity) for n in names]

    def run(self, executor: Any = None, **options: Any) -> dict[str, int]:
        at = (self.ladder, self.inventories, self.home / "cache", self.units, self.home / "run", executor or Inline())
        return run_ladder(*at, policy=QUICK, progress=False, margin=1000, **options)

    def order(self) -> list[str]:
        return [line.split("step")[1] for line in self.diary.read_text().splitlines() if line.startswith("start")]


def known(hub: Hub, home: Path, **options: Any) -> Walk:
    ladder = resolve(SPEC, endpoint=hub.endpoint)
    return Walk(ladder, audit(ladder, allow=("no weights", "bin only")).usable, home, **options)


def weights(hub: Hub) -> list[str]:
    return [asked for asked in hub.requests if ".safetensors" in asked]


def test_each_rung_is_fetched_once_run_and_evicted(hub: Hub, tmp_path: Path) -> None:
    walk, executor = known(hub, tmp_path), Inline()
    assert walk.run(executor) == {"done": 8, "failed": 0, "kept": 0}
    assert executor.closed
    assert walk.order() == [f"00000{k}-{i}" for k in (1, 2, 3, 4) for i in (0, 1)]
    assert len(weights(hub)) == 4
    assert cached_rungs(tmp_path / "cache") == ()
    assert walk.run() == {"done": 0, "failed": 0, "kept": 8}
    assert len(weights(hub)) == 4
    assert list((tmp_path / "run" / claims.CLAIMS).iterdir()) == []
    units = ladder_units(walk.ladder, walk.inventories, tmp_path / "cache", walk.units)
    assert {row["status"] for row in rows(units, tmp_path / "run")} == {"done"}


def test_only_rungs_with_open_units_are_fetched(hub: Hub, tmp_path: Path) -> None:
    walk = known(hub, tmp_path)
    for k in (0, 2):
        unit = walk.units(*rung_of(walk.ladder, walk.inventories[k], tmp_path / "cache"))
        for one in unit[: 2 - k // 2]:
            store.publish(tmp_path / "run", {**one.failed(""), "status": "done"})
    assert walk.run() == {"done": 5, "failed": 0, "kept": 3}
    assert len(weights(hub)) == 3
    assert not [asked for asked in weights(hub) if walk.ladder.rungs[0].commit in asked]


def test_rungs_that_are_kept_stay(hub: Hub, tmp_path: Path) -> None:
    walk = known(hub, tmp_path)
    walk.run(keep=True)
    assert len(cached_rungs(tmp_path / "cache")) == 4


def test_a_rung_that_cannot_be_fetched_is_rows_with_the_reason(hub: Hub, tmp_path: Path) -> None:
    walk = known(hub, tmp_path)
    hub.plant(f"*/{walk.ladder.rungs[1].commit}/*.safetensors", "404")
    assert walk.run() == {"done": 6, "failed": 2, "kept": 0}
    errors = [row["error"] for row in store.read_records(tmp_path / "run").values() if row["status"] == "failed"]
    assert len(errors) == 2
    assert all(error.startswith("step2 could not be fetched: ours/ladder at step2, model.safet") for error in errors)
    hub.heal()
    assert walk.run() == {"done": 2, "failed": 0, "kept": 6}
    assert len(weights(hub)) == 5


def test_weights_without_hashes_are_told_apart_by_their_commit(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[NAME] = FAULTS["bin only"](hub.repositories[NAME])
    walk = known(hub, tmp_path)
    identities = [rung_of(walk.ladder, one, tmp_path)[1] for one in walk.inventories]
    assert identities[3] == f"git:{walk.ladder.rungs[3].commit}"
    assert all(len(identity) == 64 for identity in identities[:3])
    assert walk.run() == {"done": 6, "failed": 2, "kept": 0}


def test_a_rung_that_another_walker_has_taken_comes_last(hub: Hub, tmp_path: Path) -> None:
    walk = known(hub, tmp_path)
    unit = f"rung-step000001-{walk.ladder.rungs[0].commit[:12]}"
    assert claims.take(tmp_path / "run", unit, owner="another")
    assert walk.run() == {"done": 8, "failed": 0, "kept": 0}
    assert [name[:6] for name in walk.order()] == ["000002"] * 2 + ["000003"] * 2 + ["000004"] * 2 + ["000001"] * 2


def test_a_unit_held_elsewhere_does_not_hold_the_walk_up(hub: Hub, tmp_path: Path) -> None:
    """Its holder publishes it while the last rung runs: it is kept, and its rung is not fetched again."""
    walk = known(hub, tmp_path)
    held = walk.units(*rung_of(walk.ladder, walk.inventories[0], tmp_path / "cache"))[1]
    assert claims.take(tmp_path / "run", held.id, owner="another")

    class Elsewhere(Inline):
        def submit(self, task: Any) -> None:
            if "step000004-1" in task.work.id:
                store.publish(tmp_path / "run", {**held.failed(""), "status": "done"})
            super().submit(task)

    assert walk.run(Elsewhere()) == {"done": 7, "failed": 0, "kept": 1}
    assert starts(walk.diary, held.name) == 0
    assert len(weights(hub)) == 4


def test_several_walkers_share_one_folder_and_one_cache(hub: Hub, tmp_path: Path) -> None:
    walk = known(hub, tmp_path, seconds=0.03, each=3)
    counts: list[dict[str, int]] = []
    threads = [threading.Thread(target=lambda: counts.append(walk.run())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(count["done"] for count in counts) == 12
    assert all(sum(count.values()) == 12 and not count["failed"] for count in counts)
    assert sorted(walk.order()) == sorted({*walk.order()})
    assert cached_rungs(tmp_path / "cache") == ()


def test_a_rung_in_use_is_not_evicted(hub: Hub, tmp_path: Path) -> None:
    walk = known(hub, tmp_path)
    found = fetch(walk.ladder, walk.inventories[0], tmp_path / "cache", keep=False, margin=1000)
    use, other = Use(found.rung.path), Use(found.rung.path)
    use.end()
    use.end()
    with pytest.raises(InUse, match="used by another process"):
        evict(found.rung.path)
    walk.run()
    assert [one.path for one in cached_rungs(tmp_path / "cache")] == [found.rung.path]
    other.end()
    assert evict(found.rung.path) > 0


def test_a_full_store_ends_the_walk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("cannot write units (No space left on device); choose a folder")

    walk, executor = known(hub, tmp_path), Inline()
    with monkeypatch.context() as patch:
        patch.setattr("vgrad_lab.checkpoints.executors.publish", full)
        with pytest.raises(UserError, match="No space left"):
            walk.run(executor)
    assert executor.closed
    assert list((tmp_path / "run" / claims.CLAIMS).glob("rung-*")) == []
    assert walk.run() == {"done": 8, "failed": 0, "kept": 0}


def test_a_local_ladder_is_walked_where_it_lies(tmp_path: Path) -> None:
    for k in (1, 2):
        folder = tmp_path / "ladder" / f"step{k}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes([k]) * 99)
    ladder = resolve(LadderSpec(name="mine", pattern=FOLDER_PATTERN, folder=tmp_path / "ladder"))
    walk = Walk(ladder, audit(ladder, allow=("architecture", "rope")).usable, tmp_path)
    assert walk.run() == {"done": 4, "failed": 0, "kept": 0}
    assert not (tmp_path / "cache").exists()
    assert (tmp_path / "ladder" / "step1" / "config.json").exists()
