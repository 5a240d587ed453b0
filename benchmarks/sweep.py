"""What the machinery of a sweep costs, and whether the prefetch hides downloads.

    python benchmarks/sweep.py --json docs/results/benchmark-sweep.json

(a) Overhead: units that sleep for ``--seconds`` (10) each, two at a time, each in a process of its own, with claims,
heartbeats, records and fsync as in any sweep. overhead = wall · workers / Σ seconds − 1; aim: below 5 %. The start of
the server of processes stands apart: once per sweep it imports torch and transformers. Units of no length give the
seconds that the machinery takes for one.

(b) Prefetch: rungs from a hub on 127.0.0.1 whose rate is throttled so that a download takes a quarter of ``--seconds``,
and work of 0.3 of them on each. Three walks in one run: downloads alone (D), work alone, from rungs that are there (W),
and both (T). share hidden = (D + W − T) / (D − D/n): the first download has nothing to hide behind.

Units sleep, but what a process costs grows with the load of the machine, which is recorded. Needs the checkout, whose
tests hold the hub.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.loopback_hub import Repository, blob, serve
from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.executors import LocalExecutor
from vgrad_lab.checkpoints.hub import fetch
from vgrad_lab.checkpoints.inventory import take_inventory
from vgrad_lab.checkpoints.ladder_walk import run_ladder
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.resolve import resolve
from vgrad_lab.checkpoints.schedule import run_units
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, LadderSpec
from vgrad_lab.checkpoints.store import canonical
from vgrad_lab.provenance import versions

WORKERS = 2


@dataclass(frozen=True)
class Sleeps:
    """A unit that takes a known time."""

    name: str
    seconds: float

    @property
    def id(self) -> str:
        """Its name."""
        return self.name

    def run(self, *, halvings: int = 0, device: str = "cpu") -> dict[str, Any]:
        """Sleep."""
        time.sleep(self.seconds)
        return {**self.failed(""), "status": "done", "error": None, "result": {"text": "x" * 2000}}

    def can_halve(self, halvings: int) -> bool:
        """There is no micro-batch."""
        return False

    def failed(self, error: str) -> dict[str, Any]:
        """A record."""
        return {"unit": self.id, "stage": "none", "status": "failed", "error": error, "result": None}


def wall(units: list[Sleeps], folder: Path) -> float:
    """Seconds of a sweep of these units, all of which must be done."""
    start = time.perf_counter()
    counts = run_units(units, folder, LocalExecutor(WORKERS), progress=False)
    assert counts["done"] == len(units), counts
    return time.perf_counter() - start


def overhead(folder: Path, seconds: float, count: int) -> dict[str, Any]:
    """Seconds to start, per empty unit, and the share added to units of so many seconds."""
    empty = wall([Sleeps("first", 0.0)], folder)
    short = wall([Sleeps(f"short-{k}", 0.0) for k in range(40)], folder) / 40
    start = empty - short
    long = wall([Sleeps(f"long-{k}", seconds) for k in range(count)], folder)
    share = long * WORKERS / (count * seconds) - 1
    return {
        "workers": WORKERS,
        "units": count,
        "seconds_per_unit": seconds,
        "wall_seconds": round(long, 3),
        "overhead": round(share, 5),
        "machinery_seconds_per_unit": round(short, 4),
        "start_of_the_server_seconds": round(start, 2),
    }


def prefetch(folder: Path, rungs: int, download: float, work: float) -> dict[str, Any]:
    """Seconds of downloads alone and of a walk, against what they would take one after the other."""
    size = 2_000_000
    config = blob('{"architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0}')
    files = {f"step{k}": {"config.json": config, "model.safetensors": blob(bytes([k]) * size, large=True)}
             for k in range(rungs)}  # fmt: skip
    with serve(Repository("ours/ladder", {"main": {}, **files}), rate=size / download) as hub:
        spec = LadderSpec(name="ours", pattern=FOLDER_PATTERN, repository="ours/ladder")
        ladder = resolve(spec, endpoint=hub.endpoint)
        inventories = take_inventory(ladder)[:rungs]
        start = time.perf_counter()
        for one in inventories:
            fetch(ladder, one, folder / "alone", margin=0)
        alone = time.perf_counter() - start

        def units(rung: Rung, identity: str) -> list[Sleeps]:
            return [Sleeps(f"{rung.name}-{k}", work) for k in range(WORKERS)]

        def walk(cache: Path, store: Path, *, keep: bool) -> float:
            start = time.perf_counter()
            at = (ladder, inventories, cache, units, store, LocalExecutor(WORKERS))
            counts = run_ladder(*at, margin=0, keep=keep, progress=False)
            assert counts["done"] == rungs * WORKERS, counts
            return time.perf_counter() - start

        working = walk(folder / "alone", folder / "run-alone", keep=True)
        walked = walk(folder / "walk", folder / "run-walk", keep=False)
    return {
        "rungs": rungs,
        "downloads_alone_seconds": round(alone, 2),
        "work_alone_seconds": round(working, 2),
        "one_after_the_other_seconds": round(alone + working, 2),
        "walk_seconds": round(walked, 2),
        "share_of_downloads_hidden": round((alone + working - walked) / (alone - alone / rungs), 4),
    }


def main() -> None:
    """Run both, print them, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a unit")
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--rungs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        first = overhead(Path(home) / "a", args.seconds, args.units)
        second = prefetch(Path(home) / "b", args.rungs, 0.25 * args.seconds, 0.3 * args.seconds)
    result = {
        "command": "python benchmarks/sweep.py",
        "versions": versions(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "niceness": os.nice(0),
        "overhead": first,
        "prefetch": second,
    }
    for part in ("overhead", "prefetch"):
        print(part, *(f"  {name.replace('_', ' '):<32}{value}" for name, value in result[part].items()), sep="\n")
    if args.json:
        write_file(args.json, canonical(result) + "\n")


if __name__ == "__main__":
    main()
