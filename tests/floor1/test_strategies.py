import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from vgrad_lab import strategies

QUICK = settings(max_examples=300, database=None)


@given(strategies.linear_systems())
def test_linear_systems(system: strategies.LinearSystem) -> None:
    size, action_size = system.B.shape
    assert system.A.shape == system.Q.shape == (size, size)
    assert system.R.shape == (action_size, action_size)
    assert system.K.shape == (action_size, size)
    assert system.bias.shape == (action_size,)
    assert np.linalg.norm(system.A, 2) <= 0.9 + 1e-12
    for cost in (system.Q, system.R):
        assert np.allclose(cost, cost.T)
        assert np.linalg.eigvalsh(cost)[0] >= -1e-9


@given(strategies.simplices(max_size=20))
def test_simplices(p: np.ndarray) -> None:
    assert 2 <= len(p) <= 20
    assert np.all(p >= 0)
    assert abs(p.sum() - 1) <= 1e-12


@pytest.mark.parametrize(
    "extreme",
    [
        lambda p: p.max() > 1 - 1e-6,
        lambda p: len(p) > 4 and np.ptp(p) < 0.1 / len(p),
        lambda p: np.count_nonzero(p) == 2 and p.max() < 1 - 1e-3,
    ],
    ids=["near a corner", "near uniform", "binary"],
)
def test_simplices_reach_the_extremes(extreme: object) -> None:
    find(strategies.simplices(), extreme, settings=QUICK)


def test_simplices_stay_on_the_simplex() -> None:
    with pytest.raises(NoSuchExample):
        find(strategies.simplices(), lambda p: p.sum() < 0.5, settings=settings(max_examples=50, database=None))


@given(strategies.rollout_shapes(max_batch=2, max_horizon=3), strategies.discounts(), strategies.noises())
def test_numbers(shape: strategies.RolloutShape, discount: float, noise: tuple[str, float]) -> None:
    assert min(shape) >= 1
    assert shape.batch <= 2
    assert shape.horizon <= 3
    assert 0 <= discount <= 1
    assert noise[0] in ("gaussian", "laplace", "logistic")
    assert 0.25 <= noise[1] <= 4


@given(st.data())
def test_grid_arrays(data: st.DataObject) -> None:
    x = data.draw(strategies.grid_arrays((2, 3), bound=2.0))
    assert x.shape == (2, 3)
    assert np.all(np.abs(x) <= 2)
    assert np.array_equal(np.round(x * 32), x * 32)


@given(strategies.weights(2, 3), strategies.scales())
def test_weights_and_scales(x: np.ndarray, scale: float) -> None:
    assert x.shape == (2, 3)
    assert np.all((x >= -1) & (x < 1))
    assert np.array_equal(np.round(x * 128), x * 128)
    assert 0.25 <= scale <= 4
