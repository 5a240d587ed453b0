"""Every predictor of the gain on the same ladders: trivial, the paper's, exact, mean-field, a probe, the forecast."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.report.collect import number
from vgrad_lab.checkpoints.report.predictors import NAN, PREDICTORS, Predictor, forecast_curve, predict
from vgrad_lab.checkpoints.report.scores import partial_rank, r_squared, regret
from vgrad_lab.experiments.forecast_records import Cell
from vgrad_lab.stats import spearman

MEAN_FIELD, RAY, PROBE = "mean-field forecast", "forecast", "probe of 10 updates"
PROBE_UPDATES = 10
NAMES = ("spearman", "r_squared", "regret", "partial")
Across = Callable[[Sequence[float]], dict[str, Any]]


def own(name: str, formula: str) -> Predictor:
    """A forecast that stands in the result under its name."""
    return Predictor(name, formula, "forecast", lambda r: number(r, name))


ALL = (
    *PREDICTORS.values(),
    own(MEAN_FIELD, "free-logit flow of the mean success rate, one fitted constant"),
    own(RAY, "the ray of the expected update, nothing fitted"),
)
FORMULA_OF_PROBE = "R after 10 updates of a run with another seed − R_before"


def results(c: Cell) -> list[dict[str, Any]]:
    """Measures of a ladder's rungs with the step and both forecasts of the mean gain."""
    rows = []
    for i, record in enumerate(c.records):
        measured = {**record["result"]["measured"], "step": float(record["checkpoint"]["step"])}
        mean_field = mean_field_gain(measured, record["settings"]["rl"], c.budgets)
        rows.append({**measured, MEAN_FIELD: mean_field, RAY: float(c.predicted[i])})
    return rows


def mean_field_gain(measured: Mapping[str, Any], rl: Mapping[str, Any], budgets: Sequence[int]) -> float:
    """Mean gain over the budgets by ``impact.forecast``; NaN where it is undefined."""
    if rl["optimizer"] == "sgd" and rl["baseline"] != "standardised":
        return NAN
    curve = forecast_curve(
        measured,
        optimizer=rl["optimizer"],
        learning_rate=float(rl["learning_rate"]),
        group_size=int(rl["group_size"]),
        updates=max(budgets),
        ddof=int(rl["ddof"]),
        eps=float(rl["eps"]),
    )
    return float((curve[list(budgets)] - curve[0]).mean())


def score(
    values: Float[ndarray, " n"], gain: Float[ndarray, " n"], before: Float[ndarray, " n"], *, amount: bool = False
) -> dict[str, float]:
    """Spearman, R² (of an amount), regret, rank correlation given R_before; all NaN when a number is not finite."""
    if len(values) < 3 or not (np.all(np.isfinite(values)) and np.all(np.isfinite(gain))):
        return dict.fromkeys(NAMES, NAN)
    return {
        "spearman": spearman(values, gain),
        "r_squared": r_squared(values, gain) if amount else NAN,
        "regret": regret(values, gain),
        "partial": partial_rank(values, gain, before),
    }


def probe(c: Cell) -> dict[str, float]:
    """Scores of the probe: each seed in turn is the probe and the others' mean gain the truth; mean over seeds.

    NaN with one seed or without a budget of 10 updates.
    """
    seeds = c.after.shape[1]
    if seeds < 2 or PROBE_UPDATES not in c.budgets:
        return dict.fromkeys(NAMES, NAN)
    at = c.budgets.index(PROBE_UPDATES)
    each = []
    for s in range(seeds):
        gain = np.delete(c.after, s, axis=1).mean((1, 2)) - c.before
        each.append(score(c.after[:, s, at] - c.before, gain, c.before))
    return {name: float(np.mean([e[name] for e in each])) for name in NAMES}


def rivals(ladders: Sequence[Cell], across: Across) -> list[dict[str, Any]]:
    """One row per predictor: its scores, each a mean over ladders with an interval; R² only of forecasts."""
    if not ladders:
        return []
    found = [results(c) for c in ladders]
    rows = []
    for p in ALL:
        pairs = zip(ladders, found, strict=True)
        each = [score(predict(p, r), c.gain, c.before, amount=p.kind == "forecast") for c, r in pairs]
        rows.append({"predictor": p.name, "formula": p.formula, "kind": p.kind, **_columns(each, across)})
    each = [probe(c) for c in ladders]
    return [
        *rows,
        {"predictor": PROBE, "formula": FORMULA_OF_PROBE, "kind": "probe", **_columns(each, across)},
    ]


def _columns(each: Sequence[Mapping[str, float]], across: Across) -> dict[str, Any]:
    return {name: across([e[name] for e in each]) for name in NAMES}
