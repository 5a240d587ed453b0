"""Figures of the measured checkpoints alone: the ladder, the components (Fig. 3 right), the entropy bound (Fig. 2)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy import ndarray

from vgrad_lab.checkpoints.report.collect import Measured, number, numbers
from vgrad_lab.checkpoints.report.predictors import HEADROOMS, PREDICTORS, READINGS, predict
from vgrad_lab.checkpoints.report.style import GREY, curve, panels, styled
from vgrad_lab.simplex import SOFTMAX_CONSTANT, linear_entropy_bound, sharp_entropy_bound

COLOUR_MAP = "cividis"
P_GAP_SIGN = r"$P_\mathrm{gap}$"
BEFORE, AFTER = r"$R_\mathrm{before}$", r"$R_\mathrm{after}$"


def steps(measures: Sequence[Measured]) -> Float[ndarray, " n"]:
    """Pretraining steps as floats."""
    return np.array([m.step for m in measures], dtype=float)


def values(measures: Sequence[Measured], key: str) -> Float[ndarray, " n"]:
    """One number of every measure; NaN where missing."""
    return np.array([number(m.result, key) for m in measures], dtype=float)


def step_axis(axis: Axes) -> None:
    """Label and format the x axis as pretraining steps."""
    axis.set_xlabel("pretraining step")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def step_norm(measures: Sequence[Measured]) -> Normalize:
    """Colour scale over the pretraining steps."""
    at = steps(measures)
    return Normalize(float(at.min()), float(max(at.max(), at.min() + 1)))


def step_bar(figure: Figure, axes: Sequence[Axes], norm: Normalize) -> None:
    """Colour bar for points that are coloured by pretraining step."""
    bar = figure.colorbar(ScalarMappable(norm, COLOUR_MAP), ax=list(axes), pad=0.015, aspect=28)
    bar.set_label("pretraining step")
    bar.ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    bar.outline.set_visible(False)


def say(axis: Axes, text: str) -> None:
    """Write a sentence in the middle of an empty panel."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY)


def ladder(measures: Sequence[Measured]) -> Figure:
    """Losses, and reward, restricted reward and label mass, along pretraining."""
    with styled():
        figure, (left, right) = panels(2)
        at = steps(measures)
        for label, key in (("training", "train_loss"), ("validation", "validation_loss")):
            loss = np.array([number(m.training, key) for m in measures])
            if np.any(np.isfinite(loss)):
                left.plot(at, loss, label=label)
        if left.get_legend_handles_labels()[0]:
            left.legend()
        else:
            say(left, "no loss recorded")
        left.set(title="Language-model loss", ylabel="nats per token")
        for key, label in (
            ("reward_before", "R, full vocabulary"),
            ("reward_restricted", "R among the labels"),
            ("label_mass", "mass on the labels"),
        ):
            right.plot(at, values(measures, key), label=label)
        right.set(title="Reward before RL", ylabel="probability", ylim=(-0.02, 1.02))
        right.legend()
        for axis in (left, right):
            step_axis(axis)
        return figure


def components(measures: Sequence[Measured]) -> Figure:
    """Σ, Λ in its readings, H_α, and P_gap along pretraining."""
    with styled():
        figure, (gaps, ratio, room, score) = panels(2, 2, height=2.9)
        at, signal = steps(measures), values(measures, "signal")
        gaps.plot(at, signal, label="Σ", color="black", marker="o", linewidth=2.2)
        score.axhline(0, color=GREY, linewidth=1)
        ratio.axhline(1, color=GREY, linewidth=1)
        for index, (name, key) in enumerate(READINGS.items()):
            look, gap = curve(index), values(measures, key)
            gaps.plot(at, gap, label=f"Λ {name}", **look)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio.plot(at, gap / signal, label=f"Λ {name}", **look)
            product = predict(PREDICTORS[f"P_gap {name} × within"], [m.result for m in measures])
            largest = np.max(np.abs(product), initial=0)
            score.plot(at, product / largest if largest > 0 else product, label=f"Λ {name}", **look)
        for index, (name, key) in enumerate(HEADROOMS.items()):
            room.plot(at, values(measures, key), label=f"{name} prompts", **curve(index + 3))
        if np.any(signal > 0):
            gaps.set_yscale("log")
        gaps.set(title="Signal Σ and gap Λ", ylabel="reward² per state unit²")
        ratio.set(title="Gap over signal: above 1, Σ − Λ < 0", ylabel="Λ / Σ", ylim=(0, None))
        room.set(title="Headroom $H_α$", ylabel="reward units")
        room.margins(y=0.3)
        room.set_ylim(bottom=0)
        room.legend(loc="upper center", ncols=2, fontsize=8, handlelength=2.2, columnspacing=1.2)
        score.set(title=f"{P_GAP_SIGN} = (Σ − Λ) · H within", ylabel="over its own largest |value|", ylim=(-1.08, 1.08))
        for axis in (gaps, ratio, room, score):
            step_axis(axis)
        figure.legend(*gaps.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        return figure


def prompt_points(measured: Measured) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Entropy (nats) and κ(p) of each prompt; empty when the record does not hold them."""
    per_prompt = measured.result.get("per_prompt") or {}
    entropy = numbers(per_prompt, "entropy", len(per_prompt.get("entropy") or []))
    return entropy, numbers(per_prompt, "covariance_norm", len(entropy))


def entropy_bound(measures: Sequence[Measured]) -> Figure:
    """κ(p) of every prompt against its entropy, with the paper's √H bound and the sharp ones."""
    with styled():
        figure, (left, right) = panels(2, width=9.2, height=3.7)
        norm = step_norm(measures)
        points = [(m, *prompt_points(m)) for m in measures]
        entropies = np.concatenate([h for _, h, _ in points])
        top = float(np.max(entropies, initial=1.0)) * 1.05
        low = float(np.min(entropies[entropies > 0], initial=0.1)) / 2
        for axis, grid in ((left, np.linspace(0, top, 400)), (right, np.geomspace(low, top, 400))):
            for measured, entropy, covariance in points:
                colour = np.full(len(entropy), float(measured.step))
                axis.scatter(
                    entropy, covariance, c=colour, norm=norm, cmap=COLOUR_MAP, s=9, linewidths=0, rasterized=True
                )
            for label, bound, look in (
                ("paper with its best C: 0.6006·√H", SOFTMAX_CONSTANT * np.sqrt(grid), curve(1)),
                ("min(½, H / (2 ln 2))", linear_entropy_bound(grid), curve(2)),
                ("sharp K(H)", sharp_entropy_bound(grid), {"color": "black", "linestyle": "-", "linewidth": 1.0}),
            ):
                axis.plot(grid, bound, label=label, **{**look, "marker": ""})
            axis.set(xlabel="entropy H of the next token (nats)", ylabel="κ(p) = ‖diag(p) − $pp^T$‖")
        left.set(title="Linear axes", xlim=(0, top), ylim=(0, 1.05 * SOFTMAX_CONSTANT * np.sqrt(top)))
        right.set(title="Log axes", xscale="log", yscale="log", xlim=(low, top))
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        step_bar(figure, (left, right), norm)
        return figure
