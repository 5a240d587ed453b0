"""Rungs one after the other, the next fetched while the present one is in use, each evicted after use."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from vgrad_lab.checkpoints.cache import MARGIN, InUse, Use, evict, require_space, rung_folder
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.hub import Fetched, fetch, is_cached
from vgrad_lab.checkpoints.inventory import Inventory
from vgrad_lab.checkpoints.plan import make_plan
from vgrad_lab.checkpoints.resolve import Ladder, find


@dataclass(frozen=True)
class Step:
    """One rung of a walk: fetched, or why it could not be.

    Args:
        name: name of the rung in its repository.
        fetched: where it lies; None when it could not be fetched.
        problem: why not, in one line; None when it could.
    """

    name: str
    fetched: Fetched | None
    problem: str | None = None


def walk(
    ladder: Ladder,
    inventories: Iterable[Inventory],
    cache: Path,
    *,
    keep: bool = False,
    allow_bin: bool = False,
    margin: int = MARGIN,
    wanted: Callable[[Inventory], bool] | None = None,
) -> Iterator[Step]:
    """The rungs in order; while the caller works on one, a thread fetches the next, and no more than the next.

    Wall time of n rungs: d + n·max(d, c) at most, with d seconds of download and c of work each. A rung that cannot be
    fetched is a step with a problem, and the walk goes on. Only rungs that a walk fetched are evicted, when the
    caller asks for the next step, or leaves; what was fetched ahead by then stays for the next walk. Of several
    processes that use a rung, the last evicts it.

    Args:
        ladder: the rungs' ladder.
        inventories: of the rungs, in the order wanted; `Audit.usable` of an audit that was not refused.
        cache: folder of our own.
        keep: evict nothing, now or later.
        allow_bin: fetch weights that exist only as `.bin`.
        margin: bytes of the disk to leave free.
        wanted: asked right before a rung is fetched; one that is not wanted then is passed over.

    Raises:
        UserError: the cache cannot be written, or has no room for two rungs (with `keep`, for all).
    """
    given = tuple(inventories)
    _check_room(ladder, given, cache, keep=keep, margin=margin)
    stop, uses = threading.Event(), dict[str, Use]()

    def step(one: Inventory) -> Step:
        if ladder.spec.folder is None:
            uses[one.rung] = Use(rung_folder(cache, ladder, find(ladder, one.rung)))
        try:
            return Step(one.rung, fetch(ladder, one, cache, keep=keep, allow_bin=allow_bin, margin=margin, stop=stop))
        except UserError as error:
            return Step(one.rung, None, str(error))

    left = (one for one in given if wanted is None or wanted(one))
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        with pool, closing(_one_ahead(pool, step, left, stop)) as steps:
            for present in steps:
                yield from _leaving(present, uses, keep=keep)
    finally:
        for use in uses.values():
            use.end()


def _one_ahead(
    pool: ThreadPoolExecutor, step: Callable[[Inventory], Step], left: Iterator[Inventory], stop: threading.Event
) -> Generator[Step, None, None]:
    """Steps in order, each given when the next is on its way; `stop` is set at the end."""
    try:
        following = _ahead(pool, step, left)
        while following is not None:
            present = following.result()
            following = _ahead(pool, step, left)
            yield present
    finally:
        stop.set()


def _ahead(
    pool: ThreadPoolExecutor, step: Callable[[Inventory], Step], left: Iterator[Inventory]
) -> Future[Step] | None:
    """The next rung on its way; None at the end."""
    one = next(left, None)
    return None if one is None else pool.submit(step, one)


def _leaving(step: Step, uses: dict[str, Use], *, keep: bool) -> Iterator[Step]:
    """Give a step; then end the use of its rung, and evict it unless it is kept, or used by another process."""
    try:
        yield step
    finally:
        if use := uses.pop(step.name, None):
            use.end()
        if step.fetched is not None and step.fetched.passing and not keep:
            with suppress(InUse):
                evict(step.fetched.rung.path)


def _check_room(ladder: Ladder, wanted: tuple[Inventory, ...], cache: Path, *, keep: bool, margin: int) -> None:
    """Room for two rungs, or for all that are kept, less what is in the cache already."""
    if ladder.spec.folder is not None:
        return
    missing = [one for one in wanted if not is_cached(ladder, one, cache)]
    plan = make_plan(missing) if missing else None
    whole = plan.weight_bytes + plan.other_bytes if plan else 0
    require_space(cache, whole if keep or plan is None else plan.peak_bytes, margin=margin)
