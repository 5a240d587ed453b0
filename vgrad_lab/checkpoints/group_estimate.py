"""An estimate from groups of sampled answers: a number with its standard error, or the reason why there is none.

The prompt is the unit: answers to one prompt share it, so standard errors come from the spread between prompts, drawn
at random from the task's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.stats import mean_with_standard_error

ONE_PROMPT = "a standard error needs 2 prompts"
NO_SPREAD = "equal for every prompt, so that no spread was seen"


@dataclass(frozen=True)
class Estimate:
    """One measure. bias: most by which its expectation can be wrong, 0 for an unbiased one.

    reason: why there is no value, or no standard error.
    """

    value: float | None
    standard_error: float | None = None
    reason: str = ""
    bias: float = 0.0

    def record(self) -> dict[str, Any]:
        """What a record holds: value and standard error (null where undefined), and what there is to say of them."""
        found: dict[str, Any] = {"value": self.value, "standard_error": self.standard_error}
        if self.reason:
            found["reason"] = self.reason
        return {**found, "bias_at_most": self.bias} if self.bias else found


def undefined(reason: str) -> Estimate:
    """No number, and why."""
    return Estimate(None, None, reason)


def over_prompts(per_prompt: Float[ndarray, " Q"], *, bias: float = 0.0, exact: bool = False) -> Estimate:
    """Mean over prompts with its standard error, s/√Q; raises ValueError for non-finite numbers.

    Equal numbers have no standard error, unless they are ``exact``: a spread that was not seen is not zero.
    """
    if len(per_prompt) < 2:
        return Estimate(float(per_prompt[0]), None, ONE_PROMPT, bias)
    mean, error = mean_with_standard_error(per_prompt)
    if exact:
        return Estimate(float(mean), 0.0, bias=bias)  # what the sums leave is rounding
    if bool(np.all(per_prompt == per_prompt[0])):
        return Estimate(float(per_prompt[0]), None, NO_SPREAD, bias)
    return Estimate(float(mean), float(error), bias=bias)


def jackknife(
    statistic: Callable[[Int[ndarray, "*n q"]], Float[ndarray, "*n"]], prompts: int, *, bias: float = 0.0
) -> Estimate:
    """A symmetric statistic of 2 or more prompts with the jackknife's error, √((Q−1)/Q Σ_q (θ_{−q} − θ̄)²).

    statistic: of the indices of the prompts to use, many sets of them at once. For U-statistics over prompts, which a
    bootstrap would spoil: a prompt drawn twice would meet itself.
    """
    if prompts < 2:
        return undefined(f"needs 2 prompts, got {prompts}")
    index = np.arange(prompts)
    value = float(statistic(index))
    if prompts == 2:
        return Estimate(value, None, "a standard error needs 3 prompts", bias)
    left = statistic((index[:, None] + np.arange(1, prompts)) % prompts)
    if bool(np.all(left == left[0])):
        return Estimate(value, None, NO_SPREAD, bias)
    error = np.sqrt((prompts - 1) / prompts * ((left - left.mean()) ** 2).sum())
    return Estimate(value, float(error), bias=bias)


def product_of_means(first: Float[ndarray, " Q"], second: Float[ndarray, " Q"], *, bias: float = 0.0) -> Estimate:
    """E[X] E[Y] of two numbers a prompt, without bias.

    (1/(Q(Q−1))) Σ_{q≠r} X_q Y_r: two prompts in each product, as X and Y of one prompt come from the same answers.
    """

    def statistic(index: ndarray) -> ndarray:
        x, y, q = first[index], second[index], index.shape[-1]
        return np.asarray((x.sum(-1) * y.sum(-1) - (x * y).sum(-1)) / (q * (q - 1)))

    return jackknife(statistic, len(first), bias=bias)


def check_reward(reward: Float[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
    """The rewards; raises ValueError for none or non-finite ones."""
    if reward.ndim != 2 or reward.size == 0:
        raise ValueError(f"reward has shape {reward.shape}; give one row per prompt with one entry per answer, (Q,G)")
    if not np.all(np.isfinite(reward)):
        raise ValueError("reward holds non-finite values; give finite rewards (mask failed samples before)")
    return reward


def same_reward(reward: Float[ndarray, "Q G"]) -> Float[ndarray, "Q G"]:
    """How many answers of the prompt have the reward of each answer, at the first of them; 0 at the others."""
    first = np.argmax(reward[:, :, None] == reward[:, None, :], axis=2)  # the first answer of the same reward
    return np.asarray((first[:, :, None] == np.arange(reward.shape[1])).sum(1, dtype=float))


def is_binary(reward: Float[ndarray, "Q G"]) -> bool:
    """Whether only 0 and 1 were seen."""
    return bool(np.all((reward == 0) | (reward == 1)))
