"""Pictures of environments for ``render``: plain NumPy, one RGB array (64, 64, 3) for one state."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

PIXELS = 64
BLUE, ORANGE, GREY = (0, 114, 178), (230, 159, 0), (170, 170, 170)
"""Colours of the Okabe–Ito cycle, and grey."""


def _grid(half: float) -> Float[ndarray, "64 64 2"]:
    """Centres of the pixels of the square [−half, half]², y upwards."""
    line = half * (2 * np.arange(PIXELS) + 1 - PIXELS) / PIXELS
    return np.stack(np.meshgrid(line, -line), axis=-1)


def _near_segment(grid: ndarray, start: ndarray, end: ndarray, distance: float) -> ndarray:
    """Which pixels lie within ``distance`` of a segment; of a point, where start = end."""
    along = end - start
    share = np.clip((grid - start) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.linalg.norm(grid - start - share[..., None] * along, axis=-1) <= distance


def bars(state: Float[ndarray, " S"], bound: float) -> UInt8[ndarray, "64 width 3"]:
    """One bar for each component of the state, ±bound at the edges; zero is the middle line."""
    picture = np.full((PIXELS, len(state) * 16, 3), 255, dtype=np.uint8)
    tops = ((1 - state / bound) * (PIXELS - 1) / 2).round()
    for i, top in enumerate(tops):
        low, high = sorted((int(top), PIXELS // 2))
        picture[low : high + 1, i * 16 + 3 : i * 16 + 13] = BLUE
    return picture


def rod(state: Float[ndarray, " 3"]) -> UInt8[ndarray, "64 64 3"]:
    """The pendulum's rod from the middle to its tip (sin φ, cos φ), upright at φ = 0."""
    picture, grid = np.full((PIXELS, PIXELS, 3), 255, dtype=np.uint8), _grid(1.25)
    tip = np.array([state[1], state[0]])
    picture[_near_segment(grid, np.zeros(2), tip, 0.06)] = BLUE
    picture[_near_segment(grid, tip, tip, 0.16)] = ORANGE
    return picture


def plan(
    state: Float[ndarray, " 4"],
    *,
    goal: tuple[float, float] = (1.0, 0.0),
    centre: tuple[float, float] = (0.0, 0.1),
    radius: float = 0.3,
) -> UInt8[ndarray, "64 64 3"]:
    """The plane from above: hill grey, goal orange, the mass blue; a mass outside is shown at the edge."""
    picture, half = np.full((PIXELS, PIXELS, 3), 255, dtype=np.uint8), 1.5
    grid = _grid(half)
    for place, size, colour in (
        (np.array(centre), radius, GREY),
        (np.array(goal), 0.1, ORANGE),
        (np.clip(state[:2], -half, half), 0.08, BLUE),
    ):
        picture[_near_segment(grid, place, place, size)] = colour
    return picture
