"""Processes below a sweep: what they start with, and that they end with their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


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
