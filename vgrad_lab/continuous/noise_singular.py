"""The Cantor function as a reward and as a density: continuous, slope 0 almost everywhere, and no integral of it.

Where Lemma 1 fails without any jump (ledger S08.singular). None of this stands in ``NOISES``: the score that a program
would use, ν'/ν almost everywhere, is not the score of these laws.
"""

from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.continuous.noise_law import Noise, custom, positive

_LEVEL = 8
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def cantor_function(x: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """c(x): 0 up to 0, 1 from 1 on, ½ on [⅓, ⅔], and ½c(3x) below, ½ + ½c(3x − 2) above. Ledger: S08.singular."""
    rest, weight = np.clip(x, 0.0, 1.0), 0.5
    done = rest == 1
    value = np.where(done, 1.0, 0.0)
    for _ in range(52):
        rest = 3 * rest
        digit = np.floor(rest)
        value = np.where(done | (digit == 0), value, value + weight)
        done = done | (digit == 1)
        rest, weight = rest - digit, weight / 2
    return value


def cantor_rule() -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Nodes and weights of ∫ g dc, exact to rounding for a smooth g.

    Two nodes, exact up to degree 3 (mean ½, variance ⅛), on each of the 2⁸ intervals of the eighth stage. Ledger:
    S08.singular.
    """
    low = np.array([sum(2 * d / 3**k for k, d in enumerate(bits, 1)) for bits in product((0, 1), repeat=_LEVEL)])
    pair = 0.5 + np.array([-1.0, 1.0]) / np.sqrt(8)
    nodes = (low[:, None] + pair / 3**_LEVEL).ravel()
    return nodes, np.full(len(nodes), 1 / len(nodes))


def cantor_tent(scale: float = 1.0) -> Noise:
    """Density c(1 − |x|/scale)/scale: continuous, 0 at both ends, slope 0 almost everywhere.

    A uniform draw on ±(1 − C)·scale, C from dc with weight 2(1 − C). Its ``score`` is 0, what ν'/ν is almost
    everywhere. The quadrature serves integrands without breaks inside (−scale, scale), else it raises ValueError.
    Ledger: S08.singular.
    """
    s = positive(scale)

    def quadrature(extra: tuple[float, ...] = ()) -> tuple[ndarray, ndarray]:
        if any(-s < x < s for x in extra):
            raise ValueError(f"the quadrature of this noise allows no break inside ±{s:g}, got {extra}")
        c, weight = cantor_rule()
        width = s * (1 - c)
        return np.outer(width, _NODES).ravel(), np.outer(weight * (1 - c), _WEIGHTS).ravel()

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> ndarray:
        found, count = np.zeros(0), int(np.prod(shape))
        digit = 2.0 / 3.0 ** np.arange(1, 34)
        while len(found) < count:
            c = rng.integers(0, 2, (2 * (count - len(found)) + 16, len(digit))) @ digit
            found = np.concatenate([found, c[rng.uniform(size=len(c)) < 1 - c]])
        return s * (1 - found[:count].reshape(shape)) * rng.uniform(-1, 1, shape)

    law = custom(
        "cantor_tent",
        density=lambda x: cantor_function(1 - np.abs(x) / s) / s,
        score=np.zeros_like,
        draw=draw,
        mean=0.0,
        variance=5 * s**2 / 24,
        support=(-s, s),
    )
    return replace(law, quadrature=quadrature)
