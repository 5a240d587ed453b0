"""Maps on columns: scaled, pulled back and sloped, against their Jacobians."""

import numpy as np
import pytest

from tests.helpers import unchecked, whole
from vgrad_lab.continuous import maps
from vgrad_lab.continuous.maps import Map

RNG = np.random.default_rng(0)
LINEAR = Map(RNG.standard_normal((3, 4)), RNG.standard_normal(3))
NETWORK = Map(RNG.standard_normal((5, 4)), RNG.standard_normal(5), RNG.standard_normal((3, 5)))


@pytest.mark.parametrize("m", [LINEAR, NETWORK], ids=["linear", "network"])
def test_scaled_multiplies_the_jacobian(m: Map) -> None:
    x = RNG.standard_normal((2, 4))
    np.testing.assert_allclose(maps.jacobian(maps.scaled(m, 0.7), x), 0.7 * maps.jacobian(m, x), rtol=1e-12)
    kept = maps.scaled(m, 0.7)
    assert kept.shift is m.shift
    assert kept.inner is m.inner if m.outer is not None else kept.outer is None


@pytest.mark.parametrize("m", [LINEAR, NETWORK], ids=["linear", "network"])
def test_pull_columns_is_the_transposed_jacobian(m: Map) -> None:
    x, cotangent = RNG.standard_normal((6, 4)), RNG.standard_normal((3, 6))
    hidden = len(m.inner)
    slope = None if m.outer is None else 1 - np.tanh(m.inner @ x.T + m.shift[:, None]) ** 2
    out = np.empty((4, 6))
    maps.pull_columns(m, cotangent, slope, np.empty((hidden, 6)), out)
    np.testing.assert_allclose(out.T, np.einsum("boi,ob->bi", maps.jacobian(m, x), cotangent), rtol=1e-12)


@pytest.mark.parametrize("m", [LINEAR, NETWORK], ids=["linear", "network"])
def test_apply_columns_is_the_value_less_the_shift_of_an_affine_map(m: Map) -> None:
    """An affine map leaves a tape alone; a network fills it."""
    x, out, tape = RNG.standard_normal((6, 4)), np.empty((3, 6)), np.full((len(m.inner), 6), 9.0)
    maps.apply_columns(m, x.T, out, tape)
    shift = m.shift if m.outer is None else 0.0
    np.testing.assert_allclose(out.T + shift, maps.value(m, x), rtol=1e-12)
    filled = np.full(tape.shape, 9.0) if m.outer is None else np.tanh(m.inner @ x.T + m.shift[:, None])
    np.testing.assert_allclose(tape, filled, rtol=1e-12)


def test_flatten_and_unflatten_undo_each_other() -> None:
    for m, size in ((LINEAR, 15), (NETWORK, 40)):
        theta = RNG.standard_normal(size)
        assert np.array_equal(maps.flatten(maps.unflatten(m, theta)), theta)
        for length in (size - 1, size + 1):
            message = f"theta holds {length} numbers, but this map has {size} parameters"
            with pytest.raises(ValueError, match=whole(message)):
                unchecked(maps.unflatten)(m, np.zeros(length))


def test_slope_columns_writes_into_its_argument() -> None:
    tape = np.tanh(RNG.standard_normal((2, 3, 4)))
    out = np.empty_like(tape)
    assert maps.slope_columns(tape, out) is out
    np.testing.assert_array_equal(out, 1 - tape * tape)
