"""The figure of the readings: mean Spearman with the gain of all of them, by the reading of Λ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vgrad_lab.checkpoints.reading_options import CHOICES
from vgrad_lab.checkpoints.report.style import GREY, OKABE_ITO, panels, save, styled
from vgrad_lab.experiments.readings_scores import correlations, table

PAPER = 0.6


def draw(head: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write readings.svg: one histogram per optimiser, stacked by Λ; the paper's 0.60 as a line. Returns the path."""
    optimizers = sorted({name for r in records for name in r["rl"]})
    with styled():
        figure, axes = panels(len(optimizers), width=9.0, height=3.2)
        for axis, optimizer in zip(axes, optimizers, strict=True):
            t = table(head, records, optimizer)
            mean = correlations(t)["gain"].mean(0)
            groups = [mean[[r.gap == gap and bool(np.isfinite(m)) for r, m in zip(t.readings, mean, strict=True)]]
                      for gap in CHOICES["gap"]]  # fmt: skip
            axis.hist(
                groups, bins=np.linspace(-1, 1, 41).tolist(), stacked=True, color=OKABE_ITO[: len(groups)],
                label=[f"Λ {gap.replace('_', ' ')}" for gap in CHOICES["gap"]],
            )  # fmt: skip
            axis.axvline(PAPER, color=GREY, linestyle="--", marker="", label="the paper: 0.60")
            axis.set(title=optimizer, xlim=(-1, 1), xlabel="Spearman of P_gap with the gain", ylabel="readings")
        axes[0].legend(loc="upper left")
        svg, png = save(figure, folder, "readings")
    png.unlink()  # pages show the SVG
    return svg
