"""The phase diagram: what the phases mean, where the borders lie, bad input, and the picture."""

import numpy as np
import pytest

from tests.helpers import unchecked
from vgrad_lab.discrete import phase_diagram as module
from vgrad_lab.discrete import thresholds
from vgrad_lab.discrete.phase_diagram import PHASES, draw_phases, phase_map, phases, steepening_log_odds

RATES = np.array([0.05, 0.5, 0.9, 1.5, 8.0])


def test_phases_of_hand_made_runs() -> None:
    rising, flat = np.linspace(0, 4, 41), np.full(41, 2.0)
    rows = np.array([rising, flat, np.tile([1.0, 2.0], 21)[:41], -rising * 2, np.where(np.arange(41) == 30, -9, 3.0)])
    assert [PHASES[i] for i in phases(rows)] == ["converge", "stagnate", "stagnate", "collapse", "stagnate"]
    hops = np.tile([3.0, -10.0], 21)
    assert [PHASES[i] for i in phases(np.array([hops[:41], hops[1:]]))] == ["collapse", "collapse"]


def test_borders() -> None:
    """REINFORCE divides at lr = 2/V = 1; the gap's fixed multiple and infinite groups stagnate well before."""
    success = np.array([0.2, 0.8])
    found = phase_map(RATES, success, "reinforce", updates=800)
    assert np.all(found[:, :3] == 0)
    assert np.all(found[:, 3:] > 0)
    assert np.all(phase_map(RATES, success, "gap", updates=800)[:, :2] == 1)
    grpo = phase_map(RATES, success, "population_grpo", updates=1500)
    assert np.all(grpo[:, 1] == 1)
    assert np.all(grpo[:, -1] == 2)
    half = phase_map(RATES / 2, success, "reinforce", updates=800, second_moment=4.0)
    np.testing.assert_array_equal(half[:, :3], found[:, :3])
    assert np.all(half[:, 3] > 0), "lr = .75 is below 2/V = 1 for V = 2 and above it for V = 4"


def test_a_single_update_by_hand() -> None:
    """J = ½ at height y: b = ln 2cosh y; a ← a − lr ω x tanh y and b ← b + lr ω (1 − y tanh(y)/2)."""
    y, rate = 0.6, 0.7
    b = np.log(2 * np.cosh(y))
    x = np.exp(b / 2)
    move_a, move_b = -rate * 0.25 * x * np.tanh(y), rate * 0.25 * (1 - y * np.tanh(y) / 2)
    after = np.exp((b + move_b) / 2) * (y / x + move_a)
    odds = steepening_log_odds(np.array([rate]), np.array([0.5]), "reinforce", updates=1, height=y, disturbance=1e-9)
    np.testing.assert_allclose(odds[0], [0, b + move_b - np.log(2 * np.cosh(after))], atol=1e-14)


def test_the_disturbance_is_a_floor() -> None:
    """Below the threshold y would shrink to nothing; it stays, and does not hurt."""
    odds = steepening_log_odds(np.array([0.2]), np.array([0.5]), "reinforce", updates=200, disturbance=0.1)
    free = steepening_log_odds(np.array([0.2]), np.array([0.5]), "reinforce", updates=200, disturbance=1e-6)
    assert 0 < float(free[0, -1] - odds[0, -1]) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": np.array([0.0])}, "positive and finite"),
        ({"learning_rate": np.array([np.inf])}, "positive and finite"),
        ({"learning_rate": np.array([1.0, 2.0])}, "one for each success rate"),
        ({"success": np.array([1.0])}, r"in \(0, 1\)"),
        ({"success": np.array([np.nan])}, r"in \(0, 1\)"),
        ({"updates": 0}, "must be positive"),
        ({"second_moment": -1.0}, "must be positive"),
        ({"disturbance": 0.0}, "must be positive"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    given = {"learning_rate": np.array([1.0]), "success": np.array([0.5]), "algorithm": "reinforce", "updates": 2}
    given |= change
    with pytest.raises(ValueError, match=message):
        unchecked(steepening_log_odds)(
            given.pop("learning_rate"), given.pop("success"), given.pop("algorithm"), **given
        )


def test_extreme_rates_stay_finite() -> None:
    rates = np.array([1e-12, 1e6, 1e300])
    for algorithm in ("gap", "reinforce", "grpo", "dynamic_sampling"):
        odds = steepening_log_odds(rates, np.array([0.5, 1e-300, 1 - 1e-16]), algorithm, updates=20)
        assert not np.isnan(odds).any()


def test_the_picture() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axis = figure.subplots()
    draw_phases(axis, RATES, np.array([0.2, 0.8]), phase_map(RATES, np.array([0.2, 0.8]), "reinforce", updates=300))
    assert axis.get_legend().get_texts()[0].get_text() == "converge"
    assert axis.get_xscale() == "log"
    figure.canvas.draw()


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_differ_in_grey() -> None:
    shades = sorted(luminance(c) for c in module.COLOURS)
    assert min(np.diff(shades)) > 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: thresholds.bisect(lambda x: x < 1, 2.0, 1.0), "0 < low < high"),
        (lambda: thresholds.bisect(lambda x: x < 1, 2.0, 3.0), "widen the interval"),
        (lambda: thresholds.cosh_cycle(2.0), "only above c = 2"),
        (lambda: thresholds.stagnation_level(0.1, "reinforce"), "has no two-cycle"),
    ],
)
def test_thresholds_refuse(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_bisect_finds() -> None:
    assert thresholds.bisect(lambda x: x < 1 / 3, 0.01, 5.0) == pytest.approx(1 / 3, rel=1e-8)
