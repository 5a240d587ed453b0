"""Tests of TRL's own code hold for one version of it: elsewhere they are left out by deselection, not skipped."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def pinned(name: str) -> str:
    """Version of a package in constraints.txt."""
    found = re.search(rf"^{name}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{name} is not pinned in constraints.txt"
    return found[1]


def installed(name: str) -> str | None:
    """Version that is installed, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pinned_trl: reads TRL's internals; left out unless TRL is the pinned version")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``pinned_trl`` where another TRL, or none, is installed."""
    if installed("trl") == pinned("trl"):
        return
    left_out = [item for item in items if item.get_closest_marker("pinned_trl")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("pinned_trl")]
