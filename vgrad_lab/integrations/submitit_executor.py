"""Units as SLURM jobs by submitit; its local executor runs the same without SLURM."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from vgrad_lab.checkpoints.children import set_threads
from vgrad_lab.checkpoints.executors import DIED, Outcome, Task, perform


class SubmititExecutor:
    """A job per unit; `vgrad_lab.checkpoints.executors.Executor`.

    slots: jobs in the queue at a time. folder: for scripts and logs, shared with the nodes. cluster: slurm or local.
    cpus, gpus, minutes, memory_gb, partition: of each job. A job that SLURM ends (limit, preemption, memory) counts as
    a crash of its unit and is tried again by the scheduler.
    """

    def __init__(
        self,
        slots: int = 8,
        *,
        folder: Path,
        cluster: str = "slurm",
        cpus: int = 1,
        gpus: int = 0,
        minutes: int = 60,
        memory_gb: int = 16,
        partition: str | None = None,
    ) -> None:
        self.slots = slots
        self._threads = cpus
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        more = {"slurm_partition": partition} if partition and cluster == "slurm" else {}
        self._executor.update_parameters(
            name="vgrad", timeout_min=minutes, mem_gb=memory_gb, cpus_per_task=cpus, gpus_per_node=gpus, **more
        )
        self._running: list[tuple[Any, Task]] = []

    def submit(self, task: Task) -> None:
        """Queue a job."""
        self._running.append((self._executor.submit(_perform, task, self._threads), task))

    def finished(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """Tasks whose jobs have ended; a job without a result is a crash."""
        end = time.monotonic() + seconds
        while True:
            ended = [(job, task) for job, task in self._running if job.done()]
            if ended or not self._running or time.monotonic() >= end:
                break
            time.sleep(min(0.1, seconds))
        self._running = [entry for entry in self._running if entry not in ended]
        return [(task, _outcome(job)) for job, task in ended]

    def close(self) -> None:
        """Cancel the jobs that have not ended."""
        for job, _ in self._running:
            job.cancel()
        self._running = []


def _perform(task: Task, threads: int) -> Outcome:
    set_threads(threads)
    return perform(task)


def _outcome(job: Any) -> Outcome:
    try:
        return job.result()
    except Exception as error:  # submitit's own errors, and whatever the job could not unpack
        last = (str(error).strip().splitlines() or [""])[-1]
        return Outcome("crash", f"{DIED}; job {job.job_id}: {last[:300]}")
