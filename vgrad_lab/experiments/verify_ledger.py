"""Run the ledger's checks and counterexamples and tabulate them: statement, verdict, residual."""

import re
from typing import Any

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.ledger import LEDGER, Statement
from vgrad_lab.ledger.audit import load


def select(only: list[str] | None) -> list[Statement]:
    """Statements by id (S08, with its corrections), by the paper's name (lemma-1, prop. 2, eq. 11); all for none given.

    Raises UserError for a name that matches nothing.
    """
    if not only:
        return list(LEDGER.values())
    found: set[str] = set()
    for wanted in only:
        named = {s.id for s in LEDGER.values() if s.id.lower() == wanted.lower() or _plain(wanted) in _names(s)}
        if not named:
            raise UserError(f"no statement {wanted!r}; names are lemma-1, prop-1, eq-11, … and ids {', '.join(LEDGER)}")
        found |= {i for i in LEDGER if any(i == n or i.startswith(f"{n}.") for n in named)}
    return [s for s in LEDGER.values() if s.id in found]


def _plain(name: str) -> str:
    """A name of the paper without punctuation and with its usual abbreviation: 'Proposition 2' is 'prop 2'."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    short = {
        "proposition": "prop",
        "corollary": "cor",
        "definition": "def",
        "thm": "theorem",
        "eqs": "eq",
        "equation": "eq",
    }
    return " ".join(short.get(word, word) for word in words)


def _names(s: Statement) -> set[str]:
    """The paper's names of a statement, read off ``where``: 'Lemma 1, eq. 10' has two."""
    return {_plain(part) for part in s.where.split(",")}


def _run_check(dotted: str, seed: int, examples: int) -> dict[str, Any]:
    try:
        evidence = load(dotted)(seed=seed, examples=examples)
    except ModuleNotFoundError as error:
        return {"outcome": "not run", "detail": f"needs {error.name}: pip install 'vgrad_lab[checkpoints]'"}
    outcome = "passed" if evidence.passed else "FAILED"
    return {
        "outcome": outcome,
        "residual": float(evidence.residual),
        "tolerance": evidence.tolerance,
        "detail": evidence.detail,
    }


def _run_counterexample(dotted: str) -> dict[str, Any]:
    try:
        case = load(dotted)()
    except ModuleNotFoundError as error:
        return {"outcome": "not run", "detail": f"needs {error.name}: pip install 'vgrad_lab[checkpoints]'"}
    return {
        "outcome": "refuted" if case.refutes else "FAILED",
        "claimed": float(case.claimed),
        "true": float(case.true),
        "detail": case.detail,
    }


def run(*, only: list[str] | None = None, seed: int = 0, examples: int = 20) -> list[dict[str, Any]]:
    """One row per check or counterexample; statements without either get a row that says so."""
    rows: list[dict[str, Any]] = []
    for s in select(only):
        head = {"id": s.id, "verdict": str(s.status), "where": s.where}
        found = [{**head, "check": e, **_run_check(e, seed, examples)} for e in s.evidence]
        if s.counterexample:
            found.append({**head, "check": s.counterexample, **_run_counterexample(s.counterexample)})
        tested = f"{len(s.tests)} tests, no stand-alone check" if s.tests else "no check in this project yet"
        rows += found or [{**head, "check": None, "outcome": "–", "detail": tested}]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text with a closing count."""
    cells = [("id", "verdict", "outcome", "residual (≤ tolerance) or claimed ≠ true", "what was checked")]
    for row in rows:
        if "residual" in row:
            value = f"{row['residual']:.1e} (≤ {row['tolerance']:.0e})"
        elif "claimed" in row:
            value = f"{row['claimed']:.5g} ≠ {row['true']:.5g}"
        else:
            value = "–"
        cells.append((row["id"], row["verdict"], row["outcome"], value, row["detail"]))
    widths = [max(len(c[i]) for c in cells) for i in range(4)]
    lines = ["  ".join([*(c[i].ljust(widths[i]) for i in range(4)), c[4]]) for c in cells]
    count = {k: sum(r["outcome"] == k for r in rows) for k in ("passed", "refuted", "FAILED", "not run")}
    lines.insert(1, "  ".join("─" * w for w in widths))
    closing = ", ".join(f"{n} {k}" for k, n in count.items() if n)
    return "\n".join([*lines, "", f"{len({r['id'] for r in rows})} statements: {closing}"])
