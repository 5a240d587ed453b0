"""The scheduler with processes of its own: retries, halving, isolation, and what it never does twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.fake_units import FAKES, Fake, Inline
from vgrad_lab.checkpoints import claims, schedule, store
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import DIED, LocalExecutor, Outcome, Task, outcome_of, perform
from vgrad_lab.checkpoints.schedule import Policy, rows, run_units, table

QUICK = Policy(retries=2, pause=0.01, lease=5.0, poll=0.05)


def sweep(works: list[Fake], folder: Path, executor: Any = None, policy: Policy = QUICK) -> dict[str, int]:
    return run_units(works, folder, executor or Inline(), policy=policy, progress=False)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


def starts(diary: Path, unit: str) -> int:
    return diary.read_text().count(f"start fake-{unit}\n")


def test_a_sweep_publishes_once_and_continues(tmp_path: Path, diary: Path) -> None:
    works = [Fake(c, diary) for c in "abc"]
    assert sweep(works[:1], tmp_path) == {"done": 1, "failed": 0, "kept": 0}
    assert sweep(works, tmp_path) == {"done": 2, "failed": 0, "kept": 1}
    assert sweep(works, tmp_path) == {"done": 0, "failed": 0, "kept": 3}
    assert [starts(diary, c) for c in "abc"] == [1, 1, 1]
    assert list((tmp_path / claims.CLAIMS).iterdir()) == []
    assert table(rows(works, tmp_path)).endswith("3 units: 3 done, 0 failed")


@pytest.mark.parametrize(
    ("act", "times", "counts", "attempts"),
    [
        ("error", 99, (0, 1), 1),
        ("error", 0, (1, 0), 1),
        ("transient", 2, (1, 0), 3),
        ("transient", 3, (0, 1), 3),
        ("memory", 99, (1, 0), 3),
        ("no memory at all", 99, (0, 1), 4),
    ],
)
def test_what_is_tried_again(
    tmp_path: Path, diary: Path, act: str, times: int, counts: tuple[int, int], attempts: int
) -> None:
    works = [Fake("a", diary, act, times), Fake("b", diary)]
    result = sweep(works, tmp_path)
    assert (result["done"], result["failed"]) == (counts[0] + 1, counts[1])
    assert starts(diary, "a") == attempts
    assert starts(diary, "b") == 1


def test_a_failed_unit_says_why_and_is_tried_by_the_next_sweep(tmp_path: Path, diary: Path) -> None:
    works = [Fake("a", diary, "error", 1), Fake("b", diary)]
    assert sweep(works, tmp_path)["failed"] == 1
    assert table(rows(works, tmp_path)).splitlines()[0] == "fake-a  failed   a cannot work; leave it out"
    assert sweep(works, tmp_path) == {"done": 1, "failed": 0, "kept": 1}


def test_what_failed_elsewhere_meanwhile_is_not_tried_again(tmp_path: Path, diary: Path) -> None:
    class Elsewhere(Inline):
        def submit(self, task: Task) -> None:
            store.publish(tmp_path, works[1].failed("elsewhere"))
            super().submit(task)

    works = [Fake("a", diary), Fake("b", diary)]
    assert sweep(works, tmp_path, Elsewhere()) == {"done": 1, "failed": 1, "kept": 0}
    assert starts(diary, "b") == 0


def test_a_unit_held_elsewhere_is_waited_for(tmp_path: Path, diary: Path) -> None:
    """Its holder died on another machine: after the lease it is run here."""
    claim = claims.take(tmp_path, "fake-a", owner="x")
    assert claim
    claim.path.write_text('{"owner": "x", "place": "elsewhere", "pid": 1, "born": "1"}')
    works = [Fake("a", diary), Fake("b", diary)]
    assert rows(works, tmp_path)[0]["status"] == "running"
    start = time.monotonic()
    assert sweep(works, tmp_path, policy=Policy(lease=0.6, poll=0.05)) == {"done": 2, "failed": 0, "kept": 0}
    assert time.monotonic() - start > 0.5
    assert diary.read_text().splitlines()[0] == "start fake-b"


def test_a_record_published_between_look_and_claim_is_kept(tmp_path: Path, diary: Path) -> None:
    work = Fake("a", diary)
    store.publish(tmp_path, {**work.failed(""), "status": "done"})
    assert perform(Task(work, tmp_path, "me")) == Outcome("kept")
    assert not diary.exists()


def test_a_stopped_worker_does_not_overwrite_its_successor(tmp_path: Path, diary: Path) -> None:
    class Slow(Fake):
        def run(self, *, halvings: int, device: str) -> dict[str, Any]:
            store.publish(tmp_path, {**self.failed(""), "status": "done", "result": "the successor's"})
            return super().run(halvings=halvings, device=device)

    work = Slow("a", diary)
    assert perform(Task(work, tmp_path, "me")) == Outcome("kept")
    assert store.read_records(tmp_path)["fake-a"]["result"] == "the successor's"


def test_nan_in_a_result_is_a_failure_not_a_record(tmp_path: Path, diary: Path) -> None:
    class Broken(Fake):
        def run(self, *, halvings: int, device: str) -> dict[str, Any]:
            return {**self.failed(""), "status": "done", "result": float("nan")}

    assert sweep([Broken("a", diary)], tmp_path)["failed"] == 1
    assert "ValueError" in store.read_records(tmp_path)["fake-a"]["error"]


def test_a_full_store_stops_the_sweep_and_closes_the_executor(
    tmp_path: Path, diary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("cannot write units (No space left on device); choose a folder")

    works, executor = [Fake(c, diary) for c in "abc"], Inline()
    with monkeypatch.context() as patch:
        patch.setattr("vgrad_lab.checkpoints.executors.publish", full)
        with pytest.raises(UserError, match="No space left"):
            sweep(works, tmp_path, executor)
    assert executor.closed
    assert store.read_records(tmp_path) == {}
    assert sweep(works, tmp_path)["done"] == 3


def test_causes_of_an_error_decide_its_kind() -> None:
    def chain(cause: BaseException) -> BaseException:
        try:
            raise UserError("cannot load it") from cause
        except UserError as error:
            return error

    assert outcome_of(chain(TimeoutError())).kind == "transient"
    assert outcome_of(chain(OSError(116, "stale"))).kind == "transient"
    assert outcome_of(chain(OSError(12, "no memory"))).kind == "memory"
    assert outcome_of(chain(FileNotFoundError(2, "gone"))) == Outcome("error", "cannot load it")
    assert outcome_of(RuntimeError("DefaultCPUAllocator: can't allocate memory")).kind == "memory"
    assert outcome_of(ValueError("out of memory of the past")).kind == "error"


def test_crashes_stay_with_their_unit(tmp_path: Path, diary: Path) -> None:
    """A process that dies always, once, or until the micro-batch is small; an error larger than a pipe holds."""
    works = [
        Fake("always", diary, "die"),
        Fake("once", diary, "die", 1),
        Fake("large", diary, "die while large"),
        Fake("long", diary, "long error"),
        Fake("fine", diary),
    ]
    assert sweep(works, tmp_path, LocalExecutor(2, preload=FAKES)) == {"done": 3, "failed": 2, "kept": 0}
    records = store.read_records(tmp_path)
    assert records["fake-always"]["error"] == DIED
    assert [starts(diary, n) for n in ("always", "once", "large", "long", "fine")] == [3, 2, 3, 1, 1]
    assert len(records["fake-long"]["error"]) > 300_000


def test_two_protocols_in_one_folder_stay_apart(tmp_path: Path, diary: Path) -> None:
    first, second = [Fake("p1", diary)], [Fake("p2", diary)]
    sweep(first, tmp_path)
    assert sweep(second, tmp_path) == {"done": 1, "failed": 0, "kept": 0}
    assert len(rows(second, tmp_path)) == 1
    assert len(store.read_records(tmp_path)) == 2


@pytest.mark.parametrize("changes", [{"retries": -1}, {"pause": -1.0}, {"lease": 0.0}, {"poll": 0.0}])
def test_policies_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="negative|positive"):
        Policy(**changes)


@pytest.mark.parametrize("changes", [{"workers": 0}, {"threads": 0}])
def test_executors_that_cannot_work_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        LocalExecutor(**changes)


def test_status_changes_nothing(tmp_path: Path, diary: Path) -> None:
    sweep(works := [Fake("a", diary)], tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert rows([*works, Fake("b", diary)], tmp_path)[1]["status"] == "open"
    assert sorted(tmp_path.rglob("*")) == before
    assert schedule.table([]) == "0 units: 0 done, 0 failed"


INTERRUPTED = """
import sys
from pathlib import Path
from tests.checkpoints.fake_units import Fake
from vgrad_lab.checkpoints.executors import LocalExecutor
from vgrad_lab.checkpoints.schedule import run_units
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    works = [Fake(c, folder / "diary", seconds=60.0) for c in "ab"]
    try:
        run_units(works, folder, LocalExecutor(2, preload=("slow_to_import",)), progress=False)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("moment", ["importing", "diary"])
def test_ctrl_c_is_answered_by_the_parent_alone(tmp_path: Path, moment: str) -> None:
    """While the server of the processes imports, and while units run: no traceback from below, and nobody survives."""
    (tmp_path / "job.py").write_text(INTERRUPTED)
    (tmp_path / "slow_to_import.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'importing')!r}).touch()\ntime.sleep(0.7)\n"
    )
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "job.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / moment).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    assert run.communicate(timeout=60)[0] == "interrupted\n"
    while time.monotonic() < deadline:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("processes survive their parent")


def test_pauses_grow(tmp_path: Path, diary: Path) -> None:
    start = time.monotonic()
    sweep([Fake("a", diary, "transient", 2)], tmp_path, policy=Policy(retries=2, pause=0.2, poll=0.01))
    assert time.monotonic() - start > 0.55  # 0.2 + 0.4, less what a clock may round


class Dies(Inline):
    """The first process dies on another machine, before its work or after it, and holds its claim."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.after = after

    def submit(self, task: Task) -> None:
        if self.tasks:
            super().submit(task)
            return
        self.tasks.append(task)
        claim = claims.take(task.folder, task.work.id, owner=task.owner)
        assert claim
        claim.path.write_text(f'{{"owner": "{task.owner}", "place": "elsewhere", "pid": 1, "born": "1"}}')
        if self.after:
            store.publish(task.folder, task.work.run(halvings=0, device="cpu"))
        self.ended.append((task, Outcome("crash", DIED)))


def test_a_unit_whose_process_died_is_tried_again_without_waiting_for_its_lease(tmp_path: Path, diary: Path) -> None:
    start = time.monotonic()
    policy = Policy(retries=1, pause=0.0, lease=30.0, poll=0.02)
    assert sweep([Fake("a", diary)], tmp_path, Dies(after=False), policy) == {"done": 1, "failed": 0, "kept": 0}
    assert time.monotonic() - start < 15


def test_a_process_that_dies_after_its_record_is_published_is_done(tmp_path: Path, diary: Path) -> None:
    executor = Dies(after=True)
    assert sweep([Fake("a", diary)], tmp_path, executor) == {"done": 1, "failed": 0, "kept": 0}
    assert len(executor.tasks) == 1
    assert starts(diary, "a") == 1


def test_claims_of_done_units_go(tmp_path: Path, diary: Path) -> None:
    """As of a worker that was killed right after publishing."""
    sweep(works := [Fake("a", diary)], tmp_path)
    for number in (0, 1):
        (tmp_path / claims.CLAIMS / f"fake-a.{number}").write_text("{}")
    sweep(works, tmp_path)
    assert list((tmp_path / claims.CLAIMS).iterdir()) == []


def test_a_spare_process_that_was_killed_is_replaced(tmp_path: Path, diary: Path) -> None:
    """The process of the next unit is started while units run; no unit is lost with it."""
    executor = LocalExecutor(1, preload=FAKES)
    try:
        executor.submit(Task(Fake("a", diary, seconds=1.0), tmp_path, "me"))
        assert executor.finished(0.5) == []
        (spare,) = executor._spare
        os.kill(spare.process.pid or 0, signal.SIGKILL)
        spare.process.join(10)
        ended = list(executor.finished(30.0))
        executor.submit(Task(Fake("b", diary), tmp_path, "me"))
        while len(ended) < 2:
            ended += executor.finished(30.0)
    finally:
        executor.close()
    assert [outcome.kind for _, outcome in ended] == ["done", "done"]
    assert [starts(diary, c) for c in "ab"] == [1, 1]
