"""A picture with sliders for the tutorials, and a still picture of several slider values where sliders cannot live."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDGET = "application/vnd.jupyter.widget-view+json"
STILLS = 3
Draw = Callable[..., None]
"""draw(axis, value, …) with one value per slider; it leaves the title free."""


@dataclass(frozen=True)
class Slider:
    """One thing to turn: its name in the picture and the values it can take, in order."""

    name: str
    values: tuple[float, ...]

    def stills(self) -> tuple[float, ...]:
        """The values that the still picture shows: first, middle, last."""
        last = len(self.values) - 1
        places = dict.fromkeys(round(i * last / (STILLS - 1)) for i in range(STILLS))
        return tuple(self.values[i] for i in places)


def explore(draw: Draw, *sliders: Slider, size: tuple[float, float] = (5.0, 3.2)) -> None:
    """Show draw(axis, value, …) under one or two sliders; elsewhere (GitHub, no ipywidgets) a still of several values."""
    shown = bundle(draw, *sliders, size=size)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ModuleNotFoundError:
        get_ipython = display = None
    if get_ipython is None or get_ipython() is None:  # a plain script: there is nowhere to show it
        print(shown["text/plain"])
    else:
        display(shown, raw=True)


def bundle(draw: Draw, *sliders: Slider, size: tuple[float, float] = (5.0, 3.2)) -> dict[str, Any]:
    """What a notebook stores: the still picture, and beside it the live one if ipywidgets is installed.

    A front end takes the richest form that it can show, so a page without a kernel falls back to the picture. Raises
    ValueError unless there are one or two sliders with two values each.
    """
    if not 1 <= len(sliders) <= 2 or any(len(s.values) < 2 for s in sliders):
        raise ValueError(f"explore takes one or two sliders of at least two values each, got {sliders}")
    names = " and ".join(s.name for s in sliders)
    found: dict[str, Any] = {
        "image/png": base64.b64encode(still(draw, *sliders, size=size)).decode(),
        "text/plain": f"a picture for several values of {names}; install ipywidgets and run the cell for sliders",
    }
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return found
    view = live(draw, *sliders, size=size)._repr_mimebundle_()
    return found | {WIDGET: view[WIDGET]}


def still(draw: Draw, *sliders: Slider, size: tuple[float, float]) -> bytes:
    """PNG with one panel per shown value of the first slider (columns) and of the second, if any (rows)."""
    columns = sliders[0].stills()
    rows = [(v,) for v in sliders[1].stills()] if len(sliders) == 2 else [()]
    figure = Figure(figsize=(0.72 * size[0] * len(columns), 0.85 * size[1] * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=False, sharey=True)
    for across, row in zip(panels, rows, strict=True):
        for axis, value in zip(across, columns, strict=True):
            _panel(axis, draw, sliders, (value, *row))
        for axis in across[1:]:
            axis.set_ylabel("")
    for axis in panels[:-1].flat:
        axis.set_xlabel("")
    return _png(figure)


def live(draw: Draw, *sliders: Slider, size: tuple[float, float]) -> Any:
    """An ipywidgets box: sliders above, below them the picture, drawn again at each move."""
    import ipywidgets

    handles = [
        ipywidgets.SelectionSlider(
            options=[(f"{v:g}", v) for v in s.values],
            value=s.values[len(s.values) // 2],
            description=s.name,
            style={"description_width": "initial"},
            layout={"width": "420px"},
        )
        for s in sliders
    ]

    def picture() -> bytes:
        figure = Figure(figsize=size, layout="constrained")
        _panel(figure.subplots(), draw, sliders, tuple(h.value for h in handles))
        return _png(figure)

    image = ipywidgets.Image(value=picture(), format="png")
    for handle in handles:
        handle.observe(lambda _: setattr(image, "value", picture()), names="value")
    return ipywidgets.VBox([*handles, image])


def _panel(axis: Axes, draw: Draw, sliders: tuple[Slider, ...], values: tuple[float, ...]) -> None:
    draw(axis, *values)
    axis.set_title(", ".join(f"{s.name} = {v:g}" for s, v in zip(sliders, values, strict=True)), fontsize=10)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90, metadata={"Software": None})
    return out.getvalue()
