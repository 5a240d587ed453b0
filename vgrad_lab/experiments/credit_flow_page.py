"""The credit study as a page of markdown, every number from the records; and the files of a run."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.experiments.credit_flow_figure import LOOK, draw
from vgrad_lab.experiments.credit_flow_prose import INTRODUCTION, LIMITS, findings
from vgrad_lab.experiments.credit_flow_summary import summarise
from vgrad_lab.experiments.credit_flow_words import number, ratio_word

Result = dict[str, Any]
FIGURES = (
    (
        "credit_lag",
        "Flow by lag",
        "Mean norm of ∂z̃/∂h by lag, z̃ the centred logit of the right answer. Dotted: before training; solid: trained. "
        "Bands: intervals over seeds. Upper row at the embedding, lower row at h^(L).",
    ),
    (
        "credit_learning",
        "Accuracy, selectivity, noise",
        "By share of the training done. Selectivity: mean flow into the token asked for ÷ mean flow into the tokens "
        "that might have been; noise: (tr Cov λ̂)^½/‖E λ̂‖ of one sample.",
    ),
    (
        "credit_sampling",
        "Sampling path against entropy",
        "One point per sequence, all tasks, stages and seeds: share of the sampling path M in the step "
        "(l, q) → (L, q+1) of eq. 20, beside the fixed-token path J.",
    ),
)


SPANS = (
    "a … b: smallest and largest mean over tasks (and both GRUs); the intervals of each stand below. Counts are over "
    "tasks, stages and seeds."
)


def write_report(folder: Path, records: Sequence[Result], *, command: str = "vgrad credit") -> Path:
    """Write summary.json, the figures and report.md of a run; returns the report. Units that failed are listed."""
    result = collect(records, command=command)
    text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(folder / "summary.json", text)
    draw(result, records, folder / "figures")
    report = folder / "report.md"
    write_file(report, page(result, images="figures", results=".", names=("summary.json", "records.jsonl")))
    return report


def collect(records: Sequence[Result], *, command: str) -> Result:
    """Summary with what it was made by: command, device, versions, settings (each once, as all records share them)."""
    first = records[0] if records else {}
    kept = {key: first.get(key) for key in ("device", "versions", "settings")}
    tasks = {r["task"]: r["task_settings"] for r in records}
    return {"command": command, **kept, "tasks": tasks, **summarise(records)}


def page(result: Result, *, images: str, results: str, names: tuple[str, str], ledger: str | None = None) -> str:
    """The page; ``images`` and ``results`` are the folders it links into, ``names`` the summary and the records."""
    versions = result["versions"] or {}
    source = (
        f"From `{result['command']}` on {result['device']}, seeds {', '.join(map(str, result['seeds']))}: "
        f"{result['units']} units, {len(result['failed'])} failed; Python {versions.get('python')}, torch "
        f"{versions.get('torch')}. [Numbers]({results}/{names[0]}), [records]({results}/{names[1]}). In brackets: "
        f"{100 * result['level']:.0f} % intervals over seeds (Student's t; ratios on the log scale)."
    )
    parts = ["# Who sends credit to whom: a GRU against a transformer", "", source, "", *INTRODUCTION, ""]
    if result["cells"]:
        parts += [
            "## What the paper argues, and what these models show",
            "",
            *findings(result, ledger=ledger),
            "",
            SPANS,
            "",
        ]
        parts += ["## Who took part", "", *_costs(result), ""]
        parts += ["## Numbers", "", *_numbers(result), ""]
    parts += ["## Figures", ""]
    for name, title, caption in FIGURES:
        parts += [f"![{title}]({images}/{name}.svg)", "", f"*{caption}*", ""]
    if result["failed"]:
        parts += ["## Failed", "", *(f"- `{unit}`: {error}" for unit, error in result["failed"].items()), ""]
    return "\n".join([*parts, "## What this is not", "", *LIMITS, ""])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def _costs(result: Result) -> list[str]:
    rows = [
        (task, LOOK[model][3], f"{cell['width']}", f"{cell['parameters']:,}", f"{cell['steps']}",
         f"{cell['flops'] / 1e9:.1f}")
        for task, models in result["cells"].items() for model, cell in _ordered(models)
    ]  # fmt: skip
    return _table(("task", "model", "width", "parameters", "steps", "GFLOP of training"), rows)


def _numbers(result: Result) -> list[str]:
    lines: list[str] = []
    columns = (
        ("accuracy", "accuracy"), ("entropy", "entropy, nats"), ("selectivity", "selectivity"),
        ("crossing bottom", "crossing, embedding"), ("crossing top", "crossing, h^(L)"),
        ("sampling share bottom", "sampling path, embedding"), ("sampling share top", "sampling path, h^(L)"),
    )  # fmt: skip
    costate = (
        ("bias leave-one-out", "bias, leave-one-out"), ("cosine standardised", "cosine, standardised"),
        ("bias own token bottom", "bias, own token only, embedding"), ("bias own token top", "… and h^(L)"),
        ("noise no baseline", "noise, no baseline"), ("noise leave-one-out", "noise, leave-one-out"),
        ("noise standardised", "noise, standardised"),
    )  # fmt: skip
    for task, models in result["cells"].items():
        for title, chosen in ((f"### {task}: credit", columns), (f"### {task}: one sample's costate", costate)):
            rows = [
                (LOOK[model][3], f"{100 * stage['share']:g} %", *(number(stage[key]) for key, _ in chosen))
                for model, cell in _ordered(models) for stage in cell["stages"]
            ]  # fmt: skip
            lines += [title, "", *_table(("model", "training", *(name for _, name in chosen)), rows), ""]
        lines += [f"### {task}: after training, paired by seed against the transformer", ""]
        lines += [*_compared(result["differences"].get(task, {})), ""]
    return lines


def _compared(models: Result) -> list[str]:
    ratios = ("selectivity", "noise leave-one-out")
    names = list(next(iter(models.values()), [{}])[-1])
    places = (name.replace("bottom", "at the embedding").replace("top", "at h^(L)") for name in names)
    head = (
        "",
        *(f"{p} ({'ratio' if name in ratios else 'difference'})" for p, name in zip(places, names, strict=True)),
    )
    rows = [
        (LOOK[model][3], *(number(stages[-1][name], signed=name not in ratios) for name in names))
        for model, stages in _ordered(models)
    ]
    said = [
        f"Selectivity, {LOOK[m][3]} ÷ transformer: {ratio_word(s[-1]['selectivity'])}."
        for m, s in _ordered(models)
        if m != "token-only"
    ]
    return [*_table(head, rows), "", *said]


def _ordered(models: Result) -> list[tuple[str, Any]]:
    return [(m, models[m]) for m in LOOK if m in models]
