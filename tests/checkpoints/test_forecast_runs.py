"""Forecasts against real GRPO runs of tiny models taught the task for a while, with steps that do not overshoot."""

import dataclasses
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from tests.checkpoints.taught import TASK, taught, twin
from vgrad_lab.checkpoints import expected_update
from vgrad_lab.checkpoints.forecast import Forecast, forecast
from vgrad_lab.checkpoints.grpo import GrpoSettings, train
from vgrad_lab.checkpoints.scene import ForecastSettings

BUDGETS = (5, 10, 15, 20)
ADAMW = GrpoSettings(learning_rate=2e-4, budgets=BUDGETS)
SGD = GrpoSettings(optimizer="sgd", clip=None, learning_rate=5e-3, budgets=BUDGETS)
PLAN = ForecastSettings(width=0.2)
SEEDS = 2
"""Runs averaged; the spread of one run about the mean is a tenth of its gain or less."""


@cache
def mean_curve(family: str, success: float, rl: GrpoSettings) -> np.ndarray:
    """Mean reward at each budget over real runs with seeds of their own."""
    start = taught(family, success)
    return np.mean([train(twin(start), TASK, rl, seed=k)["reward_after"] for k in range(SEEDS)], axis=0)


def holds(f: Forecast, real: np.ndarray) -> bool:
    """Whether the band holds the mean curve at every budget."""
    at = list(BUDGETS)
    return bool(np.all((f.lower[at] <= real) & (real <= f.upper[at])))


@pytest.mark.parametrize(
    "rl",
    [
        ADAMW,
        SGD,
        dataclasses.replace(SGD, clip=0.5),
        dataclasses.replace(SGD, baseline="leave_one_out", learning_rate=1e-2),
        dataclasses.replace(SGD, group_size=4),
        dataclasses.replace(ADAMW, group_size=16),
        dataclasses.replace(SGD, kl=0.5),
        dataclasses.replace(SGD, schedule="cosine", warmup=3),
        dataclasses.replace(ADAMW, schedule="cosine", warmup=3),
    ],
    ids=["adamw", "sgd", "clip", "no-std", "four", "sixteen", "kl", "schedule", "schedule-adamw"],
)
def test_the_mean_run_lies_in_the_band(rl: GrpoSettings) -> None:
    f = forecast(taught("GPTNeoX"), TASK, rl, PLAN)
    real = mean_curve("GPTNeoX", 0.4, rl)
    assert holds(f, real), (f.lower[list(BUDGETS)], real, f.upper[list(BUDGETS)])
    assert f.lower[-1] > f.reward[0], "the band tells the gain from none"


@pytest.mark.parametrize(
    ("family", "success", "rl"),
    [
        ("Olmo2", 0.15, dataclasses.replace(ADAMW, learning_rate=1e-4)),
        ("Llama", 0.25, dataclasses.replace(SGD, learning_rate=3e-3)),
        ("Qwen2", 0.25, dataclasses.replace(ADAMW, learning_rate=1e-4)),
    ],
    ids=["Olmo2", "Llama", "Qwen2"],
)
def test_other_families(family: str, success: float, rl: GrpoSettings) -> None:
    f = forecast(taught(family, success), TASK, rl, PLAN)
    real = mean_curve(family, success, rl)
    assert holds(f, real), (f.lower[list(BUDGETS)], real, f.upper[list(BUDGETS)])


def wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_update, "grpo_scale", lambda p, *_, **__: np.ones_like(p))


def doubled(rl: GrpoSettings) -> GrpoSettings:
    return dataclasses.replace(rl, learning_rate=2 * rl.learning_rate)


@pytest.mark.parametrize(
    ("rl", "assumed", "fault"),
    [
        (ADAMW, doubled(ADAMW), None),
        (SGD, doubled(SGD), None),
        (SGD, SGD, wrong_scale),
        (dataclasses.replace(SGD, baseline="leave_one_out", learning_rate=1e-2), doubled(SGD), None),
        (dataclasses.replace(SGD, clip=0.5), SGD, None),
        (dataclasses.replace(SGD, schedule="cosine", warmup=3), SGD, None),
        (dataclasses.replace(ADAMW, schedule="cosine", warmup=3), ADAMW, None),
    ],
    ids=["rate", "rate-sgd", "scale", "no-std", "clip", "schedule", "schedule-adamw"],
)
def test_a_fault_leaves_the_band(
    rl: GrpoSettings,
    assumed: GrpoSettings,
    fault: Callable[[pytest.MonkeyPatch], None] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same runs, forecast with one thing wrong."""
    if fault is not None:
        fault(monkeypatch)
    f = forecast(taught("GPTNeoX"), TASK, assumed, PLAN)
    assert not holds(f, mean_curve("GPTNeoX", 0.4, rl))
