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

MEAN_FIELD, RAY, PROBE, RUN = "mean-field forecast", "forecast", "probe of 10 updates", "one whole run"
PROBE_UPDATES = 10
NAMES = ("spearman", "r_squared", "regret", "partial")
Across = Callable[[Sequence[float]], dict[str, Any]]


def own(name: str, formula: str) -> Predictor:
    """A forecast that stands in the result under its name."""
    return Predictor(name, formula, "forecast", lambda r: number(r, name))


ALL = (
    *PREDICTORS.values(),
    own(MEAN_FIELD, "free-logit flow of the mean success rate, one fitted constant"),
    own(RAY, "rays of Adam's expected update; sgd rehearsed with exact gradients of 8 prompts; nothing fitted"),
)
FORMULA_OF_PROBE = "R after 10 updates of a run with another seed − R_before"
FORMULA_OF_RUN = "mean gain of a run with another seed"


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


def probe(c: Cell, *, whole: bool = False) -> dict[str, float]:
    """Scores of a run as a predictor: each seed in turn, with the others' mean gain for truth; mean over seeds.

    whole: its mean gain over all budgets instead of that after 10 updates. NaN with one seed or without a budget of 10
    updates.
    """
    seeds = c.after.shape[1]
    if seeds < 2 or not (whole or PROBE_UPDATES in c.budgets):
        return dict.fromkeys(NAMES, NAN)
    seen = c.after.mean(2) if whole else c.after[:, :, c.budgets.index(PROBE_UPDATES)]
    each = []
    for s in range(seeds):
        gain = np.delete(c.after, s, axis=1).mean((1, 2)) - c.before
        each.append(score(seen[:, s] - c.before, gain, c.before, amount=whole))
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
    for name, formula, whole in ((PROBE, FORMULA_OF_PROBE, False), (RUN, FORMULA_OF_RUN, True)):
        each = [probe(c, whole=whole) for c in ladders]
        rows.append({"predictor": name, "formula": formula, "kind": "run", **_columns(each, across)})
    return rows


def _columns(each: Sequence[Mapping[str, float]], across: Across) -> dict[str, Any]:
    return {name: across([e[name] for e in each]) for name in NAMES}
