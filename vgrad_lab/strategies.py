"""Hypothesis strategies for tests of this package and of code built on it; they yield plain arrays and numbers.

A floor's own objects are built from them: by ``map``, or as ``vgrad_lab.continuous.strategies`` does. This is the only
module that names Hypothesis; what other floors need of it they take from here.
"""

import random
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import SearchStrategy as SearchStrategy
from hypothesis.strategies import composite as composite
from hypothesis.strategies import integers as integers
from hypothesis.strategies import sampled_from as sampled_from
from numpy import ndarray

CONTINUOUS_NOISES = ("gaussian", "laplace", "logistic", "student_t", "triangle", "epanechnikov", "gamma")
"""Names of the noises whose density has no jump: Lemma 1 holds for them."""
JUMPING_NOISES = ("uniform", "exponential", "truncated_gaussian")
"""Names of the noises whose density jumps."""


_T = TypeVar("_T")


def steady(make: Callable[..., _T]) -> Callable[..., _T]:
    """Leave the ``random`` module as it was: run-time type checkers draw from it, which Hypothesis forbids."""

    @wraps(make)
    def wrapped(*args: Any, **options: Any) -> _T:
        before = random.getstate()
        try:
            return make(*args, **options)
        finally:
            random.setstate(before)

    return wrapped


class RolloutShape(NamedTuple):
    """Sizes of a rollout: B, T, S, A."""

    batch: int
    horizon: int
    state_size: int
    action_size: int


class LinearSystem(NamedTuple):
    """s' = As + Ba, cost sᵀQs + aᵀRa with Q, R positive semidefinite, ‖A‖₂ ≤ norm; gain K (A,S), bias (A,)."""

    A: ndarray
    B: ndarray
    Q: ndarray
    R: ndarray
    K: ndarray
    bias: ndarray


def grid_arrays(shape: int | tuple[int, int], *, bound: float = 1.0, parts: int = 64) -> SearchStrategy[ndarray]:
    """Float arrays with entries in [−bound, bound] on a grid of 2·parts steps: no subnormals, they shrink to zero."""
    return arrays(np.float64, shape, elements=st.integers(-parts, parts).map(lambda i: bound * i / parts))


def weights(rows: int, columns: int) -> SearchStrategy[ndarray]:
    """Matrices with entries i/128 in [−1, 1): one draw for a whole matrix, quick at any size; they shrink to zero."""
    size = rows * columns
    return st.binary(min_size=size, max_size=size).map(lambda b: np.frombuffer(b, np.int8).reshape(rows, columns) / 128)


def scales() -> SearchStrategy[float]:
    """Scales 2^(i/4) in [1/4, 4]; they shrink to 1."""
    return st.integers(-8, 8).map(lambda i: 2.0 ** (i / 4))


def seeds() -> SearchStrategy[int]:
    """Seeds for ``numpy.random.default_rng``."""
    return st.integers(0, 2**32 - 1)


def discounts() -> SearchStrategy[float]:
    """γ in [0, 1], with both ends and typical values often."""
    return st.one_of(st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(0, 64).map(lambda i: i / 64))


def rollout_shapes(
    *, max_batch: int = 4, max_horizon: int = 8, max_state: int = 5, max_action: int = 3
) -> SearchStrategy[RolloutShape]:
    """Small rollout sizes, each at least 1."""
    return st.builds(
        RolloutShape,
        st.integers(1, max_batch),
        st.integers(1, max_horizon),
        st.integers(1, max_state),
        st.integers(1, max_action),
    )


@st.composite
def linear_systems(draw: Any, *, max_state: int = 5, max_action: int = 3, norm: float = 0.9) -> LinearSystem:
    """Linear systems with a linear policy; A is scaled down to ‖A‖₂ = norm where it exceeds that."""
    size, action_size = draw(st.integers(1, max_state)), draw(st.integers(1, max_action))
    A = draw(grid_arrays((size, size)))
    length = np.linalg.norm(A, 2)
    half_q, half_r = draw(grid_arrays((size, size))), draw(grid_arrays((action_size, action_size)))
    return LinearSystem(
        A * (norm / length if length > norm else 1.0),
        draw(grid_arrays((size, action_size))),
        half_q @ half_q.T,
        half_r @ half_r.T,
        draw(grid_arrays((action_size, size), bound=0.5)),
        draw(grid_arrays(action_size)),
    )


def noises(names: tuple[str, ...] = ("gaussian", "laplace", "logistic")) -> SearchStrategy[tuple[str, float]]:
    """A noise's name and a scale in [1/4, 4]; the default names are the smooth ones and the kinked Laplace."""
    return st.tuples(st.sampled_from(names), scales())


def _dirichlet(rng: np.random.Generator, size: int) -> ndarray:
    p = rng.dirichlet(np.full(size, 10 ** rng.uniform(-2, 1)))
    return p if np.all(np.isfinite(p)) and p.sum() > 0 else np.full(size, 1 / size)


def _softmax(rng: np.random.Generator, size: int) -> ndarray:
    z = 10 ** rng.uniform(-1, 1.3) * rng.standard_normal(size)
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def _few_equal(rng: np.random.Generator, size: int) -> ndarray:
    p = 10 ** rng.uniform(-12, -2) * rng.random(size)
    p[: size if rng.random() < 0.3 else rng.integers(1, size + 1)] += 1
    return np.asarray(p / p.sum())


def _binary(rng: np.random.Generator, size: int) -> ndarray:
    p = np.zeros(size)
    p[1] = 10 ** rng.uniform(-12, -0.3)
    p[0] = 1 - p[1]
    return p


def _equal_and_rest(rng: np.random.Generator, size: int) -> ndarray:
    x = rng.uniform(1 / size, 1)
    count = min(int(1 / x), size - 1)
    p = np.zeros(size)
    p[:count], p[count] = x, max(1 - count * x, 0.0)
    return p


@st.composite
def simplices(draw: Any, *, min_size: int = 2, max_size: int = 64) -> ndarray:
    """Points of the simplex, (V,): Dirichlet, softmax, k equal with dust, binary, (x, …, x, 1 − kx); shuffled.

    The mixture of ledger S17: from uniform to within 1e-12 of a corner. min_size is at least 2.
    """
    kind = draw(st.sampled_from([_dirichlet, _softmax, _few_equal, _binary, _equal_and_rest]))
    size = draw(st.integers(min_size, max_size))
    rng = np.random.default_rng(draw(seeds()))
    p = rng.permutation(kind(rng, size))
    return np.asarray(p / p.sum())


class TreeShape(NamedTuple):
    """Sizes of a token tree: vocabulary, longest answer, and the token that ends one (None: one length)."""

    vocab: int
    horizon: int
    end: int | None


@st.composite
def tree_shapes(draw: Any, *, max_vocab: int = 4, max_horizon: int = 4, max_answers: int = 200) -> TreeShape:
    """Shapes of token trees of at most ``max_answers`` answers, with any end token or none."""
    vocab = draw(st.integers(2, max_vocab))
    horizon = draw(st.integers(1, max(h for h in range(1, max_horizon + 1) if h == 1 or vocab**h <= max_answers)))
    return TreeShape(vocab, horizon, draw(st.one_of(st.none(), st.integers(0, vocab - 1))))
