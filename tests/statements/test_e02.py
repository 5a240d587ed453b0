"""E02: a form for the reward of the step and a form for what follows."""

from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.experiments import verify_estimation as checks
from vgrad_lab.tolerances import CLOSED_FORM


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.e02_hybrids(seed=seed, examples=1).passed


def test_uniform_noise_breaks_it() -> None:
    found = checks.e02_uniform()
    assert found.refutes
    assert found.claimed == 0
    assert abs(found.true + 0.8) <= CLOSED_FORM
