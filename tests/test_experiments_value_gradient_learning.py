"""The value-gradient-learning experiment runs, repeats itself, scores and draws."""

import copy
import json
from pathlib import Path

import pytest

from vgrad_lab.experiments import value_gradient_learning as experiment
from vgrad_lab.ledger.estimation import ESTIMATION


@pytest.fixture(scope="module")
def result() -> dict:  # type: ignore[type-arg]
    return experiment.run(experiment.TINY)


def test_it_repeats_itself_and_is_json(result: dict) -> None:  # type: ignore[type-arg]
    assert json.loads(json.dumps(experiment.run(experiment.TINY), allow_nan=False)) == result


def test_what_it_shows(result: dict) -> None:  # type: ignore[type-arg]
    assert experiment.score(result) == dict.fromkeys(experiment.STATEMENTS, 1.0)
    assert set(experiment.STATEMENTS) <= {s.id for s in ESTIMATION}
    exact, poor = (result["critics"][name] for name in ("exact", "poor"))
    assert exact[0]["variance"] < 0.9
    assert exact[0]["exact_bias"] < 1e-10
    assert poor[0]["exact_bias"] > 0.1
    assert poor[0]["error"] < result["reference"]["pathwise"]["error"]
    reference = result["reference"]
    assert reference["score function"]["variance"] > reference["pathwise"]["variance"]


def test_the_score_can_fail(result: dict) -> None:  # type: ignore[type-arg]
    swapped = copy.deepcopy(result)
    critics = swapped["critics"]
    critics["exact"], critics["poor"] = critics["poor"], critics["exact"]
    assert experiment.score(swapped)["E04"] == 0.0
    critics["learnt"][-1]["distance"] = 1e-3
    assert experiment.score(swapped)["E01"] == 0.0
    shifted = copy.deepcopy(result)
    shifted["critics"]["exact"][0]["excess"] = 1e-3
    assert experiment.score(shifted) == {"E01": 0.0, "E04": 1.0}


def test_files(tmp_path: Path) -> None:
    paths = experiment.main(tmp_path / "a", tiny=True, seed=3)
    assert [p.suffix for p in paths] == [".json", ".svg", ".png"]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["settings"]["seed"] == 3
    for first, second in zip(paths, experiment.main(tmp_path / "b", tiny=True, seed=3), strict=True):
        assert first.read_bytes() == second.read_bytes()
