"""One look for every figure, without global state, and byte-identical files from identical numbers."""

import base64
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgrad_lab.checkpoints.atomic import write_file

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that most colour-blind readers can tell apart (the palette's yellow is too pale on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
GREY = "#666666"
SVG_LIMIT = 400_000
"""Bytes above which ``embed`` prefers the PNG."""
STYLE = {
    "axes.prop_cycle": cycler(color=OKABE_ITO, marker=MARKERS, linestyle=LINES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "font.family": "DejaVu Sans",
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "svg.hashsalt": "vgrad_lab",
    "svg.fonttype": "path",
    "text.usetex": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Make the house style hold inside a ``with`` block only."""
    defaults: dict[Any, Any] = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
    with mpl.rc_context(defaults | STYLE):
        yield


def panels(columns: int = 1, rows: int = 1, *, width: float = 7.6, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure of its own (no pyplot) with its axes in reading order; width and height in inches, height per row."""
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def signed(x: float, digits: int = 2) -> str:
    """A signed number with a true minus, or "undefined"."""
    return f"{x:+.{digits}f}".replace("-", "−") if math.isfinite(x) else "undefined"


def amount(x: float, digits: int = 3) -> str:
    """A number with a true minus, or "undefined"; two significant digits where ``digits`` would show only zeros."""
    if not math.isfinite(x):
        return "undefined"
    fixed = f"{x:.{digits}f}"
    return (f"{x:.1e}" if x and not float(fixed) else fixed).replace("-", "−")


def curve(index: int) -> dict[str, Any]:
    """Colour, marker and line style number ``index`` of the cycle, for plots that choose their own."""
    at = index % len(OKABE_ITO)
    return {"color": OKABE_ITO[at], "marker": MARKERS[at], "linestyle": LINES[at]}


def _bytes(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": "vgrad_lab"} if kind == "svg" else {"Software": "vgrad_lab"}
    with styled():
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``name``.svg and ``name``.png atomically; the same numbers give the same bytes."""
    svg, png = (Path(folder) / f"{name}.{kind}" for kind in ("svg", "png"))
    svg.parent.mkdir(parents=True, exist_ok=True)
    write_file(svg, _bytes(figure, "svg"))
    write_file(png, _bytes(figure, "png"))
    return svg, png


def embed(svg: Path, png: Path, *, limit: int = SVG_LIMIT) -> str:
    """A data URI of the SVG, or of the PNG when the SVG is larger than ``limit`` bytes."""
    path, kind = (svg, "svg+xml") if svg.stat().st_size <= limit else (png, "png")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
