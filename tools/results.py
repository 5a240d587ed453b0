"""Copy a finished run of ``vgrad reproduce`` into docs/: records, table, pictures.

python tools/results.py runs/embedded
"""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"prediction": "gain_against_prediction", "forecast": "forecast_curves", "ladder": "ladder"}


def main(run: Path) -> None:
    """Write docs/results/embedded.json and embedded.records.jsonl, and the pictures that README shows."""
    records = run / "records.jsonl"
    if not (run / "summary.json").is_file():
        sys.exit(f"{run} holds no finished run; run `make reproduce` first")
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    if failed := [r["unit"] for r in rows if r["status"] != "done"]:
        sys.exit(f"{run} has failed units: {', '.join(failed)}")
    settings = json.loads((run / "ladder" / "settings.json").read_text(encoding="utf-8"))
    result = {
        "command": "vgrad reproduce",
        "device": rows[0]["device"],
        "versions": rows[0]["versions"],
        "ladder": settings,
        "checkpoints": len({r["checkpoint"]["sha256"] for r in rows}),
        "rl_seeds": sorted({r["seed"] for r in rows if r["stage"] == "rl"}),
        "summary": json.loads((run / "summary.json").read_text(encoding="utf-8")),
    }
    folder = ROOT / "docs" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "embedded.json").write_text(text, encoding="utf-8")
    shutil.copyfile(records, folder / "embedded.records.jsonl")
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    for figure in sorted((run / "figures").glob("*.svg")):
        for key, name in PICTURES.items():
            if figure.stem.endswith(key) and "sgd" not in figure.stem:
                shutil.copyfile(figure, images / f"{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/embedded"))
