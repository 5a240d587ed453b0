"""Every tutorial runs from top to bottom, its notebook holds the same cells; sliders and exercises do what they say."""

import base64
import importlib
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from vgrad_lab.advantage import leave_one_out
from vgrad_lab.impact import grpo_scale

ROOT = Path(__file__).parents[1] / "tutorials"
TUTORIALS = sorted(ROOT.glob("[0-9]*.py"))
NUMBERS = ["00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10"]
WITH_EXERCISES = [path for path in TUTORIALS if path.stem[:2] in NUMBERS]
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
    assert [path.stem[:2] for path in WITH_EXERCISES] == NUMBERS


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


def step_gap(p: Any, feature: Any, right: Any) -> Any:
    """The right answer of exercise 04.1."""
    return p[right] @ feature[right] / p[right].sum() - p[~right] @ feature[~right] / p[~right].sum()


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


def selectivity(norms: Any, source: Any, shown: Any, *, others_only: bool = True) -> Any:
    """Selectivity, or what it is with the sources among the others."""
    hit = np.arange(norms.shape[1])[None, :] == source[:, None]
    rest = shown[None, :] & ~hit if others_only else np.broadcast_to(shown, hit.shape)
    return norms[hit].mean() / norms[rest].mean()


def recursions(**changed: str) -> dict[str, str]:
    """The right table of exercise 05.3 with changes, keys cut at the comma and without spaces."""
    right = {
        "transformer, embedding": "wrong",
        "transformer, h^(L)": "empty",
        "GRU of one layer, h^(L)": "exact",
        "GRU of two layers, first layer": "wrong",
        "token-only, h^(L)": "empty",
    }
    found = dict(right)
    for key in right:
        name = key.split(",")[0].replace(" ", "_")
        if name in changed and not (name == "transformer" and "embedding" not in key):
            found[key] = changed[name]
    return found


def kinds(**changed: str) -> dict[str, str]:
    """The right table of exercise 03.4 with changes."""
    right = {"rloo": "exact", "group_mean": "scaled", "grpo": "scaled", "dapo": "scaled", "reinforce": "exact"}
    return right | changed


def changes(**changed: str) -> dict[str, str]:
    """The right table of exercise 09.3 with changes; a word of the key names it."""
    right = {
        "a label of a label task": "both",
        "a comment in the file of the reward function": "both",
        "α of the headroom": "measure",
        "the learning rate": "rl",
        "a second seed is added": "neither",
        "the prompts file moves to another folder": "neither",
    }
    return {key: next((v for word, v in changed.items() if word in key.split()), said) for key, said in right.items()}


def coin_speed(p: float, p0: float) -> float:
    """Relative speed of a coin's parameter under expected GRPO."""
    now, first = (float(grpo_scale(np.array([x]), 8)[0]) * x * (1 - x) for x in (p, p0))
    return now / first


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
    "03.1": ((512, "share too"), (7 / 4096, "make up for it"), (580.0, "0.9912 of")),
    "03.2": (
        (lambda reward, length: leave_one_out(reward), "points elsewhere"),
        (lambda reward, length: leave_one_out(reward * length), "points elsewhere"),
        (lambda reward, length: leave_one_out(reward) / length, "points elsewhere"),
        (lambda reward, length: -leave_one_out(reward) * length, "downhill"),
        (lambda reward, length: 0.0 * reward, "zero"),
        (lambda reward, length: reward[0], "shape"),
        (lambda reward, length: leave_one_out(reward) * length * (1 + 1e-3 * length), "points elsewhere"),
        (2.0, "function"),
    ),
    "03.3": ((19, "not below"), (21, "N = 20 would do"), (19.6, "whole number"), (0, "at least 1")),
    "03.4": (
        (kinds(rloo="scaled"), "1 of 5 differ, among them 'rloo'"),
        (kinds(grpo="bent", dapo="bent"), "2 of 5 differ"),
        (kinds(grpo="biased"), "not 'biased'"),
        ("exact", "dictionary"),
    ),
    "04.1": (
        (lambda p, x, right: p[right] @ x[right] - p[~right] @ x[~right], "divide by J and 1"),
        (lambda p, x, right: -step_gap(p, x, right), "turn it round"),
        (lambda p, x, right: p[right].sum() * p[~right].sum() * step_gap(p, x, right), "no factor J"),
        (lambda p, x, right: p[~right].sum() * step_gap(p, x, right), "g⁺ alone"),
        (lambda p, x, right: 1.001 * step_gap(p, x, right), "yours"),
        (lambda p, x, right: 0.5, "one number per parameter"),
    ),
    "04.2": ((0.5, "two wrong arms"), (0.126, "c x² = 2.016"), (2.0, "c x² = 32"), ("1/8", "one number")),
    "04.3": (
        (0.04, "keep the factor J"),
        (1 / 1.04, "that is the success rate"),
        (0.102193, "the threshold 0.1022"),
        (0.04 / 1.04 * 1.002, "the multiple is"),
        (1.5, "between 0 and 1"),
    ),
    "04.4": ((1.0, "REINFORCE's border"), (17**-0.5, "not √G"), (0.2505, "is at 2"), (float("inf"), "finite")),
    "05.1": (
        ({"embedding": 121, "h^(L)": 11}, "on and below the diagonal"),
        ({"embedding": 66, "h^(L)": 66}, "no other position"),
        (66, "dictionary"),
    ),
    "05.2": (
        (lambda norms, source, shown: selectivity(norms, source, shown, others_only=False), "the sources too"),
        (lambda norms, source, shown: 1 / selectivity(norms, source, shown), "upside down"),
        (lambda norms, source, shown: 1.001 * selectivity(norms, source, shown), "no candidate in it"),
        (lambda norms, source, shown: selectivity(norms, source, np.ones(7, dtype=bool)), "no candidate in it"),
    ),
    "05.3": (
        (recursions(GRU_of_one_layer="wrong"), "1 of 5 differ, among them 'GRU of one"),
        (recursions(transformer="empty", GRU_of_two_layers="exact"), "2 of 5 differ"),
        (recursions(transformer="no"), "not 'no'"),
        ("exact", "dictionary"),
    ),
    "06.1": ((0.5, "still positive"), (0.2, "already negative"), (0.25 * 1.002, "slope"), (1.25, "between 0 and 1")),
    "06.2": (
        (0.600561, "before √H"),
        (2.1617, "1 − p_max"),
        (2.0381 * 0.998, "the bound there is 0.4"),
        ("2", "is 0.4"),
    ),
    "06.3": (
        (lambda p, slopes: p @ slopes, "softmax's Jacobian"),
        (lambda p, slopes: p * (p @ slopes), "diag(p) alone"),
        (lambda p, slopes: 1.001 * (p * (p @ slopes) - p * (p @ slopes @ p)), "first entry"),
        (lambda p, slopes: 0.0, "one number per logit"),
    ),
    "07.1": (
        (1.7354600, "κ itself"),
        (0.73546, "that is Λ/Σ"),
        (0.26454 * 1.005, "κ at p = ½"),
        (float("nan"), "finite"),
    ),
    "07.2": (
        (1.0, "half-right policy still"),
        (20.0, "begins"),
        (4.816981 * 1.03, "begins"),
        (4.816981 * 0.97, "still"),
        (-1, "positive"),
    ),
    "07.3": (
        (lambda score, gain: gain[score.argmax()], "the gain you get"),
        (lambda score, gain: gain[score.argmax()] - gain.max(), "never negative"),
        (lambda score, gain: gain.max() - score.max(), "no gain"),
        (lambda score, gain: gain.max() - gain[score.argmin()], "it is"),
        (lambda score, gain: 1.001 * (gain.max() - gain[score.argmax()]), "it is"),
    ),
    "08.1": ((0.5, "add as squares"), (1.0, "is not 1"), (0.7071 * 1.001, "σ = μ"), (float("nan"), "finite")),
    "08.2": (
        (lambda p, p0: p * (1 - p) / (p0 * (1 - p0)), "factor κ(p)"),
        (lambda p, p0: coin_speed(p, p0) * p * (1 - p) / (p0 * (1 - p0)), "the speed of p"),
        (lambda p, p0: 1 / coin_speed(p, p0), "upside down"),
        (lambda p, p0: 1.001 * coin_speed(p, p0), "yours gives"),
    ),
    "08.3": ((8, "9 of 8"), (10, "so will fewer"), (9.5, "whole number"), (0, "does not exist")),
    "09.1": (
        (sum, "keeps them all"),
        (max, "two are on the disk"),
        (lambda sizes: 2 * max(sizes) if len(sizes) > 1 else max(sizes), "need not be equal"),
        (lambda sizes: sum(sorted(sizes)[-2:]), "unless they follow"),
        (lambda sizes: 1.001 * max(a + b for a, b in zip(sizes, [*sizes[1:], 0], strict=True)), "it is 12"),
        (lambda sizes: max(a + b for a, b in pairwise(sizes)), "ValueError"),
    ),
    "09.2": (
        (8, "from other answers"),
        (9, "two answers outside"),
        (16, "content with fewer"),
        (4, "that is Σ"),
        (12, "begin at 6"),
        ("ten", "one number"),
    ),
    "09.3": (
        (changes(label="neither"), "1 of 6 differ, among them 'a label"),
        (changes(comment="neither", seed="rl"), "2 of 6 differ, among them 'a comment"),
        (changes(rate="both"), "among them 'the learning rate'"),
        (changes(moves="yes"), "not 'yes'"),
        ({"a label of a label task": "both"}, "a dictionary with the keys"),
        ("both", "dictionary"),
    ),
    "10.1": (
        (29.194, "weights alone"),
        (58.389, "two moments more"),
        (87.583, "m and v"),
        (14.597, "four bytes"),
        (116.778 * 1.004, "is not 117.245"),
        (float("inf"), "finite"),
    ),
    "10.2": (
        (lambda flops, bandwidth: flops / bandwidth / 2, "belongs above"),
        (lambda flops, bandwidth: bandwidth / flops / 2, "upside down"),
        (lambda flops, bandwidth: 2.002 * flops / bandwidth, "yours gives"),
        (lambda flops, bandwidth: 200.0, "it is 320"),
    ),
    "10.3": (
        (60, "one thing after the other"),
        (40, "last rung is not"),
        (22, "a download takes longer"),
        (30, "120 s"),
    ),
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


def test_the_table_of_recursions_is_what_happens(exercises: ModuleType) -> None:
    """The answer of exercise 05.3, computed for random weights."""
    from vgrad_lab.sequence.credit_flow import empirical_costate
    from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec, TokenOnly
    from vgrad_lab.sequence.recursion import immediate_credit, one_step_recursion
    from vgrad_lab.sequence.trace import trace
    from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

    rng = np.random.default_rng(0)
    tokens, advantage = (torch.from_numpy(rng.integers(0, 3, (2, 4))) for _ in range(2)), rng.standard_normal((2, 4))
    inputs, targets = tokens
    states = (
        (Transformer(TransformerSpec(3), seed=0), 0),
        (Transformer(TransformerSpec(3), seed=0), 2),
        (GRU(RecurrentSpec(3), seed=0), 1),
        (GRU(RecurrentSpec(3, layers=2), seed=0), 1),
        (TokenOnly(RecurrentSpec(3), seed=0), 1),
    )
    for (case, said), (model, layer) in zip(exercises.find("05.3").answer.items(), states, strict=True):
        result = trace(model, inputs)
        exact = empirical_costate(result, targets, advantage)[layer]
        guess = one_step_recursion(result, targets, advantage, layer=layer)
        same = float((guess - exact).norm()) < 1e-12 * float(exact.norm())
        own = float((immediate_credit(result, targets, advantage)[layer] - exact).norm()) < 1e-12 * float(exact.norm())
        assert {"exact": (True, False), "empty": (True, True), "wrong": (False, False)}[said] == (same, own), case


def test_the_table_of_estimators_is_what_happens(exercises: ModuleType) -> None:
    """The answer of exercise 03.4, computed: two rewards, answers of two tokens."""
    from vgrad_lab.discrete.estimator_moments import row
    from vgrad_lab.discrete.estimator_types import random_problem
    from vgrad_lab.discrete.estimators import ESTIMATORS

    for seed in (0, 1):
        problem = random_problem(3, 2, end=None, binary=True, seed=seed)
        for name, said in exercises.find("03.4").answer.items():
            found = row(ESTIMATORS[name], problem, group=4)
            assert found.residual < 1e-12, name
            assert said == ("exact" if abs(found.scale - 1) < 1e-12 else "scaled"), name


def test_the_fewest_answers_of_an_alignment(exercises: ModuleType) -> None:
    """The answer of exercise 09.2: one answer fewer and there is no number, with so many there is."""
    from vgrad_lab.checkpoints.group_signal import GroupRule, estimate_signal

    fewest = exercises.find("09.2").answer
    rng = np.random.default_rng(0)
    reward, score = np.tile([0.0, 1.0], (4, 8)), rng.standard_normal((4, 16, 3))
    gram = score @ score.transpose(0, 2, 1)
    for answers in range(4, 16):
        found = estimate_signal(reward[:, :answers], gram[:, :answers, :answers], GroupRule(8))
        assert (found.alignment.value is not None) == (answers >= fewest)


def test_the_table_of_unit_ids_is_what_happens(
    exercises: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of exercise 09.3, computed from tasks on disk."""
    from dataclasses import replace

    from vgrad_lab.checkpoints.grpo import GrpoSettings
    from vgrad_lab.checkpoints.ladders import Rung
    from vgrad_lab.checkpoints.probe import MeasureSettings
    from vgrad_lab.checkpoints.sampled_grpo import settings_for
    from vgrad_lab.checkpoints.sampled_tasks import Task
    from vgrad_lab.checkpoints.sweep import rung_units
    from vgrad_lab.checkpoints.task_files import task_of
    from vgrad_lab.checkpoints.tasks import LabelCopy

    def ids(task: Task, *, alpha: float = 1.0, rate: float = 1e-4, seeds: tuple[int, ...] = (0,)) -> dict[str, str]:
        rl = settings_for(task, GrpoSettings(learning_rate=rate))
        rung, measures = Rung(1, tmp_path, "checkpoint-1"), MeasureSettings(alpha=alpha)
        units = rung_units(rung, "0" * 64, task, measures=measures, rl=(rl,), seeds=seeds)
        return {u.stage: u.id for u in units if u.seed == 0}

    def marked(prompts: str = "prompts.txt") -> Task:
        reward = {"kind": "importable", "function": "marks_of_09:score"}
        given = {"kind": "sampled", "prompts": prompts, "held_out": 0, "reward": reward}
        return task_of(given, tmp_path, "here")

    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "marks_of_09.py"
    module.write_text("def score(prompt, completion, row):\n    return 1.0\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    sampled, labels = marked(), LabelCopy()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "prompts.txt").rename(tmp_path / "elsewhere" / "prompts.txt")
    moved = marked("elsewhere/prompts.txt")
    (tmp_path / "elsewhere" / "prompts.txt").rename(tmp_path / "prompts.txt")
    module.write_text(module.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    cases = {
        "a label of a label task": (ids(labels), ids(replace(labels, labels=("A", "B", "C", "E")))),
        "a comment in the file of the reward function": (ids(sampled), ids(marked())),
        "α of the headroom": (ids(sampled), ids(sampled, alpha=2.0)),
        "the learning rate": (ids(sampled), ids(sampled, rate=2e-4)),
        "a second seed is added": (ids(sampled), ids(sampled, seeds=(0, 1))),
        "the prompts file moves to another folder": (ids(sampled), ids(moved)),
    }
    words = {(True, True): "both", (True, False): "measure", (False, True): "rl", (False, False): "neither"}
    found = {case: words[(a["measure"] != b["measure"], a["rl"] != b["rl"])] for case, (a, b) in cases.items()}
    assert found == exercises.find("09.3").answer


def test_an_unknown_exercise(exercises: ModuleType) -> None:
    with pytest.raises(ValueError, match="there are 00.1"):
        exercises.check("99.1", None)
