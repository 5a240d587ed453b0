"""S17: entropy and the softmax covariance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab import simplex
from vgrad_lab.experiments import verify_impact as checks


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_sharp_bounds(seed: int, vocabulary: int) -> None:
    p = checks.draw_simplex(np.random.default_rng(seed), vocabulary)
    h, kappa, x = simplex.entropy(p), simplex.softmax_covariance_norm(p), p.max(1)
    assert kappa <= simplex.sharp_entropy_bound(h) + 1e-11
    assert simplex.sharp_entropy_bound(h) <= simplex.linear_entropy_bound(h) + 1e-11
    assert x * (1 - x) - 1e-11 <= kappa <= 2 * x * (1 - x) + 1e-11
    assert kappa <= simplex.SOFTMAX_CONSTANT * np.sqrt(h) + 1e-11
    assert 1 - x <= simplex.CONFIDENCE_CONSTANT * np.sqrt(h) + 1e-11


@given(st.integers(0, 2**31), st.integers(2, 40))
def test_norm_equals_the_eigenvalue(seed: int, vocabulary: int) -> None:
    p = checks.draw_simplex(np.random.default_rng(seed), vocabulary)
    eigenvalue = np.linalg.eigvalsh(np.diag(p[0]) - np.outer(p[0], p[0]))[-1]
    assert simplex.softmax_covariance_norm(p)[0] == pytest.approx(eigenvalue, abs=1e-14)


@given(st.floats(1e-9, 0.5))
def test_equality_on_two_atoms(epsilon: float) -> None:
    p = np.array([[1 - epsilon, epsilon, 0.0]])
    kappa = simplex.softmax_covariance_norm(p)[0]
    assert kappa == pytest.approx(2 * epsilon * (1 - epsilon), rel=1e-9)
    assert simplex.sharp_entropy_bound(simplex.entropy(p))[0] == pytest.approx(kappa, rel=1e-6)


def test_constants_are_attained() -> None:
    two, four = np.array([[0.5, 0.5]]), np.full((1, 4), 0.25)
    assert simplex.softmax_covariance_norm(two)[0] / np.sqrt(simplex.entropy(two)[0]) == pytest.approx(
        0.600561, abs=1e-6
    )
    assert (1 - 0.25) / np.sqrt(simplex.entropy(four)[0]) == pytest.approx(0.636991, abs=1e-6)


@pytest.mark.parametrize("vocabulary", [10, 1000, 100_352])
def test_constant_grows_with_the_vocabulary(vocabulary: int) -> None:
    p = np.zeros((1, vocabulary))
    p[0, :2] = 0.5
    needed = simplex.softmax_covariance_norm(p)[0] / simplex.paper_entropy_bound(simplex.entropy(p), vocabulary, 1.0)[0]
    assert needed == pytest.approx(simplex.SOFTMAX_CONSTANT * np.sqrt(np.log(vocabulary)), rel=1e-9)


def test_small_norm_does_not_need_small_entropy() -> None:
    uniform = np.full((1, 1000), 1e-3)
    assert simplex.softmax_covariance_norm(uniform)[0] == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.parametrize("bad", [[[0.5, 0.6]], [[-0.1, 1.1]], [[np.nan, 1.0]], [[1.0]]])
def test_refuses_what_is_no_distribution(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        simplex.softmax_covariance_norm(np.array(bad))


def test_counterexample_refutes() -> None:
    assert checks.s17_counterexample().refutes
    assert checks.s17_sharp(examples=3).passed
