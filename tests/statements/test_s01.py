"""S01: when differentiation and expectation commute."""

import numpy as np
import pytest
from hypothesis import given, settings

from vgrad_lab import strategies
from vgrad_lab.continuous import environments, oracles, policies
from vgrad_lab.continuous.estimators import pathwise_gradient
from vgrad_lab.continuous.rollout import Rollout, rollout
from vgrad_lab.experiments import verify_continuous_one_step as checks
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT


@given(strategies.seeds())
def test_interchange_holds(seed: int) -> None:
    assert checks.s01_interchange(seed=seed, examples=2).passed


def test_counterexample() -> None:
    found = checks.s01_gelbaum_olmsted()
    assert found.refutes
    assert abs(found.claimed) < 1e-3
    assert abs(found.true - 1) < 1e-6


def test_without_a_fixed_noise_law_it_fails() -> None:
    """ξ ~ N(θ, 1) and a = ξ: no path moves with θ, while J = −E a² does; the law of the noise may not know θ."""
    environment = environments.linear_quadratic(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))
    grid, weight = oracles.gauss_hermite_noise(3, 1, 1)
    zero = policies.linear_policy(np.zeros((1, 1)))

    def mean_reward(theta: float) -> float:
        return float(weight @ rollout(environment, zero, np.zeros((3, 1)), grid + theta).reward[:, 0])

    truth = (mean_reward(0.4 + 1e-3) - mean_reward(0.4 - 1e-3)) / 2e-3
    moved_by_path = 0.0  # ∂a/∂θ at fixed ξ, as nothing but the noise's law holds θ
    assert abs(truth + 0.8) < 1e-9
    assert abs(moved_by_path - truth) > 0.5
    # With the same shift in the mean action instead, both agree.
    policy = policies.linear_policy(np.zeros((1, 1)), np.array([0.4]))
    found = weight @ pathwise_gradient(environment, policy, rollout(environment, policy, np.zeros((3, 1)), grid))
    assert abs(found[1] - truth) < 1e-9


def test_planted_fault_is_seen() -> None:
    environment = environments.random_linear_quadratic(np.random.default_rng(0), 2, 1)
    policy = policies.linear_policy(np.array([[0.2, 0.1]]))
    grid, weight = oracles.gauss_hermite_noise(3, 3, 1)
    played = rollout(environment, policy, np.ones((len(grid), 2)), grid)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3)
    expected = oracles.parameter_gradient(oracle, np.ones((1, 2)))
    found = weight @ pathwise_gradient(environment, policy, played)
    scale = np.max(np.abs(expected))
    assert np.max(np.abs(found - expected)) <= CLOSED_FORM * scale
    assert np.max(np.abs(found * (1 + PLANTED_FAULT) - expected)) > CLOSED_FORM * scale


def two_steps(root: np.ndarray) -> tuple[Rollout, np.ndarray, policies.ShiftPolicy, np.ndarray]:
    """s' = 0.8s + a from s_1 = 1, two steps, noise root·z with z ~ N(0, I): rollouts, weights, policy and ∂J/∂θ."""
    system = np.full((1, 1), 0.8), np.ones((1, 1)), np.ones((1, 1)), np.full((1, 1), 0.1)
    environment = environments.linear_quadratic(*system)
    policy = policies.linear_policy(np.array([[-0.4]]), np.array([0.2]))
    grid, weight = oracles.gauss_hermite_noise(6, 2, 1)
    played = rollout(environment, policy, np.ones((len(grid), 1)), np.einsum("ij,bja->bia", root, grid))
    mean, second = np.array([1.0, 1.0, 0.0, 0.0]), np.zeros((4, 4))
    second[2:, 2:] = root @ root.T
    second += np.outer(mean, mean)
    steps = [policy.theta + 1j * 1e-30 * unit for unit in np.eye(2)]
    truth = np.array([checks.joint_value(system, second, theta, 0.9).imag / 1e-30 for theta in steps])
    found = weight @ pathwise_gradient(environment, policy, played, discount=0.9)
    assert np.max(np.abs(found - truth)) <= CLOSED_FORM  # the interchange holds on every rung
    assert np.max(np.abs(found * (1 + PLANTED_FAULT) - truth)) > CLOSED_FORM
    return played, weight, policy, truth


def score_form(score: np.ndarray, played: Rollout, weight: np.ndarray) -> np.ndarray:
    """E Σ_t R_1 · score_t · ∂ā/∂θ for θ = (K, b) and one action; score_t (B,T)."""
    returns = played.reward @ 0.9 ** np.arange(2)
    features = np.stack([played.state[:, :-1, 0], np.ones(score.shape)], axis=2)
    return np.asarray(np.einsum("b,b,bt,btp->p", weight, returns, score, features))


def test_noise_of_another_law_at_each_step_is_fine() -> None:
    """Independent, not identical: the score form with each step's own score is right as well."""
    played, weight, _, truth = two_steps(np.diag([0.5, 1.5]))
    score = played.noise_draw[..., 0] / np.array([0.5, 1.5]) ** 2
    assert np.max(np.abs(score_form(score, played, weight) - truth)) <= CLOSED_FORM


def test_dependent_noise_keeps_the_interchange_and_breaks_the_step_scores() -> None:
    """Correlation ½ between the steps: the scores of the single steps mislead, the score of the joint law does not."""
    root = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    played, weight, _, truth = two_steps(root)
    noise = played.noise_draw[..., 0]
    claimed = score_form(noise, played, weight)  # each ξ_t is N(0, 1) by itself
    assert np.max(np.abs(claimed - truth)) > 0.1
    joint = noise @ np.linalg.inv(root @ root.T)
    assert np.max(np.abs(score_form(joint, played, weight) - truth)) <= CLOSED_FORM


def test_noise_that_knows_the_start() -> None:
    """ξ_1 = s_1 ~ N(0, 1), T = 1, r = sa: ∂J/∂K = E ∂R/∂K = 1, but λ_1 = (2K + 1)s_1 and V_1' = 2(K + 1)s_1."""
    gain, (start, weight) = 0.3, np.polynomial.hermite_e.hermegauss(6)
    weight = weight / weight.sum()
    assert abs(weight @ start**2 - 1) <= CLOSED_FORM  # ∂R/∂K = s², and J = E s(Ks + s) = K + 1
    costate, slope = (2 * gain + 1) * start, 2 * (gain + 1) * start
    assert np.max(np.abs(costate - slope)) > 0.5


@settings(max_examples=20)
@given(strategies.seeds())
def test_any_joint_law_of_start_and_noise(seed: int) -> None:
    assert checks.s01_dependent(seed=seed, examples=2).passed


def test_a_joint_law_that_knows_theta_breaks_it() -> None:
    """ξ = z + θ with a = ξ + b: shifting the law with b counts twice in the truth, once along the paths."""
    system = (np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))

    def value(bias: complex, shift: complex) -> complex:
        mean = np.array([1.0, 0.0, shift])
        return checks.joint_value(system, np.outer(mean, mean) + np.diag([0.0, 0, 1]), np.array([0.0, bias]), 1.0)

    moved = value(0.4 + 1e-30j, 0.4 + 1e-30j).imag / 1e-30
    fixed = value(0.4 + 1e-30j, 0.4).imag / 1e-30
    assert moved == pytest.approx(2 * fixed)
    assert abs(fixed + 1.6) <= CLOSED_FORM
