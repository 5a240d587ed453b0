"""One GRPO update against its floor and against TRL, in one run on one checkpoint.

    python benchmarks/grpo.py runs/embedded/ladder/step000500 --json docs/results/benchmark-grpo.json

Prints (a) our update over one forward+backward of the distinct prompts (aim: at most 1.3), (b) TRL's GRPOTrainer over
ours on the same prompts, batch, learning rate and optimiser, and (c) the gain of both after 30 updates (within 0.02).
Needs the extra ``trl``.
"""

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from vgrad_lab.checkpoints import grpo, probe
from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.store import canonical
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.provenance import versions


def median_seconds(calls: dict[str, Any], repeats: int) -> dict[str, float]:
    """Median seconds of each call, interleaved so that drift of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def update_against_floor(checkpoint: Checkpoint, settings: grpo.GrpoSettings, repeats: int) -> dict[str, float]:
    """Seconds of one whole update and of one forward+backward over the same distinct prompts."""
    task = LabelCopy()
    ours, plain = copy.deepcopy(checkpoint.model), copy.deepcopy(checkpoint.model)
    batch = encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, settings.prompts, seed=1))
    optimizer, generator = grpo.make_optimizer(ours, settings), torch.Generator().manual_seed(0)

    def floor() -> None:
        tokens, last, target = probe.on_device(plain, batch, slice(None))
        logits = plain(input_ids=tokens, use_cache=False).logits[torch.arange(len(last)), last]
        torch.nn.functional.cross_entropy(logits, target).backward()
        plain.zero_grad(set_to_none=True)

    calls = {"update": lambda: grpo.step(ours, optimizer, batch, 0, settings, generator), "forward_backward": floor}
    return median_seconds(calls, repeats)


def run_ours(checkpoint: Checkpoint, batch: PromptBatch, settings: grpo.GrpoSettings, seed: int) -> tuple[Any, float]:
    """Our updates on the given prompts: the trained model and seconds per update."""
    model = copy.deepcopy(checkpoint.model)
    optimizer, generator = grpo.make_optimizer(model, settings), torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    for i in range(settings.budgets[-1]):
        grpo.step(model, optimizer, batch, i, settings, generator)
    return model, (time.perf_counter() - start) / settings.budgets[-1]


def run_trl(
    checkpoint: Checkpoint, prompts: list[tuple[str, int]], settings: grpo.GrpoSettings, seed: int
) -> tuple[Any, float]:
    """TRL's GRPOTrainer on the same prompts in the same order; seconds per update of ``train`` without its start."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    task, tokenizer = LabelCopy(), checkpoint.tokenizer
    target = [tokenizer.encode(" " + task.labels[y])[0] for _, y in prompts]
    data = Dataset.from_dict({"prompt": [text for text, _ in prompts], "target": target})

    def exact(completion_ids: list[list[int]], target: list[int], **_: Any) -> list[float]:
        return [float(ids[0] == y) for ids, y in zip(completion_ids, target, strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=settings.prompts * settings.group_size,
            num_generations=settings.group_size,
            max_completion_length=1,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant",
            max_steps=settings.budgets[-1],
            max_grad_norm=settings.clip,
            weight_decay=0.0,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = GRPOTrainer(
            model=copy.deepcopy(checkpoint.model),
            reward_funcs=exact,
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
        )
        start = time.perf_counter()
        trainer.train()
        return trainer.model, (time.perf_counter() - start) / settings.budgets[-1]


def compare(checkpoint: Checkpoint, settings: grpo.GrpoSettings, seeds: int) -> dict[str, list[float]]:
    """Gain after the last budget and seconds per update, ours and TRL's, seed by seed."""
    task, total = LabelCopy(), settings.budgets[-1] * settings.prompts
    evaluation = probe.evaluation_prompts(checkpoint, task, settings.evaluation_prompts)
    before = grpo.evaluate(checkpoint.model, evaluation, 64)["reward"]
    rows: dict[str, list[float]] = {k: [] for k in ("ours_gain", "trl_gain", "ours_seconds", "trl_seconds")}
    for seed in range(seeds):
        prompts = draw_prompts(task, total, rng=np.random.default_rng([seed, 1]))
        batch = encode_prompts(task, checkpoint.tokenizer, prompts)
        for name, (model, seconds) in (
            ("ours", run_ours(checkpoint, batch, settings, seed)),
            ("trl", run_trl(checkpoint, prompts, settings, seed)),
        ):
            rows[f"{name}_gain"].append(grpo.evaluate(model.eval(), evaluation, 64)["reward"] - before)
            rows[f"{name}_seconds"].append(seconds)
    return rows


def main() -> None:
    """Run, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=Path("runs/embedded/ladder/step000500"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not args.checkpoint.exists():
        sys.exit(f"{args.checkpoint} does not exist; run `make reproduce` first or name a checkpoint")
    torch.set_num_threads(2)
    checkpoint = load_checkpoint(args.checkpoint)
    settings = grpo.GrpoSettings(budgets=(args.updates,))
    floor = update_against_floor(checkpoint, settings, args.repeats)
    rows = compare(checkpoint, settings, args.seeds)
    result = {
        "command": f"python benchmarks/grpo.py <run>/ladder/{args.checkpoint.name}",
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "update_seconds": floor["update"],
        "forward_backward_seconds": floor["forward_backward"],
        "update_over_forward_backward": floor["update"] / floor["forward_backward"],
        "trl_over_ours": statistics.median(rows["trl_seconds"]) / statistics.median(rows["ours_seconds"]),
        "gain_difference": statistics.mean(rows["ours_gain"]) - statistics.mean(rows["trl_gain"]),
        **rows,
    }
    print(f"one update / one forward+backward: {result['update_over_forward_backward']:.2f} (aim ≤ 1.3)")
    print(f"TRL / ours, seconds per update:    {result['trl_over_ours']:.1f}")
    print(f"gain after {args.updates} updates, ours {rows['ours_gain']}, TRL {rows['trl_gain']}")
    if args.json:
        write_file(args.json, canonical(result) + "\n")


if __name__ == "__main__":
    main()
