import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from tests.helpers import unchecked, whole
from vgrad_lab import strategies, verify
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.continuous.noise_vector import VectorNoise, gaussian_vector
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE


def law(half: np.ndarray) -> VectorNoise:
    return gaussian_vector(half @ half.T + 0.1 * np.eye(len(half)))


@given(strategies.grid_arrays((3, 3)), strategies.grid_arrays(3, bound=2.0))
def test_density_score_and_moments(half: np.ndarray, x: np.ndarray) -> None:
    noise = law(half)
    right = scipy.stats.multivariate_normal(cov=noise.covariance).pdf(x)
    assert abs(noise.density(x) - right) <= CLOSED_FORM * max(1.0, right)
    rates = verify.taylor_rates(
        lambda y: np.log(noise.density(y[None])), lambda y: noise.score(y)[None], x, np.ones(3), step=0.1
    )
    assert np.all(np.abs(rates - 2) <= TAYLOR_RATE)
    nodes, weight = noise.quadrature(5)
    assert abs(weight.sum() - 1) <= QUADRATURE
    assert np.max(np.abs(weight @ nodes)) <= QUADRATURE
    assert np.max(np.abs(np.einsum("n,ni,nj->ij", weight, nodes, nodes) - noise.covariance)) <= QUADRATURE


@given(strategies.grid_arrays((2, 2)), strategies.grid_arrays(2, bound=2.0), strategies.grid_arrays(2))
def test_lemma_in_two_dimensions(half: np.ndarray, mean: np.ndarray, wave: np.ndarray) -> None:
    """r = sin(c·a): E[r ∇log π] = E[∇r] = c·cos(c·ā)·exp(−½cᵀCc)."""
    noise = law(half)
    x, weight = noise.quadrature(40)
    phase = (mean + x) @ wave
    score_function = -(weight * np.sin(phase)) @ noise.score(x)
    pathwise = weight @ np.cos(phase) * wave
    truth = wave * np.cos(mean @ wave) * np.exp(-0.5 * wave @ noise.covariance @ wave)
    assert np.max(np.abs(score_function - truth)) <= QUADRATURE
    assert np.max(np.abs(pathwise - truth)) <= QUADRATURE


def test_planted_fault_in_the_score_is_seen() -> None:
    noise = law(np.eye(2))
    point = np.array([0.3, -0.8])
    rates = verify.taylor_rates(
        lambda y: np.log(noise.density(y[None])),
        lambda y: (1 + PLANTED_FAULT) * noise.score(y)[None],
        point,
        np.ones(2),
        step=1e-5,
    )
    assert np.all(np.abs(rates - 1) <= TAYLOR_RATE)


def test_one_component_is_the_gaussian_noise() -> None:
    x = np.linspace(-2, 2, 9)
    vector, scalar = gaussian_vector(np.array([[0.49]])), gaussian(0.7)
    np.testing.assert_allclose(vector.density(x[:, None]), scalar.density(x), rtol=CLOSED_FORM)
    np.testing.assert_allclose(vector.score(x[:, None])[:, 0], scalar.score(x), rtol=CLOSED_FORM)


def test_draws_follow_the_law() -> None:
    noise = law(np.array([[0.5, 0.0], [0.4, 0.3]]))
    x = noise.draw(np.random.default_rng(0), (100, 1000))
    assert x.shape == (100, 1000, 2)
    products = np.einsum("bti,btj->btij", x, x).reshape(-1, 4)
    assert_mean_close(products, noise.covariance.ravel(), detectable=0.02)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones((2, 3)), "covariance has shape (2, 3), expected (A, A) of finite numbers"),
        (np.ones((0, 0)), "covariance has shape (0, 0), expected (A, A) of finite numbers"),
        (np.full((2, 2), np.nan), "covariance has shape (2, 2), expected (A, A) of finite numbers"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "covariance is not symmetric; give (C + Cᵀ)/2"),
        (np.array([[1.0, 0.5], [0.5 + 1e-7, 1.0]]), "covariance is not symmetric; give (C + Cᵀ)/2"),
        (1e-9 * np.array([[1.0, 0.5], [0.4, 1.0]]), "covariance is not symmetric; give (C + Cᵀ)/2"),
        (np.ones((2, 2)) - np.eye(2), "covariance has the eigenvalue -1; it must be positive definite"),
    ],
)
def test_bad_covariances(covariance: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        unchecked(gaussian_vector)(covariance)


def test_the_grid_of_the_quadrature() -> None:
    noise = gaussian_vector(np.diag([1.0, 4.0]))
    assert len(noise.quadrature()[1]) == 400
    assert [x.tolist() for x in noise.quadrature(1)] == [[[0.0, 0.0]], [1.0]]
    assert noise.quadrature(2)[0] == pytest.approx(np.array([[-1.0, -2.0], [-1.0, 2.0], [1.0, -2.0], [1.0, 2.0]]))
    assert len(gaussian_vector(np.eye(3)).quadrature(100)[1]) == 10**6
    for count, size, total in ((20, 7, 20**7), (101, 3, 101**3), (0, 2, 0)):
        message = f"{count} nodes in each of {size} directions make {total} nodes; the most is 10⁶"
        with pytest.raises(ValueError, match=whole(message)):
            gaussian_vector(np.eye(size)).quadrature(count)


def test_whole_numbers_become_floats() -> None:
    assert unchecked(gaussian_vector)(np.array([[2, 1], [1, 3]])).covariance.dtype == float
