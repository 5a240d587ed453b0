"""What runs a unit and where: one protocol of executors, and the local one with a process per unit."""

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from vgrad_lab.checkpoints import claims
from vgrad_lab.checkpoints.children import Waiting, last_word, make_context, reap, start_waiting
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.store import canonical, publish, read_record

Kind = Literal["done", "kept", "busy", "transient", "memory", "crash", "error", "store"]
"""How a task ended: done now; done before; held by another worker; worth another try; out of memory; the process died;
an error that would come again; the store cannot be written."""
TRANSIENT = (errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.ENETUNREACH)
DIED = "the worker process died (killed, out of memory, or a crash in native code)"
PRELOAD = (
    "__main__",
    "vgrad_lab.checkpoints.sweep",
    "transformers.modeling_utils",
    "transformers.modeling_layers",
    "transformers.generation.utils",
)
"""Modules that the server imports once, so that a process per unit starts in milliseconds. The last three are loaded by
`transformers` only with the first model, which is seconds in each process otherwise."""

SPARE_AFTER = 0.2
"""Seconds of quiet after which the process of the next unit is started, so that no unit waits for it."""


@runtime_checkable
class Work(Protocol):
    """A unit as executors see it; it can be pickled."""

    @property
    def id(self) -> str:
        """Its id, which is a file name too."""

    def run(self, *, halvings: int, device: str) -> dict[str, Any]:
        """The finished record, with the micro-batch halved so many times; raises what went wrong."""

    def can_halve(self, halvings: int) -> bool:
        """Whether the micro-batch can be halved so many times."""

    def failed(self, error: str) -> dict[str, Any]:
        """The record of a failure."""


@dataclass(frozen=True)
class Task:
    """One attempt at one unit.

    Args:
        work: the unit.
        folder: the store, which the worker reaches under the same path.
        owner: name for the claim.
        lease: seconds after which a silent worker counts as dead.
        halvings: how many times the micro-batch is halved.
        device: where the model goes, in the words of torch.
    """

    work: Work
    folder: Path
    owner: str
    lease: float = claims.LEASE
    halvings: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, and the error in words."""

    kind: Kind
    error: str = ""


@runtime_checkable
class Executor(Protocol):
    """Runs tasks somewhere: `perform` is called on each in a process that may die."""

    @property
    def slots(self) -> int:
        """How many tasks are taken at a time."""

    def submit(self, task: Task) -> None:
        """Start a task, or queue it."""

    def finished(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Tasks that have ended since the last call; waits at most so long for the first."""

    def close(self) -> None:
        """End what still runs."""


def perform(task: Task) -> Outcome:
    """In the worker: claim the unit, run it and publish its record. Never raises an Exception."""
    folder, unit = task.folder, task.work.id
    try:
        claim = claims.take(folder, unit, owner=task.owner, lease=task.lease)
        if claim is None:
            return Outcome("busy")
        if is_done(folder, unit):  # published between the last look and the claim
            claims.forget(folder, unit)
            return Outcome("kept")
        with claims.heartbeat(claim, lease=task.lease):
            outcome = _run(task)
        if outcome.kind in ("done", "kept"):
            claims.forget(folder, unit)
        else:
            claims.release(folder, unit, task.owner)
    except UserError as error:
        claims.release(folder, unit, task.owner)
        return Outcome("store", str(error))
    return outcome


def is_done(folder: Path, unit: str) -> bool:
    """Whether a finished record of the unit is published."""
    return (read_record(folder, unit) or {}).get("status") == "done"


def _run(task: Task) -> Outcome:
    start = time.perf_counter()
    try:
        record = task.work.run(halvings=task.halvings, device=task.device)
        canonical(record)  # refuses NaN and infinity before anything is published
    except Exception as error:
        return outcome_of(error)
    if is_done(task.folder, task.work.id):  # this worker was stopped, and another took the unit over
        return Outcome("kept")
    publish(task.folder, record, seconds=time.perf_counter() - start)
    return Outcome("done")


def outcome_of(error: BaseException) -> Outcome:
    """Kind of an exception, from the exceptions that caused it, and its text as a record holds it."""
    text = describe(error)
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__
    if any(_is_memory(cause) for cause in causes):
        return Outcome("memory", text)
    if any(_is_transient(cause) for cause in causes):
        return Outcome("transient", text)
    return Outcome("error", text)


def describe(error: BaseException) -> str:
    """An exception in one line: what it says, after its name if it was not written for a user."""
    message = " ".join(str(error).split())
    return message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    words = ("out of memory", "can't allocate memory", "cannot allocate memory")
    if type(error).__name__ == "OutOfMemoryError" or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in text for w in words))


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT


class LocalExecutor:
    """A process per unit on this machine, so that a crash takes one unit with it.

    workers: processes at a time; with gpus, one per GPU instead. threads: of each process. Processes come from a server
    that has imported the heavy libraries once (where the system can fork), and die with their parent.
    """

    def __init__(
        self, workers: int = 2, *, threads: int = 1, gpus: Sequence[str] = (), preload: Sequence[str] = PRELOAD
    ) -> None:
        self._context = make_context(workers, threads, preload)
        self._threads = threads
        self._free = list(gpus) if gpus else [""] * workers
        self._on_gpu = bool(gpus)
        self.slots = len(self._free)
        self._running: list[tuple[Waiting, Task, str]] = []
        self._spare: list[Waiting] = []
        self._leaving: list[BaseProcess] = []

    def submit(self, task: Task) -> None:
        """Start a process; raises RuntimeError when every slot is taken."""
        if not self._free:
            raise RuntimeError(f"all {self.slots} slots are taken; wait for finished()")
        gpu = self._free.pop()
        while True:
            worker = self._spare.pop() if self._spare else self._start()
            try:
                worker.tasks.send((task, gpu))
                break
            except BrokenPipeError:  # a spare one was killed; one that has just started dies only if all do
                reap(worker.process)
        self._running.append((worker, task, gpu))

    def _start(self) -> Waiting:
        return start_waiting(self._context, perform, self._threads)

    def finished(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """What has ended; a process that died without a word is a crash."""
        if not self._running:
            return []
        ends = [end for worker, *_ in self._running for end in (worker.process.sentinel, worker.said)]
        if not connection.wait(ends, timeout=min(seconds, SPARE_AFTER)) and seconds > SPARE_AFTER:
            if len(self._spare) < self.slots:
                self._spare.append(self._start())
            connection.wait(ends, timeout=seconds - SPARE_AFTER)
        ended, still = [], []
        for entry in self._running:
            worker, task, gpu = entry
            alive = worker.process.is_alive()  # before the pipe: what it says last is not lost
            said = last_word(worker.said)
            if alive and said is None:
                still.append(entry)
                continue
            ended.append((task, said or Outcome("crash", DIED)))
            self._free.append(gpu)
            self._leave(worker)
        self._running = still
        return ended

    def close(self) -> None:
        """Kill what still runs; its claims lapse with the processes."""
        self._free += [gpu for *_, gpu in self._running]
        for worker in [*(worker for worker, *_ in self._running), *self._spare]:
            worker.process.kill()
            self._leave(worker)
        for process in self._leaving:
            reap(process)
        self._running, self._spare, self._leaving = [], [], []

    def _leave(self, worker: Waiting) -> None:
        """Let a process go that has spoken or died. A GPU is free only when the process is gone."""
        worker.tasks.close()
        worker.said.close()
        if self._on_gpu:
            reap(worker.process)
            return
        for gone in [one for one in self._leaving if not one.is_alive()]:
            self._leaving.remove(gone)
            reap(gone)
        self._leaving.append(worker.process)
