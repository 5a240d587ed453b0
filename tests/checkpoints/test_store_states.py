"""Any order of publishing, damage, claims and crashes: the store against a dictionary that remembers."""

import json
import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vgrad_lab.checkpoints import claims, store

UNITS, OWNERS = st.sampled_from("abc"), st.sampled_from(["x", "y", "z"])


def record(unit: str, value: int, status: str) -> dict[str, object]:
    base = {"unit": unit, "stage": "s", "protocol": "p", "seed": 0, "checkpoint": {"step": 1}}
    return {**base, "status": status, "result": value}


class StoreMachine(RuleBasedStateMachine):
    """Records and holders as they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = tempfile.TemporaryDirectory()
        self.folder = Path(self.keep.name)
        self.records: dict[str, dict[str, object]] = {}
        self.holder: dict[str, str] = {}

    def teardown(self) -> None:
        self.keep.cleanup()

    @rule(unit=UNITS, value=st.integers(), status=st.sampled_from(["done", "failed"]))
    def publish(self, unit: str, value: int, status: str) -> None:
        store.publish(self.folder, record(unit, value, status), seconds=1.0)
        self.records[unit] = record(unit, value, status)

    @rule(unit=UNITS)
    def crash_before_rename(self, unit: str) -> None:
        (self.folder / store.UNITS).mkdir(exist_ok=True)
        (self.folder / store.UNITS / f".unfinished-{unit}.json-1").write_text('{"unit"')

    @precondition(lambda self: self.records)
    @rule(data=st.data(), damage=st.sampled_from(["", "{", "[]", "\x00", "null", "3"]))
    def damage(self, data: st.DataObject, damage: str) -> None:
        unit = data.draw(st.sampled_from(sorted(self.records)))
        (self.folder / store.UNITS / f"{unit}.json").write_text(damage)
        del self.records[unit]

    @rule(tail=st.sampled_from(["", '{"unit": "a", "st', "\x00\x00"]))
    def damage_the_export(self, tail: str) -> None:
        """A torn tail of records.jsonl is gone with the next export: the units are the truth."""
        path = self.folder / "records.jsonl"
        with path.open("a") as stream:
            stream.write(tail)

    @rule(unit=UNITS, owner=OWNERS)
    def take(self, unit: str, owner: str) -> None:
        claim = claims.take(self.folder, unit, owner=owner, lease=1e6)
        assert (claim is not None) == (unit not in self.holder)
        if claim is not None:
            assert claims.still_held(claim)
            self.holder[unit] = owner

    @rule(unit=UNITS, owner=OWNERS)
    def release(self, unit: str, owner: str) -> None:
        claims.release(self.folder, unit, owner)
        if self.holder.get(unit) == owner:
            del self.holder[unit]

    @rule(unit=UNITS)
    def lease_ends(self, unit: str) -> None:
        for path in (self.folder / claims.CLAIMS).glob(f"{unit}.*"):
            os.utime(path, (1, 1))
        self.holder.pop(unit, None)

    @rule(unit=UNITS)
    def forget(self, unit: str) -> None:
        claims.forget(self.folder, unit)
        self.holder.pop(unit, None)

    @invariant()
    def agrees(self) -> None:
        assert store.read_records(self.folder) == self.records
        for unit in "abc":
            assert store.read_record(self.folder, unit) == self.records.get(unit)
            assert claims.is_held(self.folder, unit, lease=1e6) == (unit in self.holder)

    @rule()
    def export(self) -> None:
        rows = [json.loads(line) for line in store.export(self.folder).read_text().splitlines()]
        assert {row["unit"]: row for row in rows} == self.records


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestStore = StoreMachine.TestCase
