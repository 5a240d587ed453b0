"""What an on-policy estimator is: its declaration, its options, and the problem it is asked about."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.discrete.token_tree import (
    TokenTree,
    answer_probability,
    check_logits,
    check_reward,
    objective_gradient,
    pull_back,
    token_tree,
    weighted_response_score,
)

Verdict = Literal["unbiased", "scaled", "biased"]
"""Expectation equal to ∇J; a known multiple of it; neither in general."""
Aggregation = Literal["sum", "constant", "sequence_mean", "token_mean"]
"""Factor on the summed tokens of a sample: 1, 1/L for a constant L, 1/|o_i|, G/Σ_j |o_j|."""
GroupName = Literal["leave_one_out", "group_mean", "standardised", "pairs"]
"""How the rewards of a group become one advantage per sample."""


@dataclass(frozen=True)
class Options:
    """Settings that estimators read; each estimator says which in ``reads``.

    ddof, eps: of the group's standard deviation. baseline: a constant, in units of the reward. longest: L of Dr. GRPO,
    tokens (None: the tree's horizon). decay: λ of GAE. critic_error: added to the exact critic, one number per prefix
    (None: none). token_reward: rewards per token whose sum is the reward (None: all of it at the end). step: tokens per
    reasoning step of VinePPO. keep: probability with which TRePO chooses each position, before the answer is drawn.
    Raises ValueError for numbers out of range.
    """

    ddof: int = 1
    eps: float = 0.0
    baseline: float = 0.0
    longest: int | None = None
    decay: float = 1.0
    critic_error: Float[ndarray, " N"] | None = None
    token_reward: Float[ndarray, "B T"] | None = None
    step: int = 2
    keep: float = 0.5

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1) or not self.eps >= 0:
            raise ValueError(f"ddof is {self.ddof} and eps {self.eps}; give ddof 0 or 1 and eps ≥ 0")
        if (self.longest is not None and self.longest < 1) or self.step < 1:
            raise ValueError(f"longest is {self.longest} and step {self.step}; give numbers of tokens of at least 1")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep is {self.keep}; give a probability above 0 and at most 1")
        if not 0 <= self.decay <= 1 or not np.isfinite(self.baseline):
            raise ValueError(
                f"decay is {self.decay} and baseline {self.baseline}; give λ in [0, 1] and a finite number"
            )


@dataclass(frozen=True)
class Problem:
    """One prompt: a tree, a policy's logits, a reward per answer, and parameters.

    features: of ``linear_logits`` at the present θ; None: the logits are the parameters. Other floats become float64.
    Raises ValueError for logits, rewards or features that don't fit or are not finite.
    """

    tree: TokenTree
    logits: Float[ndarray, "N V"]
    reward: Float[ndarray, " B"]
    features: Float[ndarray, "N V P"] | None = None

    def __post_init__(self) -> None:
        check_logits(self.tree, self.logits)
        check_reward(self.tree, self.reward)
        if self.features is not None and (
            self.features.shape[:2] != self.logits.shape or not np.all(np.isfinite(self.features))
        ):
            raise ValueError(f"features have shape {self.features.shape}; give finite ones, {self.logits.shape} + (P,)")
        for name in ("logits", "reward", "features"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))

    @property
    def probability(self) -> Float[ndarray, " B"]:
        """π(o) of every answer."""
        return answer_probability(self.tree, self.logits)

    @property
    def gradient(self) -> Float[ndarray, " P"]:
        """∇J."""
        return self._in_parameters(objective_gradient(self.tree, self.logits, self.reward))

    def direction(self, weight: Float[ndarray, "B T"]) -> Float[ndarray, "B P"]:
        """Σ_t w_t g_t of every answer, g_t = ∂ log π(o_t|o_<t) with respect to the parameters."""
        return self._in_parameters(weighted_response_score(self.tree, self.logits, weight))

    def _in_parameters(self, gradient: ndarray) -> ndarray:
        return gradient if self.features is None else pull_back(self.features, gradient)


GroupRule = Callable[[Float[ndarray, "Q G"], Options], Float[ndarray, "Q G"]]
"""Rewards of groups -> one advantage per sample; it must not depend on the order of a group."""
TokenRule = Callable[[Problem, Options], Float[ndarray, "B T"]]
"""One number per token of every answer, whatever the group."""
SetRule = Callable[[Problem, Options], tuple[Float[ndarray, "K B"], Float[ndarray, "K B T"]]]
"""The same where chance besides the answer decides: K choices, the probability of each given the answer, numbers."""


@dataclass(frozen=True)
class Estimator:
    """An ascent direction of a group of G answers, D = (1/G) Σ_i c_i Σ_t a_{i,t} g_{i,t}.

    c_i: the group's advantage (1 without ``group``) times the factor of ``aggregation``; a: ``token``, or the mean of
    ``sets`` given the answer (1 without either; sets are for single samples).
    mixed_only: groups of equal rewards are drawn again. whitened: c_i a over the mean and standard deviation of a over
    all tokens of the group. verdict: for answers of many lengths, real rewards and the default options.
    source: who states it. reads: names of the options that matter. defaults: the options, unless others are given.
    Raises ValueError for sets beside what they can't be combined with.
    """

    name: str
    formula: str
    source: str
    verdict: Verdict
    group: GroupName | GroupRule | None = None
    token: TokenRule | None = None
    sets: SetRule | None = None
    aggregation: Aggregation = "sum"
    mixed_only: bool = False
    whitened: bool = False
    reads: tuple[str, ...] = ()
    defaults: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if self.sets is not None and (self.token is not None or not self.independent):
            raise ValueError(
                f"{self.name} has sets; they are for single samples: no token, group, token_mean, mixed_only, whitened"
            )

    @property
    def independent(self) -> bool:
        """Whether samples do not see each other, so that a group is a mean of independent directions."""
        apart = self.aggregation in ("sum", "constant", "sequence_mean")
        return self.group is None and apart and not (self.whitened or self.mixed_only)


def random_problem(
    vocab: int = 3, horizon: int = 3, *, end: int | None = 0, binary: bool = False, spread: float = 1.0, seed: int = 0
) -> Problem:
    """A tree with logits N(0, spread²) and, at every prefix and token, a hidden reward N(0,1); R is the answer's sum.

    binary: 1[R > 0] instead. Raises ValueError as ``token_tree``.
    """
    tree = token_tree(vocab, horizon, end=end)
    logits, hidden = _draw(tree, seed)
    total = hidden.sum(1)
    return Problem(tree, spread * logits, (total > 0).astype(float) if binary else total)


def hidden_rewards(tree: TokenTree, *, seed: int = 0) -> Float[ndarray, "B T"]:
    """The token rewards behind ``random_problem`` with that seed; they sum to R where it is not binary."""
    return _draw(tree, seed)[1]


def reference_problem(*, binary: bool = False) -> Problem:
    """The 15 answers of at most 3 tokens on which this project's reference numbers were measured."""
    return random_problem(3, 3, end=2, binary=binary, spread=0.8, seed=1)


def _draw(tree: TokenTree, seed: int) -> tuple[ndarray, ndarray]:
    rng = np.random.default_rng(seed)
    logits, hidden = rng.standard_normal(tree.logits_shape), rng.standard_normal(tree.logits_shape)
    return logits, hidden[tree.node, tree.tokens] * tree.scored
