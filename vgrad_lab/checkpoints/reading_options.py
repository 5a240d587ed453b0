"""The choices that the paper's §6 leaves open, each a named option with the sentence that says which reading it is.

The paper leaves open what R, Â, Λ, H_α, α, n, the tokens that may be sampled and the state h_t are. ``CHOICES`` names
the options; a ``Reading`` is one choice of everything.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal, get_args

import numpy as np

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.reading_states import State

Reward = Literal["sampled", "probability", "log_probability"]
AdvantageReading = Literal["standardised", "group_mean", "leave_one_out", "detached"]
Gap = Literal["conditional", "per_sample", "group_mean"]
Headroom = Literal["samples", "prompts", "pooled"]
Vocabulary = Literal["full", "labels"]

CHOICES: dict[str, dict[str, str]] = {
    "reward": {
        "sampled": "R = 1[a = y*] of a sampled token; its mean over samples is the paper's p(y*|q), so G = ∂p/∂h",
        "probability": "R = p(y*|q) as §6 writes it, one number for the whole group; G = ∂p/∂h",
        "log_probability": "R = ln p(y*|q), the other differentiable reward of the same label; G = ∂ln p/∂h",
    },
    "advantage": {
        "standardised": "eq. 1: (r − mean)/(sd + ε) over the group; 0 for a reward that the group shares (S27)",
        "group_mean": "r − mean over the group, without the division; 0 for a reward that the group shares",
        "leave_one_out": "r − mean of the others, unbiased; 0 for a reward that the group shares",
        "detached": "the reward itself with its gradient stopped (§6: detached reward), no baseline",
    },
    "gap": {
        "conditional": "eq. 26: Λ = E‖G‖‖E[λ̂|h] − G‖",
        "per_sample": "§6 as written: Λ = E‖G‖‖λ̂ − G‖ over single sampled tokens",
        "group_mean": "λ̂ averaged over one sampled group of n before the norm is taken (Monte Carlo)",
    },
    "headroom": {
        "samples": "eq. 28: over the samples of a prompt, R = 1[a = y*], then the mean over prompts",
        "prompts": "§6 with R(θ; q): over prompts, of p(y*|q), or of ln p(y*|q) when that is the reward",
        "pooled": "over prompts and samples at once, R = 1[a = y*]",
    },
    "vocabulary": {
        "full": "tokens are sampled from the whole vocabulary, as GRPO does here",
        "labels": "tokens are sampled among the task's labels, p renormalised over them",
    },
    "state": {
        "head": "h is the head's input, after the final norm",
        "last": "h is what the last block puts out, before the final norm",
        "first": "h is what enters the first block at the answer's position: the last prompt token's embedding",
    },
}
"""Field of a ``Reading`` -> option -> which reading of the paper it is; the first option is the default."""


def known_option(name: str, option: str) -> Any:
    """The option, if the field ``name`` of a ``Reading`` has it. Raises UserError otherwise."""
    if option not in CHOICES[name]:
        raise UserError(f"{name} is {option!r}; choose one of {', '.join(CHOICES[name])}")
    return option


@dataclass(frozen=True)
class Reading:
    """One way to read §6; the default is eqs. 26-29 with the reward that makes GRPO's advantages not vanish.

    group: n inside Λ. alpha: α of H_α, per unit of reward. Raises UserError for an option that is not known.
    """

    reward: Reward = "sampled"
    advantage: AdvantageReading = "standardised"
    gap: Gap = "conditional"
    headroom: Headroom = "samples"
    vocabulary: Vocabulary = "full"
    state: State = "head"
    group: int = 8
    alpha: float = 1.0

    def __post_init__(self) -> None:
        for name in CHOICES:
            known_option(name, getattr(self, name))
        if self.group < 2:
            raise UserError(f"group is {self.group}; a group needs at least 2 samples")
        if not 0 < self.alpha < np.inf:
            raise UserError(f"alpha is {self.alpha}; give a positive number")

    @property
    def signal_key(self) -> str:
        """What Σ depends on."""
        return f"{self.vocabulary} {self.state} {'log' if self.reward == 'log_probability' else 'p'}"

    @property
    def gap_key(self) -> str:
        """What Λ depends on: equal for readings that are the same number by algebra."""
        if self.reward != "sampled" and self.advantage != "detached":
            return f"{self.signal_key} none"
        n = self.group if self.advantage != "detached" or self.gap == "group_mean" else ""
        return f"{self.vocabulary} {self.state} {self.reward} {self.advantage} {self.gap} {n}".strip()

    @property
    def headroom_key(self) -> str:
        """What H_α depends on."""
        of = " log" if self.headroom == "prompts" and self.reward == "log_probability" else ""
        return f"{self.vocabulary} {self.headroom}{of} {self.alpha:g}"

    @property
    def label(self) -> str:
        """What differs from the default, or "eqs. 26-29"."""
        plain = Reading()
        changed = [f"{f.name} {getattr(self, f.name)}" for f in fields(self)
                   if getattr(self, f.name) != getattr(plain, f.name)]  # fmt: skip
        return ", ".join(changed) or "eqs. 26-29"


LITERAL = Reading(gap="per_sample", headroom="prompts")
"""§6 as written: single costates, p(y*|q) inside H_α; the advantage's reward must be the sampled one (S27)."""


@dataclass(frozen=True)
class ReadingSettings:
    """Which readings are measured together: all combinations of these, and how many prompts and groups are drawn."""

    states: tuple[State, ...] = ("head", "last")
    groups: tuple[int, ...] = (8,)
    alphas: tuple[float, ...] = (1.0,)
    prompts: int = 256
    sampled_groups: int = 64
    ddof: int = 1
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if not (self.states and self.groups and self.alphas):
            raise UserError("states, groups and alphas must not be empty; name at least one of each")
        if self.prompts < 1 or self.sampled_groups < 2:
            raise UserError(
                f"prompts is {self.prompts} and sampled_groups {self.sampled_groups}; give at least 1 and 2"
            )
        for state, group, alpha in product(self.states, self.groups, self.alphas):
            Reading(state=state, group=group, alpha=alpha)


def distinct(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """The readings, each number once: those equal by algebra are merged into the first."""
    found: dict[tuple[str, str, str], Reading] = {}
    for r in readings:
        found.setdefault((r.signal_key, r.gap_key, r.headroom_key), r)
    return tuple(found.values())


def every(settings: ReadingSettings) -> tuple[Reading, ...]:
    """All combinations of the options that differ."""
    names = [get_args(kind) for kind in (Reward, AdvantageReading, Gap, Headroom, Vocabulary)]
    return distinct(
        Reading(reward, advantage, gap, headroom, vocabulary, state, group, alpha)
        for (reward, advantage, gap, headroom, vocabulary), state, group, alpha in product(
            product(*names), settings.states, settings.groups, settings.alphas
        )
    )
