"""Units as Ray tasks, on one machine or a cluster whose nodes share the run folder."""

from collections.abc import Sequence
from typing import Any

import ray

from vgrad_lab.checkpoints.children import set_threads
from vgrad_lab.checkpoints.executors import DIED, Outcome, Task, perform


class RayExecutor:
    """A Ray task per unit; `vgrad_lab.checkpoints.executors.Executor`.

    slots: units handed to Ray at a time. cpus, gpus: asked for by each; cpus is its number of threads too. address: of
    a running cluster; None starts Ray on this machine, unless it runs already. What this object started it stops.
    A worker serves one unit, so that GPU memory is given back; Ray's own retries are off: the scheduler tries again.
    """

    def __init__(self, slots: int = 2, *, cpus: int = 1, gpus: int = 0, address: str | None = None) -> None:
        self.slots = slots
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(address=address, num_cpus=None if address else slots * cpus, include_dashboard=False)
        self._call: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=1)(_perform)
        self._threads = cpus
        self._running: dict[Any, Task] = {}

    def submit(self, task: Task) -> None:
        """Hand a task to Ray."""
        self._running[self._call.remote(task, self._threads)] = task

    def finished(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Tasks that have ended; a worker that died is a crash, one that Ray ended for memory is out of memory."""
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [(self._running.pop(reference), _outcome(reference)) for reference in ready]

    def close(self) -> None:
        """Cancel what still runs, and stop Ray if it was started here."""
        for reference in self._running:
            ray.cancel(reference, force=True)
        self._running = {}
        if self._started:
            ray.shutdown()


def _perform(task: Task, threads: int) -> Outcome:
    set_threads(threads)
    return perform(task)


def _outcome(reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.OutOfMemoryError as error:
        return Outcome("memory", f"Ray ended the worker: {' '.join(str(error).split())[:300]}")
    except ray.exceptions.RayTaskError as error:
        return Outcome("error", " ".join(str(error.cause).split())[:300])
    except ray.exceptions.RayError:
        return Outcome("crash", DIED)
