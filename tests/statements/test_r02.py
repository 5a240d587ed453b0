"""R02: Lemma 2 of the response-level paper: offsets of the prefix change nothing, others do."""

import numpy as np
from hypothesis import given, settings

from vgrad_lab.discrete.token_task import along, fifteen_answers
from vgrad_lab.discrete.trajectory_gradient import mean_direction, top_k_probability
from vgrad_lab.experiments import verify_trajectory as checks
from vgrad_lab.strategies import seeds
from vgrad_lab.tolerances import ALGEBRA

TASK = fifteen_answers()
OFFSET = checks.of_prefixes(TASK.tree, np.random.default_rng(0).normal(size=7))


@settings(max_examples=15)
@given(seeds())
def test_offsets_of_the_prefix(seed: int) -> None:
    assert checks.r02_offsets(seed=seed, examples=3).passed


def test_an_offset_that_reads_the_token_breaks_it() -> None:
    table = np.random.default_rng(0).normal(size=TASK.logits.shape)
    found = mean_direction(TASK.tree, TASK.logits, along(TASK.tree, table))
    assert np.linalg.norm(found) > 0.1


def test_an_offset_that_reads_the_future_breaks_it() -> None:
    """The length of the answer, as a per-length baseline has it."""
    found = mean_direction(TASK.tree, TASK.logits, TASK.tree.length[:, None] * TASK.tree.scored.astype(float))
    assert np.linalg.norm(found) > 0.1


def test_top_k_sampling_breaks_it() -> None:
    sampler = top_k_probability(TASK.tree, TASK.logits, k=2)
    assert np.linalg.norm(mean_direction(TASK.tree, TASK.logits, OFFSET, sampler=sampler)) > 0.1


def test_evidence() -> None:
    assert checks.r02_offsets().passed
    planted = OFFSET.copy()
    planted[0, 0] += 1e-3
    assert np.abs(mean_direction(TASK.tree, TASK.logits, planted)).max() > ALGEBRA
