"""One HTML page from a run folder, with summary.json and predictors.csv beside it; partial runs are welcome."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.report import page
from vgrad_lab.checkpoints.report.collect import Record, Run, Study, collect
from vgrad_lab.checkpoints.report.export import Scored, checkpoint_numbers, predictors_csv, summary_json
from vgrad_lab.checkpoints.report.plates import Plate, ladder_plates, study_plates
from vgrad_lab.checkpoints.report.scores import study_rows
from vgrad_lab.checkpoints.report.start import start_sections
from vgrad_lab.checkpoints.report.style import embed, save
from vgrad_lab.checkpoints.report.verdict import verdict_without_rl

BRACKETS = "In brackets: 90 % bootstrap intervals over the checkpoints of this one ladder."


def _stem(text: str, taken: set[str]) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"
    found, copy = slug, 2
    while found in taken:
        found, copy = f"{slug}-{copy}", copy + 1
    taken.add(found)
    return found


def _distinct(values: Iterable[Any]) -> str:
    texts = {value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str) for value in values}
    return ", ".join(sorted(texts, key=lambda t: (len(t), t))) or "not recorded"


def _merged(records: Sequence[Record], field: str) -> list[tuple[str, str]]:
    keys = sorted({key for r in records for key in (r.get(field) or {})})
    return [(key, _distinct((r.get(field) or {})[key] for r in records if key in (r.get(field) or {}))) for key in keys]


def _counts(records: Sequence[Record]) -> list[tuple[str, str]]:
    counts = []
    for stage in ("measure", "rl", "forecast"):
        states = [r["status"] for r in records if r["stage"] == stage]
        if stage == "forecast" and not states:
            continue
        counts.append((f"{stage} units", f"{states.count('done')} done, {states.count('failed')} failed"))
    return counts


def _header(run: Run) -> str:
    records = run.records
    names = {(int(r["checkpoint"]["step"]), str(r["checkpoint"]["name"])) for r in records}
    general = [
        *_counts(records),
        ("checkpoints", f"{len(names)}: {', '.join(name for _, name in sorted(names))}"),
        ("tasks", _distinct(r["task"] for r in records)),
        ("device", _distinct(r.get("device") or "not recorded" for r in records)),
        ("RL seeds", _distinct(r["seed"] for r in records if r["stage"] == "rl")),
        ("versions", "; ".join(f"{k} {v}" for k, v in _merged(records, "versions")) or "not recorded"),
    ]
    parts = [page.facts(general)]
    for stage, protocol in sorted({(r["stage"], r["protocol"]) for r in records}):
        own = [r for r in records if (r["stage"], r["protocol"]) == (stage, protocol)]
        listed = page.facts(_merged(own, "settings") or [("settings", "not recorded")])
        parts.append(page.folded(f"Settings of {stage}: {protocol}", listed))
    return "\n".join(parts)


def _checkpoint_table(study: Study) -> str:
    body = []
    for row in checkpoint_numbers(study):
        numbers = (row["reward_before"], row["reward_after"][-1], row["restricted_before"], row["restricted_after"][-1])
        gain, spread, forecast, score = (row[k] for k in ("gain", "gain_spread", "forecast", "impact_score"))
        cells = [page.cell(x, digits=3, plus=False) for x in numbers]
        cells += [page.cell(gain, digits=3), page.cell(spread, digits=3, plus=False), page.cell(forecast, digits=3)]
        cells += [page.plain(f"{score:.3g}" if math.isfinite(score) else "undefined"), page.plain(str(row["seeds"]))]
        body.append(page.named_row(row["name"], "".join(cells)))
    last = study.budgets[-1]
    names = ("R before", f"R after {last}", "R labels before", f"R labels after {last}", "mean gain", "sd over seeds")
    head = [("checkpoint", False), *((n, True) for n in (*names, "forecast gain", "P_gap, eqs. 26–29", "seeds"))]
    listed = page.table("Mean gain: over the budgets, then over seeds.", head, body)
    return page.folded("Every checkpoint in numbers", listed)


def _figures(plates: Sequence[Plate], folder: Path) -> str:
    return "\n".join(page.plate(plate, embed(*save(plate.figure, folder, plate.name))) for plate in plates)


def _sections(run: Run, scored: Sequence[Scored], figures: Path) -> dict[str, tuple[str, str]]:
    said = "".join(page.heading(s.study.label) + page.sentences(s.sentences) for s in scored)
    sections = {
        "verdict": ("Verdict", f"{said}<p>{BRACKETS}</p>" if scored else page.sentences(verdict_without_rl(run))),
        "run": ("This run", _header(run)),
        "missing": ("What is missing", page.items(run.notes)),
        "failed": ("Failed units", page.failures(run.records)),
    }
    sections |= start_sections(run.records, figures)
    taken = {s.stem for s in scored}
    for task, measures in sorted(run.measures.items()):
        stem = _stem(task, taken)
        sections[f"task-{stem}"] = (
            "The checkpoints" + (f" on task {task}" if len(run.measures) > 1 else ""),
            _figures(ladder_plates(stem, measures), figures),
        )
    for s in scored:
        body = _figures(study_plates(s.stem, s.study, s.rows), figures) + _checkpoint_table(s.study)
        sections[f"study-{s.stem}"] = (f"RL: {s.study.label}", body)
        sections[f"table-{s.stem}"] = (f"All predictors: {s.study.label}", page.predictor_table(list(s.rows.values())))
    sections["glossary"] = ("Glossary", page.facts(page.GLOSSARY))
    return sections


def _write(folder: Path, run: Run, scored: Sequence[Scored]) -> Path:
    name, path = folder.resolve().name, folder / "report.html"
    lead = "Which pretraining checkpoints gain most from critic-free RL, and which numbers say so beforehand."
    html = page.document(f"RL response of a ladder: {name}", lead, _sections(run, scored, folder / "figures"))
    write_file(folder / "summary.json", summary_json(name, run, scored))
    write_file(folder / "predictors.csv", predictors_csv(scored))
    write_file(path, html)
    return path


def write_report(run_folder: Path, *, resamples: int = 1000, seed: int = 0) -> Path:
    """Write report.html, summary.json, predictors.csv and figures/ into a run folder; return the page's path.

    The same records give the same bytes. resamples, seed: of the bootstrap over checkpoints.
    Raises UserError for a folder without records, or one that cannot be written.
    """
    folder = Path(run_folder)
    run, taken, scored = collect(folder), set[str](), []
    for study in run.studies:
        rows = {row.name: row for row in study_rows(study, resamples=resamples, seed=seed)}
        stem = f"{study.task} {study.protocol} {study.optimizer} {study.learning_rate:g}"
        scored.append(Scored(_stem(stem, taken), study, rows))
    try:
        return _write(folder, run, scored)
    except OSError as error:
        raise UserError(
            f"cannot write the report into {folder} ({error.strerror}): make the folder writable"
        ) from error
