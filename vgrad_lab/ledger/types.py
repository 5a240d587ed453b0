"""Types of the ledger: a statement, its status, and what a deterministic check returns."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Verdict on a statement; the invariants in ``ledger.validate`` keep it honest."""

    HOLDS = "HOLDS"
    HOLDS_UNDER = "HOLDS_UNDER"
    FAILS_AS_WRITTEN = "FAILS_AS_WRITTEN"
    VACUOUS = "VACUOUS"
    EMPIRICAL = "EMPIRICAL"
    OPEN = "OPEN"


@dataclass(frozen=True)
class Evidence:
    """Outcome of a deterministic check of a statement: ``residual ≤ tolerance`` means it passed.

    residual: largest deviation seen (relative or absolute as ``detail`` says); NaN never passes.
    """

    residual: float
    tolerance: float
    detail: str

    @property
    def passed(self) -> bool:
        """True when the residual is a number within the tolerance."""
        return self.residual <= self.tolerance


@dataclass(frozen=True)
class Counterexample:
    """A case in which a claim is false: the claimed value, the true one, and how far apart they must be.

    margin: the smallest |claimed − true| for which the counterexample counts.
    """

    claimed: float
    true: float
    margin: float
    detail: str

    @property
    def refutes(self) -> bool:
        """True when claimed and true differ by at least the margin (NaN never refutes)."""
        return abs(self.claimed - self.true) >= self.margin


@dataclass(frozen=True)
class Statement:
    """One claim of a paper, or one of this project's corrections, with its verdict.

    where: equation or section; ``derived here`` for a correction.
    assumptions: what the claim needs; each has a test that drops it, or says ``(necessity unknown)``.
    uses: ids of the statements its proof leans on.
    tests: pytest node ids, ``tests/…py::test_…``.
    evidence: dotted names ``module:function`` of checks that return ``Evidence``.
    counterexample: dotted name of a function that returns ``Counterexample``.
    corrected_by: ids of the statements that say what is true instead.
    """

    id: str
    where: str
    claim: str
    status: Status
    assumptions: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    counterexample: str | None = None
    corrected_by: tuple[str, ...] = ()
    note: str = ""
