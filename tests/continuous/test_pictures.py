"""Pictures pixel by pixel: where bars, rod and discs begin and end."""

import inspect

import numpy as np
import pytest

from vgrad_lab.continuous import pictures, systems

WHITE = (255, 255, 255)


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.all(picture == colour, axis=-1)


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, picture.reshape(-1, 3).tolist()))


def test_bars_reach_from_the_middle_to_the_state() -> None:
    """±bound are the first and the last row, half the bound a quarter of the height; bars are 10 wide, 6 apart."""
    picture = pictures.bars(np.array([2.0, -2.0, 1.0, -1.0, 0.0]), 2.0)
    assert picture.shape == (64, 80, 3)
    expected = np.zeros((64, 80), dtype=bool)
    for i, (first, last) in enumerate([(0, 32), (32, 63), (16, 32), (32, 47), (32, 32)]):
        expected[first : last + 1, 16 * i + 3 : 16 * i + 13] = True
    assert np.array_equal(pixels(picture, pictures.BLUE), expected)
    assert np.array_equal(pixels(picture, WHITE), ~expected)


def plane(half: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels' centres, y upwards."""
    line = (np.arange(64) - 31.5) * 2 * half / 64
    x, y = np.meshgrid(line, -line)
    return x, y


@pytest.mark.parametrize("length", [1.0, 0.5])
def test_the_rod_reaches_from_the_middle_to_its_tip(length: float) -> None:
    """Upright: a band of half width 0.06 from the middle of the picture up to the tip's disc, nothing beyond."""
    picture = pictures.rod(np.array([length, 0.0, 0.0]))
    x, y = plane(1.25)
    disc = np.hypot(x, y - length) <= 0.16
    band = np.hypot(x, y - np.clip(y, 0, length)) <= 0.06
    assert np.array_equal(pixels(picture, pictures.ORANGE), disc)
    assert np.array_equal(pixels(picture, pictures.BLUE), band & ~disc)
    assert colours(picture) == {WHITE, pictures.BLUE, pictures.ORANGE}


def test_a_segment_away_from_the_middle() -> None:
    """From (−0.5, −0.25) to (0.5, −0.25); a pixel at the very distance belongs to it."""
    x, y = plane(1.0)
    near = pictures._near_segment(np.stack([x, y], -1), np.array([-0.5, -0.25]), np.array([0.5, -0.25]), 0.1)
    assert np.array_equal(near, np.hypot(x - np.clip(x, -0.5, 0.5), y + 0.25) <= 0.1)
    line = np.array([[[0.25, 0.0], [0.5, 0.0], [0.75, 0.0]]])
    assert pictures._near_segment(line, np.zeros(2), np.zeros(2), 0.5).tolist() == [[True, True, False]]


def test_the_plan_shows_the_task_of_the_obstacle_by_default() -> None:
    """Hill, goal and mass are discs of radius 0.3, 0.1 and 0.08 on a square of ±1.5."""
    picture = pictures.plan(np.array([-1.0, 0.5, 9.0, 9.0]))
    x, y = plane(1.5)
    for colour, place, radius in (
        (pictures.GREY, (0.0, 0.1), 0.3),
        (pictures.ORANGE, (1.0, 0.0), 0.1),
        (pictures.BLUE, (-1.0, 0.5), 0.08),
    ):
        assert np.array_equal(pixels(picture, colour), np.hypot(x - place[0], y - place[1]) <= radius)
    assert colours(picture) == {WHITE, pictures.GREY, pictures.ORANGE, pictures.BLUE}
    plan, obstacle = (inspect.signature(f).parameters for f in (pictures.plan, systems.obstacle))
    shared = {name for name in plan if name != "state"}
    assert shared == {"goal", "centre", "radius"}
    assert {name: plan[name].default for name in shared} == {name: obstacle[name].default for name in shared}


def test_a_mass_outside_the_plan_is_shown_at_the_nearest_edge() -> None:
    for state, row, column in (([1e6, 0.5], None, 63), ([-1e6, 0.5], None, 0), ([0.5, 1e6], 0, None)):
        rows, columns = np.nonzero(pixels(pictures.plan(np.array([*state, 0.0, 0.0])), pictures.BLUE))
        assert len(rows) > 0
        assert row is None or row in rows
        assert column is None or column in columns
