"""E04: the bias of a learnt value gradient, exactly."""

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.continuous import oracles
from vgrad_lab.continuous.environments import linear_quadratic
from vgrad_lab.continuous.gradient_critic import expected_gradient, population_critic
from vgrad_lab.continuous.policies import linear_policy
from vgrad_lab.experiments import verify_estimation as checks
from vgrad_lab.tolerances import CLOSED_FORM


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.e04_bias(seed=seed, examples=1).passed


def test_bias_falls_with_decay() -> None:
    environment = linear_quadratic(np.array([[0.95]]), np.array([[0.5]]), np.eye(1), np.eye(1) / 10)
    policy = linear_policy(np.array([[-0.3]]))
    start = np.array([[1.0], [2.0], [-1.0]])
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=8, discount=0.95)
    truth = oracles.parameter_gradient(oracle, start)

    def bias(selection: np.ndarray, decay: float) -> float:
        _, blend = population_critic(oracle, start, selection, decay=decay)
        return float(np.max(np.abs(expected_gradient(oracle, start, blend) - truth)) / np.max(np.abs(truth)))

    poor = [bias(np.array([[0.0, 1.0]]), decay) for decay in (0.0, 0.5, 0.9, 1.0)]
    assert poor[0] > poor[1] > poor[2] > 0.01
    assert poor[3] <= CLOSED_FORM
    assert max(bias(np.eye(2), decay) for decay in (0.0, 0.5, 0.9)) <= CLOSED_FORM
