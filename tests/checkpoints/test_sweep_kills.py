"""SIGKILL at random moments, with one and with three workers in one folder: nothing lost, nothing done twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkpoints.fake_units import FAKES, Fake
from vgrad_lab.checkpoints import claims, store
from vgrad_lab.checkpoints.executors import LocalExecutor
from vgrad_lab.checkpoints.schedule import Policy, rows, run_units, table

ROOT = Path(__file__).parents[2]
QUICK = Policy(retries=2, pause=0.0, lease=3.0, poll=0.02)
SCRIPT = """
import sys
from pathlib import Path
from tests.checkpoints.test_sweep_kills import FAKES, QUICK, works
from vgrad_lab.checkpoints.executors import LocalExecutor
from vgrad_lab.checkpoints.schedule import run_units
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_units(works(folder), folder, LocalExecutor(2, preload=FAKES), policy=QUICK, progress=False)
"""


def works(folder: Path, count: int = 6) -> list[Fake]:
    return [Fake(f"{i:02d}", folder / "diary", seconds=0.02) for i in range(count)]


def start(script: Path, folder: Path) -> subprocess.Popen[bytes]:
    path = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(folder)], env={**os.environ, **path}, stderr=subprocess.DEVNULL
    )


def descendants(pid: int) -> list[int]:
    """Processes below one, by the table of the system."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def kill_one(run: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Kill the sweep itself, or one process below it, by chance."""
    try:
        victims = descendants(run.pid)
        victim = rng.choice(victims) if victims and rng.random() < 0.5 else run.pid
        os.kill(victim, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        pass


def check_units(folder: Path) -> set[str]:
    """Every published file is whole at any moment."""
    found = set()
    for path in (folder / store.UNITS).glob("*.json"):
        record = json.loads(path.read_text())
        assert record["unit"] == path.stem
        found.add(f"{path.stem}") if record["status"] == "done" else None
    return found


def kill_sweeps(folder: Path, *, kills: int, workers: int, seed: int) -> None:
    """Sweep after sweep in fresh folders, each with kills, until all are dealt; each ends as a whole one does."""
    folder.mkdir()
    script, rng, dealt, sweeps = folder / "job.py", random.Random(seed), 0, 0
    script.write_text(SCRIPT)
    while dealt < kills:
        run_folder = folder / f"run{sweeps}"
        running = [start(script, run_folder) for _ in range(workers)]
        for _ in range(min(rng.randint(3, 6), kills - dealt)):
            time.sleep(rng.uniform(0.0, 1.2))
            done = check_units(run_folder)
            begun = (run_folder / "diary").read_text().splitlines() if (run_folder / "diary").exists() else []
            chosen = rng.randrange(workers)
            kill_one(running[chosen], rng)
            dealt += 1
            time.sleep(rng.uniform(0.0, 0.1))
            if running[chosen].poll() is not None:
                running[chosen] = start(script, run_folder)
            assert done <= check_units(run_folder)
            later = (run_folder / "diary").read_text().splitlines()[len(begun) :] if begun else []
            again = done & {line.split()[1] for line in later if line.startswith("start")}
            assert not again, f"run again after they were published: {again}"
        for run in running:
            run.wait(60)
        finish_and_compare(run_folder, folder / f"whole{sweeps}")
        sweeps += 1


def finish_and_compare(folder: Path, whole: Path) -> None:
    """The final table and records, byte for byte those of a sweep that nobody disturbed."""
    for target in (folder, whole):
        run_units(works(target), target, LocalExecutor(2, preload=FAKES), policy=QUICK, progress=False)
    assert store.export(folder).read_bytes() == store.export(whole).read_bytes()
    assert table(rows(works(folder), folder)) == table(rows(works(whole), whole))
    assert len(store.read_records(folder)) == 6
    assert not list((folder / store.UNITS).glob("*.corrupt"))
    assert not list((folder / claims.CLAIMS).glob("fake-*.[0-9]"))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_few_kills(tmp_path: Path, workers: int) -> None:
    kill_sweeps(tmp_path / "k", kills=3, workers=workers, seed=workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_two_hundred_kills(tmp_path: Path, workers: int) -> None:
    kill_sweeps(tmp_path / "k", kills=100, workers=workers, seed=100 + workers)
