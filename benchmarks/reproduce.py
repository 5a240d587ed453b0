"""Where the seconds of ``vgrad reproduce`` go: data, pretraining, measuring, RL, report, from an empty folder.

    python benchmarks/reproduce.py --json docs/results/benchmark-reproduce.json

The aim on two CPU cores is 150 s, the limit 6 minutes. ``--tiny`` times the tiny path (limit 60 s).
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.embedded.mixture import build_mixture
from vgrad_lab.checkpoints.store import canonical
from vgrad_lab.experiments import embedded_ladder
from vgrad_lab.provenance import versions


def main() -> None:
    """Run once into a temporary folder, print the split, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = embedded_ladder.TINY if args.tiny else embedded_ladder.SETTINGS
    start = time.perf_counter()
    build_mixture(settings.ladder)
    data = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = embedded_ladder.run(Path(folder), settings, progress=False)
        total = time.perf_counter() - start
        rows = [json.loads(line) for line in (Path(folder) / "timings.jsonl").read_text().splitlines()]
    work = {stage: sum(r["seconds"] for r in rows if r["stage"] == stage) for stage in ("measure", "rl")}
    split = {"data (measured apart, in pretraining)": round(data, 1), **run["seconds"], "total": round(total, 1)}
    for name, seconds in split.items():
        print(f"{name.replace('_', ' '):<40}{seconds:8.1f} s")
    print(f"inside the workers: measuring {work['measure']:.1f} s, RL {work['rl']:.1f} s of CPU processes")
    if args.json:
        result = {"command": "python benchmarks/reproduce.py", "versions": versions(), "cores": os.cpu_count()}
        write_file(args.json, canonical({**result, "seconds": split, "worker_seconds": work}) + "\n")


if __name__ == "__main__":
    main()
