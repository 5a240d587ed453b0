"""The figures of the forecast's study: gain against forecast, R² by setting, predictors side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgrad_lab.checkpoints.report.style import GREY, OKABE_ITO, panels, save, styled
from vgrad_lab.experiments.forecast_records import DEFAULTS, Cell, split

Json = dict[str, Any]
FLOOR = -0.5
"""Lowest R² drawn; a smaller one is drawn there as a triangle."""


def draw(summary: Json, found: Sequence[Cell], folder: Path) -> list[Path]:
    """Write the figures as SVG and PNG; the bytes depend on the arguments alone. Returns the paths."""
    with styled():
        figures = {
            "forecast_gain": gain_figure([c for c in found if split(c.ladder) == "held out"]),
            "forecast_settings": settings_figure(summary),
            "forecast_predictors": predictors_figure(summary),
        }
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def gain_figure(found: Sequence[Cell]) -> Figure:
    """Realised mean gain against the forecast one, one point per held-out rung, in the default settings."""
    figure, axes = panels(len(DEFAULTS), width=8.0, height=3.8)
    for axis, name in zip(axes, DEFAULTS, strict=True):
        group = [c for c in found if c.setting == name]
        axis.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle="--", marker="")
        if group:
            x, y = (np.concatenate([getattr(c, k) for c in group]) for k in ("predicted", "gain"))
            r = np.concatenate([c.before for c in group])
            shown = axis.scatter(x, y, c=r, cmap="viridis", s=14, vmin=0, vmax=1)
            figure.colorbar(shown, ax=axis, label="$R_{\\rm before}$")
        axis.set(title=f"{name}, {len(group)} ladders", xlabel="forecast mean gain", ylabel="realised mean gain")
    return figure


def settings_figure(summary: Json) -> Figure:
    """R² of the mean gain, one point per ladder, a row per setting; held-out ladders filled."""
    names = list(dict.fromkeys(row["setting"] for row in summary["settings"]))
    figure, (axis,) = panels(width=7.6, height=1.0 + 0.28 * max(len(names), 1))
    for at, name in enumerate(names):
        for part, colour, mark in (("held out", OKABE_ITO[0], "o"), ("calibration", OKABE_ITO[1], "s")):
            rows = [c for c in summary["cells"] if c["setting"] == name and c["split"] == part]
            _points(axis, [c["r_squared"] for c in rows if c["r_squared"] is not None], at, colour, mark)
    for part, colour, mark in (("held out", OKABE_ITO[0], "o"), ("calibration", OKABE_ITO[1], "s")):
        axis.plot([], [], mark, color=colour, markerfacecolor="none", linestyle="", label=part)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlim=(FLOOR - 0.05, 1.03), ylim=(len(names) - 0.4, -0.6), xlabel="R² of the mean gain, per ladder")
    axis.legend(loc="lower left")
    return figure


def _points(axis: Axes, values: Sequence[float], at: int, colour: str, mark: str) -> None:
    inside = [v for v in values if v >= FLOOR]
    axis.plot(inside, [at] * len(inside), mark, color=colour, markerfacecolor="none", linestyle="")
    below = len(values) - len(inside)
    axis.plot([FLOOR] * below, [at] * below, "<", color=colour, linestyle="")


def predictors_figure(summary: Json) -> Figure:
    """Mean Spearman of every predictor with the gain, bars its interval over held-out ladders."""
    rows = summary["predictors"][DEFAULTS[0]]
    figure, axes = panels(len(DEFAULTS), width=9.4, height=1.0 + 0.2 * max(len(rows), 1))
    for axis, name in zip(axes, DEFAULTS, strict=True):
        axis.axvline(0, color=GREY, linewidth=0.8, linestyle="-", marker="")
        for at, row in enumerate(summary["predictors"][name]):
            e = row["spearman"]
            colour, mark = (OKABE_ITO[1], "s") if row["kind"] == "forecast" else (OKABE_ITO[0], "o")
            if e["value"] is not None:
                axis.plot(e["value"], at, mark, color=colour)
                if e["low"] is not None:
                    axis.plot([e["low"], e["high"]], [at, at], "-", color=colour, marker="")
        axis.set(title=name, xlim=(-1.05, 1.05), xlabel="Spearman with the mean gain")
        axis.set_yticks(range(len(rows)), [r["predictor"] for r in rows] if axis is axes[0] else [""] * len(rows))
        axis.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    return figure
