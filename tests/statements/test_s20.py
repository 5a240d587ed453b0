"""S20: the bound (23) fails without any sampling gap."""

from vgrad_lab.experiments import verify_sequence as checks


def test_discount_alone_breaks_the_bound() -> None:
    case = checks.s20_counterexample()
    assert case.refutes
    assert abs(case.true - 0.38242109) < 1e-8
