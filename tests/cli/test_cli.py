"""The command line as a user meets it: examples, exit codes, JSON, one clear line for each mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import load_file, save_file

from tests import tiny_models
from vgrad_lab.experiments import verify_command, verify_ledger
from vgrad_lab.ledger import LEDGER, Evidence, Statement, Status

COMMANDS = tuple(
    name.split()
    for name in (
        "reproduce", "verify", "estimators", "ladder pretrain", "measure", "rl", "report", "credit", "doctor",
        "forecast",
        "ladder list",
        "ladder audit",
        "ladder plan",
    )
)  # fmt: skip


def vgrad(*arguments: object, timeout: float = 300, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    code = "from vgrad_lab.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("c") / "step000007")


def assert_one_clear_line(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds the words and no traceback."""
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("vgrad: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(command: list[str]) -> None:
    run = vgrad(*command, "--help")
    assert run.returncode == 0
    assert f"vgrad {' '.join(command)}" in run.stdout.split("Example", 1)[1]


def test_version_and_no_arguments() -> None:
    assert vgrad("--version").stdout.startswith("vgrad_lab ")
    assert "Usage" in vgrad().stdout + vgrad().stderr


def test_measure_one_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    text = vgrad("measure", checkpoint, "--prompts", 16)
    assert text.returncode == 0, text.stderr
    assert "R_before" in text.stdout
    assert "α = 1" in text.stdout
    run = vgrad("measure", checkpoint, "--prompts", 16, "--json", "--out", tmp_path / "run")
    record = json.loads(run.stdout)[0]
    assert record["status"] == "done"
    assert record["checkpoint"]["step"] == 7
    assert json.loads((tmp_path / "run" / "records.jsonl").read_text()) == record


def test_rl_one_checkpoint(checkpoint: Path) -> None:
    run = vgrad("rl", checkpoint, "--budget", 1, "--budget", 2, "--seed", 3, "--json")
    record = json.loads(run.stdout)[0]
    assert record["seed"] == 3
    assert record["result"]["budgets"] == [1, 2]
    text = vgrad("rl", checkpoint, "--budget", 1, "--optimizer", "sgd")
    assert "R before" in text.stdout


def test_measure_a_ladder_with_a_broken_rung(checkpoint: Path, tmp_path: Path) -> None:
    for i in (1, 2):
        tiny_models.save(tmp_path / f"step{i:06d}", seed=i)
    (tmp_path / "step000002" / "model.safetensors").write_bytes(b"\x00" * 16)
    run = vgrad("measure", tmp_path, "--prompts", 8)
    assert run.returncode == 1
    assert "step000001" in run.stdout
    assert "step000002 seed 0 FAILED" in run.stdout
    assert "Traceback" not in run.stderr


def test_missing_path() -> None:
    assert_one_clear_line(vgrad("measure", "/nowhere/at/all"), "/nowhere/at/all", "does not exist")
    assert_one_clear_line(vgrad("report", "/nowhere/at/all"), "/nowhere/at/all")


def test_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    assert_one_clear_line(vgrad("measure", tmp_path), "config.json")
    assert_one_clear_line(vgrad("rl", tmp_path), "config.json")
    assert_one_clear_line(vgrad("report", tmp_path), "records.jsonl")


def test_label_of_several_tokens(checkpoint: Path, tmp_path: Path) -> None:
    """A tokenizer without merges: ' A' is two tokens."""
    bad = tmp_path / "c"
    shutil.copytree(checkpoint, bad)
    tokenizer = json.loads((bad / "tokenizer.json").read_text())
    keep = {token: i for token, i in tokenizer["model"]["vocab"].items() if len(token) == 1 or token.startswith("<|")}
    tokenizer["model"] |= {"merges": [], "vocab": keep}
    (bad / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert_one_clear_line(vgrad("measure", bad), "' A'", "exactly one", "choose")


def test_nan_weights(checkpoint: Path, tmp_path: Path) -> None:
    bad = tmp_path / "c"
    shutil.copytree(checkpoint, bad)
    weights = load_file(bad / "model.safetensors")
    name = next(iter(weights))
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    assert_one_clear_line(vgrad("measure", bad), name, "NaN")


def test_unwritable_output(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    assert_one_clear_line(vgrad("measure", checkpoint, "--prompts", 8, "--out", out), "cannot write", "choose")
    assert_one_clear_line(vgrad("reproduce", "--tiny", "--out", out), str(out), "choose")


def test_bad_options(checkpoint: Path) -> None:
    assert_one_clear_line(vgrad("rl", checkpoint, "--optimizer", "lion"), "lion", "adamw")
    assert_one_clear_line(vgrad("rl", checkpoint, "--budget", "5", "--budget", "2"), "budgets")
    assert_one_clear_line(vgrad("rl", checkpoint, "--lr", "-1"), "learning_rate")
    assert_one_clear_line(vgrad("measure", checkpoint, "--alpha", "0"), "alpha")
    assert_one_clear_line(vgrad("verify", "--only", "S99"), "S99", "S08")


def family(id: str) -> set[str]:
    """A statement and its corrections."""
    return {other for other in LEDGER if other == id or other.startswith(f"{id}.")}


def test_verify_all_prints_and_writes_every_statement(tmp_path: Path) -> None:
    out = tmp_path / "new" / "verify.json"
    run = vgrad("verify", "--all", "--examples", 2, "--seed", 3, "--out", out)
    assert run.returncode == 0, run.stderr[-2000:] + run.stdout[-2000:]
    written = json.loads(out.read_text(encoding="utf-8"))
    assert {row["id"] for row in written["rows"]} == set(LEDGER)
    assert written["statements"] == len(LEDGER)
    assert not [row for row in written["rows"] if row["outcome"] in ("FAILED", "not run")]
    assert written["command"] == "vgrad verify --all --seed 3 --examples 2"
    assert (written["seed"], written["examples"], written["complete"]) == (3, 2, True)
    assert {"python", "numpy", "vgrad_lab"} <= set(written["versions"])
    assert sum(written["counts"].values()) == len(written["rows"])
    assert all(f"\n{id}  " in run.stdout for id in LEDGER)
    assert f"written to {out}" in run.stdout
    assert [p.name for p in out.parent.iterdir()] == ["verify.json"], "nothing unfinished is left beside it"


def test_verify_only_and_where_it_writes(tmp_path: Path) -> None:
    text = vgrad("verify", "--only", "S17", "--examples", 2, folder=tmp_path).stdout
    assert "S17.sharp" in text
    assert "FAILS_AS_WRITTEN" in text
    assert "S10" not in text
    assert not list(tmp_path.iterdir()), "only --all and --out write"
    run = vgrad("verify", "--only", "lemma-1", "--only", "S24", "--examples", 2, "--json", folder=tmp_path)
    printed = json.loads(run.stdout)
    assert printed["command"] == "vgrad verify --only lemma-1 --only S24 --seed 0 --examples 2"
    assert {row["id"] for row in printed["rows"]} == family("S08") | family("S24")
    again = vgrad(*printed["command"].split()[1:], "--out", "v.json", folder=tmp_path)
    assert again.returncode == 0
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8")) == printed, "the command gives the same again"


def test_verify_bad_options(tmp_path: Path) -> None:
    assert_one_clear_line(vgrad("verify", "--all", "--only", "S08"), "--all", "--only", "choose")
    assert_one_clear_line(vgrad("verify", "--out", tmp_path), str(tmp_path), "file")
    (tmp_path / "file").write_text("")
    assert_one_clear_line(vgrad("verify", "--only", "S24", "--out", tmp_path / "file" / "v.json"), "cannot write")


@pytest.mark.parametrize(("name", "id"), [("lemma-1", "S08"), ("Proposition 2", "S17"), ("eq. 11", "S09")])
def test_statements_have_the_papers_names(name: str, id: str) -> None:
    assert len(family(id)) > 1
    assert family(id) <= {s.id for s in verify_ledger.select([name])}
    assert not {"S24", "S01"} & {s.id for s in verify_ledger.select([name])}


def broken_check(*, seed: int, examples: int) -> Evidence:
    """A check that does not pass."""
    return Evidence(1.0 + seed + examples, 1e-12, "planted")


def raising_check(*, seed: int, examples: int) -> Evidence:
    """A check with a bug."""
    raise ZeroDivisionError("planted\nbug")


def nan_check(*, seed: int, examples: int) -> Evidence:
    """A check whose residual is not a number."""
    return Evidence(float("nan"), 1e-12, "planted")


def lacking_check(*, seed: int, examples: int) -> Evidence:
    """A check that needs an extra which is not installed."""
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


def good_check(*, seed: int, examples: int) -> Evidence:
    """A check that passes."""
    return Evidence(0.0, 1e-12, "good")


def plant(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make a ledger of one statement per named check above."""
    ledger = {
        f"X{i}": Statement(f"X{i}", "nowhere", "claim", Status.OPEN, evidence=(name,)) for i, name in enumerate(names)
    }
    monkeypatch.setattr(verify_ledger, "LEDGER", ledger)
    monkeypatch.setattr(verify_ledger, "load", lambda name: globals()[name])


def test_verify_reports_a_failing_check(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "broken_check")
    rows = verify_ledger.run()
    assert rows[0]["outcome"] == "FAILED"
    assert verify_ledger.failed(rows)
    assert "1 FAILED" in verify_ledger.table(rows)


def test_a_check_that_raises_is_a_row_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, "raising_check", "nan_check", "lacking_check", "no_such_name", "good_check")
    with pytest.raises(typer.Exit) as stop:
        verify_command.verify(all_=True, out=tmp_path / "v.json", quiet=True)
    assert stop.value.exit_code == 1
    written = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [row["outcome"] for row in written["rows"]] == ["FAILED", "FAILED", "not run", "FAILED", "passed"]
    details = [row["detail"] for row in written["rows"]]
    assert details[0].startswith("raised ZeroDivisionError: planted bug (test_cli.py:")
    assert written["rows"][1]["residual"] is None
    assert "needs torch" in details[2]
    assert "KeyError" in details[3]
    assert "1 passed, 3 FAILED, 1 not run" in capsys.readouterr().out


def test_a_missing_module_of_our_own_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named 'vgrad_lab.gone'", name="vgrad_lab.gone")

    def gone(name: str) -> None:
        raise error

    plant(monkeypatch, "good_check")
    monkeypatch.setattr(verify_ledger, "load", gone)
    assert verify_ledger.run()[0]["outcome"] == "FAILED"


def test_an_interrupt_keeps_the_rows_so_far(tmp_path: Path) -> None:
    """Ctrl-C (a real signal) during the third check."""
    code = (
        "import os, signal\n"
        "from vgrad_lab.experiments import verify_ledger as v\n"
        "real = v.load\n"
        "v.load = lambda name: os.kill(os.getpid(), signal.SIGINT) if name.endswith('s08_jump') else real(name)\n"
        "from vgrad_lab.cli import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "verify", "--only", "S08", "--out", str(tmp_path / "v.json")],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    )
    assert run.returncode == 130
    assert run.stderr == f"vgrad: interrupted after 2 rows, kept in {tmp_path / 'v.json'}\n"
    written = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert not written["complete"]
    assert [row["outcome"] for row in written["rows"]] == ["passed", "refuted"]
    assert "1 statements" in run.stdout


def test_an_interrupt_is_one_line_and_the_run_continues(tmp_path: Path) -> None:
    code = "from vgrad_lab.cli import main; main()"
    command = [sys.executable, "-c", code, "reproduce", "--tiny", "--quiet", "--out", str(tmp_path / "run")]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "ladder").glob("step*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.strip().splitlines()[-1] == "vgrad: interrupted; run the same command again to continue"
    assert "Traceback" not in errors


def test_reproduce_tiny_and_again(tmp_path: Path) -> None:
    """The whole path in well under a minute; a second call repeats nothing; another run gives the same bytes."""
    run = vgrad("reproduce", "--tiny", "--out", tmp_path / "a", "--json")
    assert run.returncode == 0, run.stderr[-3000:]
    first = json.loads(run.stdout)
    assert first["failed"] == 0
    assert first["done"] == 3 * first["checkpoints"]
    report = Path(first["report"]).read_text(encoding="utf-8")
    assert "<html" in report
    assert "http://" not in report.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ), "the page is self-contained"
    again = json.loads(vgrad("reproduce", "--tiny", "--out", tmp_path / "a", "--json").stdout)
    assert (again["done"], again["kept"]) == (0, first["done"])
    vgrad("reproduce", "--tiny", "--out", tmp_path / "b", "--json")
    assert (tmp_path / "a" / "records.jsonl").read_bytes() == (tmp_path / "b" / "records.jsonl").read_bytes()
    assert_one_clear_line(vgrad("reproduce", "--tiny", "--seed", 1, "--out", tmp_path / "a"), "settings")


def test_a_ladder_of_another_family(tmp_path: Path) -> None:
    assert_one_clear_line(vgrad("ladder", "pretrain", tmp_path / "x", "--family", "lama"), "'lama'", "gpt_neox")
    run = vgrad("ladder", "pretrain", tmp_path / "l", "--tiny", "--family", "llama", "--threads", 1, "-q")
    assert "4 checkpoints" in run.stdout, run.stderr
    assert json.loads((tmp_path / "l" / "step000010" / "config.json").read_text())["model_type"] == "llama"
