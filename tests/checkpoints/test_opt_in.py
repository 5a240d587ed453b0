"""The opt-in tier (`--all`, minutes): the full-size ladder learns to copy; TRL gains what ours does."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from vgrad_lab.checkpoints.embedded import LadderSettings, pretrain
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.probe import MeasureSettings, measure
from vgrad_lab.checkpoints.tasks import LabelCopy

pytestmark = pytest.mark.slow


def benchmark() -> ModuleType:
    """benchmarks/grpo.py as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "grpo.py"
    spec = importlib.util.spec_from_file_location("grpo_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    pretrain(LadderSettings(seed=11, every=500), folder, progress=False)
    return folder


def test_copying_emerges_from_an_unseen_seed(ladder: Path) -> None:
    """Seven prototype seeds ended at 0.48-0.75; 0.3 is below all of them, and step 0 has 0.001."""
    rewards = [
        measure(load_checkpoint(ladder / f"step{step:06d}"), LabelCopy(), MeasureSettings())
        for step in (500, 1000, 2000)
    ]
    assert rewards[-1]["reward_before"] > 0.3
    assert rewards[-1]["reward_restricted"] > 0.8
    assert rewards[0]["reward_before"] < rewards[-1]["reward_before"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_trl_gains_what_we_gain(ladder: Path) -> None:
    checkpoint = load_checkpoint(ladder / "step000500")
    rows = benchmark().compare(checkpoint, GrpoSettings(budgets=(30,)), seeds=2)
    ours, trl = (sum(rows[f"{name}_gain"]) / 2 for name in ("ours", "trl"))
    assert ours > 0.05
    assert abs(ours - trl) < 0.02
