"""The figure of the credit-flow experiment."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
"""Colours of the Okabe–Ito cycle."""
STYLE: Any = {"font.size": 11, "svg.hashsalt": "vgrad_lab", "axes.spines.top": False, "axes.spines.right": False}


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write credit_flow.svg and credit_flow.png; the bytes depend on ``result`` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "credit_flow.svg", folder / "credit_flow.png"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        _draw_lags(left, result["models"])
        _draw_selectivity(right, result["models"])
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150, metadata={"Software": None})
    return paths


def _draw_lags(axes: Axes, models: dict[str, Any]) -> None:
    rows = (
        ("transformer", 0, BLUE, "o", "transformer, input of the first block"),
        ("gru", -1, ORANGE, "s", "GRU, top recurrent state"),
    )
    for name, layer, colour, marker, label in rows:
        for stage, line in (("before", ":"), ("after", "-")):
            flow = np.array(models[name][stage]["flow"])[layer]
            text = f"{label}, {stage} training"
            axes.semilogy(flow, line, color=colour, marker=marker, label=text, markerfacecolor=_face(stage, colour))
    last = np.array(models["transformer"]["after"]["flow"])[-1]
    axes.semilogy([0], last[:1], color=GREEN, marker="^", linestyle="", label="transformer, last layer, after training")
    zeros = [lag for lag, flow in enumerate(last) if flow == 0.0]
    if zeros:
        axes.plot(
            zeros, [0.03] * len(zeros), color=GREEN, marker="^", linestyle="",
            transform=axes.get_xaxis_transform(), markerfacecolor="white",
        )  # fmt: skip
        axes.text(
            zeros[-1], 0.06, "last layer: exactly 0 at these lags", color=GREEN, ha="right", va="bottom",
            transform=axes.get_xaxis_transform(), fontsize=10,
        )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** 0.2, high)
    axes.set_xlabel("lag (tokens back from the query)")
    axes.set_ylabel("mean norm of ∂(centred logit)/∂(state)")
    axes.set_title("Credit flow, tokens fixed", loc="left")
    axes.legend(fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_selectivity(axes: Axes, models: dict[str, Any]) -> None:
    """Both models at the embedding: the one state that belongs to a single token in either."""
    bars = [
        (f"{title}\n{stage}\n{models[name][stage]['accuracy']:.0%} right", colour, models[name][stage])
        for name, colour, title in (("transformer", BLUE, "transformer"), ("gru", ORANGE, "GRU"))
        for stage in ("before", "after")
    ]
    for x, (_, colour, stage) in enumerate(bars):
        ratio = stage["asked"][0] / stage["other"][0]
        axes.bar(x, ratio, color=colour, alpha=0.45 if x % 2 == 0 else 1.0)
        axes.annotate(f"{ratio:.2f}", (x, ratio), ha="center", va="bottom", xytext=(0, 2), textcoords="offset points")
    axes.axhline(1.0, color=BLACK, linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(bars)), [label for label, *_ in bars], fontsize=9)
    axes.set_ylabel("flow into the value asked for\n÷ flow into the other values")
    axes.set_title("Selectivity at the embedding", loc="left")
    axes.margins(y=0.12)


def _face(stage: str, colour: str) -> str:
    return "white" if stage == "before" else colour
