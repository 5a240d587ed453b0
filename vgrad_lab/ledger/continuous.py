"""Ledger entries of the continuous floor."""

from vgrad_lab.ledger.types import Statement

CONTINUOUS: tuple[Statement, ...] = ()
