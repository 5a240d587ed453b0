"""Groups of answers enumerated: every group of a size with its chance, and the means that estimators should have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints.group_signal import GroupRule


@dataclass(frozen=True)
class Prompt:
    """All answers to one prompt: π(o), ∂ log π(o)/∂h and R(o)."""

    chance: Float[ndarray, " A"]
    score: Float[ndarray, "A S"]
    reward: Float[ndarray, " A"]

    @cached_property
    def gradient(self) -> Float[ndarray, " S"]:
        """G = Σ_o π(o) R(o) s(o)."""
        return np.asarray((self.chance * self.reward) @ self.score)

    @property
    def signal(self) -> float:
        """‖G‖²."""
        return float(self.gradient @ self.gradient)

    @property
    def success(self) -> float:
        """E R."""
        return float(self.chance @ self.reward)

    def costate(self, rule: GroupRule) -> Float[ndarray, " S"]:
        """E[Â_1 s_1] over all groups of the rule's size."""
        index, weight = groups(self, rule.size)
        advantage = from_group(self.reward[index], rule.baseline, ddof=rule.ddof, eps=rule.eps)
        return np.asarray(np.einsum("b,bi,bis->s", weight, advantage, self.score[index]) / rule.size)


def draw_prompt(rng: np.random.Generator, *, answers: int = 4, width: int = 3, binary: bool = True) -> Prompt:
    """Random answers: scores of a softmax policy, whose mean is zero; binary rewards hold both values."""
    logit, head = rng.normal(size=answers), rng.normal(size=(answers, width))
    chance = np.exp(logit) / np.exp(logit).sum()
    reward = rng.permutation(np.arange(answers) % 2).astype(float) if binary else rng.uniform(size=answers)
    return Prompt(chance, head - chance @ head, reward)


def groups(prompt: Prompt, size: int) -> tuple[Int[ndarray, "Q G"], Float[ndarray, " Q"]]:
    """Every group of ``size`` answers in order, and its chance when they are independent."""
    index = np.array(list(product(range(len(prompt.chance)), repeat=size)))
    return index, prompt.chance[index].prod(1)


def rewards_and_products(
    prompt: Prompt, index: Int[ndarray, "Q G"]
) -> tuple[Float[ndarray, "Q G"], Float[ndarray, "Q G G"]]:
    """Rewards and ⟨s_i, s_j⟩ of groups of answers."""
    gram = prompt.score @ prompt.score.T
    return prompt.reward[index], gram[index[:, :, None], index[:, None, :]]


def mean_of(
    estimator: Callable[[ndarray, ndarray], ndarray], prompt: Prompt, size: int, *, law: ndarray | None = None
) -> float:
    """Mean of an estimator of (rewards, products) over every group; law: of the answers, π where none is given."""
    index, weight = groups(prompt if law is None else replace(prompt, chance=law), size)
    return float(weight @ estimator(*rewards_and_products(prompt, index)))
