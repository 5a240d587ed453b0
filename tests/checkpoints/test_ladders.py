"""Which folders are rungs, in what order, and what is said where there are none."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.checkpoints.embedded.pretrain import TINY, checkpoint_steps
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import RUNG_NAME, Rung, list_rungs, rung_name


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_rungs_of_a_real_ladder(tiny_ladder: Path) -> None:
    rungs = list_rungs(tiny_ladder)
    assert tuple(rung.step for rung in rungs) == checkpoint_steps(TINY)
    assert rungs[0] == Rung(step=10, path=tiny_ladder / "step000010", name="step000010")


def test_rungs_are_sorted_by_step_and_unfinished_ones_left_out(tmp_path: Path) -> None:
    for name in ("step20", "step000100", "step3", ".unfinished-step000200-7", "step4-old", "final"):
        checkpoint(tmp_path / name)
    (tmp_path / "step000300").mkdir()
    (tmp_path / "step000300" / "config.json").write_text("{}")
    (tmp_path / "step000400").write_text("a file")
    assert [rung.name for rung in list_rungs(str(tmp_path))] == ["step3", "step20", "step000100"]


@given(st.integers(0, 10**9))
def test_names_read_back(step: int) -> None:
    match = RUNG_NAME.fullmatch(rung_name(step))
    assert match
    assert int(match[1]) == step


def test_what_is_no_ladder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it does not exist; make one with `vgrad ladder pretrain"):
        list_rungs(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; a ladder is a folder"):
        list_rungs(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint; expected sub-folders named step<number>"):
        list_rungs(tmp_path / "empty")
    with pytest.raises(UserError, match="is one checkpoint, not a ladder; give the folder above it"):
        list_rungs(checkpoint(tmp_path / "step000100"))
