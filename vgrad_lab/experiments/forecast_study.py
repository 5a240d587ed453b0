"""How well is the RL curve forecast? Ladders and settings that chose nothing, against real GRPO runs.

    python -m vgrad_lab.experiments.forecast_study runs/held --ladders runs/l4 runs/l5 … [--settings adamw …]

One record per (ladder, rung, setting): the forecast with its band, the measures that the other predictors need, and the
rewards of real runs. Units are published one by one; a second call does what is missing, and with ``--again`` forecasts
anew what has been run.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from vgrad_lab.checkpoints.forecast import forecast
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings, facts, train
from vgrad_lab.checkpoints.ladders import Rung, list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.probe import MeasureSettings, measure
from vgrad_lab.checkpoints.store import digest, export, publish, read_records
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.provenance import versions

STATEMENTS = ("S26.ray", "S26.rehearsal", "S26.forecast")
ADAMW, SGD = default_settings("adamw"), default_settings("sgd")
OTHER_TEMPLATES = (
    "Choice: {y}\n{f}\nChoice:",
    "Pick {y}. {f} Pick",
    "name = {y}\nname =",
    "Key {y} is set. Key",
)
DELAYED = (
    "Label: {y}\n{f}\n{f}\n{f}\nLabel:",
    "The label is {y}. {f} {f} {f} {f} The label is",
    "Answer: {y}\n{f} {f}\n{f} {f}\nAnswer:",
    "Option = {y}\n{f}\n{f}\n{f}\nOption =",
)
"""The label stands three or four fillers before the question; the ladders' own templates have at most one."""


@dataclass(frozen=True)
class Setting:
    """A protocol and a task on which a forecast is judged."""

    name: str
    rl: GrpoSettings
    task: LabelCopy = field(default_factory=LabelCopy)


SETTINGS: tuple[Setting, ...] = (
    Setting("adamw", ADAMW),
    Setting("sgd", SGD),
    Setting("rate x 1/3", replace(ADAMW, learning_rate=ADAMW.learning_rate / 3)),
    Setting("rate x 3", replace(ADAMW, learning_rate=ADAMW.learning_rate * 3)),
    Setting("sgd, rate x 1/3", replace(SGD, learning_rate=SGD.learning_rate / 3)),
    Setting("sgd, rate x 3", replace(SGD, learning_rate=SGD.learning_rate * 3)),
    Setting("groups of 4", replace(ADAMW, group_size=4)),
    Setting("groups of 16", replace(ADAMW, group_size=16)),
    Setting("groups of 64", replace(ADAMW, group_size=64)),
    Setting("budget 5", replace(ADAMW, budgets=(1, 2, 3, 5))),
    Setting("budget 60", replace(ADAMW, budgets=(15, 30, 45, 60))),
    Setting("budget 100", replace(ADAMW, budgets=(25, 50, 75, 100))),
    Setting("no standard deviation", replace(ADAMW, baseline="group_mean")),
    Setting("sgd, no standard deviation", replace(SGD, baseline="group_mean")),
    Setting("sgd, clipped at 1", replace(SGD, clip=1.0)),
    Setting("other labels", ADAMW, LabelCopy(labels=("E", "H", "M", "N", "R", "T"))),
    Setting("words as labels", ADAMW, LabelCopy(labels=("one", "two", "no", "true"))),
    Setting("sgd, words as labels", SGD, LabelCopy(labels=("one", "two", "no", "true"))),
    Setting("other templates", ADAMW, LabelCopy(templates=OTHER_TEMPLATES)),
    Setting("delayed copy", ADAMW, LabelCopy(templates=DELAYED)),
    Setting("sgd, delayed copy", SGD, LabelCopy(templates=DELAYED)),
    Setting("rate x 10", replace(ADAMW, learning_rate=ADAMW.learning_rate * 10)),
    Setting("rate x 30", replace(ADAMW, learning_rate=ADAMW.learning_rate * 30)),
    Setting("sgd, rate x 10", replace(SGD, learning_rate=SGD.learning_rate * 10)),
    Setting("KL penalty", replace(ADAMW, kl=0.1)),
    Setting("sgd, KL penalty", replace(SGD, kl=1.0)),
)
"""The first two are the default setting; the others were held out of every choice."""


def run_unit(
    ladder: str, rung: Rung, setting: Setting, seeds: tuple[int, ...], before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Forecast, measures and real runs of one rung under one setting; an error is a row.

    before: the unit's finished record, whose runs and measures are kept.
    """
    head = {
        "unit": unit_id(ladder, rung, setting, seeds),
        "ladder": ladder,
        "stage": "forecast",
        "protocol": setting.name,
        "seed": 0,
        "checkpoint": {"step": rung.step, "name": rung.name},
        "settings": {"rl": facts(setting.rl), "seeds": list(seeds)},
        "versions": versions(),
        "device": "cpu",
    }
    try:
        torch.set_num_threads(1)
        kept = before["result"] if before is not None else real_runs(rung, setting, seeds)
        return {**head, "status": "done", "error": None, "result": {**kept, **forecast_of(rung, setting)}}
    except Exception as error:  # a failed unit is a row, and the others go on
        return {**head, "status": "failed", "error": f"{type(error).__name__}: {error}", "result": None}


def real_runs(rung: Rung, setting: Setting, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Measures of a rung, and its rewards before and after real runs."""
    rl = setting.rl
    group = MeasureSettings(group_size=rl.group_size, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)
    measured = measure(load_checkpoint(rung.path), setting.task, group)
    measured.pop("per_prompt")
    runs = [train(load_checkpoint(rung.path), setting.task, rl, seed=seed) for seed in seeds]
    return {
        "measured": measured,
        "budgets": list(rl.budgets),
        "reward_before": runs[0]["reward_before"],
        "reward_after": [r["reward_after"] for r in runs],
    }


def forecast_of(rung: Rung, setting: Setting) -> dict[str, Any]:
    """Forecast of a rung at the budgets, what it was made of and what it cost."""
    f, budgets = forecast(load_checkpoint(rung.path), setting.task, setting.rl), list(setting.rl.budgets)
    return {
        "forecast": f.reward[budgets].tolist(),
        "lower": f.lower[budgets].tolist(),
        "upper": f.upper[budgets].tolist(),
        "noise_factor": list(f.noise_factor),
        "turns": list(f.turns),
        "rehearsed": f.rehearsed,
        "cost": {"forward": f.forward, "backward": f.backward},
    }


def unit_id(ladder: str, rung: Rung, setting: Setting, seeds: tuple[int, ...]) -> str:
    """Readable id that ends in a hash of setting and seeds."""
    return f"{ladder}-{rung.name}-{digest([setting.name, facts(setting.rl), asdict(setting.task), list(seeds)])}"


def run(
    folder: Path,
    ladders: Iterable[Path],
    settings: Iterable[Setting],
    *,
    seeds: tuple[int, ...] = (0, 1),
    every: int = 1,
    workers: int = 2,
    again: bool = False,
) -> Path:
    """Do the units that are missing, then write records.jsonl; returns its path.

    again: forecast anew where there are real runs.
    """
    known = read_records(folder)
    todo = []
    for path in ladders:
        name = path.parent.name if path.name == "ladder" else path.name
        for rung in list_rungs(path)[::-1][::every]:
            for s in settings:
                before = known.get(unit_id(name, rung, s, seeds), {})
                done = before if before.get("status") == "done" else None
                if done is None or again:
                    todo.append((name, rung, s, seeds, done))
    with ProcessPoolExecutor(workers) as pool:
        for future in tqdm(as_completed([pool.submit(run_unit, *unit) for unit in todo]), total=len(todo), unit="rung"):
            publish(folder, future.result())
    return export(folder)


def main(arguments: list[str] | None = None) -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the records")
    parser.add_argument("--ladders", type=Path, nargs="+", required=True, help="folders of checkpoints")
    parser.add_argument("--settings", nargs="+", default=["adamw", "sgd"], help="names, or `all`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the real runs")
    parser.add_argument("--every", type=int, default=1, help="every n-th rung, from the last one back")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="forecast anew where there are real runs")
    options = parser.parse_args(arguments)
    known = {s.name: s for s in SETTINGS}
    names = list(known) if options.settings == ["all"] else options.settings
    if unknown := [n for n in names if n not in known]:
        parser.error(f"no setting {unknown[0]!r}; choose from {json.dumps(list(known))}")
    chosen = [known[n] for n in names]
    path = run(
        options.out,
        options.ladders,
        chosen,
        seeds=tuple(options.seeds),
        every=options.every,
        workers=options.workers,
        again=options.again,
    )
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
