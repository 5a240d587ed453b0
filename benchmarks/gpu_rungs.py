"""Part a of benchmarks/gpu.py: what one rung of OLMo-2 1B costs, stage by stage, against counted floors.

The weights are random, but for the head's rows of the labels, which are made likely so that groups are mixed and every
update is a real one: times do not depend on what a model knows.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_rates import against_floor, guarded, on_gpu, read_cold, repeated, timed
from gpu_setup import Job
from transformers import AutoConfig, AutoModelForCausalLM

from vgrad_lab.checkpoints import operations as op
from vgrad_lab.checkpoints.atomic import new_folder
from vgrad_lab.checkpoints.embedded.corpus import stdlib_texts
from vgrad_lab.checkpoints.embedded.tokenizer import END_ID, PAD_ID, train_tokenizer
from vgrad_lab.checkpoints.forecast import forecast_result, plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings, train
from vgrad_lab.checkpoints.ladders import is_checkpoint, rung_name
from vgrad_lab.checkpoints.loading import Checkpoint, quiet
from vgrad_lab.checkpoints.precision import running
from vgrad_lab.checkpoints.probe import MeasureSettings, answer_logits, answer_states, evaluation_prompts, measure
from vgrad_lab.checkpoints.reload import Bench
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts

Row = dict[str, Any]
ROUNDED, COMPILED = "bfloat16 weights", "the same, compiled"


@dataclass(frozen=True)
class Sizes:
    """Model, number of rungs, protocols, and the batches (prompts, tokens each) of forward + backward alone."""

    model: dict[str, Any]
    rungs: int
    vocab: int
    measures: MeasureSettings
    rl: GrpoSettings
    forecast: ForecastSettings
    batches: tuple[tuple[int, int], ...]
    shard: str


OLMO2_1B = {
    "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16, "intermediate_size": 8192,
    "vocab_size": 100352, "max_position_embeddings": 4096,
}  # fmt: skip
FULL = Sizes(
    OLMO2_1B, 3, 4096, MeasureSettings(), default_settings("adamw"), ForecastSettings(),
    ((64, 16), (64, 64), (64, 256), (256, 16), (256, 64)), "5GB",
)  # fmt: skip
TINY = Sizes(
    {**OLMO2_1B, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
     "vocab_size": 1024, "max_position_embeddings": 256},
    2, 1024, MeasureSettings(prompts=32, sampled_groups=4),
    replace(default_settings("adamw"), prompts=4, budgets=(1, 2, 3), evaluation_prompts=32, micro_batch=16),
    ForecastSettings(prompts=8, micro_batch=4, evaluation_prompts=32, ray_prompts=8), ((8, 8), (8, 16)), "200KB",
)  # fmt: skip


def run(job: Job) -> dict[str, Any]:
    """Save the ladder, then every stage of every rung, then forward and backward alone."""
    sizes = TINY if job.tiny else FULL
    folder = job.work / "rungs"
    result: dict[str, Any] = {"settings": {"rungs": sizes.rungs, "model": sizes.model, "prompts": sizes.rl.prompts,
                                           "group_size": sizes.rl.group_size, "updates": sizes.rl.budgets[-1]},
                              "rungs": []}  # fmt: skip
    paths = tuple(folder / rung_name(1000 * (seed + 1)) for seed in range(sizes.rungs))
    result["saved"] = timed(job.device, lambda: save_ladder(job.device, sizes, paths))[1]
    bench = Bench(paths)
    try:
        for seed, path in enumerate(paths):
            result["rungs"].append(rung_rows(job, sizes, bench, path, seed))
            job.save(result)
        result["forward_backward"] = []
        for row in speed(job, sizes, bench.checkpoint(paths[-1], device=job.device)):
            result["forward_backward"].append(row)
            job.save(result)
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
    return result


def save_ladder(device: str, sizes: Sizes, paths: tuple[Path, ...]) -> None:
    """Checkpoints of different seeds, each with the tokenizer, as sharded float32 safetensors."""
    tokenizer = train_tokenizer(stdlib_texts(characters=60 * sizes.vocab * 4), vocab=sizes.vocab)
    config = AutoConfig.for_model(
        "olmo2", **sizes.model, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0}, rms_norm_eps=1e-6,
        tie_word_embeddings=False, eos_token_id=END_ID, pad_token_id=PAD_ID,
    )  # fmt: skip
    for seed, path in enumerate(paths):
        if is_checkpoint(path):
            continue
        with torch.random.fork_rng(devices=[device] if on_gpu(device) else []), torch.device(device):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        make_labels_likely(Checkpoint(model, tokenizer, "", path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path) as temporary, quiet():
            model.save_pretrained(temporary, max_shard_size=sizes.shard)
            tokenizer.save_pretrained(temporary)


def make_labels_likely(checkpoint: Checkpoint) -> None:
    """Tilt the head's rows of the labels along the mean state, so that a label is about as likely as all else."""
    batch = evaluation_prompts(checkpoint, LabelCopy(), 32)
    mean = torch.from_numpy(answer_states(checkpoint.model, batch, 64).mean(0))
    head = checkpoint.model.get_output_embeddings().weight
    with torch.no_grad():
        rows = torch.from_numpy(batch.labels).to(head.device)
        head[rows] += (np.log(len(head) / 4) * mean / mean.square().sum()).to(head)


def rung_rows(job: Job, sizes: Sizes, bench: Bench, path: Path, seed: int) -> Row:
    """Reading, loading, measuring, forecasting and RL in float32, RL in bfloat16, for one rung."""
    files = sorted(path.glob("*.safetensors"))
    row: Row = {"rung": path.name, "shards": len(files), "file_bytes": sum(f.stat().st_size for f in files)}
    row["read"] = {"seconds": read_cold(*files), "peak_memory": None}
    row["load"] = guarded(job.device, lambda: timed(job.device, lambda: bench.checkpoint(path, device=job.device))[1])
    if "error" in row["load"]:
        return row
    shape = op.shape_of(bench.checkpoint(path, device=job.device).model.config)
    row["read"] = against_floor(row["read"], op.Work(disk=float(row["file_bytes"])), job.rates)
    row["load"] = against_floor(row["load"], op.load_work(shape), job.rates)
    rough = replace(sizes.rl, precision="bfloat16")
    stages: dict[str, Callable[[Checkpoint], Row]] = {
        "measure": lambda c: measured(job, c, shape, sizes),
        "forecast": lambda c: forecast_row(job, c, shape, sizes),
        "grpo": lambda c: trained(job, c, shape, sizes.rl, seed),
        "grpo bfloat16": lambda c: trained(job, c, shape, rough, seed),
    }
    for name, stage in stages.items():
        row[name] = guarded(job.device, lambda stage=stage: stage(bench.checkpoint(path, device=job.device)))
    return row


def lengths(checkpoint: Checkpoint, prompts: int) -> np.ndarray:
    """Tokens of the different evaluation prompts."""
    return evaluation_prompts(checkpoint, LabelCopy(), prompts).last + 1


def with_tokens(row: Row, tokens: float) -> Row:
    """The row with tokens (that went forward) per second."""
    return {**row, "tokens": float(tokens), "tokens_per_second": float(tokens) / row["seconds"]}


def measured(job: Job, checkpoint: Checkpoint, shape: op.Shape, sizes: Sizes) -> Row:
    """One measure: seconds, tokens, floor, and the reward that it found."""
    t = lengths(checkpoint, sizes.measures.prompts)
    found, row = timed(job.device, lambda: measure(checkpoint, LabelCopy(), sizes.measures))
    row = against_floor(with_tokens(row, 2 * t.sum()), op.measure_work(shape, t), job.rates)
    return {**row, "reward": found["reward_before"]}


def forecast_row(job: Job, checkpoint: Checkpoint, shape: op.Shape, sizes: Sizes) -> Row:
    """One forecast of the protocol."""
    mean = float(lengths(checkpoint, sizes.forecast.evaluation_prompts).mean())
    found, row = timed(job.device, lambda: forecast_result(checkpoint, LabelCopy(), plan_of(sizes.rl, sizes.forecast)))
    row = with_tokens(row, mean * found["prompts"]["forward"])
    row = against_floor(row, op.forecast_work(shape, found["prompts"], mean), job.rates)
    return {**row, "prompts": found["prompts"], "reward": found["reward"][-1]}


def trained(job: Job, checkpoint: Checkpoint, shape: op.Shape, rl: GrpoSettings, seed: int) -> Row:
    """One GRPO run with its evaluations."""
    task, updates = LabelCopy(), rl.budgets[-1]
    drawn = draw_prompts(task, updates * rl.prompts, rng=np.random.default_rng([seed, 1]))
    t = encode_prompts(task, checkpoint.tokenizer, drawn).last + 1
    scored = [lengths(checkpoint, rl.evaluation_prompts)] * (1 + len(rl.budgets))
    found, row = timed(job.device, lambda: train(checkpoint, task, rl, seed=seed))
    tokens = t.sum() + sum(s.sum() for s in scored)
    work = op.grpo_work(shape, t, updates, scored, optimizer=rl.optimizer)
    return {**against_floor(with_tokens(row, tokens), work, job.rates), "reward": found["reward_after"][-1]}


def speed(job: Job, sizes: Sizes, checkpoint: Checkpoint) -> Any:
    """Forward and backward alone by batch, in three precisions; share of the card's bfloat16 matrix rate."""
    model, shape = checkpoint.model, op.shape_of(checkpoint.model.config)
    for kind in ("float32", "bfloat16", ROUNDED):
        if kind == ROUNDED:
            model.zero_grad(set_to_none=True)
            model.to(torch.bfloat16)
        for prompts, length in sizes.batches:
            row = guarded(job.device, lambda k=kind, q=prompts, t=length: one_speed(job, model, shape, k, q, t))
            yield {"precision": kind, "prompts": prompts, "length": length, **row}
    prompts, length = sizes.batches[1]
    row = guarded(job.device, lambda: compiled_speed(job, model, shape, prompts, length))
    yield {"precision": COMPILED, "prompts": prompts, "length": length, **row}


def compiled_speed(job: Job, model: Any, shape: op.Shape, prompts: int, length: int) -> Row:
    """``one_speed`` with a compiled backbone, and what compiling cost before the first result."""
    backbone, batch = model.base_model, (prompts, length)
    backbone.forward = torch.compile(backbone.forward, backend="eager" if job.tiny else "inductor", dynamic=False)
    try:
        _, first = timed(job.device, lambda: one_speed(job, model, shape, COMPILED, *batch, repeats=1, warm=0))
        row = one_speed(job, model, shape, COMPILED, *batch)
        return {**row, "compile_seconds": max(first["seconds"] - row["seconds"], 0.0)}
    finally:
        del backbone.forward
        torch.compiler.reset()


def one_speed(
    job: Job, model: Any, shape: op.Shape, kind: str, prompts: int, length: int, *, repeats: int = 7, warm: int = 3
) -> Row:
    """Median seconds of a forward and backward pass over random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 1000, (prompts, length), generator=generator).to(job.device)
    last = torch.full((prompts,), length - 1, device=job.device)

    def once() -> None:
        logits = answer_logits(model, tokens, last)
        torch.autograd.backward(torch.logsumexp(logits.float(), -1).mean())
        model.zero_grad(set_to_none=True)

    with running(model, "bfloat16" if kind == "bfloat16" else "float32"):
        seconds = repeated(job.device, once, repeats=min(repeats, 2) if job.tiny else repeats, warm=min(warm, 3))
    t, size = np.full(prompts, length), op.BFLOAT16 if kind in (ROUNDED, COMPILED) else op.FLOAT32
    work = op.forward_work(shape, t, size=size) + op.backward_work(shape, t, size=size)
    return with_tokens(against_floor({"seconds": seconds}, work, job.rates), t.sum())
