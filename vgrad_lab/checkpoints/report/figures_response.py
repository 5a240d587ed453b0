"""Figures of the response to RL: consistency (Fig. 3 left), predictions (Figs. 1, 4), z-scores (Fig. 5), forecast."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy import ndarray

from vgrad_lab.checkpoints.report.collect import Study
from vgrad_lab.checkpoints.report.figures_ladder import (
    AFTER,
    BEFORE,
    COLOUR_MAP,
    P_GAP_SIGN,
    say,
    step_axis,
    step_bar,
    step_norm,
    steps,
    values,
)
from vgrad_lab.checkpoints.report.predictors import (
    FORECAST,
    P_GAP,
    P_GAP_LITERAL,
    PREDICTORS,
    forecast_predictor,
    predict,
    study_curve,
)
from vgrad_lab.checkpoints.report.scores import Row, combine
from vgrad_lab.checkpoints.report.style import GREY, curve, panels, signed, styled
from vgrad_lab.checkpoints.report.verdict import correlation
from vgrad_lab.stats import z_score


def spread(study: Study) -> ndarray:
    """Sd of the gain over seeds, 0 where there is one seed."""
    return np.nan_to_num(study.gain_spread)


def consistency(study: Study) -> Figure:
    """Gain at each budget along pretraining, and reward before and after beside the reward among the labels."""
    with styled():
        figure, (left, right) = panels(2, height=4.0)
        at, before = steps(study.measures), values(study.measures, "reward_before")
        for index, budget in enumerate(study.budgets):
            left.plot(at, study.after[:, index] - before, label=f"{budget} updates", **curve(index))
        left.errorbar(
            at, study.gain, spread(study), color="black", linewidth=2.2, marker="", label="mean ± sd of seeds"
        )
        left.axhline(0, color=GREY, linewidth=1)
        left.set(title=f"Gain by RL, {AFTER} − {BEFORE}", ylabel="gain (probability)")
        last = study.budgets[-1]
        lines = (
            ("R before", before, 0, "--"),
            (f"R after {last}", study.after[:, -1], 0, "-"),
            ("R among labels, before", values(study.measures, "reward_restricted"), 1, "--"),
            (f"R among labels, after {last}", study.restricted_after[:, -1], 1, "-"),
        )
        for label, line, index, dash in lines:
            right.plot(at, line, label=label, **{**curve(index), "linestyle": dash})
        right.set(title="Reward before and after", ylabel="probability", ylim=(-0.02, 1.02))
        for axis in (left, right):
            step_axis(axis)
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        return figure


def _points(axis: Axes, study: Study, x: ndarray, y: ndarray, error: ndarray | None = None) -> None:
    if error is not None:
        axis.errorbar(x, y, error, linestyle="none", marker="", ecolor="#b0b0b0", elinewidth=1, zorder=1)
    norm = step_norm(study.measures)
    axis.scatter(x, y, c=steps(study.measures), norm=norm, cmap=COLOUR_MAP, s=34, edgecolors="white", linewidths=0.5)


def prediction(study: Study, rows: Mapping[str, Row]) -> Figure:
    """Mean gain against P_gap as eqs. 26-29 read, against P_gap as §6 reads, and against the forecast."""
    with styled():
        figure, axes = panels(3, width=10.4, height=3.6)
        results = [m.result for m in study.measures]
        forecasted = predict(forecast_predictor(study), results)
        panel = (
            (f"{P_GAP_SIGN}, eqs. 26–29", predict(PREDICTORS[P_GAP], results), P_GAP, "(Σ − Λ conditional) · H within"),
            (
                f"{P_GAP_SIGN}, §6",
                predict(PREDICTORS[P_GAP_LITERAL], results),
                P_GAP_LITERAL,
                "(Σ − Λ per sample) · H between",
            ),
            ("Forecast", forecasted, FORECAST, "forecast mean gain (probability)"),
        )
        for axis, (title, x, name, label) in zip(axes, panel, strict=True):
            if not np.any(np.isfinite(x)):
                say(axis, "undefined for this run")
            _points(axis, study, x, study.gain, spread(study))
            axis.set_title(f"{title}\nρ = {correlation(rows[name])}")
            axis.set_xlabel(label)
            axis.locator_params(axis="x", nbins=5)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.4g}".replace("-", "−")))
        both = np.concatenate([forecasted, study.gain, [0.0]])
        ends = np.array([np.nanmin(both), np.nanmax(both)])
        axes[2].plot(ends, ends, color=GREY, linestyle="--", marker="", label="forecast = measured")
        axes[2].legend(loc="upper left", fontsize=8)
        for axis in axes[:2]:
            axis.set_ylim(axes[2].get_ylim())
        axes[0].set_ylabel("mean gain over budgets (probability)")
        step_bar(figure, axes, step_norm(study.measures))
        return figure


def z_scores(study: Study, rows: Mapping[str, Row]) -> Figure:
    """z(R_before) + z(P_gap) against z(R_after), R_before alone beside it, and the z-scores along pretraining."""
    with styled():
        figure, axes = panels(3, width=10.4, height=3.6)
        reward = values(study.measures, "reward_before")
        both = combine(reward, predict(PREDICTORS[P_GAP], [m.result for m in study.measures]))
        after = study.after.mean(1)
        if not (np.all(np.isfinite(both)) and np.all(np.isfinite(after))):
            for axis in axes:
                say(axis, "undefined for this run")
            return figure
        alone, target = z_score(reward), z_score(after)
        panel = (
            ("Reward plus impact score", both, rows[P_GAP].combined, f"z({BEFORE}) + z({P_GAP_SIGN})"),
            ("Reward alone", alone, rows["R_before"].after, f"z({BEFORE})"),
        )
        for axis, (name, x, rho, label) in zip(axes[:2], panel, strict=True):
            _points(axis, study, x, target)
            axis.set_title(f"{name}\nρ = {signed(rho)}")
            axis.set_xlabel(label)
        axes[0].set_ylabel(f"z({AFTER}), mean over budgets")
        for index, (label, line) in enumerate(
            ((f"z({AFTER})", target), (f"z({BEFORE}) + z({P_GAP_SIGN})", both), (f"z({BEFORE})", alone))
        ):
            axes[2].plot(steps(study.measures), line, label=label, **curve(index))
        axes[2].set(title="Along pretraining", ylabel="z-score")
        axes[2].legend(fontsize=8)
        step_axis(axes[2])
        step_bar(figure, axes, step_norm(study.measures))
        return figure


def chosen(study: Study, count: int = 6) -> list[int]:
    """Indices of at most ``count`` checkpoints, evenly spread, first and last among them."""
    return sorted({int(i) for i in np.linspace(0, len(study.measures) - 1, count).round()})


def forecasts(study: Study) -> Figure:
    """Forecast against measured reward at update 0 and at the budgets, for a handful of checkpoints."""
    with styled():
        picks = chosen(study)
        columns = min(len(picks), 3)
        figure, axes = panels(columns, -(-len(picks) // columns), width=max(2.2 + 2.5 * columns, 7.6), height=2.5)
        updates = max(study.budgets)
        x = np.array([0, *study.budgets])
        for axis in axes[len(picks) :]:
            axis.set_axis_off()
        for axis, index in zip(axes, picks, strict=False):
            measured = study.measures[index]
            line = study_curve(study, measured.result)
            axis.plot(np.arange(updates + 1), line, color="#D55E00", marker="", linestyle="-", label="forecast")
            mean, low, high = (
                np.array([values([measured], "reward_before")[0], *row[index]])
                for row in (study.after, study.after_low, study.after_high)
            )
            bars = np.maximum(np.stack([mean - low, high - mean]), 0)
            axis.errorbar(
                x, mean, bars, color="#0072B2", linestyle="none", capsize=2.5, label="measured, range of seeds"
            )
            axis.set(title=f"{measured.name}", ylim=(-0.02, 1.02), xlim=(-1, updates + 1))
        for axis in axes[::columns]:
            axis.set_ylabel("reward R")
        for axis in axes[max(len(picks) - columns, 0) : len(picks)]:
            axis.set_xlabel("RL updates")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return figure
