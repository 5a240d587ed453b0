"""Boxes and balls with quadratures that a hyperplane may cut: inside, on their boundary, and on the cut itself.

What the jump formula needs in several dimensions: an integrand that is smooth on both sides of one hyperplane is
integrated to rounding, because no panel straddles the place where the hyperplane meets a corner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Cut = tuple[ndarray, float]
"""Hyperplane {x : w·x = b} as (w, b), w of shape (A,)."""
_MOST_SIZE = 3
_MOST_NODES = 10**6


@dataclass(frozen=True)
class Region:
    """A bounded set of actions around 0 and its quadratures; arrays (n,A), the last axis is the action.

    size: A. half_width: (A,), of the smallest box around it. contains: x -> inside or not. volume: (cut) -> nodes and
    weights of ∫ dx. surface: (cut) -> nodes, outer unit normals and weights of ∮ dS. section: (cut) -> nodes and
    weights of the integral over the part of the hyperplane that lies inside. room: (cut) -> how far the hyperplane is
    from a corner of a box, from touching a ball. refined: panels on each smooth stretch of a line -> the same region.
    """

    size: int
    half_width: Float[ndarray, " A"]
    contains: Callable[[ndarray], ndarray]
    volume: Callable[[Cut | None], tuple[ndarray, ndarray]]
    surface: Callable[[Cut | None], tuple[ndarray, ndarray, ndarray]]
    section: Callable[[Cut], tuple[ndarray, ndarray]]
    room: Callable[[Cut], float]
    refined: Callable[[int], "Region"]


def box(half_width: Float[ndarray, " A"], *, parts: int = 1) -> Region:
    """{x : |x_i| ≤ h_i}.

    half_width: h, units of action. parts: panels on each smooth stretch of a line. Raises ValueError unless there are 1
    to 3 positive widths, or for parts that make no grid or one of more than 10⁶ nodes. Ledger: S08.surface.
    """
    half = np.array(half_width, dtype=float)
    _check(len(half), np.all(np.isfinite(half)) and np.all(half > 0), f"half_width must be positive, got {half}", parts)

    def volume(cut: Cut | None = None) -> tuple[ndarray, ndarray]:
        return _box_nodes(half, [] if cut is None else [cut], parts)

    def surface(cut: Cut | None = None) -> tuple[ndarray, ndarray, ndarray]:
        nodes, normals, weights = [], [], []
        for k, sign in product(range(len(half)), (1.0, -1.0)):
            planes = [] if cut is None else [_restricted(cut, k, sign * half[k])]
            x, w = _box_nodes(np.delete(half, k), planes, parts)
            nodes.append(np.insert(x, k, sign * half[k], axis=1))
            normals.append(np.tile(sign * np.eye(len(half))[k], (len(x), 1)))
            weights.append(w)
        return np.concatenate(nodes), np.concatenate(normals), np.concatenate(weights)

    def section(cut: Cut) -> tuple[ndarray, ndarray]:
        normal, offset = cut
        k = int(np.argmax(np.abs(normal)))
        rest = np.delete(normal, k)
        x, w = _box_nodes(np.delete(half, k), [_restricted(cut, k, side) for side in (-half[k], half[k])], parts)
        last = (offset - x @ rest) / normal[k]
        keep = np.abs(last) <= half[k]
        return np.insert(x, k, last, axis=1)[keep], w[keep] * np.linalg.norm(normal) / abs(normal[k])

    def room(cut: Cut) -> float:
        corners = _signs(len(half)) @ (half * cut[0])
        return float(np.min(np.abs(corners - cut[1])) / np.linalg.norm(cut[0]))

    def contains(x: ndarray) -> ndarray:
        return np.asarray(np.all(np.abs(x) <= half, axis=-1))

    return Region(
        len(half), half, contains, volume, surface, section, room, lambda number: box(half_width, parts=number)
    )


def ball(size: int, radius: float, *, parts: int = 1) -> Region:
    """{x : ‖x‖ ≤ radius} in ``size`` dimensions: an interval, a disc or a ball.

    parts: panels on each smooth stretch of the polar angle. Raises ValueError for a size other than 1, 2 or 3, a radius
    that is not positive, or parts as in ``box``. Ledger: S08.surface.
    """
    _check(size, np.isfinite(radius) and radius > 0, f"radius must be a positive number, got {radius}", parts)

    def volume(cut: Cut | None = None) -> tuple[ndarray, ndarray]:
        frame, distance = _frame(cut, size)
        t, w = _angles(distance / radius, parts)
        x, share = _ball_nodes(size - 1, parts)
        nodes, weights = _lifted(np.sin(t), np.cos(t), x), np.outer(w * np.cos(t) ** size, share).ravel()
        return radius * nodes @ frame.T, radius**size * weights

    def surface(cut: Cut | None = None) -> tuple[ndarray, ndarray, ndarray]:
        frame, distance = _frame(cut, size)
        if size == 1:
            normals, weights = np.array([[1.0], [-1.0]]), np.ones(2)
        else:
            t, w = _angles(distance / radius, parts)
            x, share = _sphere_nodes(size - 1, parts)
            normals = _lifted(np.sin(t), np.cos(t), x) @ frame.T
            weights = radius ** (size - 1) * np.outer(w * np.cos(t) ** (size - 2), share).ravel()
        return radius * normals, normals, weights

    def section(cut: Cut) -> tuple[ndarray, ndarray]:
        frame, distance = _frame(cut, size)
        inside = max(radius**2 - distance**2, 0.0) ** 0.5
        x, share = _ball_nodes(size - 1, parts)
        nodes = _lifted(np.array([distance]), np.array([inside]), x)
        return nodes @ frame.T, share * (inside ** (size - 1) if abs(distance) < radius else 0.0)

    def room(cut: Cut) -> float:
        return abs(radius - abs(cut[1]) / float(np.linalg.norm(cut[0])))

    def contains(x: ndarray) -> ndarray:
        return np.asarray(np.linalg.norm(x, axis=-1) <= radius)

    half = np.full(size, float(radius))
    return Region(size, half, contains, volume, surface, section, room, lambda number: ball(size, radius, parts=number))


def _check(size: int, good: bool | np.bool_, message: str, parts: int) -> None:
    if not 1 <= size <= _MOST_SIZE:
        raise ValueError(f"a region has 1 to {_MOST_SIZE} dimensions, got {size}: its quadrature is a grid")
    if not good:
        raise ValueError(message)
    if parts < 1 or (16 * parts) ** size > _MOST_NODES:
        raise ValueError(f"{parts} panels in each of {size} directions: give at least 1, and at most 10⁶ nodes in all")


def _signs(size: int) -> Float[ndarray, "n A"]:
    return np.array(list(product((1.0, -1.0), repeat=size))).reshape(2**size, size)


def _restricted(cut: Cut, k: int, value: float) -> Cut:
    """The hyperplane within {x_k = value}, in the other coordinates."""
    return np.delete(cut[0], k), cut[1] - cut[0][k] * value


def _unit_panels(size: int, parts: int) -> tuple[ndarray, ndarray]:
    """Gauss–Legendre on [0, 1] in ``parts`` equal panels; fewer nodes where they are raised to the third power."""
    t, w = np.polynomial.legendre.leggauss(24 if size < 3 else 16)
    nodes = (np.arange(parts)[:, None] + (t + 1) / 2) / parts
    return nodes.ravel(), np.tile(w / 2 / parts, parts)


def _box_nodes(half: ndarray, cuts: list[Cut], parts: int) -> tuple[ndarray, ndarray]:
    """Lines along one axis after the other; a panel ends where a hyperplane meets a corner of what is left."""
    size = len(half)
    t, share = _unit_panels(size, parts)
    nodes, weights = np.zeros((1, 0)), np.ones(1)
    for k in range(size):
        ends = [np.full((len(nodes), 1), side) for side in (-half[k], half[k])]
        for normal, offset in cuts:
            if abs(normal[k]) > 1e-13 * np.max(np.abs(normal)):
                corners = _signs(size - k - 1) @ (normal[k + 1 :] * half[k + 1 :])
                ends.append(((offset - nodes @ normal[:k])[:, None] - corners) / normal[k])
        points = np.sort(np.clip(np.concatenate(ends, axis=1), -half[k], half[k]), axis=1)
        width = np.diff(points)[..., None]
        x, w = points[:, :-1, None] + width * t, weights[:, None, None] * width * share
        nodes = np.column_stack([np.repeat(nodes, x[0].size, axis=0), x.ravel()])
        nodes, weights = nodes[w.ravel() > 0], w.ravel()[w.ravel() > 0]
    return nodes, weights


def _frame(cut: Cut | None, size: int) -> tuple[ndarray, float]:
    """A rotation or reflection whose first column is the cut's normal, and the cut's distance from 0 along it."""
    if cut is None:
        return np.eye(size), np.inf
    length = float(np.linalg.norm(cut[0]))
    mirror = cut[0] / length - np.eye(size)[0]
    square = mirror @ mirror
    frame = np.eye(size) if square == 0 else np.eye(size) - 2 * np.outer(mirror, mirror) / square
    return frame, cut[1] / length


def _angles(sine: float, parts: int) -> tuple[ndarray, ndarray]:
    """Nodes and weights over [−π/2, π/2] with a break at arcsin of ``sine``."""
    ends = [-np.pi / 2, *([np.arcsin(sine)] if abs(sine) < 1 else []), np.pi / 2]
    t, share = _unit_panels(1, parts)
    low, width = np.array(ends[:-1])[:, None], np.diff(ends)[:, None]
    return (low + width * t).ravel(), (width * share).ravel()


def _ball_nodes(size: int, parts: int) -> tuple[ndarray, ndarray]:
    """Nodes and weights of the unit ball without a cut; of a point for size 0."""
    if size == 0:
        return np.zeros((1, 0)), np.ones(1)
    t, w = _angles(np.inf, parts)
    x, share = _ball_nodes(size - 1, parts)
    return _lifted(np.sin(t), np.cos(t), x), np.outer(w * np.cos(t) ** size, share).ravel()


def _sphere_nodes(size: int, parts: int) -> tuple[ndarray, ndarray]:
    """Nodes and weights of the unit sphere in ``size`` dimensions; of the two points ±1 for size 1."""
    if size == 1:
        return np.array([[1.0], [-1.0]]), np.ones(2)
    t, w = _angles(np.inf, parts)
    x, share = _sphere_nodes(size - 1, parts)
    return _lifted(np.sin(t), np.cos(t), x), np.outer(w * np.cos(t) ** (size - 2), share).ravel()


def _lifted(first: ndarray, radius: ndarray, x: ndarray) -> ndarray:
    """All points (first_i, radius_i·x_j), (n·m, A)."""
    rest = radius[:, None, None] * x
    return np.concatenate([np.broadcast_to(first[:, None, None], (*rest.shape[:2], 1)), rest], axis=2).reshape(
        -1, 1 + x.shape[1]
    )
