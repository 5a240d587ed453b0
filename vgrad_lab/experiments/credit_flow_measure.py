"""What the credit study measures of one model: flow by lag, selectivity, the sampling path's share, quality."""

import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.experiments.credit_flow_costate import costate_quality
from vgrad_lab.sequence.credit_flow import credit_norms, hidden_jacobian, lag_profile
from vgrad_lab.sequence.sampling import relaxed_trace, sampling_path_jacobian
from vgrad_lab.sequence.tasks import Task, TaskBatch, draw
from vgrad_lab.sequence.trace import SequenceModel, Trace, trace
from vgrad_lab.sequence.training import quality

DIGITS = 6
"""Significant digits of the numbers in a record."""


@dataclass(frozen=True)
class Measures:
    """How many fresh sequences each measure reads: quality, flow, Jacobians, enumerated prompts; and the group size."""

    scored: int = 512
    measured: int = 128
    jacobians: int = 16
    prompts: int = 4
    group: int = 8


def measure(model: SequenceModel, task: Task, settings: Measures, *, seed: int) -> dict[str, Any]:
    """Every measure at the model's present weights, in float64, on sequences that depend on ``seed`` alone.

    Numbers are rounded to ``DIGITS`` significant digits; None where a quantity is undefined (0/0).
    """
    twin = copy.deepcopy(model).double()
    cases = draw(task, settings.measured, rng=np.random.default_rng([seed, 1]))
    result = trace(twin, cases.inputs)
    found = {
        **asdict(quality(model, task, batch=settings.scored, seed=seed + 1_000_003)),
        "flow": lag_profile(result, cases.targets, positions=task.queries).tolist(),
        **_selectivity(result, cases, task),
        "sampling": sampling_share(twin, task, settings.jacobians, seed=seed),
        "costate": costate_quality(twin, task, prompts=settings.prompts, group=settings.group, seed=seed),
    }
    return {key: rounded(value) for key, value in found.items()}


def ratio(over: float, under: float) -> float | None:
    """over/under, None where the denominator is 0."""
    return over / under if under > 0 else None


def sampling_share(model: SequenceModel, task: Task, count: int, *, seed: int) -> dict[str, list[float | None]]:
    """Eq. 20 at the last query q of ``count`` sequences: entropy in nats, the sampling path's size and its share.

    Share ‖M‖/(‖M‖ + ‖J‖), Frobenius, for the step (l, q) → (L, q+1): M the sampling path, J the fixed-token path, at
    the input of the first layer (``bottom``, l = 0) and at the paper's state (``top``, l = L); None where both
    vanish. ``missing`` is ‖M‖ at the paper's state. Ledger S16.
    """
    cases = draw(task, count, rng=np.random.default_rng([seed, 2]))
    q, last = task.queries[-1], model.layers
    inputs = torch.cat([cases.inputs[:, : q + 1], cases.targets[:, q : q + 1]], dim=1)
    relaxed = relaxed_trace(model, inputs, position=q)
    sampling = sampling_path_jacobian(model, relaxed, position=q, target=(last, q + 1)).detach()
    upwards = hidden_jacobian(relaxed, source=(0, q), target=(last, q))
    p = relaxed.logits[:, q].detach().softmax(-1)
    shares = {}
    for name, layer, missing in (("top", last, sampling), ("bottom", 0, sampling @ upwards)):
        kept = hidden_jacobian(relaxed, source=(layer, q), target=(last, q + 1))
        m, j = (x.flatten(1).norm(dim=1).tolist() for x in (missing, kept))
        shares[name] = [ratio(a, a + b) for a, b in zip(m, j, strict=True)]
    entropy = torch.special.entr(p).sum(-1).tolist()
    return {"entropy": entropy, "missing": sampling.flatten(1).norm(dim=1).tolist(), **shares}


def rounded(value: Any) -> Any:
    """Nested numbers to ``DIGITS`` significant digits; None stays None, NaN and infinities raise ValueError."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        if not np.isfinite(value):
            raise ValueError(f"a measure is {value}; write None where a quantity is undefined")
        return float(f"{value:.{DIGITS}g}")
    return value


def _selectivity(result: Trace, cases: TaskBatch, task: Task) -> dict[str, Any]:
    """At the embedding, asked for ÷ not asked for; and the share of squared flow that crosses positions, per layer."""
    asked, other, crossed, all_ = [], [], [], []
    shown = np.flatnonzero(cases.shown.numpy())
    for number, position in enumerate(task.queries):
        norms = credit_norms(result, cases.targets, position=position)
        hit = shown == cases.source[:, number, None].numpy()
        at_shown: Float[ndarray, "B P"] = norms[0][:, shown]
        asked.append(at_shown[hit].mean())
        other.append(at_shown[~hit].mean())
        crossed.append((norms[:, :, :position] ** 2).sum((1, 2)))
        all_.append((norms**2).sum((1, 2)))
    crossing = [ratio(float(c), float(a)) for c, a in zip(np.sum(crossed, 0), np.sum(all_, 0), strict=True)]
    return {
        "asked": float(np.mean(asked)),
        "other": float(np.mean(other)),
        "selectivity": ratio(float(np.mean(asked)), float(np.mean(other))),
        "crossing": crossing,
    }
