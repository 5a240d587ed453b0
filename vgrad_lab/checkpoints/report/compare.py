"""One page from several runs: where to start, how each predictor ranks the gains over ladders, gains side by side."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vgrad_lab.checkpoints.atomic import require_writable, write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.report import page
from vgrad_lab.checkpoints.report.collect import Record, Run, Study, collect, number
from vgrad_lab.checkpoints.report.export import plain
from vgrad_lab.checkpoints.report.plates import Plate
from vgrad_lab.checkpoints.report.predictors import FORECAST
from vgrad_lab.checkpoints.report.scores import Row, study_rows
from vgrad_lab.checkpoints.report.start import start_sections
from vgrad_lab.checkpoints.report.style import amount, curve, embed, panels, save, signed, styled
from vgrad_lab.stats import Interval, bootstrap

LEVEL = 0.9
HEAD = (
    ("predictor", False), ("kind", False), ("mean ρ with gain [90 % over runs]", True), ("least … largest", True),
    ("z(R)+z(v), R_after", True), ("mean regret", True), ("undefined in", True),
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """One predictor over the runs that share a protocol: mean Spearman with the gain, its extremes, mean regret.

    undefined: runs in which it is; where there is one, everything else is NaN (never a mean of the rest).
    """

    name: str
    kind: str
    gain: Interval
    least: float
    largest: float
    combined: float
    regret: float
    undefined: int


def run_names(folders: Sequence[Path]) -> list[str]:
    """Names of the folders, as short as they can be told apart. Raises UserError for a folder given twice."""
    whole = [folder.resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        raise UserError(f"a run was given twice among {', '.join(map(str, folders))}; name each once")
    for depth in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in whole]


def mean_over_runs(values: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean with a bootstrap interval over runs; all NaN when one is undefined, no interval below two runs."""
    x = np.array(values, dtype=float)
    if not len(x) or not np.all(np.isfinite(x)):
        return Interval(float("nan"), float("nan"), float("nan"), LEVEL)
    if len(x) < 2:
        return Interval(float(x[0]), float("nan"), float("nan"), LEVEL)
    return bootstrap(lambda i: float(x[i].mean()), len(x), level=LEVEL, resamples=resamples, seed=seed)


def compare_rows(each: Sequence[Sequence[Row]]) -> list[Compared]:
    """Every predictor over the runs, largest mean correlation first, undefined ones last."""
    tables = [{row.name: row for row in rows} for rows in each]
    found = []
    for name in tables[0]:
        rows = [t[name] for t in tables]
        gains = np.array([r.gain.value for r in rows])
        found.append(
            Compared(
                name, rows[0].kind, mean_over_runs(gains.tolist()), float(gains.min()), float(gains.max()),
                float(np.mean([r.combined for r in rows])), float(np.mean([r.regret for r in rows])),
                int(np.sum(~np.isfinite(gains))),
            )
        )  # fmt: skip
    return sorted(found, key=lambda c: -c.gain.value if np.isfinite(c.gain.value) else np.inf)


def shared(runs: Sequence[tuple[str, Run]]) -> list[list[tuple[str, Study]]]:
    """Studies by task and protocol, those of most runs first; a protocol of one run stays alone."""
    groups: dict[tuple[str, str], list[tuple[str, Study]]] = {}
    for name, run in runs:
        for study in run.studies:
            groups.setdefault((study.task, study.protocol), []).append((name, study))
    return sorted(groups.values(), key=lambda group: -len(group))


def gains_figure(group: Sequence[tuple[str, Study]]) -> Figure:
    """Mean gain over the pretraining step, and against the reward before RL, a line a run."""
    with styled():
        figure, axes = panels(2, width=9.0, height=3.6)
        for index, (name, study) in enumerate(group):
            step = [m.step for m in study.measures]
            before = np.array([number(m.result, "reward_before") for m in study.measures])
            axes[0].plot(step, study.gain, label=name, **curve(index))
            axes[1].plot(before, study.gain, **(curve(index) | {"linestyle": ""}))
        axes[0].set(xlabel="pretraining step", ylabel="mean gain by RL")
        axes[1].set(xlabel="reward before RL")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
        return figure


def _said(group: Sequence[tuple[str, Study]], rows: Sequence[Compared]) -> list[str]:
    best = [
        f"{name}: {study.measures[int(study.gain.argmax())].name}, by {amount(float(study.gain.max()))}"
        for name, study in group
        if np.all(np.isfinite(study.gain))
    ]
    said = [f"RL gained most at {'; '.join(best)}."] if best else ["No run has a defined gain at every checkpoint."]
    defined = [c for c in rows if np.isfinite(c.gain.value)]
    if defined:
        said.append(
            f"Best predictor over {len(group)} runs: {defined[0].name}, mean Spearman {_interval(defined[0].gain)}."
        )
        steady = [c.name for c in defined if c.least > 0]
        said.append(f"{len(steady)} of {len(rows)} predictors have a positive rank correlation in every run.")
    return said


def _interval(x: Interval) -> str:
    if not np.isfinite(x.value):
        return "undefined"
    return signed(x.value) + (f" [{signed(x.low)}, {signed(x.high)}]" if np.isfinite(x.low) else "")


def _table(rows: Sequence[Compared], runs: int) -> str:
    body = []
    for c in rows:
        span = f"{signed(c.least)} … {signed(c.largest)}" if np.isfinite(c.least) else "undefined"
        cells = [f"<td>{c.kind}</td>", page.plain(_interval(c.gain)), page.plain(span), page.cell(c.combined)]
        cells += [page.cell(c.regret, digits=3, plus=False), page.plain(f"{c.undefined} of {runs}")]
        body.append(page.named_row(c.name, "".join(cells)))
    return page.table("Every predictor over the runs, best mean first.", HEAD, body)


def _runs_table(runs: Sequence[tuple[str, Run]]) -> str:
    body = []
    for name, run in runs:
        measured = [m for ms in run.measures.values() for m in ms]
        rewards = [number(m.result, "reward_before") for m in measured]
        span = f"{min(rewards):.3f} … {max(rewards):.3f}" if rewards else "not measured"
        states = [r["status"] for r in run.records]
        cells = [str(len(measured)), span, str(len(run.studies)), str(states.count("failed"))]
        body.append(page.named_row(name, "".join(page.plain(c) for c in cells)))
    names = ("checkpoints measured", "R before RL", "RL protocols", "failed units")
    return page.table("What each run holds.", [("run", False), *((n, True) for n in names)], body)


def named_records(runs: Iterable[tuple[str, Run]]) -> list[Record]:
    """All records, the checkpoints' names led by their run's."""
    return [
        {**r, "checkpoint": {**r["checkpoint"], "name": f"{name}/{r['checkpoint']['name']}"}}
        for name, run in runs
        for r in run.records
    ]


def _protocol(at: int, group: Sequence[tuple[str, Study]], rows: Sequence[Compared], figures: Path) -> str:
    plate = Plate(
        f"gains-{at}", "Gains side by side", gains_figure(group),
        f"Two plots of the mean gain by RL for {len(group)} runs: over pretraining steps, against the reward before.",
        "None: the paper has one ladder.", _said(group, rows)[0],
        "Ladders differ by their pretraining seed alone only where their settings say so.",
    )  # fmt: skip
    picture = page.plate(plate, embed(*save(plate.figure, figures, plate.name)))
    return page.sentences(_said(group, rows)) + picture + _table(rows, len(group))


def write_comparison(folders: Sequence[Path], out: Path, *, resamples: int = 200, seed: int = 0) -> Path:
    """Write compare.html, compare.json and figures/ into ``out`` from several runs; return the page's path.

    Runs are joined where task and protocol are equal. resamples, seed: of the bootstraps. Raises UserError for fewer
    than two runs, one given twice, a folder without records, or an ``out`` that cannot be written.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run given; a comparison needs at least two")
    require_writable(out)
    runs = [(name, collect(folder)) for name, folder in zip(run_names(folders), folders, strict=True)]
    figures = out / "figures"
    sections = {"runs": ("The runs", _runs_table(runs)), **start_sections(named_records(runs), figures)}
    found: list[dict[str, Any]] = []
    for at, group in enumerate(shared(runs), start=1):
        rows = compare_rows([study_rows(study, resamples=resamples, seed=seed) for _, study in group])
        label = f"{group[0][1].label} ({len(group)} run{'s' * (len(group) > 1)})"
        sections[f"protocol-{at}"] = (f"RL: {label}", _protocol(at, group, rows, figures))
        found.append({"protocol": group[0][1].protocol, "label": group[0][1].label, "runs": [name for name, _ in group],
                      "predictors": [asdict(c) for c in rows]})  # fmt: skip
    notes = [f"{name}: {note}" for name, run in runs for note in run.notes]
    sections |= {"missing": ("What is missing", page.items(notes)), "glossary": ("Glossary", page.facts(page.GLOSSARY))}
    write_file(out / "compare.json", json.dumps(plain(found), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    lead = f"{len(runs)} runs side by side; {FORECAST} and trivial baselines stand beside the paper's score."
    write_file(path := out / "compare.html", page.document("Runs compared", lead, sections))
    return path
