"""Every tutorial runs from top to bottom, its notebook holds the same cells; sliders and exercises do what they say."""

import base64
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1] / "tutorials"
TUTORIALS = sorted(ROOT.glob("[0-9]*.py"))
WITH_EXERCISES = [path for path in TUTORIALS if path.stem[:2] in ("00", "01", "02")]
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def sliders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("_sliders")


@pytest.fixture
def exercises(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("_exercises")


def outputs(notebook: Any) -> list[dict[str, Any]]:
    """All outputs of the code cells."""
    return [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]


def test_there_are_tutorials() -> None:
    assert len(TUTORIALS) >= 2
    assert [path.stem for path in WITH_EXERCISES] == ["00_one_step", "01_costates", "02_critic_free"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_tutorial_executes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGRAD_RUN", str(tmp_path / "none"))
    monkeypatch.setenv("VGRAD_TOY_RUN", str(tmp_path / "toy"))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    notebook = jupytext.read(path)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
    warnings = [o["text"] for o in outputs(notebook) if o.get("name") == "stderr" and "Warning:" in o["text"]]
    assert not warnings
    with_sliders = sum("explore(" in c.source for c in notebook.cells if c.cell_type == "code")
    assert sum(WIDGET in o.get("data", {}) for o in outputs(notebook)) == with_sliders, "sliders live in a kernel"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_notebook_is_in_step_with_its_source(path: Path) -> None:
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    source = jupytext.read(path)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in source.cells], (
        f"{path.stem}.ipynb is stale; run `make docs`"
    )
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code), "every cell was executed"
    assert not [o for o in outputs(notebook) if o.output_type == "error"]
    for cell in code:
        if re.search(r"plt\.(show|subplots)\(|^explore\(", cell.source, flags=re.MULTILINE):
            assert any("image/png" in o.get("data", {}) for o in cell.outputs), "executed without pictures"
    assert not any(WIDGET in o.get("data", {}) for o in outputs(notebook)), "a stored widget is dead: keep the still"
    assert "widgets" not in notebook.metadata


def test_the_page_on_checking_your_environment_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT.parent / "docs" / "check_your_environment.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line.strip()]) == 10, "ten lines are promised"
    names: dict[str, Any] = {}
    said = []
    for block in blocks:
        exec(compile(block, "check_your_environment.md", "exec"), names)
        said.append(capsys.readouterr().out)
    assert max(names["check_environment"](names["tank"]).values()) < 1e-11
    assert said[0].startswith("{'transition_state'")
    assert said[1].startswith("jacobians.reward_action[0] is ")
    assert "score_function=" in said[2]
    assert said[3] == "(100, 21, 1)\n"


# --- sliders


def line(axis: Any, slope: float, height: float = 0.0) -> None:
    """Draw a line; the values seen so far are kept."""
    SEEN.append((slope, height))
    axis.plot([0, 1], [height, height + slope])


SEEN: list[tuple[float, float]] = []


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels."""
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def test_stills_show_first_middle_and_last(sliders: ModuleType) -> None:
    slider = sliders.Slider("a", (1.0, 2.0, 3.0, 4.0, 5.0))
    assert slider.stills() == (1.0, 3.0, 5.0)
    assert sliders.Slider("a", (1.0, 2.0)).stills() == (1.0, 2.0)
    SEEN.clear()
    one = sliders.still(line, slider, size=(5.0, 3.0))
    assert [slope for slope, _ in SEEN] == [1.0, 3.0, 5.0]
    SEEN.clear()
    two = sliders.still(line, slider, sliders.Slider("b", (0.0, 1.0)), size=(5.0, 3.0))
    assert [(a, b) for b in (0.0, 1.0) for a in (1.0, 3.0, 5.0)] == SEEN
    assert size_of(two)[0] == size_of(one)[0]
    assert abs(size_of(two)[1] - 2 * size_of(one)[1]) <= 1


def test_a_slider_draws_again(sliders: ModuleType) -> None:
    box = sliders.live(line, sliders.Slider("a", (1.0, 2.0, 3.0)), sliders.Slider("b", (0.0, 5.0)), size=(4.0, 3.0))
    *handles, image = box.children
    assert [h.description for h in handles] == ["a", "b"]
    before = bytes(image.value)
    SEEN.clear()
    handles[0].value = 3.0
    assert SEEN == [(3.0, 5.0)]
    assert bytes(image.value) != before
    size_of(bytes(image.value))


def test_with_and_without_ipywidgets(sliders: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    slider = sliders.Slider("a", (1.0, 2.0))
    found = sliders.bundle(line, slider)
    assert found[WIDGET]["model_id"]
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    without = sliders.bundle(line, slider)
    assert WIDGET not in without
    assert without["image/png"] == found["image/png"], "the still picture is the same"
    size_of(base64.b64decode(without["image/png"]))


def test_a_plain_script_says_what_it_cannot_show(
    sliders: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sliders.explore(line, sliders.Slider("a", (1.0, 2.0)))
    assert "ipywidgets" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "IPython", None)
    sliders.explore(line, sliders.Slider("a", (1.0, 2.0)))
    assert "several values of a" in capsys.readouterr().out


@pytest.mark.parametrize("values", [(), (1.0,)])
def test_sliders_refuse_nothing_to_turn(sliders: ModuleType, values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least two values"):
        sliders.bundle(line, sliders.Slider("a", values))
    with pytest.raises(ValueError, match="one or two sliders"):
        sliders.bundle(line)


# --- exercises


def nan_at_the_right_shape(environment: Any, policy: Any, track: Any) -> Any:
    return np.full(track.state[:, :-1].shape, np.nan)


def direct_slope(environment: Any, policy: Any, track: Any) -> Any:
    state, action = (x.reshape(-1, x.shape[-1]) for x in (track.state[:, :-1], track.action))
    return environment.jacobians.reward_state(state, action).reshape(track.state[:, :-1].shape)


def vgl(*, transpose: bool = True, discounted: bool = True, swapped: bool = False, factor: float = 1.0) -> Any:
    """One step of VGL(λ) with a planted mistake."""

    def target(Dr: Any, Df: Any, later: Any, critic: Any, discount: float, decay: float) -> Any:
        share = 1 - decay if swapped else decay
        blend = share * later + (1 - share) * critic
        pulled = np.einsum("bij,bi->bj" if transpose else "bij,bj->bi", Df, blend)
        return factor * (Dr + (discount if discounted else 1.0) * pulled)

    return target


def forms(**changed: str | None) -> dict[str, str | None]:
    """The right table of exercise 00.4 with changes, keys without their separators."""
    right = {
        "gaussian, sin": "both",
        "uniform, sin": "PD",
        "gaussian, step": "SF",
        "exponential, |a|": "PD",
        "uniform, step": "neither",
    }
    return {key: changed.get(key.replace(", ", "_").replace("|", ""), value) for key, value in right.items()}


WRONG: dict[str, tuple[tuple[Any, str], ...]] = {
    "00.1": (
        (1.109, "comes later"),
        (4.0, "comes earlier"),
        (2.218 * 1.02, "comes earlier"),
        (2.218 * 0.98, "comes later"),
        (-2.218, "positive"),
        ("2.2 per unit", "one number"),
        (float("nan"), "finite"),
    ),
    "00.2": (
        (lambda mean: -mean, "wrong sign"),
        (lambda mean: 1.0, "at the edge"),
        (lambda mean: 1.001 * mean, "at the edge"),
        (lambda mean: 1 / 0, "ZeroDivisionError"),
        (lambda: 1.0, "TypeError"),
    ),
    "00.3": (
        (lambda x: np.sign(x) / (1 - np.abs(x)), "sign is the other way"),
        (lambda x: -np.sign(x), "divides it by"),
        (lambda x: -1.001 * np.sign(x) / (1 - np.abs(x)), "differences of log"),
        (lambda x: 1.0, "shape"),
    ),
    "00.4": (
        (forms(uniform_sin="both"), "1 of 5 differ"),
        (forms(uniform_step="both", exponential_a="SF"), "2 of 5 differ"),
        (forms(gaussian_sin="yes"), "not 'yes'"),
        ({"gaussian, sin": "both"}, "dictionary"),
        ("both", "dictionary"),
    ),
    "01.1": ((3.0, "an Environment was asked for"),),
    "01.2": ((44, "not below 0.01"), (46, "one step earlier"), (90, "γ and ρ"), (44.9, "whole number")),
    "01.3": (
        (direct_slope, "r_s"),
        (lambda e, p, track: track.state, "shape"),
        (nan_at_the_right_shape, "Put γ = 0"),
        (lambda e, p, track: 1.001 * direct_slope(e, p, track), "Put γ = 0"),
    ),
    "01.4": (
        (vgl(transpose=False), "Dfᵀ"),
        (vgl(discounted=False), "γ is missing"),
        (vgl(swapped=True), "swapped"),
        (vgl(factor=1.001), "largest deviation"),
        (lambda Dr, *rest: 0.0, "shape"),
    ),
    "02.1": ((0.75, "make up for it"), (1.0, "0.7500 of"), (1.34, "not 1")),
    "02.2": ((2 / 9, "root"), (np.std([1, 0, 0], ddof=1), "ddof 1"), (0.5, "mean 1/3")),
    "02.3": ((5.0, "0.950"), (6.0, "1.050"), (float("inf"), "finite")),
    "02.4": ((34, "0.5031"), (36, "n = 35 would do"), (1, "at least 2"), (35.5, "whole number")),
}


def test_every_exercise_has_wrong_answers(exercises: ModuleType) -> None:
    assert set(WRONG) == set(exercises.exercises())
    for path in WITH_EXERCISES:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r'check\("(\d\d\.\d)"', text)
        assert named == [n for n in exercises.exercises() if n.startswith(path.stem[:2])]


@pytest.mark.parametrize("number", WRONG)
def test_the_right_answer_passes(number: str, exercises: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    e = exercises.find(number)
    assert exercises.check(number, e.answer)
    assert "right. " in capsys.readouterr().out
    exercises.solution(number)
    told = capsys.readouterr().out
    assert e.why in told
    assert "object at 0x" not in told
    exercises.hint(number)
    assert capsys.readouterr().out == f"{e.hint}\n"


@pytest.mark.parametrize("number", WRONG)
def test_an_open_answer_is_told_what_to_do(
    number: str, exercises: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for nothing in (None, lambda *arguments: None, ...):
        assert not exercises.check(number, nothing)
        said = capsys.readouterr().out
        assert exercises.find(number).task in said
        assert "Replace None" in said


@pytest.mark.parametrize(("number", "answer", "words"), [(n, a, w) for n, cases in WRONG.items() for a, w in cases])
def test_a_wrong_answer_is_told_what_to_look_at(
    number: str, answer: Any, words: str, exercises: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not exercises.check(number, answer)
    assert words in capsys.readouterr().out


def test_the_pendulum_must_be_repaired_where_it_is_wrong(
    exercises: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    right = exercises.find("01.1").answer
    slope = right.jacobians.transition_state
    off = replace(right, jacobians=replace(right.jacobians, transition_state=lambda s, a: 1.001 * slope(s, a)))
    for wrong, words in (
        (off, "transition_state"),
        (replace(right, transition=lambda s, a: s), "dynamics changed"),
        (replace(right, reward=lambda s, a: s[:, 0]), "reward changed"),
    ):
        assert not exercises.check("01.1", wrong)
        assert words in capsys.readouterr().out


def test_an_unknown_exercise(exercises: ModuleType) -> None:
    with pytest.raises(ValueError, match="there are 00.1"):
        exercises.check("03.1", None)
