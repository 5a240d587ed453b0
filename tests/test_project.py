"""The project's own promises: generated blocks, pins, what must not be committed, the environment script, make."""

import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vgrad_lab.checkpoints.report import write_report
from vgrad_lab.ledger import LEDGER

ROOT = Path(__file__).parents[1]


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json*")), ids=lambda p: p.name)
def test_results_are_strict_json(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
        json.loads(part, parse_constant=lambda name: pytest.fail(f"{path.name} holds {name}"))


def tracked() -> list[Path]:
    """Files that git tracks; all files outside a checkout."""
    out = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    names = out.stdout.split() if out.returncode == 0 else []
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def leaves(value: Any, name: str = "") -> dict[str, float]:
    """Every number of nested JSON by its path (text and null count as NaN)."""
    if isinstance(value, dict):
        return {k: x for key, item in value.items() for k, x in leaves(item, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: x for i, item in enumerate(value) for k, x in leaves(item, f"{name}/{i}").items()}
    return {name: float(value) if isinstance(value, int | float) else float("nan")}


def test_readme_blocks_are_in_step() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tool("docs").readme(text) == text, "README's generated blocks are stale; run `make docs`"
    assert "<!-- results:begin" in text
    assert "Spearman" in text


def test_readme_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[")


def test_readme_links_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = {t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith("http")}
    missing = [t for t in sorted(targets) if t and not (ROOT / t).exists()]
    assert not missing


def test_committed_records_give_the_committed_summary(tmp_path: Path) -> None:
    """The numbers in docs are those of the records beside them, not of some other run."""
    records = ROOT / "docs" / "results" / "embedded.records.jsonl"
    run = tmp_path / "embedded"
    run.mkdir()
    (run / "records.jsonl").write_bytes(records.read_bytes())
    write_report(run)
    committed = json.loads((ROOT / "docs" / "results" / "embedded.json").read_text(encoding="utf-8"))["summary"]
    again = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert leaves(again["studies"]) == pytest.approx(leaves(committed["studies"]), rel=1e-9, nan_ok=True)


def test_the_forecasts_note_quotes_the_results() -> None:
    result = json.loads((ROOT / "docs" / "results" / "embedded.json").read_text(encoding="utf-8"))
    for study in result["summary"]["studies"]:
        forecast = next(row for row in study["predictors"] if row["predictor"] == "forecast")
        others = result["other_seeds"]
        squares = [forecast["r_squared"], *(o["forecast_r_squared"][study["optimizer"]] for o in others)]
        ranks = [forecast["spearman"], *(o["spearman"][study["optimizer"]]["forecast"] for o in others)]
        for values in (squares, ranks):
            assert f"{min(values):.2f} to {max(values):.2f}" in LEDGER["S26.forecast"].note


def test_nothing_private_is_tracked() -> None:
    private = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|home|farm)/[A-Za-z]|/site-packages/[a-z]")
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".ipynb", ".svg", ".cff", ""}:
            found = private.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{path.name} holds a path of somebody's machine: {found and found[0]}"
        assert path.stat().st_size < 2**20, f"{path.name} is larger than 1 MiB"


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[\[<>=!~ ]", d)[0].lower().replace("_", "-") for group in groups for d in group}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {p.split("==")[0].lower().replace("_", "-") for p in pins}
    assert wanted - pinned - {"vgrad-lab"} == set()


def test_versions_agree() -> None:
    from vgrad_lab import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_environment_script_keeps_a_larger_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tool("make_venv")
    monkeypatch.setattr(script, "VENV", tmp_path)
    assert not script.is_current("checkpoints")
    script.python_of(tmp_path).parent.mkdir(parents=True)
    script.python_of(tmp_path).touch()
    (tmp_path / "vgrad_lab.installed").write_text(script.stamp("test"))
    assert script.is_current("test")
    assert script.is_current("checkpoints"), "the test extra holds all of checkpoints"
    assert not script.is_current("dev")
    (tmp_path / "vgrad_lab.installed").write_text("test of other versions")
    assert not script.is_current("test")


def test_environment_script_keeps_the_users_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tool("make_venv")
    monkeypatch.setattr(script, "VENV", tmp_path)
    assert "torch==" in script.constraints(keep_torch=False).read_text()
    assert "torch==" not in script.constraints(keep_torch=True).read_text()


def test_make_lists_its_targets() -> None:
    out = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    for target in ("reproduce", "test", "test-all", "docs", "results", "bench"):
        assert f"make {target}" in out
