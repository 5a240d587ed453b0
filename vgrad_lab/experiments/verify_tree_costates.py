"""Deterministic check of R09: on token trees the expected costate is the value gradient."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.token_task import draw_task
from vgrad_lab.discrete.token_tree import TokenTree
from vgrad_lab.discrete.trajectory_gradient import response_advantage, theorem_1_weight, theorem_2_advantage
from vgrad_lab.discrete.tree_costates import (
    TreeStates,
    expected_costate,
    free_states,
    recurrent_states,
    state_value_gradient,
)
from vgrad_lab.experiments.verify_trajectory import FLOOR, of_prefixes
from vgrad_lab.ledger.types import Evidence
from vgrad_lab.tolerances import ALGEBRA

KINDS = ("logits", "free", "token", "recurrent")
"""States: the logits themselves, free ones, of the newest token alone, of a recurrent network."""


def draw_states(rng: np.random.Generator, tree: TokenTree, kind: str, *, size: int = 3) -> TreeStates:
    """Random states of one kind."""
    readout, normal = rng.normal(size=(tree.vocab, size)), rng.normal(size=(len(tree.prefixes), tree.vocab))
    if kind == "logits":
        return free_states(normal, np.eye(tree.vocab))
    if kind == "free":
        return free_states(rng.normal(size=(len(tree.prefixes), size)), readout)
    recurrence, embedding = rng.normal(size=(size, size)), rng.normal(size=(tree.vocab, size))
    return recurrent_states(
        tree,
        readout=readout,
        recurrence=recurrence * (kind == "recurrent"),
        embedding=embedding,
        start=rng.normal(size=size),
    )


def costate_errors(found: Float[ndarray, "N S"], truth: Float[ndarray, "N S"]) -> Float[ndarray, " N"]:
    """‖found − truth‖ / max(‖truth‖, 1e-2) of every prefix."""
    return np.asarray(np.linalg.norm(found - truth, axis=1) / np.maximum(np.linalg.norm(truth, axis=1), FLOOR))


def r09_costate(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[λ̂ | prefix] = ∂E[R | prefix, do(h)]/∂h: RM with a random baseline, its conditional mean, Theorem 2."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(examples):
        vocab = int(rng.integers(2, 4))
        task = draw_task(rng, vocab=vocab, horizon=int(rng.integers(1, 5 - vocab // 3)), end=(None, 0)[i % 2])
        tree, reward = task.tree, task.reward()
        states = draw_states(rng, tree, KINDS[i % len(KINDS)])
        truth = state_value_gradient(tree, states, reward)
        baseline = of_prefixes(tree, rng.normal(size=len(tree.prefixes)))
        for advantage in (
            response_advantage(tree, reward, baseline=baseline),
            theorem_1_weight(tree, states.logits, reward),
            theorem_2_advantage(tree, states.logits, reward),
        ):
            worst = max(worst, float(costate_errors(expected_costate(tree, states, advantage), truth).max()))
    return Evidence(worst, ALGEBRA, "relative to max(‖G‖, 1e-2), every prefix, four kinds of states")
