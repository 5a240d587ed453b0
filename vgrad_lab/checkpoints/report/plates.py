"""Each figure of the report with its words: what the paper claims, what these numbers show, and what to beware of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from vgrad_lab.checkpoints.report import figures_ladder, figures_response
from vgrad_lab.checkpoints.report.collect import Measured, Study
from vgrad_lab.checkpoints.report.figures_ladder import prompt_points, values
from vgrad_lab.checkpoints.report.predictors import FORECAST, P_GAP, P_GAP_LITERAL
from vgrad_lab.checkpoints.report.scores import Row, forecast_error, negative_share
from vgrad_lab.checkpoints.report.style import amount, signed
from vgrad_lab.checkpoints.report.verdict import correlation
from vgrad_lab.simplex import SOFTMAX_CONSTANT, sharp_entropy_bound
from vgrad_lab.stats import spearman
from vgrad_lab.tolerances import CLOSED_FORM


@dataclass(frozen=True)
class Plate:
    """A figure and its words; ``name`` is the stem of its files and its anchor."""

    name: str
    title: str
    figure: Figure
    alt: str
    claim: str
    seen: str
    caveats: str


def percent(share: float) -> str:
    """A share as a percentage, or "undefined"."""
    return f"{100 * share:.0f} %" if math.isfinite(share) else "undefined"


def _ladder(stem: str, measures: Sequence[Measured]) -> Plate:
    reward, restricted = values(measures, "reward_before"), values(measures, "reward_restricted")
    first, last, top = measures[0], measures[-1], measures[int(np.nan_to_num(reward, nan=-1).argmax())]
    seen = (
        f"R goes from {amount(reward[0])} at {first.name} to {amount(reward[-1])} at {last.name}, with its largest "
        f"value at {top.name}; among the labels alone from {amount(restricted[0])} to {amount(restricted[-1])}."
    )
    return Plate(
        f"{stem}-ladder",
        "The ladder",
        figures_ladder.ladder(measures),
        f"Two line plots over pretraining steps. Left: losses. Right: reward, restricted reward and label mass. {seen}",
        "None: the paper does not plot its checkpoints before RL.",
        seen,
        "R is mass on the right token over the whole vocabulary, so it rises when the model learns to answer with a "
        "label at all, and again when it learns which one; only the restricted reward tells the two apart.",
    )


def _components(stem: str, measures: Sequence[Measured]) -> Plate:
    shares = negative_share([m.result for m in measures])
    seen = "Checkpoints with Σ < Λ, where the usable signal Σ − Λ is negative: " + "; ".join(
        f"Λ {name} {percent(share)}" for name, share in shares.items()
    )
    return Plate(
        f"{stem}-components",
        "Components along pretraining (Fig. 3, right)",
        figures_ladder.components(measures),
        f"Four line plots over pretraining steps: Σ and three readings of Λ, Λ over Σ, headroom, and P_gap. {seen}.",
        "Σ, Λ and H_α vary systematically along pretraining, and Σ − Λ is the signal that RL can use.",
        seen + ".",
        "For a one-token answer E[λ̂|h] is parallel to G, so the conditional Λ is a function of p, ‖G‖ and the group "
        "size; the sampled readings are mostly sampling noise. Σ and Λ scale with the unit chosen for the hidden "
        "state. The last panel divides each curve by its own largest absolute value; signs are kept.",
    )


def _entropy(stem: str, measures: Sequence[Measured]) -> Plate:
    points = [prompt_points(m) for m in measures]
    entropy, covariance = (np.concatenate([p[i] for p in points]) for i in (0, 1))
    seen, constant = "The records hold no per-prompt entropies.", ""
    if len(entropy):
        above_sharp = int(np.sum(covariance > sharp_entropy_bound(entropy) + CLOSED_FORM))
        above_paper = int(np.sum(covariance > SOFTMAX_CONSTANT * np.sqrt(entropy) + CLOSED_FORM))
        fall = spearman(entropy, covariance) if len(entropy) > 2 else math.nan
        seen = (
            f"{above_sharp} of {len(entropy)} points lie above the sharp bound K(H), {above_paper} above the paper's; "
            f"the rank correlation of κ with H is {signed(fall)} over all points."
        )
    vocabulary = float(values(measures, "vocabulary")[0])
    if vocabulary > 1:
        constant = f" Here V = {vocabulary:.0f}, so C = {SOFTMAX_CONSTANT * math.sqrt(math.log(vocabulary)):.4f}."
    return Plate(
        f"{stem}-entropy",
        "The entropy bound (Fig. 2)",
        figures_ladder.entropy_bound(measures),
        f"Scatter of the softmax covariance norm of each prompt against its entropy, with three bounds. {seen}",
        "Prop. 2: the sampling gap is at most C·√(H / ln V) times norms of the model.",
        seen,
        f"The paper gives no C. The smallest that works is C = 0.600561·√ln V, which makes the bound 0.600561·√H: ln V "
        f"cancels.{constant} The sharp bound is K(H) = 2ε(1−ε) with ε the inverse binary entropy of min(H, ln 2), and "
        "min(½, H/(2 ln 2)) the best linear one. A bound that always holds cannot fail here, and says nothing about "
        "the direction of the gradient; a small κ does not need a small H (a uniform p has κ = 1/V).",
    )


def ladder_plates(stem: str, measures: Sequence[Measured]) -> list[Plate]:
    """Figures that need measures only; an empty list without measures."""
    return [make(stem, measures) for make in (_ladder, _components, _entropy)] if measures else []


def _consistency(stem: str, study: Study) -> Plate:
    gains = study.after - values(study.measures, "reward_before")[:, None]
    n, defined = len(study.measures), bool(np.all(np.isfinite(gains)))
    pairs = combinations(range(len(study.budgets)), 2) if n > 2 and defined else ()
    agreement = [spearman(gains[:, i], gains[:, j]) for i, j in pairs]
    low = f"The lowest Spearman between the gains at two budgets is {signed(min(agreement, default=math.nan))}"
    seen = f"{low}; the largest sd of the mean gain over seeds is {np.max(np.nan_to_num(study.gain_spread)):.3f}."
    if study.seeds.max() < 2:
        seen = f"{low}; one RL seed only, so no spread over seeds."
    return Plate(
        f"{stem}-consistency",
        "Gains over budgets (Fig. 3, left)",
        figures_response.consistency(study),
        f"Two line plots over pretraining steps: gain at each budget, and reward before and after RL. {seen}",
        "The gain by RL depends on the checkpoint in the same way at every budget.",
        seen,
        "All budgets are read off one run per seed, so they are not independent. A gain in R without a gain among the "
        "labels is label mass, not copying. RL seeds say nothing about the spread over pretraining seeds.",
    )


def _prediction(stem: str, study: Study, rows: Mapping[str, Row]) -> Plate:
    seen = (
        f"Spearman with the mean gain, 90 % bootstrap interval over checkpoints: P_gap by eqs. 26–29 "
        f"{correlation(rows[P_GAP])}; P_gap by §6 {correlation(rows[P_GAP_LITERAL])}; forecast "
        f"{correlation(rows[FORECAST])}, R² {signed(rows[FORECAST].r_squared)}; R_before alone "
        f"{correlation(rows['R_before'])}."
    )
    return Plate(
        f"{stem}-prediction",
        "Gain against prediction (Figs. 1 and 4)",
        figures_response.prediction(study, rows),
        f"Three scatter plots of the measured gain: against P_gap in two readings and against the forecast. {seen}",
        "P_gap = (Σ − Λ)·H_α predicts which checkpoints gain; Spearman about 0.60 with the mean gain.",
        seen,
        "The interval resamples the checkpoints of one ladder and does not cover other pretraining seeds. The "
        "forecast's form and its one constant per optimiser were chosen once on embedded ladders, so there it is no "
        "blind test; nothing is refitted here. Bars are the sd over RL seeds.",
    )


def _z(stem: str, study: Study, rows: Mapping[str, Row]) -> Plate:
    combined, alone = rows[P_GAP].combined, rows["R_before"].after
    seen = f"Spearman with R_after: z(R_before) + z(P_gap) {signed(combined)}; R_before alone {signed(alone)}."
    return Plate(
        f"{stem}-z",
        "Reward after RL, z-scores (Fig. 5)",
        figures_response.z_scores(study, rows),
        f"Two scatter plots and a line plot of z-scores over checkpoints. {seen}",
        "z(R_before) + z(P_gap) predicts the reward after RL (Spearman about 0.73) better than either part alone.",
        seen,
        "R_after contains R_before, so any number that grows with R_before correlates with it: the fair baseline is "
        "R_before alone, in the second panel.",
    )


def _forecast(stem: str, study: Study) -> Plate:
    error = amount(forecast_error(study))
    seen = f"Mean absolute error of the forecast reward over all checkpoints and budgets: {error}."
    return Plate(
        f"{stem}-forecast",
        "Forecast of the RL curve",
        figures_response.forecasts(study),
        f"Small line plots, one per checkpoint: forecast curve and measured reward at the budgets. {seen}",
        "None: the paper predicts an order, not an amount. The forecast follows from the free-logit flow of GRPO with "
        "the model's own gradient norm.",
        seen,
        "Mean-field: one p for all prompts and one constant per optimiser. It is known to rise too slowly first and "
        "too fast later when prompts differ a lot. Bars span the lowest and highest RL seed.",
    )


def study_plates(stem: str, study: Study, rows: Mapping[str, Row]) -> list[Plate]:
    """Figures of one study, in the order of the report."""
    return [
        _consistency(stem, study),
        _prediction(stem, study, rows),
        _z(stem, study, rows),
        _forecast(stem, study),
    ]
