"""E03: variances of both forms at one step."""

from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab import strategies
from vgrad_lab.continuous.variance import one_step_moments
from vgrad_lab.experiments import verify_estimation as checks


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.e03_variances(seed=seed, examples=1).passed


@given(st.integers(-32, 32), st.integers(-8, 8))
def test_order_of_the_variances(mean: int, log_scale: int) -> None:
    for cost in ("linear", "square"):
        found = one_step_moments(cost, mean=mean / 8, scale=2.0 ** (log_scale / 4))
        assert found.pathwise < found.score_function


def test_values_at_one_point() -> None:
    square = one_step_moments("square", mean=1.0, scale=2.0)
    assert (square.mean, square.pathwise, square.score_function) == (2.0, 16.0, 74.25)
