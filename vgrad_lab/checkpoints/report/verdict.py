"""Plain sentences computed from a study's numbers: what a reader should take from it, nothing hard-coded."""

from collections.abc import Mapping, Sequence

import numpy as np

from vgrad_lab.checkpoints.report.collect import Run, Study, number
from vgrad_lab.checkpoints.report.predictors import FORECAST, P_GAP, P_GAP_LITERAL
from vgrad_lab.checkpoints.report.scores import Row
from vgrad_lab.checkpoints.report.style import amount, signed


def correlation(row: Row) -> str:
    """Spearman with its interval; says "undefined" where it is."""
    if not np.isfinite(row.gain.value):
        return "undefined"
    low, high = signed(row.gain.low), signed(row.gain.high)
    interval = f"[{low}, {high}]" if np.isfinite(row.gain.low) else "(no interval)"
    return f"{signed(row.gain.value)} {interval}"


def best_row(rows: Sequence[Row]) -> Row | None:
    """The predictor with the largest defined Spearman with the gain."""
    defined = [row for row in rows if np.isfinite(row.gain.value)]
    return max(defined, key=lambda row: row.gain.value) if defined else None


def _gain_sentence(study: Study) -> str:
    n, few, many = len(study.measures), int(study.seeds.min()), int(study.seeds.max())
    seeds = f"{many}" if few == many else f"{few} to {many}"
    scope = f"{n} checkpoint{'s' * (n != 1)}, {seeds} RL seed{'s' * (many != 1)} each"
    if not np.all(np.isfinite(study.gain)):
        return f"The gain by RL is undefined at one or more checkpoints, so nothing can be ranked ({scope})."
    best, least = int(study.gain.argmax()), int(study.gain.argmin())
    before = amount(number(study.measures[best].result, "reward_before"))
    if study.gain[best] <= 0:
        return f"RL raised the reward at no checkpoint; the best gain is {amount(study.gain[best])} ({scope})."
    sentence = (
        f"RL raised the reward most at {study.measures[best].name}: by {amount(study.gain[best])} from {before}, on "
        "average over the budgets"
    )
    if n > 1:
        sentence += f"; least at {study.measures[least].name}, by {amount(study.gain[least])}"
    return f"{sentence} ({scope})."


def _judged(row: Row) -> str:
    """A correlation with a word on its sign."""
    return f"{correlation(row)}, {_sign(row)}" if np.isfinite(row.gain.value) else "an undefined value"


def _sign(row: Row) -> str:
    if not np.isfinite(row.gain.low):
        return "of a sign that is not established"
    if row.gain.low * row.gain.high > 0:
        return "positive" if row.gain.value > 0 else "negative"
    return "not distinguishable from 0"


def _score_sentence(rows: Mapping[str, Row]) -> str:
    if not np.isfinite(rows[P_GAP].gain.value):
        return "The impact score cannot be scored yet: a rank correlation needs 3 checkpoints with defined values."
    best = best_row(list(rows.values()))
    assert best is not None
    leader = f"the best predictor, {best.name}, {correlation(best)}"
    return (
        f"The paper's impact score as eqs. 26–29 read ranks these gains with Spearman {_judged(rows[P_GAP])}, and as "
        f"§6 is written with {_judged(rows[P_GAP_LITERAL])}; the reward before RL alone has "
        f"{correlation(rows['R_before'])}, {leader}."
    )


def _after_sentence(rows: Mapping[str, Row]) -> str:
    combined, alone, fit = rows[P_GAP].combined, rows["R_before"].after, rows[FORECAST].r_squared
    if np.isfinite(combined) and np.isfinite(alone):
        change = combined - alone
        effect = "leaves it as it is" if abs(change) < 0.005 else "raises it" if change > 0 else "lowers it"
        first = (
            f"For the reward after RL, the reward before RL alone has Spearman {signed(alone)}; adding the impact "
            f"score {effect} ({signed(combined)})"
        )
    else:
        first = "For the reward after RL no rank correlation is defined yet"
    if not np.isfinite(fit):
        return f"{first}, and the forecast without any RL step cannot be scored."
    size = f"= {signed(fit)}" if fit > -100 else "below −100"
    how = (
        f"explains {100 * fit:.0f} % of the variance of the gain"
        if fit >= 0
        else "is worse than guessing the mean gain"
    )
    return f"{first}, and the forecast from one backward pass, nothing refitted, {how} (R² {size})."


def verdict(study: Study, rows: Mapping[str, Row]) -> tuple[str, str, str]:
    """Three sentences: where RL gained most, how the impact score ranks it, what predicts the reward after RL."""
    return _gain_sentence(study), _score_sentence(rows), _after_sentence(rows)


def verdict_without_rl(run: Run) -> tuple[str, str, str]:
    """Three sentences for a run that has no study yet."""
    measured = sum(len(m) for m in run.measures.values())
    waiting = sum(r["stage"] == "rl" and r["status"] == "failed" for r in run.records)
    if not measured:
        state = "No checkpoint has been measured yet."
    else:
        rewards = [number(m.result, "reward_before") for ms in run.measures.values() for m in ms]
        span = f"reward before RL {min(rewards):.3f} to {max(rewards):.3f}"
        state = f"{measured} measured checkpoint{'s' * (measured != 1)}, {span}."
    failed = f"No RL unit has finished, and {waiting} failed." if waiting else "No RL unit has finished."
    return state, failed, "So no predictor can be scored, and this page claims nothing about the impact score."
