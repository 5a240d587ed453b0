"""Deterministic checks and counterexamples of S20: Theorem 1's faults one by one, and the identity that is exact."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.sequence.two_costates import (
    Paths,
    costate_difference,
    difference_bound,
    difference_sum,
    paper_bound,
    pull_back,
)
from vgrad_lab.tolerances import ALGEBRA


@dataclass(frozen=True)
class Fault:
    """One fault of Theorem 1: the right side of eq. 23, the true ‖E λ̂_1 − E λ_1‖, and what was changed."""

    bound: float
    difference: float
    detail: str


def _scalar(
    probability: list[float], *, credit: list[list[float]], reward_gradient: list[list[float]],
    jacobian: list[list[float]], true_jacobian: list[list[float]],
) -> Paths:  # fmt: skip
    """Paths with one state dimension, one row per path, that part at their second node."""
    rows = np.arange(len(probability))[:, None]
    state = np.where(np.arange(len(credit[0]) + 1) == 0, 0, rows)
    terms = [np.array(term, dtype=float)[..., None] for term in (credit, reward_gradient)]
    steps = [np.array(step, dtype=float)[..., None, None] for step in (jacobian, true_jacobian)]
    return Paths(state, np.array(probability), *terms, *steps)


def discount_fault(discount: float = 0.5) -> Fault:
    """J = D and equal terms, so no gap; eq. 15 has no γ, and λ̂_1 − λ_1 = (1 − γ) J λ_2."""
    one = [[1.0, 1.0]]
    paths = _scalar([1.0], credit=one, reward_gradient=one, jacobian=one, true_jacobian=one)
    empirical = pull_back(paths.credit, paths.jacobian, discount=1.0)
    true = pull_back(paths.reward_gradient, paths.true_jacobian, discount=discount)
    difference = abs(float((empirical - true)[0, 0, 0]))
    return Fault(paper_bound(paths, discount=discount), difference, f"no γ in eq. 15, γ = {discount:g}")


def power_paths() -> Paths:
    """Norms 10 and .1 of two steps, a gap of 1 in the second: the product puts 10 before it, the power .1."""
    terms = [[0.0, 0.0, 1.0]]
    return _scalar(
        [1.0], credit=terms, reward_gradient=terms, jacobian=[[10.0, 0.1, 0.0]], true_jacobian=[[10.0, 1.1, 0.0]]
    )


def power_fault() -> Fault:
    """‖J_{k←k−1}‖^{k−t−1} in the place of the product of the norms."""
    paths = power_paths()
    return Fault(paper_bound(paths), _gap(paths), "a power of one norm for the product of norms")


def correlation_fault() -> Fault:
    """D − J = λ_2 = ±1 with equal chance: E[λ_2 | S_1] = 0, but E[(D − J) λ_2] = 1."""
    terms, sign = [[0.0, 1.0], [0.0, -1.0]], [[1.0, 0.0], [-1.0, 0.0]]
    paths = _scalar(
        [0.5, 0.5], credit=terms, reward_gradient=terms, jacobian=[[0.0, 0.0]] * 2, true_jacobian=sign
    )  # fmt: skip
    return Fault(paper_bound(paths), _gap(paths), "the gap depends on what is drawn, as λ does")


def rollout_fault() -> Fault:
    """r = s³ after s_2 = a token ±1, or its mean 0 in the relaxed rollout; no gap in any Jacobian."""
    ones = [[1.0, 0.0]] * 2
    slopes = [[0.0, 3 * s**2] for s in (1.0, -1.0)]
    drawn = _scalar([0.5, 0.5], credit=slopes, reward_gradient=slopes, jacobian=ones, true_jacobian=ones)
    relaxed = _scalar(
        [1.0], credit=[[0.0, 0.0]], reward_gradient=[[0.0, 0.0]], jacobian=[[1.0, 0.0]], true_jacobian=[[1.0, 0.0]]
    )
    empirical = drawn.probability @ pull_back(drawn.credit, drawn.jacobian)[:, 0]
    true = relaxed.probability @ pull_back(relaxed.reward_gradient, relaxed.true_jacobian)[:, 0]
    return Fault(paper_bound(relaxed), abs(float((empirical - true)[0])), "λ̂ on drawn tokens, λ on the relaxed ones")


def state_fault() -> Fault:
    """One token o with P(o = 1) = σ(h), h = 0, R = o: the reward reads the token, so Dr = 0, but E λ̂ = p(1−p)."""
    h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    logprob = torch.nn.functional.logsigmoid(torch.cat([-h, h]))
    credit = [[float(r * torch.autograd.grad(logprob[r], h, retain_graph=True)[0])] for r in (0, 1)]
    zero = [[0.0]] * 2
    paths = _scalar([0.5, 0.5], credit=credit, reward_gradient=zero, jacobian=zero, true_jacobian=zero)
    return Fault(paper_bound(paths), _gap(paths), "the state does not fix the reward; immediate terms do not align")


FAULTS = (discount_fault, power_fault, correlation_fault, rollout_fault, state_fault)
"""Theorem 1's faults, each with no other fault beside it."""


def _gap(paths: Paths) -> float:
    return float(np.linalg.norm(costate_difference(paths, time=0)[0]))


def s20_counterexample() -> Counterexample:
    """All five faults of eq. 23; the numbers are those of the rollout mismatch, 3 where the bound says 0."""
    found = [fault() for fault in FAULTS]
    shown = "; ".join(f"{f.detail}: {f.difference:.3g} > {f.bound:.3g}" for f in found)
    worst = found[FAULTS.index(rollout_fault)]
    return Counterexample(worst.bound, worst.difference, 1.0, shown)


def draw_chain(rng: np.random.Generator) -> Paths:
    """Every path of a random Markov chain (2-3 states, 1-4 steps, width 1-3); all terms depend on (S_k, S_{k+1})."""
    states, steps, width = (int(rng.integers(low, high)) for low, high in ((2, 4), (1, 5), (1, 4)))
    path = np.stack(np.meshgrid(*[np.arange(states)] * (steps + 1), indexing="ij"), -1).reshape(-1, steps + 1)
    chance = rng.dirichlet(np.ones(states))[path[:, 0]]
    terms: dict[str, list[np.ndarray]] = {"credit": [], "reward_gradient": [], "jacobian": [], "true_jacobian": []}
    for k in range(steps):
        here, there = path[:, k], path[:, k + 1]
        chance = chance * (0.02 + 0.98 * rng.dirichlet(np.ones(states), size=states))[here, there]
        for name, kept in terms.items():
            shape = (states, states, width) + ((width,) if "jacobian" in name else ())
            kept.append(rng.normal(size=shape)[here, there])
    stacked = {name: np.stack(kept, axis=1) for name, kept in terms.items()}
    return Paths(state=path, probability=chance / chance.sum(), **stacked)


def draw_system(rng: np.random.Generator) -> tuple[Paths, torch.Tensor]:
    """A closed loop s' = tanh(A s + B a), a = K s + ξ with ξ of finite support, and its costates λ_1 by autograd.

    J is the path with actions held fixed, D the whole; S_t is labelled by the noise drawn so far.
    """
    steps, width, support = 3, 2, 2
    a, b, k = (torch.from_numpy(rng.normal(size=(width, width))) for _ in range(3))
    weight = torch.from_numpy(rng.normal(size=width))
    noise, chance = torch.from_numpy(rng.normal(size=(support, width))), rng.dirichlet(np.ones(support) * 3)
    draw = np.stack(np.meshgrid(*[np.arange(support)] * steps, indexing="ij"), -1).reshape(-1, steps)
    start = torch.from_numpy(rng.normal(size=width)).repeat(len(draw), 1).requires_grad_()
    s, total, fixed, whole, slope = start, torch.zeros((), dtype=torch.float64), [], [], []
    for t in range(steps):
        action = s @ k.T + noise[draw[:, t]]
        total = total + torch.sin(s @ weight + action.sum(-1)).sum()
        cosine = torch.cos(s @ weight + action.sum(-1))[:, None]
        slope.append(cosine * (weight + k.sum(0)))
        s = torch.tanh(s @ a.T + action @ b.T)
        outer = torch.diag_embed(1 - s**2)
        fixed.append(outer @ a)
        whole.append(outer @ (a + b @ k))
    code = (draw + 1) * (support + 1) ** np.arange(steps)
    prefix = np.concatenate([np.zeros((len(draw), 1), dtype=int), code.cumsum(1)], axis=1)
    reward_gradient, jacobian, true = (torch.stack(x, 1).detach().numpy() for x in (slope, fixed, whole))
    credit = rng.normal(size=reward_gradient.shape)
    paths = Paths(prefix, chance[draw].prod(1), credit, reward_gradient, jacobian, true)
    return paths, torch.autograd.grad(total, start)[0]


def identity_error(paths: Paths, *, discount: float, planted: float = 0.0) -> float:
    """Largest ‖difference − sum‖ / max(‖λ̂‖ + ‖λ‖ over the paths, 1e-3) over all times."""
    scale = max(
        float(np.abs(pull_back(term, step, discount=discount)).max())
        for term, step in ((paths.credit, paths.jacobian), (paths.reward_gradient, paths.true_jacobian))
    )
    wrong = [
        costate_difference(paths, time=t, discount=discount)
        - (1 + planted) * difference_sum(paths, time=t, discount=discount)
        for t in range(paths.credit.shape[1])
    ]
    return float(np.abs(wrong).max()) / max(scale, 1e-3)


def bound_excess(paths: Paths, *, discount: float) -> float:
    """Largest ‖difference‖ / bound − 1 over all times and states; where both are 0 the ratio is 0."""
    largest = 0.0
    for t in range(paths.credit.shape[1]):
        difference = np.linalg.norm(costate_difference(paths, time=t, discount=discount), axis=-1)
        bound = difference_bound(paths, time=t, discount=discount)
        if np.any((bound == 0) & (difference > 0)):
            return float("inf")
        largest = max(largest, float((difference / np.where(bound > 0, bound, 1.0)).max()))
    return largest - 1


def merged(paths: Paths) -> Paths:
    """The same paths with the states of the middle nodes merged, so that the label is no Markov state."""
    label = paths.state.copy()
    label[:, 1:-1] = 0
    return replace(paths, state=label)


def s20_identity(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[λ̂_t − λ_t | S_t] equals the sum of pulled-back differences of terms and transition Jacobians."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for i in range(examples):
        paths = draw_chain(rng) if i % 2 else draw_system(rng)[0]
        worst = max(worst, identity_error(paths, discount=float(rng.uniform(0, 1))))
    return Evidence(worst, ALGEBRA, f"{examples} finite systems, every time and state, relative to the costates")


def s20_bound(*, seed: int = 0, examples: int = 20) -> Evidence:
    """The bound that the identity gives; residual = largest ratio − 1."""
    rng = np.random.default_rng(seed)
    ratios = []
    for i in range(examples):
        paths = draw_chain(rng) if i % 2 else draw_system(rng)[0]
        ratios.append(bound_excess(paths, discount=float(rng.uniform(0, 1))))
    tight = bound_excess(power_paths(), discount=1.0)
    detail = f"largest ratio to the bound {max(ratios, default=0.0) + 1:.4f}; attained in one dimension"
    return Evidence(max([tight, *ratios]), ALGEBRA, detail)
