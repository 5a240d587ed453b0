"""A sweep straight from a ladder on a hub: fetch a rung, run its units, evict it, while the next one is fetched."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vgrad_lab.checkpoints import claims
from vgrad_lab.checkpoints.atomic import require_writable
from vgrad_lab.checkpoints.cache import MARGIN, rung_folder
from vgrad_lab.checkpoints.executors import Executor, Work
from vgrad_lab.checkpoints.inventory import Inventory, choose_weights, weights_identity
from vgrad_lab.checkpoints.ladders import Rung, rung_name
from vgrad_lab.checkpoints.loading import content_identity
from vgrad_lab.checkpoints.prefetch import Step, walk
from vgrad_lab.checkpoints.resolve import Ladder, find
from vgrad_lab.checkpoints.schedule import (
    Open,
    Policy,
    State,
    counted,
    drive,
    is_settled,
    opened_units,
    settled_elsewhere,
)
from vgrad_lab.checkpoints.store import publish

MakeUnits = Callable[[Rung, str], Sequence[Work]]
"""Units of a rung, given where it will lie and the identity of its weights; its files need not be there yet."""


def rung_of(ladder: Ladder, inventory: Inventory, cache: Path) -> tuple[Rung, str]:
    """Where a rung lies or will lie, and its identity.

    The identity is what `content_identity` gives after the fetch; `git:<commit>` where the hub has no hashes (`.bin`).
    """
    named = find(ladder, inventory.rung)
    if ladder.spec.folder is not None:
        rung = Rung(named.step, ladder.spec.folder / named.name, named.name)
        return rung, content_identity(rung.path)
    identity = weights_identity(choose_weights(inventory)) or f"git:{named.commit}"
    return Rung(named.step, rung_folder(cache, ladder, named), rung_name(named.step)), identity


def ladder_units(ladder: Ladder, inventories: Iterable[Inventory], cache: Path, make_units: MakeUnits) -> list[Work]:
    """All units of a ladder, in its order, from metadata alone."""
    return [unit for one in inventories for unit in make_units(*rung_of(ladder, one, cache))]


def run_ladder(
    ladder: Ladder,
    inventories: Iterable[Inventory],
    cache: Path,
    make_units: MakeUnits,
    folder: Path,
    executor: Executor,
    *,
    policy: Policy | None = None,
    device: str = "cpu",
    keep: bool = False,
    allow_bin: bool = False,
    margin: int = MARGIN,
    progress: bool = True,
) -> dict[str, int]:
    """Run every unit of a ladder that has no finished record, rung by rung; counts as by `run_units`.

    While the units of a rung run, the next rung is fetched; each is evicted after use. Only rungs with open units are
    fetched. A rung that cannot be fetched gives each of its units a failed record with the reason. Several machines
    may share the folder: each takes rungs that no other has taken, and helps with the rest at the end.

    Args:
        ladder: the rungs' ladder.
        inventories: of the rungs, in order; `Audit.usable` of an audit that was not refused.
        cache: where rungs go; every worker must see it under this path.
        make_units: units of a rung, see `MakeUnits`.
        folder: the store.
        executor: what runs the units; closed at the end.
        policy: when to try again.
        device: where models go, in the words of torch.
        keep: evict nothing.
        allow_bin: fetch weights that exist only as `.bin`; the units must load them so.
        margin: bytes of the disk to leave free.
        progress: show a bar on a terminal.

    Raises:
        UserError: the store or the cache cannot be written, or has no room for two rungs (with `keep`, for all).
    """
    policy = Policy() if policy is None else policy
    require_writable(folder)
    rungs = {one.rung: one for one in inventories}
    todo = {name: opened_units(make_units(*rung_of(ladder, one, cache)), folder) for name, one in rungs.items()}
    run = _Run(ladder, cache, folder, executor, policy, device, keep, allow_bin, margin)
    return counted(_settle(run, rungs, todo), sum(map(len, todo.values())), executor, progress=progress)


@dataclass(frozen=True)
class _Run:
    ladder: Ladder
    cache: Path
    folder: Path
    executor: Executor
    policy: Policy
    device: str
    keep: bool
    allow_bin: bool
    margin: int

    def walk(self, rungs: Iterable[Inventory], wanted: Callable[[Inventory], bool] | None = None) -> Iterator[Step]:
        """The rungs, fetched one ahead."""
        return walk(
            self.ladder,
            rungs,
            self.cache,
            keep=self.keep,
            allow_bin=self.allow_bin,
            margin=self.margin,
            wanted=wanted,
        )


def _settle(run: _Run, rungs: dict[str, Inventory], todo: dict[str, dict[str, Open]]) -> Iterator[tuple[str, State]]:
    """First the rungs that nobody else has taken; then, while units are open, those that nobody works on."""
    yield from _look(run, todo)
    with ExitStack() as all_taken:
        taken = {name: all_taken.enter_context(ExitStack()) for name in todo}
        for step in run.walk(
            [rungs[name] for name in todo], lambda one: _take(run, one.rung, todo[one.rung], taken[one.rung])
        ):
            yield from _run_rung(run, step, todo[step.name])
            taken[step.name].close()
    while True:
        yield from _look(run, todo)
        if not todo:
            return
        free = next((name for name, opened in todo.items() if not all(o.held for o in opened.values())), None)
        if free is None:
            time.sleep(run.policy.poll)
            continue
        for step in run.walk([rungs[free]]):
            yield from _run_rung(run, step, todo[free])


def _look(run: _Run, todo: dict[str, dict[str, Open]]) -> Iterator[tuple[str, State]]:
    """Take out what others have settled, and rungs without open units."""
    for name in list(todo):
        yield from settled_elsewhere(todo[name], run.folder, lease=run.policy.lease)
        if not todo[name]:
            del todo[name]


def _take(run: _Run, name: str, opened: dict[str, Open], taken: ExitStack) -> bool:
    """Whether a rung has open units and no other walker has taken it; it is ours then, until `taken` is closed."""
    if all(is_settled(o, run.folder) for o in opened.values()):
        return False
    if run.ladder.spec.folder is not None:
        return True
    named = find(run.ladder, name)
    unit = f"rung-{rung_name(named.step)}-{named.commit[:12]}"
    claim = claims.take(run.folder, unit, owner=claims.new_owner(), lease=run.policy.lease)
    if claim is None:
        return False
    taken.callback(claims.forget, run.folder, unit)
    taken.enter_context(claims.heartbeat(claim, lease=run.policy.lease))
    return True


def _run_rung(run: _Run, step: Step, opened: dict[str, Open]) -> Iterator[tuple[str, State]]:
    """Run the open units of a fetched rung; those of a rung that cannot be fetched fail with the reason."""
    if step.fetched is not None:
        yield from drive(opened, run.folder, run.executor, policy=run.policy, device=run.device, wait=False)
        return
    yield from settled_elsewhere(opened, run.folder, lease=run.policy.lease)
    for unit in [unit for unit, o in opened.items() if not o.held]:
        publish(run.folder, opened.pop(unit).work.failed(f"{step.name} could not be fetched: {step.problem}"))
        yield unit, "failed"
