"""An executor whose processes stay: each holds one checkpoint and does all work on it with one load.

A unit's record is the same as from a process of its own; only the loading is shared. A process that dies takes one unit
with it, and the next gets a new one.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from vgrad_lab.checkpoints.children import GOODBYE, last_word, make_context, obey_parent, starting
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import DIED, PRELOAD, Outcome, Task, perform
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.reload import Bench


@dataclass(frozen=True)
class OnBench:
    """A unit whose checkpoint comes from a bench.

    work: as `executors.Work`, with the identity of its weights as `sha256`, and a `run` that takes `load` too, which
    gives the checkpoint of a path on a device (`sweep.Unit`).
    """

    work: Any
    bench: Bench

    @property
    def id(self) -> str:
        """The unit's id."""
        return str(self.work.id)

    def run(self, *, halvings: int, device: str) -> dict[str, Any]:
        """The unit's record. Raises UserError when the weights on the disk are not those that the unit names."""

        def load(path: Path, *, device: str) -> Checkpoint:
            found = self.bench.checkpoint(path, device=device)
            if found.sha256 != self.work.sha256:
                raise UserError(f"the weights in {path} have changed since this run began; run the command again")
            return found

        return dict(self.work.run(halvings=halvings, device=device, load=load))

    def can_halve(self, halvings: int) -> bool:
        """As the unit says."""
        return bool(self.work.can_halve(halvings))

    def failed(self, error: str) -> dict[str, Any]:
        """The unit's record of a failure."""
        return dict(self.work.failed(error))


@dataclass
class _Worker:
    """One process, its end of the pipe, and what it is doing."""

    gpu: str
    process: BaseProcess | None = None
    pipe: connection.Connection | None = None
    task: Task | None = None


class ResidentExecutor:
    """Processes of this machine that stay from unit to unit, one per GPU or so many on the CPU.

    workers: processes; with gpus, one per GPU instead. threads: of each process. order: checkpoint folders in the order
    of the work; the one after the present is read ahead. Use it in a `with` block: `close` ends what is at work, the
    end of the block ends the processes.
    """

    def __init__(
        self, workers: int = 1, *, threads: int = 1, gpus: Sequence[str] = (), order: Sequence[Path] = ()
    ) -> None:
        self._context = make_context(workers, threads, PRELOAD)
        self._threads, self._order = threads, tuple(order)
        self._workers = [_Worker(gpu) for gpu in (gpus or [""] * workers)]
        self.slots = len(self._workers)

    def __enter__(self) -> "ResidentExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            self._end(worker)

    def submit(self, task: Task) -> None:
        """Hand a task to an idle process; raises RuntimeError when every slot is taken."""
        free = [worker for worker in self._workers if worker.task is None]
        if not free:
            raise RuntimeError(f"all {self.slots} slots are taken; wait for finished()")
        worker = min(free, key=lambda one: one.process is None)
        if worker.process is None or not worker.process.is_alive():
            self._end(worker)
            self._start(worker)
        assert worker.pipe is not None
        worker.task = task
        with suppress(OSError):  # it has just died; `finished` finds that
            worker.pipe.send(task)

    def finished(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """What has ended; a process that died without a word is a crash, one without memory is replaced."""
        busy = [worker for worker in self._workers if worker.task is not None]
        if not busy:
            return []
        waits = [x for w in busy if w.process and w.pipe for x in (w.process.sentinel, w.pipe)]
        connection.wait(waits, timeout=seconds)
        ended = []
        for worker in busy:
            assert worker.process is not None
            assert worker.pipe is not None
            assert worker.task is not None
            alive = worker.process.is_alive()  # before the pipe: what it says last is not lost
            said = last_word(worker.pipe)
            if alive and said is None:
                continue
            outcome = said or Outcome("crash", DIED)
            ended.append((worker.task, outcome))
            worker.task = None
            if not alive or outcome.kind == "memory":  # a new process finds all of the device's memory
                self._end(worker)
        return ended

    def close(self) -> None:
        """Kill the processes that are at work; their claims lapse with them. Idle ones stay for the next call."""
        for worker in self._workers:
            if worker.task is not None:
                self._end(worker)

    def _start(self, worker: _Worker) -> None:
        here, there = self._context.Pipe()
        with starting(self._threads):
            process = self._context.Process(target=_serve, args=(there, self._threads, worker.gpu, self._order))
            process.start()  # Ctrl-C may come while this waits: the worker is none then
        there.close()
        worker.process, worker.pipe = process, here

    def _end(self, worker: _Worker) -> None:
        if worker.pipe is not None:
            worker.pipe.close()  # an idle process ends by itself
        if worker.process is not None:
            if worker.task is None:
                worker.process.join(GOODBYE)
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join()
            worker.process.close()
        worker.process = worker.pipe = worker.task = None


def _serve(pipe: connection.Connection, threads: int, gpu: str, order: tuple[Path, ...]) -> None:
    """Perform one task after the other on a bench, until the other end of the pipe is closed."""
    obey_parent(threads, gpu)
    bench = Bench(order)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            break
        outcome = perform(replace(task, work=OnBench(task.work, bench)))
        if outcome.kind == "memory":
            bench.close()
        pipe.send(outcome)
    bench.close()
