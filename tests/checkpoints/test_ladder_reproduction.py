"""The paper's experiment on a ladder of checkpoints: continued after a kill, bad rungs in rows of their own, a hub."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny_models
from tests.loopback_hub import Repository, folder_files, serve
from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.audit import Audit, audit
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.known_ladders import find_spec
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import quiet
from vgrad_lab.checkpoints.resolve import resolve
from vgrad_lab.checkpoints.schedule import Policy
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.experiments import ladder_reproduction as real

CPU = real.Place("cpu")
QUICK = Policy(retries=0, pause=0.01, poll=0.05)


def protocol(**changes: Any) -> real.Protocol:
    return real.make_protocol(LabelCopy(), tiny=True, **changes)


def audited(folder: Path, *allow: str) -> Audit:
    return audit(resolve(find_spec(str(folder))), allow=allow)


def run(folder: Path, result: Audit, given: real.Protocol | None = None, **rest: Any) -> dict[str, Any]:
    options = {"cache": folder / "cache", "progress": False, "policy": QUICK, **rest}
    return real.run(folder, result, given or protocol(), CPU, **options)


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "write_report", lambda folder: folder / "report.html")


@pytest.fixture
def ladder(tiny_ladder: Path, tmp_path: Path) -> Path:
    """The last three rungs, to be spoilt."""
    for rung in list_rungs(tiny_ladder)[1:]:
        shutil.copytree(rung.path, tmp_path / "ladder" / rung.name)
    return tmp_path / "ladder"


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Published records by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / store.UNITS).glob("*.json"))}


@pytest.fixture(scope="module")
def whole(tiny_ladder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Records of the last three rungs, from a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real, "write_report", lambda folder: folder / "report.html")
        for rung in list_rungs(tiny_ladder)[1:]:
            shutil.copytree(rung.path, folder / "ladder" / rung.name)
        assert run(folder / "run", audited(folder / "ladder"))["done"] == 9
    return bytes_of(folder / "run")


def test_every_stage_of_every_rung_once(ladder: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Measure, RL and forecast per rung; a second call does nothing; a second seed adds only RL."""
    records = [json.loads(text) for text in whole.values()]
    stages = [(r["checkpoint"]["step"], r["stage"]) for r in records]
    assert sorted(stages) == [(step, stage) for step in (20, 30, 40) for stage in ("forecast", "measure", "rl")]
    assert {r["device"] for r in records} == {"cpu"}
    assert all(r["checkpoint"]["facts"]["class"] == "Olmo2ForCausalLM" for r in records)
    shutil.copytree(tmp_path / "ladder", tmp_path / "again")
    first = run(tmp_path / "run", audited(ladder))
    assert (first["done"], first["failed"], first["checkpoints"], first["errors"]) == (9, 0, 3, {})
    assert bytes_of(tmp_path / "run") == whole
    assert (run(tmp_path / "run", audited(ladder))["kept"]) == 9
    more = run(tmp_path / "run", audited(ladder), protocol(seeds=(0, 1)))
    assert (more["done"], more["kept"]) == (3, 9)
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["verdict"] == "clean"


SCRIPT = """
import sys
from pathlib import Path
from vgrad_lab.experiments import ladder_reproduction as real
from tests.checkpoints.test_ladder_reproduction import CPU, QUICK, audited, protocol
if __name__ == "__main__":
    real.write_report = lambda folder: folder / "report.html"
    folder = Path(sys.argv[1])
    real.run(folder, audited(Path(sys.argv[2])), protocol(), CPU, cache=folder / "cache", progress=False, policy=QUICK)
"""


@pytest.mark.parametrize("kills", [(4,), pytest.param((0, 1, 2, 3, 3, 4, 5, 6, 7, 8), marks=pytest.mark.slow)], ids=len)
def test_a_killed_run_continues_and_ends_alike(
    kills: tuple[int, ...], ladder: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """SIGKILL after so many records: at most the unit in flight is lost each time, the records are the same bytes."""
    script, folder, rng = tmp_path / "script.py", tmp_path / "run", random.Random(0)
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(ladder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for wanted in kills:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        deadline = time.monotonic() + 120
        while len(bytes_of(folder)) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        before = bytes_of(folder)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert wanted <= len(before) <= 9
        assert before.items() <= whole.items()
    kept = run(folder, audited(ladder))
    assert (kept["failed"], kept["done"] + kept["kept"]) == (0, 9)
    assert kept["kept"] >= len(before)
    assert bytes_of(folder) == whole


def spoil(rung: Path, how: str) -> None:
    """Damage that an audit of hashes cannot see."""
    file = rung / "model.safetensors"
    if how == "short":
        file.write_bytes(file.read_bytes()[:-1000])
    elif how == "header":
        file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    elif how == "tokenizer":
        (rung / "tokenizer.json").write_text("{")
    elif how == "key":
        tensors = load_file(file)
        tensors.pop("model.norm.weight")
        save_file(tensors, file, metadata={"format": "pt"})
    else:
        tensors = load_file(file)
        tensors["lm_head.weight"][0, 0] = float(how)
        save_file(tensors, file, metadata={"format": "pt"})


REASONS = {
    "short": "is damaged", "header": "is damaged", "tokenizer": "tokenizer in", "key": "missing keys model.norm.weight",
    "nan": "tensor lm_head.weight in .* holds NaN or infinity",
}  # fmt: skip


@pytest.mark.parametrize("how", REASONS)
def test_a_bad_rung_ends_in_rows_and_the_rest_goes_on(
    how: str, ladder: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Three failed rows that say why, six records as ever; mended, the next call does what is left."""
    bad = ladder / "step000030"
    shutil.copytree(bad, tmp_path / "good")
    spoil(bad, how)
    result = run(tmp_path / "run", audited(ladder))
    assert (result["done"], result["failed"]) == (6, 3)
    for unit, error in result["errors"].items():
        assert unit.startswith("step000030")
        assert re.search(REASONS[how], error), error
    done = {name: text for name, text in bytes_of(tmp_path / "run").items() if b'"status":"done"' in text}
    assert len(done) == 6
    assert done.items() <= whole.items()
    if how == "short":
        shutil.rmtree(bad)
        shutil.copytree(tmp_path / "good", bad)
        assert run(tmp_path / "run", audited(ladder))["done"] == 3
        assert whole.items() <= bytes_of(tmp_path / "run").items()


def test_a_missing_shard_is_refused_until_allowed_and_then_left_out(tmp_path: Path) -> None:
    for seed in range(2):
        with quiet():
            model = tiny_models.model("Olmo2", seed=seed)
            model.save_pretrained(tmp_path / f"l/step{seed}", max_shard_size="20KB")
            tiny_models.tokenizer().save_pretrained(tmp_path / f"l/step{seed}")
    sorted((tmp_path / "l/step1").glob("*.safetensors"))[0].unlink()
    with pytest.raises(UserError, match="the audit refuses .* missing shard"):
        run(tmp_path / "run", audited(tmp_path / "l"))
    result = run(tmp_path / "run", audited(tmp_path / "l", "missing shard"))
    assert (result["done"], result["checkpoints"]) == (3, 1)


def test_a_hub_ladder_is_fetched_worked_on_and_evicted(tiny_ladder: Path, tmp_path: Path) -> None:
    """From a loopback hub, with the hashes of its metadata; nothing stays in the cache, a second call is idle."""
    rungs = list_rungs(tiny_ladder)[2:]
    branches = {"main": folder_files(list_rungs(tiny_ladder)[0].path)}
    branches |= {f"stage1-step{r.step}-tokens1B": folder_files(r.path) for r in rungs}
    spec = tmp_path / "own.yaml"
    spec.write_text("repository: owner/model\npattern: 'stage1-step(?P<step>\\d+)-tokens(?P<tokens>\\d+)B'\n")
    with serve(Repository("owner/model", branches)) as hub:
        result = audit(resolve(find_spec(str(spec)), endpoint=hub.endpoint))
        counts = run(tmp_path / "run", result)
        assert (counts["done"], counts["failed"]) == (6, 0), counts["errors"]
        assert not list((tmp_path / "run" / "cache").rglob("*.safetensors"))
        assert run(tmp_path / "run", result)["kept"] == 6
    local = {rung.name: rung for rung in rungs}
    assert {r["checkpoint"]["name"] for r in store.read_records(tmp_path / "run").values()} == set(local)


def test_choices_of_a_protocol() -> None:
    """Rates by size, recorded; both optimisers; memory's options; no forecast when not wanted."""
    small, large = (real.make_protocol(LabelCopy(), parameters=n) for n in (10**6, 10**9))
    assert [p.rl[0].learning_rate for p in (small, large)] == [1e-4, real.LARGE_RATE]
    assert real.make_protocol(LabelCopy(), rate=3e-6, parameters=10**9).rl[0].learning_rate == 3e-6
    both = real.make_protocol(LabelCopy(), optimizers=("adamw", "sgd", "sgd"), parameters=10**9, precision="bfloat16")
    assert [(s.optimizer, s.learning_rate, s.precision) for s in both.rl] == [
        ("adamw", real.LARGE_RATE, "bfloat16"),
        ("sgd", 1e-2, "bfloat16"),
    ]
    assert both.measures.precision == "bfloat16"
    assert both.rl[0].budgets == (10, 20, 25, 30)
    spare = real.make_protocol(LabelCopy(), recompute=True, states="host", forecast=False)
    assert (spare.rl[0].recompute, spare.rl[0].states, spare.forecast) == (True, "host", None)
    with pytest.raises(UserError, match="one learning rate, 0.01, was given for adamw and sgd"):
        real.make_protocol(LabelCopy(), optimizers=("adamw", "sgd"), rate=0.01)
    with pytest.raises(UserError, match="'lion'; choose one of adamw, sgd"):
        real.make_protocol(LabelCopy(), optimizers=("lion",))


def test_where_the_work_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert real.choose_place("auto", workers=3) == real.Place("cpu", workers=3)
    assert real.choose_place("cpu").threads == 1
    for wrong, words in ((("cuda", None), "torch sees 0"), (("auto", 2), "on the CPU"), (("gpu", None), "'gpu'")):
        with pytest.raises(UserError, match=words):
            real.choose_place(wrong[0], gpus=wrong[1])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert real.choose_place("auto").gpus == ("0", "1", "2", "3")
    assert real.choose_place("cuda", gpus=2).gpus == ("0", "1")
    assert real.choose_place("cpu") == real.Place("cpu")
    with pytest.raises(UserError, match="5 GPUs were asked for, but torch sees 4"):
        real.choose_place("cuda", gpus=5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7,1,2")
    assert real.choose_place("cuda", gpus=2).gpus == ("6", "7")


def test_a_card_that_is_too_small_is_refused_before_anything_runs(ladder: Path, tmp_path: Path) -> None:
    result = audited(ladder)
    assert real.parameters_of(result) == sum(
        x.numel() for x in load_file(ladder / "step000020/model.safetensors").values()
    )
    real.require_card(result, protocol(), 10**9)
    with pytest.raises(UserError, match=r"adamw needs about .* but the device has 10.0 kB"):
        real.require_card(result, protocol(), 10_000)
