"""The phase diagram's experiment runs, repeats itself, scores, draws; its committed results are what it gives."""

import json
from pathlib import Path

import pytest

from vgrad_lab.experiments import step_phases as experiment
from vgrad_lab.ledger import LEDGER

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "phase_diagram.json"


@pytest.fixture(scope="module")
def result() -> dict:  # type: ignore[type-arg]
    return experiment.run(experiment.TINY)


def test_what_it_shows(result: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    assert experiment.score(result) == dict.fromkeys(experiment.STATEMENTS, 1.0)
    assert set(experiment.STATEMENTS) <= set(LEDGER)
    picture = experiment.plot(result, tmp_path / "phases.svg").read_text(encoding="utf-8")
    assert picture.startswith("<?xml")
    assert experiment.plot(result, tmp_path / "again.svg").read_text(encoding="utf-8") == picture


@pytest.mark.parametrize(
    ("name", "factor"),
    [("reinforce", 1.5), ("reinforce", 0.5), ("grpo", 1.6), ("grpo", 0.6), ("population_grpo", 40.0)],
)
def test_a_border_elsewhere_scores_zero(result: dict, name: str, factor: float) -> None:  # type: ignore[type-arg]
    moved = result | {"borders": result["borders"] | {name: factor * result["borders"][name]}}
    assert 0.0 in experiment.score(moved).values()


def test_committed_results_are_of_this_code() -> None:
    """Scores recomputed from the committed maps; one column of the maps run again."""
    committed = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert experiment.score(committed) == committed["score"] == dict.fromkeys(experiment.STATEMENTS, 1.0)
    settings = experiment.Settings(**committed["settings"])
    assert settings == experiment.SETTINGS
    rates, starts = experiment.axes(settings)
    again = experiment.phase_map(rates[20:21], starts, "reinforce", updates=settings.updates)
    assert [row[20] for row in committed["maps"]["reinforce"]] == [str(x) for x in again[:, 0].tolist()]
