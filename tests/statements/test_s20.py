"""S20: Theorem 1's bound fails five ways; the identity and the bound that hold instead, and what they need."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments import verify_theorem as checks
from vgrad_lab.sequence.two_costates import (
    Paths,
    conditional_mean,
    costate_difference,
    difference_bound,
    difference_sum,
    paper_bound,
    pull_back,
)
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

seeds = st.integers(0, 2**31 - 1)
discounts = st.floats(0.01, 1)


def long_chain(seed: int) -> Paths:
    """The first chain of at least three steps."""
    rng = np.random.default_rng(seed)
    while (paths := checks.draw_chain(rng)).credit.shape[1] < 3:
        pass
    return paths


@given(st.floats(0, 1))
def test_discount_alone_breaks_the_bound(discount: float) -> None:
    fault = checks.discount_fault(discount)
    assert fault.bound == 0.0
    assert abs(fault.difference - (1 - discount)) <= ALGEBRA


@pytest.mark.parametrize(
    ("fault", "bound", "difference"),
    [
        (checks.power_fault, 0.1, 10.0),
        (checks.correlation_fault, 0.0, 1.0),
        (checks.rollout_fault, 0.0, 3.0),
        (checks.state_fault, 0.0, 0.25),
    ],
)
def test_each_other_fault_breaks_the_bound(fault, bound: float, difference: float) -> None:  # type: ignore[no-untyped-def]
    found = fault()
    assert abs(found.bound - bound) <= ALGEBRA
    assert abs(found.difference - difference) <= ALGEBRA


def test_the_product_in_place_of_the_power_repairs_that_fault_alone() -> None:
    assert abs(paper_bound(checks.power_paths(), power=False) - 10.0) <= ALGEBRA
    assert checks.correlation_fault().bound == 0.0


def test_no_jacobian_leaves_nothing_but_the_first_gap() -> None:
    """At the last layer of a transformer J = 0: eq. 23 is the norm of the whole discounted future."""
    paths = long_chain(0)
    paths = replace(paths, jacobian=np.zeros_like(paths.jacobian))
    future = np.linalg.norm(paths.true_jacobian[:, 0], 2, axis=(-2, -1))
    costate = pull_back(paths.reward_gradient, paths.true_jacobian)[:, 1]
    known = np.linalg.norm(conditional_mean(costate, paths.probability, paths.state[:, 0]), axis=-1)
    assert paper_bound(paths) == pytest.approx(float((future * known).max()), rel=ALGEBRA)


@settings(max_examples=40)
@given(seeds, discounts)
def test_identity(seed: int, discount: float) -> None:
    paths = checks.draw_chain(np.random.default_rng(seed))
    assert checks.identity_error(paths, discount=discount) <= ALGEBRA
    assert checks.identity_error(paths, discount=discount, planted=PLANTED_FAULT) > ALGEBRA


@settings(max_examples=20)
@given(seeds, discounts)
def test_identity_on_a_closed_loop(seed: int, discount: float) -> None:
    paths, gradient = checks.draw_system(np.random.default_rng(seed))
    costate = pull_back(paths.reward_gradient, paths.true_jacobian)[:, 0]
    assert np.abs(costate - gradient.numpy()).max() <= ALGEBRA * max(1.0, np.abs(costate).max())
    assert checks.identity_error(paths, discount=discount) <= ALGEBRA


@settings(max_examples=40)
@given(seeds, discounts)
def test_bound(seed: int, discount: float) -> None:
    paths = checks.draw_chain(np.random.default_rng(seed))
    assert checks.bound_excess(paths, discount=discount) <= ALGEBRA


def test_bound_is_attained_and_can_fail() -> None:
    assert abs(checks.bound_excess(checks.power_paths(), discount=1.0)) <= ALGEBRA
    single = checks.power_paths()
    faulty = replace(single, true_jacobian=single.true_jacobian * (1 + PLANTED_FAULT))
    ratio = np.linalg.norm(costate_difference(faulty, time=0)) / difference_bound(single, time=0)[0]
    assert ratio > 1 + ALGEBRA


@pytest.mark.parametrize("seed", range(10))
def test_a_state_that_is_not_markov_breaks_it(seed: int) -> None:
    assert checks.identity_error(checks.merged(long_chain(seed)), discount=0.9) > 1e-3


@pytest.mark.parametrize("seed", range(10))
def test_a_jacobian_that_sees_the_future_breaks_it(seed: int) -> None:
    paths = long_chain(seed)
    jacobian = paths.jacobian.copy()
    jacobian[:, 0] *= 1 + paths.state[:, 2, None, None]
    assert checks.identity_error(replace(paths, jacobian=jacobian), discount=0.9) > 1e-3


def on_other_rollouts(paths: Paths, seed: int) -> np.ndarray:
    """E[λ̂ | S_1] over the paths less E[λ | S_1] over the same paths under another law."""
    other = paths.probability * np.random.default_rng(seed).uniform(0.2, 1, size=len(paths.probability))
    empirical = pull_back(paths.credit, paths.jacobian)[:, 0]
    true = pull_back(paths.reward_gradient, paths.true_jacobian)[:, 0]
    label = paths.state[:, 0]
    return conditional_mean(empirical, paths.probability, label) - conditional_mean(true, other / other.sum(), label)


@pytest.mark.parametrize("seed", range(10))
def test_other_rollouts_break_it(seed: int) -> None:
    paths = long_chain(seed)
    assert np.abs(on_other_rollouts(paths, seed) - difference_sum(paths, time=0)).max() > 1e-3


@pytest.mark.parametrize("seed", range(10))
def test_other_rollouts_break_the_bound(seed: int) -> None:
    """Equal terms and Jacobians, so that the bound is 0."""
    paths = long_chain(seed)
    paths = replace(paths, credit=paths.reward_gradient, jacobian=paths.true_jacobian)
    assert np.all(difference_bound(paths, time=0) == 0.0)
    assert np.abs(on_other_rollouts(paths, seed)).max() > 1e-3


def test_a_state_that_is_not_markov_breaks_the_bound() -> None:
    paths = checks.draw_chain(np.random.default_rng(191))
    assert checks.bound_excess(paths, discount=0.9) <= ALGEBRA
    assert checks.bound_excess(checks.merged(paths), discount=0.9) > 1.0


def test_a_jacobian_that_sees_the_future_breaks_the_bound() -> None:
    """J_1 = D_1 and c_2 are one and the same sign of S_3, a fair coin: the bound is 0, the difference 1."""
    sign = np.array([1.0, -1.0])
    credit, jacobian = np.zeros((2, 2, 1)), np.zeros((2, 2, 1, 1))
    credit[:, 1, 0] = jacobian[:, 0, 0, 0] = sign
    state = np.array([[0, 0, 0], [0, 0, 1]])
    paths = Paths(state, np.array([0.5, 0.5]), credit, np.zeros_like(credit), jacobian, jacobian)
    assert difference_bound(paths, time=0).max() == 0.0
    assert np.all(costate_difference(paths, time=0) == 1.0)


def test_evidence_and_counterexample() -> None:
    assert checks.s20_identity(examples=10).passed
    assert checks.s20_bound(examples=10).passed
    assert checks.s20_counterexample().refutes


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("state", np.zeros((1, 3), dtype=int), "state has shape"),
        ("probability", np.array([0.5]), "sum to 1"),
        ("jacobian", np.full((1, 3, 1, 1), np.nan), "jacobian holds NaN"),
    ],
)
def test_bad_paths_are_refused(name: str, value: np.ndarray, message: str) -> None:
    fields = dict(vars(checks.power_paths())) | {name: value}
    with pytest.raises(ValueError, match=message):
        Paths(**fields)


def test_no_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        Paths(**{name: value[:0] for name, value in vars(checks.power_paths()).items()})


def test_refusals() -> None:
    paths = checks.power_paths()
    for function in (costate_difference, difference_sum, difference_bound):
        with pytest.raises(ValueError, match="time is 3"):
            unchecked(function)(paths, time=3)
    with pytest.raises(ValueError, match="discount"):
        pull_back(paths.credit, paths.jacobian, discount=1.5)
