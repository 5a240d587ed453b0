"""Statistics of the project: Monte Carlo means with stated error rates, Spearman, bootstrap.

SciPy is imported where it is needed, so that ``import vgrad_lab`` stays quick.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.tolerances import FALSE_FAIL


@dataclass(frozen=True)
class Interval:
    """A point estimate with a two-sided interval at ``level``."""

    value: float
    low: float
    high: float
    level: float


def _finite(name: str, x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    if x.size == 0:
        raise ValueError(f"{name} is empty; give at least one number")
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{name} holds {int(np.sum(~np.isfinite(x)))} non-finite values; drop or fix them first")
    return x


def mean_with_standard_error(samples: Float[ndarray, "B *d"]) -> tuple[Float[ndarray, "*d"], Float[ndarray, "*d"]]:
    """Mean over the first axis and its standard error, s/√B with ddof 1.

    Raises ValueError for fewer than two samples or non-finite values (a NaN is never averaged away).
    """
    _finite("samples", samples)
    if len(samples) < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {len(samples)}")
    return np.asarray(samples.mean(0)), np.asarray(samples.std(0, ddof=1) / np.sqrt(len(samples)))


def z_threshold(comparisons: int, false_fail: float = FALSE_FAIL) -> float:
    """Two-sided normal quantile at ``false_fail`` shared over ``comparisons`` (Bonferroni)."""
    from scipy.stats import norm

    return float(norm.isf(false_fail / (2 * comparisons)))


def assert_mean_close(
    samples: Float[ndarray, "B *d"],
    expected: Float[ndarray, "*d"] | float,
    *,
    detectable: float,
    false_fail: float = FALSE_FAIL,
) -> None:
    """Assert E[samples] = expected by a z-test with false-fail rate ``false_fail`` over all components.

    detectable: the difference that the test must be able to see. With too few samples for it the test refuses
    to run (ValueError), so that a test which cannot fail is impossible.
    """
    mean, error = mean_with_standard_error(samples)
    z = z_threshold(max(mean.size, 1), false_fail)
    seen = float(np.max(2 * z * error))
    if seen > detectable:
        need = int(np.ceil(len(samples) * (seen / detectable) ** 2))
        raise ValueError(f"{len(samples)} samples detect only {seen:.3g}; {detectable:.3g} needs about {need}")
    excess = np.abs(mean - expected) - z * error
    assert np.all(excess <= 0), (
        f"mean {mean} differs from {expected} by more than {z:.2f} standard errors {error} (false-fail {false_fail:g})"
    )


def ranks(x: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Average ranks, 1..n; ties share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(_finite("x", x)), dtype=float)


def spearman(x: Float[ndarray, " n"], y: Float[ndarray, " n"]) -> float:
    """Spearman rank correlation; NaN when either input is constant (undefined, and shown as such)."""
    if x.shape != y.shape:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; they must be equal")
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def _percentile(value: float, draws: Float[ndarray, " R"], level: float) -> Interval:
    defined = draws[np.isfinite(draws)]
    if len(defined) < 0.9 * len(draws):
        return Interval(value, float("nan"), float("nan"), level)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def _check_bootstrap(n: int, level: float) -> None:
    if n < 2:
        raise ValueError(f"a bootstrap needs at least 2 units, got {n}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")


def bootstrap(
    statistic: Callable[[ndarray], float], n: int, *, level: float = 0.9, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of ``statistic(index)``, index an (n,) resample of 0..n−1.

    Undefined resamples (NaN, say a rank correlation of ties) are left out; when more than a tenth are undefined the
    interval is NaN.
    """
    _check_bootstrap(n, level)
    index = np.random.default_rng(seed).integers(0, n, (resamples, n))
    return _percentile(statistic(np.arange(n)), np.array([statistic(i) for i in index]), level)


def spearman_interval(
    x: Float[ndarray, " n"], y: Float[ndarray, " n"], *, level: float = 0.9, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Spearman with a percentile-bootstrap interval over the n pairs: ``bootstrap`` of ``spearman``, all at once."""
    from scipy.stats import rankdata

    _check_bootstrap(len(x), level)
    value = spearman(x, y)
    index = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    a, b = (rankdata(v[index], axis=1) - (len(x) + 1) / 2 for v in (x, y))
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    draws = np.divide((a * b).sum(1), norm, out=np.full(resamples, np.nan), where=norm > 0)
    return _percentile(value, draws, level)


def z_score(x: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """(x − mean)/std with ddof 0; all zeros when x is constant."""
    centred = _finite("x", x) - x.mean()
    spread = float(centred.std())
    return centred / spread if spread > 0 else np.zeros_like(centred)
