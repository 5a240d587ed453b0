"""Evidence that eq. 7 and its missing terms add up to ∂R_1/∂θ in an environment that shares θ with the policy (S05)."""

import numpy as np
from numpy import ndarray

from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.estimators import pathwise_terms
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.continuous.policies import ShiftPolicy, linear_policy, tanh_policy
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.continuous.systems import shared_point_mass
from vgrad_lab.ledger.types import Evidence
from vgrad_lab.tolerances import ALGEBRA


def draw_shared(rng: np.random.Generator) -> tuple[Environment, ShiftPolicy]:
    """A point mass whose gain, price and start depend on the θ of a random linear or tanh policy."""
    if rng.integers(2):
        policy = linear_policy(0.5 * rng.standard_normal((1, 2)), rng.standard_normal(1), noise=gaussian(0.5))
    else:
        width = int(rng.integers(1, 5))
        weights = rng.standard_normal((width, 2)), rng.standard_normal(width), rng.standard_normal((1, width))
        policy = tanh_policy(*weights, noise=gaussian(0.5))
    count = len(policy.theta)
    gain, price, start = (rng.standard_normal(shape) / count for shape in (count, count, (2, count)))
    return shared_point_mass(policy.theta, gain=gain, price=price, start=start), policy


def frozen_return(environment: Environment, policy: ShiftPolicy, seed: int, noise: ndarray, discount: float) -> ndarray:
    """∂R_1/∂θ (B,P) by complex steps: environment, start and policy made anew from each θ, all noise the same."""
    assert environment.parameters is not None
    columns, tiny = [], 1e-30
    for unit in np.eye(len(policy.theta)):
        theta = policy.theta + 1j * tiny * unit
        moved = environment.parameters.at(theta)
        now = moved.initial(np.random.default_rng(seed), len(noise))
        total = np.zeros(len(noise), complex)
        for t in range(noise.shape[1]):
            action = policy.mean_action(theta, now) + noise[:, t]
            total = total + discount**t * moved.reward(now, action)
            now = moved.transition(now, action)
        columns.append(total.imag / tiny)
    return np.stack(columns, axis=1)


def s05_terms(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The four terms against ∂R_1/∂θ by complex steps through start, dynamics, reward and policy at once."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy = draw_shared(rng)
        horizon, start_seed, discount = int(rng.integers(1, 17)), int(rng.integers(2**31)), float(rng.uniform())
        noise = policy.noise.draw(rng, (3, horizon, 1))
        start = environment.initial(np.random.default_rng(start_seed), 3)
        found = pathwise_terms(environment, policy, rollout(environment, policy, start, noise), discount=discount)
        expected = frozen_return(environment, policy, start_seed, noise, discount)
        worst = max(worst, float(np.max(np.abs(found.total - expected)) / np.max(np.abs(expected))))
    return Evidence(worst, ALGEBRA, f"relative error of the sum of all terms over {examples} shared point masses")
