"""The sweep: continues, isolates failures and dead workers, repeats byte for byte."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import tiny_models
from vgrad_lab.checkpoints import store, sweep
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.tasks import LabelCopy

MEASURES = MeasureSettings(prompts=8, sampled_groups=4)
RL = GrpoSettings(prompts=2, budgets=(1, 2), evaluation_prompts=8)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    for i in (1, 2, 3):
        tiny_models.save(folder / f"step{i:06d}", seed=i)
    return folder


def units(ladder: Path) -> list[sweep.Unit]:
    return sweep.make_units(list_rungs(ladder), LabelCopy(), measures=MEASURES, rl=(RL,), seeds=(0,))


def test_sweep_publishes_continues_and_repeats(ladder: Path, tmp_path: Path) -> None:
    todo = units(ladder)
    assert sweep.run_sweep(todo[:2], tmp_path / "a", progress=False) == {"done": 2, "failed": 0, "kept": 0}
    assert sweep.run_sweep(todo, tmp_path / "a", progress=False) == {"done": 4, "failed": 0, "kept": 2}
    assert sweep.run_sweep(todo, tmp_path / "a", progress=False) == {"done": 0, "failed": 0, "kept": 6}
    sweep.run_sweep(todo, tmp_path / "b", workers=1, progress=False)
    assert store.export(tmp_path / "a").read_bytes() == store.export(tmp_path / "b").read_bytes()


def test_one_broken_checkpoint_is_a_row_and_the_rest_goes_on(ladder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ladder"
    shutil.copytree(ladder, broken)
    (broken / "step000002" / "model.safetensors").write_bytes(b"\xff" * 64)
    todo = sweep.make_units(list_rungs(broken), LabelCopy(), measures=MEASURES)
    assert sweep.run_sweep(todo, tmp_path / "run", progress=False) == {"done": 2, "failed": 1, "kept": 0}
    failed = [r for r in store.read_records(tmp_path / "run").values() if r["status"] == "failed"]
    assert "damaged" in failed[0]["error"]
    assert failed[0]["result"] is None


def test_a_duplicated_rung_is_refused(ladder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ladder"
    shutil.copytree(ladder, copy)
    shutil.copytree(copy / "step000001", copy / "step000009")
    with pytest.raises(UserError, match="step000009 has the same weights as step000001"):
        sweep.make_units(list_rungs(copy), LabelCopy(), measures=MEASURES)


def test_unit_ids_depend_on_what_the_result_depends_on(ladder: Path) -> None:
    unit = units(ladder)[1]
    assert unit.stage == "rl"
    changes = [{"seed": 5}, {"sha256": "0"}, {"task": LabelCopy(labels=("A", "B"))}]
    changes.append({"settings": dataclasses.replace(RL, learning_rate=1e-3)})
    ids = {unit.id, *(dataclasses.replace(unit, **change).id for change in changes)}
    assert len(ids) == 5


SCRIPT = """
import sys
from pathlib import Path
from tests.checkpoints.test_sweep import units
from vgrad_lab.checkpoints.sweep import run_sweep
if __name__ == "__main__":
    print(run_sweep(units(Path(sys.argv[1])), Path(sys.argv[2]), workers=2, progress=False))
"""


def test_kill_loses_nothing_published_and_leaves_no_orphan(ladder: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, str(script), str(ladder), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "units").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    group_gone = time.monotonic() + 20
    while time.monotonic() < group_gone:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("workers survive their parent")
    kept = len(store.read_records(tmp_path / "run"))
    counts = sweep.run_sweep(units(ladder), tmp_path / "run", progress=False)
    assert kept >= 1
    assert counts == {"done": 6 - kept, "failed": 0, "kept": kept}
    sweep.run_sweep(units(ladder), tmp_path / "whole", progress=False)
    assert store.export(tmp_path / "run").read_bytes() == store.export(tmp_path / "whole").read_bytes()


def test_a_worker_that_dies_fails_only_its_unit(ladder: Path, tmp_path: Path) -> None:
    """A checkpoint whose config asks for a memory no machine has: the kernel or torch ends that worker or unit."""
    copy = tmp_path / "ladder"
    shutil.copytree(ladder, copy)
    config = json.loads((copy / "step000002" / "config.json").read_text())
    config["vocab_size"] = 10**14
    (copy / "step000002" / "config.json").write_text(json.dumps(config))
    todo = sweep.make_units(list_rungs(copy), LabelCopy(), measures=MEASURES)
    assert sweep.run_sweep(todo, tmp_path / "run", progress=False)["failed"] == 1


def test_dead_process_is_recorded(ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = units(ladder)[:3]
    monkeypatch.setattr(sweep, "_run_and_publish", die_on_second)
    counts = sweep.run_sweep(todo, tmp_path, progress=False)
    assert counts["failed"] == 1
    failed = next(r for r in store.read_records(tmp_path).values() if r["status"] == "failed")
    assert "worker process died" in failed["error"]
    assert failed["checkpoint"]["step"] == todo[1].rung.step


def die_on_second(folder: Path, unit: sweep.Unit) -> str:
    """Stand-in for a unit whose native code crashes: the RL unit of the first rung ends its process."""
    if unit.stage == "rl" and unit.rung.step == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    store.publish(folder, {**sweep._record(unit), "status": "done"})
    return "done"
