"""Policies: the score function against a complex step, means, defaults, refusals in full."""

import numpy as np
import pytest

from tests.helpers import unchecked, whole
from vgrad_lab.continuous import policies
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

RNG = np.random.default_rng(0)
STATE, ACTION = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))
POLICIES = {
    "linear": policies.linear_policy(RNG.normal(size=(2, 3)), RNG.normal(size=2), noise=gaussian(0.7)),
    "tanh": policies.tanh_policy(RNG.normal(size=(4, 3)), RNG.normal(size=4), RNG.normal(size=(2, 4))),
}


def slopes_of_log_likelihood(policy: ShiftPolicy) -> np.ndarray:
    """∂ log π_θ(a|s)/∂θ of each row by complex steps of the Gaussian's exponent."""
    step, columns = 1e-30, []
    for direction in np.eye(len(policy.theta)):
        mean = unchecked(policy.mean_action)(policy.theta + 1j * step * direction, STATE)
        exponent = -0.5 * ((ACTION - mean) ** 2).sum(1) / policy.noise.variance
        columns.append(exponent.imag / step)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", POLICIES)
def test_score_function_is_the_slope_of_the_log_likelihood(name: str) -> None:
    found, expected = policies.score_function(POLICIES[name], STATE, ACTION), slopes_of_log_likelihood(POLICIES[name])
    scale = np.abs(expected).max()
    assert found.shape == (5, len(POLICIES[name].theta))
    assert np.abs(found - expected).max() <= 10 * ALGEBRA * scale
    assert np.abs((1 + PLANTED_FAULT) * found - expected).max() > 10 * ALGEBRA * scale


def test_by_default_no_bias_and_unit_noise() -> None:
    policy = policies.linear_policy(np.array([[1.0, 2.0]]))
    assert policy.theta.tolist() == [1.0, 2.0, 0.0]
    assert policy.mean_action(policy.theta, np.array([[3.0, 4.0]])).tolist() == [[11.0]]
    for made in (policy, POLICIES["tanh"]):
        assert (made.noise.name, made.noise.mean, made.noise.variance) == ("gaussian", 0.0, 1.0)
    assert POLICIES["linear"].noise.variance == pytest.approx(0.49, rel=ALGEBRA)


@pytest.mark.parametrize(
    ("weights", "shapes"),
    [
        (((4, 3), (4,), (2, 3)), "state_weight (4, 3), bias (4,) and output_weight (2, 3)"),
        (((5, 3), (4,), (2, 4)), "state_weight (5, 3), bias (4,) and output_weight (2, 4)"),
    ],
)
def test_weights_that_do_not_fit(weights: tuple[tuple[int, ...], ...], shapes: str) -> None:
    with pytest.raises(
        ValueError, match=whole(f"{shapes} do not fit; expected (hidden, S), (hidden,) and (A, hidden)")
    ):
        unchecked(policies.tanh_policy)(*map(np.ones, weights))


@pytest.mark.parametrize("shape", [(3,), (1, 2), ()])
def test_a_bias_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=whole(f"K has shape (2, 3) and bias {shape}; expected (A, S) and (A,)")):
        unchecked(policies.linear_policy)(np.ones((2, 3)), np.zeros(shape))
    with pytest.raises(ValueError, match=whole("K has shape (2,) and bias (2,); expected (A, S) and (A,)")):
        unchecked(policies.linear_policy)(np.ones(2))


@pytest.mark.parametrize("name", ["state_weight", "bias", "output_weight"])
def test_each_weight_of_a_tanh_policy_must_be_finite(name: str) -> None:
    weights = {"state_weight": np.ones((3, 2)), "bias": np.ones(3), "output_weight": np.ones((1, 3))}
    weights[name] = weights[name] * np.nan
    with pytest.raises(ValueError, match=name):
        policies.tanh_policy(**weights)
