"""R09: on token trees the expected costate is the value gradient; the same numbers as the torch enumeration of S21."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from jaxtyping import Int
from torch import Tensor, nn

from vgrad_lab.discrete.token_task import fifteen_answers
from vgrad_lab.discrete.token_tree import TokenTree, answer_probability, token_tree
from vgrad_lab.discrete.trajectory_gradient import response_advantage
from vgrad_lab.discrete.tree_costates import (
    TreeStates,
    empirical_costate,
    expected_costate,
    free_states,
    prefix_mean,
    recurrent_states,
    state_value_gradient,
    value_from,
)
from vgrad_lab.experiments import verify_tree_costates as checks
from vgrad_lab.experiments.verify_sequence import build
from vgrad_lab.sequence import enumeration
from vgrad_lab.sequence.trace import Edit, SequenceModel, Trace, trace, unchanged
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

TASK = fifteen_answers()
TREE = TASK.tree


def drawn(kind: str, seed: int = 0) -> TreeStates:
    return checks.draw_states(np.random.default_rng(seed), TREE, kind)


@settings(max_examples=15)
@given(seeds())
def test_expected_costate_is_the_value_gradient(seed: int) -> None:
    assert checks.r09_costate(seed=seed, examples=4).passed


@pytest.mark.parametrize("kind", checks.KINDS)
def test_a_planted_fault_is_seen(kind: str) -> None:
    states, reward = drawn(kind), TASK.reward()
    found = expected_costate(TREE, states, response_advantage(TREE, reward))
    truth = state_value_gradient(TREE, states, reward)
    assert checks.costate_errors(found, truth).max() <= ALGEBRA
    assert checks.costate_errors(found * (1 + PLANTED_FAULT), truth).min() > ALGEBRA


def test_return_on_the_first_token_alone_breaks_it_in_a_recurrent_network() -> None:
    """Where states read one another; free states and those of the newest token alone have no later term."""
    first = response_advantage(TREE, TASK.reward()) * (np.arange(3) == 0)
    for kind in checks.KINDS:
        states = drawn(kind)
        truth = state_value_gradient(TREE, states, TASK.reward())
        error = checks.costate_errors(expected_costate(TREE, states, first), truth)[0]
        assert error > 0.01 if kind == "recurrent" else error <= ALGEBRA


def test_a_reward_that_reads_the_state_breaks_it() -> None:
    """½‖h‖² of the empty prefix is added to every reward: the value gradient has h more, the costate has not."""
    states, reward = drawn("recurrent"), TASK.reward()
    h, direction = states.state[0], np.random.default_rng(1).normal(size=3)
    rng = np.random.default_rng(0)
    parts = {"readout": rng.normal(size=(3, 3))}
    rng.normal(size=(7, 3))  # what draw_states draws for the logits
    parts |= {"recurrence": rng.normal(size=(3, 3)), "embedding": rng.normal(size=(3, 3)), "start": h}

    def value(step: float) -> float:
        moved = h + step * direction
        patched = recurrent_states(TREE, **parts, patch=(0, moved))
        return value_from(TREE, patched.logits, reward + 0.5 * moved @ moved, node=0)

    slope = (8 * (value(1e-3) - value(-1e-3)) - (value(2e-3) - value(-2e-3))) / 12e-3
    found = expected_costate(TREE, states, response_advantage(TREE, reward + 0.5 * h @ h))[0]
    assert abs(found @ direction - slope) > 0.1
    assert abs((found + h) @ direction - slope) < 1e-8


def test_one_state_under_two_prefixes_has_two_value_gradients() -> None:
    """Free states, equal at two prefixes: the mean given the state alone is neither."""
    readout = np.random.default_rng(0).normal(size=(3, 4))
    state = np.random.default_rng(1).normal(size=(7, 4))
    state[2] = state[1]
    states = free_states(state, readout)
    truth = state_value_gradient(TREE, states, TASK.reward())
    found = expected_costate(TREE, states, response_advantage(TREE, TASK.reward()))
    assert np.linalg.norm(truth[1] - truth[2]) > 0.1
    mixed = (found[1] + found[2]) / 2
    assert min(np.linalg.norm(mixed - truth[1]), np.linalg.norm(mixed - truth[2])) > 0.05


@pytest.mark.parametrize("kind", checks.KINDS)
def test_tokens_of_another_policy_break_it(kind: str) -> None:
    states, reward = drawn(kind), TASK.reward()
    costate = empirical_costate(TREE, states, response_advantage(TREE, reward))
    found = prefix_mean(TREE, drawn(kind, seed=9).logits, costate)
    assert checks.costate_errors(found, state_value_gradient(TREE, states, reward)).max() > 0.1


def test_an_advantage_of_another_type_breaks_it() -> None:
    """RM/|o|: the value gradient of RM/|o|, not of RM."""
    states, reward = drawn("recurrent"), TASK.reward()
    found = expected_costate(TREE, states, response_advantage(TREE, reward / TREE.length))
    assert checks.costate_errors(found, state_value_gradient(TREE, states, reward)).max() > 0.1
    own = state_value_gradient(TREE, states, reward / TREE.length)
    assert checks.costate_errors(found, own).max() <= ALGEBRA


class Recurrent(SequenceModel):
    """The recurrent states of the tree in torch, as a model of the sequence floor; the prompt is token 0."""

    def __init__(self, *, readout: Tensor, recurrence: Tensor, embedding: Tensor) -> None:
        super().__init__()
        self.vocab, self.width = embedding.shape
        self.layers, self.max_length = 1, 2**31
        self.readout, self.recurrence, self.embedding = (nn.Parameter(x) for x in (readout, recurrence, embedding))

    def forward(self, inputs: Int[Tensor, "B T"], *, edit: Edit = unchanged) -> Trace:
        embedded = edit(0, 0, self.embedding[inputs])
        state, states = torch.zeros_like(embedded[:, 0]), []
        for t in range(inputs.shape[1]):
            state = edit(1, t, torch.tanh(state @ self.recurrence.T + embedded[:, t]).unsqueeze(1)).squeeze(1)
            states.append(state)
        top = torch.stack(states, dim=1)
        return Trace(torch.stack([embedded, top]), top, top @ self.readout.T)


def continuations_of(tree: TokenTree, prefix: tuple[int, ...]) -> tuple[enumeration.Continuations, list[int]]:
    """The torch floor's continuations of the prompt 0 and a prefix, and the tree's rows in the same order."""
    cases = enumeration.continuations(
        tree.vocab, (0, *prefix), remaining=tree.horizon - len(prefix), end=tree.end
    )  # fmt: skip
    rows = {answer: b for b, answer in enumerate(tree.answers)}
    order = []
    for target, length in zip(cases.targets.tolist(), cases.lengths.tolist(), strict=True):
        order.append(rows[(*prefix, *target[cases.given - 1 : cases.given - 1 + length])])
    return cases, order


@pytest.mark.parametrize("end", [None, 2])
def test_the_same_numbers_as_the_torch_enumeration(end: int | None) -> None:
    """Value gradients and expected costates at every prefix of a recurrent network, NumPy against autograd."""
    rng = np.random.default_rng(3)
    parts = {name: rng.normal(size=(3, 3)) for name in ("readout", "recurrence", "embedding")}
    model = Recurrent(**{name: torch.from_numpy(x) for name, x in parts.items()})
    tree = token_tree(3, 3, end=end)
    states = recurrent_states(tree, **parts, start=np.tanh(parts["embedding"][0]))
    reward, baseline = rng.normal(size=tree.size), rng.normal(size=len(tree.prefixes))
    advantage = response_advantage(tree, reward, baseline=baseline[tree.node])
    truth, mean = state_value_gradient(tree, states, reward), expected_costate(tree, states, advantage)
    for node, prefix in enumerate(tree.prefixes):
        cases, order = continuations_of(tree, prefix)
        gradient = enumeration.value_gradient(model, cases, reward[order])[1, -1].numpy()
        costate = enumeration.expected_costate(model, cases, advantage[order, len(prefix) :])[1, -1].numpy()
        np.testing.assert_allclose(truth[node], gradient, atol=ALGEBRA)
        np.testing.assert_allclose(mean[node], costate, atol=ALGEBRA)
        assert np.abs(truth[node] * (1 + PLANTED_FAULT) - gradient).max() > ALGEBRA


@pytest.mark.parametrize("layers", [1, 2])
def test_the_last_layer_of_a_token_only_network_is_free(layers: int) -> None:
    """Its states and head, read off the torch model, as free states of the tree."""
    model = build("token", vocab=3, layers=layers, seed=5)
    tree, reward = token_tree(3, 3, end=2), np.random.default_rng(0).normal(size=15)
    hidden = [trace(model, torch.tensor([[0, *prefix]])).hidden[-1, 0, -1].detach().numpy() for prefix in tree.prefixes]
    states = free_states(np.stack(hidden), next(model.head.parameters()).detach().numpy())
    chance = answer_probability(tree, states.logits)
    cases, order = continuations_of(tree, ())
    found = enumeration.sequence_probability(trace(model, cases.inputs), cases).detach().numpy()
    np.testing.assert_allclose(found, chance[order], atol=ALGEBRA)
    truth = state_value_gradient(tree, states, reward)
    for node, prefix in enumerate(tree.prefixes):
        cases, order = continuations_of(tree, prefix)
        gradient = enumeration.value_gradient(model, cases, reward[order])[-1, -1].numpy()
        np.testing.assert_allclose(truth[node], gradient, atol=ALGEBRA)


def test_evidence() -> None:
    assert checks.r09_costate().passed
