"""One step of a shift policy: the score-function form, the pathwise form, their jumps, and the truth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from vgrad_lab.tolerances import QUADRATURE
from vgrad_lab.verify.derivatives import difference_quotients
from vgrad_lab.verify.objects import NoiseLike


@dataclass(frozen=True)
class OneStep:
    """One step of a shift policy: E[r ∂_ā log π], E[r'], the jumps Σ[rν] that part them, and ∂_ā E r itself.

    reward_jump: Σ[r]ν, what the pathwise form misses. density_jump: Σ[ν]r, what the score-function form has too much.
    Together they are the jump, unless a jump of r meets one of ν; there E r has no derivative.
    """

    score_function: float
    pathwise: float
    jump: float
    truth: float
    reward_jump: float
    density_jump: float


def score_and_pathwise(
    noise: NoiseLike,
    reward: Callable[[ndarray], ndarray],
    slope: Callable[[ndarray], ndarray],
    *,
    mean: float = 0.0,
    breaks: tuple[float, ...] = (),
) -> OneStep:
    """Both gradient forms of E r(ā+ξ), by quadrature, and the true derivative by differences of E r.

    score_function −E[r ν'/ν], pathwise E[r'], jump Σ_x [r(ā+·)ν]_x; pathwise = score_function − jump (eq. 10 when there
    is no jump), and truth = pathwise + reward_jump = score_function − density_jump.

    reward, slope: r and r' of an array of actions. breaks: actions at which r is not smooth. Ledger: S08, S08.jump.
    """
    kinks = tuple(b - mean for b in breaks)
    x, w = noise.quadrature(kinks)

    def expected(shift: ndarray) -> ndarray:
        values = []
        for centre in shift[:, 0]:
            nodes, weights = noise.quadrature(tuple(b - centre for b in breaks))
            values.append(weights @ reward(centre + nodes))
        return np.array(values)

    corners = (*noise.breaks, *(j for j, _ in noise.jumps))
    nearest = min((abs(mean + x - b) for x in corners for b in breaks), default=1.0)  # E r is not smooth there
    step = float(np.clip(nearest / 2, 2e-5, 2e-3))
    truth = difference_quotients(expected, np.array([[mean]]), step=step)[0, 0]
    jumps = _jumps(noise, reward, mean, breaks)
    return OneStep(
        score_function=0.0 - float(w @ (reward(mean + x) * noise.score(x))),
        pathwise=float(w @ slope(mean + x)),
        jump=jumps[0],
        truth=float(truth),
        reward_jump=jumps[1],
        density_jump=jumps[2],
    )


def _jumps(
    noise: NoiseLike, reward: Callable[[ndarray], ndarray], mean: float, breaks: tuple[float, ...]
) -> tuple[float, float, float]:
    """Σ[rν], Σ[r]ν and Σ[ν]r over the breaks of r and the jumps of ν; where both meet, of the first sum only."""
    places = [(b - mean, b) for b in breaks]
    places += [(j, mean + j) for j, _ in noise.jumps if all(abs(mean + j - b) > 1e-12 for b in breaks)]
    total, of_reward, of_density = 0.0, 0.0, 0.0
    for position, action in places:
        sides = np.array([np.inf, -np.inf])
        at_jump = [j for j, _ in noise.jumps if abs(j - position) <= 1e-12]
        density = noise.density(np.nextafter(at_jump[0] if at_jump else position, sides))
        value = reward(np.nextafter(action, sides))
        total += float(density[0] * value[0] - density[1] * value[1])
        if not at_jump:
            of_reward += float((value[0] - value[1]) * density.mean())
        elif all(abs(action - b) > 1e-12 for b in breaks):
            of_density += float((density[0] - density[1]) * value.mean())
    return total, of_reward, of_density


def check_score_equals_pathwise(
    noise: NoiseLike,
    reward: Callable[[ndarray], ndarray],
    slope: Callable[[ndarray], ndarray],
    *,
    mean: float = 0.0,
    breaks: tuple[float, ...] = (),
    tolerance: float = QUADRATURE,
) -> OneStep:
    """Check Lemma 1 (eq. 10) for one noise and reward, and that both forms are the true derivative.

    Arguments as in ``score_and_pathwise``. Returns its numbers. Raises AssertionError that says which form is
    wrong and why: jumps of ν break the score function, jumps of r the pathwise derivative, and two wrong forms may
    agree. Ledger: S08.
    """
    found = score_and_pathwise(noise, reward, slope, mean=mean, breaks=breaks)
    scale = tolerance * max(1.0, abs(found.score_function), abs(found.pathwise))
    numbers = f"SF = {found.score_function:.9g}, PD = {found.pathwise:.9g}, ∂E r = {found.truth:.9g}"
    if abs(found.score_function - found.jump - found.pathwise) > scale:
        raise AssertionError(
            f"{numbers} and Σ[rν] = {found.jump:.9g}: PD = SF − Σ[rν] fails, so `slope` is not the derivative of "
            "`reward`, the score is not that of the density, a break is missing, or one is not piecewise absolutely "
            "continuous"
        )
    right = [
        name
        for name, form in (("score-function", found.score_function), ("pathwise", found.pathwise))
        if abs(form - found.truth) <= max(10 * scale, 1e-8)
    ]
    if abs(found.jump) > scale:
        raise AssertionError(
            f"{numbers}: they differ by the jumps Σ[rν] = {found.jump:.9g} of reward times density; "
            f"{' and '.join(right) or 'neither'} is right. Jumps of the density break the score-function form, jumps "
            "of the reward the pathwise one: remove them or correct by Σ[rν]"
        )
    if len(right) < 2:
        raise AssertionError(
            f"{numbers}: both forms agree and both are wrong, as the jumps of reward and density cancel"
        )
    return found
