"""Cost of a forecast against the GRPO run that it forecasts, in prompts pushed through the model and in seconds.

    python benchmarks/forecast.py <run>/ladder/step001000 --json docs/results/forecast-cost.json

One thread; forecast and run interleaved, so that drift of the machine hits both; medians over repeats. The same run by
TRL's GRPOTrainer (AdamW) is timed beside them: what the updates cost a practitioner. Needs the extra ``trl``.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grpo import run_trl

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.forecast import forecast
from vgrad_lab.checkpoints.grpo import default_settings, train
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.probe import evaluation_prompts
from vgrad_lab.checkpoints.store import canonical
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts
from vgrad_lab.provenance import versions


def processor_seconds(call: Callable[[], Any]) -> float:
    """Processor seconds of one call (other jobs on the machine do not count)."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def cost(folder: Path, optimizer: str, repeats: int) -> dict[str, Any]:
    """Passes and median seconds of both, and their ratios; loading is not counted."""
    rl, task = default_settings(optimizer), LabelCopy()
    made = forecast(load_checkpoint(folder), task, rl)
    distinct = len(evaluation_prompts(load_checkpoint(folder), task, rl.evaluation_prompts).last)
    times: dict[str, list[float]] = {"forecast": [], "run": []}
    for _ in range(repeats):
        a, b = load_checkpoint(folder), load_checkpoint(folder)
        times["forecast"].append(processor_seconds(lambda c=a: forecast(c, task, rl)))
        times["run"].append(processor_seconds(lambda c=b: train(c, task, rl, seed=0)))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    drawn = rl.budgets[-1] * rl.prompts
    looked = (len(rl.budgets) + 1) * distinct
    return {
        "updates": rl.budgets[-1],
        "forecast": {"forward": made.forward, "backward": made.backward, "seconds": seconds["forecast"]},
        "run": {"forward": drawn + looked, "backward": drawn, "seconds": seconds["run"]},
        "run_over_forecast_seconds": seconds["run"] / seconds["forecast"],
    }


def trl_seconds(folder: Path) -> float:
    """Processor seconds of the AdamW run in TRL's GRPOTrainer, on the same prompts, with the trainer's start."""
    rl, task = default_settings("adamw"), LabelCopy()
    prompts = draw_prompts(task, rl.budgets[-1] * rl.prompts, rng=np.random.default_rng([0, 1]))
    checkpoint = load_checkpoint(folder)
    return processor_seconds(lambda: run_trl(checkpoint, prompts, rl, 0))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(options.checkpoint)
    result: dict[str, Any] = {
        "command": f"python benchmarks/forecast.py <run>/ladder/{options.checkpoint.name}",
        "device": "cpu",
        "threads": 1,
        "repeats": options.repeats,
        "seeds": [0],
        "evaluation_prompts": default_settings("adamw").evaluation_prompts,
        "parameters": sum(p.numel() for p in checkpoint.model.parameters()),
        "versions": versions(),
        "settings": {name: cost(options.checkpoint, name, options.repeats) for name in ("adamw", "sgd")},
    }
    seconds = trl_seconds(options.checkpoint)
    own = result["settings"]["adamw"]["forecast"]["seconds"]
    result["trl"] = {"seconds": seconds, "run_over_forecast_seconds": seconds / own}
    sys.stdout.write(canonical(result) + "\n")
    if options.json:
        write_file(options.json, canonical(result) + "\n")


if __name__ == "__main__":
    main()
