"""Units that need no model: what executors and the scheduler do with success, failure, crashes and kills."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import Outcome, Task, perform

FAKES = ("__main__", "tests.checkpoints.fake_units")
"""What the server of the processes imports once."""


@dataclass(frozen=True)
class Fake:
    """A unit that behaves as told; each run leaves a line in `diary` before and after its work."""

    name: str
    diary: Path
    act: str = "work"
    times: int = 99
    seconds: float = 0.0
    size: int = 8

    @property
    def id(self) -> str:
        return f"fake-{self.name}"

    def run(self, *, halvings: int, device: str) -> dict[str, Any]:
        earlier = self.diary.read_text().count(f"start {self.id}\n") if self.diary.exists() else 0
        self.write("start")
        if earlier < self.times:
            self.misbehave(halvings)
        time.sleep(self.seconds)
        self.write("end")
        return {**self.failed(""), "status": "done", "error": None, "result": {"text": self.name * 2000, "n": 1.5}}

    def misbehave(self, halvings: int) -> None:
        if self.act == "error":
            raise UserError(f"{self.name} cannot work; leave it out")
        if self.act == "long error":
            raise ValueError("x" * 300_000)
        if self.act == "transient":
            raise ConnectionResetError("the connection was reset")
        if self.act == "memory" and self.size >> halvings > 2:
            raise MemoryError(f"no room for {self.size >> halvings}")
        if self.act == "no memory at all":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        if self.act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.act == "die while large" and self.size >> halvings > 4:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, word: str) -> None:
        handle = os.open(self.diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{word} {self.id}\n".encode())
        os.close(handle)

    def can_halve(self, halvings: int) -> bool:
        return self.size >> halvings >= 1

    def failed(self, error: str) -> dict[str, Any]:
        base = {"unit": self.id, "stage": "fake", "protocol": "p", "seed": 0, "checkpoint": {"step": 1}}
        return {**base, "status": "failed", "error": error, "result": None}


class Inline:
    """Runs a task where it is submitted, so that most tests need no process."""

    slots = 1

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.ended: list[tuple[Task, Outcome]] = []
        self.closed = False

    def submit(self, task: Task) -> None:
        self.tasks.append(task)
        self.ended.append((task, perform(task)))

    def finished(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        self.closed = True
