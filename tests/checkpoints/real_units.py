"""Units of real tiny checkpoints that leave a diary, for kill tests in processes of their own."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkpoints.fake_units import Inline
from vgrad_lab.checkpoints.children import obey_parent
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import content_identity
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.schedule import Policy, run_units
from vgrad_lab.checkpoints.sweep import Unit, rung_units
from vgrad_lab.checkpoints.tasks import LabelCopy

MEASURES = MeasureSettings(prompts=8, sampled_groups=4)
RL = GrpoSettings(prompts=2, budgets=(1, 2), evaluation_prompts=8)
QUICK = Policy(retries=99, pause=0.0, lease=3.0, poll=0.02)


@dataclass(frozen=True)
class Noted(Unit):
    """A unit that leaves a line in its diary when it starts."""

    diary: Path = Path()

    def run(self, **options: Any) -> dict[str, Any]:
        handle = os.open(self.diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"start {self.id}\n".encode())
        os.close(handle)
        return super().run(**options)


def works(ladder: Path, folder: Path) -> list[Noted]:
    """Measuring and one RL run on each rung."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for rung in list_rungs(ladder):
        for unit in rung_units(rung, content_identity(rung.path), LabelCopy(), measures=MEASURES, rl=(RL,)):
            same = (unit.stage, unit.rung, unit.sha256, unit.task, unit.settings, unit.seed)
            found.append(Noted(*same, diary=folder / "diary"))
    return found


def sweep(ladder: Path, folder: Path) -> None:
    """A whole sweep in this process."""
    obey_parent(1)
    run_units(works(ladder, folder), folder, Inline(), policy=QUICK, progress=False)
