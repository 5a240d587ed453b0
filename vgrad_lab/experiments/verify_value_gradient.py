"""Deterministic checks and counterexamples of S21: expected costate and value gradient, by enumeration."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.experiments.verify_sequence import FLOOR, KINDS, build, draw_model
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.sequence.enumeration import (
    Continuations,
    continuations,
    expected_costate,
    expected_group_advantage,
    sequence_probability,
    value,
    value_gradient,
)
from vgrad_lab.sequence.trace import Patch, SequenceModel, trace
from vgrad_lab.tolerances import ALGEBRA

Errors = Float[ndarray, "L1 T"]


@dataclass(frozen=True)
class Problem:
    """A model, a prompt of one token, a horizon and a reward for each of the vocab^horizon answers."""

    model: SequenceModel
    horizon: int
    reward: Float[ndarray, " B"]

    def after(self, tokens: int) -> tuple[Continuations, slice]:
        """Continuations of the prompt 0 and of ``tokens`` answer tokens (0 1 0 1 …), and their rows in ``reward``."""
        vocab = self.model.vocab
        given = [i % 2 for i in range(tokens)]
        remaining = self.horizon - tokens
        first = sum(token * vocab ** (self.horizon - 1 - i) for i, token in enumerate(given))
        return continuations(vocab, (0, *given), remaining=remaining), slice(first, first + vocab**remaining)


def draw_problem(rng: np.random.Generator, *, binary: bool = False, horizon: int | None = None) -> Problem:
    """A random model of any kind with horizon 1-3; binary rewards hold both values."""
    model = draw_model(rng, KINDS)
    steps = int(rng.integers(1, 4)) if horizon is None else horizon
    size = model.vocab**steps
    reward = rng.permutation(np.arange(size) % 3 == 0).astype(float) if binary else rng.normal(size=size)
    return Problem(model, steps, reward)


def errors(found: torch.Tensor, truth: torch.Tensor) -> Errors:
    """‖found − truth‖ / max(‖truth‖, 1e-3) for every layer and prefix position."""
    return np.asarray((found - truth).norm(dim=-1) / truth.norm(dim=-1).clamp(min=FLOOR))


def return_type_advantage(rng: np.random.Generator, vocab: int, reward: ndarray) -> Float[ndarray, "B T"]:
    """R minus a random baseline b_k(o_{<k}) for every sampled token of every continuation."""
    horizon = round(np.log(len(reward)) / np.log(vocab))
    row = np.arange(len(reward))
    columns = [rng.normal(size=vocab**k)[row // vocab ** (horizon - k)] for k in range(horizon)]
    return reward[:, None] - np.stack(columns, axis=1)


def exact_errors(problem: Problem, rng: np.random.Generator, *, tokens: int, planted: float = 0.0) -> Errors:
    """Relative distance of E[λ̂ | prefix] from the value gradient, with a random return-type advantage."""
    cases, rows = problem.after(tokens)
    reward = problem.reward[rows]
    advantage = return_type_advantage(rng, problem.model.vocab, reward)
    found = expected_costate(problem.model, cases, advantage) * (1 + planted)
    return errors(found, value_gradient(problem.model, cases, reward))


def first_only_errors(problem: Problem, *, tokens: int) -> Errors:
    """The same with the return credited to the first sampled token alone."""
    cases, rows = problem.after(tokens)
    reward = problem.reward[rows]
    first = np.zeros((len(reward), problem.horizon - tokens))
    first[:, 0] = reward
    return errors(expected_costate(problem.model, cases, first), value_gradient(problem.model, cases, reward))


def group_errors(problem: Problem, baseline: Baseline, *, group: int, tokens: int, factor: float) -> Errors:
    """Distance of the group's expected costate from ``factor`` times the value gradient (ddof 0, ε 0)."""
    prompt, _ = problem.after(0)
    chance = sequence_probability(trace(problem.model, prompt.inputs), prompt).detach().numpy()
    rule = partial(from_group, baseline=baseline, ddof=0, eps=0.0)
    advantage = expected_group_advantage(rule, problem.reward, chance, group=group)
    cases, rows = problem.after(tokens)
    truth = value_gradient(problem.model, cases, problem.reward[rows]) * factor
    return errors(expected_costate(problem.model, cases, advantage[rows]), truth)


def success_probability(problem: Problem) -> float:
    """P(R = 1 | prompt) for binary rewards."""
    prompt, _ = problem.after(0)
    chance = sequence_probability(trace(problem.model, prompt.inputs), prompt).detach().numpy()
    return float(chance @ problem.reward)


def s21_exact(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[λ̂_t^(l) | o_<t] = ∂E[R | o_<t, do(h_t^(l))]/∂h for every layer, position and architecture."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(examples):
        problem = draw_problem(rng)
        tokens = int(rng.integers(problem.horizon))
        worst = max(worst, float(exact_errors(problem, rng, tokens=tokens).max()))
    return Evidence(worst, ALGEBRA, "relative to max(‖G‖, 1e-3); random baselines b(o_<k)")


def s21_group(*, seed: int = 0, examples: int = 6) -> Evidence:
    """Group baselines scale the value gradient: own mean by (n−1)/n, leave-one-out by 1, std (binary) by κ_n(p)."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for i in range(examples):
        problem = draw_problem(rng, binary=True, horizon=2)
        group, tokens = 2 + i % 2, int(rng.integers(2))
        p = np.array([success_probability(problem)])
        kappa = float(grpo_scale(p, group, ddof=0, eps=0.0)[0])
        factors: tuple[tuple[Baseline, float], ...] = (
            ("leave_one_out", 1.0),
            ("group_mean", (group - 1) / group),
            ("standardised", kappa),
        )
        for baseline, factor in factors:
            found = group_errors(problem, baseline, group=group, tokens=tokens, factor=factor)
            worst = max(worst, float(found.max()))
    return Evidence(worst, ALGEBRA, "relative; brute force over all groups of 2 and 3")


def prefix_dependence(model: SequenceModel, *, layer: int) -> float:
    """Relative difference of ∂V/∂h between two prefixes of equal length at one and the same patched h.

    The reward depends on all tokens, those of the prefix included.
    """
    rewards = np.random.default_rng(0).normal(size=(2, model.vocab**2))
    cases = [continuations(model.vocab, (0, token, 0), remaining=2) for token in (0, 1)]
    h = trace(model, cases[0].inputs[:1]).hidden[layer, 0, 2].detach().requires_grad_()
    gradients = [
        torch.autograd.grad(value(model, case, reward, patch=Patch(layer, 2, h)), h)[0]
        for case, reward in zip(cases, rewards, strict=True)
    ]
    return float((gradients[0] - gradients[1]).norm() / gradients[0].norm())


def s21_prefix() -> Counterexample:
    """The value gradient as a function of h_t alone: the same h under two prefixes of a transformer."""
    differences = [prefix_dependence(build("pre", vocab=3, layers=3, seed=0), layer=layer) for layer in range(4)]
    shown = ", ".join(f"{d:.2f}" for d in differences)
    return Counterexample(0.0, differences[-1], 0.1, f"relative difference of G at one h, l = 0…3: {shown}")


def relaxed_and_discrete(logit: float) -> tuple[float, float, float]:
    """∂E[Q(e_o)]/∂h, ∂Q(E e_o)/∂h and the entropy (nats) for Q(x) = 2x² − x, tokens 0 and 1, logits (0, h)."""
    h = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(h)
    discrete = torch.autograd.grad(p * 1.0, h, retain_graph=True)[0]
    relaxed = torch.autograd.grad(2 * p**2 - p, h)[0]
    q = float(p.detach())
    entropy = -(q * np.log(q) + (1 - q) * np.log1p(-q))
    return float(discrete), float(relaxed), float(entropy)


def s21_counterexample() -> Counterexample:
    """Ratio of the relaxed to the discrete gradient as the entropy falls: it tends to −1, not to 1."""
    rows = [relaxed_and_discrete(logit) for logit in (-2.0, -4.0, -8.0)]
    shown = ", ".join(f"{relaxed / discrete:.4f} (H = {entropy:.2g})" for discrete, relaxed, entropy in rows)
    return Counterexample(1.0, rows[-1][1] / rows[-1][0], 1.0, f"G_relaxed/G_discrete: {shown}")


def relaxed_gap_ratio(
    head: Float[ndarray, "V S"], table: Float[ndarray, "V A"], curvature: Float[ndarray, "A A"],
    slope: Float[ndarray, " A"], p: Float[ndarray, " V"],
) -> float:  # fmt: skip
    """‖G_disc − G_relax‖ over its bound ‖W‖ L₂ diam(E)² (1−‖p‖²)/(2√2), for Q(x) = ½x'Cx + b'x."""
    covariance = np.diag(p) - np.outer(p, p)
    returns = 0.5 * np.einsum("va,ab,vb->v", table, curvature, table) + table @ slope
    relaxed = table @ (curvature @ (p @ table) + slope)
    gap = np.linalg.norm(head.T @ covariance @ (returns - relaxed))
    diameter = np.linalg.norm(table[:, None] - table[None], axis=-1).max()
    bound = np.linalg.norm(head, 2) * np.linalg.norm(curvature, 2) * diameter**2 * (1 - p @ p) / (2 * np.sqrt(2))
    return float(gap / bound)


def s21_relaxed(*, seed: int = 0, examples: int = 200) -> Evidence:
    """One step: the gap between discrete and relaxed value gradient is within its bound; residual = ratio − 1."""
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(examples):
        vocab = int(rng.integers(2, 7))
        half = rng.normal(size=(3, 3))
        p = rng.dirichlet(np.full(vocab, 10.0 ** rng.uniform(-2, 1)))
        if p.max() < 1 - 1e-9:
            head, table = rng.normal(size=(vocab, 4)), rng.normal(size=(vocab, 3))
            ratios.append(relaxed_gap_ratio(head, table, half + half.T, rng.normal(size=3), p))
    tight = relaxed_gap_ratio(
        np.array([[1.0], [-1.0]]), np.array([[0.0], [1.0]]), np.array([[2.0]]), np.zeros(1), np.array([1 - 1e-4, 1e-4])
    )
    largest = max(ratios, default=0.0)  # saturated draws are left out, at worst all of them
    detail = f"largest ratio to the bound {largest:.3f} of {len(ratios)} draws; tight instance {tight:.4f}"
    return Evidence(max(largest, tight) - 1, 0.0, detail)
