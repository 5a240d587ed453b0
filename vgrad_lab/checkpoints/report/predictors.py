"""Predictors of the RL gain, each a number read off one measured checkpoint: trivial, the paper's, exact, forecast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.checkpoints.report.collect import Study, number
from vgrad_lab.impact import Optimizer, forecast, impact_score

Kind = Literal["trivial", "paper", "exact", "forecast"]
Result = Mapping[str, Any]
NAN = float("nan")
READINGS: dict[str, str] = {
    "conditional": "costate_gap_conditional",
    "per sample": "costate_gap_per_sample",
    "group mean": "costate_gap_group_mean",
}
"""Reading of Λ -> key of a measure's result."""
HEADROOMS: dict[str, str] = {"within": "headroom_within", "between": "headroom_between"}
"""Reading of H_α (within prompts as eq. 28, between prompts as §6 with R = p(y*|q)) -> key of a measure's result."""
P_GAP = "P_gap conditional × within"
"""The paper's eqs. 26-29 as written."""
P_GAP_LITERAL = "P_gap per sample × between"
"""The paper's §6 as written: single costates, and p(y*|q) as the reward inside H_α."""
FORECAST = "forecast"


@dataclass(frozen=True)
class Predictor:
    """A number read off a measured checkpoint, before any RL step."""

    name: str
    formula: str
    kind: Kind
    function: Callable[[Result], float]


def _key(name: str) -> Callable[[Result], float]:
    return lambda result: number(result, name)


def _left(result: Result) -> float:
    return 1 - number(result, "reward_before")


def _p_gap(gap: str, headroom: str) -> Callable[[Result], float]:
    return lambda r: impact_score(number(r, "signal"), number(r, gap), number(r, headroom))


def _all() -> tuple[Predictor, ...]:
    reward, l1, l2 = _key("reward_before"), _key("gradient_l1"), _key("gradient_l2_squared")
    readings = (
        Predictor(f"P_gap {gap} × {room}", "(Σ − Λ)·H_α", "paper", _p_gap(gap_key, room_key))
        for gap, gap_key in READINGS.items()
        for room, room_key in HEADROOMS.items()
    )
    return (
        Predictor("R_before", "R = E p(y*|q)", "trivial", reward),
        Predictor("1 − R", "what is left to gain", "trivial", _left),
        Predictor("R(1 − R)", "variance of a mean-R coin", "trivial", lambda r: reward(r) * _left(r)),
        Predictor("E[p(1 − p)]", "mean success variance", "trivial", _key("success_variance")),
        Predictor("pass@k", "P(one of k samples is right)", "trivial", _key("pass_at_k")),
        Predictor(
            "pass@k − R",
            "what a perfect pick of k samples adds",
            "trivial",
            lambda r: number(r, "pass_at_k") - reward(r),
        ),
        Predictor("mixed group", "P(a group holds both outcomes)", "trivial", _key("mixed_group")),
        Predictor("entropy", "mean next-token entropy, nats", "trivial", _key("entropy")),
        Predictor("pretraining step", "step", "trivial", _key("step")),
        Predictor("H within", "H_α of the reward within a prompt (eq. 28)", "paper", _key("headroom_within")),
        Predictor("H between", "H_α of p(y*|q) over prompts (§6)", "paper", _key("headroom_between")),
        Predictor("Σ", "E‖G‖² (eq. 26)", "paper", _key("signal")),
        *readings,
        Predictor(
            "alignment × H",
            "E⟨λ̂, G⟩·H within",
            "paper",
            lambda r: number(r, "alignment") * number(r, "headroom_within"),
        ),
        Predictor("Σ(1 − R)", "signal times what is left", "exact", lambda r: number(r, "signal") * _left(r)),
        Predictor("‖∇J‖²", "exact first-order gain of an SGD step / η", "exact", l2),
        Predictor("‖∇J‖²(1 − R)", "squared gradient norm times what is left", "exact", lambda r: l2(r) * _left(r)),
        Predictor("‖∇J‖₁(1 − R)", "sum of |∂J/∂θ| times what is left", "exact", lambda r: l1(r) * _left(r)),
    )


PREDICTORS: dict[str, Predictor] = {predictor.name: predictor for predictor in _all()}
"""Every predictor that needs no RL setting; ``forecast_predictor`` adds the one that does."""


def forecast_curve(
    result: Result,
    *,
    optimizer: str,
    learning_rate: float,
    group_size: int,
    updates: int,
    ddof: int = 1,
    eps: float = 1e-4,
) -> Float[ndarray, " K"]:
    """Forecast reward after 0..updates updates; all NaN where it is undefined (R of 0 or 1, no gradient).

    ``vgrad_lab.impact.forecast`` with ‖∇J‖₁ for adamw and ‖∇J‖² for sgd. Ledger: S26.forecast.
    """
    keys = {"adamw": "gradient_l1", "sgd": "gradient_l2_squared"}
    reward, gradient = number(result, "reward_before"), number(result, keys.get(optimizer, ""))
    if not (0 < reward < 1 and gradient >= 0 and np.isfinite(gradient) and group_size >= 2):
        return np.full(updates + 1, NAN)
    return forecast(
        reward,
        gradient,
        optimizer=cast(Optimizer, optimizer),
        learning_rate=learning_rate,
        group_size=group_size,
        updates=updates,
        ddof=ddof,
        eps=eps,
    )


def study_curve(study: Study, result: Result) -> Float[ndarray, " K"]:
    """``forecast_curve`` under a study's settings; NaN for SGD without standardised advantages."""
    settings = study.settings
    if study.optimizer == "sgd" and settings.get("baseline", "standardised") != "standardised":
        return np.full(max(study.budgets) + 1, NAN)
    return forecast_curve(
        result,
        optimizer=study.optimizer,
        learning_rate=study.learning_rate,
        group_size=study.group_size,
        updates=max(study.budgets),
        ddof=int(settings.get("ddof", 1)),
        eps=float(settings.get("eps", 1e-4)),
    )


def forecast_predictor(study: Study) -> Predictor:
    """The forecast mean gain over a study's budgets."""

    def gain(result: Result) -> float:
        curve = study_curve(study, result)
        return float((curve[list(study.budgets)] - curve[0]).mean())

    return Predictor(FORECAST, "mean forecast gain over the budgets, no RL step", "forecast", gain)


def predict(predictor: Predictor, results: Sequence[Result]) -> Float[ndarray, " n"]:
    """A predictor's value at each measured checkpoint; NaN where undefined."""
    return np.array([predictor.function(result) for result in results], dtype=float)
