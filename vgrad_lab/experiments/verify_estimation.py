"""Evidence and counterexamples for value-gradient learning, hybrid estimators and variances (E01–E04); NumPy only."""

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous import oracles
from vgrad_lab.continuous.environments import Environment, linear_quadratic, random_linear_quadratic
from vgrad_lab.continuous.estimators import pathwise_gradient, score_function_gradient
from vgrad_lab.continuous.gradient_critic import (
    affine_features,
    blended_costate,
    constant_features,
    expected_gradient,
    learn_gradient_critic,
    population_critic,
    predict,
)
from vgrad_lab.continuous.hybrid import Form, hybrid_gradient
from vgrad_lab.continuous.noise import gaussian, uniform
from vgrad_lab.continuous.policies import ShiftPolicy, linear_policy
from vgrad_lab.continuous.rollout import Rollout, rollout
from vgrad_lab.continuous.variance import one_step_covariances, one_step_moments
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import CLOSED_FORM, QUADRATURE

_WORST_CONDITION = 100.0
_SCALE = 0.5


def _relative(found: ndarray, expected: ndarray) -> float:
    return float(np.max(np.abs(found - expected)) / max(1e-300, float(np.max(np.abs(expected)))))


def _population(
    rng: np.random.Generator, *, order: int = 3, horizon: int = 4
) -> tuple[Environment, ShiftPolicy, Rollout, ndarray]:
    """A linear-quadratic system from four starts along every noise sequence of a grid, and the rollouts' weights.

    Drawn again while its states lie close to a plane at some step: regressions there lose the digits that are checked.
    """
    while True:
        size = int(rng.integers(1, 4))
        environment = random_linear_quadratic(rng, size, 1)
        policy = linear_policy(0.3 * rng.standard_normal((1, size)), rng.standard_normal(1), noise=gaussian(_SCALE))
        noise, weight = oracles.gauss_hermite_noise(order, horizon, 1, scale=_SCALE)
        start = environment.initial(rng, 4)
        played = rollout(environment, policy, np.repeat(start, len(noise), 0), np.tile(noise, (4, 1, 1)))
        design = np.concatenate([played.state, np.ones((*played.state.shape[:2], 1))], axis=2)
        if np.linalg.cond(design.transpose(1, 0, 2)).max() < _WORST_CONDITION:
            return environment, policy, played, np.tile(weight / 4, 4)


def e01_exact_critic(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[g'_1] of an antithetic pair with the oracle as critic against ∂V_1/∂s, any λ; affine features learn it."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy, played, weight = _population(rng)
        discount, decay = float(rng.uniform()), float(rng.uniform())
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=4, discount=discount)
        exact = oracles.value_gradient(oracle, played.state)
        rows = np.array([0, 3**4 - 1])  # the grid's first and last sequences are mirror images
        pair = rollout(environment, policy, played.state[rows, 0], played.noise_draw[rows])
        critic = oracles.value_gradient(oracle, pair.state)
        target, _ = blended_costate(environment, policy, pair, critic, discount=discount, decay=decay)
        worst = max(worst, _relative(target[:, 0].mean(0), critic[0, 0]))
        learnt = learn_gradient_critic(environment, policy, played, discount=discount, decay=decay, weight=weight)
        worst = max(worst, _relative(predict(learnt, played.state), exact))
    return Evidence(worst, CLOSED_FORM, f"relative error of E g'_1 and of the learnt critic over {examples} systems")


def e01_poor_critic() -> Counterexample:
    """λ = ½ with the critic that knows no state: first component of the mean target at s_1 against ∂V_1/∂s."""
    environment = linear_quadratic(np.array([[0.9]]), np.array([[1.0]]), np.eye(1), np.eye(1) / 10)
    policy = linear_policy(np.array([[-0.2]]), noise=gaussian(_SCALE))
    noise, weight = oracles.gauss_hermite_noise(3, 4, 1, scale=_SCALE)
    played = rollout(environment, policy, np.ones((len(noise), 1)), noise)
    zero = np.zeros(played.state.shape)
    target, _ = blended_costate(environment, policy, played, zero, decay=0.5)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=4)
    true = oracles.value_gradient(oracle, played.state)[0, 0, 0]
    return Counterexample(float(weight @ target[:, 0, 0]), float(true), 0.1, "E g'_1 with g_w = 0, λ = ½, against G_1")


def e02_hybrids(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Means of the mixtures of both forms, with costate and with exact critic, against ∂J/∂θ in closed form."""
    rng, worst = np.random.default_rng(seed), 0.0
    forms: tuple[tuple[Form, Form, bool], ...] = (
        ("score", "pathwise", False),
        ("score", "pathwise", True),
        ("pathwise", "score", False),
        ("pathwise", "pathwise", True),
    )
    for _ in range(examples):
        environment, policy, played, weight = _population(rng, horizon=3)
        discount = float(rng.uniform())
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3, discount=discount)
        expected = oracles.parameter_gradient(oracle, played.state[:, 0])
        exact = oracles.value_gradient(oracle, played.state)
        for immediate, future, critic in forms:
            found = hybrid_gradient(
                environment, policy, played, immediate=immediate, future=future, discount=discount,
                value_gradient=exact if critic else None,
            )  # fmt: skip
            worst = max(worst, _relative(weight @ found, expected))
    return Evidence(worst, CLOSED_FORM, f"relative error of the mean of 4 mixtures over {examples} systems")


def e02_uniform() -> Counterexample:
    """ξ ~ U(−1, 1), T = 1, r = −a² at ā = 0.4: the score of r_1 is 0, ∂J/∂b = −0.8."""
    environment = linear_quadratic(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.eye(1))
    policy = linear_policy(np.zeros((1, 1)), np.array([0.4]), noise=uniform(1.0))
    x, weight = policy.noise.quadrature(())
    played = rollout(environment, policy, np.zeros((len(x), 1)), x[:, None, None])
    claimed = weight @ hybrid_gradient(environment, policy, played)[:, 1]
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=1)
    true = oracles.parameter_gradient(oracle, played.state[:1, 0])[1]
    return Counterexample(float(claimed), float(true), 0.5, "score form of r_1 under uniform noise against ∂J/∂b")


def e03_variances(*, seed: int = 0, examples: int = 20) -> Evidence:
    """One-step variances in closed form against quadrature: a, a², sin ωa, and the linear-quadratic step."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        theta, scale, w = float(rng.normal()), float(2 ** rng.uniform(-1, 1)), float(rng.uniform(0.2, 3))
        x, weight = gaussian(scale).quadrature(())
        a = theta + x
        cases = ((a, np.ones_like(a)), (a**2, 2 * a), (np.sin(w * a), w * np.cos(w * a)))
        for cost, (value, slope) in zip(("linear", "square", "sine"), cases, strict=True):
            closed = one_step_moments(cost, mean=theta, scale=scale, frequency=w)  # type: ignore[arg-type]
            for sample, variance in ((slope, closed.pathwise), (value * x / scale**2, closed.score_function)):
                found = weight @ (sample - weight @ sample) ** 2
                worst = max(worst, abs(found - variance) / max(1.0, variance))
        environment = random_linear_quadratic(rng, 2, 2)
        policy = linear_policy(0.3 * rng.standard_normal((2, 2)), rng.standard_normal(2), noise=gaussian(scale))
        grid, share = oracles.gauss_hermite_noise(4, 1, 2, scale=scale)
        start = environment.initial(rng, 1)
        played = rollout(environment, policy, np.tile(start, (len(grid), 1)), grid)
        both = one_step_covariances(environment, policy, start[0])
        for form, covariance in zip((pathwise_gradient, score_function_gradient), both, strict=True):
            centred = form(environment, policy, played)
            centred = centred - share @ centred
            worst = max(worst, _relative((centred * share[:, None]).T @ centred, covariance))
    return Evidence(float(worst), QUADRATURE, f"relative error of the variances over {examples} draws")


def e04_bias(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean gradient through VGL(λ) with learnt critics, enumerated, against its closed form; right or poor features."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy, played, weight = _population(rng)
        discount, decay = float(rng.uniform(0.5, 1)), float(rng.uniform())
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=4, discount=discount)
        unit = np.eye(environment.state_size + 1)
        for features, selection in ((affine_features, unit), (constant_features, unit[-1:])):
            critic = learn_gradient_critic(
                environment, policy, played, features=features, discount=discount, decay=decay, weight=weight
            )
            _, blend = blended_costate(
                environment, policy, played, predict(critic, played.state), discount=discount, decay=decay
            )
            found = weight @ hybrid_gradient(
                environment, policy, played, immediate="pathwise", discount=discount, value_gradient=blend
            )
            _, affine = population_critic(oracle, played.state[:, 0], selection, decay=decay)
            worst = max(worst, _relative(found, expected_gradient(oracle, played.state[:, 0], affine)))
    return Evidence(worst, CLOSED_FORM, f"relative error of the mean gradient over {examples} systems, two critics")
