"""benchmarks/gpu.py at toy size on a CPU, what it does when parts fail, hang or are killed, and the page made of it."""

import copy
import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from vgrad_lab.checkpoints import operations as op
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.store import read_records
from vgrad_lab.checkpoints.sweep import make_units
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.experiments.gpu_page import page
from vgrad_lab.tolerances import ALGEBRA

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
HIDE = """
from importlib.machinery import PathFinder
real = PathFinder.find_spec
hidden = ("gymnasium", "beartype", "hypothesis")
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name.split(".")[0] in hidden else real(name, *rest))
"""
"""A bare machine: packages that benchmarks/gpu.py must do without are not found."""
Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy run left its results and its checkpoints, from a bare checkout without PYTHONPATH to it."""
    made = tmp_path_factory.mktemp("gpu")
    (made / "sitecustomize.py").write_text(HIDE)
    command = [
        sys.executable,
        str(SCRIPT),
        "--tiny",
        "--device",
        "cpu",
        "--out",
        str(made / "out"),
        "--work",
        str(made),
    ]
    environment = {**os.environ, "PYTHONPATH": str(made), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results:" in done.stdout
    return made


@pytest.fixture(scope="module")
def result(folder: Path) -> Json:
    """The results file."""
    text = (folder / "out" / "gpu-cpu-tiny.json").read_text(encoding="utf-8")
    return dict(json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")))


@pytest.fixture
def shown(result: Json) -> Json:
    """A copy that may be changed, and shown as if a card had made it."""
    return {**copy.deepcopy(result), "tiny": False, "card": "NVIDIA Test 1"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of a part."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


# --- the toy run


def test_every_part_is_done(result: Json) -> None:
    assert result["schema"] == 1
    assert result["stand_ins"] == ["gymnasium"]
    assert list(result["parts"]) == ["a", "b", "c", "d", "rates"]
    for name, row in result["parts"].items():
        assert (row["status"], row["error"]) == ("done", None), name
        assert row["seconds"] < 60 * row["limit_minutes"]
        assert row["result"]
    assert {"python", "torch", "transformers", "numpy"} <= set(result["versions"])


def test_no_stage_failed(result: Json) -> None:
    def errors(value: Any) -> Iterator[str]:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "error" and isinstance(item, str):
                yield item
            elif isinstance(item, dict | list):
                yield from errors(item)

    assert list(errors(result)) == []
    assert result["parts"]["b"]["result"]["failed"] == []


def test_rungs_are_counted_against_their_floors(result: Json) -> None:
    part = result["parts"]["a"]["result"]
    rates = result["parts"]["rates"]["result"]
    assert len(part["rungs"]) == part["settings"]["rungs"] == 2
    for rung in part["rungs"]:
        assert rung["shards"] > 1, "a sharded checkpoint"
        assert set(rung) == {"rung", "shards", "file_bytes", "read", "load", "measure", "forecast", "grpo",
                             "grpo bfloat16"}  # fmt: skip
        for stage in ("measure", "forecast", "grpo", "grpo bfloat16"):
            row = rung[stage]
            floor = max(row["flops"] / rates["matrix_bfloat16"], row["bytes"] / rates["copy"])
            assert row["floor_seconds"] == pytest.approx(floor, rel=ALGEBRA)
            assert row["gap"] == pytest.approx(row["seconds"] / floor, rel=ALGEBRA)
            best = max(row["share_of_matrix_rate"], row["share_of_copy_bandwidth"])
            assert best == pytest.approx(1 / row["gap"], rel=ALGEBRA), "the floor is the larger share"
            assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"], rel=ALGEBRA)
        assert 0.1 < rung["measure"]["reward"] < 0.9, "labels are likely, so that updates are real"
        assert rung["grpo"]["reward"] != rung["measure"]["reward"]
    speeds = part["forward_backward"]
    assert {r["precision"] for r in speeds} == {"float32", "bfloat16", "bfloat16 weights", "the same, compiled"}
    assert [r["compile_seconds"] >= 0 for r in speeds if "compile_seconds" in r] == [True]
    assert all(row["share_of_matrix_rate"] > 0 for row in speeds)


def test_the_ladder_is_predicted_trained_and_scored(result: Json) -> None:
    part = result["parts"]["b"]["result"]
    assert [row["step"] for row in part["checkpoints"]] == [5, 20, 40]
    assert part["pretraining"]["tokens"] == 40 * 8 * 48
    assert part["pretraining"]["parameters"] == 86304
    study = part["studies"][0]
    assert study["left"] == []
    assert len(study["records"]) == len(study["rungs"]) == 3
    assert study["learning_rate"] in [t["learning_rate"] for t in study["tried"]]
    names = [row["predictor"] for row in study["predictors"]]
    assert len(set(names)) == len(names)
    for wanted in ("R_before", "P_gap conditional × within", "‖∇J‖₁(1 − R)", "forecast", "mean-field forecast",
                   "probe of 10 updates"):  # fmt: skip
        assert wanted in names
    assert all(len(r["result"]["reward_after"]) == 2 for r in study["records"]), "two RL seeds"


def test_one_load_for_a_rung_gives_the_records_of_a_sweep(
    folder: Path, result: Json, part: Callable[[str], ModuleType]
) -> None:
    module = part("gpu_ladder")
    study = result["parts"]["b"]["result"]["studies"][0]
    protocol = replace(module.TINY.protocols[0][0], learning_rate=study["learning_rate"])
    rung = list_rungs(folder / "ladder")[-1:]
    units = make_units(rung, LabelCopy(), measures=module.TINY.measures, rl=(protocol,), seeds=(1,))
    there = read_records(folder / "records")
    for unit in units:
        alone = unit.run(device="cpu")["result"]
        for key, value in alone.items():
            if key != "per_prompt":
                assert there[unit.id]["result"][key] == value, key


def test_a_ladder_stopped_in_time_says_what_is_left_and_goes_on(
    folder: Path, result: Json, part: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    module, setup = part("gpu_ladder"), part("gpu_setup")
    work = tmp_path / "work"
    shutil.copytree(folder / "ladder", work / "ladder")
    rates = result["parts"]["rates"]["result"]

    def job(seconds: float) -> Any:
        return setup.Job("cpu", True, work, time.monotonic() + seconds, rates, tmp_path / "part-b.json")

    with pytest.raises(TimeoutError, match=r"3 rungs are left \(step000005-measure.*call again"):
        module.run(job(0.0))
    for path in (folder / "records" / "units").iterdir():
        if "step000020-rl-s1" not in path.name:
            (work / "records" / "units").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, work / "records" / "units")
    (work / "rate-adamw.json").write_text((folder / "rate-adamw.json").read_text())
    with pytest.raises(TimeoutError, match=r"1 rungs are left \(adamw step000020, …\)"):
        module.run(job(0.0))
    half = json.loads((tmp_path / "part-b.json").read_text())["result"]
    assert half["studies"][0]["rungs"] == ["step000005", "step000040"]
    assert "predictors" not in half["studies"][0], "two rungs have no correlation"
    whole = module.run(job(60.0))
    assert whole["studies"][0]["left"] == []
    one, other = (setup.plain(r["studies"][0]["predictors"]) for r in (whole, result["parts"]["b"]["result"]))
    assert one == other, "as if it had not been stopped"


def test_credit_crosses_positions_below_the_last_layer(result: Json) -> None:
    for rung in result["parts"]["c"]["result"]["rungs"]:
        assert rung["crossing"][-1] == 0
        assert all(0 < share < 1 for share in rung["crossing"][:-1])
        flow = np.array(rung["flow"])
        assert flow.shape == (len(rung["crossing"]), len(rung["lags"]))
        assert (flow[-1, 1:] == 0).all()
        assert 0.1 < rung["root_mean_square_z"] < 10


def test_equal_runs_are_equal_on_a_cpu(result: Json) -> None:
    part = result["parts"]["d"]["result"]
    assert part["same run twice"]["reward_difference"] == 0
    assert part["same run twice"]["largest_weight_difference"] == 0
    assert set(part["measure on the CPU"].values()) == {0.0}
    assert 0 < part["bfloat16 run"]["weight_difference_over_way"] < part["other seed"]["weight_difference_over_way"]
    assert all(0 < x < 0.02 for x in part["bfloat16 measure"].values())


def test_a_second_call_keeps_what_is_done(folder: Path, result: Json, gpu: ModuleType) -> None:
    new = {**copy.deepcopy(result), "parts": {"rates": {"status": "done"}}}
    again = gpu.joined(new, result, again=False)
    assert again["parts"]["b"] == result["parts"]["b"]
    assert again["parts"]["rates"] == {"status": "done"}
    assert gpu.joined(new, result, again=True) == new
    for key, other in {"schema": 0, "tiny": False, "card": "x", "versions": {}}.items():
        assert gpu.joined(new, {**result, key: other}, again=False) == new, f"{key} differs"
    assert gpu.joined(new, {}, again=False) == new


def test_again_forgets_the_ladder_and_nothing_else(gpu: ModuleType, tmp_path: Path) -> None:
    names = ("ladder/step000005/x", "records/units/x", "pretraining.json", "rate-sgd.json", "notes.txt", "rungs/x")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    gpu.forget_ladder(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {"notes.txt", "rungs/x"}


# --- parts that fail, hang or die

FAKES = {
    "fine": "def run(job):\n    (job.work / 'fine.txt').open('a').write('x')\n    return {'card': 'Test Card', 'x': 1}",
    "wrong": "def run(job):\n    job.save({'half': 1})\n    raise MemoryError('CUDA out of memory')",
    "slow": "import time\ndef run(job):\n    job.save({'half': 2})\n    time.sleep(60)",
    "dead": "import os, signal\ndef run(job):\n    job.save({'half': 3})\n    os.kill(os.getpid(), signal.SIGKILL)",
    "nan": "def run(job):\n    (job.work / 'nan.txt').open('a').write('x')\n"
    "    return {'x': float('nan'), 'y': [float('inf'), 1]}",
}
DRIVER = """
import sys
from argparse import Namespace
from pathlib import Path
folder = Path(sys.argv[1])
sys.path[:0] = [str(folder), sys.argv[2]]
import gpu, gpu_setup, gpu_table
gpu_setup.prepare()
gpu.PARTS = {"rates": "fine", "a": "wrong", "b": "slow", "c": "dead", "d": "nan"}
gpu.MINUTES = {**dict.fromkeys(gpu.PARTS, 1.0), "b": float(sys.argv[3])}
gpu_table.lines = lambda part, result: []
places = {"out": folder / "out", "work": folder / "work"}
options = Namespace(again=False, tiny=True, minutes=None, device="cpu", start="fork", **places)
gpu.run(options, sys.argv[4].split(","), "cpu", ())
"""


@pytest.fixture
def driver(tmp_path: Path) -> list[str]:
    """Command of a run whose parts are the fakes; minutes of each and names of parts are to be added."""
    for name, text in FAKES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "driver.py").write_text(DRIVER)
    return [sys.executable, str(tmp_path / "driver.py"), str(tmp_path), str(ROOT / "benchmarks")]


def saved(folder: Path) -> Json:
    """Parts of the results file."""
    return dict(json.loads((folder / "out" / "gpu-test-card-tiny.json").read_text())["parts"])


def test_whatever_a_part_does_the_others_go_on(driver: list[str], tmp_path: Path) -> None:
    subprocess.run([*driver, "0.03", "a,b,c,d"], capture_output=True, check=True)
    parts = saved(tmp_path)
    assert {name: row["status"] for name, row in parts.items()} == {
        "rates": "done", "a": "failed", "b": "out of time", "c": "died", "d": "done",
    }  # fmt: skip
    assert parts["a"]["error"] == "MemoryError: CUDA out of memory"
    assert parts["b"]["error"] == "stopped after 2 s"
    assert parts["c"]["error"] == "the process ended with code -9 (killed: out of memory?)"
    assert [parts[name]["result"] for name in "abc"] == [{"half": n} for n in (1, 2, 3)], "what they had found is kept"
    assert parts["d"]["result"] == {"x": None, "y": [None, 1]}


def test_killed_between_parts_nothing_is_lost(driver: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen([*driver, "1", "d,b"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    half, deadline = tmp_path / "work" / "part-b.json", time.monotonic() + 30
    while not half.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert set(saved(tmp_path)) == {"rates", "d"}, "the part in flight is lost, nothing else"
    subprocess.run([*driver, "0.03", "d,a"], capture_output=True, check=True)
    assert set(saved(tmp_path)) == {"rates", "a", "d"}
    assert (tmp_path / "work" / "nan.txt").read_text() == "x", "what is done is not done again"
    assert (tmp_path / "work" / "fine.txt").read_text() == "xx", "rates are measured in every call"
    while (left := processes(f"{tmp_path}/driver.py")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, "no orphan"


def processes(name: str) -> list[str]:
    """Command lines of this machine's processes that hold a name (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    return [line for line in found if name in line]


def test_a_part_can_begin_in_a_fresh_process(tmp_path: Path) -> None:
    """As on a GPU: nothing is inherited, the stand-ins are made again."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    command = [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu", "--start", "spawn", "--part", "rates", *places]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "out" / "gpu-cpu-tiny.json").read_text(encoding="utf-8")
    assert json.loads(text)["parts"]["rates"]["status"] == "done"


# --- doors


def test_what_is_missing_is_named(part: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = part("gpu_setup")
    assert setup.problems() == []
    assert setup.problems({"no_such_package": "1", "numpy": "99.1"}) == [
        "no_such_package is missing (at least 1 is needed)",
        f"numpy is {np.__version__}, at least 99.1 is needed",
    ]
    assert setup.numbers("2.11.0+cu130") == (2, 11, 0)
    monkeypatch.setattr(setup, "REQUIRED", {"no_such_package": "1"})
    with pytest.raises(SystemExit, match=r"no_such_package is missing .*\n.*carry their wheels"):
        setup.prepare()


def test_wrong_use_is_explained(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, said in (
        (["--part", "a,z"], "no part 'z'; choose from rates,a,b,c,d"),
        (["--part", ","], "no part ','"),
        (["--minutes", "0"], "give a positive number"),
        (["--minutes", "nan"], "give a positive number"),
        (["--device", "warp"], "device is 'warp'; give auto, cpu, cuda, or one card such as cuda:1"),
    ):
        with pytest.raises(SystemExit):
            gpu.parse(arguments)
        assert said in capsys.readouterr().err
    assert gpu.parse(["--part", "d,a,a"])[1] == ["a", "d"]
    with pytest.raises(SystemExit, match="no GPU here: run with --tiny"):
        gpu.main(["--device", "cpu"])
    monkeypatch.setattr(gpu, "multiprocessing", Namespace(get_context=lambda _: Namespace(Pool=NoGpu)))
    assert gpu.choose_device("auto", tiny=True) == "cpu"
    with pytest.raises(SystemExit, match="no GPU here that torch can use, but --device cuda:1 was given"):
        gpu.choose_device("cuda:1", tiny=True)
    monkeypatch.setattr(NoGpu, "found", True)
    assert [gpu.choose_device(asked, tiny=False) for asked in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]


class NoGpu:
    """Stands for the process that looks for a GPU."""

    found = False

    def __init__(self, workers: int) -> None:
        assert workers == 1

    def __enter__(self) -> "NoGpu":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def apply(self, look: object) -> bool:
        return self.found


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, gpu: ModuleType) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit, match="file"):
        gpu.main(
            ["--tiny", "--device", "cpu", "--start", "spawn", "--out", str(tmp_path / "file"), "--work", str(tmp_path)]
        )
    assert (tmp_path / "file").read_text() == "mine"


def test_the_limits_fit_into_the_time_that_a_session_has(gpu: ModuleType) -> None:
    assert sum(gpu.MINUTES.values()) < 25
    assert set(gpu.MINUTES) == set(gpu.PARTS)


# --- sizes and choices


def test_full_sizes_are_those_of_the_page(part: Callable[[str], ModuleType]) -> None:
    rungs, ladder = part("gpu_rungs"), part("gpu_ladder")
    config = AutoConfig.for_model("olmo2", **rungs.OLMO2_1B, tie_word_embeddings=False)
    assert op.shape_of(config) == op.OLMO2_1B
    s = ladder.FULL.ladder
    shape = op.Shape(s.layers, s.hidden, s.intermediate, s.vocab, s.hidden, 4 * s.hidden)
    assert round(shape.parameters / 1e7) == 11
    from vgrad_lab.checkpoints.embedded.pretrain import checkpoint_steps

    assert 12 <= len(checkpoint_steps(s)) <= 20
    assert s.characters <= 40e6
    assert len(ladder.FULL.seeds) >= 2


@pytest.mark.parametrize(
    ("ends", "chosen"), [((0.4, 0.6, 0.9), 2e-5), ((0.9, 0.9, 0.9), 1e-5), ((0.1, 0.2, 0.3), 3e-5)]
)
def test_the_rate_is_chosen_by_the_forecast_alone(
    ends: tuple[float, ...], chosen: float, part: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, said = part("gpu_ladder"), iter(ends)
    monkeypatch.setattr(module, "forecast_result", lambda *_: {"reward": [0.3, next(said)]})
    bench = Namespace(checkpoint=lambda path, device: None)
    rung, protocol = Namespace(name="step1", path=Path()), module.TINY.protocols[0][0]
    found = module.choose_rate(Namespace(device="cpu"), bench, rung, module.TINY, protocol, (1e-5, 2e-5, 3e-5))
    assert found["learning_rate"] == chosen
    assert [t["forecast"] for t in found["tried"]] == list(ends)


def test_crossing_is_one_minus_the_own_share(part: Callable[[str], ModuleType]) -> None:
    credit = np.random.default_rng(0).random((2, 3, 2, 6))
    credit[1] = 0
    for i, k in enumerate((2, 5)):
        credit[1, :, i, k] = 1.0
    found = part("gpu_credit").crossing(credit, (2, 5))
    own = (credit[0, :, 0, 2] ** 2).sum() + (credit[0, :, 1, 5] ** 2).sum()
    assert found[0] == pytest.approx(1 - own / (credit[0] ** 2).sum(), rel=ALGEBRA)
    assert found[1] == 0
    assert part("gpu_credit").crossing(np.zeros_like(credit), (2, 5)) == [None, None]


# --- the page


def test_the_committed_page_is_made_of_the_committed_results() -> None:
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "docs/results").glob("gpu-*.json"))]
    assert (ROOT / "docs" / "olmo2.md").read_text(encoding="utf-8") == page(found), "docs/olmo2.md is stale: make docs"


def test_without_results_the_page_says_so_and_holds_no_number() -> None:
    text = page([])
    assert "No GPU numbers yet" in text
    assert "TFLOP/s" not in text
    assert "tokens/s" not in text


def test_the_page_shows_what_was_measured(shown: Json) -> None:
    rung = shown["parts"]["a"]["result"]["rungs"][0]
    shown["parts"]["a"]["result"]["rungs"] = [rung]
    rung["measure"]["seconds"] = 1.2345678
    shown["parts"]["d"]["result"]["bfloat16 run"]["reward_difference"] = 0.0078125
    text = page([shown])
    for expected in (
        "## NVIDIA Test 1", "[numbers](results/gpu-nvidia-test-1.json)", "| measure | 1.23 |", "| forecast | ",
        "| bfloat16 run | 0.0078 |", "aim: at most 15 s: met", "86,304 parameters",
    ):  # fmt: skip
        assert expected in text
    assert "None" not in text
    assert "nan" not in text.lower().replace("finance", "")
    assert "No GPU numbers yet" not in text
    rung["measure"]["seconds"] = 20.0
    assert "aim: at most 15 s: not met" in page([shown])
    assert page([shown, {**shown, "card": "Other"}]).count("### One rung of OLMo-2 1B") == 2


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "pays after 20 passes"), (1.5, "never pays")])
def test_the_page_says_whether_compiling_pays(seconds: float, words: str, shown: Json) -> None:
    rows = shown["parts"]["a"]["result"]["forward_backward"]
    plain = next(r for r in rows if r["precision"] == "bfloat16 weights" and r["length"] == rows[-1]["length"])
    plain["seconds"] = 1.0
    rows[-1] |= {"seconds": seconds, "compile_seconds": 10.0}
    assert f"Compiling takes 10 s and {words}." in page([shown])


def test_the_page_takes_results_of_any_state(shown: Json) -> None:
    failed = {"status": "failed", "error": "OutOfMemoryError: none left", "seconds": 1.0, "limit_minutes": 1.0}
    for name in shown["parts"]:
        for state in ({}, {"result": {}}):
            parts = {**shown["parts"], name: {**failed, **state}}
            assert "OutOfMemoryError: none left" in page([{**shown, "parts": parts}])
        assert page([{**shown, "parts": {k: v for k, v in shown["parts"].items() if k != name}}])
    half = copy.deepcopy(shown)
    a, b, c = (half["parts"][name]["result"] for name in "abc")
    a["rungs"][0] = {"rung": "x", "read": {"seconds": 1.0}, "load": {"error": "no room"}}
    a["forward_backward"][0] = {"precision": "float32", "prompts": 64, "length": 16, "error": "no room"}
    b["studies"] = [{"optimizer": "adamw"}, {"optimizer": "sgd", "learning_rate": 1.0, "chosen_at": "x", "tried": [],
                                             "left": ["y"], "failed": ["z: broke"]}]  # fmt: skip
    c["rungs"][0] = {"rung": "x", "error": "no room"}
    half["parts"]["d"]["result"]["same run twice"] = {"error": "no room"}
    text = page([half])
    assert text.count("no room") == 4
    assert "not reached in time: y" in text
    assert "failed: `z: broke`" in text


def test_a_toy_result_is_refused(result: Json) -> None:
    with pytest.raises(ValueError, match=r"result of --tiny was given"):
        page([result])


def test_table_lines_are_made_of_any_state(result: Json, part: Callable[[str], ModuleType]) -> None:
    module = part("gpu_table")
    for name, row in result["parts"].items():
        assert module.lines(name, row["result"])
        module.lines(name, {})
    assert math.isfinite(len(module.lines("a", {"rungs": [{"rung": "x", "load": {"error": "no room"}}]})))
