"""Ledger entries of the impact floor."""

from vgrad_lab.ledger.types import Statement

IMPACT: tuple[Statement, ...] = ()
