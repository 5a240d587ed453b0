"""S09: eq. 11 counts the reward twice; the stop-gradient has no signal."""

from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.experiments import verify_continuous_one_step as checks


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.s09_unstopped(seed=seed, examples=2).passed


def test_counterexample() -> None:
    found = checks.s09_stopped()
    assert found.refutes
    assert abs(found.claimed) < 1e-12
    assert abs(found.true - 0.7) < 1e-12
