"""One step with a whole action: Lemma 1 in several dimensions, where its jumps are surface integrals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.verify.derivatives import difference_quotients


@runtime_checkable
class RegionNoiseLike(Protocol):
    """What the checker reads from a noise: its score and quadratures cut by a hyperplane (see ``RegionNoise``)."""

    @property
    def score(self) -> Callable[[ndarray], ndarray]:
        """∇log ν at each point."""

    @property
    def volume(self) -> Callable[..., tuple[ndarray, ndarray]]:
        """Cut -> nodes and weights of E."""

    @property
    def surface(self) -> Callable[..., tuple[ndarray, ndarray, ndarray]]:
        """Cut -> nodes, outer normals and weights of ∮ · ν dS."""

    @property
    def section(self) -> Callable[..., tuple[ndarray, ndarray]]:
        """Cut -> nodes and weights of the integral of · ν over the hyperplane."""

    @property
    def room(self) -> Callable[..., float]:
        """Cut -> distance over which expectations are smooth while the hyperplane moves."""


@dataclass(frozen=True)
class Piecewise:
    """A reward that is smooth on both sides of the hyperplane w·a = b, and may jump there.

    below, above: r where w·a < b and where it is larger, (n,A) -> (n,). below_slope, above_slope: their gradients,
    (n,A). normal: w (A,). offset: b.
    """

    below: Callable[[ndarray], ndarray]
    below_slope: Callable[[ndarray], ndarray]
    above: Callable[[ndarray], ndarray]
    above_slope: Callable[[ndarray], ndarray]
    normal: Float[ndarray, " A"]
    offset: float


@dataclass(frozen=True)
class VectorStep:
    """One step of a shift policy with a whole action; every number is a vector (A,) along the mean action.

    score_function E[r ∂_ā log π], pathwise E[∇r], reward_surface ∫[r]ν n dS over the reward's jump, density_surface
    ∫ r[ν] n dS = −∮ rν n dS over the boundary, n the outer normal; truth ∂_ā E r itself.
    """

    score_function: Float[ndarray, " A"]
    pathwise: Float[ndarray, " A"]
    reward_surface: Float[ndarray, " A"]
    density_surface: Float[ndarray, " A"]
    truth: Float[ndarray, " A"]

    @property
    def residual(self) -> float:
        """Largest relative residual of PD = SF − Σ, ∂E r = PD + reward_surface and ∂E r = SF − density_surface."""
        size = max(1.0, float(np.max(np.abs([self.score_function, self.pathwise, self.truth]))))
        parts = (
            self.pathwise - self.score_function + self.reward_surface + self.density_surface,
            self.truth - self.pathwise - self.reward_surface,
            self.truth - self.score_function + self.density_surface,
        )
        return float(np.max(np.abs(parts))) / size


def score_and_pathwise_vector(noise: RegionNoiseLike, reward: Piecewise, *, mean: Float[ndarray, " A"]) -> VectorStep:
    """Both gradient forms of E r(ā + ξ), the two surface integrals that part them, and the true derivative.

    PD = SF − ∫[r]ν n dS + ∮ rν n dS; ∂_ā E r = PD + ∫[r]ν n dS = SF + ∮ rν n dS (eq. 10 where neither jumps).

    mean: ā, units of action. Raises ValueError for a normal that is zero or of another size than the mean. Ledger:
    S08.surface.
    """
    if reward.normal.shape != mean.shape or not np.any(reward.normal):
        raise ValueError(f"normal is {reward.normal}, expected a vector of {len(mean)} numbers that is not zero")
    cut = _cut(reward, mean)
    x, weight = noise.volume(cut)
    value, slope = _both(reward, mean + x)
    edge, outward, edge_weight = noise.surface(cut)
    across, across_weight = noise.section(cut)
    unit = reward.normal / np.linalg.norm(reward.normal)
    jump = across_weight @ (reward.above(mean + across) - reward.below(mean + across))

    def expected(shift: ndarray) -> ndarray:
        values = []
        for centre in shift:
            nodes, weights = noise.volume(_cut(reward, centre))
            values.append(weights @ _both(reward, centre + nodes)[0])
        return np.array(values)

    return VectorStep(
        score_function=0.0 - (weight * value) @ noise.score(x),
        pathwise=weight @ slope,
        reward_surface=float(jump) * unit,
        density_surface=-((edge_weight * _both(reward, mean + edge)[0]) @ outward),
        truth=difference_quotients(expected, mean[None], step=min(noise.room(cut), 1.0) / 100)[0],
    )


def _cut(reward: Piecewise, mean: ndarray) -> tuple[ndarray, float]:
    """The reward's hyperplane as the noise sees it."""
    return reward.normal, float(reward.offset - reward.normal @ mean)


def _both(reward: Piecewise, action: ndarray) -> tuple[ndarray, ndarray]:
    """r and ∇r at each action, from the piece that it lies in."""
    above = action @ reward.normal > reward.offset
    value = np.where(above, reward.above(action), reward.below(action))
    return value, np.where(above[:, None], reward.above_slope(action), reward.below_slope(action))
