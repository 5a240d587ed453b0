"""K11: equal rewards in float32."""

import numpy as np
import pytest
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.discrete.float_groups import naive_advantage
from vgrad_lab.experiments import verify_neighbours as checks

HAZARDS = [
    (0.7, 8, (6e-4, 0.056, 0.81), 5.96),
    (0.1, 8, (7e-5, 7e-3, 0.41), 0.75),
    (123.456, 5, (0.07, 0.80, 0.89), 763.0),
]  # fmt: skip


@given(strategies.seeds())
def test_ours(seed: int) -> None:
    assert checks.k11_exact(seed=seed, examples=1).passed


@pytest.mark.parametrize(("value", "count", "expected", "rows"), HAZARDS)
def test_three_conventions(value: float, count: int, expected: tuple[float, ...], rows: float) -> None:
    """The note's numbers."""
    reward = np.full(count, value, np.float32)
    found = [float(np.abs(naive_advantage(reward, library)).max()) for library in ("trl", "verl", "oat")]
    assert found == pytest.approx(expected, rel=0.07)
    assert np.abs(naive_advantage(reward, "oat", spread="exact")).max() == pytest.approx(rows, rel=0.01)


def test_zero_and_one() -> None:
    for count in range(2, 65):
        for value in (0.0, 1.0):
            assert not np.any(naive_advantage(np.full(count, value, np.float32), "oat", spread="exact"))


def test_counterexample_refutes() -> None:
    found = checks.k11_equal()
    assert found.refutes
    assert found.claimed == pytest.approx(0.8085, abs=5e-5)
