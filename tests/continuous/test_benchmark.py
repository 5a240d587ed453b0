import json
import os
import subprocess
import sys
from pathlib import Path

from vgrad_lab.tolerances import ALGEBRA

ROOT = Path(__file__).parents[2]


def test_tiny_benchmark_compares_equal_numbers(tmp_path: Path) -> None:
    """Times are for the benchmark's reader; what a test can hold is that both programs compute the same."""
    out = tmp_path / "result.json"
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "costate.py"), "--tiny", "--json", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, capture_output=True, check=True, env=environment)
    result = json.loads(out.read_text())
    assert {row["environment"] for row in result["rows"]} == set(result["slopes"]) == set(result["memory"])
    assert len(result["slopes"]) == 6
    assert [tuple(row["size"]) for row in result["rows"]][:4] == [(1, 64, 4, 2), (64, 64, 4, 2)] * 2
    assert all(row["difference"] <= ALGEBRA and row["ratio"] > 0 for row in result["rows"])
    assert all(set(slopes) == {"T", "B"} for slopes in result["slopes"].values())
    assert max(result["memory"].values()) <= 4
