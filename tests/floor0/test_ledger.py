"""The ledger's invariants hold, its references resolve, its pages are up to date, and the auditor can fail."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vgrad_lab import notation
from vgrad_lab.ledger import LEDGER, Counterexample, Evidence, Statement, Status
from vgrad_lab.ledger.audit import NECESSITY_UNKNOWN, load, page, problems, summary_table

ROOT = Path(__file__).parents[2]


def test_no_broken_invariant() -> None:
    assert problems(LEDGER) == []


@pytest.mark.parametrize("s", LEDGER.values(), ids=lambda s: s.id)
def test_dotted_names_resolve(s: Statement) -> None:
    for name in (*s.evidence, *([s.counterexample] if s.counterexample else [])):
        assert load(name).__doc__, f"{name} says what it checks"


def test_every_named_test_collects() -> None:
    named = {t for s in LEDGER.values() for t in s.tests}
    files = sorted({t.split("::")[0] for t in named})
    out = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *files], capture_output=True, text=True, cwd=ROOT
    )
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-2000:]
    collected = {line.split("[")[0] for line in out.stdout.splitlines() if "::" in line}
    assert named <= collected, f"named in the ledger but not collected: {sorted(named - collected)}"


@pytest.mark.parametrize("s", LEDGER.values(), ids=lambda s: s.id)
def test_each_assumption_is_dropped_somewhere(s: Statement) -> None:
    unknown = sum(NECESSITY_UNKNOWN in a for a in s.assumptions)
    if s.status is Status.HOLDS_UNDER:
        assert len(s.tests) >= 1 + len(s.assumptions) - unknown, f"{s.id}: one test per assumption that drops it"


GOOD = Statement("X1", "nowhere", "claim", Status.HOLDS, tests=("tests/x.py::test_x",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": ()}, "names no test"),
        ({"status": Status.HOLDS_UNDER}, "lists no assumption"),
        ({"status": Status.FAILS_AS_WRITTEN}, "no counterexample"),
        ({"status": Status.EMPIRICAL}, "no measured value"),
        ({"uses": ("X9",)}, "not in the ledger"),
        ({"uses": ("X2",)}, "which is OPEN"),
        ({"uses": ("X1",)}, "circle"),
    ],
)
def test_the_auditor_finds_each_fault(change: dict[str, object], message: str) -> None:
    bad = dataclasses.replace(GOOD, **change)
    other = Statement("X2", "nowhere", "claim", Status.OPEN)
    assert any(message in p for p in problems({"X1": bad, "X2": other}))
    assert problems({"X1": GOOD, "X2": other}) == []


def test_ids_are_unique() -> None:
    from vgrad_lab.ledger import _ENTRIES

    assert len(LEDGER) == len(_ENTRIES)


def test_nan_neither_passes_nor_refutes() -> None:
    nan = float("nan")
    assert not Evidence(nan, 1.0, "").passed
    assert not Counterexample(nan, 1.0, 0.1, "").refutes


def test_dotted_name_errors() -> None:
    with pytest.raises(ImportError, match="no dotted name"):
        load("vgrad_lab.stats.bootstrap")
    with pytest.raises(TypeError, match="not a function"):
        load("vgrad_lab.tolerances:ALGEBRA")


PROOFS = {path.stem for path in (ROOT / "docs" / "proofs").glob("[A-Z][0-9][0-9].md")}


@pytest.mark.parametrize(
    ("file", "text"), [("ledger.md", page(LEDGER, proofs=PROOFS)), ("notation.md", notation.page())]
)
def test_generated_page_is_committed(file: str, text: str) -> None:
    committed = (ROOT / "docs" / file).read_text(encoding="utf-8")
    assert committed == text, f"docs/{file} is stale; run `make docs`"


def test_notation_refers_to_known_statements() -> None:
    missing = {i for s in notation.SYMBOLS for i in s.ledger} - {i.split(".")[0] for i in LEDGER}
    assert not missing


def test_a_bar_in_a_claim_does_not_end_its_table_cell() -> None:
    table = summary_table({"X1": dataclasses.replace(GOOD, claim="E[r | q] = p")})
    assert "E[r \\| q] = p" in table
    assert len(re.findall(r"(?<!\\)\|", table.splitlines()[-1])) == 6
