"""Every tutorial runs from top to bottom in a fresh kernel, and its notebook holds the same cells."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))


def test_there_are_tutorials() -> None:
    assert len(TUTORIALS) >= 2


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


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_notebook_is_in_step_with_its_source(path: Path) -> None:
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    source = jupytext.read(path)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in source.cells], (
        f"{path.stem}.ipynb is stale; run `make docs`"
    )
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code), "every cell was executed"
    plotting = sum("plt.show()" in c.source for c in code)
    pictures = sum("image/png" in o.get("data", {}) for c in code for o in c.outputs)
    assert pictures >= plotting, "the notebook was executed without pictures"
