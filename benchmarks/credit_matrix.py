"""Credit norms without a Jacobian against batched backward passes, a loop of Jacobians, a training step; one thread.

    python benchmarks/credit_matrix.py --json docs/results/benchmark-credit-matrix.json

One pre-norm transformer (d = 256, 8 layers, float32, random weights), batch 1, processor seconds, calls interleaved.
(a) T = 512: ``credit_matrix`` with 4 random directions a target against one backward pass a target, batched by vmap
with the same chunk, on every eighth target (``--full`` for all; fewer targets share a prefix here than in the full
run, which is to our disadvantage). Aim: at most 3. (b) T = 64, all targets: against a loop of
torch.autograd.functional.jacobian, timed at two targets and scaled, since each costs the same. Aim: at least 20.
(c) Peak memory: largest resident set of a process of its own (VmHWM, so Linux only), less its size before the model is
built, against two AdamW steps of the same model on the same tokens. Aim: at most 2.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from vgrad_lab.provenance import versions
from vgrad_lab.sequence.credit_matrix import credit_matrix
from vgrad_lab.sequence.trace import probing, trace
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

PROBES = 4


@dataclass(frozen=True)
class Size:
    """Sizes of the model and lengths of the two timings."""

    width: int = 256
    layers: int = 8
    vocab: int = 256
    long: int = 512
    short: int = 64
    every: int = 8


TINY = Size(width=32, layers=2, vocab=16, long=48, short=16)


def build(size: Size, length: int) -> tuple[Transformer, torch.Tensor]:
    """The model and one sequence of random tokens."""
    heads = size.width // 32
    spec = TransformerSpec(
        size.vocab, width=size.width, layers=size.layers, heads=heads, head_width=32, max_length=size.long
    )
    tokens = np.random.default_rng(0).integers(0, size.vocab, (1, length))
    return Transformer(spec, seed=0, dtype=torch.float32), torch.from_numpy(tokens)


def backward_passes(model: Transformer, inputs: torch.Tensor, positions: list[int], chunk: int) -> None:
    """One vector–Jacobian product a target with respect to every state, batched by vmap, ``chunk`` at a time."""
    found = trace(model, inputs)
    state = found.hidden[-1][:, positions]
    for part in torch.split(torch.arange(len(positions)), chunk):
        cotangent = torch.zeros(len(part), *state.shape)
        cotangent[torch.arange(len(part)), :, part] = 1.0
        torch.autograd.grad(state, found.probe, cotangent, is_grads_batched=True, retain_graph=True)


def loop_of_jacobians(model: Transformer, inputs: torch.Tensor, positions: list[int]) -> np.ndarray:
    """Frobenius norms by torch.autograd.functional.jacobian, one call a target."""
    shape = (model.layers + 1, *inputs.shape, model.width)
    rows = []
    for k in positions:

        def state(probe: torch.Tensor, k: int = k) -> torch.Tensor:
            return model(inputs, edit=probing(probe)).hidden[-1, 0, k]

        jacobian = torch.autograd.functional.jacobian(state, torch.zeros(shape))
        rows.append(jacobian.double().square().sum((0, -1)).sqrt().numpy())
    return np.stack(rows, axis=2)


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Processor seconds of each call, in turn, and what each gave last."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    found = {}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            found[name] = call()
            seconds[name].append(time.process_time() - start)
    return seconds, found


def against_passes(size: Size, every: int, repeats: int) -> dict[str, Any]:
    """(a): seconds and the ratio, with the error that the randomised mode states."""
    model, inputs = build(size, size.long)
    positions = list(range(every - 1, size.long, every))
    chunk = size.layers
    seconds, found = interleaved(
        {
            "backward_passes": lambda: backward_passes(model, inputs, positions, chunk),
            "credit_matrix": lambda: credit_matrix(model, inputs, positions=positions, probes=PROBES, chunk=chunk),
        },
        repeats,
    )
    norm, error = found["credit_matrix"].norm, found["credit_matrix"].standard_error
    relative = (error / np.maximum(norm, 1e-30))[norm > 0]
    ratios = [a / b for a, b in zip(seconds["credit_matrix"], seconds["backward_passes"], strict=True)]
    return {
        "length": size.long,
        "targets": len(positions),
        "probes": PROBES,
        "seconds": seconds,
        "ratio": median(ratios),
        "aim": 3.0,
        "relative_standard_error": {"median": float(np.median(relative)), "largest": float(relative.max())},
    }


def against_loop(size: Size) -> dict[str, Any]:
    """(b): seconds, the ratio, and how far the estimates are from the exact norms in their own standard errors."""
    model, inputs = build(size, size.short)
    sample = [size.short // 2, size.short - 1]
    seconds, found = interleaved(
        {
            "credit_matrix": lambda: credit_matrix(model, inputs, probes=PROBES),
            "credit_matrix_exact": lambda: credit_matrix(model, inputs, positions=sample, probes=None),
            "loop": lambda: loop_of_jacobians(model, inputs, sample),
        },
        1,
    )
    scale = size.short / len(sample)
    ours, exact, loop = found["credit_matrix"], found["credit_matrix_exact"], found["loop"]
    truth = exact.norm
    some = ours.standard_error[:, :, sample]
    known = some > 1e-5 * truth
    z = (ours.norm[:, :, sample] - truth)[known] / some[known]
    loop_seconds = scale * seconds["loop"][0]
    return {
        "length": size.short,
        "probes": PROBES,
        "seconds": {"credit_matrix": seconds["credit_matrix"][0], "loop_scaled": loop_seconds},
        "loop_timed_targets": len(sample),
        "ratio": loop_seconds / seconds["credit_matrix"][0],
        "ratio_exact": seconds["loop"][0] / seconds["credit_matrix_exact"][0],
        "aim": 20.0,
        "exact_difference": float(np.abs(loop - truth[:, 0][:, None]).max() / truth.max()),
        "root_mean_square_z": float(np.sqrt(np.mean(z**2))),
    }


def resident(field: str) -> int:
    """Bytes: VmRSS (now) or VmHWM (the most so far) of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))


def peak(size: Size, task: str) -> int:
    """Bytes by which this process's largest resident set grows when it builds the model and does ``task``."""
    torch.set_num_threads(1)
    (torch.ones(64, 64, requires_grad=True) @ torch.ones(64, 64)).sum().backward()  # libraries load before the count
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts again from here
    model, inputs = build(size, size.long)
    if task == "training_step":
        optimiser = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            optimiser.zero_grad()
            logits = model(inputs[:, :-1]).logits
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs[:, 1:].flatten()).backward()
            optimiser.step()
    else:
        credit_matrix(model, inputs, positions=list(range(size.long - 4, size.long)), probes=PROBES)
    return resident("VmHWM") - before


def memory(tiny: bool) -> dict[str, Any]:
    """(c): one process a task."""
    command = [sys.executable, __file__, *(["--tiny"] if tiny else []), "--peak"]
    tasks = ("training_step", "credit_matrix")
    found = {
        task: int(subprocess.run([*command, task], capture_output=True, text=True, check=True).stdout) for task in tasks
    }
    return {"bytes": found, "ratio": found["credit_matrix"] / found["training_step"], "aim": 2.0}


def main() -> None:
    """Measure, print, and write JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--repeats", type=int, default=2, help="timed repeats of (a) (default 2)")
    parser.add_argument("--full", action="store_true", help="every target in (a): several minutes")
    parser.add_argument("--tiny", action="store_true", help="a small model: for tests")
    parser.add_argument("--peak", choices=("training_step", "credit_matrix"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = TINY if options.tiny else Size()
    if options.peak:
        print(peak(size, options.peak))
        return
    torch.set_num_threads(1)
    result = {
        "size": asdict(size),
        "against_backward_passes": against_passes(size, 1 if options.full else size.every, options.repeats),
        "against_jacobian_loop": against_loop(size),
        "peak_memory": memory(options.tiny),
        "seed": 0,
        "device": "cpu, one thread",
        "command": f"python benchmarks/credit_matrix.py --repeats {options.repeats}" + " --full" * options.full,
        "versions": versions(),
    }
    passes, loop, space = (result[k] for k in ("against_backward_passes", "against_jacobian_loop", "peak_memory"))
    error = passes["relative_standard_error"]
    print("measure                                            ratio    aim")
    print(f"credit_matrix / backward passes, T = {size.long:<4}     {passes['ratio']:11.2f}  ≤ {passes['aim']:.0f}")
    print(f"loop of Jacobians / credit_matrix, T = {size.short:<4}   {loop['ratio']:11.1f}  ≥ {loop['aim']:.0f}")
    print(f"loop of Jacobians / exact mode, T = {size.short:<4}      {loop['ratio_exact']:11.1f}")
    print(f"peak memory / training step                 {space['ratio']:11.2f}  ≤ {space['aim']:.0f}")
    print(f"relative standard error: median {error['median']:.3f}, largest {error['largest']:.3f}")
    print(f"deviation from exact in standard errors: {loop['root_mean_square_z']:.2f} (root mean square)")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
