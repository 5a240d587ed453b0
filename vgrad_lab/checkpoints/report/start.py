"""Which checkpoint should I start from: forecasts ranked by their gain, their curves, and a page of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.report import page
from vgrad_lab.checkpoints.report.collect import Record, read_records
from vgrad_lab.checkpoints.report.plates import Plate
from vgrad_lab.checkpoints.report.style import amount, curve, embed, panels, save, styled

TITLE = "Which checkpoint should I start from"
SHOWN = 6
"""Curves in the figure: more than these cannot be told apart."""


@dataclass(frozen=True)
class Row:
    """One forecast at the protocol's last budget: reward before and after, the 90 % band of the latter, the gain."""

    name: str
    before: float
    after: float
    low: float
    high: float
    record: Record

    @property
    def gain(self) -> float:
        """R_after − R_before."""
        return self.after - self.before


def ranked(records: Iterable[Record]) -> list[Row]:
    """Finished forecasts, largest gain first; other records are passed over."""
    rows = []
    for record in records:
        if record["stage"] == "forecast" and record["status"] == "done" and record.get("result"):
            x = record["result"]
            k = int(x["budgets"][-1])
            name, band = str(record["checkpoint"]["name"]), (float(x["lower"][k]), float(x["upper"][k]))
            rows.append(Row(name, float(x["reward"][0]), float(x["reward"][k]), *band, record))
    return sorted(rows, key=lambda row: -row.gain)


def advice(rows: Sequence[Row]) -> list[str]:
    """Plain sentences: the largest gain, who cannot be told apart from it, and the highest reward after."""
    best, top = rows[0], max(rows, key=lambda row: row.after)
    if best.gain <= 0:
        return ["No checkpoint is forecast to gain by this protocol."]
    said = [f"Largest gain: {best.name}, from {amount(best.before)} to {amount(best.after)}."]
    near = [r.name for r in rows[1:] if r.high - r.before >= best.low - best.before]
    if near:
        more = f" and {len(near) - SHOWN} more" if len(near) > SHOWN else ""
        said.append(f"Within the bands the gain may be as large at: {', '.join(near[:SHOWN])}{more}.")
    said.append(f"Highest reward after: {top.name}, {amount(top.after)} [{amount(top.low)}, {amount(top.high)}].")
    return said


def cost(rows: Sequence[Row]) -> str:
    """What a forecast costs beside the run that it stands for, in prompts through the model, on average."""
    spent = [row.record["result"]["prompts"] for row in rows]
    ours, theirs = (
        [round(float(np.mean([p[f"{name}{way}"] for p in spent]))) for way in ("forward", "backward")]
        for name in ("", "rl_")
    )
    return (
        f"Cost per checkpoint: {ours[0]} prompts forward and {ours[1]} backward; the run takes {theirs[0]} and "
        f"{theirs[1]} where one pass serves a whole group, as here, and the group's size times that where it does not."
    )


def curves(rows: Sequence[Row]) -> Figure:
    """Forecast reward over updates with its band, for the checkpoints of largest gain."""
    with styled():
        figure, (axis,) = panels(height=4.2)
        for index, row in enumerate(rows[:SHOWN]):
            x = row.record["result"]
            at, look = np.arange(len(x["reward"])), curve(index)
            axis.fill_between(at, x["lower"], x["upper"], color=look["color"], alpha=0.15, linewidth=0)
            axis.plot(at, x["reward"], label=row.name, markevery=max(len(at) // 8, 1), **look)
        axis.set(
            xlabel="RL updates",
            ylabel="reward R",
            ylim=(-0.02, 1.02),
            title="Forecast reward, 90 % band",
        )
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return figure


def _plate(stem: str, rows: Sequence[Row]) -> Plate:
    shown = f"the {SHOWN} checkpoints of largest gain" if len(rows) > SHOWN else "every checkpoint"
    seen = " ".join(advice(rows))
    return Plate(
        stem,
        "Forecast curves",
        curves(rows),
        f"Line plot of forecast reward over RL updates with bands, for {shown}. {seen}",
        "None: the paper gives an order of checkpoints, not a curve.",
        seen,
        "The band is calibrated on small ladders with one task; a new model family or task may need a wider one. "
        "Expected reward over runs: a single run scatters about it.",
    )


def realised(row: Row, records: Iterable[Record]) -> float:
    """Mean reward that runs of the same weights, task and protocol reached at the last budget; NaN without one."""
    own = row.record
    protocol = {k: v for k, v in (own.get("settings") or {}).items() if k != "forecast"}
    found = [
        float(r["result"]["reward_after"][-1])
        for r in records
        if (r["stage"], r["status"], r["task"]) == ("rl", "done", own["task"])
        and r["checkpoint"]["sha256"] == own["checkpoint"]["sha256"]
        and r.get("settings") == protocol
    ]
    return float(np.mean(found)) if found else float("nan")


def _table(rows: Sequence[Row], failed: Sequence[Record], records: Sequence[Record]) -> str:
    last = rows[0].record["result"]["budgets"][-1]
    runs = [realised(row, records) for row in rows]
    shown = bool(np.any(np.isfinite(runs)))
    body = []
    for row, run in zip(rows, runs, strict=True):
        numbers = [page.cell(x, digits=3, plus=False) for x in (row.before, row.after, row.low, row.high)]
        cells = [*numbers, page.cell(row.gain, digits=3)]
        if shown:
            cells.append(page.cell(run, digits=3, plus=False) if np.isfinite(run) else page.plain("not run"))
        body.append(page.named_row(row.name, "".join(cells)))
    for record in failed:
        empty = page.plain("failed") * (5 + shown)
        body.append(page.named_row(f"{record['checkpoint']['name']}: {record.get('error') or 'no message'}", empty))
    names = ("R before", f"R after {last}", "band from", "to", "gain", *([f"R after {last}, run"] if shown else []))
    return page.table(
        "Largest gain first; R_after is a forecast.", [("checkpoint", False), *((n, True) for n in names)], body
    )


def start_sections(records: Sequence[Record], figures: Path) -> dict[str, tuple[str, str]]:
    """One section of a page per protocol that was forecast; an empty mapping without forecasts."""
    sections = {}
    protocols = sorted({(str(r["task"]), str(r["protocol"])) for r in records if r["stage"] == "forecast"})
    for task, protocol in protocols:
        own = [r for r in records if (r["stage"], r["task"], r["protocol"]) == ("forecast", task, protocol)]
        rows, failed = ranked(own), [r for r in own if r["status"] != "done"]
        stem = f"start-{protocol}" if len({p for _, p in protocols}) == len(protocols) else f"start-{task}-{protocol}"
        if not rows:
            sections[stem] = (TITLE, page.failures(failed))
            continue
        rl = own[0].get("settings") or {}
        label = f"{rows[0].record['result']['optimizer']}, learning rate {rows[0].record['result']['learning_rate']:g}"
        parts = [
            page.sentences([*advice(rows), cost(rows)]),
            _table(rows, failed, records),
            page.plate(plate := _plate(f"{stem}-curves", rows), embed(*save(plate.figure, figures, plate.name))),
            page.folded("Settings", page.facts((k, str(v)) for k, v in sorted(rl.items()))),
        ]
        sections[stem] = (f"{TITLE}: {label}" if len(protocols) > 1 else TITLE, "\n".join(parts))
    return sections


def write_start(folder: Path) -> Path:
    """Write forecast.html and its figures from the forecasts of a run folder; return the page's path.

    Raises UserError for a folder without records, or one that cannot be written.
    """
    records, _ = read_records(folder)
    lead = "The reward that critic-free RL is forecast to reach from each checkpoint, before any of it is run."
    path = Path(folder) / "forecast.html"
    write_file(path, page.document(TITLE, lead, start_sections(records, Path(folder) / "figures")))
    return path
