"""`vgrad doctor`: each finding on a log that has it and none on one that has not; broken logs; the outlook."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.test_cli import assert_one_clear_line, vgrad
from tests.helpers import unchecked
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.impact import forecast
from vgrad_lab.integrations import credit_log, doctor, outlook
from vgrad_lab.integrations.findings import CHECKS, DEAD_SHARE, VANISHED
from vgrad_lab.tolerances import PLANTED_FAULT, QUADRATURE

START = {"kind": "start", "format": 1, "layers": 2, "settings": {"max_grad_norm": 1.0, "loss_type": "dapo"}}


def healthy(n: int = 100, seed: int = 0) -> list[dict[str, Any]]:
    """A run that learns from 0.2 to 0.8, with the noise of 128 answers a step."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-np.linspace(-1.4, 1.4, n)))
    success = rng.binomial(128, p) / 128
    return [
        {
            "kind": "step", "step": i + 1, "success": float(success[i]), "reward": float(success[i]),
            "dead_groups": 0.1, "all_fail": 0.06, "all_success": 0.04, "learning_rate": 1e-5,
            "costate_norm": [3.0, 2.0, 1.0], "costate_norm_head": 1.0, "entropy": 1.0 - 0.5 * i / n,
            "grad_norm": 0.5, "clip_ratio/region_mean": 0.01,
        }
        for i in range(n)
    ]  # fmt: skip


def write(folder: Path, steps: list[dict[str, Any]], *, end: bool = True, start: dict[str, Any] = START) -> Path:
    records = [start, *steps, *([{"kind": "end", "step": len(steps)}] if end else [])]
    for record in records:
        credit_log.append(folder / credit_log.NAME, record)
    return folder


def names(folder: Path) -> list[str]:
    return [f["name"] for f in doctor.diagnose(folder)["findings"]]


@pytest.mark.parametrize("seed", range(200))
def test_a_healthy_run_has_no_finding(tmp_path: Path, seed: int) -> None:
    folder = write(tmp_path, healthy(seed=seed))
    result = doctor.diagnose(folder)
    assert result["healthy"], result["findings"]
    assert set(result["passed"]) == set(CHECKS)
    assert "healthy" in doctor.describe(result)


def change(steps: list[dict[str, Any]], name: str, values: Any) -> None:
    for record, value in zip(steps, values, strict=True):
        if value is ...:
            record.pop(name, None)
        else:
            record[name] = value


def fell(n: int) -> np.ndarray:
    rise = np.linspace(0.2, 0.7, n // 2)
    return np.concatenate([rise, np.linspace(0.7, 0.2, n - n // 2)])


CASES: dict[str, dict[str, Any]] = {
    "dead_groups": {"dead_groups": [0.8] * 100, "all_fail": [0.7] * 100, "all_success": [0.1] * 100},
    "vanishing_credit": {"costate_norm": [[1e-5, 1e-3, 1.0]] * 100},
    "step_too_large": {"success": [round(float(v), 4) for v in fell(100)]},
    "entropy_collapse": {"entropy": np.geomspace(2.0, 0.005, 100).tolist()},
    "reward_flat": {"success": [0.3 + 0.02 * (-1) ** i for i in range(100)]},
    "clipping_always": {"grad_norm": [5.0] * 100},
    "ratio_clipping_always": {"clip_ratio/region_mean": [0.4] * 100},
    "not_finite": {"grad_norm": [0.5] * 60 + [None] * 40},
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_is_found_alone_with_numbers_and_a_remedy(tmp_path: Path, name: str) -> None:
    steps = healthy()
    for key, values in CASES[name].items():
        change(steps, key, values)
    result = doctor.diagnose(write(tmp_path, steps))
    assert [f["name"] for f in result["findings"]] == [name]
    found = result["findings"][0]
    assert any(c.isdigit() for c in found["evidence"])
    assert len(found["remedy"]) > 20
    assert 1 <= found["steps"][0] <= found["steps"][1] <= 100
    assert found["evidence"] in doctor.describe(result)


def test_thresholds_are_where_they_say(tmp_path: Path) -> None:
    for i, (key, value, found) in enumerate(
        [
            ("dead_groups", DEAD_SHARE, True),
            ("dead_groups", DEAD_SHARE * (1 - PLANTED_FAULT), False),
            ("costate_norm", [VANISHED * (1 - PLANTED_FAULT), 1.0, 1.0], True),
            ("costate_norm", [VANISHED, 1.0, 1.0], False),
            ("grad_norm", 1.0, False),
            ("grad_norm", 1.0 + PLANTED_FAULT, True),
        ]
    ):
        steps = healthy()
        change(steps, key, [value] * 100)
        assert bool(names(write(tmp_path / str(i), steps))) == found, (key, value)


def test_a_solved_task_is_healthy(tmp_path: Path) -> None:
    steps = healthy()
    change(steps, "success", np.minimum(1.0, np.linspace(0.5, 1.5, 100)).tolist())
    change(steps, "dead_groups", np.minimum(1.0, np.linspace(0.1, 1.5, 100)).tolist())
    change(steps, "all_success", np.minimum(1.0, np.linspace(0.1, 1.5, 100)).tolist())
    change(steps, "entropy", np.geomspace(1.0, 1e-3, 100).tolist())
    result = doctor.diagnose(write(tmp_path, steps))
    assert result["healthy"]
    assert result["solved"]


def test_what_the_log_does_not_hold_is_not_called_healthy(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"kind": "step", "step": 1, "reward": 0.5}], end=False)
    result = doctor.diagnose(folder)
    assert set(result["not_checked"]) >= {"dead groups", "entropy", "step size", "reward rises"}
    assert "not finished" in doctor.describe(result)
    assert "not checked: dead groups (dead_groups was logged in 0 steps, 5 are needed)" in doctor.describe(result)


def test_a_frozen_lower_half_is_no_vanishing_credit(tmp_path: Path) -> None:
    steps = healthy()
    change(steps, "costate_norm", [[None, 2.0, 1.0]] * 100)
    assert names(write(tmp_path, steps)) == []


def test_a_resumed_run_uses_the_later_lines_and_the_fault_of_the_callback_counts(tmp_path: Path) -> None:
    steps = healthy()
    write(tmp_path, steps[:60], end=False)
    with (tmp_path / credit_log.NAME).open("a") as stream:
        stream.write('{"kind": "step", "st')
    write(tmp_path, steps[40:], end=False)
    assert names(tmp_path) == []
    assert [r["step"] for r in credit_log.steps(credit_log.read(tmp_path))] == list(range(1, 101))
    credit_log.append(tmp_path / credit_log.NAME, {"kind": "disabled", "reason": "ValueError: planted"})
    assert names(tmp_path) == ["measuring_stopped"]


def test_numbers_without_a_word_in_json_become_null(tmp_path: Path) -> None:
    path = tmp_path / "log"
    credit_log.append(path, {"kind": "step", "step": 1, "grad_norm": float("inf"), "costate_norm": [float("nan"), 1.0]})
    assert json.loads(path.read_text()) == {"costate_norm": [None, 1.0], "grad_norm": None, "kind": "step", "step": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no step"),
        ("\n\n", "holds no step"),
        (json.dumps(START) + "\n", "holds no step"),
        ("not a log\n" + json.dumps(START) + "\n", None),
        (json.dumps(START) + '\nrubbish\n{"kind":"step","step":1}\n', "line 2 is no record"),
        (json.dumps(START) + '\n{"kind":"step","step":"one"}\n{"kind":"step","step":1}\n', "line 2 is no record"),
        (json.dumps({**START, "format": 9}) + '\n{"kind":"step","step":1}\n', "has format 9, this version reads 1"),
        ("\x00\x01\x02\n" * 5, "line 1 is no record"),
    ],
)
def test_broken_logs_are_refused_in_one_line(tmp_path: Path, content: str, message: str | None) -> None:
    (tmp_path / credit_log.NAME).write_text(content)
    with pytest.raises(UserError, match=message or "holds no step") as caught:
        doctor.diagnose(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cut_at_any_byte_of_the_last_line_is_read(tmp_path: Path) -> None:
    write(tmp_path, healthy(3), end=False)
    path = tmp_path / credit_log.NAME
    whole = path.read_bytes()
    before = whole[:-1].rindex(b"\n") + 1
    for cut in range(before, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(credit_log.steps(credit_log.read(tmp_path))) in (2, 3)


def test_values_of_the_wrong_kind_are_not_numbers(tmp_path: Path) -> None:
    steps = healthy(30)
    for record, odd in zip(steps, [True, "x", [1], {}, None] * 6, strict=True):
        record["entropy"] = record["costate_norm"] = record["dead_groups"] = odd
    result = doctor.diagnose(write(tmp_path, steps))
    assert {"dead groups", "credit in early layers"} <= set(result["not_checked"])


def test_the_command(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good", healthy()), healthy()
    change(bad, "grad_norm", [5.0] * 100)
    run = vgrad("doctor", "--help")
    assert run.returncode == 0
    assert "vgrad doctor out/grpo" in run.stdout.split("Example", 1)[1]
    run = vgrad("doctor", good)
    assert run.returncode == 0, run.stderr
    assert "healthy" in run.stdout
    run = vgrad("doctor", write(tmp_path / "bad", bad), "--json")
    assert run.returncode == 1
    assert [f["name"] for f in json.loads(run.stdout)["findings"]] == ["clipping_always"]
    assert_one_clear_line(vgrad("doctor", tmp_path / "none"), "does not exist", "output_dir")
    assert_one_clear_line(vgrad("doctor", tmp_path), "holds no vgrad.jsonl", "VGradCallback")


def progress(success: Any, **changes: Any) -> outlook.Progress:
    success = np.asarray(success, dtype=float)
    n = len(success)
    settings = {"samples": 10**9, "group_size": 8, "remaining": 50, "optimizer": "adamw", **changes}
    return outlook.Progress(np.arange(1, n + 1), success, np.full(n, 1e-3), np.full(n, np.nan), **settings)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_outlook_continues_the_flow_that_made_the_run(optimizer: Any) -> None:
    """With no sampling noise: exact for AdamW, whose flow is straight in logits; close for SGD."""
    gradient = 40.0 if optimizer == "adamw" else 6.0
    whole = forecast(0.2, gradient, optimizer=optimizer, learning_rate=1e-3, group_size=8, updates=70, constant=1.0)
    curve = outlook.remaining_curve(progress(whole[:21], optimizer=optimizer))
    assert curve is not None
    assert len(curve) == 51
    close = QUADRATURE * 1000 if optimizer == "adamw" else 0.02
    assert curve == pytest.approx(whole[20:], abs=close)


def test_outlook_knows_advantages_without_a_standard_deviation() -> None:
    """κ is a constant then: late in a run plain gradient ascent slows down more than with standardised advantages."""
    options = {"optimizer": "sgd", "learning_rate": 1e-3, "group_size": 8, "updates": 70, "constant": 1.0}
    whole = forecast(0.5, 4.0, **options, baseline="group_mean")  # type: ignore[arg-type]
    off = {}
    for scale in ("none", "group"):
        curve = outlook.remaining_curve(progress(whole[:21], optimizer="sgd", scale=scale))
        assert curve is not None
        off[scale] = np.abs(curve - whole[20:]).max()
    assert off["none"] < 0.01
    assert off["group"] > 2 * off["none"]


def test_outlook_is_undefined_without_a_slope_and_flat_when_falling() -> None:
    assert outlook.remaining_curve(progress([0.5] * 7)) is None
    assert outlook.remaining_curve(progress([0.0] * 20)) is None
    assert outlook.remaining_curve(progress([1.0] * 20)) is None
    assert outlook.remaining_curve(progress([0.5] * 20, remaining=0)) is None
    falling = outlook.remaining_curve(progress(np.linspace(0.6, 0.4, 20)))
    assert falling is not None
    assert np.ptp(falling) == 0
    long = outlook.remaining_curve(progress(np.linspace(0.2, 0.4, 20), remaining=10_000))
    assert long is not None
    assert len(long) == outlook.MOST_UPDATES + 1
    assert np.all(np.diff(long) >= 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("seed", range(10))
def test_outlook_of_any_noise_is_a_curve_of_probabilities(optimizer: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    success = rng.choice([0.0, 1.0, rng.random()], size=12)
    curve = outlook.remaining_curve(progress(success, samples=int(rng.integers(2, 64)), optimizer=optimizer))
    assert curve is None or bool(np.all((curve >= 0) & (curve <= 1)))


def test_bad_options_are_refused() -> None:
    from vgrad_lab.integrations.trl import VGradCallback

    with pytest.raises(ValueError, match="every is 0"):
        unchecked(VGradCallback.__init__)(VGradCallback(), every=0)
    with pytest.raises(ValueError, match="alpha is -1"):
        unchecked(VGradCallback.__init__)(VGradCallback(), alpha=-1.0)
