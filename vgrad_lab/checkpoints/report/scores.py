"""Scores of predictors against the RL gain: one table that holds the trivial baselines beside the paper's P_gap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.report.collect import Study, number
from vgrad_lab.checkpoints.report.predictors import (
    NAN,
    PREDICTORS,
    READINGS,
    Kind,
    Predictor,
    Result,
    forecast_predictor,
    predict,
    study_curve,
)
from vgrad_lab.stats import Interval, bootstrap, ranks, spearman, z_score


@dataclass(frozen=True)
class Row:
    """One predictor's scores over n checkpoints; NaN means undefined.

    gain: Spearman with the mean gain, and its bootstrap interval over checkpoints. after: Spearman with R_after.
    combined: Spearman of z(R)+z(v) with R_after. partial: rank correlation with the gain, a cubic in rank(R) removed.
    regret: best gain minus the gain at the predictor's largest value. r_squared: forecasts only, nothing refitted.
    """

    name: str
    formula: str
    kind: Kind
    undefined: int
    gain: Interval
    after: float
    combined: float
    partial: float
    regret: float
    r_squared: float


def _rank(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
    if len(x) < 3 or not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        return NAN
    return spearman(x, y)


def _rank_interval(x: Float[ndarray, " n"], y: Float[ndarray, " n"], *, resamples: int, seed: int) -> Interval:
    if not np.isfinite(_rank(x, y)):
        return Interval(NAN, NAN, NAN, 0.9)
    return bootstrap(lambda i: spearman(x[i], y[i]), len(x), resamples=resamples, seed=seed)


def partial_rank(x: Float[ndarray, " n"], y: Float[ndarray, " n"], given: Float[ndarray, " n"]) -> float:
    """Correlation of rank(x) and rank(y) after a cubic in rank(given) is removed from both.

    NaN below 6 points, for non-finite input, and when x or y is a function of ``given`` up to 1e-9.
    """
    if len(x) < 6 or not all(np.all(np.isfinite(v)) for v in (x, y, given)):
        return NAN
    design = np.vander(z_score(ranks(given)), 4)
    basis = np.linalg.svd(design, full_matrices=False)
    kept = basis[0][:, basis[1] > 1e-9 * basis[1][0]]
    residuals = []
    for values in (x, y):
        centred = ranks(values) - (len(values) + 1) / 2
        residual = centred - kept @ (kept.T @ centred)
        if np.linalg.norm(residual) <= 1e-9 * max(float(np.linalg.norm(centred)), 1.0):
            return NAN
        residuals.append(residual / np.linalg.norm(residual))
    return float(residuals[0] @ residuals[1])


def regret(values: Float[ndarray, " n"], gain: Float[ndarray, " n"]) -> float:
    """Best gain minus the gain at the largest value (mean over ties); NaN when anything is undefined."""
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(gain))):
        return NAN
    return float(gain.max() - gain[values == values.max()].mean())


def r_squared(predicted: Float[ndarray, " n"], observed: Float[ndarray, " n"]) -> float:
    """1 − Σ(observed − predicted)²/Σ(observed − mean)², nothing refitted; NaN when undefined."""
    spread = float(((observed - observed.mean()) ** 2).sum())
    if not (np.isfinite(spread) and spread > 0):
        return NAN
    return 1 - float(((observed - predicted) ** 2).sum()) / spread


def combine(reward: Float[ndarray, " n"], values: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """z(R_before) + z(v) of the paper's Fig. 5; all NaN when either holds a NaN."""
    if not (np.all(np.isfinite(reward)) and np.all(np.isfinite(values))):
        return np.full_like(reward, NAN)
    return z_score(reward) + z_score(values)


def evaluate(
    results: Sequence[Result],
    gain: Float[ndarray, " n"],
    after: Float[ndarray, " n"],
    *,
    predictors: Sequence[Predictor] = tuple(PREDICTORS.values()),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Score every predictor against the mean gain and the mean reward after RL, over n checkpoints.

    results: measures. gain: mean over budgets and seeds of R_after − R_before. after: the same mean of R_after.
    A NaN anywhere makes that predictor's statistics NaN (never averaged away). Raises ValueError on lengths.
    """
    if not len(results) == len(gain) == len(after):
        raise ValueError(f"{len(results)} measures, {len(gain)} gains and {len(after)} rewards; they must be equal")
    reward = np.array([number(r, "reward_before") for r in results], dtype=float)
    rows = []
    for predictor in predictors:
        values = predict(predictor, results)
        rows.append(
            Row(
                name=predictor.name,
                formula=predictor.formula,
                kind=predictor.kind,
                undefined=int(np.sum(~np.isfinite(values))),
                gain=_rank_interval(values, gain, resamples=resamples, seed=seed),
                after=_rank(values, after),
                combined=_rank(combine(reward, values), after),
                partial=partial_rank(values, gain, reward),
                regret=regret(values, gain),
                r_squared=r_squared(values, gain) if predictor.kind == "forecast" else NAN,
            )
        )
    return rows


def study_rows(study: Study, *, resamples: int = 2000, seed: int = 0) -> list[Row]:
    """``evaluate`` over a study's checkpoints, the study's own forecast among the predictors."""
    predictors = (*PREDICTORS.values(), forecast_predictor(study))
    results = [m.result for m in study.measures]
    return evaluate(results, study.gain, study.after.mean(1), predictors=predictors, resamples=resamples, seed=seed)


def forecast_error(study: Study) -> float:
    """Mean absolute error of the forecast reward over checkpoints and budgets; NaN when one is undefined."""
    curves = np.stack([study_curve(study, m.result)[list(study.budgets)] for m in study.measures])
    return float(np.abs(curves - study.after).mean())


def negative_share(results: Sequence[Result]) -> dict[str, float]:
    """Share of checkpoints with Σ < Λ, per reading of Λ; NaN when one of them is undefined."""
    signal = np.array([number(r, "signal") for r in results])
    gaps = {name: np.array([number(r, key) for r in results]) for name, key in READINGS.items()}
    return {
        name: float(np.mean(signal < gap)) if np.all(np.isfinite(signal + gap)) and len(gap) else NAN
        for name, gap in gaps.items()
    }
