"""From the credit study's records to numbers with intervals over seeds; undefined values stay undefined."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vgrad_lab.stats import mean_with_standard_error, spearman
from vgrad_lab.tolerances import QUADRATURE

LEVEL = 0.95
RANKED = ("bottom", "top", "missing")
STATEMENTS = ("S13", "S13.depth", "S15", "S15.token", "S16", "S21.exact", "S21.group")
Value = float | None
Stage = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """One number per stage and seed; ``log`` averages logarithms (ratios); low and high bound what is possible."""

    read: Callable[[Stage], Value]
    log: bool = False
    low: float = -math.inf
    high: float = math.inf


def _costate(rule: str, layer: str, field: str) -> Callable[[Stage], Value]:
    return lambda stage: stage["costate"][rule][layer][field]


def _share(layer: str) -> Callable[[Stage], Value]:
    return lambda stage: mean_or_none(stage["sampling"][layer])


METRICS: dict[str, Metric] = {
    "accuracy": Metric(lambda s: s["accuracy"], low=0.0, high=1.0),
    "entropy": Metric(lambda s: s["entropy"], low=0.0),
    "selectivity": Metric(lambda s: s["selectivity"], log=True),
    "crossing bottom": Metric(lambda s: s["crossing"][0], low=0.0, high=1.0),
    "crossing top": Metric(lambda s: s["crossing"][-1], low=0.0, high=1.0),
    "sampling share bottom": Metric(_share("bottom"), low=0.0, high=1.0),
    "sampling share top": Metric(_share("top"), low=0.0, high=1.0),
    "bias leave-one-out": Metric(_costate("leave-one-out", "bottom", "bias"), low=0.0),
    "bias standardised": Metric(_costate("standardised", "bottom", "bias"), low=0.0),
    "cosine standardised": Metric(_costate("standardised", "bottom", "cosine"), low=-1.0, high=1.0),
    "bias own token bottom": Metric(_costate("own token only", "bottom", "bias"), low=0.0),
    "bias own token top": Metric(_costate("own token only", "top", "bias"), low=0.0),
    "noise no baseline": Metric(_costate("no baseline", "bottom", "noise"), log=True),
    "noise leave-one-out": Metric(_costate("leave-one-out", "bottom", "noise"), log=True),
    "noise standardised": Metric(_costate("standardised", "bottom", "noise"), log=True),
}
COMPARED = ("accuracy", "selectivity", "crossing bottom", "crossing top", "sampling share bottom", "sampling share top",
            "noise leave-one-out")  # fmt: skip


def mean_or_none(values: Sequence[Value]) -> Value:
    """The mean, None when any value is undefined or there is none."""
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(values) else None


def estimate(
    values: Sequence[Value], *, log: bool = False, low: float = -math.inf, high: float = math.inf, level: float = LEVEL
) -> dict[str, Any]:
    """Mean over seeds with Student's t interval, cut to the possible range low … high; geometric mean for ``log``.

    Undefined as soon as one seed is (or one ratio is not positive): ``undefined`` says for how many. One seed has no
    interval.
    """
    defined = [v for v in values if v is not None and (v > 0 or not log)]
    found: dict[str, Any] = {"value": None, "low": None, "high": None, "seeds": len(values)}
    found["undefined"] = len(values) - len(defined)
    if not values or found["undefined"]:
        return found
    x = np.log(defined) if log else np.array(defined)
    back = math.exp if log else float
    found["value"] = back(x.mean())
    if len(x) > 1:
        from scipy.stats import t

        mean, error = mean_with_standard_error(x)
        reach = float(t.ppf((1 + level) / 2, len(x) - 1) * error)
        found["low"] = max(back(float(mean) - reach), low)
        found["high"] = min(back(float(mean) + reach), high)
    return found


def summarise(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Everything the page and the figures show, from the finished records.

    cells[task][model]: costs, and per stage every metric of ``METRICS``. flow: mean flow per lag with interval.
    differences[task][model]: model minus (or over) the transformer, paired by seed. ranks: Spearman of the sampling
    path's share, and of its size, with entropy. score: see ``score``.
    """
    rows = list(records)
    done = [r for r in rows if r["status"] == "done"]
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for r in done:
        groups.setdefault(r["task"], {}).setdefault(r["model"], []).append(r)
    return {
        "level": LEVEL,
        "seeds": sorted({r["seed"] for r in rows}),
        "units": len(rows),
        "failed": {r["unit"]: r["error"] for r in rows if r["status"] != "done"},
        "cells": {t: {m: _cell(g) for m, g in models.items()} for t, models in groups.items()},
        "differences": {t: {m: _differences(g, models) for m, g in models.items() if m != "transformer"}
                        for t, models in groups.items() if "transformer" in models},
        "ranks": {m: {field: _rank([r for r in done if r["model"] == m], field) for field in RANKED}
                  for m in dict.fromkeys(r["model"] for r in done)},
        "score": score(done),
        "worst_bias": max((b for r in done for s in r["result"]["stages"]
                           if (b := METRICS["bias leave-one-out"].read(s)) is not None), default=None),
    }  # fmt: skip


def score(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Per ledger id in how many (model, stage) pairs its prediction was seen, of those in which it is defined."""

    def count(models: Sequence[str], seen: Callable[[Stage], bool | None]) -> dict[str, int]:
        looked = [seen(s) for r in records if r["model"] in models for s in r["result"]["stages"]]
        return {"looked": sum(x is not None for x in looked), "seen": sum(x is True for x in looked)}

    grus, everyone = ("gru-parameters", "gru-compute"), ("transformer", "gru-parameters", "gru-compute", "token-only")
    return {
        "S13": count(("transformer",), lambda s: s["crossing"][-1] == 0 and not any(s["flow"][-1][1:])),
        "S13.depth": count(("transformer",), lambda s: s["crossing"][0] > 0),
        "S15": count(grus, lambda s: s["crossing"][-1] > 0),
        "S15.token": count(
            ("token-only",),
            lambda s: _below(s["costate"]["own token only"]["bottom"]["bias"], also=s["crossing"][0] == 0),
        ),
        "S16": count(("transformer",), lambda s: _all_one([x for x in s["sampling"]["top"] if x is not None])),
        "S21.exact": count(everyone, lambda s: _below(s["costate"]["leave-one-out"]["bottom"]["bias"])),
        "S21.group": count(everyone, lambda s: _below(_gap(s["costate"]["standardised"]["bottom"]["cosine"]))),
    }


def _below(value: Value, *, also: bool = True) -> bool | None:
    return None if value is None else value <= QUADRATURE and also


def _all_one(shares: list[float]) -> bool | None:
    return all(x == 1 for x in shares) if shares else None


def _gap(cosine: Value) -> Value:
    return None if cosine is None else abs(1 - cosine)


def _cell(records: list[dict[str, Any]]) -> dict[str, Any]:
    first = records[0]["result"]
    stages = []
    for i, stage in enumerate(first["stages"]):
        now = [r["result"]["stages"][i] for r in records]
        flow = {name: [estimate([s["flow"][layer][lag] for s in now], low=0.0)
                       for lag in range(len(stage["flow"][layer]))]
                for name, layer in (("bottom", 0), ("top", -1))}  # fmt: skip
        numbers = {
            name: estimate([m.read(s) for s in now], log=m.log, low=m.low, high=m.high) for name, m in METRICS.items()
        }
        stages.append({"share": stage["share"], "step": stage["step"], "flow": flow, **numbers})
    return {**{k: first[k] for k in ("parameters", "width", "steps", "flops")}, "stages": stages}


def _differences(group: list[dict[str, Any]], models: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    partner = {r["seed"]: r["result"]["stages"] for r in models["transformer"]}
    pairs = [(r["result"]["stages"], partner[r["seed"]]) for r in group if r["seed"] in partner]
    found = []
    for i in range(len(group[0]["result"]["stages"])):
        row = {}
        for name in COMPARED:
            metric = METRICS[name]
            values = [_minus(metric.read(a[i]), metric.read(b[i]), log=metric.log) for a, b in pairs]
            row[name] = estimate(values, log=metric.log)
        found.append(row)
    return found


def _minus(x: Value, y: Value, *, log: bool) -> Value:
    if x is None or y is None or (log and y == 0):
        return None
    return x / y if log else x - y


def _rank(records: list[dict[str, Any]], field: str) -> dict[str, Any]:
    """Spearman of share or size with entropy over all stages and tasks of a seed, then the mean over seeds."""
    per_seed: list[Value] = []
    for seed in sorted({r["seed"] for r in records}):
        points = [(h, x) for r in records if r["seed"] == seed for s in r["result"]["stages"]
                  for h, x in zip(s["sampling"]["entropy"], s["sampling"][field], strict=True)]  # fmt: skip
        if any(x is None for _, x in points):
            per_seed.append(None)
            continue
        rho = spearman(*np.array(points, dtype=float).T)
        per_seed.append(rho if math.isfinite(rho) else None)
    return estimate(per_seed, low=-1.0, high=1.0)
