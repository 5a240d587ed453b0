"""Travel along a ray: exact where the ray is the path, calibrated band, bad input."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from tests.helpers import unchecked
from vgrad_lab import ray
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import (
    Ray,
    adam_step,
    along,
    band,
    conformal_width,
    expit,
    logit,
    optimizer_speed,
    overshoots,
    speed,
    travel,
)  # fmt: skip

GROUP = 8


def coin_ray(p0: float, *, rate: float, reach: float, points: int = 33) -> Ray:
    """Ray of a coin p = σ(θ) trained by expected GRPO: θ₀ + x·η·κ(p₀)p₀(1−p₀)."""
    scale = grpo_scale(np.array([p0]), GROUP)[0]
    step = rate * scale * p0 * (1 - p0)
    x = np.concatenate([[0.0], np.geomspace(reach / 500, reach, points)])
    p = expit(logit(np.array(p0)) + step * x)
    return Ray(x, p, grpo_scale(p, GROUP), 1 - p**GROUP - (1 - p) ** GROUP, step * p0 * (1 - p0))


def coin_curve(p0: float, *, rate: float, updates: int, clip: float | None = None) -> np.ndarray:
    """The same by many small steps of the exact flow."""

    def drift(_time: float, z: np.ndarray) -> np.ndarray:
        p = expit(z)
        size = grpo_scale(p, GROUP) * p * (1 - p)
        return rate * (size if clip is None else np.minimum(size, clip))

    times = np.arange(updates + 1)
    return expit(solve_ivp(drift, (0, updates), logit(np.array([p0])), t_eval=times, rtol=1e-8, atol=1e-10).y[0])


@pytest.mark.parametrize("p0", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("rate", [0.01, 0.3, 2.0])
def test_one_parameter_is_forecast_exactly(p0: float, rate: float) -> None:
    """With one parameter no direction can turn: travel along the ray is the flow itself."""
    updates = 12
    r = coin_ray(p0, rate=rate, reach=8.0 * updates)
    found = [along(r)(x) for x in travel(speed(r), updates)]
    np.testing.assert_allclose(found, coin_curve(p0, rate=rate, updates=updates), atol=2e-3)


def test_clipping_is_followed() -> None:
    p0, rate, updates, clip = 0.3, 1.0, 15, 0.2
    r = coin_ray(p0, rate=rate, reach=8.0 * updates)
    norm2 = (r.slope / (p0 * (1 - p0)) / rate) ** 2
    found = [along(r)(x) for x in travel(speed(r, clip=clip, norm2=norm2), updates)]
    np.testing.assert_allclose(found, coin_curve(p0, rate=rate, updates=updates, clip=clip), atol=3e-3)
    free = [along(r)(x) for x in travel(speed(r), updates)]
    assert free[-1] > found[-1] + 0.02


def coin_kl(p: np.ndarray, p0: float) -> np.ndarray:
    """KL of a coin from the coin it started as."""
    return p * (logit(p) - logit(np.array(p0))) + np.log((1 - p) / (1 - p0))


def penalised_coin(p0: float, *, rate: float, beta: float, reach: float) -> Ray:
    """``coin_ray`` with the penalty β·KL; both parts of the first step are exact."""
    r = coin_ray(p0, rate=rate, reach=reach)
    push = r.slope * r.scale[0]
    return dataclasses.replace(r, penalty=beta * coin_kl(r.reward, p0).clip(0), push=push)


@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("p0", [0.1, 0.6])
def test_penalised_gradient_ascent_is_forecast_exactly(beta: float, p0: float) -> None:
    """One parameter: θ' = rate·p(1−p)(κ(p) − β(θ − θ₀)), by many small steps."""
    rate, updates = 0.5, 20
    start = float(logit(np.array(p0)))

    def drift(_time: float, z: np.ndarray) -> np.ndarray:
        p = expit(z)
        return rate * p * (1 - p) * (grpo_scale(p, GROUP) - beta * (z - start))

    flow = solve_ivp(drift, (0, updates), [start], t_eval=np.arange(updates + 1), rtol=1e-8, atol=1e-10)
    r = penalised_coin(p0, rate=rate, beta=beta, reach=4.0 * updates)
    found = [along(r)(x) for x in travel(speed(r), updates)]
    np.testing.assert_allclose(found, expit(flow.y[0]), atol=5e-3)


def test_the_penalty_damps_adam_to_a_standstill() -> None:
    """Adam stops where κJ' = β KL'; without a penalty its speed is 1."""
    p0, beta = 0.3, 2.0
    r = penalised_coin(p0, rate=0.5, beta=beta, reach=60.0)
    end = along(r)(travel(optimizer_speed(r, "adamw"), 50)[-1])
    rest = float(logit(np.array(end)) - logit(np.array(p0)))
    assert rest == pytest.approx(float(grpo_scale(np.array([end]), GROUP)[0]) / beta, rel=0.02)
    assert optimizer_speed(coin_ray(p0, rate=0.5, reach=9.0), "adamw") is ray.constant


def test_a_pull_at_the_start_is_kept() -> None:
    """A ray that begins away from the start: both speeds are 1 at x = 0, whatever the penalty pulls already."""
    r = dataclasses.replace(penalised_coin(0.3, rate=0.5, beta=0.5, reach=20.0), pull=0.01)
    assert speed(r)(0.0) == 1.0
    assert ray.damped(r)(0.0) == 1.0


def test_a_schedule_scales_the_steps() -> None:
    np.testing.assert_allclose(travel(ray.constant, 4, schedule=np.array([1.0, 0.5, 0.0, 2.0])), [0, 1, 1.5, 1.5, 3.5])


def test_where_nothing_is_learnt_nothing_moves() -> None:
    flat = Ray(np.array([0.0, 5.0]), np.zeros(2), np.ones(2), np.zeros(2), 0.0)
    np.testing.assert_array_equal(travel(speed(flat), 3), np.zeros(4))


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
        (lambda: Ray(np.array([1.0, 2.0]), np.ones(2), np.ones(2), np.ones(2), 1.0), "start with 0"),
        (lambda: Ray(np.array([0.0, 2.0]), np.array([0.5, 1.5]), np.ones(2), np.ones(2), 1.0), "lie in"),
        (
            lambda: unchecked(Ray.__post_init__)(
                SimpleNamespace(
                    position=np.array([0.0, 2.0]),
                    reward=np.ones(2),
                    scale=np.ones(3),
                    mixed=np.ones(2),
                    slope=1.0,
                    penalty=None,
                    push=1.0,
                    pull=0.0,
                )
            ),
            "length",
        ),
        (lambda: Ray(np.array([0.0, 2.0]), np.ones(2), np.ones(2), np.ones(2), np.nan), "not finite"),
        (
            lambda: Ray(np.array([0.0, 2.0]), np.ones(2), np.ones(2), np.ones(2), 1.0, penalty=np.array([0.0, -1.0])),
            "penalty must not be negative",
        ),
        (lambda: unchecked(travel)(ray.constant, -1), "negative"),
        (lambda: unchecked(travel)(ray.constant, 2, schedule=np.ones(3)), "one per update"),
        (lambda: unchecked(adam_step)(np.ones(2), -np.ones(2)), "must not be negative"),
        (lambda: unchecked(conformal_width)(np.ones((0, 2)), np.ones((0, 2))), "level"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_ray_that_falls_overshoots() -> None:
    flat = {"scale": np.ones(3), "mixed": np.ones(3), "position": np.array([0.0, 1.0, 2.0])}
    assert overshoots(Ray(reward=np.array([0.4, 0.5, 0.38]), slope=0.1, **flat))
    assert not overshoots(Ray(reward=np.array([0.4, 0.5, 0.395]), slope=0.1, **flat)), (
        "rounding and the prompts' choice"
    )
    assert not overshoots(Ray(reward=np.array([0.4, 0.6, 0.5]), slope=0.1, **flat)), "SGD turns back before it"
    assert not overshoots(Ray(reward=np.array([0.4, 0.3, 0.2]), slope=-0.1, **flat)), "nothing was promised"
