"""The store: atomic, deterministic, forgiving of damage, unforgiving of NaN."""

import json
import os
from pathlib import Path

import pytest

from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.errors import UserError


def record(unit: str, step: int = 1, **more: object) -> dict[str, object]:
    base = {"unit": unit, "stage": "measure", "protocol": "p", "seed": 0, "checkpoint": {"step": step}}
    return {**base, "status": "done", **more}


def test_export_is_sorted_and_repeats_byte_for_byte(tmp_path: Path) -> None:
    for unit, step in (("b", 20), ("a", 100), ("c", 3)):
        store.publish(tmp_path, record(unit, step), seconds=1.5)
    first = store.export(tmp_path).read_bytes()
    assert [json.loads(line)["unit"] for line in first.splitlines()] == ["c", "b", "a"]
    assert store.export(tmp_path).read_bytes() == first
    assert "seconds" not in first.decode()
    assert len((tmp_path / "timings.jsonl").read_text().splitlines()) == 3


def test_a_later_record_replaces_the_failed_one(tmp_path: Path) -> None:
    store.publish(tmp_path, record("a", status="failed"))
    store.publish(tmp_path, record("a"))
    assert store.read_records(tmp_path)["a"]["status"] == "done"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"unit"', "\x00\x00"])
def test_a_damaged_file_is_set_aside_and_run_again(tmp_path: Path, damage: str) -> None:
    store.publish(tmp_path, record("a"))
    store.publish(tmp_path, record("b"))
    (tmp_path / "units" / "a.json").write_text(damage)
    assert list(store.read_records(tmp_path)) == ["b"]
    assert (tmp_path / "units" / "a.corrupt").exists()


def test_a_crash_before_the_rename_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        store.publish(tmp_path, record("a"))
    assert store.read_records(tmp_path) == {}


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="[Nn]a[Nn]|JSON"):
        store.publish(tmp_path, record("a", result={"x": float("nan")}))
    assert store.read_records(tmp_path) == {}


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write .* choose a folder"):
        store.publish(blocked, record("a"))


def test_digest_sees_every_value_and_no_order() -> None:
    assert store.digest({"a": 1, "b": [1, 2]}) == store.digest({"b": [1, 2], "a": 1})
    assert store.digest({"a": 1}) != store.digest({"a": 2})
