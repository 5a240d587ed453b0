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
from typing import Any

import pytest

from tests import tiny_models
from vgrad_lab.checkpoints import store, sweep
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import DIED, LocalExecutor
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.schedule import Policy, run_units
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


def run_sweep(todo: list[sweep.Unit], folder: Path, *, workers: int = 2) -> dict[str, int]:
    return run_units(todo, folder, LocalExecutor(workers), policy=Policy(pause=0.01, poll=0.05), progress=False)


def test_sweep_publishes_continues_and_repeats(ladder: Path, tmp_path: Path) -> None:
    todo = units(ladder)
    assert run_sweep(todo[:2], tmp_path / "a") == {"done": 2, "failed": 0, "kept": 0}
    assert run_sweep(todo, tmp_path / "a") == {"done": 4, "failed": 0, "kept": 2}
    assert run_sweep(todo, tmp_path / "a") == {"done": 0, "failed": 0, "kept": 6}
    run_sweep(todo, tmp_path / "b", workers=1)
    assert store.export(tmp_path / "a").read_bytes() == store.export(tmp_path / "b").read_bytes()


def test_one_broken_checkpoint_is_a_row_and_the_rest_goes_on(ladder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ladder"
    shutil.copytree(ladder, broken)
    (broken / "step000002" / "model.safetensors").write_bytes(b"\xff" * 64)
    todo = sweep.make_units(list_rungs(broken), LabelCopy(), measures=MEASURES)
    assert run_sweep(todo, tmp_path / "run") == {"done": 2, "failed": 1, "kept": 0}
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
from tests.checkpoints.test_sweep import run_sweep, units
if __name__ == "__main__":
    print(run_sweep(units(Path(sys.argv[1])), Path(sys.argv[2])))
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
    counts = run_sweep(units(ladder), tmp_path / "run")
    assert kept >= 1
    assert counts == {"done": 6 - kept, "failed": 0, "kept": kept}
    run_sweep(units(ladder), tmp_path / "whole")
    assert store.export(tmp_path / "run").read_bytes() == store.export(tmp_path / "whole").read_bytes()


def test_a_worker_that_dies_fails_only_its_unit(ladder: Path, tmp_path: Path) -> None:
    """A checkpoint whose config asks for a memory no machine has: the kernel or torch ends that worker or unit."""
    copy = tmp_path / "ladder"
    shutil.copytree(ladder, copy)
    config = json.loads((copy / "step000002" / "config.json").read_text())
    config["vocab_size"] = 10**14
    (copy / "step000002" / "config.json").write_text(json.dumps(config))
    todo = sweep.make_units(list_rungs(copy), LabelCopy(), measures=MEASURES)
    assert run_sweep(todo, tmp_path / "run")["failed"] == 1


@dataclasses.dataclass(frozen=True)
class Dies(sweep.Unit):
    """A unit whose native code crashes."""

    def run(self, *, halvings: int = 0, device: str = "cpu") -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_dead_process_is_recorded(ladder: Path, tmp_path: Path) -> None:
    todo = units(ladder)[:3]
    todo[1] = Dies(*(getattr(todo[1], field.name) for field in dataclasses.fields(sweep.Unit)))
    assert run_sweep(todo, tmp_path) == {"done": 2, "failed": 1, "kept": 0}
    failed = store.read_records(tmp_path)[todo[1].id]
    assert failed["error"] == DIED
    assert failed["checkpoint"]["step"] == todo[1].rung.step


def test_a_record_holds_what_the_post_load_check_saw(ladder: Path) -> None:
    unit = units(ladder)[0]
    record = unit.run()
    assert record["checkpoint"]["facts"] == load_checkpoint(unit.rung.path).facts
    assert record["checkpoint"]["facts"]["class"] == "Olmo2ForCausalLM"
    assert record["device"] == "cpu"
    assert "facts" not in unit.failed("why")["checkpoint"]


def test_a_gpu_is_recorded_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"GPU of {device}")
    assert [sweep.device_name(d) for d in ("cpu", "cuda", "cuda:1")] == [
        "cpu",
        "cuda (GPU of cuda)",
        "cuda:1 (GPU of cuda:1)",
    ]
