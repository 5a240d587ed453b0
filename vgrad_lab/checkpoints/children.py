"""Processes below a sweep: what they start with, and that they end with their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from vgrad_lab.checkpoints.errors import UserError

GOODBYE = 10.0
"""Seconds that a process may take to end after its last word."""


def make_context(workers: int, threads: int, preload: Sequence[str]) -> Any:
    """Where processes come from: a server that has imported ``preload`` once, or afresh where a system cannot fork.

    Raises UserError for less than one worker or thread.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value < 1:
            raise UserError(f"{name} is {value}; give at least 1")
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(list(preload))
    return context


@contextmanager
def starting(threads: int) -> Iterator[None]:
    """What a process, or the server of processes, that is started in the block finds.

    Its threads, before it imports torch; and Ctrl-C is kept from it: a terminal sends that to every process, but the
    parent alone answers it. A blocked signal stays blocked in all processes below.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    resource_tracker.ensure_running()  # type: ignore[attr-defined, unused-ignore]  # started later it unblocks again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def obey_parent(threads: int, gpu: str = "") -> None:
    """In the process: end when the parent ends, leave Ctrl-C to it, see one GPU, use so many threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be kept from this process
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    set_threads(threads)


def set_threads(threads: int) -> None:
    """Threads of this process, where torch is loaded or will be."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@dataclass(frozen=True)
class Waiting:
    """A process that waits for one task, and the ends of its pipes: `tasks` takes it, with a GPU; `said` answers."""

    process: BaseProcess
    tasks: connection.Connection
    said: connection.Connection


def start_waiting(context: Any, act: Callable[[Any], Any], threads: int) -> Waiting:
    """Start a process that will answer `act` of the task that it is sent, and then end."""
    (theirs, tasks), (said, there) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    with starting(threads):
        process = context.Process(target=_wait, args=(act, theirs, there, threads))
        process.start()
    theirs.close()
    there.close()
    return Waiting(process, tasks, said)


def _wait(act: Callable[[Any], Any], tasks: connection.Connection, said: connection.Connection, threads: int) -> None:
    """In the process, which ends at once: what is to stay is on the disk, and large libraries are slow to go."""
    obey_parent(threads)
    try:
        task, gpu = tasks.recv()
    except EOFError:
        os._exit(0)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    said.send(act(task))
    said.close()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(0)


def last_word(said: connection.Connection) -> Any:
    """What a process has said; None as long as it has not, or when it died without a word."""
    try:
        return said.recv() if said.poll() else None
    except (EOFError, OSError):
        return None


def reap(process: BaseProcess) -> None:
    """Wait for a process to end, and kill one that does not."""
    process.join(GOODBYE)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
