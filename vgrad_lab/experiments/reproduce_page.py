"""docs/reproduce.md: every figure and number of the paper's experiment, what it is here, and a verdict in words.

Every number comes from committed results; the verdicts are computed from the intervals.
"""

from collections.abc import Sequence
from typing import Any

from vgrad_lab.checkpoints.reading_options import CHOICES
from vgrad_lab.checkpoints.report.plates import percent
from vgrad_lab.checkpoints.report.style import signed
from vgrad_lab.experiments.forecast_page import estimate, table
from vgrad_lab.experiments.reproduce_rows import LITERAL, READINGS, figure_rows, row_of
from vgrad_lab.experiments.reproduce_words import FOUNDATIONS, INTRODUCTION, LIMITS, READ
from vgrad_lab.ledger import LEDGER

Json = dict[str, Any]
NUMBERS = ("group", "alpha")


def page(readings: Json | None, forecast: Json | None = None) -> str:
    """The page, from the summary of ``readings_study`` and, where there is one, of the forecast's study."""
    parts = ["# The paper's experiment, read every way", "", *INTRODUCTION, ""]
    if readings is None:
        return "\n".join([*parts, "Not measured yet.", ""])
    v, names = readings["versions"], sorted(readings["optimizers"])
    count = {o: readings["optimizers"][o]["checkpoints"] for o in names}
    parts += [
        f"From `{readings['command']}` on {readings['device']}, seed {readings['seed']}: {len(readings['ladders'])} "
        f"ladders, {max(count.values())} checkpoints, {readings['rl_seeds']} RL seeds; Python {v.get('python')}, torch "
        f"{v.get('torch')}, transformers {v.get('transformers')}. [Numbers](results/readings.json), "
        "[records](results/readings.records.jsonl).",
        "", READ, "",
        *_figures(readings, names, forecast),
        *_choices(readings, names),
        *_named(readings, names),
        *_all(readings, names),
        *_foundations(),
        *_better(forecast),
    ]  # fmt: skip
    return "\n".join([*parts, "## What this is not", "", *LIMITS, ""])


def _figures(readings: Json, names: Sequence[str], forecast: Json | None) -> list[str]:
    rows = figure_rows(readings, names, forecast)
    head = ("in the paper", "command", "here", "verdict")
    return ["## Every figure and number", "", *table(head, rows), ""]


def _choices(readings: Json, names: Sequence[str]) -> list[str]:
    head = ("choice", "option", "which reading it is", *(f"mean Spearman, {o}" for o in names))
    rows = []
    for name, options in CHOICES.items():
        for option, text in options.items():
            rows.append([name, f"`{option}`", text.replace("|", "\\|"), *_main(readings, names, name, option)])
    for name in NUMBERS:
        for option in readings["settings"][f"{name}s"]:
            text = "n inside Λ (not given in §6)" if name == "group" else "α of H, per unit of reward (not given in §6)"
            rows.append([name, f"`{option:g}`", text, *_main(readings, names, name, str(option))])
    share = {
        o: ", ".join(
            f"{name} {100 * c['share']:.0f} %"
            for name, c in sorted(
                readings["optimizers"][o]["all"]["choices"].items(), key=lambda item: -(item[1]["share"] or 0)
            )
        )
        for o in names
    }
    return [
        "## What §6 leaves open", "",
        "Each choice is an option of `vgrad readings PATH` under the name below; the first of each is the default. The "
        "last columns: mean over all other choices and over ladders of Spearman(P_gap, gain), with the sampled reward "
        "and a group baseline; the others (–) stand among the single departures below.",
        "", *table(head, rows), "",
        "Share of the variance of the Spearman between readings that one choice explains by itself (the rest is "
        "interaction): " + "; ".join(f"{o}: {share[o]}" for o in names) + ".", "",
    ]  # fmt: skip


def _main(readings: Json, names: Sequence[str], choice: str, option: str) -> list[str]:
    found = [readings["optimizers"][o]["all"]["choices"].get(choice, {"options": {}})["options"] for o in names]
    return [signed(x[option]) if option in x else "–" for x in found]


def _named(readings: Json, names: Sequence[str]) -> list[str]:
    head = ["reading: what differs from eqs. 26–29"]
    for o in names:
        head += [f"{o}: gain", "combined", "regret"]
    rows = []
    for first in readings["optimizers"][names[0]]["named"]:
        cells = [first["label"] + (" (§6 as written)" if first["label"] == LITERAL else "")]
        for o in names:
            r = row_of(readings, o, first["label"])
            cells += [estimate(r["gain"], sign=True, digits=2), estimate(r["combined"], sign=True, digits=2),
                      estimate(r["regret"])]  # fmt: skip
        rows.append([*cells, percent(first["negative"])])
    alone = {o: readings["optimizers"][o]["experiment"]["reward_alone"] for o in names}
    cells = ["*R_before alone, for comparison*"]
    for o in names:
        cells += [estimate(alone[o]["gain"], sign=True), estimate(alone[o]["after"], sign=True), "–"]
    return [
        "## Single departures", "",
        "One choice changed at a time, from eqs. 26–29 and from §6 as written, and every Λ with every H. Gain: "
        "Spearman of P_gap with the gain; combined: Spearman of z(R_before) + z(P_gap) with R_after; regret: gain lost "
        "at the argmax. Undefined: P_gap is the same at every checkpoint (0 for a reward that the group shares, S27).",
        "", *table([*head, "Σ < Λ at"], [*rows, [*cells, "–"]]), "",
    ]  # fmt: skip


def _all(readings: Json, names: Sequence[str]) -> list[str]:
    rows = []
    for o in names:
        a = readings["optimizers"][o]["all"]
        q = a["quantiles"]
        rows.append([
            o, f"{a['readings']} ({a['undefined']})",
            " / ".join(signed(q[k]) for k in ("0", "0.25", "0.5", "0.75", "1")),
            percent(a["positive"]), f"{percent(a['positive_everywhere'])} / {percent(a['negative_everywhere'])}",
            percent(a["at_least_paper"]), percent(a["combined_at_least_paper"]), percent(a["combined_beats_reward"]),
        ])  # fmt: skip
    head = ("optimiser", "readings (undefined)", "Spearman: least / quartiles / largest", "positive mean",
            "positive / negative on every ladder", "≥ 0.60", "combined ≥ 0.73",
            "combined above R_before alone")  # fmt: skip
    best = [
        f"{o}: largest {estimate(a['best']['gain'], sign=True)} ({a['best']['label']}), least "
        f"{estimate(a['worst']['gain'], sign=True)} ({a['worst']['label']})"
        for o, a in ((o, readings["optimizers"][o]["all"]) for o in names)
    ]
    return [
        "## All readings at once", "",
        "Each number is a mean over ladders; readings that are equal by algebra are counted once.", "",
        *table(head, rows), "", "; ".join(best) + ". The extremes are picked after the fact from thousands.", "",
        "![Spearman of all readings](images/readings.svg)", "",
        "*All readings by Λ. The dashed line is the paper's number.*", "",
    ]  # fmt: skip


def _foundations() -> list[str]:
    rows = [
        [
            f"[{key}](ledger.md#{key.lower()})",
            LEDGER[key].claim.replace("|", "\\|"),
            f"`{LEDGER[key].status.value}`",
            figure,
        ]
        for key, figure in FOUNDATIONS.items()
    ]
    return [
        "## What the figures rest on", "",
        "The statements behind each figure and their verdicts in the [ledger](ledger.md).", "",
        *table(("statement", "claim", "verdict", "used by"), rows), "",
    ]  # fmt: skip


def _better(forecast: Json | None) -> list[str]:
    lines = ["## What does better", ""]
    if forecast is None or not any(forecast.get("predictors", {}).values()):
        return [
            *lines,
            "The [forecast](forecast.md) predicts the curve itself; its held-out study is not committed yet.",
            "",
        ]
    rows = []
    for name, found in forecast["predictors"].items():
        for r in found:
            if r["kind"] == "forecast" or r["predictor"] in (
                "P_gap conditional × within",
                "P_gap per sample × between",
            ):
                fit = estimate(r["r_squared"]) if r["kind"] == "forecast" else "–"
                title = f"P_gap, {READINGS[r['predictor']]}" if r["predictor"] in READINGS else r["predictor"]
                rows.append([name, title, estimate(r["spearman"], sign=True), fit, estimate(r["regret"])])
    head = ("optimiser", "predictor", "Spearman with the gain", "R²", "regret")
    return [*lines, "On ladders that chose nothing ([the forecast's study](forecast.md)):", "", *table(head, rows), ""]
