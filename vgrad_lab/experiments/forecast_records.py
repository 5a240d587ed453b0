"""Records of ``forecast_study`` as arrays: one cell per ladder and setting; which ladders chose something."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import WIDTH
from vgrad_lab.checkpoints.report.collect import Record, read_records
from vgrad_lab.ray import band

Json = dict[str, Any]
CALIBRATION = ("embedded", "seed0", "seed1", "seed2", "seed3")
"""Ladders of pretraining seeds 0-3 by the names of their folders."""
DEFAULTS = ("adamw", "sgd")
"""Settings in which every predictor is scored."""
MEASURES = (
    "reward_before", "gradient_l1", "gradient_l2_squared", "success_variance", "pass_at_k", "mixed_group", "entropy",
    "headroom_within", "headroom_between", "signal", "alignment", "costate_gap_conditional", "costate_gap_per_sample",
    "costate_gap_group_mean",
)  # fmt: skip
"""What the predictors read of a measure (``step`` comes from the checkpoint)."""


@dataclass(frozen=True)
class Cell:
    """One ladder under one setting: n finished rungs in order of pretraining, s seeds of real runs, K budgets.

    failed: units without a result, with their errors. before: R before RL. after: R of every run. lower, upper:
    the band.
    """

    ladder: str
    setting: str
    failed: tuple[str, ...]
    rungs: tuple[str, ...]
    records: tuple[Record, ...]
    budgets: tuple[int, ...]
    before: Float[ndarray, " n"]
    after: Float[ndarray, "n s K"]
    forecast: Float[ndarray, "n K"]
    lower: Float[ndarray, "n K"]
    upper: Float[ndarray, "n K"]

    @property
    def gain(self) -> Float[ndarray, " n"]:
        """Mean over budgets and seeds of R_after − R_before."""
        return np.asarray(self.after.mean((1, 2)) - self.before)

    @property
    def predicted(self) -> Float[ndarray, " n"]:
        """Mean over budgets of the forecast reward − R_before."""
        return np.asarray(self.forecast.mean(1) - self.before)


def ladder_name(path: Path) -> str:
    """Name of a ladder's folder, as records hold it: that of the run that it lies in."""
    return path.parent.name if path.name == "ladder" else path.name


def read(paths: Iterable[Path]) -> list[Record]:
    """Records of the forecast in folders (their records.jsonl) or files of JSON lines; of a repeated unit the last.

    Raises UserError for a path without records.
    """
    found: dict[str, Record] = {}
    for path in paths:
        if path.is_file():
            rows: Sequence[Record] = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
        else:
            rows = read_records(path)[0]
        found |= {r["unit"]: r for r in rows if r.get("stage") == "forecast"}
    if not found:
        raise UserError("no records of a forecast there; run vgrad_lab.experiments.forecast_study first")
    return sorted(found.values(), key=lambda r: (r["ladder"], r["protocol"], r["checkpoint"]["step"], r["unit"]))


def setting_of(record: Record) -> str:
    """Name of a record's setting; ladders of another family (``llama-seed4``) are a setting of their own."""
    family = re.sub(r"-?seed\d+$|^embedded$", "", record["ladder"])
    return f"{record['protocol']}, {family}" if family else str(record["protocol"])


def cells(records: Sequence[Record]) -> list[Cell]:
    """Records by ladder and setting. Raises UserError where a rung occurs twice or rungs differ in budgets or seeds."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["ladder"], setting_of(record)), []).append(record)
    return [cell(ladder, setting, rows) for (ladder, setting), rows in groups.items()]


def cell(ladder: str, setting: str, rows: Sequence[Record]) -> Cell:
    """One ladder under one setting as arrays."""
    names = [r["checkpoint"]["name"] for r in rows]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise UserError(
            f"{ladder}, {setting}: {twice[0]} occurs twice; give records of one study with one set of seeds"
        )
    done = [r for r in rows if r["status"] == "done"]
    results = [r["result"] for r in done]
    shapes = {(tuple(x["budgets"]), np.shape(x["reward_after"])) for x in results}
    if len(shapes) > 1:
        raise UserError(f"{ladder}, {setting}: rungs differ in budgets or seeds; give records of one study")
    asked = rows[0]["settings"]
    budgets = next(iter(shapes))[0] if shapes else tuple(asked["rl"]["budgets"])
    shape = next(iter(shapes))[1] if shapes else (len(asked["seeds"]), len(budgets))
    after = np.array([x["reward_after"] for x in results], dtype=float).reshape(len(done), *shape)
    wide = (len(done), len(budgets))
    before = np.array([x["reward_before"] for x in results], dtype=float)
    forecast = np.array([x["forecast"] for x in results], dtype=float).reshape(wide)
    optimizer = next((r["settings"]["rl"]["optimizer"] for r in rows), "adamw")
    lower, upper = bands(before, forecast, width=WIDTH[optimizer])
    return Cell(
        ladder=ladder,
        setting=setting,
        failed=tuple(f"{r['unit']}: {r['error']}" for r in rows if r["status"] != "done"),
        rungs=tuple(r["checkpoint"]["name"] for r in done),
        records=tuple(done),
        budgets=tuple(budgets),
        before=before,
        after=after,
        forecast=forecast,
        lower=lower,
        upper=upper,
    )


def bands(
    before: Float[ndarray, " n"], forecast: Float[ndarray, "n K"], *, width: float
) -> tuple[Float[ndarray, "n K"], Float[ndarray, "n K"]]:
    """Band of every rung's forecast at its budgets; made anew, so that it has the width that is calibrated now."""
    found = [band(np.array([b, *f]), width=width) for b, f in zip(before, forecast, strict=True)]
    low, high = (np.array([x[i][1:] for x in found], dtype=float).reshape(forecast.shape) for i in (0, 1))
    return low, high


def split(ladder: str) -> str:
    """Whether a ladder chose something (``calibration``) or nothing (``held out``)."""
    return "calibration" if ladder in CALIBRATION else "held out"


def compact(record: Record) -> Json:
    """A record with what the scores need, floats at 7 digits; measures only in the default settings."""
    kept = {k: record[k] for k in ("unit", "ladder", "stage", "protocol", "checkpoint", "status", "error")}
    kept |= {k: record[k] for k in ("device", "versions") if record.get(k)}
    rl, result = record["settings"]["rl"], record["result"]
    protocol = ("optimizer", "learning_rate", "group_size", "baseline", "ddof", "eps", "clip", "budgets")
    kept["settings"] = {"rl": {k: rl[k] for k in protocol}, "seeds": record["settings"]["seeds"]}
    if result is None:
        return {**kept, "result": None}
    names = ("budgets", "reward_before", "reward_after", "forecast", "noise_factor", "turns", "cost")
    short = {k: rounded(result[k]) for k in names} | {"rehearsed": result.get("rehearsed", False)}
    if record["protocol"] in DEFAULTS:
        short["measured"] = {k: rounded(result["measured"].get(k)) for k in MEASURES}
    return {**kept, "result": short}


def rounded(value: Any) -> Any:
    """Floats of nested lists and dictionaries at 7 significant digits."""
    if isinstance(value, dict):
        return {k: rounded(x) for k, x in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(x) for x in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value
