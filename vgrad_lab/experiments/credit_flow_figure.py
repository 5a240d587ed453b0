"""The figures of the credit study."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgrad_lab.checkpoints.report.style import GREY, panels, save, styled

BLUE, ORANGE, GREEN, PINK, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"
"""Colours of the Okabe–Ito cycle."""
STYLE: Any = {"font.size": 11, "svg.hashsalt": "vgrad_lab", "axes.spines.top": False, "axes.spines.right": False}
LOOK: dict[str, tuple[str, str, str, str]] = {
    "transformer": (BLUE, "o", "-", "transformer"),
    "gru-parameters": (ORANGE, "s", "--", "GRU, equal parameters"),
    "gru-compute": (GREEN, "^", "-.", "GRU, equal compute"),
    "token-only": (PINK, "D", ":", "token-only network (control)"),
}
"""Colour, marker, line and name of each model, the same in every figure."""
LAYERS = {"bottom": "embedding (input of the first layer)", "top": "last layer, h^(L)"}


def draw(summary: dict[str, Any], records: Iterable[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the figures as SVG and PNG; the bytes depend on the arguments alone. Returns the paths."""
    with styled():
        figures = {
            "credit_lag": lag_figure(summary),
            "credit_learning": learning_figure(summary),
            "credit_sampling": sampling_figure([r for r in records if r["status"] == "done"]),
        }
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def lag_figure(summary: dict[str, Any]) -> Figure:
    """Mean flow by lag, first and last stage, per task (columns) and layer (rows); bands are intervals over seeds."""
    cells = summary["cells"]
    figure, axes = panels(max(len(cells), 1), 2, width=10.5, height=3.1)
    for at, (task, models) in enumerate(cells.items()):
        for row, (layer, title) in enumerate(LAYERS.items()):
            axis = axes[row * len(cells) + at]
            for model in (m for m in LOOK if m in models and m != "token-only"):
                for stage in (0, -1):
                    _flow(axis, models[model]["stages"][stage]["flow"][layer], model, trained=stage == -1)
            axis.set_yscale("log")
            axis.set_title(f"{task}: {title}" if at == 0 else task, fontsize=9.5)
            axis.set_xlabel("lag (tokens back from the query)" if row else "")
    axes[0].set_ylabel("mean ‖∂z̃/∂h‖")
    if len(cells):
        axes[len(cells)].set_ylabel("mean ‖∂z̃/∂h‖")
    if _nothing_crosses(cells):
        axes[len(cells)].text(0.97, 0.03, "transformer: exactly 0 at every lag > 0", color=BLUE, fontsize=8,
                              ha="right", va="bottom", transform=axes[len(cells)].transAxes)  # fmt: skip
    _legend(figure, axes[0], 3)
    return figure


def learning_figure(summary: dict[str, Any]) -> Figure:
    """Accuracy, selectivity and noise of a costate by stage, per task; bars are intervals over seeds."""
    cells = summary["cells"]
    rows = (("accuracy", "accuracy", "linear"), ("selectivity", "selectivity\n(asked ÷ others)", "log"),
            ("noise leave-one-out", "noise ÷ signal\nof one costate", "log"))  # fmt: skip
    figure, axes = panels(max(len(cells), 1), len(rows), width=10.5, height=2.3)
    for at, (task, models) in enumerate(cells.items()):
        for row, (name, label, scale) in enumerate(rows):
            axis = axes[row * len(cells) + at]
            for number, model in enumerate(m for m in LOOK if m in models):
                _stages(axis, models[model]["stages"], name, model, offset=0.06 * (number - 1.5))
            shares = [s["share"] for s in next(iter(models.values()))["stages"]]
            axis.set_xticks(range(len(shares)), [f"{100 * s:g} %" for s in shares])
            axis.set_yscale(scale)
            axis.set_title(task if row == 0 else "")
            axis.set_ylabel(label if at == 0 else "")
            axis.set_xlabel("share of training" if row == len(rows) - 1 else "")
    _legend(figure, axes[0], 4)
    return figure


def sampling_figure(records: list[dict[str, Any]]) -> Figure:
    """Share of the sampling path in eq. 20 against the entropy of the sampled token, one point per sequence."""
    figure, axes = panels(2, width=9.5, height=3.6)
    for axis, (layer, title) in zip(axes, LAYERS.items(), strict=True):
        for model, (colour, marker, _, name) in LOOK.items():
            stages = [s["sampling"] for r in records if r["model"] == model for s in r["result"]["stages"]]
            points = np.array([(h, x) for s in stages for h, x in zip(s["entropy"], s[layer], strict=True)
                               if x is not None]).reshape(-1, 2)  # fmt: skip
            x, y = points.T
            axis.scatter(x, y, s=9, color=colour, marker=marker, alpha=0.35, linewidths=0, label=name, rasterized=True)
        axis.set(title=f"source: {title}", xlabel="entropy of the sampled token, nats", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("share ‖M‖ / (‖M‖ + ‖J‖)")
    _legend(figure, axes[0], 4)
    return figure


def _nothing_crosses(cells: dict[str, Any]) -> bool:
    """Whether the transformer's flow at h^(L) is exactly 0 at every positive lag, in every task and stage shown."""
    models = [models["transformer"] for models in cells.values() if "transformer" in models]
    lags = [x["value"] for m in models for s in (0, -1) for x in m["stages"][s]["flow"]["top"][1:]]
    return bool(lags) and all(value == 0 for value in lags)


def _flow(axis: Axes, flow: list[dict[str, Any]], model: str, *, trained: bool) -> None:
    colour, marker, _, name = LOOK[model]
    mean, low, high = (np.array([x[k] if x[k] is not None else np.nan for x in flow]) for k in ("value", "low", "high"))
    seen, lag = mean > 0, np.arange(len(mean))  # a logarithmic axis has no 0; the text says where it is
    axis.plot(
        lag[seen], mean[seen], color=colour, marker=marker, linestyle="-" if trained else ":", markersize=3.5,
        markerfacecolor=colour if trained else "white", label=f"{name}, {'trained' if trained else 'before training'}",
    )  # fmt: skip
    band = seen & (low > 0)
    axis.fill_between(lag[band], low[band], high[band], color=colour, alpha=0.15, linewidth=0)


def _stages(axis: Axes, stages: list[dict[str, Any]], name: str, model: str, *, offset: float) -> None:
    colour, marker, line, title = LOOK[model]
    rows = [(i, s[name]) for i, s in enumerate(stages) if s[name]["value"] is not None]
    axis.plot(
        [i + offset for i, _ in rows], [x["value"] for _, x in rows], color=colour, marker=marker, linestyle=line,
        markersize=4, label=title,
    )  # fmt: skip
    for i, x in rows:
        if x["low"] is not None:
            axis.plot([i + offset] * 2, [x["low"], x["high"]], color=colour, linestyle="-", marker="", linewidth=1.1)


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8.5)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    else:
        axis.text(0.5, 0.5, "no finished unit", color=GREY, ha="center", transform=axis.transAxes)
