"""Run the ledger's checks and counterexamples and tabulate them: statement, verdict, residual."""

import math
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.ledger import LEDGER, Statement
from vgrad_lab.ledger.audit import load
from vgrad_lab.provenance import versions


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
    evidence = load(dotted)(seed=seed, examples=examples)
    return {
        "outcome": "passed" if evidence.passed else "FAILED",
        "residual": float(evidence.residual),
        "tolerance": float(evidence.tolerance),
        "detail": evidence.detail,
    }


def _run_counterexample(dotted: str) -> dict[str, Any]:
    case = load(dotted)()
    return {
        "outcome": "refuted" if case.refutes else "FAILED",
        "claimed": float(case.claimed),
        "true": float(case.true),
        "detail": case.detail,
    }


def _guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of one check; one that raises gives a row too: "not run" without an extra, "FAILED" otherwise."""
    try:
        return work()
    except ModuleNotFoundError as error:
        if not (error.name or "vgrad_lab").startswith("vgrad_lab"):
            return {"outcome": "not run", "detail": f"needs {error.name}: pip install 'vgrad_lab[checkpoints]'"}
        return _raised(error)
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> dict[str, Any]:
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return {"outcome": "FAILED", "detail": f"raised {text} ({Path(last.filename).name}:{last.lineno})"}


def rows(
    *, only: list[str] | None = None, seed: int = 0, examples: int = 20, progress: bool = False
) -> Iterator[dict[str, Any]]:
    """One row per check or counterexample as it is done; statements without either get a row that says so.

    progress: a bar on stderr, if that is a terminal. Raises UserError for a name in ``only`` that matches nothing.
    """
    chosen = select(only)
    with tqdm(total=len(chosen), desc="verify", unit="statement", disable=None if progress else True) as bar:
        for s in chosen:
            bar.set_postfix_str(s.id)
            head = {"id": s.id, "verdict": str(s.status), "where": s.where}
            checks: list[tuple[str, Callable[[], dict[str, Any]]]]
            checks = [(name, partial(_run_check, name, seed, examples)) for name in s.evidence]
            if s.counterexample:
                checks.append((s.counterexample, partial(_run_counterexample, s.counterexample)))
            for name, work in checks:
                yield {**head, "check": name, **_guarded(work)}
            if not checks:
                tested = f"{len(s.tests)} tests, no stand-alone check" if s.tests else "no check in this project yet"
                yield {**head, "check": None, "outcome": "–", "detail": tested}
            bar.update()


def run(*, only: list[str] | None = None, seed: int = 0, examples: int = 20) -> list[dict[str, Any]]:
    """All of ``rows``."""
    return list(rows(only=only, seed=seed, examples=examples))


def failed(found: list[dict[str, Any]]) -> bool:
    """True when a check did not pass, raised, or a counterexample did not refute."""
    return any(row["outcome"] == "FAILED" for row in found)


def document(
    found: list[dict[str, Any]], *, only: list[str] | None, seed: int, examples: int, complete: bool = True
) -> dict[str, Any]:
    """What ``vgrad verify`` writes as JSON: command, versions, seed, examples, counts, rows.

    complete: False after an interrupt. A residual that is not finite is null (JSON has no NaN) and its row FAILED or,
    for a counterexample, as its outcome says. The same arguments and versions give the same document.
    """
    names = "".join(f" --only {name!r}" if " " in name else f" --only {name}" for name in only or ())
    return {
        "command": f"vgrad verify{names or ' --all'} --seed {seed} --examples {examples}",
        "versions": versions(),
        "device": "cpu",
        "seed": seed,
        "examples": examples,
        "complete": complete,
        "statements": len({row["id"] for row in found}),
        "counts": {k: n for k, n in _counts(found).items() if n},
        "rows": [{k: _finite(v) for k, v in row.items()} for row in found],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _counts(found: list[dict[str, Any]]) -> dict[str, int]:
    return {k: sum(row["outcome"] == k for row in found) for k in ("passed", "refuted", "FAILED", "not run", "–")}


def table(found: list[dict[str, Any]]) -> str:
    """The rows as aligned text with a closing count."""
    cells = [("id", "verdict", "outcome", "residual (≤ tolerance) or claimed ≠ true", "what was checked")]
    for row in found:
        if "residual" in row:
            value = f"{row['residual']:.1e} (≤ {row['tolerance']:.0e})"
        elif "claimed" in row:
            value = f"{row['claimed']:.5g} ≠ {row['true']:.5g}"
        else:
            value = "–"
        cells.append((row["id"], row["verdict"], row["outcome"], value, row["detail"]))
    widths = [max(len(c[i]) for c in cells) for i in range(4)]
    lines = ["  ".join([*(c[i].ljust(widths[i]) for i in range(4)), c[4]]) for c in cells]
    lines.insert(1, "  ".join("─" * w for w in widths))
    closing = ", ".join(f"{n} {k if k != '–' else 'without a check'}" for k, n in _counts(found).items() if n)
    return "\n".join([*lines, "", f"{len({r['id'] for r in found})} statements: {closing}"])
