"""The study of the readings and its page: scores against plain functions, planted ladders, records, verdicts."""

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests import tiny_models
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import content_identity
from vgrad_lab.checkpoints.reading_options import LITERAL, Reading, ReadingSettings, every
from vgrad_lab.checkpoints.report.scores import r_squared
from vgrad_lab.experiments import readings_scores as scores
from vgrad_lab.experiments import readings_study as study
from vgrad_lab.experiments.readings_figure import draw
from vgrad_lab.experiments.reproduce_page import page, row_of
from vgrad_lab.experiments.reproduce_words import compared, judged
from vgrad_lab.ledger import LEDGER
from vgrad_lab.stats import spearman, z_score

ROOT = Path(__file__).parents[1]
SETTINGS = ReadingSettings(states=("head",), groups=(8,), alphas=(1.0, 5.0), sampled_groups=2, prompts=4)
HEAD = {
    "keys": {
        "signal": sorted({r.signal_key for r in every(SETTINGS)}),
        "gap": sorted({r.gap_key for r in every(SETTINGS)}),
        "error": [],
        "headroom": sorted({r.headroom_key for r in every(SETTINGS)}),
        "reward": ["full", "labels"],
    },
    "seed": 0, "device": "cpu", "versions": {"python": "3", "torch": "2"}, **SETTINGS.__dict__,
}  # fmt: skip


def records(seed: int = 0, ladders: int = 3, rungs: int = 8, *, gain: Any = None) -> list[dict[str, Any]]:
    """Records of random parts; the gain is that of ``gain(parts by key)``, or random."""
    rng = np.random.default_rng(seed)
    found = []
    for ladder in range(ladders):
        for step in range(rungs):
            parts = {name: {k: float(rng.uniform(0.1, 1)) for k in keys} for name, keys in HEAD["keys"].items()}
            for key in parts["gap"]:
                if key.endswith(" none"):
                    parts["gap"][key] = parts["signal"][key.removesuffix(" none")]
            before = float(rng.uniform(0.1, 0.5))
            change = float(rng.uniform(0, 0.3)) if gain is None else gain(parts)
            after = [before + change * k for k in (0.5, 1.0, 1.5)]
            rl = {"budgets": [1, 2, 3], "before": before, "after": after, "seeds": 2, "spread": None}
            success = rng.uniform(0.05, 0.95, 5)
            entropy = -success * np.log(success) - (1 - success) * np.log1p(-success)
            prompts = {"success": success.tolist(), "entropy": entropy.tolist(),
                       "covariance_norm": (2 * success * (1 - success)).tolist(), "vocabulary": 2}  # fmt: skip
            lists = {name: list(values.values()) for name, values in parts.items()}
            found.append({"ladder": f"seed{ladder}", "rung": f"step{step:06d}", "step": step, "sha256": f"{step}",
                          "rl": {"adamw": rl, "sgd": rl}, "prompts": prompts, **lists})  # fmt: skip
    return found


def parts_of(reading: Reading, parts: dict[str, dict[str, float]]) -> float:
    return (parts["signal"][reading.signal_key] - parts["gap"][reading.gap_key]) * parts["headroom"][
        reading.headroom_key
    ]


# --- scores


def test_columns_are_scored_as_single_predictors_are() -> None:
    rng = np.random.default_rng(0)
    x, y = np.round(rng.standard_normal((9, 30)), 1), np.round(rng.standard_normal(9), 1)
    x[:, 3] = 2.0
    found = scores.rank_correlations(x, y)
    expected = np.array([spearman(column, y) for column in x.T])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(found[3])
    np.testing.assert_allclose(scores.standardise(x), np.stack([z_score(c) for c in x.T], 1), atol=1e-12)
    assert not np.any(scores.standardise(x)[:, 3])


@pytest.mark.parametrize("seed", range(3))
def test_a_reading_that_is_the_gain_is_found(seed: int) -> None:
    """Planted: the gain is an affine map of one reading; that reading alone scores 1, 0 and 1."""
    true = Reading(gap="per_sample", headroom="pooled", alpha=5.0)
    found = records(seed, gain=lambda parts: 0.4 + 0.1 * parts_of(true, parts))
    t = scores.table(HEAD, found, "adamw")
    c = scores.correlations(t)
    i = t.readings.index(true)
    np.testing.assert_allclose(c["gain"][:, i], 1, atol=1e-12)
    np.testing.assert_allclose(c["affine"][:, i], 1, atol=1e-9)
    np.testing.assert_allclose(c["regret"][:, i], 0, atol=1e-12)
    others = np.delete(np.arange(len(t.readings)), i)
    assert np.nanmax(c["gain"][:, others].mean(0)) < 1 - 1e-3
    summary = scores.spread(t, c)
    assert summary["best"]["label"] == true.label
    off = scores.table(HEAD, records(seed + 50), "adamw")
    assert scores.correlations(off)["gain"][:, i].mean() < 0.9, "the test can fail"


def test_scores_against_plain_functions() -> None:
    found = records(4)
    t = scores.table(HEAD, found, "sgd")
    c = scores.correlations(t)
    for i in (0, 7, 40):
        r = t.readings[i]
        for ladder, rows in enumerate(t.ladders):
            mine = [found[row] for row in rows]
            parts = [{n: dict(zip(HEAD["keys"][n], x[n], strict=True)) for n in HEAD["keys"]} for x in mine]
            p = np.array([parts_of(r, x) for x in parts])
            np.testing.assert_allclose(t.score[rows, i], p, rtol=1e-12)
            before = np.array([x["rl"]["sgd"]["before"] for x in mine])
            after = np.array([np.mean(x["rl"]["sgd"]["after"]) for x in mine])
            gain = after - before
            if np.ptp(p) == 0:
                assert np.isnan(c["gain"][ladder, i])
                continue
            fit = np.polyval(np.polyfit(p, gain, 1), p)
            expected = {"gain": spearman(p, gain), "after": spearman(p, after), "affine": r_squared(fit, gain),
                        "combined": spearman(z_score(before) + z_score(p), after),
                        "regret": gain.max() - gain[p.argmax()]}  # fmt: skip
            for name, value in expected.items():
                assert c[name][ladder, i] == pytest.approx(value, abs=1e-9), name


def test_a_reward_that_the_group_shares_ranks_nothing() -> None:
    summary = scores.summarise(HEAD, records())["optimizers"]["adamw"]
    for row in summary["named"]:
        shared = row["options"]["reward"] != "sampled" and row["options"]["advantage"] != "detached"
        assert (row["gain"]["value"] is None) == shared
    assert summary["all"]["undefined"] > 0


def test_choices_explain_what_they_decide() -> None:
    readings = every(SETTINGS)
    value = {"conditional": 0.8, "per_sample": -0.7, "group_mean": -0.1}
    by_gap = scores.choices(readings, np.array([value[r.gap] for r in readings]))
    assert by_gap["gap"]["share"] == pytest.approx(1)
    assert by_gap["gap"]["options"] == pytest.approx(value)
    assert all(by_gap[name]["share"] == pytest.approx(0) for name in scores.FACTORS if name != "gap")
    both = scores.choices(readings, np.array([value[r.gap] * (1 if r.alpha == 1 else -1) for r in readings]))
    assert sum(both[name]["share"] for name in scores.FACTORS) < 0.1, "an interaction belongs to no choice alone"
    assert scores.choices(readings, np.ones(len(readings)))["gap"]["share"] is None


def test_fits_of_the_reward_after() -> None:
    t = scores.table(HEAD, records(1, gain=lambda parts: 0.2 + 0.05 * parts_of(Reading(), parts)), "adamw")
    fits = scores.after_fits(t, t.readings.index(Reading()))
    np.testing.assert_allclose(fits["paper"], 1, atol=1e-9)
    assert max(fits["shift"]) < 1 - 1e-4
    flat = scores.after_fits(scores.table(HEAD, records(1, gain=lambda parts: 0.2), "adamw"), 0)
    np.testing.assert_allclose(flat["shift"], 1, atol=1e-9)
    np.testing.assert_allclose(flat["line"], 1, atol=1e-9)


def test_entropy_bound_of_coins() -> None:
    found = records(2)
    b = scores.entropy_bound(found)
    assert (b["above_paper"], b["above_sharp"]) == (0, 0)
    assert b["points"] == 3 * 8 * 5
    assert 0 < b["smallest_constant"] <= 0.600561 * np.sqrt(np.log(2)) + 1e-6
    assert b["slack"] >= 1
    found[0]["prompts"]["covariance_norm"][0] = 0.6
    assert scores.entropy_bound(found)["above_sharp"] == 1, "a point above the bound is counted"


def test_experiment_of_growing_gains() -> None:
    x = scores.summarise(HEAD, records(3))["optimizers"]["adamw"]["experiment"]
    assert x["agreement"]["value"] == pytest.approx(1), "gains at all budgets are multiples of each other"
    values = [e["value"] for e in x["gain_at"]]
    np.testing.assert_allclose(values, np.array([0.5, 1.0, 1.5]) * values[1])
    assert all(0 < e["value"] <= 1 for e in x["headroom_ends"].values())


# --- the study


def ladder_with_records(folder: Path) -> Path:
    """Three tiny checkpoints, their measures' prompts and one RL protocol, as `vgrad reproduce` leaves them."""
    rows = []
    for step in (100, 200, 300):
        path = tiny_models.save(folder / "ladder" / f"step{step:06d}", seed=step)
        checkpoint = {"name": path.name, "step": step, "sha256": content_identity(path), "training": {}}
        base = {"status": "done", "error": None, "checkpoint": checkpoint, "task": "label-copy", "seed": 0}
        prompts = {"success": [0.1, 0.2], "entropy": [1.0, 2.0], "covariance_norm": [0.2, 0.3]}
        measured = {"reward_before": 0.1, "per_prompt": prompts, "vocabulary": 320, "gradient_l2_squared": 1.0}
        rl = {"budgets": [1, 2], "optimizer": "adamw", "learning_rate": 1e-4, "gain_mean": step / 1e4,
              "reward_after": [0.1, 0.1 + step / 5e3], "reward_before": 0.1,
              "reward_restricted_after": [0.5, 0.5]}  # fmt: skip
        rows += [
            {**base, "unit": f"m{step}", "stage": "measure", "protocol": "m", "settings": {}, "result": measured},
            {**base, "unit": f"r{step}", "stage": "rl", "protocol": "r", "result": rl,
             "settings": {"optimizer": "adamw", "group_size": 8, "baseline": "standardised"}},
        ]  # fmt: skip
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def test_study_of_a_tiny_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ladder_with_records(tmp_path / "seed9")
    monkeypatch.setattr(study, "SETTINGS", SETTINGS)
    out = tmp_path / "readings.json"
    study.main([str(run), "--out", str(out), "--images", str(tmp_path)])
    first = out.read_bytes()
    head, *rows = [json.loads(x) for x in out.with_suffix(".records.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["rung"] for r in rows] == ["step000100", "step000200", "step000300"]
    assert all(len(r[name]) == len(head["keys"][name]) for r in rows for name in scores.PARTS)
    result = json.loads(first)
    assert result["ladders"] == ["seed9"]
    assert "runs/seed9" in result["command"]
    assert str(tmp_path) not in first.decode()
    assert (tmp_path / "readings.svg").is_file()
    assert not (tmp_path / "readings.png").exists()
    study.main(["--out", str(out), "--images", str(tmp_path)])
    assert out.read_bytes() == first, "scored again from the records: the same bytes"
    assert "one ladder" not in page(result)


def test_study_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records"):
        study.main(["--out", str(tmp_path / "none.json")])
    run = ladder_with_records(tmp_path / "seed9")
    text = (run / "records.jsonl").read_text(encoding="utf-8")
    (run / "records.jsonl").write_text(text.replace('"stage": "rl"', '"stage": "old"'), encoding="utf-8")
    with pytest.raises(UserError, match="no finished RL"):
        study.run([run], SETTINGS, progress=False)
    again = text.replace('"unit": "r', '"unit": "q').replace('"protocol": "r"', '"protocol": "q"')
    (run / "records.jsonl").write_text(text + again, encoding="utf-8")
    with pytest.raises(UserError, match="two protocols with adamw"):
        study.run([run], SETTINGS, progress=False)


def test_figure_bytes_depend_on_the_records_alone(tmp_path: Path) -> None:
    one, other = (draw(HEAD, records(5), tmp_path / name).read_bytes() for name in ("a", "b"))
    assert one == other


# --- the page


def interval(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "ladders": 4, "undefined": 0 if value is not None else 4}


@pytest.mark.parametrize(
    ("e", "words"),
    [
        (interval(0.7, 0.5, 0.9), "reproduced"),
        (interval(0.8, 0.7, 0.9), "reproduced, stronger"),
        (interval(0.3, 0.1, 0.5), "not reproduced: weaker"),
        (interval(0.1, -0.2, 0.4), "not reproduced: no correlation established"),
        (interval(-0.6, -0.8, -0.3), "not reproduced: reversed"),
        (interval(None), "undefined"),
        (interval(0.6), "reproduced"),
    ],
)
def test_verdicts(e: dict[str, Any], words: str) -> None:
    assert judged(e, 0.6) == words


def test_the_combined_predictor_is_compared_with_both() -> None:
    assert compared(interval(0.8), [interval(0.7), interval(0.1)]) == "reproduced"
    assert compared(interval(0.6), [interval(0.97), interval(0.1)]) == "not reproduced: R_before alone is better"
    assert compared(interval(0.6), [interval(0.1), interval(0.97)]) == "not reproduced: P_gap alone is better"
    assert compared(interval(0.6), [interval(0.1), interval(None)]) == "undefined"


def test_page_names_every_figure_number_and_choice() -> None:
    result = {"command": "c", **scores.summarise(HEAD, records(6))}
    text = page(result)
    for words in (
        "Figs. 1 and 4", "Fig. 2", "Fig. 3, left", "Fig. 3, right", "Fig. 5, left", "Fig. 5, right", "0.60", "0.73",
        "eq. 31", "50k to 1M", "K ∈ {10, 20, 25, 30}", "Limitations", "not testable here",
    ):  # fmt: skip
        assert words in text, words
    for option in ("sampled", "log_probability", "detached", "per_sample", "pooled", "labels", "first"):
        assert f"`{option}`" in text
    cells = [line.replace("\\|", "").count("|") if line.startswith("|") else 0 for line in text.splitlines()]
    assert all(a == b for a, b in pairwise(cells) if a and b), "rows of a table have the same number of cells"
    assert row_of(result, "adamw", LITERAL.label)["options"]["gap"] == "per_sample"
    assert "Not measured yet." in page(None)
    forecast = {"predictors": {"adamw": [
        {"predictor": "forecast", "kind": "forecast", "spearman": interval(0.99), "r_squared": interval(0.98),
         "regret": interval(0.0)},
        {"predictor": "P_gap per sample × between", "kind": "paper", "spearman": interval(-0.7, -0.8, -0.6),
         "r_squared": interval(None), "regret": interval(0.3)},
        {"predictor": "R_before", "kind": "trivial", "spearman": interval(0.1), "r_squared": interval(None),
         "regret": interval(0.1)}]}}  # fmt: skip
    assert "| adamw | forecast | +0.99 | 0.980 | 0.000 |" in page(result, forecast)
    held_out = next(x for x in page(result, forecast).splitlines() if "on 4 other ladders" in x)
    assert held_out.endswith("| adamw −0.70 [−0.80, −0.60] | adamw: not reproduced: reversed |")
    assert "other ladders" not in text
    assert "not committed yet" in text


def docs_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_page_is_the_generated_one() -> None:
    committed = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    assert docs_tool().reproduce_page() == committed, "docs/reproduce.md is stale; run `make docs`"
    targets = {part.split(")")[0].split("#")[0] for part in committed.split("](")[1:]}
    assert [t for t in sorted(targets) if not (ROOT / "docs" / t).exists()] == []
    assert set(study.STATEMENTS) <= set(LEDGER)


def test_committed_numbers_are_those_of_the_records() -> None:
    path = ROOT / "docs" / "results" / "readings.json"
    committed = json.loads(path.read_text(encoding="utf-8"))
    head, *rows = [json.loads(x) for x in path.with_suffix(".records.jsonl").read_text(encoding="utf-8").splitlines()]
    again = {"command": committed["command"], **scores.summarise(head, rows)}
    assert json.loads(json.dumps(again)) == committed


def test_committed_readings_are_those_of_the_committed_run() -> None:
    """Σ, Λ and H of ladder 0 agree with the records of `vgrad reproduce`, which another function measured."""
    path = ROOT / "docs" / "results" / "readings.records.jsonl"
    head, *rows = [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()]
    text = (ROOT / "docs" / "results" / "embedded.records.jsonl").read_text(encoding="utf-8")
    measured = {r["checkpoint"]["sha256"]: r["result"] for r in map(json.loads, text.splitlines())
                if r["stage"] == "measure"}  # fmt: skip
    mine = [r for r in rows if r["sha256"] in measured]
    assert len(mine) == 20
    for r in mine:
        theirs = measured[r["sha256"]]
        for part, key, name in (
            ("signal", Reading().signal_key, "signal"),
            ("gap", Reading().gap_key, "costate_gap_conditional"),
            ("gap", LITERAL.gap_key, "costate_gap_per_sample"),
            ("headroom", Reading().headroom_key, "headroom_within"),
            ("headroom", LITERAL.headroom_key, "headroom_between"),
            ("reward", "full", "reward_before"),
            ("reward", "labels", "reward_restricted"),
        ):
            assert r[part][head["keys"][part].index(key)] == pytest.approx(theirs[name], rel=1e-4), name
