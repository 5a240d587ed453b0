"""The exact table of estimators: one problem and group size for `vgrad estimators`, the whole study for its page."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from vgrad_lab.discrete.estimator_moments import row
from vgrad_lab.discrete.estimator_types import Options, Problem, random_problem, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, find
from vgrad_lab.discrete.u_statistic import leave_one_out_variance
from vgrad_lab.impact import grpo_scale
from vgrad_lab.provenance import versions

STATEMENTS = ("E05", "E06", "E07", "E08", "E09")
GROUPS = (2, 3, 4, 6, 8)
"""Group sizes over which the study follows the bend of each biased direction."""
FADING = ("standardised", "sequence_mean", "grpo", "token_mean", "trl_default")
DECAYS = (0.0, 0.5, 0.95, 1.0)
ERRORS = (0.0, 0.25, 0.5, 1.0)
"""Standard deviations of the critic's error in the study, in units of the reward."""
SUCCESS = (0.02, 0.1, 0.25, 0.5)
SIZES = (2, 4, 8, 16)
ALONE = ("reinforce", "expected_baseline", "optimal_baseline", "remax", "value_baseline", "theorem_2")
"""Directions of single answers, whose variance falls as 1/G."""
COLUMNS = ("scale c", "closed form", "cosine", "residual", "variance", "over c²", "verdict")
Json = dict[str, Any]


def describe_problem(problem: Problem) -> Json:
    """What the table is about: answers, their lengths, J and the length of ∇J."""
    tree = problem.tree
    return {
        "vocab": tree.vocab,
        "horizon": tree.horizon,
        "end": tree.end,
        "answers": tree.size,
        "mean_length": float(problem.probability @ tree.length),
        "binary": bool(np.all(np.isin(problem.reward, (0.0, 1.0)))),
        "mean_reward": float(problem.probability @ problem.reward),
        "gradient_norm": float(np.linalg.norm(problem.gradient)),
    }


def table(problem: Problem, *, group: int, names: Sequence[str] | None = None) -> Json:
    """Every row for one problem and group size; with names those alone.

    A row that can't be had (G too small, too many groups to list) is left out with its reason, or, if it was asked for
    by name, raises ValueError, as does an unknown name.
    """
    rows: list[Json] = []
    left_out: dict[str, str] = {}
    for estimator in [find(name) for name in names] if names else ESTIMATORS.values():
        try:
            found = asdict(row(estimator, problem, group=group))
        except ValueError as error:
            if names:
                raise
            left_out[estimator.name] = str(error).removeprefix(f"{estimator.name} ")
            continue
        rows.append(
            {k: finite(v) for k, v in found.items()} | {"formula": estimator.formula, "source": estimator.source}
        )
    return {"group": group, "problem": describe_problem(problem), "rows": rows, "left_out": left_out}


def finite(value: Any) -> Any:
    """None in the place of NaN and infinities, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def document(command: str, *, seed: int, content: Json) -> Json:
    """A result with where it comes from."""
    return {"command": command, "versions": versions(), "device": "cpu", "seed": seed, **content}


def study() -> Json:
    """Every number of docs/estimators.md, on the problem of the project's reference numbers."""
    real, binary = reference_problem(), reference_problem(binary=True)
    fixed = random_problem(3, 3, end=None, spread=0.8, seed=1)
    tables = [
        {"title": title, **table(problem, group=group)}
        for title, problem, group in (
            ("real rewards, G = 2", real, 2),
            ("real rewards, G = 4", real, 4),
            ("binary rewards, G = 4", binary, 4),
            ("real rewards, G = 4, every answer of 3 tokens", fixed, 4),
        )
    ]
    fading = {name: [row(ESTIMATORS[name], real, group=g).residual for g in GROUPS] for name in FADING}
    return {
        "tables": tables,
        "fading": {"groups": list(GROUPS), "residual": fading},
        "critic": _critic(real),
        "weights": _weights(),
        "variance": {"real": _variances(real), "binary": _variances(binary)},
    }


def _critic(problem: Problem) -> list[Json]:
    """Bias and variance of PPO by λ and by the size of the critic's error, one error for all."""
    unit = np.random.default_rng(0).standard_normal(len(problem.tree.prefixes))
    ppo, rows = ESTIMATORS["ppo"], []
    for error in ERRORS:
        for decay in DECAYS:
            found = row(ppo, problem, group=1, options=Options(decay=decay, critic_error=error * unit))
            rows.append({"error": error, "decay": decay, "bias": found.bias, "variance": found.variance})
    return rows


def _weights() -> list[Json]:
    """w_G(p), and with dynamic sampling, of prompts with success probability p."""
    rows = []
    for p in SUCCESS:
        for group in SIZES:
            weight = float(grpo_scale(np.array([p]), group, ddof=1, eps=0.0)[0])
            mixed = 1 - p**group - (1 - p) ** group
            rows.append(
                {"p": p, "group": group, "weight": weight, "mixed": weight / mixed, "limit": (p - p * p) ** -0.5}
            )
    return rows


def _variances(problem: Problem) -> list[Json]:
    """Variance of unbiased directions by group size: leave-one-out from its closed form, the others over G."""
    alone = {name: row(ESTIMATORS[name], problem, group=1).variance for name in ALONE}
    return [
        {"group": g, "rloo": leave_one_out_variance(problem, g)} | {name: v / g for name, v in alone.items()}
        for g in SIZES
    ]


def text(result: Json) -> str:
    """A table as aligned text, with what it is about and what was left out."""
    p = result["problem"]
    kind = "binary" if p["binary"] else "real"
    lengths = f"1 to {p['horizon']} tokens" if p["end"] is not None else f"{p['horizon']} tokens each"
    head = (
        f"{p['answers']} answers of {lengths}, {kind} rewards, groups of {result['group']}: "
        f"J = {p['mean_reward']:.4f}, ‖∇J‖ = {p['gradient_norm']:.4f}. All numbers are exact sums."
    )
    cells = [("estimator", *COLUMNS), *([r["name"], *cells_of(r)] for r in result["rows"])]
    widths = [max(len(c[i]) for c in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join([c[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(c[1:-1], widths[1:-1], strict=True)), c[-1]])
        for c in cells
    ]
    lines.insert(1, "  ".join("─" * w for w in widths))
    reasons: dict[str, list[str]] = {}
    for name, why in result["left_out"].items():
        reasons.setdefault(why.partition("; ")[0], []).append(name)
    left = [f"left out, {why}: {', '.join(who)}" for why, who in reasons.items()]
    return "\n".join([head, "", *lines, *(["", *left] if left else [])])


def cells_of(r: Json) -> list[str]:
    """Scale, closed form, cosine, residual, variance, variance over c², verdict."""
    return [
        number(r["scale"]), number(r["expected"]), number(r["cosine"]), small(r["residual"]), number(r["variance"]),
        number(r["rescaled"]), r["verdict"],
    ]  # fmt: skip


def number(x: float | None) -> str:
    """Four digits after the point, a dash for what is undefined or has no closed form."""
    return "–" if x is None else f"{x:.4f}"


def small(x: float | None) -> str:
    """A residual: 0 where it is rounding."""
    return "–" if x is None else "0" if x < 1e-12 else f"{x:.4f}" if x >= 1e-4 else f"{x:.1e}"
