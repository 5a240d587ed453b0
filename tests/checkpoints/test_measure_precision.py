"""Measuring in bfloat16: sums stay in float64, and what rounding costs is part of the result."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.taught import TASK, checkpoint_of, taught
from tests.checkpoints.test_precision import model_of
from vgrad_lab.checkpoints import probe

EXACT = probe.MeasureSettings(prompts=24, sampled_groups=8)
ROUGH = dataclasses.replace(EXACT, precision="bfloat16")
NAMED = ("signal", "costate_gap_conditional", "impact_score", "gradient_l1", "gradient_l2_squared")


@pytest.mark.parametrize("family", ["Olmo2", "Llama", "Qwen3", "GPTNeoX", "GPT2", "taught"])
def test_the_error_of_bfloat16_is_in_the_record(family: str) -> None:
    """It is the difference of the two results, below 10 % of each number and 0.01 in the reward, and not zero."""
    checkpoint = taught("Olmo2") if family == "taught" else checkpoint_of(model_of(family))
    exact, rough = (probe.measure(checkpoint, TASK, s) for s in (EXACT, ROUGH))
    assert "precision_error" not in exact
    error: dict[str, Any] = rough["precision_error"]
    assert error["reward_before"] == pytest.approx(rough["reward_before"] - exact["reward_before"], abs=1e-12)
    for name in NAMED:
        assert error[name] == pytest.approx((rough[name] - exact[name]) / abs(exact[name]), rel=1e-6), name
        assert abs(error[name]) < 0.1
    success = [np.array(r["per_prompt"]["success"]) for r in (exact, rough)]
    assert error["probability"] == pytest.approx(np.abs(success[0] - success[1]).max())
    assert 0 < error["state"] < 0.1
    assert abs(error["reward_before"]) <= error["probability"] < 0.01


def test_a_changed_precision_is_another_protocol() -> None:
    """Left out of a record at its default, so that hashes of earlier records stay valid."""
    assert "precision" not in probe.measure_facts(EXACT)
    assert probe.measure_facts(ROUGH)["precision"] == "bfloat16"
    assert set(probe.measure_facts(EXACT)) | set(probe.LATER) == {f.name for f in dataclasses.fields(EXACT)}
