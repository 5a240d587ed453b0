"""A pool of processes that a broken unit cannot stop."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

U = TypeVar("U")
Work = Callable[[Path, U], str]


def in_processes(
    work: Work[U], folder: Path, todo: Sequence[U], *, workers: int, total: int, bar: bool
) -> Iterator[tuple[U, str | None]]:
    """``work(folder, unit)`` in ``workers`` processes: (unit, status) as they come.

    A process that dies breaks its pool; what is left then runs in a process of its own each, and a unit that kills
    that one too has the status None. The bar shows ``total`` units, those not in ``todo`` as done.
    """
    left = list(todo)
    quiet = None if bar else True
    with tqdm(total=total, initial=total - len(left), desc="credit", unit="unit", disable=quiet) as shown:
        for unit, status in _first(work, folder, left, workers):
            left.remove(unit)
            shown.update()
            yield unit, status
        for unit in left:
            yield unit, _alone(work, folder, unit)
            shown.update()


def _first(work: Work[U], folder: Path, todo: Sequence[U], workers: int) -> Iterator[tuple[U, str]]:
    if not todo:
        return
    with _pool(min(workers, len(todo))) as pool:
        futures = {pool.submit(work, folder, unit): unit for unit in todo}
        try:
            for future in as_completed(futures):
                try:
                    status = future.result()
                except BrokenProcessPool:
                    continue
                yield futures[future], status
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone(work: Work[U], folder: Path, unit: U) -> str | None:
    try:
        with _pool(1) as pool:
            return pool.submit(work, folder, unit).result()
    except BrokenProcessPool:
        return None


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


def _start() -> None:
    """No answer to Ctrl-C (the parent answers it), and no life after the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
