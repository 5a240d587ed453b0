"""SIGKILL at random moments over sweeps of real tiny checkpoints: the same records and table, nothing done twice."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_models
from tests.checkpoints import real_units
from tests.checkpoints.real_units import QUICK, works
from tests.checkpoints.test_sweep_kills import check_units, descendants
from vgrad_lab.checkpoints import claims, store
from vgrad_lab.checkpoints.children import starting
from vgrad_lab.checkpoints.executors import PRELOAD, LocalExecutor
from vgrad_lab.checkpoints.schedule import rows, run_units, table

SERVER: Any = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    for i in (1, 2, 3):
        tiny_models.save(folder / f"step{i:06d}", seed=i)
    return folder


@pytest.fixture(scope="module")
def whole(ladder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """Records and table of a sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid and PRELOAD[1].encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # another test's, without the libraries
    SERVER.set_forkserver_preload(list(PRELOAD))
    run = start(ladder, folder)
    run.join(120)
    return outcome(ladder, folder)


def start(ladder: Path, folder: Path) -> BaseProcess:
    """A sweep in a process of its own, forked from a server that has the libraries."""
    with starting(1):
        process: BaseProcess = SERVER.Process(target=real_units.sweep, args=(ladder, folder))
        process.start()
    return process


def outcome(ladder: Path, folder: Path) -> tuple[bytes, str]:
    return store.export(folder).read_bytes(), table(rows(works(ladder, folder), folder))


def begun(folder: Path) -> list[str]:
    diary = folder / "diary"
    return [line.split()[1] for line in diary.read_text().splitlines()] if diary.exists() else []


def kill_sweeps(ladder: Path, home: Path, expected: tuple[bytes, str], *, kills: int, workers: int, seed: int) -> int:
    """Sweeps in fresh folders, each killed some times, until all kills are dealt; how many sweeps that took."""
    rng, dealt, sweeps = random.Random(seed), 0, 0
    while dealt < kills:
        folder = home / f"run{sweeps}"
        running = [start(ladder, folder) for _ in range(workers)]
        for _ in range(min(rng.randint(2, 4), kills - dealt)):
            time.sleep(rng.uniform(0.05, 0.9))
            done, before, chosen = check_units(folder), begun(folder), rng.randrange(workers)
            if running[chosen].is_alive():
                os.kill(running[chosen].pid or 0, signal.SIGKILL)
                running[chosen].join()
                dealt += 1
                running[chosen] = start(ladder, folder)
            assert done <= check_units(folder)
            assert not done & {*begun(folder)[len(before) :]}, "run again after it was published"
        for run in running:
            run.join(120)
            assert run.exitcode == 0
        assert outcome(ladder, folder) == expected
        assert not list((folder / store.UNITS).glob("*.corrupt"))
        assert list((folder / claims.CLAIMS).iterdir()) == []
        sweeps += 1
    return sweeps


@pytest.mark.parametrize("workers", [1, 3])
def test_a_few_kills(ladder: Path, whole: tuple[bytes, str], tmp_path: Path, workers: int) -> None:
    assert whole[1].endswith("6 units: 6 done, 0 failed")
    kill_sweeps(ladder, tmp_path, whole, kills=3, workers=workers, seed=workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_a_hundred_kills(ladder: Path, whole: tuple[bytes, str], tmp_path: Path, workers: int) -> None:
    kill_sweeps(ladder, tmp_path, whole, kills=100, workers=workers, seed=100 + workers)


def test_processes_of_units_are_killed(ladder: Path, whole: tuple[bytes, str], tmp_path: Path) -> None:
    """As the kernel does when memory runs out: the sweep lives on and tries the unit again in a new process."""
    stop, killed = threading.Event(), list[int]()

    def killer() -> None:
        rng = random.Random(5)
        while not stop.wait(rng.uniform(0.1, 0.4)) and len(killed) < 4:
            for server in [pid for pid in descendants(os.getpid()) if descendants(pid)]:
                victim = rng.choice([*descendants(server), 0])
                if victim and b"forkserver" in Path(f"/proc/{victim}/cmdline").read_bytes():
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    todo = works(ladder, tmp_path)
    thread = threading.Thread(target=killer)
    thread.start()
    try:
        run_units(todo, tmp_path, LocalExecutor(2), policy=QUICK, progress=False)
    finally:
        stop.set()
        thread.join()
    assert killed
    found, expected = (
        [json.loads(line) for line in text.splitlines()] for text in (outcome(ladder, tmp_path)[0], whole[0])
    )
    for one in found:
        one.pop("micro_batch", None)  # halved where one unit met two kills
    assert [{**one, "result": None} for one in found] == [{**one, "result": None} for one in expected]
