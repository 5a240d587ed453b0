"""Copy a finished run of ``vgrad reproduce`` into docs/: records, table, pictures.

python tools/results.py runs/embedded
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"prediction": "gain_against_prediction", "forecast": "forecast_curves", "ladder": "ladder"}


def read(run: Path, name: str) -> Any:
    """A JSON file of a finished run."""
    if not (run / "summary.json").is_file():
        sys.exit(f"{run} holds no finished run; run `vgrad reproduce --out {run}` first")
    return json.loads((run / name).read_text(encoding="utf-8"))


def other_seed(run: Path) -> dict[str, Any]:
    """Pretraining seed, Spearman with the gain of each predictor, and the forecast's R², per optimiser."""
    studies = {study["optimizer"]: study for study in read(run, "summary.json")["studies"]}
    forecasts = {o: next(r for r in s["predictors"] if r["predictor"] == "forecast") for o, s in studies.items()}
    return {
        "seed": read(run, "ladder/settings.json")["settings"]["seed"],
        "spearman": {o: {r["predictor"]: r["spearman"] for r in s["predictors"]} for o, s in studies.items()},
        "forecast_r_squared": {o: row["r_squared"] for o, row in forecasts.items()},
        "forecast_mean_absolute_error": {o: s["forecast_mean_absolute_error"] for o, s in studies.items()},
    }


def main(run: Path, others: list[Path]) -> None:
    """Write docs/results/embedded.json and embedded.records.jsonl, and the pictures that README shows."""
    records, target = run / "records.jsonl", ROOT / "docs" / "results" / "embedded.json"
    summary = read(run, "summary.json")
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    if failed := [r["unit"] for r in rows if r["status"] != "done"]:
        sys.exit(f"{run} has failed units: {', '.join(failed)}")
    kept = json.loads(target.read_text(encoding="utf-8")).get("other_seeds", []) if target.is_file() else []
    result = {
        "command": "vgrad reproduce",
        "device": rows[0]["device"],
        "versions": rows[0]["versions"],
        "ladder": read(run, "ladder/settings.json"),
        "checkpoints": len({r["checkpoint"]["sha256"] for r in rows}),
        "rl_seeds": sorted({r["seed"] for r in rows if r["stage"] == "rl"}),
        "other_seeds": [other_seed(other) for other in others] or kept,
        "summary": summary,
    }
    folder = ROOT / "docs" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    target.write_text(text, encoding="utf-8")
    shutil.copyfile(records, folder / "embedded.records.jsonl")
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    for figure in sorted((run / "figures").glob("*.svg")):
        for key, name in PICTURES.items():
            if figure.stem.endswith(key) and "sgd" not in figure.stem:
                shutil.copyfile(figure, images / f"{name}.svg")


if __name__ == "__main__":
    first, *more = [Path(a) for a in sys.argv[1:]] or [Path("runs/embedded")]
    main(first, more)
