"""The house rules that a reader would otherwise have to trust: floors, sizes, docstrings, light import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vgrad_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOOR = {
    "tolerances": 0, "notation": 0, "stats": 0, "registration": 0, "provenance": 0, "ledger": 0, "__init__": 0,
    "advantage": 1, "impact": 1, "one_step": 1, "ray": 1, "simplex": 1, "verify": 1, "strategies": 1,
    "continuous": 2, "discrete": 2, "sequence": 2,
    "checkpoints": 3, "integrations": 3,
    "experiments": 4, "cli": 4, "__main__": 4,
}  # fmt: skip
ALLOWED_BELOW_2 = {"numpy", "scipy", "jaxtyping", "hypothesis", "vgrad_lab", "gymnasium"}
NO_TORCH = {"torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "trl"}


def room(path: Path) -> str:
    """First name below the package: the room a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every absolute module named by an import statement anywhere in a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the absolute name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def check_floor(importer: str, imported: str) -> str | None:
    """Sentence that says what is wrong with one import between rooms, or None."""
    if imported == importer or imported not in FLOOR:
        return None
    if FLOOR[importer] < FLOOR[imported]:
        return f"{importer} (floor {FLOOR[importer]}) imports {imported} (floor {FLOOR[imported]}): imports point down"
    if FLOOR[importer] == FLOOR[imported] == 2:
        return f"{importer} imports its sibling {imported}"
    return None


def test_check_floor_finds_what_it_must() -> None:
    assert check_floor("impact", "sequence")
    assert check_floor("continuous", "sequence")
    assert check_floor("checkpoints", "impact") is None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_obeys_the_house(path: Path) -> None:
    here = room(path)
    assert here in FLOOR, f"{here} has no floor; add it to FLOOR (and to the design) first"
    names = imports(path)
    rooms = {n.split(".")[1] for n in names if n.startswith("vgrad_lab.") and n.split(".")[1] in FLOOR}
    wrong = [problem for other in sorted(rooms) if (problem := check_floor(here, other))]
    assert not wrong, wrong
    roots = {n.split(".")[0] for n in names}
    if FLOOR[here] < 2 or here == "continuous":
        assert not roots & NO_TORCH, f"{here} must not import {roots & NO_TORCH}"
    if here not in ("strategies",):
        assert "hypothesis" not in roots
    assert not roots & {"pickle", "dill", "shelve"}, "no pickle"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sizes_and_docstrings(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= 300, "a module holds at most 300 lines"
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines; at most 50"
            if not node.name.startswith("_") and node in tree.body:
                assert ast.get_docstring(node), f"{node.name} needs a docstring"


def test_no_remote_code_and_no_private_paths() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert "weights_only=False" not in text


def test_import_is_light() -> None:
    heavy = ("torch", "transformers", "scipy", "matplotlib")
    code = f"import sys, vgrad_lab; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_import_is_quick() -> None:
    """Under 0.3 s of processor time: the best of five processes, each timing its own import."""
    code = "import time; t = time.process_time(); import vgrad_lab; print(time.process_time() - t)"
    command = [sys.executable, "-c", code]
    times = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(times) < 0.3
