"""Rungs one after the other, the next fetched while the present one is in use, each evicted after use."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vgrad_lab.checkpoints.cache import MARGIN, evict, require_space
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.hub import Fetched, fetch, is_cached
from vgrad_lab.checkpoints.inventory import Inventory
from vgrad_lab.checkpoints.plan import make_plan
from vgrad_lab.checkpoints.resolve import Ladder


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
) -> Iterator[Step]:
    """The rungs in order; while the caller works on one, a thread fetches the next, and no more than the next.

    Wall time of n rungs: d + n·max(d, c) at most, with d seconds of download and c of work each. A rung that cannot be
    fetched is a step with a problem, and the walk goes on. Only rungs that a walk fetched are evicted, when the
    caller asks for the next step, or leaves; what was fetched ahead by then stays for the next walk.

    Args:
        ladder: the rungs' ladder.
        inventories: of the rungs, in the order wanted; `Audit.usable` of an audit that was not refused.
        cache: folder of our own.
        keep: evict nothing, now or later.
        allow_bin: fetch weights that exist only as `.bin`.
        margin: bytes of the disk to leave free.

    Raises:
        UserError: the cache cannot be written, or has no room for two rungs (with `keep`, for all).
    """
    wanted = tuple(inventories)
    _check_room(ladder, wanted, cache, keep=keep, margin=margin)
    stop = threading.Event()

    def step(one: Inventory) -> Step:
        try:
            found = fetch(ladder, one, cache, keep=keep, allow_bin=allow_bin, margin=margin, stop=stop)
        except UserError as error:
            return Step(one.rung, None, str(error))
        return Step(one.rung, found)

    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        following = pool.submit(step, wanted[0]) if wanted else None
        try:
            for k in range(len(wanted)):
                present = cast(Future[Step], following).result()
                following = pool.submit(step, wanted[k + 1]) if k + 1 < len(wanted) else None
                try:
                    yield present
                finally:
                    if present.fetched is not None and present.fetched.passing and not keep:
                        evict(present.fetched.rung.path)
        finally:
            stop.set()


def _check_room(ladder: Ladder, wanted: tuple[Inventory, ...], cache: Path, *, keep: bool, margin: int) -> None:
    """Room for two rungs, or for all that are kept, less what is in the cache already."""
    if ladder.spec.folder is not None:
        return
    missing = [one for one in wanted if not is_cached(ladder, one, cache)]
    plan = make_plan(missing) if missing else None
    whole = plan.weight_bytes + plan.other_bytes if plan else 0
    require_space(cache, whole if keep or plan is None else plan.peak_bytes, margin=margin)
