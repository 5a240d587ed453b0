"""The strategies of this floor: what they reach, that they shrink, and the documented example of a reader's own."""

import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.helpers import unchecked, whole
from vgrad_lab import verify
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import environments, policies, strategies
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.noise import NOISES
from vgrad_lab.continuous.noise_law import Noise
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.strategies import CONTINUOUS_NOISES
from vgrad_lab.tolerances import QUADRATURE

SEARCH = settings(max_examples=300, database=None, deadline=None, derandomize=True)


def smallest(strategy: SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    return find(strategy, condition, settings=settings(SEARCH, phases=tuple(Phase)))


def some(strategy: SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    return find(strategy, condition, settings=settings(SEARCH, phases=[Phase.generate], max_examples=5000))


@given(strategies.noises())
def test_noises(noise: Noise) -> None:
    nodes, weights = noise.quadrature(())
    assert abs(weights.sum() - 1) <= QUADRATURE
    assert abs(weights @ nodes - noise.mean) <= 1e-6 * max(1, noise.variance)
    assert np.isfinite(noise.variance)


def test_every_noise_is_reached() -> None:
    for name in NOISES:
        assert some(strategies.noises(), lambda n, name=name: n.name == name).name == name


def test_noises_by_name() -> None:
    for name in CONTINUOUS_NOISES:
        assert not some(strategies.noises((name,)), lambda n: True).jumps


@settings(max_examples=15)
@given(strategies.environments(), st.integers(0, 99))
def test_environments_are_right_and_small(environment: environments.Environment, seed: int) -> None:
    assert environment.state_size <= 8
    assert environment.action_size <= 3
    assert max(verify.check_environment(environment, seed=seed, batch=2).values()) < 1e-6


@settings(max_examples=40)
@given(strategies.environments(max_state=3).flatmap(strategies.policies))
def test_policies_are_right(policy: policies.ShiftPolicy) -> None:
    noise = policy.noise
    if noise.name in ("gaussian", "laplace", "logistic"):  # the others are checked where they are made
        size = 2 if policy.mean_map is None else policy.mean_map(policy.theta).inner.shape[1]
        assert max(verify.check_policy(policy, np.linspace(-1, 1, 2 * size).reshape(2, size)).values()) < 1e-6


KINDS: dict[str, Callable[[strategies.System], bool]] = {
    "S > 6": lambda s: s.environment.state_size > 6,
    "A = 3": lambda s: s.environment.action_size == 3,
    "T > 12": lambda s: s.rollout.reward.shape[1] > 12,
    "tanh policy": lambda s: s.policy.mean_map(s.policy.theta).outer is not None,
    "network": lambda s: s.environment.dynamics is not None and s.environment.dynamics.outer is not None,
    "pendulum": lambda s: s.environment.state_size == 3 and s.environment.dynamics is None,
    "obstacle": lambda s: (
        s.environment.state_size == 4 and s.environment.payoff is None and not s.environment.parameters
    ),
    "shared": lambda s: s.environment.parameters is not None,
    "heavy tail": lambda s: s.policy.noise.name == "student_t",
    "uniform": lambda s: s.policy.noise.name == "uniform",
}


def check_system(system: strategies.System) -> None:
    environment, policy, played = system
    batch, horizon = played.reward.shape
    assert batch <= 4
    assert horizon <= 16
    assert played.state.shape == (batch, horizon + 1, environment.state_size)
    assert played.action.shape == (batch, horizon, environment.action_size)
    assert np.all(np.isfinite(played.state))
    again = rollout(environment, policy, played.state[:, 0], played.noise_draw)
    assert np.array_equal(again.reward, played.reward)
    for array in (policy.theta, played.state, played.action, played.noise_draw):
        assert np.all(np.abs(array[array != 0]) >= np.finfo(float).tiny), "a subnormal number"
    if environment.parameters is not None:
        assert np.array_equal(environment.parameters.theta, policy.theta)


def test_rollouts_fit_and_reach_every_kind() -> None:
    seen = set()

    @settings(max_examples=120, derandomize=True, database=None, phases=[Phase.generate])
    @given(strategies.rollouts())
    def look(system: strategies.System) -> None:
        check_system(system)
        seen.update(kind for kind, fits in KINDS.items() if fits(system))

    look()
    assert seen == set(KINDS)


def test_rollouts_shrink() -> None:
    linear, calm = strategies.environments(("linear_quadratic",), max_action=1), strategies.noises(("gaussian",))
    found = smallest(strategies.rollouts(linear, noise=calm), lambda s: s.rollout.state[:, 3:, 1:].size > 0)
    assert found.rollout.state.shape == (1, 4, 2)
    assert not found.policy.theta.any()
    assert not found.environment.dynamics.inner.any()


def documented_example() -> tuple[str, str]:
    """The code of the module docstring: its environment, and its test."""
    code = textwrap.dedent(re.search(r"::\n\n(.*?)\n\n\S", strategies.__doc__, re.DOTALL).group(1))
    setup, test = code.split("\n\n", 1)
    return setup, test


def run_example(setup: str) -> None:
    names: dict[str, Any] = {
        "np": np, "st": st, "given": given, "verify": verify, "strategies": strategies, "costate": costate,
        "rollout": rollout, "return_to_go": return_to_go, "Map": Map, "Payoff": Payoff,
        "from_arrays": environments.from_arrays,
    }  # fmt: skip
    exec(setup, names)
    exec(documented_example()[1], names)
    settings(max_examples=20, database=None, phases=[Phase.generate])(names["test_spring"])()


def test_documented_example_has_ten_lines_and_runs() -> None:
    setup, test = documented_example()
    assert len(test.splitlines()) <= 10
    run_example(setup)


def test_documented_example_finds_a_planted_fault() -> None:
    setup, _ = documented_example()
    wrong = (
        "\nfrom dataclasses import replace\nright = spring.jacobians.transition_state\n"
        "spring = replace(spring, dynamics=None, payoff=None, jacobians=replace(spring.jacobians, "
        "transition_state=lambda s, a: right(s, a) * 1.001))"
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_example(setup + wrong)


def choose(allowed: Iterable[str]) -> str:
    return f"choose names from {', '.join(allowed)}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: strategies.noises(("cauchy", "gaussian", "levy")),
            f"no noise cauchy, levy; {choose(NOISES)}",
        ),
        (lambda: strategies.environments(()), f"no environment at all; {choose(strategies.ENVIRONMENTS)}"),
        (lambda: strategies.environments(max_state=0), "sizes must be at least 1, got 0, 3 and 8"),
        (lambda: strategies.environments(max_action=0), "sizes must be at least 1, got 8, 0 and 8"),
        (lambda: strategies.environments(max_width=0), "sizes must be at least 1, got 8, 3 and 0"),
        (lambda: strategies.rollouts(max_horizon=0), "batch and horizon must be at least 1, got 4 and 0"),
        (lambda: strategies.rollouts(max_batch=0), "batch and horizon must be at least 1, got 0 and 16"),
        (
            lambda: unchecked(strategies._policy_of)(np.zeros(5), 2, 1, NOISES["gaussian"](1.0)),
            "the environment shares 5 parameters; neither a linear nor a tanh policy from 2 states to 1 actions has as "
            "many: give rollouts(policies=…) your own",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def largest(strategy: SearchStrategy[Any], *sizes: Callable[[Any], int], examples: int = 100) -> list[int]:
    """Largest of each size in some examples."""
    seen: list[list[int]] = []

    @settings(SEARCH, phases=[Phase.generate], max_examples=examples)
    @given(strategy)
    def look(drawn: Any) -> None:
        seen.append([size(drawn) for size in sizes])

    look()
    return np.max(seen, axis=0).tolist()


def test_sizes_reach_their_ends_and_no_further() -> None:
    width = lambda p: 0 if p.mean_map(p.theta).outer is None else len(p.mean_map(p.theta).inner)  # noqa: E731
    networks = strategies.environments(("tanh_network",))
    sizes = (lambda e: e.state_size, lambda e: e.action_size, lambda e: len(e.dynamics.inner))
    assert np.all(np.array(largest(networks, *sizes, examples=40)) <= [8, 3, 8])
    for size, end in zip(sizes, (8, 3, 8), strict=True):
        some(networks, lambda e, size=size, end=end: size(e) == end)
    one, calm = environments.linear_quadratic(*[np.eye(1)] * 4), strategies.noises(("gaussian",))
    for bound, options in (
        (6, strategies.policies(one, noise=calm)),
        (2, strategies.policies(one, noise=calm, max_width=2)),
    ):
        assert largest(options, width, examples=40)[0] <= bound
        some(options, lambda p, bound=bound: width(p) == bound)
    batch, horizon = (lambda axis=axis: lambda s: s.rollout.reward.shape[axis] for axis in (0, 1))
    rollouts = strategies.rollouts(st.just(one), noise=calm)
    assert np.all(np.array(largest(rollouts, batch(), horizon(), examples=40)) <= [4, 16])
    for size, end in ((batch(), 4), (horizon(), 16)):
        some(rollouts, lambda s, size=size, end=end: size(s) == end)
    small = strategies.rollouts(st.just(one), noise=calm, max_batch=1, max_horizon=1)
    assert largest(small, batch(), horizon(), examples=5) == [1, 1]


def test_a_given_noise_is_the_one_used() -> None:
    one, flat = environments.linear_quadratic(*[np.eye(1)] * 4), strategies.noises(("uniform",))
    other = lambda x: int(getattr(x, "policy", x).noise.name != "uniform")  # noqa: E731
    assert largest(strategies.policies(one, noise=flat), other, examples=10) == [0]
    assert largest(strategies.rollouts(st.just(one), noise=flat), other, examples=10) == [0]


def test_matrices_are_bounded_in_their_largest_singular_value() -> None:
    assert strategies._bounded(np.diag([3.0, -4.0]), 1.0) == pytest.approx(np.diag([0.75, -1.0]))
    small = np.diag([0.3, 0.4])
    assert strategies._bounded(small, 0.5) is small
