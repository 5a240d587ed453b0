"""Part c of benchmarks/gpu.py: who sends credit to whom in the ladder of part b, before, while and after it learns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_rates import guarded, timed
from gpu_setup import Job

from vgrad_lab.checkpoints.embedded.corpus import stdlib_texts
from vgrad_lab.checkpoints.ladders import Rung, list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.sequence.credit_flow import by_lag, logit_credit
from vgrad_lab.sequence.credit_matrix import credit_matrix
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.sequence.trace import trace

Row = dict[str, Any]
PROBES = 4


@dataclass(frozen=True)
class Sizes:
    """How many rungs, sequences and tokens are read, and after which positions credit is asked for."""

    rungs: int
    sequences: int
    length: int
    positions: tuple[int, ...]


FULL = Sizes(rungs=5, sequences=8, length=256, positions=(63, 127, 191, 255))
TINY = Sizes(rungs=2, sequences=2, length=24, positions=(11, 23))


def run(job: Job) -> dict[str, Any]:
    """Credit in some rungs of the ladder. Raises UserError where part b has left none."""
    sizes = TINY if job.tiny else FULL
    rungs = list_rungs(job.work / "ladder")
    chosen = [rungs[i] for i in sorted({round(x) for x in np.linspace(0, len(rungs) - 1, sizes.rungs)})]
    result: Row = {
        "sequences": sizes.sequences,
        "length": sizes.length,
        "positions": list(sizes.positions),
        "probes": PROBES,
        "text": "the standard library's, which the ladder was trained on",
        "rungs": [],
    }
    for rung in chosen:
        head = {"rung": rung.name, "step": rung.step}
        result["rungs"].append({**head, **guarded(job.device, lambda rung=rung: one(job, rung, sizes))})
        job.save(result)
    return result


def one(job: Job, rung: Rung, sizes: Sizes) -> Row:
    """Flow by lag and its share across positions, layer by layer; norms without a Jacobian, and their error."""
    checkpoint = load_checkpoint(rung.path, device=job.device)
    checkpoint.model.set_attn_implementation("eager")  # its backward pass can be batched, the fused one's cannot
    model = HookedDecoder(checkpoint.model)
    tokens = read(checkpoint.tokenizer, sizes).to(job.device)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    credit, first = timed(job.device, lambda: logit_credit(trace(model, inputs), targets, positions=sizes.positions))
    matrix, second = timed(
        job.device, lambda: credit_matrix(model, inputs[:2], positions=sizes.positions, probes=PROBES)
    )
    last = sizes.positions[0]
    exact, third = timed(
        job.device, lambda: credit_matrix(model, inputs[:1, : last + 1], positions=[last], probes=None)
    )
    some = matrix.norm > 0
    z = standardised(credit_matrix(model, inputs[:1, : last + 1], positions=[last], probes=PROBES), exact)
    lags = [lag for lag in (0, 1, 2, 4, 8, 16, 32, 64, 128, 255) if lag <= max(sizes.positions)]
    return {
        "lags": lags,
        "flow": by_lag(credit, sizes.positions)[:, lags].tolist(),
        "crossing": crossing(credit, sizes.positions),
        "jacobian_norm": matrix.lag_profile[:, lags].tolist(),
        "relative_standard_error": float(np.median((matrix.standard_error / np.maximum(matrix.norm, 1e-30))[some])),
        "root_mean_square_z": z,
        "seconds": {"flow": first["seconds"], "norms": second["seconds"], "one exact row": third["seconds"]},
        "peak_memory": max(row["peak_memory"] or 0 for row in (first, second, third)) or None,
    }


def read(tokenizer: Any, sizes: Sizes) -> torch.Tensor:
    """Rows of plain text, evenly spread, one token longer than the inputs."""
    text = "\n".join(stdlib_texts(characters=30 * sizes.sequences * (sizes.length + 1)))
    tokens, size = tokenizer.backend_tokenizer.encode(text).ids, sizes.length + 1
    starts = np.arange(sizes.sequences) * ((len(tokens) - size) // sizes.sequences)
    return torch.tensor([tokens[start : start + size] for start in starts])


def crossing(credit: np.ndarray, positions: tuple[int, ...]) -> list[float | None]:
    """Per layer, the share of squared credit that reaches earlier positions: all of it came through attention."""
    total = (credit**2).sum((1, 2, 3))
    own = sum((credit[:, :, i, k] ** 2).sum(1) for i, k in enumerate(positions))
    return [float(1 - o / t) if t > 0 else None for o, t in zip(own, total, strict=True)]


def standardised(found: Any, exact: Any) -> float | None:
    """Root mean square of (estimate − truth)/standard error where that is above rounding; near 1 if it is honest."""
    known = found.standard_error > 1e-4 * np.maximum(exact.norm, 1e-30)
    if not known.any():
        return None
    return float(np.sqrt(np.mean(((found.norm - exact.norm)[known] / found.standard_error[known]) ** 2)))
