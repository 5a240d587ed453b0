"""Real ray on this machine: six units, one worker killed, the same table as the local executor's."""

from pathlib import Path

import pytest

from tests.integrations.sweep_units import same_table_as_local

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_six_units_with_one_worker_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vgrad_lab.integrations.ray_executor import RayExecutor

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    same_table_as_local(RayExecutor(2), tmp_path)
