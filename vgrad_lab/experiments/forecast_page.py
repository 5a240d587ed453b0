"""The forecast's study as a page of markdown; every number from the committed results."""

from collections.abc import Iterable, Sequence
from typing import Any

from vgrad_lab.checkpoints.report.style import amount, signed
from vgrad_lab.experiments.forecast_aims import aims
from vgrad_lab.experiments.forecast_records import DEFAULTS

Json = dict[str, Any]
INTRODUCTION = (
    "Before any RL: *how much reward will GRPO gain from this checkpoint, update by update?* `vgrad forecast PATH` "
    "answers from the checkpoint alone, with a 90 % band. Nothing is fitted except the width of that band.",
    "",
    "## What is forecast, and how",
    "The mean reward $R_k$ on evaluation prompts after $k = 0, 1, \\dots$ updates of a GRPO protocol (optimiser, rate, "
    "groups, baseline, clip), averaged over the run's luck. GRPO's expected gradient is known exactly at a "
    "checkpoint: each prompt's own $\\nabla p$ times $\\kappa_G(p)$, with no answer sampled.",
    "",
    "**Plain SGD is rehearsed** ([S26.rehearsal](ledger.md#s26rehearsal)). The noise of an update moves its steps in "
    "second order only. So the exact gradients of 8 prompts per update, clipped and scheduled as the protocol says, "
    "lead where 16 prompts with 8 samples each lead. The reward is read 8 times on the way.",
    "",
    "**Adam divides by the noise**, so few prompts would change its steps themselves. Its curve follows rays "
    "([proof](proofs/S26.md), [S26.adam](ledger.md#s26adam), [S26.ray](ledger.md#s26ray)):",
    "",
    "1. **The step** is $d = \\mu/\\sqrt{\\mu^2 + \\sigma^2}$ per parameter, a sign damped by noise.",
    "2. **The ray.** A few forward passes at $\\theta + \\eta x d$ read off the reward there; no derivative of "
    "higher order is needed. Adam travels at constant speed, $x = k$.",
    "3. **Measured again on the way.** The gradient turns. So the weights follow the ray for a while, and step and "
    "ray are measured anew there; three times by default.",
    "",
    "Where steps are large for the model the ray is no guide: the reward falls along it while real runs turn and rise, "
    "or its logit moves by a half within 3 updates. There, and under a KL penalty, Adam is rehearsed too, with the "
    "protocol's whole batch of samples: one run with a seed of its own, which costs what a run costs here; `vgrad "
    "forecast` says so. The weights are put back exactly.",
    "",
    "## Why the older constant was about 0.6",
    "The mean-field forecast ([S26.forecast](ledger.md#s26forecast)) lets the logit of the mean reward rise by "
    "$m\\,\\eta\\lVert\\nabla J\\rVert_1/(R(1-R))$ per update and needs $m \\approx 0.6$. A full sign step would "
    "give $m = 1$. Two factors are missing, and both can be measured: noise damps the sign ($\\langle\\mu, "
    "d\\rangle/\\lVert\\mu\\rVert_1$), and the logit of the reward bends along the ray. Neither is one number for "
    "all checkpoints, which is why one constant could not do.",
)
COLUMNS = (
    ("r_squared", "R² of the gain"),
    ("spearman", "Spearman"),
    ("error", "error of the curve"),
    ("regret", "regret"),
    ("coverage", "in the 90 % band"),
)
READ = (
    "Gain: mean over the budgets and the runs' seeds of $R_k - R_0$. Error: mean absolute error of the curve "
    "against the runs' mean. Regret: best gain on the ladder minus the gain of the rung that the forecast would "
    "choose. In the band: share of single runs' points. Numbers are means over ladders, in brackets 90 % bootstrap "
    "intervals over ladders; "
    '"undefined" is never averaged away. A rung that failed is counted and left out.'
)


def page(
    result: Json | None, *, control: Json | None = None, cost: Json | None = None, calibration: Json | None = None
) -> str:
    """The page from summary, control, cost and calibration; what is missing is said to be missing."""
    parts = ["# The forecast: what RL will gain, before it starts", "", *INTRODUCTION, ""]
    if result is None:
        parts += ["## Held-out ladders and settings", "", "Not measured yet.", ""]
    else:
        parts += [*_held_out(result), *_rivals(result), *_failures(result)]
    parts += [*_calibration(calibration), *_control(control), *_cost(cost)]
    return "\n".join([*parts, "## What this is not", "", *LIMITS, ""])


LIMITS = (
    "- With one answer token a run is as cheap as RL can be, and one whole run predicts the others better than any "
    "forecast (last row of each table). A forecast pays where runs are dear: see the cost.",
    "- One task with one answer token, models of half a million parameters: nothing here is measured on a large model.",
    "- The forecast is of the mean run: what the noise of sampling does to the reward by itself is not in it (see the "
    "control), but where Adam is rehearsed with samples.",
    "- It needs the success probability of each prompt, so an answer that can be enumerated.",
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def estimate(e: Json, *, sign: bool = False, digits: int = 3) -> str:
    """value [low, high], or "undefined" with the number of ladders in which it is."""
    if e["value"] is None:
        return f"undefined ({e['undefined']} of {e['ladders']})"
    value, low, high = (
        None if x is None else signed(x) if sign else amount(x, digits) for x in (e["value"], e["low"], e["high"])
    )
    return f"{value}" if low is None else f"{value} [{low}, {high}]"


def _held_out(result: Json) -> list[str]:
    v, ladders = result["versions"], result["ladders"]
    source = (
        f"From `{result['command']}` on {result['device']}, RL seeds {', '.join(map(str, result['seeds']))}; Python "
        f"{v.get('python')}, torch {v.get('torch')}, transformers {v.get('transformers')}. "
        "[Numbers](results/forecast.json), [records](results/forecast.records.jsonl)."
    )
    chose = ", ".join(ladders["calibration"]) or "none in these records"
    held = ", ".join(ladders["held out"]) or "none in these records"
    split = f"Ladders that chose method and band: {chose}. Held out, seen by no choice: {held}."
    rows = [r for r in result["settings"] if r["split"] == "held out"]
    lines = ["## Held-out ladders and settings", "", source, "", split, ""]
    if noise := result["noise_factor"]:
        low, high, mean = (amount(noise[k], 2) for k in ("low", "high", "mean"))
        lines += [f"Noise leaves {low} to {high} (mean {mean}) of Adam's full sign step at the held-out rungs.", ""]
    if rows:
        lines += [*_aims(result), *_coverage(rows), *table(*_setting_table(rows)), "", READ, ""]
        lines += ["![Realised gain against the forecast](images/forecast_gain.svg)", ""]
        lines += ["*One point per held-out rung; on the dashed line the forecast is right.*", ""]
        lines += ["![R² by setting](images/forecast_settings.svg)", ""]
        lines += ["*One point per ladder; triangles lie below the axis.*", ""]
    return lines


def _coverage(rows: Sequence[Json]) -> list[str]:
    """How far the band may be trusted outside the settings that it was calibrated in."""
    others = {r["setting"]: r["coverage"]["value"] for r in rows if r["setting"] not in DEFAULTS}
    known = {name: share for name, share in others.items() if share is not None}
    if not known:
        return []
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return [
        f"The band was calibrated in the default settings only. Elsewhere it holds {100 * known[low]:.0f} % ({low}) to "
        f"{100 * known[high]:.0f} % ({high}) of the runs' points: calibrate it anew, or read it as a rough one there.",
        "",
    ]


def _setting_table(rows: Sequence[Json]) -> tuple[list[str], list[list[str]]]:
    head = ["setting", "ladders", "rungs (failed)", *(title for _, title in COLUMNS)]
    body = [
        [r["setting"], f"{len(r['ladders'])}", f"{r['rungs']} ({r['failed']})", *(estimate(r[k]) for k, _ in COLUMNS)]
        for r in rows
    ]
    return head, body


def _aims(result: Json) -> list[str]:
    rows = [(a.aim, a.found, "yes" if a.met else "no" if a.met is not None else "undefined") for a in aims(result)]
    return [*table(("aim", "found", "met"), rows), ""]


def _rivals(result: Json) -> list[str]:
    if not any(result["predictors"].values()):
        return []
    lines = ["## Against every other predictor", ""]
    for name in DEFAULTS:
        rows = [
            [r["predictor"], estimate(r["spearman"], sign=True), estimate(r["partial"], sign=True),
             estimate(r["r_squared"]) if names_an_amount(r) else "–", estimate(r["regret"])]
            for r in result["predictors"][name]
        ]  # fmt: skip
        head = ("predictor", "Spearman with the gain", "… given R_before", "R²", "regret")
        lines += [f"**{name}**, held-out ladders", "", *table(head, rows), ""]
    lines += [
        "Given R_before: rank correlation after a cubic in the rank of R_before is taken out of both. R² only where a "
        "predictor names an amount. Probe and whole run take each seed in turn and are judged on the others, so "
        "their truth is noisier.",
        "",
        "![Spearman of every predictor](images/forecast_predictors.svg)",
        "",
    ]
    return lines


def names_an_amount(row: Json) -> bool:
    """Whether a predictor says how much is gained, so that it has an R²."""
    return bool(row["kind"] == "forecast" or row["r_squared"]["value"] is not None)


def _failures(result: Json) -> list[str]:
    if not any(b["rungs"] for name in DEFAULTS for b in result["errors"][name]["bins"]):
        return []
    lines = ["## Where it fails", ""]
    for name in DEFAULTS:
        found = result["errors"][name]
        rows = [
            [f"{b['low']:g} … {b['high']:g}", f"{b['rungs']}", signed(b["error"], 4), amount(b["absolute"], 4)]
            for b in found["bins"]
            if b["rungs"]
        ]
        head = ("R_before", "rungs", "mean error (forecast − runs)", "mean absolute error")
        worst = "; ".join(
            f"{w['ladder']} {w['rung']} (R_before {w['before']:.3f}: {signed(w['error'], 3)})" for w in found["worst"]
        )
        lines += [f"**{name}**", "", *table(head, rows), "", f"Worst rungs: {worst}.", ""]
    weak = [r for r in result["settings"] if r["split"] == "held out" and (r["r_squared"]["value"] or -1) < 0.85]
    names = "; ".join(f"{r['setting']} (R² {estimate(r['r_squared'])})" for r in weak)
    lines += [f"Settings with R² below 0.85 or undefined: {names}." if weak else "No setting has R² below 0.85.", ""]
    return lines + ([f"- failed: `{text}`" for text in result["failed"]] + [""] if result["failed"] else [])


def _calibration(calibration: Json | None) -> list[str]:
    if calibration is None:
        return []
    rows = [
        [name, f"{calibration['widths'][name]:g}", ", ".join(calibration["ladders"][name]),
         f"{calibration['runs'][name]}", f"{100 * calibration['coverage'][name]:.0f} %",
         ", ".join("–" if x is None else f"{100 * x:.0f} %" for x in calibration["coverage_left_out"][name].values())]
        for name in DEFAULTS
    ]  # fmt: skip
    head = ("optimiser", "width", "calibration ladders", "runs", "covered", "covered on each, width from the others")
    return [
        "## The band", "",
        "The band is symmetric in the logit, its half-width is width·(0.05 + change of the logit). The width is the "
        "90 % quantile of the calibration ladders' errors in these units (split conformal; points of one run are "
        f"not independent). From `{calibration['command']}`: [numbers](results/forecast-calibration.json).",
        "", *table(head, rows), "",
    ]  # fmt: skip


def _control(control: Json | None) -> list[str]:
    if control is None:
        return []
    rows = [
        [name, f"{s['rungs']}", "0",
         signed(s["gain"], 4) + (f" ± {amount(s['error'], 4)}" if s["error"] is not None else ""),
         amount(s["largest"])]
        for name, s in control["summary"].items()
    ]  # fmt: skip
    moved = [name for name, s in control["summary"].items() if s["error"] and abs(s["gain"]) > 2 * s["error"]]
    verdict = (
        f"With {' and '.join(moved)} the noise moves the reward by more than two standard errors: a part of the gain "
        "that no forecast of expected updates can hold."
        if moved
        else "No mean lies more than two standard errors from the forecast."
    )
    return [
        "## Control: a reward that ignores the answer", "",
        "GRPO with coin flips for rewards: advantages are independent of the answers, so the expected update is "
        "zero and the forecast is no gain. Real runs, mean over rungs ± standard error; what is left is the "
        f"noise's own doing. From `{control['command']}`: [numbers](results/forecast-control.json).",
        "", *table(("optimiser", "rungs", "forecast gain", "real gain", "largest on one rung"), rows), "", verdict, "",
    ]  # fmt: skip


def _trl(cost: Json) -> str:
    """What the same updates cost in TRL, over the forecast; empty where it was not measured."""
    if "trl" not in cost:
        return ""
    ratio = cost["trl"]["run_over_forecast_seconds"]
    return f" In TRL the same updates are {ratio:.1f} times as dear as their forecast: {_met(ratio >= 10)}."


def _met(holds: bool) -> str:
    return "met" if holds else "not met"


def _cost(cost: Json | None) -> list[str]:
    if cost is None:
        return []
    rows = []
    for name, s in cost["settings"].items():
        for who, title in (("forecast", "forecast"), ("run", f"{s['updates']} updates with their evaluations")):
            c = s[who]
            rows.append([name, title, f"{c['forward']}", f"{c['backward']}", f"{c['seconds']:.2f}"])
    if "trl" in cost:
        title = f"{cost['settings']['adamw']['updates']} updates by TRL's GRPOTrainer"
        rows.append(["adamw", title, "", "", f"{cost['trl']['seconds']:.2f}"])
    limit = 3 * cost["evaluation_prompts"]
    ratios = ", ".join(f"{s['run_over_forecast_seconds']:.2f} ({n})" for n, s in cost["settings"].items())
    return [
        "## Cost", "",
        *table(("optimiser", "", "prompts forward", "prompts backward", "processor seconds"), rows), "",
        f"Aim: at most {limit} prompts each way (three passes over the evaluation prompts). Backward "
        f"{_met(s['forecast']['backward'] <= limit)}, forward {_met(s['forecast']['forward'] <= limit)}.",
        "",
        f"Aim: a run is at least 10 times dearer than its forecast. It costs {ratios} times as much: "
        f"{_met(all(s['run_over_forecast_seconds'] >= 10 for s in cost['settings'].values()))}. The runs here are as "
        "cheap as RL can be: one answer token, one forward pass for a whole group." + _trl(cost),
        "",
        f"From `{cost['command']}`, one thread, {cost['parameters']:,} parameters: "
        "[numbers](results/forecast-cost.json).",
        "",
    ]  # fmt: skip
