"""Drive units through an executor: claims, retries, halved micro-batches, and a table of what became of each."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from vgrad_lab.checkpoints import claims
from vgrad_lab.checkpoints.atomic import require_writable
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import Executor, Outcome, Task, Work, is_done
from vgrad_lab.checkpoints.store import UNITS, publish, read_record


@dataclass(frozen=True)
class Policy:
    """When to try again.

    Args:
        retries: further attempts after a transient failure, and after a crash (the first with the same micro-batch,
            later ones with half of it each time). Out of memory halves the micro-batch until it is one prompt.
        pause: seconds before the first further attempt; each later one waits twice as long.
        lease: seconds after which a silent worker counts as dead.
        poll: seconds between two looks at units that others hold.
    """

    retries: int = 2
    pause: float = 1.0
    lease: float = claims.LEASE
    poll: float = 0.5

    def __post_init__(self) -> None:
        if self.retries < 0 or self.pause < 0:
            raise UserError(f"retries is {self.retries} and pause {self.pause}; neither may be negative")
        if not (self.lease > 0 and self.poll > 0):
            raise UserError(f"lease is {self.lease} and poll {self.poll}; give positive numbers of seconds")


@dataclass
class Open:
    """A unit that is not settled: how often it was tried, from when it may be tried again, whether another holds it."""

    work: Work
    before: int | None
    attempts: int = 0
    crashes: int = 0
    halvings: int = 0
    ready: float = 0.0
    running: bool = False
    held: bool = False


State = Literal["done", "failed", "kept"]


def run_units(
    works: Sequence[Work],
    folder: Path,
    executor: Executor,
    *,
    policy: Policy | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, int]:
    """Run every unit that has no finished record; counts of what is done now (here), failed, and done elsewhere.

    Other workers may share the folder: a unit that one of them holds is waited for. A unit that failed in an earlier
    sweep is tried again, one that failed elsewhere during this sweep is not. Raises UserError when the folder cannot be
    written, or fills up; a later call continues. The executor is closed at the end, whatever happens.
    """
    policy = Policy() if policy is None else policy
    require_writable(folder)
    opened = opened_units(works, folder)
    settled = drive(opened, folder, executor, policy=policy, device=device)
    return counted(settled, len(opened), executor, progress=progress)


def counted(settled: Iterator[tuple[str, State]], total: int, executor: Executor, *, progress: bool) -> dict[str, int]:
    """Counts of what became of the units, which run as this reads them; the executor is closed, whatever happens."""
    counts = {"done": 0, "failed": 0, "kept": 0}
    try:
        with tqdm(total=total, desc="sweep", unit="unit", disable=None if progress else True) as bar:
            for _, state in settled:
                counts[state] += 1
                bar.update()
    finally:
        executor.close()
    return counts


def opened_units(works: Sequence[Work], folder: Path) -> dict[str, Open]:
    """Units by id, none of them settled, with the version of the record that each has from before."""
    return {work.id: Open(work, _stamp(folder, work.id)) for work in works}


def drive(
    opened: dict[str, Open],
    folder: Path,
    executor: Executor,
    *,
    policy: Policy,
    device: str = "cpu",
    wait: bool = True,
) -> Iterator[tuple[str, State]]:
    """Run units until all are settled; each leaves `opened` with what became of it. The executor stays open.

    Without `wait` it also ends when other workers hold all units that are left.
    """
    while opened:
        settled = _submit(opened, folder, executor, policy, device)
        for task, outcome in executor.finished(policy.poll):
            state = _judge(opened[task.work.id], task, outcome, policy)
            if state is not None:
                settled.append((task.work.id, state))
        for unit, state in settled:
            del opened[unit]
            yield unit, state
        if any(o.running for o in opened.values()):
            continue
        if not wait and all(o.held for o in opened.values()):
            return
        if opened:
            time.sleep(0 if settled else min(policy.poll, 0.1))


def settled_elsewhere(opened: dict[str, Open], folder: Path, *, lease: float) -> Iterator[tuple[str, State]]:
    """Take out the units that other workers have settled, and see which of the others are held."""
    now = claims.clock(folder)
    for unit in list(opened):
        o = opened[unit]
        if state := is_settled(o, folder):
            del opened[unit]
            yield unit, state
        else:
            o.held = claims.is_held(folder, unit, lease=lease, now=now)


def is_settled(o: Open, folder: Path) -> State | None:
    """Whether a unit that is not running here was done, or failed elsewhere since the sweep began.

    A claim that a worker killed right after publishing left is deleted.
    """
    if is_done(folder, o.work.id):
        claims.forget(folder, o.work.id)
        return "kept"
    return "failed" if _stamp(folder, o.work.id) not in (None, o.before) else None


def _submit(
    opened: dict[str, Open], folder: Path, executor: Executor, policy: Policy, device: str
) -> list[tuple[str, State]]:
    """Fill the executor's slots; returns the units that were found settled."""
    settled: list[tuple[str, State]] = []
    free = executor.slots - sum(o.running for o in opened.values())
    now = None
    for unit, o in opened.items():
        if free <= 0:
            break
        if o.running or o.ready > time.monotonic():
            continue
        if state := is_settled(o, folder):
            settled.append((unit, state))
            continue
        now = claims.clock(folder) if now is None else now
        o.held = claims.is_held(folder, unit, lease=policy.lease, now=now)
        if o.held:
            o.ready = time.monotonic() + policy.poll
            continue
        executor.submit(Task(o.work, folder, claims.new_owner(), policy.lease, o.halvings, device))
        o.running = True
        free -= 1
    return settled


def _judge(o: Open, task: Task, outcome: Outcome, policy: Policy) -> State | None:
    """What an outcome makes of a unit: settled, or open again."""
    o.running = False
    if outcome.kind in ("done", "kept"):
        return "done" if outcome.kind == "done" else "kept"
    if outcome.kind == "store":
        raise UserError(outcome.error)
    if outcome.kind == "busy":
        o.held = True
        o.ready = time.monotonic() + policy.poll
        return None
    claims.release(task.folder, task.work.id, task.owner)
    if outcome.kind == "crash" and is_done(task.folder, task.work.id):
        return "done"  # it died after its record was published
    if outcome.kind == "memory" and o.work.can_halve(o.halvings + 1):
        o.halvings += 1
        return None
    if outcome.kind in ("transient", "crash") and o.attempts < policy.retries:
        o.ready = time.monotonic() + policy.pause * 2**o.attempts
        o.attempts += 1
        o.crashes += outcome.kind == "crash"
        if outcome.kind == "crash" and o.crashes > 1 and o.work.can_halve(o.halvings + 1):
            o.halvings += 1
        return None
    if is_done(task.folder, task.work.id):
        return "kept"
    publish(task.folder, o.work.failed(outcome.error))
    return "failed"


def _stamp(folder: Path, unit: str) -> int | None:
    """Which version of a unit's record is there; None without one."""
    try:
        return (folder / UNITS / f"{unit}.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def rows(works: Sequence[Work], folder: Path, *, lease: float = claims.LEASE) -> list[dict[str, Any]]:
    """Unit, status (done, failed, running, open) and error of each unit, in the order given; changes no record."""
    found, now = [], None
    for work in works:
        record = read_record(folder, work.id) or {}
        status = record.get("status", "open")
        if status != "done" and (folder / claims.CLAIMS / f"{work.id}.0").exists():
            now = _clock(folder) if now is None else now
            if claims.is_held(folder, work.id, lease=lease, now=now):
                status = "running"
        found.append({"unit": work.id, "status": status, "error": record.get("error")})
    return found


def _clock(folder: Path) -> float:
    """The file system's clock, or this machine's where the folder can only be read."""
    try:
        return claims.clock(folder)
    except UserError:
        return time.time()


def table(found: Sequence[dict[str, Any]]) -> str:
    """Rows as a table, and a line that counts."""
    width = max((len(row["unit"]) for row in found), default=0)
    kinds = ("done", "failed", "running", "open")
    counts = {kind: sum(row["status"] == kind for row in found) for kind in kinds}
    lines = [f"{row['unit']:{width}}  {row['status']:7}  {row['error'] or ''}".rstrip() for row in found]
    shown = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind in ("done", "failed"))
    return "\n".join([*lines, f"{len(found)} units: {shown}"])
