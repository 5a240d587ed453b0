"""The forecast's study: scores against their formulas, honest splits, undefined values, calibration, control, page."""

import copy
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from tests import tiny_models
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import WIDTH
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings, grpo_loss
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.report.predictors import PREDICTORS
from vgrad_lab.checkpoints.report.scores import partial_rank, r_squared
from vgrad_lab.checkpoints.store import lines
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.experiments import forecast_control, forecast_rivals, forecast_scores
from vgrad_lab.experiments.forecast_aims import aims
from vgrad_lab.experiments.forecast_figure import draw
from vgrad_lab.experiments.forecast_page import page
from vgrad_lab.experiments.forecast_records import CALIBRATION, MEASURES, bands, cells, compact, read, setting_of, split
from vgrad_lab.experiments.forecast_scores import across, errors, scores, summarise
from vgrad_lab.experiments.forecast_study import SETTINGS, Setting, run_unit
from vgrad_lab.impact import forecast as mean_field
from vgrad_lab.ledger import LEDGER
from vgrad_lab.ray import band, expit, logit
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

ROOT = Path(__file__).parents[1]
Json = dict[str, Any]


def record(ladder: str, step: int, *, setting: str = "adamw", noise: float = 0.02, seeds: int = 2) -> Json:
    """A made-up finished unit: a rung that gains most in the middle of pretraining, and a forecast that is near."""
    rng = np.random.default_rng([step, len(setting), *map(ord, ladder)])
    rl = next(s for s in SETTINGS if s.name == setting).rl
    before = float(rng.uniform(0.05, 0.8))
    rise = np.array(rl.budgets) / rl.budgets[-1] * float(rng.uniform(0.3, 2.5))
    runs = [expit(logit(np.array(before)) + rise + noise * rng.standard_normal(len(rise))) for _ in range(seeds)]
    curve = expit(logit(np.array(before)) + rise * (1 + noise * rng.standard_normal()))
    measured = {key: float(rng.uniform(0.1, 1)) for key in MEASURES} | {"reward_before": before}
    low, high = band(np.array([before, *curve]), width=WIDTH[rl.optimizer])
    result = {
        "measured": measured, "budgets": list(rl.budgets), "reward_before": before,
        "reward_after": [x.tolist() for x in runs], "forecast": curve.tolist(), "lower": low[1:].tolist(),
        "upper": high[1:].tolist(), "noise_factor": [float(rng.uniform(0.5, 0.9))], "turns": [0], "rehearsed": False,
        "cost": {"forward": 1, "backward": 1},
    }  # fmt: skip
    return {
        "unit": f"{ladder}-{step}-{setting}", "ladder": ladder, "stage": "forecast", "protocol": setting, "seed": 0,
        "checkpoint": {"step": step, "name": f"step{step}"}, "status": "done", "error": None, "result": result,
        "settings": {"rl": asdict(rl), "seeds": list(range(seeds))},
    }  # fmt: skip


def failed(ladder: str, step: int) -> Json:
    return {**record(ladder, step), "status": "failed", "error": "ValueError: planted", "result": None}


def study(*ladders: str, settings: tuple[str, ...] = ("adamw", "sgd"), rungs: int = 8) -> list[Json]:
    return [record(name, 100 * i, setting=s) for name in ladders for s in settings for i in range(1, rungs + 1)]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Scores


def test_scores_are_their_formulas() -> None:
    rows = [record("seed7", i, noise=0.5) for i in range(1, 11)]
    (c,) = cells(rows)
    found = scores(c)
    real = np.array([np.mean(r["result"]["reward_after"]) - r["result"]["reward_before"] for r in rows])
    said = np.array([np.mean(r["result"]["forecast"]) - r["result"]["reward_before"] for r in rows])
    assert found["spearman"] == pytest.approx(scipy_stats.spearmanr(said, real).statistic, rel=ALGEBRA)
    assert found["r_squared"] == pytest.approx(1 - np.sum((real - said) ** 2) / np.sum((real - real.mean()) ** 2))
    off = [np.abs(np.mean(r["result"]["reward_after"], 0) - r["result"]["forecast"]) for r in rows]
    assert found["error"] == pytest.approx(np.mean(off))
    assert found["regret"] == pytest.approx(real.max() - real[said.argmax()])
    inside = [
        (np.array(r["result"]["lower"]) <= run) & (run <= np.array(r["result"]["upper"]))
        for r in rows
        for run in np.array(r["result"]["reward_after"])
    ]
    assert found["coverage"] == pytest.approx(np.mean(inside))
    assert found["regret"] > 0
    assert np.any(c.after < c.lower[:, None])
    assert np.any(c.after > c.upper[:, None])
    order = cells(rows[::-1])[0]
    assert scores(order) == pytest.approx(found), "the order of the records does not matter"


def test_a_perfect_forecast_scores_so_and_a_planted_fault_shows() -> None:
    rows = study("seed7", settings=("sgd",))
    for r in rows:
        r["result"]["reward_after"] = [r["result"]["forecast"]] * 2
    best = scores(cells(rows)[0])
    assert best == pytest.approx({"r_squared": 1, "spearman": 1, "error": 0, "regret": 0, "coverage": 1}, abs=1e-15)
    rows[3]["result"]["forecast"] = [x * (1 + PLANTED_FAULT) for x in rows[3]["result"]["forecast"]]
    worse = scores(cells(rows)[0])
    assert worse["error"] > PLANTED_FAULT * 0.05 / len(rows)
    assert worse["r_squared"] < 1


def test_failed_rungs_are_counted_and_nothing_undefined_is_averaged() -> None:
    rows = study("seed7", "seed8", settings=("adamw",))
    broken = [failed("seed7", 900), *rows]
    summary = summarise(broken, command="c")
    row = summary["settings"][0]
    assert (row["rungs"], row["failed"]) == (16, 1)
    assert "planted" in summary["failed"][0]
    assert row["r_squared"] == summarise(rows, command="c")["settings"][0]["r_squared"]
    few = [*rows[:2], *rows[8:]]
    undefined = summarise(few, command="c")["settings"][0]["r_squared"]
    assert (undefined["value"], undefined["undefined"], undefined["ladders"]) == (None, 1, 2)
    poisoned = copy.deepcopy(rows)
    poisoned[0]["result"]["reward_after"][0][1] = float("nan")
    found = summarise(poisoned, command="c")
    assert found["settings"][0]["error"]["value"] is None
    assert {r["predictor"] for r in found["predictors"]["adamw"] if r["spearman"]["value"] is not None} == set()
    only = summarise([failed("seed7", i) for i in range(3)], command="c")
    assert only["settings"][0]["spearman"]["value"] is None
    assert only["noise_factor"] is None


def test_mean_over_ladders() -> None:
    e = across([0.9, 1.0, 0.95])
    assert e["value"] == pytest.approx(0.95)
    assert 0.9 <= e["low"] < e["value"] < e["high"] <= 1.0
    assert across([0.9])["low"] is None
    assert across([])["value"] is None
    assert across([0.9, float("inf")])["undefined"] == 1


def test_what_is_mixed_up_is_refused(tmp_path: Path) -> None:
    rows = study("seed7", settings=("adamw",))
    with pytest.raises(UserError, match="step300 occurs twice"):
        cells([*rows, {**rows[2], "unit": "another"}])
    with pytest.raises(UserError, match="differ in budgets or seeds"):
        cells([*rows, record("seed7", 900, seeds=3)])
    with pytest.raises(UserError, match=r"no records\.jsonl"):
        read([tmp_path])
    empty = tmp_path / "x.jsonl"
    empty.write_text("")
    with pytest.raises(UserError, match="forecast_study first"):
        read([empty])


def test_the_split_is_by_name_and_families_are_settings_of_their_own() -> None:
    assert [split(n) for n in (*CALIBRATION, "seed4", "seed10", "llama-seed1")] == ["calibration"] * 5 + [
        "held out"
    ] * 3
    for ladder, said in (("seed4", "adamw"), ("embedded", "adamw"), ("llama-seed1", "adamw, llama"), ("x", "adamw, x")):
        assert setting_of(record(ladder, 1)) == said
    summary = summarise(study("seed0", "seed4", "llama-seed4"), command="c")
    assert summary["ladders"] == {"calibration": ["seed0"], "held out": ["llama-seed4", "seed4"]}
    held = {r["setting"]: r["ladders"] for r in summary["settings"] if r["split"] == "held out"}
    assert held == {
        "adamw": ["seed4"],
        "sgd": ["seed4"],
        "adamw, llama": ["llama-seed4"],
        "sgd, llama": ["llama-seed4"],
    }
    assert all(r["spearman"]["ladders"] == 1 for r in summary["predictors"]["adamw"]), "calibration ladders stay out"


def test_where_it_fails_is_found() -> None:
    rows = study("seed7", settings=("adamw",))
    target = rows[5]["result"]
    target["forecast"] = (0.5 * np.mean(target["reward_after"], 0)).tolist()
    found = errors(cells(rows))
    assert found["worst"][0]["rung"] == rows[5]["checkpoint"]["name"]
    assert found["worst"][0]["error"] == pytest.approx(-0.5 * np.mean(target["reward_after"]))
    assert sum(b["rungs"] for b in found["bins"]) == len(rows)


# Predictors


def test_every_predictor_is_in_the_table() -> None:
    rows = study("seed7", "seed8")
    table = summarise(rows, command="c")["predictors"]["sgd"]
    names = [r["predictor"] for r in table]
    rivals = forecast_rivals
    assert names == [*PREDICTORS, rivals.MEAN_FIELD, rivals.RAY, rivals.PROBE, rivals.RUN]
    by = {r["predictor"]: r for r in table}
    for name in PREDICTORS:
        assert by[name]["spearman"]["value"] is not None
        assert by[name]["r_squared"]["value"] is None
    assert by["R_before"]["partial"]["value"] is None, "nothing is left of R_before given itself"
    ladder = [c for c in cells(rows) if c.setting == "sgd" and c.ladder == "seed8"]
    assert by["forecast"]["r_squared"]["value"] > 0.9
    values = [float(r["result"]["measured"]["signal"]) for r in ladder[0].records]
    alone = next(r for r in forecast_rivals.rivals(ladder, across) if r["predictor"] == "Σ")
    gain, before = ladder[0].gain, ladder[0].before
    assert alone["spearman"]["value"] == pytest.approx(scipy_stats.spearmanr(values, gain).statistic)
    assert alone["partial"]["value"] == pytest.approx(partial_rank(np.array(values), gain, before))
    assert alone["regret"]["value"] == pytest.approx(gain.max() - gain[np.argmax(values)])


@pytest.mark.parametrize("setting", ["adamw", "sgd"])
def test_the_mean_field_forecast_is_the_old_one(setting: str) -> None:
    r = record("seed7", 300, setting=setting)
    rl, measured = r["settings"]["rl"], r["result"]["measured"]
    norm = measured["gradient_l1" if setting == "adamw" else "gradient_l2_squared"]
    curve = mean_field(
        measured["reward_before"],
        norm,
        optimizer=setting,
        learning_rate=rl["learning_rate"],
        group_size=rl["group_size"],
        updates=rl["budgets"][-1],
    )
    said = forecast_rivals.mean_field_gain(measured, rl, rl["budgets"])
    assert said == pytest.approx(np.mean(curve[list(rl["budgets"])]) - curve[0], rel=ALGEBRA)


def test_the_probe_never_sees_its_own_seed() -> None:
    rows = study("seed7", settings=("adamw",))
    rng = np.random.default_rng(0)
    for r in rows:  # seed 0's run tells nothing of seed 1's
        other = expit(logit(np.array(r["result"]["reward_before"])) + rng.uniform(0.1, 3, 4))
        r["result"]["reward_after"][0] = other.tolist()
    (c,) = cells(rows)
    truth = [c.after[:, 1].mean(1) - c.before, c.after[:, 0].mean(1) - c.before]
    said = [c.after[:, s, 0] - c.before for s in (0, 1)]
    each = [scipy_stats.spearmanr(a, b).statistic for a, b in zip(said, truth, strict=True)]
    assert forecast_rivals.probe(c)["spearman"] == pytest.approx(np.mean(each))
    own = scipy_stats.spearmanr(said[0], c.after[:, 0].mean(1) - c.before).statistic
    assert own > np.mean(each) + 0.1, "the test would see a probe that is judged on itself"
    one = cells([record("seed7", i, seeds=1) for i in range(1, 6)])[0]
    assert np.isnan(forecast_rivals.probe(one)["spearman"])
    whole = forecast_rivals.probe(c, whole=True)
    pair = [r_squared(c.after[:, s].mean(1) - c.before, c.after[:, 1 - s].mean(1) - c.before) for s in (0, 1)]
    assert c.after.shape[1] == 2
    assert whole["r_squared"] == pytest.approx(np.mean(pair))
    assert np.isnan(forecast_rivals.probe(c)["r_squared"]), "ten updates name no mean gain"
    assert np.isnan(forecast_rivals.probe(cells(study("seed7", settings=("budget 60",)))[0])["regret"])


# Calibration


def test_calibration_covers_and_looks_at_calibration_ladders_only() -> None:
    calibrate = tool("calibrate")
    rows = study(*CALIBRATION[1:], rungs=10)
    found = calibrate.calibrate(cells(rows))
    assert found["ladders"]["adamw"] == list(CALIBRATION[1:])
    assert found["runs"]["adamw"] == 4 * 10 * 2
    for name, size in found["widths"].items():
        assert 0.9 <= found["coverage"][name] < 0.93
        chosen = [c for c in cells(rows) if c.setting == name]
        assert calibrate.coverage(chosen, size - 0.002) < found["coverage"][name] + 1e-12
        assert calibrate.coverage(chosen, 0.8 * size) < 0.9, "a narrower band would not do"
        rest = calibrate.width([c for c in chosen if c.ladder != "seed2"])
        left = [c for c in chosen if c.ladder == "seed2"]
        assert found["coverage_left_out"][name]["seed2"] == calibrate.coverage(left, rest)
        assert len(found["coverage_left_out"][name]) == 4
    wild = copy.deepcopy(study("seed9"))
    for r in wild:
        r["result"]["forecast"] = [0.5] * 4
    assert calibrate.calibrate(cells([*rows, *wild])) == found, "held-out ladders choose nothing"
    with pytest.raises(UserError, match="no records of a calibration ladder"):
        calibrate.calibrate(cells(wild))
    with pytest.raises(UserError, match="failed"):
        calibrate.calibrate(cells([*rows, failed("seed1", 5000)]))


def test_committed_width_is_the_calibrated_one() -> None:
    for path in (ROOT / "docs" / "results").glob("forecast-calibration.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["widths"] == WIDTH, "run tools/calibrate.py and put its widths into checkpoints/forecast.py"
        assert {ladder for names in result["ladders"].values() for ladder in names} <= set(CALIBRATION)


def test_bands_are_those_of_the_forecast() -> None:
    rng = np.random.default_rng(3)
    before, curves = rng.uniform(0.1, 0.9, 5), rng.uniform(0.1, 0.9, (5, 3))
    low, high = bands(before, curves, width=0.2)
    for i in range(5):
        a, b = band(np.array([before[i], *curves[i]]), width=0.2)
        np.testing.assert_allclose(low[i], a[1:], rtol=ALGEBRA)
        np.testing.assert_allclose(high[i], b[1:], rtol=ALGEBRA)


# The study itself, and the control


def test_a_real_unit_can_be_scored(tmp_path: Path) -> None:
    """Two rungs of a tiny ladder through run_unit: what it records is what the scores read; the band agrees."""
    for step in (1, 2):
        tiny_models.save(tmp_path / "seed7" / "ladder" / f"step{step}", seed=step)
    rl = GrpoSettings(prompts=4, group_size=4, budgets=(1, 2))
    rungs = list_rungs(tmp_path / "seed7" / "ladder")
    made = [run_unit("seed7", rung, Setting("adamw", rl), (0, 1)) for rung in rungs]
    assert [r["error"] for r in made] == [None, None]
    again = [run_unit("seed7", rung, Setting("adamw", rl), (0, 1), r) for rung, r in zip(rungs, made, strict=True)]
    assert again == made, "forecast anew, the runs kept"
    short = [compact(r) for r in made]
    json.dumps(short, allow_nan=False)
    for long, kept in zip(cells(made), cells(short), strict=True):
        np.testing.assert_allclose(kept.gain, long.gain, atol=1e-6)
        recorded = np.array([r["result"]["lower"] for r in made])
        np.testing.assert_allclose(long.lower, recorded, rtol=1e-5)
    measured = [r["result"]["measured"] for r in made]
    assert all(key in m and m[key] is not None for m in measured for key in MEASURES)
    assert len(forecast_rivals.rivals(cells(short), across)) == len(PREDICTORS) + 4


def test_compact_records_give_the_same_scores(tmp_path: Path) -> None:
    rows = [*study("seed7", "seed1", settings=("adamw", "sgd", "groups of 4")), failed("seed7", 900)]
    target = tmp_path / "raw"
    target.mkdir()
    (target / "records.jsonl").write_text(lines(rows))
    forecast_scores.main(
        [str(target), "--out", str(tmp_path / "out" / "forecast.json"), "--images", str(tmp_path / "images")]
    )
    done = json.loads((tmp_path / "out" / "forecast.json").read_text())
    again = summarise(read([tmp_path / "out" / "forecast.records.jsonl"]), command=done["command"])
    assert json.loads(json.dumps(again)) == done
    full = summarise(read([target]), command="c")
    for a, b in zip(full["settings"], done["settings"], strict=True):
        assert a["r_squared"]["value"] == pytest.approx(b["r_squared"]["value"], rel=1e-5)
    assert {p.name for p in (tmp_path / "images").iterdir()} == {
        "forecast_gain.svg",
        "forecast_settings.svg",
        "forecast_predictors.svg",
    }


def test_a_reward_that_ignores_the_answer_has_no_expected_update() -> None:
    logits = torch.tensor([[1.0, 0.0, -0.5], [0.2, 1.5, 0.0]], dtype=torch.float64)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rl = default_settings("adamw")
    blind, real = [], []
    for _ in range(800):
        for kept, loss in (
            (blind, lambda z: forecast_control.random_reward_loss(z, rl, rng, generator)),
            (real, lambda z: grpo_loss(z, torch.tensor([0, 1]), rl, generator)),
        ):
            z = logits.clone().requires_grad_()
            loss(z).backward()
            kept.append(z.grad.numpy().ravel().copy())
    assert_mean_close(np.array(blind), 0.0, detectable=0.1)
    with pytest.raises(AssertionError):
        assert_mean_close(np.array(real), 0.0, detectable=0.1)


def test_the_control_runs_on_a_ladder(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "seed7" / "ladder" / "step1")
    result = forecast_control.run([tmp_path / "seed7" / "ladder"], seeds=(0,))
    json.dumps(result, allow_nan=False)
    assert {r["ladder"] for r in result["rows"]} == {"seed7"}
    assert [len(r["curves"][0]) for r in result["rows"]] == [5, 5]
    assert result["summary"]["sgd"]["forecast"] == 0.0
    assert result["summary"]["sgd"]["error"] is None
    rung = list_rungs(tmp_path / "seed7" / "ladder")[0]
    checkpoint, rl = load_checkpoint(rung.path), default_settings("sgd")
    again = forecast_control.train_random(checkpoint, LabelCopy(), rl, seed=0).tolist()
    assert again == next(r["curves"][0] for r in result["rows"] if r["setting"] == "sgd")
    with pytest.raises(UserError):
        forecast_control.run([])


# Page


def test_aims_can_be_met_and_missed() -> None:
    names = tuple(s.name for s in SETTINGS)
    rows = study("seed7", "seed8", settings=names, rungs=4)
    for r in rows:
        r["result"]["reward_after"] = [r["result"]["forecast"]] * 2
    found = aims(summarise(rows, command="c"))
    missed = [a.aim for a in found if not a.met]
    assert missed == [f"{n}: 85 to 95 % in the 90 % band" for n in ("adamw", "sgd")], (
        "a perfect forecast covers too much"
    )
    for r in rows:
        if r["protocol"] not in ("adamw", "sgd"):
            r["result"]["forecast"] = [r["result"]["reward_before"]] * len(r["result"]["forecast"])
    worse = aims(summarise(rows, command="c"))[-1]
    assert worse.met is False
    assert worse.found == f"0 of {len(names) - 2}"


def test_a_page_can_be_written_from_anything(tmp_path: Path) -> None:
    full = study("seed7", "seed8", "seed1")
    for rows in ([], full[:1], [failed("seed7", 1)], [failed("seed7", 900), *full]):
        summary = summarise(rows, command="c") if rows else None
        text = page(summary)
        assert "nan" not in text.lower().replace("finance", "")
        assert "None" not in text
        assert ("planted" in text) == (len(rows) > 10)
    assert draw(summarise(full[:1], command="c"), cells(full[:1]), tmp_path)[0].is_file()


def test_control_and_cost_are_judged_by_their_numbers() -> None:
    passes = {"forward": 700, "backward": 600, "seconds": 1.0}
    cost: Json = {
        "command": "c", "parameters": 7, "evaluation_prompts": 256,
        "settings": {
            "adamw": {"updates": 30, "forecast": passes, "run": passes, "run_over_forecast_seconds": 12.0},
        },
    }  # fmt: skip
    control: Json = {
        "command": "c",
        "summary": {"adamw": {"rungs": 4, "forecast": 0.0, "gain": 0.01, "error": 0.004, "largest": 0.02}},
    }
    text = page(None, cost=cost, control=control)
    assert "not met" not in text
    assert "With adamw the noise moves" in text
    cost["settings"]["adamw"]["run_over_forecast_seconds"] = 9.9
    passes["forward"] = 769
    control["summary"]["adamw"]["error"] = 0.006
    text = page(None, cost=cost, control=control)
    assert text.count("not met") == 2
    assert "more than two standard errors from" in text


def test_committed_page_is_the_generated_one() -> None:
    committed = (ROOT / "docs" / "forecast.md").read_text(encoding="utf-8")
    assert tool("docs").forecast_page() == committed, "docs/forecast.md is stale; run `make docs`"
    targets = {part.split(")")[0].split("#")[0] for part in committed.split("](")[1:]}
    assert [t for t in sorted(targets) if not (ROOT / "docs" / t).exists()] == []
    assert set(forecast_scores.STATEMENTS) <= set(LEDGER)


def test_committed_numbers_are_those_of_the_records() -> None:
    for path in (ROOT / "docs" / "results").glob("forecast.json"):
        committed = json.loads(path.read_text(encoding="utf-8"))
        again = summarise(read([path.with_suffix(".records.jsonl")]), command=committed["command"])
        assert close(json.loads(json.dumps(again)), committed)


def close(a: Any, b: Any) -> bool:
    """Equal up to the last digits of floats."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == pytest.approx(b, rel=1e-9, abs=1e-12)) if isinstance(a, float) else a == b


def test_the_ledger_and_readme_say_what_was_measured() -> None:
    result = json.loads((ROOT / "docs" / "results" / "forecast.json").read_text(encoding="utf-8"))
    rows = {r["setting"]: r for r in result["settings"] if r["split"] == "held out"}
    assert [len(rows[n]["ladders"]) for n in ("adamw", "sgd")] == [8, 8]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for name, entry in (("adamw", "S26.ray"), ("sgd", "S26.rehearsal")):
        r = rows[name]["r_squared"]
        number = f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]"
        assert number in readme, f"{name}: R² is {number}"
        assert number in LEDGER[entry].note, f"{name}: R² is {number}"
    assert result["widths"] == WIDTH
    assert not result["failed"]
