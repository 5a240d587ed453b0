"""Peak memory of rollout and costates, in arrays (B,T1,S) of float64 beyond the inputs; both results count.

It is counted as users meet it, in a process of its own: the type checker under pytest and what earlier tests left
behind would count too. The garbage collector is off there, so that arrays kept by a cycle of ours are seen for certain.
"""

import functools
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        played = rollout(environment, policy, start, noise)
        found = costate(environment, policy, played, discount=0.99)
        return float(tracemalloc.get_traced_memory()[1] - before) / found.nbytes
    finally:
        tracemalloc.stop()
        gc.enable()


def hoarding() -> Environment:
    """Keeps one array more for each state than it needs."""
    known, hoard = ENVIRONMENTS["linear-quadratic"](), []
    return Environment(
        8, 4, known.initial, lambda s, a: hoard.append(np.tile(s, 2)) or known.transition(s, a),
        known.reward, known.jacobians,
    )  # fmt: skip


POLICIES = {"linear": linear, "tanh": tanh}
CASES = {f"{name}, {policy}": (name, policy) for name in ENVIRONMENTS for policy in POLICIES}


def count() -> dict[str, float]:
    """The peak of every case."""
    found = {}
    for case, (name, policy) in CASES.items():
        environment = ENVIRONMENTS[name]()
        found[case] = peak(environment, POLICIES[policy](environment.state_size, environment.action_size))
    return found | {"hoarding": peak(hoarding(), linear(8, 4))}


@functools.cache
def counted() -> dict[str, float]:
    """``count`` in a fresh process without type checks."""
    command = [
        sys.executable,
        "-c",
        "import json; from tests.continuous.test_memory import count; print(json.dumps(count()))",
    ]
    root = Path(__file__).parents[2]
    return dict(json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout))


@pytest.mark.parametrize("case", CASES)
def test_at_most_four_arrays(case: str) -> None:
    assert counted()[case] <= MOST


def test_what_is_counted() -> None:
    """State and costates alone are two arrays; a function that hoards one array more for each state is seen."""
    assert counted()["linear-quadratic, linear"] >= 2.5
    assert counted()["hoarding"] > MOST
