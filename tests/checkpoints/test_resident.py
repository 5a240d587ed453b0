"""Processes that stay: the records of a sweep, one load per rung, deaths and shortage kept to a unit."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from vgrad_lab.checkpoints import schedule, store
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import DIED, Executor, LocalExecutor, Task
from vgrad_lab.checkpoints.forecast import plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.reload import Bench
from vgrad_lab.checkpoints.resident import OnBench, ResidentExecutor
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.schedule import Policy
from vgrad_lab.checkpoints.sweep import Unit, make_units
from vgrad_lab.checkpoints.tasks import LabelCopy

QUICK = Policy(retries=1, pause=0.01, lease=5.0, poll=0.05)
RL = GrpoSettings(prompts=4, budgets=(1, 2), evaluation_prompts=16, learning_rate=1e-3)
FORECAST = plan_of(RL, ForecastSettings(passes=1, prompts=16, points=2, evaluation_prompts=16, ray_prompts=8))


@dataclass(frozen=True)
class Watched:
    """A unit that notes its process and the model it was given, and may come to grief the first so many times."""

    unit: Unit
    diary: Path
    act: str = ""
    times: int = 1

    @property
    def sha256(self) -> str:
        return self.unit.sha256

    @property
    def id(self) -> str:
        return self.unit.id

    def run(self, *, halvings: int, device: str, load: Callable[..., Checkpoint]) -> dict[str, Any]:
        earlier = sum(row["unit"] == self.id for row in diary_rows(self.diary))
        checkpoint = load(self.unit.rung.path, device=device)
        row = {"unit": self.id, "pid": os.getpid(), "model": id(checkpoint.model), "halvings": halvings}
        with self.diary.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        if earlier < self.times:
            if self.act == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.act == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            if self.act == "error":
                raise UserError("this one cannot be done")
        return self.unit.run(halvings=halvings, device=device, load=lambda path, device: checkpoint)

    def can_halve(self, halvings: int) -> bool:
        return self.unit.can_halve(halvings)

    def failed(self, error: str) -> dict[str, Any]:
        return self.unit.failed(error)


def diary_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def units(tiny_ladder: Path) -> list[Unit]:
    """Four pieces of work on each of two rungs."""
    rungs = list_rungs(tiny_ladder)[-2:]
    measures = MeasureSettings(prompts=16, sampled_groups=4)
    return make_units(rungs, LabelCopy(), measures=measures, rl=[RL], seeds=(0, 1), forecasts=[FORECAST])


def sweep(works: list[Any], folder: Path, executor: Any) -> dict[str, int]:
    return schedule.run_units(works, folder, executor, policy=QUICK, progress=False)


def test_records_equal_those_of_a_process_per_unit(units: list[Unit], tmp_path: Path) -> None:
    """Byte for byte, whatever was done to the model before; one process and one load for all."""
    order = tuple(dict.fromkeys(unit.rung.path for unit in units))
    diary, few = tmp_path / "diary", [*units[1:4], units[5]]  # RL, RL, forecast, then RL on the next rung
    with ResidentExecutor(order=order) as executor:
        assert isinstance(executor, Executor)
        counts = sweep([Watched(u, diary) for u in few], tmp_path / "a", executor)
    assert counts == {"done": 4, "failed": 0, "kept": 0}
    assert sweep(few, tmp_path / "b", LocalExecutor(1)) == counts
    for unit in few:
        one, other = ((tmp_path / x / store.UNITS / f"{unit.id}.json").read_bytes() for x in "ab")
        assert one == other
    assert len({(row["pid"], row["model"]) for row in diary_rows(diary)}) == 1


@pytest.mark.parametrize(
    ("act", "times", "counts"),
    [
        ("kill", 1, {"done": 4, "failed": 0, "kept": 0}),
        ("kill", 9, {"done": 3, "failed": 1, "kept": 0}),
        ("error", 9, {"done": 3, "failed": 1, "kept": 0}),
        ("memory", 2, {"done": 4, "failed": 0, "kept": 0}),
    ],
)
def test_what_goes_wrong_stays_with_its_unit(
    act: str, times: int, counts: dict[str, int], units: list[Unit], tmp_path: Path
) -> None:
    """A dead process is replaced, one without memory too, and its unit's micro-batch is halved until it fits."""
    diary = tmp_path / "diary"
    works = [Watched(unit, diary, act if i == 1 else "", times) for i, unit in enumerate(units[:4])]
    with ResidentExecutor() as executor:
        assert sweep(works, tmp_path, executor) == counts
    rows = diary_rows(diary)
    record = store.read_record(tmp_path, units[1].id) or {}
    if act == "memory":
        assert [row["halvings"] for row in rows if row["unit"] == units[1].id] == [0, 1, 2]
    processes = {"kill": min(times, 2) + 1, "memory": times + 1, "error": 1}
    assert len({row["pid"] for row in rows}) == processes[act]
    if counts["failed"]:
        assert record["error"] == {"kill": DIED, "error": "this one cannot be done"}[act]
    else:
        assert record["status"] == "done"


def test_two_workers_share_the_units(units: list[Unit], tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with ResidentExecutor(2) as executor:
        assert sweep([Watched(u, diary) for u in units[1:5]], tmp_path, executor)["done"] == 4
    assert len({row["pid"] for row in diary_rows(diary)}) == 2


def test_processes_outlive_a_sweep_and_end_with_the_block(units: list[Unit], tmp_path: Path) -> None:
    """The scheduler closes its executor after each sweep: what is idle stays, and ends with the block."""
    diary = tmp_path / "diary"
    with ResidentExecutor() as executor:
        for unit in units[:3]:
            sweep([Watched(unit, diary)], tmp_path, executor)
        (pid,) = {row["pid"] for row in diary_rows(diary)}
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_at_work_is_killed_by_close(units: list[Unit], tmp_path: Path) -> None:
    with ResidentExecutor() as executor:
        executor.submit(Task(Watched(units[1], tmp_path / "diary"), tmp_path, "me"))
        with pytest.raises(RuntimeError, match="all 1 slots are taken"):
            executor.submit(Task(Watched(units[2], tmp_path / "diary"), tmp_path, "me"))
        executor.close()
        assert executor.finished(0.0) == []
    assert store.read_record(tmp_path, units[1].id) is None
    with pytest.raises(UserError, match="workers is 0"):
        ResidentExecutor(0)


def test_weights_that_changed_on_the_disk_are_refused(units: list[Unit]) -> None:
    import dataclasses

    bench = Bench()
    other = OnBench(dataclasses.replace(units[0], sha256="0" * 64), bench)
    with pytest.raises(UserError, match="have changed since this run began"):
        other.run(halvings=0, device="cpu")
    assert OnBench(units[0], bench).run(halvings=0, device="cpu")["status"] == "done"
    assert OnBench(units[0], bench).failed("x")["error"] == "x"
    bench.close()


def test_an_interrupt_while_a_process_starts_is_an_interrupt(
    units: list[Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiprocessing.process import BaseProcess

    def interrupted(_: BaseProcess) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), ResidentExecutor() as executor:
        executor.submit(Task(Watched(units[0], tmp_path / "diary"), tmp_path, "me"))
