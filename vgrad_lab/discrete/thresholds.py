"""Step-size thresholds of the small instances: closed forms, and the same numbers found by bisection. Derived here."""

import math
from collections.abc import Callable

import numpy as np

from vgrad_lab.discrete.ascent import Rule, gap_at, gap_step
from vgrad_lab.discrete.bandit import Bandit, iid_tokens, logprob
from vgrad_lab.discrete.gradient_gap import log_conditional
from vgrad_lab.discrete.update_scale import Algorithm, update_scale


def bisect(holds: Callable[[float], bool], low: float, high: float, *, relative: float = 1e-12) -> float:
    """Where a property that holds at ``low`` and not at ``high`` stops: the middle of an interval of that width.

    Raises ValueError unless 0 < low < high, it holds at ``low`` and fails at ``high``.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"bisect needs 0 < low < high, got {low} and {high}")
    if not holds(low) or holds(high):
        raise ValueError(f"the property must hold at {low} and fail at {high}; widen the interval")
    while high - low > relative * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def rises(bandit: Bandit, theta: float, move: Callable[[float], Rule], size: float) -> bool:
    """Whether one update of a bandit with a single parameter does not lower the log-odds."""
    at = np.array([theta])
    after = at + move(size)(gap_at(bandit, at))
    return gap_at(bandit, after).log_odds >= gap_at(bandit, at).log_odds


def cosh_threshold(x: float) -> float:
    """Largest c for which θ ← θ + c g never lowers J of the cosh bandit, from any start: 2/x² = 8/D².

    |θ − c x tanh xθ| ≤ |θ| for all θ iff c x² ≤ 2. Ledger: G04.sharp.
    """
    return 2 / x**2


def cosh_cycle(multiple: float, x: float = 1.0) -> float:
    """|θ*| > 0 of the two-cycle of the cosh bandit for c > 2/x²: c x tanh xθ* = 2θ*; it attracts every start but 0.

    Raises ValueError for c up to the threshold, where there is no cycle. Ledger: G04.sharp.
    """
    from scipy.optimize import brentq

    if not multiple * x**2 > 2:
        raise ValueError(f"there is a cycle only above c = {cosh_threshold(x):g}, got {multiple:g}")
    strength = multiple * x**2 / 2  # y = strength · tanh y
    y = brentq(lambda y: strength * math.tanh(y) - y, math.sqrt(3 * (1 - 1 / strength)) / 2, strength + 1, xtol=1e-15)
    return float(y) / x


def token_threshold(length: int, margin: int) -> float:
    """Critical multiple of the gap at the best θ = 0 of T i.i.d. tokens, correct iff |Σo| ≤ m.

    c* = 2/(Var⁻ − Var⁺) = 2(1−J)/(T − Var⁺): above it the best policy repels. Ledger: G05.linear.
    """
    bandit = iid_tokens(length, margin)
    total = bandit.jacobian(np.zeros(1))[:, 0]
    logs = logprob(bandit, np.zeros(1))
    failure, variance = float(np.exp(logs[~bandit.correct]).sum()), []
    for which in (bandit.correct, ~bandit.correct):
        variance.append(float(np.exp(log_conditional(logs[which])) @ total[which] ** 2))
    return 2 * failure / (length - variance[0])


def measured_threshold(bandit: Bandit, *, start: float, low: float, high: float) -> float:
    """Multiple of the gap, between ``low`` and ``high``, above which one update from ``start`` lowers the log-odds.

    Near an optimum at 0 it exceeds the critical multiple by O(start²); rounding costs about 1e-16/start². Raises
    ValueError as ``bisect``.
    """
    return bisect(lambda c: rises(bandit, start, gap_step, c), low, high)


def stagnation_level(
    learning_rate: float, algorithm: Algorithm, *, second_moment: float = 2.0, group_size: int = 8
) -> float:
    """Failure rate q of the two-cycle of the ``steepening`` bandit at a fixed learning rate.

    lr ω(1−q) V cosh(y₀)(1−q)/q = y₀², y₀ tanh y₀ = 2. For population GRPO √q/(1−q)^{3/2} = lr V cosh(y₀)/y₀², about
    0.883 (lr V)² for small rates. It need not attract: it does at lr = .2, .4, .8 for V = 2.

    second_moment: V. Raises ValueError where there is no cycle. Ledger: G06.
    """
    from scipy.optimize import brentq

    y = cycle_height()
    target = y**2 / (learning_rate * second_moment * math.cosh(y))

    def excess(log_odds_of_failure: float) -> float:
        failure = 1 / (1 + math.exp(-log_odds_of_failure))
        success = 1 / (1 + math.exp(log_odds_of_failure))
        scale = update_scale(
            np.array([success]), algorithm, failure=np.array([failure]), group_size=group_size, ddof=0, eps=0.0
        )
        return math.log(float(scale[0]) * success / failure) - math.log(target)

    if not excess(-60.0) > 0 > excess(30.0):
        raise ValueError(f"{algorithm} at learning rate {learning_rate:g} has no two-cycle for V = {second_moment:g}")
    return float(1 / (1 + math.exp(-brentq(excess, -60.0, 30.0, xtol=1e-13))))


def cycle_height() -> float:
    """y₀ = 2.0653381…, the solution of y tanh y = 2: where the correct logit of ``steepening`` stands still."""
    from scipy.optimize import brentq

    return float(brentq(lambda y: y * math.tanh(y) - 2, 2.0, 2.2, xtol=1e-15))
