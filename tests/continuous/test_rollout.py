from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import Spec, assert_close, build, by_functions, specs
from tests.helpers import unchecked, whole
from vgrad_lab.continuous import environments, policies
from vgrad_lab.continuous import rollout as module
from vgrad_lab.continuous.costate import adjoint, costate
from vgrad_lab.continuous.estimators import mean_pathwise_gradient, pathwise_gradient, score_function_gradient
from vgrad_lab.continuous.rollout import Rollout, rollout, sample_rollout
from vgrad_lab.tolerances import ALGEBRA

SMALL = environments.random_linear_quadratic(np.random.default_rng(0), 3, 2)
POLICY = policies.linear_policy(np.zeros((2, 3)))


@given(specs())
def test_in_place_equals_plain_functions(spec: Spec) -> None:
    system = build(spec)
    played, discount = system.rollout, system.discount
    plain = by_functions(system.environment)
    slow = rollout(plain, system.policy, played.state[:, 0], played.noise_draw)
    for name in ("state", "action", "reward"):
        assert_close(getattr(played, name), getattr(slow, name), ALGEBRA)
    fast, reference = (
        adjoint(e, system.policy, r, discount=discount) for e, r in ((system.environment, played), (plain, slow))
    )
    assert_close(fast.costate, reference.costate, ALGEBRA)
    assert_close(fast.action_gradient, reference.action_gradient, ALGEBRA)
    for estimate in (pathwise_gradient, score_function_gradient):
        by_function = replace(system.policy, mean_map=None)
        assert_close(
            estimate(system.environment, system.policy, played, discount=discount),
            estimate(plain, by_function, slow, discount=discount),
            ALGEBRA,
        )


@given(specs())
def test_arrays_without_their_memory_give_the_same_gradients(spec: Spec) -> None:
    system = build(spec)
    played = system.rollout
    bare = Rollout(played.state, played.action, played.noise_draw, played.reward)
    found, expected = (costate(system.environment, system.policy, r, discount=system.discount) for r in (bare, played))
    assert_close(found, expected, ALGEBRA)


@given(specs())
def test_memory_of_another_rollout_or_policy_is_not_used(spec: Spec) -> None:
    system = build(spec)
    environment, policy, played = system.environment, system.policy, system.rollout
    moved = replace(policy, theta=policy.theta + 0.1)
    half = replace(played, **{n: getattr(played, n)[:1] for n in ("state", "action", "noise_draw", "reward")})
    shifted = replace(played, state=played.state + 0.1)
    for p, r in ((moved, played), (policy, half), (policy, shifted)):
        found, expected = (
            pathwise_gradient(e, p, replace(r, columns=c), discount=system.discount)
            for e, c in ((environment, r.columns), (by_functions(environment), None))
        )
        assert_close(found, expected, ALGEBRA)


@given(specs())
def test_mean_gradient_is_the_mean(spec: Spec) -> None:
    system = build(spec)
    arguments = system.environment, system.policy, system.rollout
    mean, costates = mean_pathwise_gradient(*arguments, discount=system.discount)
    assert_close(mean, pathwise_gradient(*arguments, discount=system.discount).mean(0), ALGEBRA)
    assert_close(costates, costate(*arguments, discount=system.discount), ALGEBRA)


def test_blocks_of_time_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environments.random_tanh_network(np.random.default_rng(1), 3, 2)
    policy = policies.tanh_policy(np.ones((4, 3)), np.zeros(4), np.ones((2, 4)))
    results = []
    for size in (1, 1000, 1 << 18):
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
        played = sample_rollout(environment, policy, np.random.default_rng(2), batch=5, horizon=11)
        results.append((played.reward, pathwise_gradient(environment, policy, played, discount=0.9)))
    assert len(module.blocks(11, 200)) == 1
    for reward, gradient in results[:2]:
        assert_close(reward, results[2][0], ALGEBRA)
        assert_close(gradient, results[2][1], ALGEBRA)


def test_shapes_and_repeatability() -> None:
    played, again = (sample_rollout(SMALL, POLICY, np.random.default_rng(3), batch=4, horizon=5) for _ in range(2))
    assert played.state.shape == (4, 6, 3)
    assert played.action.shape == played.noise_draw.shape == (4, 5, 2)
    assert played.reward.shape == (4, 5)
    assert np.array_equal(played.reward, again.reward)
    assert np.array_equal(played.action, played.noise_draw)  # zero mean action


@pytest.mark.parametrize(
    ("state", "noise", "message"),
    [
        (np.zeros((2, 4)), np.zeros((2, 5, 2)), "initial_state has shape (2, 4), expected (B, 3) for this environment"),
        (np.zeros((2, 3)), np.zeros((2, 5, 3)), "noise_draw has shape (2, 5, 3), expected (2, T, 2)"),
        (np.zeros((2, 3)), np.zeros((2, 0, 2)), "noise_draw has horizon T = 0; a rollout needs at least one step"),
        (np.zeros((0, 3)), np.zeros((0, 5, 2)), "initial_state has batch B = 0; a rollout needs at least one row"),
        (np.zeros((2, 3)), np.zeros((3, 5, 2)), "noise_draw has shape (3, 5, 2), expected (2, T, 2)"),
        (np.full((2, 3), np.nan), np.zeros((2, 5, 2)), "initial_state holds non-finite values; give finite numbers"),
        (np.zeros((2, 3)), np.full((2, 5, 2), np.inf), "noise_draw holds non-finite values; give finite numbers"),
    ],
)
def test_bad_arrays(state: np.ndarray, noise: np.ndarray, message: str) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=whole(message)):
        unchecked(rollout)(SMALL, POLICY, state, noise)


def test_bad_sizes_and_diverging_rollouts() -> None:
    for batch, horizon in ((2, 0), (0, 2)):
        with pytest.raises(ValueError, match=whole(f"batch and horizon must be at least 1, got {batch} and {horizon}")):
            sample_rollout(SMALL, POLICY, np.random.default_rng(0), batch=batch, horizon=horizon)
    assert sample_rollout(SMALL, POLICY, np.random.default_rng(0), batch=1, horizon=1).reward.shape == (1, 1)
    with pytest.raises(ValueError, match="its action size is not the environment's"):
        rollout(SMALL, policies.linear_policy(np.zeros((1, 3))), np.zeros((1, 3)), np.zeros((1, 2, 2)))
    wild = environments.linear_quadratic(1e90 * np.eye(1), np.eye(1), np.eye(1), np.eye(1))
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="in row 0 at step 3: the rollout diverges"):
        rollout(wild, policies.linear_policy(np.zeros((1, 1))), np.array([[1.0]]), np.zeros((1, 3, 1)))


def test_functions_that_forget_the_batch() -> None:
    wrong = replace(by_functions(SMALL), reward=lambda s, a: -np.sum(s**2))
    with pytest.raises(ValueError, match="write both functions for a batch"):
        rollout(wrong, POLICY, np.zeros((2, 3)), np.zeros((2, 4, 2)))


def test_blocks_cover_the_horizon() -> None:
    step = module._BLOCK_BYTES
    for bytes_per_step, length in ((0, 5), (1, 5), (step // 5, 5), (step // 2, 2), (step, 1), (2 * step, 1)):
        cuts = module.blocks(5, bytes_per_step)
        assert cuts == [slice(start, min(start + length, 5)) for start in range(0, 5, length)]
    assert module.blocks(step, 1) == [slice(0, step)]


WIDE = environments.random_tanh_network(np.random.default_rng(1), 3, 2, width=4)
NETWORK = policies.tanh_policy(np.ones((3, 3)), np.zeros(3), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("memory", "kept"),
    [  # (3·memory − 9) arrays (T,B) are left: the dynamics' 4 first, then the mean's 3
        (4.0, (False, True)),
        (13 / 3, (True, False)),
        (15.9 / 3, (True, False)),
        (16 / 3, (True, True)),
        (3.9, (False, False)),
    ],
)
def test_layers_are_kept_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch, memory: float, kept: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(module, "_MEMORY", memory)
    played = sample_rollout(WIDE, NETWORK, np.random.default_rng(2), batch=5, horizon=6)
    columns = played.columns
    assert columns is not None
    for tape, width, is_kept in zip((columns.dynamics_tape, columns.mean_tape), (4, 3), kept, strict=True):
        assert (tape is not None) is is_kept
        assert tape is None or tape.shape == (6, width, 5)
    assert_close(
        pathwise_gradient(WIDE, NETWORK, played),
        pathwise_gradient(by_functions(WIDE), NETWORK, replace(played, columns=None)),
        ALGEBRA,
    )


def test_what_a_rollout_remembers() -> None:
    played = sample_rollout(WIDE, NETWORK, np.random.default_rng(2), batch=5, horizon=6)
    own = module.columns_of(*module.structure(WIDE, NETWORK), played)
    assert own is played.columns
    assert own.dynamics is WIDE.dynamics
    assert own.payoff is WIDE.payoff
    assert np.array_equal(own.parameters, NETWORK.theta)
    assert np.array_equal(own.x[-1, 3:], np.zeros((2, 5)))
    assert not any(x.flags.writeable for x in (played.state, played.action, played.reward))
    plain = module.columns_of(*module.structure(by_functions(WIDE), replace(NETWORK, mean_map=None)), played)
    assert plain.parameters.size == 0
    assert plain.dynamics_tape is None
    assert plain.mean_tape is None
    assert plain.dynamics is plain.payoff is not WIDE.dynamics
    anew = module.columns_of(*module.structure(WIDE, NETWORK), replace(played, columns=None))
    assert anew.dynamics is WIDE.dynamics
    assert anew.payoff is WIDE.payoff
    assert np.array_equal(anew.parameters, NETWORK.theta)
    for rebuilt in (plain, anew):
        assert rebuilt is not own
        assert np.array_equal(rebuilt.x, own.x)
        assert_close(rebuilt.reward, own.reward, ALGEBRA)
    assert module.same_memory(played.state, played.state[:])
    assert not module.same_memory(played.state, played.state[:, ::-1])
    assert not module.same_memory(played.state, played.state.copy())
    assert not module.same_memory(played.state, played.state[:2])
    assert repr(played).count("columns") == 0
    straight = sample_rollout(SMALL, POLICY, np.random.default_rng(2), batch=5, horizon=6).columns
    assert straight is not None
    assert straight.dynamics_tape is straight.mean_tape is None


@pytest.mark.parametrize("block", [1, 1 << 18])
def test_finite_rollouts_are_not_searched_for_other_numbers(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """A rollout knows from its blocks of time that all its numbers are finite."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", block)
    searched: list[Rollout] = []
    monkeypatch.setattr(module, "_explain", searched.append)
    sample_rollout(WIDE, NETWORK, np.random.default_rng(2), batch=5, horizon=6)
    assert not searched
    wild = environments.linear_quadratic(1e90 * np.eye(1), np.eye(1), np.eye(1), np.eye(1))
    with np.errstate(over="ignore"):
        rollout(wild, policies.linear_policy(np.zeros((1, 1))), np.array([[1.0]]), np.zeros((1, 3, 1)))
    assert len(searched) == 1
