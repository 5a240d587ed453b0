"""Ledger entries of the sequence floor."""

from vgrad_lab.ledger.types import Statement

SEQUENCE: tuple[Statement, ...] = ()
