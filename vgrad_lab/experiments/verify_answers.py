"""Deterministic checks of S21 on answers that end early: critics, GAE, group baselines and the factor 1/T."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group, gae
from vgrad_lab.experiments.verify_sequence import build, draw_model
from vgrad_lab.experiments.verify_value_gradient import Errors, errors
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.sequence.enumeration import (
    Continuations,
    continuations,
    expected_costate,
    expected_group_advantage,
    sequence_probability,
    value_gradient,
)
from vgrad_lab.sequence.trace import SequenceModel, trace
from vgrad_lab.tolerances import ALGEBRA, QUADRATURE


@dataclass(frozen=True)
class Answers:
    """All answers to the prompt 0 of at most ``horizon`` tokens, ended by the last token of the vocabulary.

    reward: one number per answer.
    """

    model: SequenceModel
    horizon: int
    cases: Continuations
    reward: Float[ndarray, " B"]

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return self.model.vocab - 1

    def after(self, tokens: int) -> tuple[Continuations, slice]:
        """Continuations of the prompt and of ``tokens`` more zeros, and their rows among all answers."""
        cases = continuations(
            self.model.vocab, (0,) * (1 + tokens), remaining=self.horizon - tokens, end=self.end
        )  # fmt: skip
        rows = np.flatnonzero((self.cases.targets[:, :tokens] == 0).all(1).numpy())
        return cases, slice(int(rows[0]), int(rows[-1]) + 1)

    def chance(self) -> Float[ndarray, " B"]:
        """π of every answer."""
        return np.asarray(sequence_probability(trace(self.model, self.cases.inputs), self.cases).detach())


def answers(
    model: SequenceModel, horizon: int, rng: np.random.Generator, *, binary: bool = False
) -> Answers:  # fmt: skip
    """All answers with random rewards, normal or binary (with both values)."""
    cases = continuations(model.vocab, (0,), remaining=horizon, end=model.vocab - 1)
    size = len(cases.targets)
    reward = rng.permutation(np.arange(size) % 2).astype(float) if binary else rng.normal(size=size)
    return Answers(model, horizon, cases, reward)


def draw_answers(rng: np.random.Generator, *, binary: bool = False, horizon: int | None = None) -> Answers:
    """Answers of a random model of any kind, horizon 1-3 unless given."""
    return answers(draw_model(rng), int(rng.integers(1, 4)) if horizon is None else horizon, rng, binary=binary)


def prefix_values(cases: Continuations, rng: np.random.Generator) -> Float[ndarray, "B T1"]:
    """A random number for every prefix that is still open, 0 after the end: an arbitrary critic."""
    answer, scored = cases.targets[:, cases.sampled].numpy(), cases.scored[:, cases.sampled].numpy()
    columns = []
    for k in range(answer.shape[1]):
        _, prefix = np.unique(answer[:, :k], axis=0, return_inverse=True)
        columns.append(rng.normal(size=len(answer))[prefix.reshape(-1)] * scored[:, k])
    return np.stack([*columns, np.zeros(len(answer))], axis=1)


def exact_values(
    cases: Continuations, chance: Float[ndarray, " B"], reward: Float[ndarray, " B"]
) -> Float[ndarray, "B T1"]:
    """V of every open prefix, E[R | prefix], 0 after the end: the exact critic of rewards paid at the end."""
    answer, scored = cases.targets[:, cases.sampled].numpy(), cases.scored[:, cases.sampled].numpy()
    columns = []
    for k in range(answer.shape[1]):
        _, prefix = np.unique(answer[:, :k], axis=0, return_inverse=True)
        mass = np.bincount(prefix.reshape(-1), chance)
        columns.append((np.bincount(prefix.reshape(-1), chance * reward) / mass)[prefix.reshape(-1)] * scored[:, k])
    return np.stack([*columns, np.zeros(len(answer))], axis=1)


def paid_at_the_end(cases: Continuations, reward: Float[ndarray, " B"]) -> Float[ndarray, "B T"]:
    """The reward on the last scored token, 0 elsewhere."""
    paid = np.zeros(tuple(cases.targets[:, cases.sampled].shape))
    paid[np.arange(len(reward)), cases.lengths.numpy() - 1] = reward
    return paid


def gae_errors(
    case: Answers, critic: Float[ndarray, "B T1"], *, decay: float, discount: float = 1.0, planted: float = 0.0
) -> Errors:
    """Distance of PPO's expected costate at the prompt from the value gradient, relative, for a given critic."""
    paid = paid_at_the_end(case.cases, case.reward)
    advantage = gae(paid, critic, discount=discount, decay=decay)
    found = expected_costate(case.model, case.cases, advantage) * (1 + planted)
    return errors(found, value_gradient(case.model, case.cases, case.reward))


def group_errors(case: Answers, baseline: Baseline, *, group: int, tokens: int = 0) -> Errors:
    """Distance of the group's expected costate from its factor times the value gradient (ddof 0, ε 0)."""
    chance = case.chance()
    rule = partial(from_group, baseline=baseline, ddof=0, eps=0.0)
    advantage = expected_group_advantage(rule, case.reward, chance, group=group)
    factor = grpo_scale(np.array([chance @ case.reward]), group, baseline=baseline, ddof=0, eps=0.0)[0]
    cases, rows = case.after(tokens)
    truth = value_gradient(case.model, cases, case.reward[rows]) * factor
    return errors(expected_costate(case.model, cases, advantage[rows]), truth)


def s21_answers(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Answers that end early, any architecture: λ = 1 with any critic, any λ with the exact critic."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        case = draw_answers(rng)
        exact = exact_values(case.cases, case.chance(), case.reward)
        critics = ((prefix_values(case.cases, rng), 1.0), (exact, float(rng.uniform())))
        worst = max(worst, *(float(gae_errors(case, critic, decay=decay).max()) for critic, decay in critics))
    return Evidence(worst, ALGEBRA, "relative to max(‖G‖, 1e-3), every layer, four architectures")


def s21_group_answers(*, seed: int = 0, examples: int = 6) -> Evidence:
    """Leave-one-out, own mean and standardised groups of 2-4 with answers that end early, binary rewards."""
    rng, worst = np.random.default_rng(seed), 0.0
    for i in range(examples):
        case = draw_answers(rng, binary=True, horizon=2)
        group = min(2 + i % 3, 3 if case.model.vocab == 4 else 4)
        for baseline in ("leave_one_out", "group_mean", "standardised"):
            worst = max(worst, float(group_errors(case, baseline, group=group, tokens=int(rng.integers(2))).max()))
    return Evidence(worst, QUADRATURE, "relative to max(‖G‖, 1e-3); brute force over all groups of 2-4")


def length_case(model: SequenceModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards 1 and 1.5 for answers of one and two tokens, Â = R/T: E λ̂, ∂E[R/T] and ∂E[R] at the last layer."""
    cases = continuations(2, (0,), remaining=2, end=1)
    length = cases.lengths.numpy().astype(float)
    reward = (1 + length) / 2
    found = expected_costate(model, cases, reward / length)
    gradients = [value_gradient(model, cases, payoff) for payoff in (reward / length, reward)]
    return found[-1, 0], gradients[0][-1, 0], gradients[1][-1, 0]


def s21_length() -> Counterexample:
    """Cosine of E λ̂ with the factor 1/T of eq. 1 and the value gradient of R: 1 is claimed, it is −1."""
    found, _, reward = length_case(build("pre", vocab=2, layers=2, seed=0))
    cosine = float(torch.cosine_similarity(found, reward, dim=0))
    return Counterexample(1.0, cosine, 1.9, "R = 1, 1.5 at T = 1, 2: cosine of E λ̂ with ∂E[R], last layer")
