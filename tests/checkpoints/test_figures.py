import copy
import hashlib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.checkpoints import synthetic_records as synthetic
from vgrad_lab.checkpoints.report import figures_ladder, figures_response, style
from vgrad_lab.checkpoints.report.collect import Run, collect
from vgrad_lab.checkpoints.report.plates import ladder_plates, study_plates
from vgrad_lab.checkpoints.report.scores import study_rows
from vgrad_lab.simplex import sharp_entropy_bound

TASK = "label-copy"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    found = synthetic.records(steps=tuple(range(100, 1101, 200)))
    return collect(synthetic.write(tmp_path_factory.mktemp("run"), found))


def drawn(run: Run) -> dict[str, Figure]:
    measures, study = run.measures[TASK], run.studies[0]
    rows = {row.name: row for row in study_rows(study, resamples=20)}
    return {p.name: p.figure for p in [*ladder_plates("a", measures), *study_plates("b", study, rows)]}


def test_the_same_numbers_give_the_same_svg_and_png(run: Run, tmp_path: Path) -> None:
    hashes = []
    for attempt in ("first", "second"):
        figures = drawn(run)
        paths = [p for name in ("a-entropy", "b-forecast") for p in style.save(figures[name], tmp_path / attempt, name)]
        hashes.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in paths])
    assert len(set(hashes[0])) == 4
    assert hashes[0] == hashes[1]
    for path in (tmp_path / "first").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert b"dc:date" not in path.read_bytes()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_figures_leave_no_trace_in_matplotlib(run: Run) -> None:
    before = copy.deepcopy(dict(mpl.rcParams))
    drawn(run)
    assert dict(mpl.rcParams) == before


def test_reward_lines_are_the_records_numbers(run: Run) -> None:
    axis = figures_ladder.ladder(run.measures[TASK]).axes[1]
    expected = [m.result["reward_before"] for m in run.measures[TASK]]
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), expected)
    assert axis.get_ylim()[0] <= 0 < 1 <= axis.get_ylim()[1]


def test_gain_lines_and_prediction_points_are_the_records_numbers(run: Run) -> None:
    study = run.studies[0]
    rows = {row.name: row for row in study_rows(study, resamples=20)}
    line = figures_response.consistency(study).axes[0].lines[0]
    before = np.array([m.result["reward_before"] for m in study.measures])
    np.testing.assert_array_equal(line.get_ydata(), study.after[:, 0] - before)
    first = figures_response.prediction(study, rows).axes[0]
    points = np.asarray(first.collections[-1].get_offsets())
    signal, gap, room = (
        np.array([m.result[k] for m in study.measures])
        for k in ("signal", "costate_gap_conditional", "headroom_within")
    )
    np.testing.assert_allclose(points, np.column_stack([(signal - gap) * room, study.gain]), rtol=1e-12)


def test_entropy_figure_draws_the_bounds_above_every_point(run: Run) -> None:
    axis = figures_ladder.entropy_bound(run.measures[TASK]).axes[0]
    points = np.concatenate([np.asarray(c.get_offsets()) for c in axis.collections])
    assert len(points) == 24 * len(run.measures[TASK])
    assert np.all(points[:, 1] <= sharp_entropy_bound(points[:, 0]) + 1e-10)
    paper, linear, sharp = (np.asarray(line.get_ydata()) for line in axis.lines)
    assert np.all(sharp <= linear + 1e-10)
    assert np.all(linear <= paper + 1e-6)


def test_violations_of_the_bound_are_counted_not_hidden(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200), optimizers=())
    found[0]["result"]["per_prompt"]["covariance_norm"][0] = 0.9
    plates = ladder_plates("a", collect(synthetic.write(tmp_path, found)).measures[TASK])
    entropy = next(p for p in plates if p.name == "a-entropy")
    assert entropy.seen.startswith("1 of 48 points lie above the sharp bound")


def test_chosen_checkpoints_are_few_and_hold_both_ends(run: Run) -> None:
    study = run.studies[0]
    assert figures_response.chosen(study, 3) == [0, 2, 5]
    assert figures_response.chosen(study, 50) == list(range(6))


def test_numbers_as_text() -> None:
    assert style.signed(-0.5) == "−0.50"
    assert style.signed(float("nan")) == "undefined"
    assert style.amount(0.1234) == "0.123"
    assert style.amount(0.00012) == "1.2e−04"
    assert style.amount(0.0) == "0.000"


def test_large_svg_gives_way_to_png(run: Run, tmp_path: Path) -> None:
    pair = style.save(figures_ladder.ladder(run.measures[TASK]), tmp_path, "x")
    assert style.embed(*pair).startswith("data:image/svg+xml;base64,")
    assert style.embed(*pair, limit=10).startswith("data:image/png;base64,")
