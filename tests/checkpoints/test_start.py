"""Forecasts on disk: old hashes stay valid, units, the ranking, the page, the command line."""

import copy
import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer

from tests import tiny_models
from tests.checkpoints import synthetic_records as synthetic
from tests.checkpoints.test_report import read
from tests.helpers import unchecked
from vgrad_lab.checkpoints import grpo
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import WIDTH, plan_of
from vgrad_lab.checkpoints.report import start, write_report
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.store import canonical, digest
from vgrad_lab.checkpoints.sweep import PROTOCOL_VERSION, recorded
from vgrad_lab.experiments.forecast_command import OVERSHOOTS, describe, forecast

RECORDS = Path(__file__).parents[2] / "docs" / "results" / "embedded.records.jsonl"


def test_hashes_of_committed_records_stay_valid() -> None:
    committed = {r["protocol"] for r in map(json.loads, RECORDS.read_text().splitlines()) if r["stage"] == "rl"}
    settings = [grpo.default_settings(name) for name in ("adamw", "sgd")]
    assert committed == {digest(["rl", recorded(s), PROTOCOL_VERSION]) for s in settings}


@pytest.mark.parametrize("change", [{"schedule": "cosine"}, {"warmup": 1}, {"kl": 0.1}])
def test_a_later_setting_makes_another_protocol(change: dict[str, object]) -> None:
    plain = grpo.GrpoSettings()
    other = dataclasses.replace(plain, **change)
    assert recorded(other) == {**recorded(plain), **change}


def test_a_plan_names_its_band() -> None:
    plan = plan_of(grpo.GrpoSettings())
    assert recorded(plan)["forecast"]["width"] == WIDTH["adamw"]
    assert recorded(plan_of(grpo.GrpoSettings(), ForecastSettings(width=0.5)))["forecast"]["width"] == 0.5


def record(name: str, before: float, after: float, half: float, *, status: str = "done") -> dict[str, object]:
    updates = 4
    line = [before + (after - before) * k / updates for k in range(updates + 1)]
    result = {
        "optimizer": "adamw", "learning_rate": 1e-4, "budgets": [2, updates], "reward": line,
        "lower": [x - half * k for k, x in enumerate(line)], "upper": [x + half * k for k, x in enumerate(line)],
        "gain_mean": 0.75 * (after - before), "turns": [0], "noise_factor": [0.7], "overshoots": False,
        "prompts": {"forward": 100, "backward": 60, "rl_forward": 64, "rl_backward": 64},
    }  # fmt: skip
    failed = {"status": "failed", "error": "weights <lost> & gone", "result": None}
    return {
        "unit": f"{name}-forecast", "stage": "forecast", "status": "done", "error": None, "seed": 0, "protocol": "p",
        "checkpoint": {"name": name, "step": int(name[4:]), "sha256": name, "training": {}}, "task": "label-copy",
        "settings": {"optimizer": "adamw"}, "versions": {}, "device": "cpu", "result": result,
        **(failed if status == "failed" else {}),
    }  # fmt: skip


ROWS = [
    record("step000100", 0.1, 0.2, 0.01),
    record("step000200", 0.3, 0.7, 0.01),
    record("step000300", 0.5, 0.85, 0.02),
    record("step000400", 0.9, 0.95, 0.001),
    record("step000500", 0.9, 0.95, 0.001, status="failed"),
]


def test_ranking_by_gain_and_who_may_be_as_good() -> None:
    rows = start.ranked(copy.deepcopy(ROWS))
    assert [r.name for r in rows] == ["step000200", "step000300", "step000100", "step000400"]
    said = " ".join(start.advice(rows))
    assert "Largest gain: step000200, from 0.300 to 0.700." in said
    assert "as large at: step000300." in said
    assert "Highest reward after: step000400, 0.950 [0.946, 0.954]." in said
    assert start.advice(start.ranked([record("step000001", 0.5, 0.5, 0.0)])) == [
        "No checkpoint is forecast to gain by this protocol."
    ]


def test_printed_table() -> None:
    text = describe(copy.deepcopy(ROWS))
    assert text.index("step000200") < text.index("step000300") < text.index("step000100") < text.index("step000400")
    assert "step000500 FAILED: weights <lost> & gone" in text
    assert "100 prompts forward and 60 backward; the run takes 64 and 64" in text
    warned = copy.deepcopy(ROWS)
    warned[1]["result"]["overshoots"] = True
    assert f"{OVERSHOOTS}: {warned[1]['checkpoint']['name']}" in describe(warned)
    assert OVERSHOOTS not in text
    one = describe([copy.deepcopy(ROWS[1])])
    assert "0.6600 to 0.7400" in one
    assert "Largest gain" not in one


def write(folder: Path, records: list[dict[str, object]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "records.jsonl").write_text("".join(canonical(r) + "\n" for r in records))
    return folder


def test_page_of_forecasts(tmp_path: Path) -> None:
    page = read(start.write_start(write(tmp_path / "f", ROWS)))
    assert "weights <lost> & gone" in page.text
    assert "Largest gain: step000200" in page.text
    assert len(page.images) == 1
    assert page.images[0]["alt"]
    first = (tmp_path / "f" / "forecast.html").read_bytes()
    start.write_start(tmp_path / "f")
    assert first == (tmp_path / "f" / "forecast.html").read_bytes()
    alone = read(start.write_start(write(tmp_path / "g", [ROWS[-1]])))
    assert "weights <lost> & gone" in alone.text


def test_report_has_the_section_only_with_forecasts(tmp_path: Path) -> None:
    records = [*synthetic.records(steps=(100, 200, 300, 400)), *ROWS]
    page = read(write_report(write(tmp_path / "r", records), resamples=20))
    assert start.TITLE in page.text
    assert "4 done, 1 failed" in page.text
    without = read(write_report(write(tmp_path / "s", records[: -len(ROWS)]), resamples=20))
    assert start.TITLE not in without.text


@pytest.mark.parametrize("path", [".", "step000002"])
def test_command(tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A ladder whose last rung is broken, and its one good checkpoint; a second call repeats nothing."""
    tiny_models.save(tmp_path / "step000002")
    broken = tiny_models.save(tmp_path / "step000003", seed=1)
    (broken / "model.safetensors").write_bytes(b"nothing")
    out = tmp_path / "out"
    options = {"budget": [1, 3], "passes": 1, "prompts": 16, "lr": 1e-3, "quiet": True, "out": out}

    def call(**more: object) -> str:
        with pytest.raises(typer.Exit) if path == "." else nullcontext():
            unchecked(forecast)(tmp_path / path, **options, **more)
        return capsys.readouterr().out

    found = call()
    assert ("step000003 FAILED" in found) == (path == ".")
    assert f"page: {out / 'forecast.html'}" in found
    assert read(out / "forecast.html").images
    files = {p.name: p.read_bytes() for p in (out / "units").iterdir()}
    records = json.loads(call(json_=True))
    assert {r["status"] for r in records} == ({"done", "failed"} if path == "." else {"done"})
    assert len(records[0]["result"]["reward"]) == 4
    assert files == {p.name: p.read_bytes() for p in (out / "units").iterdir()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lion"}, "lion"),
        ({"baseline": "none"}, "standardised, group_mean"),
        ({"schedule": "step"}, "constant, linear, cosine"),
        ({"warmup": 30}, "warmup"),
        ({"passes": 0}, "passes"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        unchecked(forecast)(tmp_path, **options)


def test_a_forecast_takes_label_tasks_from_a_file_and_refuses_sampled_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_models.save(tmp_path / "step1")
    (tmp_path / "labels.yaml").write_text("labels: [B, C]\n")
    options = {"task": tmp_path / "labels.yaml", "budget": [1], "passes": 1, "prompts": 16, "quiet": True}
    forecast(tmp_path / "step1", **options)  # type: ignore[arg-type]
    assert "90 % band" in capsys.readouterr().out
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "one:", "answer": "1"}\n{"prompt": "two:", "answer": "2"}\n')
    (tmp_path / "sampled.yaml").write_text("kind: sampled\nprompts: prompts.jsonl\nheld_out: 0\n")
    with pytest.raises(UserError, match="exact chance of success"):
        forecast(tmp_path / "step1", **{**options, "task": tmp_path / "sampled.yaml"})  # type: ignore[arg-type]
