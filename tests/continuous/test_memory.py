"""Peak memory of rollout and costates, in arrays (B,T1,S) of float64 beyond the inputs; both results count."""

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers import unchecked
from vgrad_lab.continuous import environments, policies, systems
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import rollout

RNG = np.random.default_rng
MOST = 4
ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "linear-quadratic": lambda: environments.random_linear_quadratic(RNG(0), 8, 4),
    "tanh network": lambda: environments.random_tanh_network(RNG(0), 8, 4),
    "wide tanh network": lambda: environments.random_tanh_network(RNG(0), 8, 4, width=40),
    "bandit": lambda: systems.bandit(0.1 * np.ones((2, 4))),
    "pendulum": systems.pendulum,
    "obstacle": systems.obstacle,
    "shared point mass": lambda: systems.shared_point_mass(np.zeros(3)),
}


def linear(size: int, action_size: int) -> ShiftPolicy:
    return policies.linear_policy(0.1 * np.ones((action_size, size)))


def tanh(size: int, action_size: int) -> ShiftPolicy:
    return policies.tanh_policy(0.1 * np.ones((16, size)), np.zeros(16), 0.1 * np.ones((action_size, 16)))


def peak(environment: Environment, policy: ShiftPolicy, *, batch: int = 1024, horizon: int = 64) -> float:
    start = environment.initial(RNG(0), batch)
    noise = RNG(1).standard_normal((horizon, environment.action_size, batch)).transpose(2, 0, 1)
    play, adjoin = unchecked(rollout), unchecked(costate)
    adjoin(environment, policy, play(environment, policy, start[:2], noise[:2]))  # so that caches are filled before
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        played = play(environment, policy, start, noise)
        found = adjoin(environment, policy, played, discount=0.99)
        return float(tracemalloc.get_traced_memory()[1] - before) / found.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("make", [linear, tanh])
def test_at_most_four_arrays(name: str, make: Callable[[int, int], ShiftPolicy]) -> None:
    environment = ENVIRONMENTS[name]()
    policy = make(environment.state_size, environment.action_size)
    assert min(peak(environment, policy) for _ in range(3)) <= MOST  # the type checker under pytest may hold an array


def test_what_is_counted() -> None:
    """State and costates alone are two arrays; a function that hoards one array more for each state is seen."""
    environment = ENVIRONMENTS["linear-quadratic"]()
    found = peak(environment, linear(8, 4))
    assert found >= 2.5
    hoard: list[np.ndarray] = []
    plain = environments.Environment(
        8, 4, environment.initial, lambda s, a: hoard.append(np.tile(s, 2)) or environment.transition(s, a),
        environment.reward, environment.jacobians,
    )  # fmt: skip
    assert peak(plain, linear(8, 4)) > MOST
