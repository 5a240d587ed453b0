"""E01: targets of value-gradient learning."""

from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.experiments import verify_estimation as checks


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.e01_exact_critic(seed=seed, examples=1).passed


def test_a_poor_critic_is_biased() -> None:
    found = checks.e01_poor_critic()
    assert found.refutes
    assert abs(found.claimed / found.true) < 0.9
