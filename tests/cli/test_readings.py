"""`vgrad readings`: one checkpoint, a ladder with a broken rung, options that are wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests import tiny_models
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.readings_command import readings

app = typer.Typer()
app.command()(readings)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("one") / "step000010")


def vgrad(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in (*arguments, "--prompts", 4)])


def test_one_checkpoint(checkpoint: Path) -> None:
    run = vgrad(checkpoint, "--gap", "conditional", "--gap", "per_sample", "--alpha", 5, "--explain")
    assert run.exit_code == 0, run.output
    head, *lines = run.output.splitlines()
    assert head.split() == ["reading", "Σ", "Λ", "H", "P_gap"]
    assert [line.split(" · ")[2] for line in lines[:2]] == ["conditional", "per_sample"]
    sigma, gap, room, score = (float(x) for x in lines[1].split()[-4:])
    assert score == pytest.approx((sigma - gap) * room, rel=5e-3)
    assert "§6 as written" in run.output


def test_json_holds_every_reading_once(checkpoint: Path) -> None:
    (found,) = json.loads(vgrad(checkpoint, "--all", "--group", 4, "--group", 4, "--json").output)
    rows = [tuple(v for k, v in sorted(r.items()) if not k.endswith(("value", "score"))) for r in found["readings"]]
    assert len(set(rows)) == len(rows) > 100
    assert found["checkpoint"] == "step000010"
    same = vgrad(checkpoint, "--reward", "probability", "--advantage", "group_mean", "--json").output
    (row,) = json.loads(same)[0]["readings"]
    assert (row["reward"], row["advantage"]) == ("probability", "group_mean"), "as it was asked for"
    assert row["impact_score"] == 0


def test_a_ladder_with_a_broken_rung(checkpoint: Path, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        tiny_models.save(tmp_path / f"step{step:06d}", seed=step)
    (tmp_path / "step000030" / "model.safetensors").write_bytes(b"no")
    run = vgrad(tmp_path, "--gap", "per_sample", "--reward", "sampled", "--reward", "probability")
    assert run.exit_code == 1
    assert "step000030 FAILED" in run.output
    assert "N*, argmax" in run.output
    assert "none: all equal" in run.output, "Σ − Λ = 0 chooses nothing"
    assert "2/2" in run.output, "single costates: Σ < Λ at every checkpoint"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gap", "median"), "gap is 'median'; choose one of conditional, per_sample, group_mean"),
        (("--state", "h3"), "state is 'h3'; choose one of head, last, first"),
        (("--alpha", "0"), "alpha is 0.0; give a positive number"),
    ],
)
def test_wrong_options(checkpoint: Path, arguments: tuple[str, ...], words: str) -> None:
    error = vgrad(checkpoint, *arguments).exception
    assert isinstance(error, UserError)
    assert words in str(error)


def test_no_checkpoint() -> None:
    error = vgrad("/nowhere/at/all").exception
    assert isinstance(error, UserError)
    assert "/nowhere/at/all" in str(error)
