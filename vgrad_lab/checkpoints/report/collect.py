"""From a run folder's records to arrays: measured checkpoints, RL studies, and what is missing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.checkpoints.errors import UserError

Record = Mapping[str, Any]
StudyKey = tuple[str, str, str, float, int, tuple[int, ...]]


@dataclass(frozen=True)
class Measured:
    """One measured checkpoint; ``result`` is the record's, with the pretraining ``step`` added."""

    name: str
    identity: str
    step: int
    training: Mapping[str, Any]
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """One task under one RL protocol: n checkpoints that have both a measure and RL, in order of pretraining.

    gain is the mean over budgets of R_after − R_before, then over seeds; ``gain_spread`` its sd over seeds (ddof 1,
    NaN for one seed). ``after`` is (n, budgets), a mean over seeds; low and high are the extremes over seeds.
    ``settings`` are those of the protocol.
    """

    label: str
    task: str
    protocol: str
    settings: Mapping[str, Any]
    optimizer: str
    learning_rate: float
    group_size: int
    budgets: tuple[int, ...]
    measures: tuple[Measured, ...]
    seeds: Int[ndarray, " n"]
    gain: Float[ndarray, " n"]
    gain_spread: Float[ndarray, " n"]
    after: Float[ndarray, "n budgets"]
    after_low: Float[ndarray, "n budgets"]
    after_high: Float[ndarray, "n budgets"]
    restricted_after: Float[ndarray, "n budgets"]


@dataclass(frozen=True)
class Run:
    """All that a report needs: records (latest per unit), measures per task, studies, and notes on gaps."""

    records: tuple[Record, ...]
    measures: Mapping[str, tuple[Measured, ...]]
    studies: tuple[Study, ...]
    notes: tuple[str, ...]


def number(result: Mapping[str, Any], key: str) -> float:
    """A float of a result; NaN where the key is missing or null. Of an estimate its value."""
    value = result.get(key)
    value = value.get("value") if isinstance(value, Mapping) else value
    return float("nan") if value is None else float(value)


def numbers(result: Mapping[str, Any], key: str, length: int) -> Float[ndarray, " n"]:
    """A list of a result as a float array; NaN where missing, null or of another length."""
    values = result.get(key) or []
    if len(values) != length:
        return np.full(length, np.nan)
    return np.array([np.nan if v is None else float(v) for v in values], dtype=float)


def read_records(run_folder: Path) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Latest record of each unit, in file order, and notes on lines that could not be read.

    Raises UserError for a folder without ``records.jsonl`` or without one readable record.
    """
    path = Path(run_folder) / "records.jsonl"
    if not path.is_file():
        raise UserError(f"no records.jsonl in {run_folder}: give the folder of a run that has started")
    latest: dict[str, Record] = {}
    broken: list[int] = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            latest[record["unit"]] = record
        except (json.JSONDecodeError, KeyError, TypeError):
            broken.append(line_number)
    if not latest:
        raise UserError(f"records.jsonl in {run_folder} holds no readable record: run the sweep first")
    notes = (f"unreadable lines in records.jsonl, left out: {', '.join(map(str, broken))}",) if broken else ()
    return tuple(latest.values()), notes


def _done(records: Iterable[Record], stage: str) -> list[Record]:
    return [r for r in records if r["stage"] == stage and r["status"] == "done" and r.get("result")]


def _identity(record: Record) -> str:
    checkpoint = record["checkpoint"]
    return str(checkpoint.get("sha256") or checkpoint["name"])


def _measures(records: Sequence[Record]) -> tuple[dict[str, tuple[Measured, ...]], list[str]]:
    found: dict[str, dict[str, Measured]] = {}
    notes = []
    for record in sorted(_done(records, "measure"), key=lambda r: int(r.get("seed") or 0)):
        checkpoint, by_id = record["checkpoint"], found.setdefault(record["task"], {})
        identity, step = _identity(record), int(checkpoint["step"])
        if identity in by_id:
            notes.append(f"{record['task']}: {checkpoint['name']} is measured more than once; the lowest seed is shown")
            continue
        result = {**record["result"], "step": float(step)}
        by_id[identity] = Measured(checkpoint["name"], identity, step, checkpoint.get("training") or {}, result)
    ordered = {task: tuple(sorted(by_id.values(), key=lambda m: (m.step, m.name))) for task, by_id in found.items()}
    return ordered, notes


def _key(record: Record) -> StudyKey:
    result, settings = record["result"], record.get("settings") or {}
    budgets = tuple(int(b) for b in result["budgets"])
    optimizer, rate = str(result["optimizer"]), float(result["learning_rate"])
    return record["task"], record["protocol"], optimizer, rate, int(settings.get("group_size") or 0), budgets


def _labels(keys: Sequence[StudyKey]) -> dict[StudyKey, str]:
    """Short headings: optimiser, learning rate and group size; task and protocol only where they tell studies apart."""
    plain = {k: f"{k[2]}, learning rate {k[3]:g}, groups of {k[4]}" for k in keys}
    if len({k[0] for k in keys}) > 1:
        plain = {k: f"{text}, task {k[0]}" for k, text in plain.items()}
    shared = {text for text in plain.values() if list(plain.values()).count(text) > 1}
    return {
        k: f"{text}, protocol {k[1]}, budgets {', '.join(map(str, k[5]))}" if text in shared else text
        for k, text in plain.items()
    }


def _study(key: StudyKey, label: str, pairs: Sequence[tuple[Measured, Sequence[Record]]]) -> Study:
    task, protocol, optimizer, learning_rate, group_size, budgets = key
    width = len(budgets)
    gains = [np.array([number(r["result"], "gain_mean") for r in group]) for _, group in pairs]
    after = [np.stack([numbers(r["result"], "reward_after", width) for r in group]) for _, group in pairs]
    restricted = [
        np.stack([numbers(r["result"], "reward_restricted_after", width) for r in group]) for _, group in pairs
    ]
    return Study(
        label=label,
        task=task,
        protocol=protocol,
        settings=pairs[0][1][0].get("settings") or {},
        optimizer=optimizer,
        learning_rate=learning_rate,
        group_size=group_size,
        budgets=budgets,
        measures=tuple(measured for measured, _ in pairs),
        seeds=np.array([len(g) for g in gains]),
        gain=np.array([g.mean() for g in gains]),
        gain_spread=np.array([g.std(ddof=1) if len(g) > 1 else np.nan for g in gains]),
        after=np.stack([a.mean(0) for a in after]),
        after_low=np.stack([a.min(0) for a in after]),
        after_high=np.stack([a.max(0) for a in after]),
        restricted_after=np.stack([a.mean(0) for a in restricted]),
    )


def _studies(
    records: Sequence[Record], measures: Mapping[str, tuple[Measured, ...]]
) -> tuple[tuple[Study, ...], list[str]]:
    groups: dict[StudyKey, dict[str, list[Record]]] = {}
    for record in _done(records, "rl"):
        groups.setdefault(_key(record), {}).setdefault(_identity(record), []).append(record)
    studies, notes = [], []
    labels = _labels(sorted(groups, key=lambda key: (key[0], key[2:], key[1])))
    for key, label in labels.items():
        by_id = groups[key]
        pairs = [(m, by_id[m.identity]) for m in measures.get(key[0], ()) if m.identity in by_id]
        known = {m.identity for m, _ in pairs}
        lost = sorted({by_id[i][0]["checkpoint"]["name"] for i in by_id if i not in known})
        if lost:
            notes.append(f"{label}: RL without a measure of the same weights, left out: {', '.join(lost)}")
        if not pairs:
            continue
        study = _study(key, label, pairs)
        studies.append(study)
        notes += _study_notes(study, measures[key[0]])
    return tuple(studies), notes


def _study_notes(study: Study, measured: Sequence[Measured]) -> list[str]:
    label, notes = study.label, []
    with_rl = {m.identity for m in study.measures}
    if waiting := [m.name for m in measured if m.identity not in with_rl]:
        notes.append(f"{label}: measured but without RL: {', '.join(waiting)}")
    if study.seeds.min() != study.seeds.max():
        few = [m.name for m, n in zip(study.measures, study.seeds, strict=True) if n < study.seeds.max()]
        notes.append(f"{label}: fewer than {study.seeds.max()} RL seeds at {', '.join(few)}")
    if broken := [m.name for m, g in zip(study.measures, study.gain, strict=True) if not np.isfinite(g)]:
        notes.append(f"{label}: the gain is undefined at {', '.join(broken)}, hence every statistic of it")
    if (n := len(study.measures)) < 3:
        notes.append(
            f"{label}: {n} checkpoint{'s' * (n != 1)} with RL; a rank correlation needs 3, and many to mean much"
        )
    if study.group_size < 2:
        notes.append(f"{label}: the settings give no group size, so no forecast is possible")
    if study.optimizer == "sgd" and study.settings.get("baseline", "standardised") != "standardised":
        notes.append(f"{label}: the forecast for SGD knows standardised advantages only, so it is undefined here")
    norms = np.sqrt([number(m.result, "gradient_l2_squared") for m in study.measures])
    clip = study.settings.get("clip") or np.inf
    if study.optimizer == "sgd" and (clipped := int(np.sum(norms > clip))):
        notes.append(
            f"{label}: ‖∇J‖ alone exceeds the clip of {clip:g} at {clipped} of {n} checkpoints, which makes SGD a "
            "normalised step there; the forecast for SGD knows no clipping"
        )
    return notes


def collect(run_folder: Path) -> Run:
    """Read a run folder into arrays; partial runs are welcome, and ``notes`` says what is missing.

    Measure and RL are joined by the checkpoint's sha256, so numbers of different weights never meet.
    Raises UserError for a folder without records.
    """
    records, notes = read_records(run_folder)
    measures, measure_notes = _measures(records)
    studies, study_notes = _studies(records, measures)
    missing = []
    if not measures:
        missing.append("no finished measure yet: no ladder, no predictor")
    if not _done(records, "rl"):
        missing.append("no finished RL unit yet: no gains, so predictors cannot be scored")
    return Run(records, measures, studies, (*notes, *missing, *measure_notes, *study_notes))
