from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from tests.continuous.systems import Spec, assert_close, build
from tests.helpers import unchecked, whole
from vgrad_lab import strategies
from vgrad_lab.continuous import environments, noise, oracles, variance
from vgrad_lab.continuous.estimators import pathwise_gradient, score_function_gradient
from vgrad_lab.continuous.policies import linear_policy
from vgrad_lab.continuous.rollout import Rollout, rollout, sample_rollout
from vgrad_lab.experiments.verify_continuous_one_step import s03_flip
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT, QUADRATURE

COSTS = {
    "linear": (lambda a, w: a, lambda a, w: np.ones_like(a)),
    "square": (lambda a, w: a**2, lambda a, w: 2 * a),
    "sine": (lambda a, w: np.sin(w * a), lambda a, w: w * np.cos(w * a)),
}


@pytest.mark.parametrize("cost", list(COSTS))
@given(strategies.grid_arrays(1, bound=2.0), strategies.noises(("gaussian",)), st.integers(1, 24))
def test_one_step_moments_against_quadrature(
    cost: str, mean: np.ndarray, law: tuple[str, float], quarters: int
) -> None:
    theta, scale = float(mean[0]), law[1]
    frequency = quarters / 4 / max(1.0, scale)
    found = variance.one_step_moments(cost, mean=theta, scale=scale, frequency=frequency)
    x, weight = noise.gaussian(scale).quadrature(())
    value, slope = COSTS[cost]
    samples = slope(theta + x, frequency), value(theta + x, frequency) * x / scale**2
    for sample, expected in zip(samples, (found.pathwise, found.score_function), strict=True):
        centre = weight @ sample
        assert abs(centre - found.mean) <= QUADRATURE * max(1.0, abs(found.mean))
        assert abs(weight @ (sample - centre) ** 2 - expected) <= QUADRATURE * max(1.0, expected)
        if expected > 0.01:
            assert abs(weight @ (sample - centre) ** 2 - expected * (1 + PLANTED_FAULT)) > QUADRATURE


@pytest.mark.parametrize("cost", list(COSTS))
@given(strategies.grid_arrays(1, bound=2.0), strategies.noises(("gaussian",)), st.integers(-16, 16))
def test_a_constant_baseline_against_quadrature(
    cost: str, mean: np.ndarray, law: tuple[str, float], quarters: int
) -> None:
    theta, scale = float(mean[0]), law[1]
    x, weight = noise.gaussian(scale).quadrature(())
    value, frequency = COSTS[cost][0](theta + x, 0.7 / scale), 0.7 / scale

    def spread(level: float) -> float:
        sample = (value - level) * x / scale**2
        return float(weight @ (sample - weight @ sample) ** 2)

    for level in (quarters / 4, variance.one_step_moments(cost, mean=theta, scale=scale).best_baseline):
        found = variance.one_step_moments(cost, mean=theta, scale=scale, frequency=frequency, baseline=level)
        assert abs(spread(level) - found.score_function) <= QUADRATURE * max(1.0, found.score_function)
    best = found.best_baseline
    assert spread(best) <= min(spread(best + 0.1), spread(best - 0.1))
    low = variance.one_step_moments(cost, mean=theta, scale=scale, frequency=frequency, baseline=best)
    shifted = variance.one_step_moments(cost, mean=theta, scale=scale, frequency=frequency, baseline=best + 0.1)
    assert shifted.score_function > low.score_function


def test_the_sine_agrees_with_the_ledger_and_flips_there() -> None:
    for frequency in (0.5, 1.0, 2.0, 5.0):
        found, w2 = variance.one_step_moments("sine", frequency=frequency), frequency**2
        pathwise = w2 * (1 + np.exp(-2 * w2)) / 2 - w2 * np.exp(-w2)
        score = (1 - (1 - 4 * w2) * np.exp(-2 * w2)) / 2 - w2 * np.exp(-w2)
        np.testing.assert_allclose((found.pathwise, found.score_function), (pathwise, score), rtol=ALGEBRA)
    assert abs(s03_flip() - 1.10899) < 5e-6
    for scale in (0.5, 1.0, 3.0):  # the flip is at ωσ, whatever σ
        at = variance.one_step_moments("sine", scale=scale, frequency=s03_flip() / scale)
        assert abs(at.pathwise / at.score_function - 1) <= CLOSED_FORM
        for factor, first in ((0.99, True), (1.01, False)):
            near = variance.one_step_moments("sine", scale=scale, frequency=factor * s03_flip() / scale)
            assert (near.pathwise < near.score_function) is first


@given(strategies.linear_systems(max_state=2, max_action=2), strategies.seeds(), st.integers(-8, 8))
def test_one_step_covariances_against_an_exact_grid(system: strategies.LinearSystem, seed: int, level: int) -> None:
    goal = np.random.default_rng(seed).normal(size=(2, len(system.A)))
    environment = environments.linear_quadratic(system.A, system.B, system.Q, system.R, goal=goal[0])
    policy = linear_policy(system.K, system.bias, noise=noise.gaussian(0.7))
    grid, weight = oracles.gauss_hermite_noise(4, 1, system.B.shape[1], scale=0.7)
    played = rollout(environment, policy, np.tile(goal[1:], (len(grid), 1)), grid)
    found = variance.one_step_covariances(environment, policy, goal[1], baseline=level / 4)
    samples = (
        pathwise_gradient(environment, policy, played),
        score_function_gradient(environment, policy, played, baseline=np.full((len(grid), 1), level / 4)),
    )
    for sample, covariance in zip(samples, found, strict=True):
        centred = sample - weight @ sample
        expected = (centred * weight[:, None]).T @ centred
        scale = max(1.0, float(np.max(np.abs(expected))))
        assert np.max(np.abs(covariance - expected)) <= QUADRATURE * scale
        if np.max(np.abs(expected)) > 0.01 * scale:
            assert np.max(np.abs(covariance * (1 + PLANTED_FAULT) - expected)) > QUADRATURE * scale


@given(strategies.linear_systems(max_action=2), strategies.discounts(), strategies.seeds())
def test_antithetic_pairs_keep_the_mean_and_cancel_odd_parts(
    system: strategies.LinearSystem, discount: float, seed: int
) -> None:
    environment = environments.linear_quadratic(system.A, system.B, 0 * system.Q, system.R)
    policy = linear_policy(system.K, system.bias)
    rng = np.random.default_rng(seed)
    draws = variance.antithetic_noise(policy.noise, rng.normal(size=(3, 1, system.B.shape[1])))
    start = np.tile(rng.normal(size=(3, len(system.A))), (2, 1))
    played = rollout(environment, policy, start, draws)
    found = variance.pair_means(pathwise_gradient(environment, policy, played, discount=discount))
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=1, discount=discount)
    for row in range(3):  # one step: affine in the noise, so that each pair is exact
        expected = oracles.parameter_gradient(oracle, start[row : row + 1])
        assert np.max(np.abs(found[row] - expected)) <= ALGEBRA * max(1.0, float(np.max(np.abs(expected))))


def test_antithetic_noise_of_a_shifted_symmetric_law() -> None:
    law = noise.custom(
        "shifted",
        density=lambda x: np.exp(-((x - 1) ** 2) / 2) / np.sqrt(2 * np.pi),
        score=lambda x: 1 - x,
        draw=lambda rng, shape: 1 + rng.standard_normal(shape),
        mean=1.0,
        variance=1.0,
        support=(-8.0, 10.0),
    )
    draws = np.full((1, 1, 1), 3.0)
    assert variance.antithetic_noise(law, draws).ravel().tolist() == [3.0, -1.0]
    for name in ("gaussian", "laplace", "logistic", "uniform"):
        assert len(variance.antithetic_noise(noise.NOISES[name](0.5), draws)) == 2


@given(strategies.linear_systems(max_action=2), strategies.discounts(), strategies.seeds())
def test_shared_noise_differences_are_the_pathwise_gradient(
    system: strategies.LinearSystem, discount: float, seed: int
) -> None:
    """Two linear-quadratic steps: R_1 has degree 4 in θ, so that extrapolated differences are exact."""
    environment = environments.linear_quadratic(system.A, system.B, system.Q, system.R)
    policy = linear_policy(system.K, system.bias)
    played = sample_rollout(environment, policy, np.random.default_rng(seed), batch=3, horizon=2)
    expected = pathwise_gradient(environment, policy, played, discount=discount)
    wide, narrow = (
        variance.finite_difference_gradient(environment, policy, played, discount=discount, step=h) for h in (0.5, 0.25)
    )
    scale = max(1.0, float(np.max(np.abs(expected))), float(np.max(np.abs(played.reward))))
    assert np.max(np.abs((4 * narrow - wide) / 3 - expected)) <= CLOSED_FORM * scale


def test_common_random_numbers_shrink_the_variance() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
    first = linear_policy(np.array([[0.2, -0.1]]), noise=noise.gaussian(0.5))
    second = linear_policy(np.array([[0.19, -0.1]]), noise=noise.gaussian(0.5))
    rng = np.random.default_rng(1)
    played, other = (sample_rollout(environment, first, rng, batch=4000, horizon=4) for _ in range(2))
    shared = variance.return_difference(environment, first, second, played, discount=0.9)
    weight = 0.9 ** np.arange(4)
    apart = played.reward @ weight - rollout(environment, second, other.state[:, 0], other.noise_draw).reward @ weight
    assert shared.var() < 1e-2 * apart.var()
    oracles_of = (oracles.linear_quadratic_oracle(environment, p, horizon=4, discount=0.9) for p in (first, second))
    expected = np.subtract(*(oracles.value(o, played.state)[:, 0] for o in oracles_of))
    assert_mean_close(shared - expected, 0.0, detectable=0.02)
    with_other = variance.finite_difference_gradient(environment, first, played, step=0.01, other=other)
    assert with_other.var(0).min() > 100 * variance.finite_difference_gradient(environment, first, played).var(0).max()


def test_baselines_keep_the_mean() -> None:
    """Exact for constant and value by a grid; leave-one-out over all pairs of grid rows."""
    environment = environments.random_linear_quadratic(np.random.default_rng(2), 2, 1)
    policy = linear_policy(np.array([[0.2, -0.1]]), np.array([0.3]))
    grid, weight = oracles.gauss_hermite_noise(3, 2, 1)
    played = rollout(environment, policy, np.tile([0.5, -1.0], (len(grid), 1)), grid)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=2, discount=0.9)
    truth = oracles.parameter_gradient(oracle, played.state[:1, 0])
    options = {"constant": {"constant": np.array([3.0, -2.0])}, "value": {"value": oracles.value(oracle, played.state)}}
    spread = {}
    for name in ("none", "constant", "value"):
        level = variance.baseline(name, played.reward, discount=0.9, **options.get(name, {}))
        sample = score_function_gradient(environment, policy, played, discount=0.9, baseline=level)
        assert_close(weight @ sample, truth, CLOSED_FORM)
        spread[name] = weight @ ((sample - truth) ** 2).sum(1)
    assert spread["value"] < spread["none"]
    total = np.zeros_like(truth)
    for i, j in np.ndindex(len(grid), len(grid)):
        pair = rollout(environment, policy, played.state[[i, j], 0], grid[[i, j]])
        level = variance.baseline("leave_one_out", pair.reward, discount=0.9)
        sample = score_function_gradient(environment, policy, pair, discount=0.9, baseline=level)
        total = total + weight[i] * weight[j] * sample.mean(0)
    assert_close(total, truth, CLOSED_FORM)


SYSTEM = build(Spec(strategies.RolloutShape(3, 2, 2, 1), "linear-quadratic", "linear", 1.0, 0))
REWARD = SYSTEM.rollout.reward
LAPLACE = linear_policy(np.ones((1, 2)), noise=noise.laplace(1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: unchecked(variance.one_step_moments)("cubic"),
            "unknown cost 'cubic'; choose one of linear, square, sine",
        ),
        (lambda: variance.one_step_moments("sine", scale=0.0), "scale must be a positive number, got 0.0"),
        (lambda: variance.one_step_moments("sine", scale=np.inf), "scale must be a positive number, got inf"),
        (
            lambda: unchecked(variance.baseline)("mean", REWARD),
            "unknown baseline 'mean'; choose one of none, constant, leave_one_out, value",
        ),
        (lambda: variance.baseline("constant", REWARD), "baseline 'constant' needs `constant`"),
        (
            lambda: variance.baseline("none", REWARD, value=np.zeros((3, 3))),
            "baseline 'none' does not use `value`",
        ),
        (
            lambda: variance.baseline("value", REWARD, value=np.zeros((3, 2))),
            "value has shape (3, 2), expected (3, 3)",
        ),
        (
            lambda: unchecked(variance.baseline)("constant", REWARD, constant=np.zeros(3)),
            "constant has shape (3,), expected (2,)",
        ),
        *(
            (
                lambda rows=rows: variance.pair_means(np.zeros((rows, 2))),
                f"{rows} rows are no pairs; give the gradients of all rows of antithetic_noise",
            )
            for rows in (3, 5)
        ),
        (
            lambda: variance.finite_difference_gradient(SYSTEM.environment, SYSTEM.policy, SYSTEM.rollout, step=0.0),
            "step must be positive, got 0.0",
        ),
        (
            lambda: variance.finite_difference_gradient(
                SYSTEM.environment, SYSTEM.policy, SYSTEM.rollout, other=changed_batch()
            ),
            "other has noise of shape (2, 2, 1), expected (3, 2, 1)",
        ),
        (
            lambda: variance.one_step_covariances(SYSTEM.environment, LAPLACE, np.ones(2)),
            "the closed form needs Gaussian noise, got laplace",
        ),
        (
            lambda: variance.antithetic_noise(noise.exponential(1.0), np.zeros((1, 1, 1))),
            "exponential noise is not symmetric about its mean, so it has no antithetic pairs",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def changed_batch() -> Rollout:
    return sample_rollout(SYSTEM.environment, SYSTEM.policy, np.random.default_rng(0), batch=2, horizon=2)


def test_by_default_a_unit_gaussian_without_discount() -> None:
    for cost in COSTS:
        plain = variance.one_step_moments(cost, mean=0.0, scale=1.0, frequency=1.0, baseline=0.0)
        assert variance.one_step_moments(cost) == plain
    played, shifted = SYSTEM.rollout, replace(SYSTEM.policy, theta=SYSTEM.policy.theta + 0.1)
    moved = rollout(SYSTEM.environment, shifted, played.state[:, 0], played.noise_draw)
    found = variance.return_difference(SYSTEM.environment, SYSTEM.policy, shifted, played)
    assert_close(found, (played.reward - moved.reward).sum(1), ALGEBRA)
    found = variance.return_difference(SYSTEM.environment, SYSTEM.policy, shifted, played, discount=0.3)
    assert_close(found, (played.reward - moved.reward) @ [1.0, 0.3], ALGEBRA)
    found = variance.finite_difference_gradient(SYSTEM.environment, SYSTEM.policy, played)
    assert_close(found, pathwise_gradient(SYSTEM.environment, SYSTEM.policy, played), 1e-6)


def test_pairs_and_other_rows_by_hand() -> None:
    assert variance.pair_means(np.array([[1.0], [2.0], [3.0], [6.0]])).tolist() == [[2.0], [4.0]]
    reward = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert variance.baseline("leave_one_out", reward).tolist() == [[8.0, 5.0], [3.0, 2.0]]
    assert variance.baseline("leave_one_out", reward, discount=0.5).tolist() == [[5.5, 5.0], [2.0, 2.0]]


def lopsided(
    *,
    centre: float = 0.0,
    scale: float = 1.0,
    low: float = -1.0,
    high: float = 1.0,
    fault: Callable[[ndarray], ndarray],
) -> noise.Noise:
    """A law whose density is flat but for the relative ``fault`` in units of ``scale`` about ``centre``."""

    def density(x: ndarray) -> ndarray:
        u = (x - centre) / scale
        return np.where((u >= low) & (u <= high), 0.5 * (1 + fault(u)) / scale, 0.0)

    return noise.custom(
        "lopsided",
        density=density,
        score=np.zeros_like,
        draw=lambda rng, shape: np.zeros(shape),
        mean=centre,
        variance=1.0,
        support=(centre + low * scale, centre + high * scale),
    )


@pytest.mark.parametrize("fault", [PLANTED_FAULT, 5e-6])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize(
    ("place", "ends"),
    [
        ((0.1, 0.3), {}),
        ((0.1, 0.3), {"centre": 50.0}),
        ((0.1, 0.3), {"centre": -50.0}),
        ((0.8, 0.9), {}),
        ((1.5, 2.5), {"low": -3.0, "high": 1.0}),
        ((1.5, 2.5), {"low": -1.0, "high": 3.0}),
    ],
)
def test_a_density_off_symmetry_anywhere_has_no_pairs(
    place: tuple[float, float], ends: dict[str, float], scale: float, fault: float
) -> None:
    sign = -1.0 if ends.get("low") == -3.0 else 1.0
    inside = lambda u: fault * ((sign * u >= place[0]) & (sign * u <= place[1]))  # noqa: E731
    ends = {name: x * (scale if name == "centre" else 1.0) for name, x in ends.items()}
    with pytest.raises(
        ValueError, match=whole("lopsided noise is not symmetric about its mean, so it has no antithetic pairs")
    ):
        variance.antithetic_noise(lopsided(scale=scale, fault=inside, **ends), np.zeros((1, 1, 1)))
    if "low" not in ends:
        even = lopsided(scale=scale, fault=lambda u: inside(np.abs(u)), **ends)
        assert variance.antithetic_noise(even, np.ones((1, 1, 1))).shape == (2, 1, 1)
