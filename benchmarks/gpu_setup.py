"""What benchmarks/gpu.py does before the package is imported, and what every part of it is given."""

import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = {
    "torch": "2.11", "transformers": "5.17", "tokenizers": "0.22", "safetensors": "0.5", "numpy": "2.0",
    "scipy": "1.13", "matplotlib": "3.9", "jaxtyping": "0.3", "tqdm": "4.66",
}  # fmt: skip
"""Package -> oldest version that will do."""
STAND_INS = ("gymnasium",)
"""Imported by ``import vgrad_lab`` to register environments that no part here makes: an empty one will do."""


def problems(required: dict[str, str] | None = None) -> list[str]:
    """A sentence for each package that is missing or too old."""
    found = []
    for name, oldest in (REQUIRED if required is None else required).items():
        if importlib.util.find_spec(name) is None:
            found.append(f"{name} is missing (at least {oldest} is needed)")
            continue
        try:
            there = version(name)
        except PackageNotFoundError:
            continue
        if numbers(there) < numbers(oldest):
            found.append(f"{name} is {there}, at least {oldest} is needed")
    return found


def numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version: 2.11.0+cu130 -> (2, 11, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


def prepare() -> tuple[str, ...]:
    """Make the checkout importable; leave with a line for each problem; names of the stand-ins that were needed."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    if wrong := problems():
        advice = "install them, or carry their wheels where there is no network (pip download NAME, then pip install "
        sys.exit("\n".join([*wrong, advice + "--no-index --no-deps --target FOLDER *.whl and PYTHONPATH=FOLDER)"]))
    needed = tuple(name for name in STAND_INS if importlib.util.find_spec(name) is None)
    for name in needed:
        sys.modules[name] = stand_in(name)
    return needed


def stand_in(name: str) -> ModuleType:
    """A module that takes registrations and holds nothing else."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.registry = {}  # type: ignore[attr-defined]
    module.register = lambda id, entry_point: None  # type: ignore[attr-defined]
    return module


@dataclass(frozen=True)
class Job:
    """What a part is given.

    device: in the words of torch. tiny: sizes for a test on a CPU. work: folder of checkpoints and records, kept
    between calls. until: time.monotonic() at which the part is stopped. rates: what the card does, of part `rates`.
    report: file of the part's result so far.
    """

    device: str
    tiny: bool
    work: Path
    until: float
    rates: dict[str, Any]
    report: Path

    @property
    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.until - time.monotonic()

    def save(self, result: dict[str, Any], *, status: str = "running", error: str | None = None) -> None:
        """Write what is known so far, so that a stopped part leaves it."""
        text = json.dumps({"status": status, "error": error, "result": plain(result)}, ensure_ascii=False)
        temporary = self.report.with_suffix(".writing")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.report)


Part = Callable[[Job], dict[str, Any]]


def plain(value: Any) -> Any:
    """JSON has no NaN: null stands for undefined."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
