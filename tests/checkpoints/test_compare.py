"""Several runs on one page: means over runs, who is joined with whom, forecasts of all, the command."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.checkpoints import synthetic_records as synthetic
from tests.checkpoints.test_report import read
from tests.checkpoints.test_start import ROWS
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.report import start, write_comparison
from vgrad_lab.checkpoints.report.collect import collect
from vgrad_lab.checkpoints.report.compare import compare_rows, mean_over_runs, run_names
from vgrad_lab.checkpoints.report.scores import study_rows
from vgrad_lab.experiments.report_command import report

STEPS = (100, 400, 700, 1000, 1300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [synthetic.write(folder / f"seed{i}", synthetic.records(i, steps=STEPS, seeds=(0,))) for i in range(3)]


def test_means_over_runs_are_those_of_the_runs(runs: list[Path], tmp_path: Path) -> None:
    path = write_comparison(runs, tmp_path / "out", resamples=10)
    (found,) = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert found["runs"] == ["seed0", "seed1", "seed2"]
    each = [{r.name: r for r in study_rows(collect(run).studies[0], resamples=10)} for run in runs]
    for row in found["predictors"]:
        own = [e[row["name"]] for e in each]
        gains = [r.gain.value for r in own]
        assert row["gain"]["value"] == pytest.approx(np.mean(gains)) if np.all(np.isfinite(gains)) else row["undefined"]
        if np.all(np.isfinite(gains)):
            assert (row["least"], row["largest"]) == (min(gains), max(gains))
            assert row["regret"] == pytest.approx(np.mean([r.regret for r in own]))
            assert row["gain"]["low"] <= row["gain"]["value"] <= row["gain"]["high"]
    values = [row["gain"]["value"] for row in found["predictors"] if row["gain"]["value"] is not None]
    assert values == sorted(values, reverse=True)
    page = read(path)
    for words in ("seed1", "3 runs", "Best predictor over 3 runs", "R_before", "What is missing"):
        assert words.replace("_", "") in page.text.replace("_", "")
    assert all(link[1:] in page.anchors for link in page.links)
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_an_undefined_run_is_not_averaged_away(runs: list[Path]) -> None:
    rows = [study_rows(collect(run).studies[0], resamples=5) for run in runs]
    lost = [r for r in rows[1] if r.name != "Σ"]
    from dataclasses import replace

    from vgrad_lab.stats import Interval

    sigma = next(r for r in rows[1] if r.name == "Σ")
    nan = replace(sigma, gain=Interval(float("nan"), float("nan"), float("nan"), 0.9))
    found = {c.name: c for c in compare_rows([rows[0], [*lost, nan], rows[2]])}
    assert found["Σ"].undefined == 1
    assert np.isnan(found["Σ"].gain.value)
    assert np.isfinite(found["R_before"].gain.value)
    assert np.isnan(mean_over_runs([]).value)
    assert mean_over_runs([0.5]).value == 0.5
    assert np.isnan(mean_over_runs([0.5]).low)


def test_protocols_are_not_mixed_and_forecasts_are_ranked_together(runs: list[Path], tmp_path: Path) -> None:
    other = synthetic.records(7, steps=STEPS[:3], seeds=(0,))
    for r in other:
        r["protocol"] = r["protocol"] + "-other" if r["stage"] == "rl" else r["protocol"]
    a = synthetic.write(tmp_path / "a", [*synthetic.records(1, steps=STEPS, seeds=(0,)), *copy.deepcopy(ROWS[:2])])
    b = synthetic.write(tmp_path / "b", [*other, *copy.deepcopy(ROWS[2:])])
    path = write_comparison([a, b], tmp_path / "out", resamples=5)
    found = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert [f["runs"] for f in found] == [["a"], ["b"]]
    text = read(path).text
    assert "Which checkpoint should I start from" in text
    assert "Largest gain: a/step000200" in text
    assert "b/step000500: weights <lost> & gone" in text


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    assert run_names([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]
    assert run_names([tmp_path / "p" / "run", tmp_path / "q" / "run"]) == ["p/run", "q/run"]
    with pytest.raises(UserError, match="given twice"):
        run_names([tmp_path / "x", tmp_path / "y" / ".." / "x"])


def test_command(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        "vgrad_lab.checkpoints.report.write_report", lambda run: seen.append(run) or run / "report.html"
    )
    monkeypatch.setattr(
        "vgrad_lab.checkpoints.report.write_comparison", lambda runs, out: seen.append((runs, out)) or out / "c.html"
    )
    app = typer.Typer()
    app.command()(report)
    one = CliRunner().invoke(app, [str(runs[0])])
    assert one.exit_code == 0, one.output
    assert seen == [runs[0]]
    several = CliRunner().invoke(app, [str(run) for run in runs])
    assert several.exit_code == 0, several.output
    assert seen[1:] == [*runs, (runs, runs[0].parent / "compared")]
    assert "report of seed1" in several.output
    wrong = CliRunner().invoke(app, [str(runs[0]), "--out", str(tmp_path / "o")]).exception
    assert isinstance(wrong, UserError)
    twice = CliRunner().invoke(app, [str(runs[0]), str(runs[0])]).exception
    assert isinstance(twice, UserError)


def test_refusals(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two"):
        write_comparison(runs[:1], tmp_path / "o")
    with pytest.raises(UserError, match=r"no records.jsonl"):
        write_comparison([runs[0], tmp_path / "none"], tmp_path / "o")


def test_forecasts_stand_beside_the_runs_of_the_same_protocol(tmp_path: Path) -> None:
    """A run counts where weights, task and settings are the forecast's, the forecast's own settings left out."""
    rows = copy.deepcopy(ROWS[:3])
    protocol = {"optimizer": "adamw", "learning_rate": 1e-4}
    for r in rows:
        r["settings"] = {**protocol, "forecast": {"passes": 3}}
    result = {"reward_after": [0.3, 0.612], "budgets": [2, 4], "optimizer": "adamw", "learning_rate": 1e-4}
    base = {**rows[1], "unit": "rl-1", "stage": "rl", "settings": protocol, "result": result}
    others = [
        {**base, "unit": "rl-2", "seed": 1, "result": {**result, "reward_after": [0.3, 0.624]}},
        {**base, "unit": "rl-3", "settings": {**protocol, "learning_rate": 1e-3}, "result": {"reward_after": [0.9]}},
        {**base, "unit": "rl-4", "status": "failed", "result": None},
        {**base, "unit": "rl-5", "task": "another", "result": {"reward_after": [0.9]}},
    ]
    ranked = start.ranked(rows)
    found = {row.name: start.realised(row, [*rows, base, *others]) for row in ranked}
    assert found["step000200"] == pytest.approx(0.618)
    assert np.isnan(found["step000100"])
    synthetic.write(tmp_path, [*rows, base, *others])
    text = read(start.write_start(tmp_path)).text
    assert "R after 4, run" in text
    assert "0.618" in text
    assert "not run" in text
    synthetic.write(tmp_path, rows)
    assert "not run" not in read(start.write_start(tmp_path)).text
