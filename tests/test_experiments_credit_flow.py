"""The credit-flow experiment runs, repeats itself, scores and draws."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from vgrad_lab.experiments import credit_flow
from vgrad_lab.ledger import LEDGER


@pytest.fixture(scope="module")
def result() -> dict:  # type: ignore[type-arg]
    return credit_flow.run(credit_flow.TINY)


def test_it_repeats_itself_and_is_json(result: dict) -> None:  # type: ignore[type-arg]
    again = json.loads(json.dumps(credit_flow.run(credit_flow.TINY), allow_nan=False))
    assert again == result


def test_what_it_shows(result: dict) -> None:  # type: ignore[type-arg]
    assert credit_flow.score(result) == dict.fromkeys(credit_flow.STATEMENTS, 1.0)
    assert set(credit_flow.STATEMENTS) <= set(LEDGER)
    for model in result["models"].values():
        assert np.mean(model["losses"][-5:]) < np.mean(model["losses"][:5])
        assert len(model["before"]["flow"][0]) == result["queries"][-1] + 1


def test_the_score_can_fail(result: dict) -> None:  # type: ignore[type-arg]
    swapped = copy.deepcopy(result)
    models = swapped["models"]
    models["gru"], models["transformer"] = models["transformer"], models["gru"]
    assert credit_flow.score(swapped) == {"S13": 0.0, "S13.depth": 1.0, "S15": 0.0}


def test_files(result: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    paths = credit_flow.plot(result, tmp_path / "a")
    assert [p.suffix for p in paths] == [".svg", ".png"]
    for first, second in zip(paths, credit_flow.plot(result, tmp_path / "b"), strict=True):
        assert first.stat().st_size > 5000
        assert first.read_bytes() == second.read_bytes()


def test_main_writes_everything(tmp_path: Path) -> None:
    paths = credit_flow.main(tmp_path, tiny=True, seed=3)
    assert [p.name for p in paths] == ["credit_flow.json", "credit_flow.svg", "credit_flow.png"]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["settings"]["seed"] == 3
