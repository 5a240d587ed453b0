"""Travel along a ray: exact where the ray is the path, calibrated band, bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from tests.helpers import unchecked
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import (
    Ray,
    adam_step,
    along,
    band,
    conformal_width,
    expit,
    logit,
    overshoots,
    speed,
    travel,
)  # fmt: skip

GROUP = 8


def coin_ray(p0: float, *, rate: float, reach: float, points: int = 33) -> tuple[Ray, np.ndarray]:
    """Ray of a coin p = σ(θ) trained by expected GRPO, θ₀ + x·η·κ(p₀)p₀(1−p₀), with κ at its points."""
    step = rate * grpo_scale(np.array([p0]), GROUP)[0] * p0 * (1 - p0)
    x = np.concatenate([[0.0], np.geomspace(reach / 500, reach, points)])
    p = expit(logit(np.array(p0)) + step * x)
    return Ray(x, p, step * p0 * (1 - p0)), grpo_scale(p, GROUP)


def coin_curve(p0: float, *, rate: float, updates: int) -> np.ndarray:
    """The same by many small steps of the exact flow."""

    def drift(_time: float, z: np.ndarray) -> np.ndarray:
        p = expit(z)
        return rate * grpo_scale(p, GROUP) * p * (1 - p)

    times = np.arange(updates + 1)
    return expit(solve_ivp(drift, (0, updates), logit(np.array([p0])), t_eval=times, rtol=1e-8, atol=1e-10).y[0])


@pytest.mark.parametrize("p0", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("rate", [0.01, 0.3, 2.0])
def test_one_parameter_is_forecast_exactly(p0: float, rate: float) -> None:
    """With one parameter no direction can turn: travel along the ray is the flow itself."""
    updates = 12
    r, scale = coin_ray(p0, rate=rate, reach=8.0 * updates)
    found = [along(r)(x) for x in travel(speed(r, scale), updates)]
    truth = coin_curve(p0, rate=rate, updates=updates)
    np.testing.assert_allclose(found, truth, atol=2e-3)
    faulty = [along(r)(x) for x in travel(lambda _x: 1.0, updates)]
    assert rate < 2 or np.abs(faulty - truth).max() > 2e-3, "constant speed is seen"


def test_where_nothing_is_learnt_nothing_moves() -> None:
    flat = Ray(np.array([0.0, 5.0]), np.zeros(2), 0.0)
    np.testing.assert_array_equal(travel(speed(flat, np.ones(2)), 3), np.zeros(4))


@given(st.integers(0, 2**31))
def test_adam_step_is_a_damped_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean, variance = rng.normal(size=20) * 10 ** rng.uniform(-8, 2), rng.random(20)
    step = adam_step(mean, variance)
    assert np.all(np.abs(step) <= 1)
    np.testing.assert_allclose(step, mean / np.sqrt(mean**2 + variance), rtol=1e-12)
    np.testing.assert_array_equal(adam_step(mean, np.zeros(20)), np.sign(mean))
    np.testing.assert_array_equal(adam_step(np.zeros(3), np.zeros(3)), np.zeros(3))


def test_band_of_its_calibration_set_covers_what_it_should() -> None:
    rng = np.random.default_rng(0)
    forecast = expit(np.cumsum(rng.random((200, 5)), axis=1) - 1)
    actual = forecast.copy()
    actual[:, 1:] = expit(logit(forecast[:, 1:]) + 0.2 * rng.normal(size=(200, 4)))
    width = conformal_width(forecast, actual, level=0.9)
    inside = []
    for f, a in zip(forecast, actual, strict=True):
        low, high = band(f, width=width)
        assert low[0] == pytest.approx(high[0])
        inside += list((low <= a)[1:] & (a <= high)[1:])
    assert 0.895 <= np.mean(inside) <= 0.91


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ray(np.array([1.0, 2.0]), np.ones(2), 1.0), "start with 0"),
        (lambda: Ray(np.array([0.0, 2.0]), np.array([0.5, 1.5]), 1.0), "lie in"),
        (
            lambda: unchecked(Ray.__post_init__)(
                SimpleNamespace(position=np.array([0.0, 2.0]), reward=np.ones(3), slope=1.0)
            ),
            "one reward per point",
        ),
        (lambda: Ray(np.array([0.0, 2.0]), np.ones(2), np.nan), "not finite"),
        (lambda: unchecked(travel)(lambda _x: 1.0, -1), "negative"),
        (lambda: unchecked(adam_step)(np.ones(2), -np.ones(2)), "must not be negative"),
        (lambda: unchecked(conformal_width)(np.ones((0, 2)), np.ones((0, 2))), "level"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_ray_that_falls_overshoots() -> None:
    x = np.array([0.0, 1.0, 2.0])
    assert overshoots(Ray(x, np.array([0.4, 0.5, 0.38]), 0.1))
    assert not overshoots(Ray(x, np.array([0.4, 0.5, 0.395]), 0.1)), "rounding and the prompts' choice"
    assert not overshoots(Ray(x, np.array([0.4, 0.6, 0.5]), 0.1)), "above its start"
    assert not overshoots(Ray(x, np.array([0.4, 0.3, 0.2]), -0.1)), "nothing was promised"
