import math
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import synthetic_records as synthetic
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.report.collect import collect
from vgrad_lab.checkpoints.report.predictors import (
    FORECAST,
    HEADROOMS,
    P_GAP,
    P_GAP_LITERAL,
    PREDICTORS,
    READINGS,
    Predictor,
    forecast_curve,
    forecast_predictor,
    predict,
)
from vgrad_lab.checkpoints.report.scores import (
    evaluate,
    forecast_error,
    negative_share,
    partial_rank,
    r_squared,
    regret,
    study_rows,
)
from vgrad_lab.impact import forecast
from vgrad_lab.stats import spearman, z_score
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

RNG = np.random.default_rng(1)
RESULT = synthetic.measure(600, RNG) | {"step": 600.0}


def results(n: int) -> list[dict]:
    rng = np.random.default_rng(2)
    return [synthetic.measure(step, rng) | {"step": float(step)} for step in range(100, 100 * n + 1, 100)]


def test_formulas_against_the_record_by_hand() -> None:
    r = RESULT
    left = 1 - r["reward_before"]
    expected = {
        "R_before": r["reward_before"],
        "1 − R": left,
        "R(1 − R)": r["reward_before"] * left,
        "E[p(1 − p)]": r["success_variance"],
        "pass@k": r["pass_at_k"],
        "pass@k − R": r["pass_at_k"] - r["reward_before"],
        "mixed group": r["mixed_group"],
        "entropy": r["entropy"],
        "pretraining step": 600.0,
        "H within": r["headroom_within"],
        "H between": r["headroom_between"],
        "Σ": r["signal"],
        "alignment × H": r["alignment"] * r["headroom_within"],
        "Σ(1 − R)": r["signal"] * left,
        "‖∇J‖²": r["gradient_l2_squared"],
        "‖∇J‖²(1 − R)": r["gradient_l2_squared"] * left,
        "‖∇J‖₁(1 − R)": r["gradient_l1"] * left,
    }
    for gap, key in READINGS.items():
        for room, room_key in HEADROOMS.items():
            expected[f"P_gap {gap} × {room}"] = (r["signal"] - r[key]) * r[room_key]
    assert set(expected) == set(PREDICTORS)
    for name, value in expected.items():
        assert PREDICTORS[name].function(r) == pytest.approx(value, rel=ALGEBRA), name
    assert {P_GAP, P_GAP_LITERAL, "R_before"} <= set(PREDICTORS)


def test_missing_and_null_numbers_are_nan_not_zero() -> None:
    assert math.isnan(PREDICTORS["Σ"].function({}))
    assert math.isnan(PREDICTORS[P_GAP].function(RESULT | {"costate_gap_conditional": None}))


@pytest.mark.parametrize(("optimizer", "key"), [("adamw", "gradient_l1"), ("sgd", "gradient_l2_squared")])
def test_forecast_curve_takes_the_optimisers_own_norm(optimizer: str, key: str) -> None:
    rate = synthetic.RATES[optimizer]
    settings = {"optimizer": optimizer, "learning_rate": rate, "group_size": 8, "updates": 30}
    curve = forecast_curve(RESULT, **settings)
    np.testing.assert_array_equal(curve, forecast(RESULT["reward_before"], RESULT[key], **settings))
    planted = forecast_curve(RESULT | {key: RESULT[key] * (1 + PLANTED_FAULT)}, **settings)
    assert abs(planted[-1] - curve[-1]) > ALGEBRA
    for broken in ({"reward_before": 0.0}, {"reward_before": 1.0}, {key: None}, {key: -1.0}):
        assert np.all(np.isnan(forecast_curve(RESULT | broken, **settings)))


def test_evaluate_agrees_with_the_statistics_it_is_made_of() -> None:
    found = results(12)
    gain = np.array([r["headroom_within"] for r in found]) + 0.01 * np.random.default_rng(3).normal(size=12)
    reward = np.array([r["reward_before"] for r in found])
    after = reward + gain
    rows = {r.name: r for r in evaluate(found, gain, after, resamples=50)}
    assert list(rows) == list(PREDICTORS)
    value = predict(PREDICTORS[P_GAP], found)
    row = rows[P_GAP]
    assert row.gain.value == pytest.approx(spearman(value, gain), abs=ALGEBRA)
    assert row.gain.low <= row.gain.value <= row.gain.high
    assert row.after == pytest.approx(spearman(value, after), abs=ALGEBRA)
    assert row.combined == pytest.approx(spearman(z_score(reward) + z_score(value), after), abs=ALGEBRA)
    assert row.regret == pytest.approx(gain.max() - gain[value.argmax()], abs=ALGEBRA)
    assert math.isnan(row.r_squared)
    assert rows["R_before"].combined == pytest.approx(rows["R_before"].after, abs=ALGEBRA)
    assert rows["1 − R"].gain.value == pytest.approx(-rows["R_before"].gain.value, abs=ALGEBRA)


def test_a_nan_makes_its_predictor_undefined_and_no_other() -> None:
    found = results(8)
    found[3] = found[3] | {"signal": None}
    gain = np.linspace(0, 1, 8)
    rows = {r.name: r for r in evaluate(found, gain, gain, resamples=20)}
    row = rows["Σ"]
    assert row.undefined == 1
    assert all(math.isnan(x) for x in (row.gain.value, row.gain.low, row.after, row.combined, row.partial, row.regret))
    assert math.isfinite(rows["R_before"].gain.value)
    gain[0] = np.nan
    assert all(math.isnan(r.gain.value) for r in evaluate(found, gain, gain, resamples=20))


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_checkpoints_have_no_rank_correlation(n: int) -> None:
    gain = np.linspace(0.1, 0.2, n)
    assert all(math.isnan(r.gain.value) for r in evaluate(results(n), gain, gain))


def test_evaluate_refuses_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        evaluate(results(2), np.zeros(3), np.zeros(3))


def test_partial_rank_removes_what_the_reward_explains() -> None:
    given = np.linspace(0, 1, 40)
    signal = np.random.default_rng(4).normal(size=40)
    assert math.isnan(partial_rank(given**3, signal, given))
    assert math.isnan(partial_rank(signal[:5], given[:5], given[:5]))
    confounded = partial_rank(given + 0.05 * signal, given - 0.05 * signal, given)
    assert spearman(given + 0.05 * signal, given - 0.05 * signal) > 0.9
    assert confounded < -0.5
    assert partial_rank(signal, signal, given) == pytest.approx(1, abs=ALGEBRA)


def test_regret_and_r_squared() -> None:
    gain = np.array([0.1, 0.4, 0.3])
    assert regret(np.array([0.0, 1.0, 2.0]), gain) == pytest.approx(0.1, abs=ALGEBRA)
    assert regret(np.ones(3), gain) == pytest.approx(0.4 - gain.mean(), abs=ALGEBRA)
    assert r_squared(gain, gain) == 1
    assert r_squared(np.full(3, gain.mean()), gain) == pytest.approx(0, abs=ALGEBRA)
    assert r_squared(gain * (1 + PLANTED_FAULT), gain) < 1 - PLANTED_FAULT**2
    assert math.isnan(r_squared(gain, np.ones(3)))


def test_negative_share_counts_per_reading() -> None:
    base = {"costate_gap_per_sample": 2.0, "costate_gap_group_mean": 0.5}
    found = [base | {"signal": 1.0, "costate_gap_conditional": gap} for gap in (0.5, 1.5, 0.9, 2.0)]
    assert negative_share(found) == {"conditional": 0.5, "per sample": 1.0, "group mean": 0.0}
    assert math.isnan(negative_share([*found, {"signal": 1.0}])["conditional"])


def test_collect_joins_by_weights_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200, 300, 400))
    found[1]["checkpoint"] = found[1]["checkpoint"] | {"sha256": "another"}
    found[2]["checkpoint"] = found[2]["checkpoint"] | {"sha256": "another"}
    run = collect(synthetic.write(tmp_path, found))
    study = run.studies[0]
    assert [m.step for m in study.measures] == [200, 300, 400]
    assert any("without a measure of the same weights" in note and "step000100" in note for note in run.notes)
    assert any("measured but without RL: step000100" in note for note in run.notes)


def test_collect_averages_over_seeds_and_keeps_their_spread(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200, 300), seeds=(0, 1, 2))
    found[-1]["status"] = "failed"  # a result beside a failure does not count
    study = collect(synthetic.write(tmp_path, found)).studies[0]
    gains = [r["result"]["gain_mean"] for r in found if r["stage"] == "rl" and r["checkpoint"]["step"] == 200]
    assert study.seeds.tolist() == [3, 3, 2]
    assert study.gain[1] == pytest.approx(np.mean(gains), abs=ALGEBRA)
    assert study.gain_spread[1] == pytest.approx(np.std(gains, ddof=1), abs=ALGEBRA)
    lasts = [r["result"]["reward_after"][-1] for r in found if r["stage"] == "rl" and r["checkpoint"]["step"] == 200]
    assert (study.after_low[1, -1], study.after_high[1, -1]) == (min(lasts), max(lasts))


def test_later_records_replace_earlier_ones_and_torn_lines_are_named(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200, 300), optimizers=())
    retried = found[0] | {"result": found[0]["result"] | {"reward_before": 0.5}}
    failed = found[0] | {"status": "failed", "result": None}
    folder = synthetic.write(tmp_path, [failed, *found[1:], retried])
    with (folder / "records.jsonl").open("a") as stream:
        stream.write('{"unit": "torn')
    run = collect(folder)
    assert run.measures["label-copy"][0].result["reward_before"] == 0.5
    assert run.notes[0] == "unreadable lines in records.jsonl, left out: 5"


def test_collect_refuses_folders_without_records(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no records\.jsonl"):
        collect(tmp_path)
    (tmp_path / "records.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no readable record"):
        collect(tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_forecast_row_scores_what_the_records_follow(tmp_path: Path, optimizer: str) -> None:
    found = synthetic.records(steps=tuple(range(100, 1600, 100)), optimizers=(optimizer,))
    study = collect(synthetic.write(tmp_path, found)).studies[0]
    row = {r.name: r for r in study_rows(study, resamples=20)}[FORECAST]
    assert row.r_squared > 0.9
    assert forecast_error(study) < 0.02
    wrong = [m.result | {"gradient_l1": 5.0, "gradient_l2_squared": 5.0} for m in study.measures]
    flat = evaluate(wrong, study.gain, study.gain, predictors=(forecast_predictor(study),), resamples=20)[0]
    assert flat.r_squared < row.r_squared - 0.2


def test_sgd_forecast_is_undefined_without_standardised_advantages(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200, 300), optimizers=("sgd",))
    for record in found:
        record["settings"] = record["settings"] | {"baseline": "leave_one_out"}
    run = collect(synthetic.write(tmp_path, found))
    assert math.isnan(forecast_predictor(run.studies[0]).function(RESULT))
    assert any("standardised advantages only" in note for note in run.notes)


@pytest.mark.parametrize(("clip", "noted"), [(1e-3, True), (1e3, False), (None, False)])
def test_clipped_sgd_is_noted_because_the_forecast_does_not_know_it(
    tmp_path: Path, clip: float | None, noted: bool
) -> None:
    found = synthetic.records(steps=(100, 200, 300), optimizers=("sgd",))
    for record in found:
        record["settings"] = record["settings"] | {"clip": clip}
    notes = collect(synthetic.write(tmp_path, found)).notes
    assert any("at 3 of 3 checkpoints" in note for note in notes) == noted


def test_predictor_is_plain_data() -> None:
    twice = Predictor("twice", "2R", "trivial", lambda r: 2 * float(r["reward_before"]))
    np.testing.assert_allclose(predict(twice, [RESULT]), [2 * RESULT["reward_before"]], rtol=ALGEBRA)
