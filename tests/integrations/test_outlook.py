"""The outlook of a run: its schedule sets the clock, the label says what it is."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import get_scheduler

from tests.integrations.fake_grpo import FakeGRPO
from vgrad_lab.integrations import credit_log, trainer
from vgrad_lab.integrations.outlook import MOST_UPDATES, Progress, remaining_curve, steps_ahead
from vgrad_lab.integrations.trl import VGradCallback
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT, QUADRATURE

SHAPES = ("constant", "linear", "cosine", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt")


def scheduler(name: str, steps: int, rate: float = 1e-3) -> Any:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    return get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=steps)


def rates(name: str, steps: int) -> np.ndarray:
    """Learning rate of each step, as the trainer uses it."""
    made, found = scheduler(name, steps), []
    for _ in range(steps):
        found.append(made.get_last_lr()[0])
        made.optimizer.step()
        made.step()
    return np.array(found)


def success(rate: np.ndarray, strength: float = 60.0) -> np.ndarray:
    """Success before each update of a run whose logit rises by strength × rate."""
    return 1 / (1 + np.exp(1.0 - strength * np.concatenate([[0.0], np.cumsum(rate[:-1])])))


def progress(rate: np.ndarray, seen: int, ahead: np.ndarray | None) -> Progress:
    nothing = np.full(seen, np.nan)
    left = len(rate) - seen
    found = success(rate)[:seen]
    return Progress(np.arange(1, seen + 1), found, rate[:seen], nothing, 10**9, 8, left, "adamw", rate_ahead=ahead)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("seen", "steps"), [(12, 40), (30, 60), (59, 60)])
def test_a_known_schedule_is_followed_exactly(name: str, seen: int, steps: int) -> None:
    """Success of AdamW's mean-field flow until the last step; with a rate that is 0.1 % off it is not."""
    rate = rates(name, steps)
    ahead = rate[seen - 1 :]
    curve = remaining_curve(progress(rate, seen, ahead))
    assert curve is not None
    truth = success(rate)[seen - 1 :]
    assert curve == pytest.approx(truth, abs=QUADRATURE * 1000)
    off = np.concatenate([ahead[:1], ahead[1:] * (1 + 10 * PLANTED_FAULT)])
    wrong = remaining_curve(progress(rate, seen, off))
    assert wrong is not None
    assert steps - seen < 3 or np.abs(wrong - truth).max() > QUADRATURE * 1000


def test_without_a_schedule_the_latest_rate_goes_on() -> None:
    rate = rates("linear", 60)
    plain = remaining_curve(progress(rate, 30, None))
    kept = remaining_curve(progress(rate, 30, np.full(31, rate[29])))
    assert plain == pytest.approx(kept, rel=CLOSED_FORM)
    assert plain is not None
    assert plain[-1] > success(rate)[-1] + 0.05
    for bad in (np.full(7, 1e-3), np.full(31, np.nan), -np.ones(31)):
        assert remaining_curve(progress(rate, 30, bad)) == pytest.approx(plain, rel=CLOSED_FORM)
    unseen = dataclasses.replace(progress(rate, 30, None), learning_rate=np.full(30, np.nan))
    by_step = remaining_curve(unseen)
    assert by_step is not None
    assert by_step[-1] > by_step[0]
    still = dataclasses.replace(progress(rate, 30, None), learning_rate=np.array([0.0] * 29 + [1e-3]))
    assert remaining_curve(still) is None


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("steps", [20, 1000])
def test_rates_ahead_are_the_schedulers(name: str, steps: int) -> None:
    rate, made = rates(name, steps), scheduler(name, steps)
    for step in range(1, 13):
        made.optimizer.step()
        made.step()
        found = trainer.rate_ahead(SimpleNamespace(lr_scheduler=made), step, steps - step)
        assert found is not None
        assert len(found) == len(steps_ahead(steps - step)) <= MOST_UPDATES + 1
        if steps - step <= MOST_UPDATES:
            assert found[:-1] == pytest.approx(rate[step - 1 : -1], rel=CLOSED_FORM)
        assert found[0] == pytest.approx(rate[step - 1], rel=CLOSED_FORM)


def test_a_schedule_that_is_no_function_of_the_step_is_unknown() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    for made in (None, plateau, scheduler("linear", 20)):  # the last one has not moved
        assert trainer.rate_ahead(SimpleNamespace(lr_scheduler=made), 3, 17) is None


def low(completion_ids: Tensor) -> Tensor:
    """1 for the lower half of the tokens."""
    return (completion_ids[:, 0] < 6).double()


@pytest.mark.parametrize("own", [False, True])
def test_the_log_says_which_forecast_it_holds(tmp_path: Path, own: bool) -> None:
    """``trend`` for the run's own slope, ``given`` for a function of the user's; words reach no tracker."""
    fake = FakeGRPO(tmp_path, low, steps=12, prompts=4)
    callback = VGradCallback(forecast=lambda p: np.full(p.remaining + 1, 0.5)) if own else VGradCallback()
    callback.attach(fake)
    fake.train()
    assert callback.problem is None
    steps = credit_log.steps(credit_log.read(tmp_path))
    made = [r for r in steps if "forecast_final" in r]
    assert made
    assert {r["forecast_kind"] for r in made} == {"given" if own else "trend"}
    assert "vgrad/forecast_kind" not in fake._metrics["train"]
    assert "vgrad/forecast_final" in fake._metrics["train"]
