"""P_gap under every reading of §6 on whole ladders, beside the gains that RL had: records and their summary.

    python -m vgrad_lab.experiments.readings_study runs/embedded runs/seed1 runs/seed2 runs/seed3

Each folder holds a ladder and the records of its RL (`vgrad reproduce`). No RL is run here.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import Rung, list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.reading_options import ReadingSettings
from vgrad_lab.checkpoints.readings import Readings, measure_readings
from vgrad_lab.checkpoints.report.collect import Study, collect, number
from vgrad_lab.checkpoints.store import lines
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.experiments.forecast_records import ladder_name
from vgrad_lab.experiments.readings_figure import draw
from vgrad_lab.experiments.readings_scores import PARTS, summarise
from vgrad_lab.provenance import versions

STATEMENTS = ("S22", "S23", "S24", "S26", "S27")
SETTINGS = ReadingSettings(
    states=("head", "last", "first"), groups=(4, 8, 16, 64), alphas=(0.1, 1.0, 5.0, 20.0), sampled_groups=32
)
DIGITS = 7
Json = dict[str, Any]


def rounded(x: float) -> float:
    """To seven significant digits: more than any rank needs, and small files."""
    return float(f"{x:.{DIGITS}g}")


def rows_of(found: Readings) -> Json:
    """Parts of all readings as lists in the order of their sorted keys."""
    parts = {name: getattr(found, name) for name in PARTS}
    return {name: [rounded(values[k]) for k in sorted(values)] for name, values in parts.items()}


def keys_of(found: Readings) -> dict[str, list[str]]:
    """The keys that the lists of ``rows_of`` go by."""
    return {name: sorted(getattr(found, name)) for name in PARTS}


def gains(studies: Iterable[Study]) -> dict[str, dict[str, Json]]:
    """Per checkpoint (its identity) and optimiser: rewards before and after RL, and the per-prompt entropies.

    Raises UserError when an optimiser has two protocols.
    """
    found: dict[str, dict[str, Json]] = {}
    for study in studies:
        for i, m in enumerate(study.measures):
            mine = found.setdefault(m.identity, {})
            if study.optimizer in mine:
                raise UserError(f"two protocols with {study.optimizer} in one run; give runs with one of each")
            mine[study.optimizer] = {
                "budgets": list(study.budgets),
                "before": number(m.result, "reward_before"),
                "after": [rounded(x) for x in study.after[i]],
                "seeds": int(study.seeds[i]),
                "spread": rounded(study.gain_spread[i]) if np.isfinite(study.gain_spread[i]) else None,
            }
    return found


def prompts_of(result: Mapping[str, Any]) -> Json:
    """Per-prompt numbers of Fig. 2, and how many tokens there are."""
    own = result["per_prompt"]
    columns = {k: [rounded(x) for x in own[k]] for k in ("success", "entropy", "covariance_norm")}
    return {**columns, "vocabulary": int(result["vocabulary"])}


def run(folders: Sequence[Path], settings: ReadingSettings, *, seed: int = 0, progress: bool = True) -> list[Json]:
    """One record per checkpoint that has RL: its rewards, and the parts of every reading.

    Raises UserError for a folder without a ladder, without records, or without finished RL.
    """
    todo: list[tuple[str, Rung]] = []
    known: dict[str, dict[str, dict[str, Json]]] = {}
    prompts: dict[str, Json] = {}
    for folder in folders:
        found = collect(folder)
        name = ladder_name(folder / "ladder")
        if not found.studies:
            raise UserError(f"{folder} holds no finished RL; run `vgrad reproduce --out {folder}` first")
        known[name] = gains(found.studies)
        prompts |= {m.identity: prompts_of(m.result) for s in found.studies for m in s.measures}
        todo += [(name, rung) for rung in list_rungs(folder / "ladder")]
    records, keys = [], None
    for ladder, rung in tqdm(todo, unit="checkpoint", disable=None if progress else True):
        checkpoint = load_checkpoint(rung.path)
        if checkpoint.sha256 not in known[ladder]:
            continue
        measured = measure_readings(checkpoint, LabelCopy(), settings, seed=seed)
        keys = keys or keys_of(measured)
        if keys != keys_of(measured):
            raise UserError(f"{rung.path} has other readings than the first checkpoint; measure like with like")
        records.append({
            "ladder": ladder, "rung": rung.name, "step": rung.step, "sha256": checkpoint.sha256,
            "rl": known[ladder][checkpoint.sha256], "prompts": prompts[checkpoint.sha256], **rows_of(measured),
        })  # fmt: skip
    if keys is None:
        raise UserError("no checkpoint of these ladders has RL in the records beside it; give the run's own ladder")
    return [{"keys": keys, "seed": seed, "device": "cpu", "versions": versions(), **settings.__dict__}, *records]


def main(arguments: list[str] | None = None) -> None:
    """Measure and score from the command line; writes records, summary and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="run folders; none: score the records again")
    parser.add_argument("--out", type=Path, default=Path("docs/results/readings.json"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"), help="folder of the figure")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kept = options.out.with_suffix(".records.jsonl")
    if options.runs:
        write_file(kept, lines(run(options.runs, SETTINGS, seed=options.seed)))
    elif not kept.is_file():
        raise UserError(f"no records at {kept}; give the folders of runs")
    head, *records = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    names = " ".join(f"runs/{name}" for name in dict.fromkeys(r["ladder"] for r in records))
    result = {"command": f"python -m vgrad_lab.experiments.readings_study {names}", **summarise(head, records)}
    write_file(options.out, json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
    draw(head, records, options.images)
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
