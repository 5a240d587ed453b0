"""`vgrad reproduce --ladder` as a user meets it: one command, one clear line for each mistake."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests import tiny_models
from tests.cli.test_cli import assert_one_clear_line, vgrad
from tests.helpers import unchecked
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments import ladder_reproduction, reproduce_command


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rungs of random weights."""
    folder = tmp_path_factory.mktemp("l") / "ladder"
    for seed in (1, 2):
        tiny_models.save(folder / f"step{seed}00", seed=seed)
    return folder


def here(*options: object) -> Any:
    """The command in this process, to save the seconds that its libraries take to load."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(unchecked(reproduce_command.reproduce))
    return CliRunner().invoke(app, [str(option) for option in options])


def test_one_command_for_a_folder(ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of every stage, and its own words where something failed; a second call repeats nothing."""
    monkeypatch.setattr(ladder_reproduction, "write_report", lambda folder: folder / "report.html")
    options = ["--ladder", ladder, "--tiny", "--out", tmp_path / "run", "--optimizer", "sgd", "--lr", 0.05]
    run = here(*options, "--dtype", "bfloat16", "--json")
    assert run.exit_code == 0, run.output
    first = json.loads(run.stdout)
    assert (first["done"], first["failed"], first["checkpoints"]) == (6, 0, 2)
    assert first["report"] == str(tmp_path / "run" / "report.html")
    records = [json.loads(line) for line in Path(first["records"]).read_text(encoding="utf-8").splitlines()]
    assert all(r["settings"]["precision"] == "bfloat16" for r in records)
    assert {r["settings"]["learning_rate"] for r in records if r["stage"] != "measure"} == {0.05}
    assert all("signal" in r["result"]["precision_error"] for r in records if r["stage"] == "measure")
    shutil.copytree(ladder, tmp_path / "broken")
    (tmp_path / "broken" / "step200" / "tokenizer.json").write_text("{")
    options[1] = tmp_path / "broken"
    again = here(*options, "--dtype", "bfloat16", "-q")
    assert again.exit_code == 0, "the weights are those measured before: nothing is left to do"
    assert "6 kept from before" in again.stdout
    failing = here(*options, "--no-forecast", "--rung", 200)
    assert failing.exit_code == 1
    assert failing.stdout.count("FAILED step200-") == 2
    assert "tokenizer in" in failing.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rung", 5], ["without one", "--ladder"]),
        (["--dtype", "bfloat16"], ["without one", "--ladder"]),
        (["--ladder", "nowhere"], ["nowhere"]),
        (["--ladder", "L", "--rung", 7], ["7", "step100"]),
        (["--ladder", "L", "--dtype", "float16"], ["'float16'", "float32, bfloat16"]),
        (["--ladder", "L", "--device", "tpu"], ["'tpu'", "auto, cpu, cuda"]),
        (["--ladder", "L", "--device", "cuda"], ["torch sees 0"]),
        (["--ladder", "L", "--optimizer", "lion"], ["'lion'", "adamw, sgd"]),
        (["--ladder", "L", "--optimizer", "adamw", "--optimizer", "sgd", "--lr", 1], ["one by one"]),
        (["--ladder", "L", "--lr", 0], ["learning_rate is 0", "positive"]),
        (["--ladder", "L", "--states", "disk"], ["'disk'", "device or host"]),
        (["--ladder", "L", "--task", "nothing.yaml"], ["nothing.yaml"]),
        (["--ladder", "L", "--allow", "nonsense"], ["'nonsense'"]),
    ],
    ids=lambda x: " ".join(map(str, x)) if isinstance(x, list) else "",
)
def test_one_clear_line_for_a_mistake(
    options: list[object], words: list[str], ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = here(*[ladder if option == "L" else option for option in options], "--out", tmp_path / "run", "-q")
    assert isinstance(result.exception, UserError), result.output
    assert "\n" not in str(result.exception)
    for word in words:
        assert word in str(result.exception)
    assert not (tmp_path / "run" / "units").exists()


def test_a_mistake_ends_the_process_with_one_line() -> None:
    assert_one_clear_line(vgrad("reproduce", "--rung", 5), "without one", "--ladder olmo2-1b-paper")
