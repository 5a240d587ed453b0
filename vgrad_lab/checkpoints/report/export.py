"""The report's numbers for machines: summary.json and predictors.csv."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgrad_lab.checkpoints.report.collect import Run, Study, number
from vgrad_lab.checkpoints.report.predictors import P_GAP, PREDICTORS, forecast_predictor
from vgrad_lab.checkpoints.report.scores import Row, forecast_error, negative_share
from vgrad_lab.checkpoints.report.verdict import verdict


@dataclass(frozen=True)
class Scored:
    """A study with its table and the stem of its files and anchors."""

    stem: str
    study: Study
    rows: dict[str, Row]

    @property
    def sentences(self) -> tuple[str, str, str]:
        """The study's verdict."""
        return verdict(self.study, self.rows)


def checkpoint_numbers(study: Study) -> list[dict[str, Any]]:
    """Per checkpoint: reward before and after, gain, forecast and impact score; NaN where undefined."""
    forecasted = forecast_predictor(study)
    return [
        {
            "name": m.name,
            "sha256": m.identity,
            "step": m.step,
            "reward_before": number(m.result, "reward_before"),
            "reward_after": study.after[i].tolist(),
            "restricted_before": number(m.result, "reward_restricted"),
            "restricted_after": study.restricted_after[i].tolist(),
            "gain": float(study.gain[i]),
            "gain_spread": float(study.gain_spread[i]),
            "seeds": int(study.seeds[i]),
            "forecast": forecasted.function(m.result),
            "impact_score": PREDICTORS[P_GAP].function(m.result),
        }
        for i, m in enumerate(study.measures)
    ]


def plain(value: Any) -> Any:
    """JSON has no NaN: null stands for undefined."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(row: Row) -> dict[str, Any]:
    return {
        "predictor": row.name,
        "kind": row.kind,
        "formula": row.formula,
        "spearman": row.gain.value,
        "low": row.gain.low,
        "high": row.gain.high,
        "partial_given_reward": row.partial,
        "spearman_after": row.after,
        "spearman_combined": row.combined,
        "regret": row.regret,
        "r_squared": row.r_squared,
        "undefined_checkpoints": row.undefined,
    }


def summary_json(name: str, run: Run, scored: Sequence[Scored]) -> str:
    """Every number of the tables with sorted keys; null stands for undefined."""
    states = [(r["stage"], r["status"]) for r in run.records]
    studies = [
        {
            "label": s.study.label,
            "task": s.study.task,
            "protocol": s.study.protocol,
            "optimizer": s.study.optimizer,
            "learning_rate": s.study.learning_rate,
            "group_size": s.study.group_size,
            "budgets": s.study.budgets,
            "verdict": s.sentences,
            "signal_below_gap": negative_share([m.result for m in s.study.measures]),
            "forecast_mean_absolute_error": forecast_error(s.study),
            "predictors": [_flat(row) for row in s.rows.values()],
            "checkpoints": checkpoint_numbers(s.study),
        }
        for s in scored
    ]
    units = {f"{stage} {state}": states.count((stage, state)) for stage, state in set(states)}
    whole = {"run": name, "units": units, "notes": run.notes, "interval_level": 0.9, "studies": studies}
    return json.dumps(plain(whole), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def predictors_csv(scored: Sequence[Scored]) -> str:
    """The predictor tables, one line per study and predictor; the word undefined where it is."""
    lines = [{"study": s.study.label, **_flat(row)} for s in scored for row in s.rows.values()]
    buffer = io.StringIO()
    names = list(lines[0]) if lines else ["study", "predictor"]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: "undefined" if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()})
    return buffer.getvalue()
