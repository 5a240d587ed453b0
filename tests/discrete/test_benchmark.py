import json
import os
import subprocess
import sys
from pathlib import Path

from vgrad_lab.tolerances import ALGEBRA

ROOT = Path(__file__).parents[2]


def test_short_benchmark_compares_equal_numbers(tmp_path: Path) -> None:
    """Times are for the benchmark's reader; what a test can hold is that both listings give the same."""
    out = tmp_path / "groups.json"
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "groups.py"), "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "--json", str(out)], capture_output=True, check=True, env=environment)
    result = json.loads(out.read_text())
    committed = json.loads((ROOT / "docs" / "results" / "groups.json").read_text())
    compared = [row["difference"] for row in result["rows"] if "difference" in row]
    assert len(compared) == 3
    assert max(compared) < ALGEBRA

    def what(rows: list[dict]) -> list[tuple]:
        return [(r["estimator"], r["answers"], r["group"], r["listing"], r.get("groups")) for r in rows]

    assert what(result["rows"]) == what(committed["rows"])
    assert all(row["milliseconds"] <= row["aim"] for row in committed["rows"] if "aim" in row)
