"""Scores of the forecast from the records of ``forecast_study``: each ladder and setting, then means over ladders.

    python -m vgrad_lab.experiments.forecast_scores runs/study [more folders] --out docs/results/forecast.json

Ladders named in CALIBRATION chose the method and the width of its band; every other ladder is held out.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.forecast import WIDTH
from vgrad_lab.checkpoints.report.collect import Record
from vgrad_lab.checkpoints.report.predictors import NAN
from vgrad_lab.checkpoints.report.scores import r_squared, regret
from vgrad_lab.checkpoints.store import lines
from vgrad_lab.experiments.forecast_figure import draw
from vgrad_lab.experiments.forecast_records import DEFAULTS, Cell, cells, compact, read, split
from vgrad_lab.experiments.forecast_rivals import rivals
from vgrad_lab.experiments.forecast_study import SETTINGS
from vgrad_lab.provenance import versions
from vgrad_lab.stats import bootstrap, spearman

STATEMENTS = ("S26.ray", "S26.rehearsal", "S26.forecast")
LEVEL = 0.9
SCORES = ("r_squared", "spearman", "error", "regret", "coverage")
EDGES = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Edges of R_before between which errors are shown apart."""
Json = dict[str, Any]
WORST = 5


def scores(c: Cell) -> dict[str, float]:
    """R² and Spearman of the mean gain, mean absolute error of the curve, regret, share of run points in the band.

    NaN below 3 finished rungs, or where a number is not finite.
    """
    parts = (c.before, c.after, c.forecast, c.lower, c.upper)
    if len(c.rungs) < 3 or not all(np.all(np.isfinite(x)) for x in parts):
        return dict.fromkeys(SCORES, NAN)
    inside = (c.lower[:, None] <= c.after) & (c.after <= c.upper[:, None])
    return {
        "r_squared": r_squared(c.predicted, c.gain),
        "spearman": spearman(c.predicted, c.gain),
        "error": float(np.abs(c.forecast - c.after.mean(1)).mean()),
        "regret": regret(c.predicted, c.gain),
        "coverage": float(inside.mean()),
    }


def across(values: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> Json:
    """Mean over ladders with a bootstrap interval over them; None (never a mean of the rest) where one is undefined."""
    x = np.array(values, dtype=float)
    undefined = int(np.sum(~np.isfinite(x)))
    if undefined or not len(x):
        return {"value": None, "low": None, "high": None, "ladders": len(x), "undefined": undefined}
    low = high = None
    if len(x) > 1:
        share = np.full(len(x), 1 / len(x))
        interval = bootstrap(lambda i: float(x[i] @ share), len(x), level=LEVEL, resamples=resamples, seed=seed)
        low, high = interval.low, interval.high
    return {"value": float(x.mean()), "low": low, "high": high, "ladders": len(x), "undefined": 0}


def cell_row(c: Cell) -> Json:
    """A cell's scores for the results file; undefined is None."""
    found = {name: value if np.isfinite(value) else None for name, value in scores(c).items()}
    head = {"ladder": c.ladder, "setting": c.setting, "split": split(c.ladder), "rungs": len(c.rungs)}
    return {**head, "failed": len(c.failed), "seeds": c.after.shape[1], **found}


def setting_rows(found: Sequence[Cell]) -> list[Json]:
    """Each setting over the ladders of one split; settings in the study's order, then those of other families."""
    order = [s.name for s in SETTINGS]
    names = sorted({c.setting for c in found}, key=lambda n: (order.index(n) if n in order else len(order), n))
    rows = []
    for part in ("held out", "calibration"):
        for name in names:
            group = [c for c in found if c.setting == name and split(c.ladder) == part]
            if not group:
                continue
            each = [scores(c) for c in group]
            head = {"setting": name, "split": part, "ladders": [c.ladder for c in group]}
            counts = {"rungs": sum(len(c.rungs) for c in group), "failed": sum(len(c.failed) for c in group)}
            rows.append({**head, **counts, **{k: across([e[k] for e in each]) for k in SCORES}})
    return rows


def errors(found: Sequence[Cell]) -> Json:
    """Where the forecast is off: mean signed and absolute error of the curve by R_before, and the worst rungs."""
    rows: list[Json] = [
        {"ladder": c.ladder, "rung": rung, "before": float(c.before[i]),
         "error": float((c.forecast[i] - c.after[i].mean(0)).mean()),
         "absolute": float(np.abs(c.forecast[i] - c.after[i].mean(0)).mean())}
        for c in found for i, rung in enumerate(c.rungs)
    ]  # fmt: skip
    bins = []
    for low, high in pairwise(EDGES):
        inside = [r for r in rows if low <= r["before"] < high or (high == 1 and r["before"] == 1)]
        means = {k: float(np.mean([r[k] for r in inside])) if inside else None for k in ("error", "absolute")}
        bins.append({"low": low, "high": high, "rungs": len(inside), **means})
    return {"bins": bins, "worst": sorted(rows, key=lambda r: -r["absolute"])[:WORST]}


def noise(found: Sequence[Cell]) -> Json | None:
    """Smallest, largest and mean share of a full sign step that noise leaves Adam at the start; None without rungs."""
    factors = [r["result"]["noise_factor"][0] for c in found for r in c.records]
    return {"low": min(factors), "high": max(factors), "mean": float(np.mean(factors))} if factors else None


def summarise(records: Sequence[Record], *, command: str) -> Json:
    """All scores of a study, with what it was made by; every number comes from the records."""
    found = cells(records)
    made = next((r for r in records if r.get("versions")), None)
    held = [c for c in found if split(c.ladder) == "held out"]
    seeds = sorted({s for r in records for s in r["settings"]["seeds"]})
    return {
        "command": command,
        "device": made["device"] if made and made.get("device") else "cpu",
        "versions": dict(made["versions"]) if made else versions(),
        "seeds": seeds,
        "level": LEVEL,
        "widths": dict(WIDTH),
        "ladders": {p: sorted({c.ladder for c in found if split(c.ladder) == p}) for p in ("calibration", "held out")},
        "cells": [cell_row(c) for c in found],
        "settings": setting_rows(found),
        "predictors": {name: rivals([c for c in held if c.setting == name], across) for name in DEFAULTS},
        "errors": {name: errors([c for c in held if c.setting == name]) for name in DEFAULTS},
        "noise_factor": noise([c for c in held if c.setting == "adamw"]),
        "failed": [text for c in found for text in c.failed],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Score studies from the command line; writes summary, compact records beside it, and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of forecast_study, or files of records")
    parser.add_argument("--out", type=Path, default=Path("docs/results/forecast.json"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"), help="folder of the figures")
    parser.add_argument("--command", default="", help="how the records were made, for the page")
    options = parser.parse_args(arguments)
    records = [compact(r) for r in read(options.studies)]
    ladders = sorted({r["ladder"] for r in records})
    command = options.command or f"python -m vgrad_lab.experiments.forecast_study … ({', '.join(ladders)})"
    result = summarise(records, command=command)
    made = {k: records[0].get(k) for k in ("device", "versions")}
    short = [records[0], *({k: v for k, v in r.items() if made.get(k) != v} for r in records[1:])]  # said once
    write_file(options.out.with_suffix(".records.jsonl"), lines(short))
    text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(options.out, text)
    for path in draw(result, cells(records), options.images):
        if path.suffix == ".png":  # pages show the SVG
            path.unlink()
    sys.stdout.write(f"{shlex.quote(str(options.out))}\n")


if __name__ == "__main__":
    main()
