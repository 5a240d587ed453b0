"""The figure of the estimator study: what a larger group cures, and when a bias outweighs the noise."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from vgrad_lab.checkpoints.report.style import curve, panels, save, styled

Json = dict[str, Any]
COMPARED = ("rloo", "sequence_mean", "grpo", "trl_default", "standardised", "token_mean")
"""Estimators of the right panel, in the colours of both panels."""
BATCHES = np.logspace(0, 4, 33)
"""Numbers of groups in a batch."""


def draw(result: Json, folder: Path) -> Path:
    """Write estimators.svg and .png from a result of the study; returns the SVG."""
    with styled():
        figure, (left, right) = panels(2, width=9.2, height=3.8)
        _fading(left, result["fading"])
        _errors(right, next(t for t in result["tables"] if t["title"] == "real rewards, G = 4"))
    return save(figure, folder, "estimators")[0]


def _fading(axis: Axes, fading: Json) -> None:
    for name, residual in fading["residual"].items():
        axis.plot(fading["groups"], residual, label=name, **curve(COMPARED.index(name)))
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="group size G",
        ylabel="residual",
        title="Share of the mean step that is wrong",
    )
    axis.set_xticks(fading["groups"], map(str, fading["groups"]))
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.legend()


def relative_error(r: Json, gradient_norm: float) -> np.ndarray:
    """Error of the mean of N groups at the estimator's best rate, over ‖∇J‖.

    √(tan²φ + Var(D)/(c² N ‖∇J‖²)), φ the angle between E[D] and ∇J.
    """
    bend = max(0.0, 1 / r["cosine"] ** 2 - 1)
    return np.asarray(np.sqrt(bend + r["rescaled"] / (BATCHES * gradient_norm**2)))


def _errors(axis: Axes, table: Json) -> None:
    rows = {r["name"]: r for r in table["rows"]}
    for i, name in enumerate(COMPARED):
        look = {**curve(i), "marker": ""}
        axis.plot(BATCHES, relative_error(rows[name], table["problem"]["gradient_norm"]), label=name, **look)
    axis.set(
        xscale="log", yscale="log", xlabel="groups of four in the batch", ylabel="error / length of ∇J",
        title="Error of the batch, best rate each",
    )  # fmt: skip
    axis.legend()
