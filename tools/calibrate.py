"""Width of the forecast's 90 % band per optimiser, by split conformal prediction on the calibration ladders.

    python tools/calibrate.py runs/study [more folders]

Reads the records of ``vgrad_lab.experiments.forecast_study`` in the default settings, of ladders of pretraining seeds
0-3 only (CALIBRATION): these chose the method. Writes docs/results/forecast-calibration.json; ``WIDTH`` in
vgrad_lab/checkpoints/forecast.py must equal its widths, which a test compares.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.forecast_records import DEFAULTS, Cell, bands, cells, read, split
from vgrad_lab.provenance import versions
from vgrad_lab.ray import conformal_width

TARGET = Path(__file__).resolve().parents[1] / "docs" / "results" / "forecast-calibration.json"
LEVEL = 0.9


def runs(found: Sequence[Cell]) -> tuple[Float[ndarray, "N K"], Float[ndarray, "N K"]]:
    """Forecast and real curve of every run with R_before in front, one row per rung and seed."""
    pairs = [
        (np.array([c.before[i], *c.forecast[i]]), np.array([c.before[i], *run]))
        for c in found
        for i in range(len(c.rungs))
        for run in c.after[i]
    ]
    return np.array([f for f, _ in pairs]), np.array([a for _, a in pairs])


def width(found: Sequence[Cell]) -> float:
    """The conformal width, rounded up to three digits after the point."""
    return math.ceil(1000 * conformal_width(*runs(found), level=LEVEL) - 1e-9) / 1000


def coverage(found: Sequence[Cell], size: float) -> float:
    """Share of run points inside the band of a width."""
    inside = []
    for c in found:
        low, high = bands(c.before, c.forecast, width=size)
        inside.append(((low[:, None] <= c.after) & (c.after <= high[:, None])).ravel())
    return float(np.concatenate(inside).mean())


def calibrate(found: Sequence[Cell]) -> dict[str, Any]:
    """Widths and what they cover: the calibration set itself, and each ladder with the width of the others.

    Raises UserError when a default setting has no calibration ladder or one of its rungs failed.
    """
    out: dict[str, Any] = {"widths": {}, "runs": {}, "coverage": {}, "coverage_left_out": {}, "ladders": {}}
    for name in DEFAULTS:
        chosen = [c for c in found if c.setting == name and split(c.ladder) == "calibration"]
        if not chosen:
            raise UserError(f"no records of a calibration ladder under {name!r}; run forecast_study on seeds 0-3 first")
        if failed := [text for c in chosen for text in c.failed]:
            raise UserError(f"{len(failed)} units failed, the first is {failed[0]}; run them again before calibrating")
        out["widths"][name] = width(chosen)
        out["ladders"][name] = [c.ladder for c in chosen]
        out["runs"][name] = int(sum(c.after.shape[0] * c.after.shape[1] for c in chosen))
        out["coverage"][name] = coverage(chosen, out["widths"][name])
        rest = {c.ladder: [o for o in chosen if o is not c] for c in chosen}
        out["coverage_left_out"][name] = {
            c.ladder: coverage([c], width(rest[c.ladder])) if rest[c.ladder] else None for c in chosen
        }
    return out


def main(arguments: list[str] | None = None) -> None:
    """Calibrate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of forecast_study, or files of records")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args(arguments)
    records = read(options.studies)
    made = next((r for r in records if r.get("versions")), {})
    result = {
        "command": "python tools/calibrate.py <study>",
        "device": made.get("device") or "cpu",
        "versions": made.get("versions") or versions(),
        "seeds": sorted({s for r in records for s in r["settings"]["seeds"]}),
        "level": LEVEL,
        **calibrate(cells(records)),
    }
    write_file(options.out, json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n")
    sys.stdout.write(f"WIDTH: {result['widths']}\n")


if __name__ == "__main__":
    main()
