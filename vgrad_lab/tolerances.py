"""Every tolerance of the project, one name each; house rule: no number by feel anywhere else."""

ALGEBRA = 1e-12
"""Relative residual of an algebraic identity in float64."""
TAYLOR_RATE = 0.1
"""Allowed distance of a measured first-order Taylor remainder rate from 2."""
QUADRATURE = 1e-9
"""Absolute residual of an identity whose expectations are quadratures or finite sums."""
CLOSED_FORM = 1e-10
"""Relative residual against a closed form evaluated at the drawn sample."""
FALSE_FAIL = 1e-6
"""Probability with which a correct program may fail one Monte Carlo assertion."""
PLANTED_FAULT = 1e-3
"""Relative size of the error that every checker must find when it is planted."""
