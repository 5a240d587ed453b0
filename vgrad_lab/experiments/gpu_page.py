"""The GPU benchmark as a page of markdown: ceilings, one rung of 1B, what is missing; numbers from results alone."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from vgrad_lab.experiments.forecast_page import table
from vgrad_lab.experiments.gpu_page_ladder import ladder_sections, short

Json = dict[str, Any]
INTRODUCTION = (
    "The experiment this project is for: predict from OLMo-2 pretraining checkpoints what RL will gain, run RL, "
    "compare. How to run it on the published ladder stands in [real_ladders.md](real_ladders.md). This page holds what "
    "`benchmarks/gpu.py` measured on real cards, each number from a results file beside it.",
    "",
    "## The command",
    "",
    "```",
    'python benchmarks/gpu.py --out "$OUT"      # one CUDA GPU, torch ≥ 2.11, transformers ≥ 5.17, no network',
    "python benchmarks/gpu.py --tiny            # the same code on a CPU, about a minute; its numbers say nothing",
    "```",
    "",
    "| part | what it does |",
    "|---|---|",
    "| rates | what the card does at best: bfloat16 products, copies in its memory, the disk. Floors come from these |",
    "| a | OLMo-2 1B with random weights, as a sharded float32 ladder on the disk: seconds a rung for reading, "
    "loading, measuring, forecasting, 30 GRPO updates; forward and backward alone |",
    "| b | a ladder of 110 million parameters (OLMo-2, a tokenizer of its own), pretrained from text that is installed "
    "there; then predict, RL with two optimisers and two seeds, correlate |",
    "| c | credit flow in that ladder: by lag, the share that crosses positions, norms without a Jacobian |",
    "| d | the same run twice, bfloat16 against float32, the card against the CPU |",
    "",
    "`--part a,d` chooses, `--minutes 5` limits each part, `--again` does anew what is done. A part that fails or runs "
    "out of time or memory is a row with its error; the others go on, and a second call finishes what was stopped. "
    "**Floor**: operations and bytes counted from the model's sizes (`vgrad_lab.checkpoints.operations`, checked "
    "against torch's own counter), over the measured rates; no version runs faster. **Gap**: measured time over floor.",
    "",
)
MISSING = (
    "## No GPU numbers yet",
    "",
    "None of this has run on a GPU so far: no `results/gpu-*.json` is committed, so this page holds no number from "
    "one. "
    "What is tested is the code: the whole benchmark runs on a CPU at toy size in the tests "
    "([tests/test_gpu_benchmark.py](../tests/test_gpu_benchmark.py)), and its counts agree with torch's counter. "
    "Memory and operations of 1B and 7B, from arithmetic alone, stand in "
    "[tutorial 10](../tutorials/10_olmo2.ipynb).",
    "",
)
RATES = {
    "matrix_bfloat16": ("bfloat16 product", 1e12, "TFLOP/s"),
    "matrix_float32": ("float32 product", 1e12, "TFLOP/s"),
    "copy": ("copy in its memory, read and written", 1e9, "GB/s"),
    "host_to_device": ("host to card, pinned", 1e9, "GB/s"),
    "disk_read": ("disk, read", 1e9, "GB/s"),
    "disk_write": ("disk, written", 1e9, "GB/s"),
}
STAGES = {
    "read": "reading the files", "load": "loading to the card", "measure": "measure", "forecast": "forecast",
    "grpo": "GRPO, float32", "grpo bfloat16": "GRPO, bfloat16 products",
}  # fmt: skip
COLUMNS = {
    "seconds": "seconds", "floor_seconds": "floor, s", "gap": "gap", "share_of_matrix_rate": "of the bf16 rate",
    "share_of_copy_bandwidth": "of the copy bandwidth", "tokens_per_second": "tokens/s",
}  # fmt: skip
ONE_RUNG, SHARE, TWENTY, WHOLE = 15.0, 0.4, 8 * 60.0, 25 * 60.0
"""Aims: seconds of a rung beyond reading, share of the matrix rate, seconds of twenty rungs, of the benchmark."""
FIRST = "The first rung builds the model, the others are loaded into it; a rung's numbers are medians over {n} rungs."
LIMITS = (
    "- Part a has random weights: it says what a rung costs, not what RL gains.",
    "- Part b is one pretraining seed of a model a tenth the size, on one easy task: no evidence about OLMo-2 1B.",
    "- Counted floors leave out everything but matrix products, weights and optimiser states; prompts of a dozen "
    "tokens cannot fill a card, so gaps far above 1 are expected there.",
)


def page(results: Sequence[Json]) -> str:
    """docs/olmo2.md from the committed results files; without any it says so and holds no number of a GPU.

    Raises ValueError for a result of the toy size: its numbers mean nothing.
    """
    if any(result["tiny"] for result in results):
        raise ValueError("a result of --tiny was given; its numbers mean nothing, leave gpu-*-tiny.json out of docs")
    parts = ["# OLMo-2 on a GPU", "", *INTRODUCTION]
    if not results:
        return "\n".join([*parts, *MISSING])
    for result in results:
        parts += [f"## {result['card']}", "", _source(result), "", *_parts(result)]
        parts += [*_rates(_of(result, "rates")), *_rungs(result), *_speed(_of(result, "a")), *ladder_sections(result)]
    return "\n".join([*parts, "## What this is not", "", *LIMITS, ""])


def _of(result: Json, part: str) -> Json:
    return result["parts"].get(part, {}).get("result") or {}


def _source(result: Json) -> str:
    v = result["versions"]
    name = f"gpu-{_slug(str(result['card']))}.json"
    return (
        f"From `{result['command']}` on {result['card']}: Python {v.get('python')}, torch {v.get('torch')}, "
        f"transformers {v.get('transformers')}; [numbers](results/{name})."
    )


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _parts(result: Json) -> list[str]:
    rows = [[name, row["status"], f"{row['seconds']:.0f}", f"{row['limit_minutes']:g}", row["error"] or ""]
            for name, row in result["parts"].items()]  # fmt: skip
    total = sum(row["seconds"] for row in result["parts"].values())
    return [
        *table(("part", "status", "seconds", "limit, min", "error"), rows), "",
        f"Together {total / 60:.1f} min; aim: below {WHOLE / 60:g}: {_met(total < WHOLE)}.", "",
    ]  # fmt: skip


def _met(holds: bool) -> str:
    return "met" if holds else "not met"


def _rates(rates: Json) -> list[str]:
    rows = [[title, short(rates[key] / scale), unit] for key, (title, scale, unit) in RATES.items() if key in rates]
    return ["### What the card does at best", "", *table(("", "rate", ""), rows), ""] if rows else []


def _rungs(result: Json) -> list[str]:
    """Median seconds of every stage over the rungs, with floor, gap and peak memory; the aims."""
    rungs = _of(result, "a").get("rungs", [])
    if not rungs:
        return []
    rows = []
    for key, title in STAGES.items():
        found = [r[key] for r in rungs if key in r and "error" not in r[key]]
        wrong = [r[key]["error"] for r in rungs if key in r and "error" in r[key]]
        if not found:
            rows.append([title, *["–"] * 7, wrong[0] if wrong else "not reached"])
            continue
        cells = [short(_median(found, name)) for name in COLUMNS]
        peak = _median(found, "peak_memory")
        memory = "–" if peak is None else f"{peak / 1e9:.1f}"
        rows.append([title, *cells, memory, wrong[0] if wrong else ""])
    head = ("stage", *COLUMNS.values(), "peak memory, GB", "error")
    note = FIRST.format(n=len(rungs))
    lines = ["### One rung of OLMo-2 1B", "", *table(head, rows), "", note, ""]
    return lines + _aims(rungs)


def _median(rows: Sequence[Json], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return median(values) if values else None


def _aims(rungs: Sequence[Json]) -> list[str]:
    """One rung beyond reading; twenty rungs, computed from one."""
    parts = ("load", "measure", "forecast", "grpo")
    whole = [r for r in rungs if all("seconds" in r.get(p, {}) for p in ("read", *parts))]
    if not whole:
        return []
    work = median(sum(r[p]["seconds"] for p in parts) for r in whole)
    read = median(r["read"]["seconds"] for r in whole)
    twenty = 20 * (work + read)
    return [
        f"- Beyond reading, a rung takes {work:.1f} s (load, measure, forecast, GRPO in float32); aim: at most "
        f"{ONE_RUNG:g} s: {_met(work <= ONE_RUNG)}.",
        f"- Twenty rungs one after the other, computed from this one: {twenty / 60:.1f} min with nothing read ahead; "
        f"aim: {TWENTY / 60:g} min: {_met(twenty <= TWENTY)}.",
        "",
    ]


def _speed(part: Json) -> list[str]:
    """Forward and backward alone."""
    found = part.get("forward_backward", [])
    if not found:
        return []
    rows = [
        [row["precision"], f"{row['prompts']}", f"{row['length']}", short(row.get("seconds")),
         short(row.get("tokens_per_second")), short(row.get("gap")), short(row.get("share_of_matrix_rate")),
         row.get("error", "")]
        for row in found
    ]  # fmt: skip
    head = ("precision", "prompts", "tokens each", "seconds", "tokens/s", "gap", "share of the bf16 rate", "error")
    shares = [r["share_of_matrix_rate"] for r in found if r["prompts"] >= 64 and "share_of_matrix_rate" in r]
    lines = ["### Forward and backward alone", "", *table(head, rows), ""]
    if shares:
        lines.append(
            f"Best share at 64 prompts or more: {max(shares):.2f}; aim: {SHARE}: {_met(max(shares) >= SHARE)}."
        )
    return [
        *lines, "`bfloat16`: products over float32 weights, rounded anew in every pass; `bfloat16 weights`: weights "
        "kept rounded.", *_compiled(found), "",
    ]  # fmt: skip


def _compiled(found: Sequence[Json]) -> list[str]:
    """After how many passes compiling has paid for itself."""
    lines = []
    for row in found:
        plain = [r for r in found if (r["prompts"], r["length"]) == (row["prompts"], row["length"]) and "seconds" in r]
        plain = [r for r in plain if "compile_seconds" not in r]
        if "compile_seconds" not in row or not plain:
            continue
        saved = plain[-1]["seconds"] - row["seconds"]
        paid = f"pays after {row['compile_seconds'] / saved:,.0f} passes" if saved > 0 else "never pays"
        lines.append(f"Compiling takes {short(row['compile_seconds'])} s and {paid}.")
    return lines
