"""Costates on token trees: Taylor rates under patching, costates of single answers, shared states, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked, whole
from vgrad_lab.discrete.token_task import draw_task, fifteen_answers
from vgrad_lab.discrete.token_tree import (
    answer_probability,
    conditional_value,
    objective,
    objective_gradient,
    prefix_probability,
    token_logprob,
)
from vgrad_lab.discrete.tree_costates import (
    TreeStates,
    empirical_costate,
    expected_costate,
    free_states,
    parents,
    prefix_mean,
    recurrent_states,
    shared_gradient,
    shared_objective,
    state_value_gradient,
    value_from,
)
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE
from vgrad_lab.verify import taylor_rates

TASK = fifteen_answers()
TREE = TASK.tree
RNG = np.random.default_rng(4)
PARTS = {
    "readout": RNG.normal(size=(3, 4)),
    "recurrence": RNG.normal(size=(4, 4)),
    "embedding": RNG.normal(size=(3, 4)),
    "start": RNG.normal(size=4),
}
STATES = recurrent_states(TREE, **PARTS)
DIRECTION = RNG.normal(size=4)


def test_parents_and_states_by_hand() -> None:
    for row, prefix in enumerate(TREE.prefixes[1:], start=1):
        above = TREE.prefixes.index(prefix[:-1])
        assert parents(TREE)[row] == above
        expected = np.tanh(PARTS["recurrence"] @ STATES.state[above] + PARTS["embedding"][prefix[-1]])
        np.testing.assert_allclose(STATES.state[row], expected, atol=1e-15)
    np.testing.assert_array_equal(STATES.state[0], PARTS["start"])
    np.testing.assert_array_equal(STATES.jacobian[0], 0)
    np.testing.assert_allclose(STATES.logits, STATES.state @ PARTS["readout"].T)


@pytest.mark.parametrize("node", [0, 1])
def test_jacobians_are_derivatives_of_the_next_state(node: int) -> None:
    for child in np.flatnonzero((parents(TREE) == node) & (np.arange(7) > 0)):
        rates = taylor_rates(
            lambda h, child=child: recurrent_states(TREE, **PARTS, patch=(node, h)).state[child],
            lambda h, child=child: recurrent_states(TREE, **PARTS, patch=(node, h)).jacobian[child],
            STATES.state[node],
            DIRECTION,
        )
        assert np.all(rates > 2 - TAYLOR_RATE)


@pytest.mark.parametrize("node", range(7))
@pytest.mark.parametrize("fault", [0.0, PLANTED_FAULT])
def test_value_gradient_under_patching(node: int, fault: float) -> None:
    """V of a prefix with its state replaced: the remainder falls with the square of the step."""
    reward = TASK.reward()

    def value(h: np.ndarray) -> np.ndarray:
        return np.array(value_from(TREE, recurrent_states(TREE, **PARTS, patch=(node, h)).logits, reward, node=node))

    def gradient(h: np.ndarray) -> np.ndarray:
        patched = recurrent_states(TREE, **PARTS, patch=(node, h))
        return (1 + fault) * state_value_gradient(TREE, patched, reward)[node]

    rates = taylor_rates(value, gradient, STATES.state[node], DIRECTION, step=1e-3)
    assert bool(rates[-1] > 2 - TAYLOR_RATE) is (fault == 0)


def test_a_replaced_state_no_longer_reads_the_one_before() -> None:
    """V of the prompt as its state moves, with the state after token 1 put in by hand: credit does not pass there."""
    reward, put = TASK.reward(), (2, DIRECTION)
    rest = {name: part for name, part in PARTS.items() if name != "start"}
    rates = taylor_rates(
        lambda h: np.array(value_from(TREE, recurrent_states(TREE, **rest, start=h, patch=put).logits, reward, node=0)),
        lambda h: state_value_gradient(TREE, recurrent_states(TREE, **rest, start=h, patch=put), reward)[0],
        PARTS["start"],
        DIRECTION,
        step=1e-3,
    )
    assert np.all(rates > 2 - TAYLOR_RATE)


@pytest.mark.parametrize("node", [0, 2, 5])
def test_value_gradient_of_logits_and_free_states(node: int) -> None:
    reward, readout = TASK.reward(), PARTS["readout"]
    state = RNG.normal(size=(7, 4))
    for states in (free_states(TASK.logits, np.eye(3)), free_states(state, readout)):

        def value(h: np.ndarray, states: TreeStates = states) -> np.ndarray:
            moved = states.state.copy()
            moved[node] = h
            return np.array(value_from(TREE, moved @ states.readout.T, reward, node=node))

        def gradient(h: np.ndarray, states: TreeStates = states) -> np.ndarray:
            moved = states.state.copy()
            moved[node] = h
            return state_value_gradient(TREE, free_states(moved, states.readout), reward)[node]

        direction = np.random.default_rng(0).normal(size=states.state.shape[1])
        assert np.all(taylor_rates(value, gradient, states.state[node], direction, step=1e-3) > 2 - TAYLOR_RATE)


def test_logits_reached_add_up_to_the_gradient() -> None:
    """∂J/∂z(prefix) = P(prefix) times the value gradient of its logits."""
    found = state_value_gradient(TREE, free_states(TASK.logits, np.eye(3)), TASK.reward())
    expected = objective_gradient(TREE, TASK.logits, TASK.reward()).reshape(7, 3)
    np.testing.assert_allclose(prefix_probability(TREE, TASK.logits)[:, None] * found, expected, atol=1e-15)


@pytest.mark.parametrize("row", range(0, 15, 2))
def test_costate_of_one_answer(row: int) -> None:
    """∂/∂h_t Σ_{k≥t} Â_k log π(o_k|o_<k), tokens fixed, by Taylor rates at every token."""
    advantage = np.random.default_rng(row).normal(size=(15, 3)) * TREE.scored
    for t in range(int(TREE.length[row])):
        node = int(TREE.node[row, t])

        def credit(h: np.ndarray, t: int = t, node: int = node) -> np.ndarray:
            logits = recurrent_states(TREE, **PARTS, patch=(node, h)).logits
            return np.array((advantage * token_logprob(TREE, logits))[row, t:].sum())

        def costate(h: np.ndarray, t: int = t, node: int = node) -> np.ndarray:
            return empirical_costate(TREE, recurrent_states(TREE, **PARTS, patch=(node, h)), advantage)[row, t]

        assert np.all(taylor_rates(credit, costate, STATES.state[node], DIRECTION, step=1e-3) > 2 - TAYLOR_RATE)
    assert np.all(empirical_costate(TREE, STATES, advantage)[~TREE.scored] == 0)


@settings(max_examples=25)
@given(seeds(), st.sampled_from([None, 0, 1]))
def test_means_given_the_prefix_by_hand(seed: int, end: int | None) -> None:
    task = draw_task(np.random.default_rng(seed), end=end)
    x = np.random.default_rng(seed).normal(size=(*task.tree.tokens.shape, 2))
    chance, found = answer_probability(task.tree, task.logits), prefix_mean(task.tree, task.logits, x)
    for n, prefix in enumerate(task.tree.prefixes):
        rows = [b for b, answer in enumerate(task.tree.answers) if answer[: len(prefix)] == prefix]
        expected = chance[rows] @ x[rows, len(prefix)] / chance[rows].sum()
        np.testing.assert_allclose(found[n], expected, atol=1e-12)


def test_a_mean_given_a_prefix_that_hardly_comes() -> None:
    """A prefix of probability e^−800: no division by it."""
    logits = TASK.logits.copy()
    logits[0] = [0.0, -800.0, 0.0]
    reward = TASK.reward()
    states = free_states(logits, np.eye(3))
    advantage = reward[:, None] * TREE.scored
    found, truth = expected_costate(TREE, states, advantage), state_value_gradient(TREE, states, reward)
    assert np.linalg.norm(truth[2]) > 0.1
    np.testing.assert_allclose(found, truth, atol=ALGEBRA)


def test_shared_states() -> None:
    """Three states for seven prefixes: the gradient of J by Taylor rates, and as the mean of costates."""
    row, readout = np.array([0, 1, 1, 2, 1, 0, 2]), PARTS["readout"]
    shared, reward = RNG.normal(size=(3, 4)), TASK.reward()

    def gradient(h: np.ndarray) -> np.ndarray:
        states = free_states(h.reshape(3, 4)[row], readout)
        per_prefix = state_value_gradient(TREE, states, reward)
        return shared_gradient(TREE, states.logits, per_prefix, row=row).ravel()

    rates = taylor_rates(
        lambda h: np.array(shared_objective(TREE, h.reshape(3, 4), readout, reward, row=row)),
        gradient,
        shared.ravel(),
        RNG.normal(size=12),
        step=1e-3,
    )
    assert np.all(rates > 2 - TAYLOR_RATE)
    states = free_states(shared[row], readout)
    costate = empirical_costate(TREE, states, reward[:, None] * TREE.scored)
    expected = np.zeros((3, 4))
    for b, p in enumerate(answer_probability(TREE, states.logits)):
        for t in range(int(TREE.length[b])):
            expected[row[TREE.node[b, t]]] += p * costate[b, t]
    np.testing.assert_allclose(gradient(shared.ravel()).reshape(3, 4), expected, atol=1e-13)
    assert shared_objective(TREE, shared, readout, reward, row=row) == objective(TREE, states.logits, reward)


def test_value_of_each_prefix() -> None:
    values = conditional_value(TREE, TASK.logits, TASK.reward())
    for node in range(7):
        b, t = np.argwhere((TREE.node == node) & TREE.scored)[0]
        assert value_from(TREE, TASK.logits, TASK.reward(), node=node) == pytest.approx(values[b, t], abs=1e-14)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"don't fit; give \(N, S\), \(V, S\) and \(N, S, S\)"):
        unchecked(TreeStates.__post_init__)(_bare(np.zeros((7, 4)), np.zeros((3, 3)), np.zeros((7, 4, 4))))
    with pytest.raises(ValueError, match=r"don't fit"):
        unchecked(TreeStates.__post_init__)(_bare(np.zeros((7, 4)), np.zeros((3, 4)), np.zeros((6, 4, 4))))
    with pytest.raises(ValueError, match="hold NaN or infinite values"):
        free_states(np.full((7, 4), np.nan), np.zeros((3, 4)))
    for row in (-1, 7):
        with pytest.raises(ValueError, match=whole(f"patch is at row {row}; give the row of an open prefix, 0 … 6")):
            recurrent_states(TREE, **PARTS, patch=(row, np.zeros(4)))
    with pytest.raises(ValueError, match="advantage is not zero after the end"):
        empirical_costate(TREE, STATES, np.ones((15, 3)))
    for row in (np.zeros(3, dtype=int), np.full(7, -1)):
        with pytest.raises(ValueError, match="give one number from 0 on per prefix"):
            unchecked(shared_gradient)(TREE, TASK.logits, np.zeros((7, 4)), row=row)
    with pytest.raises(ValueError, match="logits have shape"):
        state_value_gradient(TREE, free_states(np.zeros((2, 3)), np.eye(3)), TASK.reward())


def _bare(state: np.ndarray, readout: np.ndarray, jacobian: np.ndarray) -> TreeStates:
    found = object.__new__(TreeStates)
    for name, value in (("state", state), ("readout", readout), ("jacobian", jacobian)):
        object.__setattr__(found, name, value)
    return found
