"""A real ladder of four small checkpoints, pretrained once for all tests of this floor."""

from pathlib import Path

import pytest

from vgrad_lab.checkpoints.embedded.pretrain import TINY, pretrain
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint


@pytest.fixture(scope="session")
def tiny_ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the finished TINY ladder; read it, never write into it."""
    folder = tmp_path_factory.mktemp("ladders") / "tiny"
    pretrain(TINY, folder, progress=False, threads=1)
    return folder


@pytest.fixture(scope="session")
def tiny_rung(tiny_ladder: Path) -> Rung:
    """Its last checkpoint."""
    return Rung(step=TINY.steps, path=tiny_ladder / "step000040", name="step000040")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_rung: Rung) -> Checkpoint:
    """The last checkpoint, loaded; tests that change its weights load their own."""
    return load_checkpoint(tiny_rung.path)
