"""Tests that read TRL's internals are left out under another version of TRL, and only they."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.integrations import conftest


class Item:
    """A collected test with its markers."""

    def __init__(self, *markers: str) -> None:
        self.markers = markers

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.markers else None


@pytest.mark.parametrize(
    ("found", "kept"), [("pinned", 2), ("0.0.1", 1), (None, 1)], ids=["pinned", "another", "not installed"]
)
def test_left_out_under_another_version(monkeypatch: pytest.MonkeyPatch, found: str | None, kept: int) -> None:
    monkeypatch.setattr(conftest, "installed", lambda _: conftest.pinned("trl") if found == "pinned" else found)
    deselected: list[Any] = []
    config: Any = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items)))
    collected: Any = [Item("slow", "pinned_trl"), Item("slow")]
    conftest.pytest_collection_modifyitems(config, collected)
    assert len(collected) == kept
    assert len(deselected) == 2 - kept
    assert all(item.get_closest_marker("pinned_trl") for item in deselected)


def test_versions() -> None:
    assert conftest.pinned("numpy").count(".") == 2
    assert conftest.installed("numpy")
    assert conftest.installed("no-such-package") is None
    with pytest.raises(AssertionError, match="not pinned"):
        conftest.pinned("no-such-package")
