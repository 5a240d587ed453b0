"""S17: entropy and the softmax covariance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

from tests.helpers import unchecked
from vgrad_lab import simplex
from vgrad_lab.experiments import verify_impact as checks
from vgrad_lab.experiments import verify_relaxation as relaxation
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE


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


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_entropy_of_logits_is_the_entropy(seed: int, vocabulary: int) -> None:
    logits = relaxation.draw_logits(np.random.default_rng(seed), vocabulary)
    found, plain = simplex.entropy_of_logits(logits)[0], simplex.entropy(relaxation.softmax(logits))[0]
    assert found == pytest.approx(plain, rel=1e-12, abs=1e-14)
    pair = np.array([[300.0, 0.0]])
    assert simplex.entropy_of_logits(pair)[0] == pytest.approx(301 * np.exp(-300.0), rel=1e-12)


@given(st.integers(0, 2**31), st.integers(2, 60), st.floats(0.05, 20))
def test_temperature_bound(seed: int, vocabulary: int, temperature: float) -> None:
    logits = relaxation.draw_logits(np.random.default_rng(seed), vocabulary)
    assert relaxation.temperature_excess(logits, temperature) <= relaxation.SLACK


def test_a_root_of_the_entropy_is_enough_up_to_two_and_not_above() -> None:
    """‖∂o/∂z‖/√(H/ln 2) as the two logits part: bounded for τ ≤ 2, without bound above."""
    gaps = (5.0, 20.0, 80.0, 320.0)
    for tau in (0.5, 1.0, 1.5, 2.0):
        assert max(relaxation.jacobian_over_root_entropy(gap, tau) for gap in gaps) < 1.0
    for tau in (2.1, 3.0, 5.0):
        ratios = [relaxation.jacobian_over_root_entropy(gap, tau) for gap in gaps]
        assert ratios[-1] > 50 * ratios[0]
    expected = {2.0: 0.0925, 2.1: 0.592, 3.0: 38078.0, 5.0: 9.8016e8}
    for tau, ratio in expected.items():
        assert relaxation.jacobian_over_root_entropy(80.0, tau) == pytest.approx(ratio, rel=1e-3)
    assert relaxation.s17_hot().refutes


def test_the_bound_at_another_temperature_fails() -> None:
    logits = np.array([[20.0, 0.0]])
    norm = simplex.softmax_covariance_norm(relaxation.softmax(logits / 3))
    assert norm[0] > simplex.linear_entropy_bound(simplex.entropy_of_logits(logits))[0] * 100


def test_sharp_constants_of_both_kinds() -> None:
    assert relaxation.s17_constants(examples=20).passed
    atoms = {k: (1 - 1 / k) / np.sqrt(np.log(k)) for k in range(2, 200)}
    assert max(atoms, key=lambda k: atoms[k]) == 4
    assert atoms[2] == pytest.approx(simplex.SOFTMAX_CONSTANT, rel=ALGEBRA)
    assert atoms[3] == pytest.approx(0.636043, abs=1e-6)
    assert atoms[4] == pytest.approx(simplex.CONFIDENCE_CONSTANT, rel=ALGEBRA)
    root = np.sqrt(np.log(100_352))
    assert simplex.CONFIDENCE_CONSTANT * root == pytest.approx(2.1617, abs=1e-4)
    assert simplex.SOFTMAX_CONSTANT * root == pytest.approx(2.0381, abs=1e-4)
    four = np.full((1, 4), 0.25)
    smaller = (1 - PLANTED_FAULT) * simplex.CONFIDENCE_CONSTANT * np.sqrt(simplex.entropy(four)[0])
    assert smaller < 0.75


@given(st.floats(-100, 100))
def test_gumbel_slope_has_a_closed_form_at_temperature_one(gap: float) -> None:
    found, closed = simplex.gumbel_pathwise_slope(gap, temperature=1.0), simplex.gumbel_pathwise_slope_at_one(gap)
    assert abs(found / closed - 1) <= QUADRATURE
    assert abs(found * (1 + PLANTED_FAULT) / closed - 1) > QUADRATURE


@pytest.mark.parametrize(("gap", "temperature"), [(0.3, 0.5), (-1.0, 1.0), (2.0, 2.0), (3.0, 0.2)])
def test_gumbel_slope_is_the_slope_of_the_mean(gap: float, temperature: float) -> None:
    """Richardson differences of E[p̃], itself by quadrature over the logistic noise."""

    def mean(z: float) -> float:
        return sum(
            quad(lambda x: expit((z + x) / temperature) * expit(x) * expit(-x), a, b, epsabs=1e-14, limit=500)[0]
            for a, b in ((-60.0, -gap), (-gap, 60.0))
        )

    near, far = ((mean(gap + s) - mean(gap - s)) / (2 * s) for s in (0.01, 0.02))
    assert (4 * near - far) / 3 == pytest.approx(simplex.gumbel_pathwise_slope(gap, temperature=temperature), rel=1e-6)


def test_gumbel_softmax_fails() -> None:
    """The drawn Jacobian reaches 1/(2τ) at any entropy; its mean leaves the linear bound, then the root."""
    for tau, gap in ((0.5, 30.0), (2.0, 5.0)):
        noise = torch.tensor([-gap, 0.0])
        soft = ((torch.tensor([gap, 0.0]) + noise) / tau).softmax(-1).double()[None].numpy()
        assert simplex.softmax_covariance_norm(soft)[0] / tau == pytest.approx(1 / (2 * tau), rel=1e-6)
    mean = {(6.0, 0.1): 0.00501, (6.0, 1.0): 0.0201}
    for (gap, tau), value in mean.items():
        assert 2 * simplex.gumbel_pathwise_slope(gap, temperature=tau) == pytest.approx(value, rel=2e-3)
    entropy = simplex.entropy_of_logits(np.array([[6.0, 0.0]]))
    assert simplex.linear_entropy_bound(entropy)[0] == pytest.approx(0.0125, abs=1e-4)
    for gap, ratio in ((10.0, 0.9463), (20.0, 4.085), (40.0, 82.36), (80.0, 46044.0)):
        root = np.sqrt(simplex.entropy_of_logits(np.array([[gap, 0.0]]))[0] / simplex.LN2)
        assert 2 * simplex.gumbel_pathwise_slope(gap, temperature=3.0) / root == pytest.approx(ratio, rel=1e-3)


def test_gumbel_pathwise_gradient_is_biased_without_bound() -> None:
    for gap in (20.0, 50.0):
        assert relaxation.gumbel_to_discrete(gap, 1.0) == pytest.approx(gap - 2, rel=1e-7)
    ratios = [relaxation.gumbel_to_discrete(6.0, tau) for tau in (0.01, 0.1, 0.3, 1.0, 3.0)]
    np.testing.assert_allclose(ratios, [1.00016, 1.01638, 1.16101, 4.06997, 14.9108], rtol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_bounds_free_of_gauge(seed: int) -> None:
    assert relaxation.s17_covariance(seed=seed, examples=1).passed


def test_bounds_free_of_gauge_can_fail_and_ignore_the_gauge() -> None:
    """One state dimension, two tokens: both bounds are equalities, and a shift of all rows of W changes nothing."""
    q = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    table = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    reading = torch.ones(1, 1, 1, dtype=torch.float64)
    for shift in (0.0, 100.0):
        slope = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64) + shift
        missing = reading @ relaxation.explicit_covariance(q, table, slope)
        ratio = relaxation.covariance_ratios(missing, reading, q, table, slope, 1.0)
        np.testing.assert_allclose(ratio.numpy(), 1.0, rtol=1e-10)
        faulty = relaxation.covariance_ratios((1 + PLANTED_FAULT) * missing, reading, q, table, slope, 1.0)
        assert float(faulty.min()) - 1 > relaxation.SLACK


def test_relaxation_evidence_and_refusals() -> None:
    for check in (relaxation.s17_temperature, relaxation.s17_gumbel, relaxation.s17_constants):
        assert check(examples=5).passed
    with pytest.raises(ValueError, match="finite entries"):
        unchecked(simplex.entropy_of_logits)(np.array([[np.inf, 0.0]]))
    with pytest.raises(ValueError, match="τ > 0 and V ≥ 2"):
        simplex.temperature_bound(np.array([0.1]), 2, 0.0)
    with pytest.raises(ValueError, match="finite gap"):
        simplex.gumbel_pathwise_slope(float("inf"), temperature=1.0)
