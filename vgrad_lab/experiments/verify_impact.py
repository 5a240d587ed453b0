"""Deterministic checks and counterexamples of the floor-1 statements (S10, S17, S22-S27); NumPy only."""

import itertools

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab import impact, simplex
from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.one_step import OneStep, one_step, softmax
from vgrad_lab.ray import adam_step
from vgrad_lab.stats import spearman
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM

_BASELINES: tuple[Baseline, ...] = ("standardised", "group_mean", "leave_one_out")


def expected_logit_gradient(
    p: Float[ndarray, " V"],
    reward: Float[ndarray, " V"],
    group_size: int,
    baseline: Baseline,
    *,
    ddof: int = 0,
    eps: float = 0.0,
) -> Float[ndarray, " V"]:
    """E[(1/G) Σ_i Â_i ∂_z log p(a_i)] over all V^G groups, by enumeration."""
    groups = np.array(list(itertools.product(range(len(p)), repeat=group_size)))
    advantage = from_group(reward[groups], baseline, ddof=ddof, eps=eps)
    score = np.eye(len(p))[groups] - p
    return np.einsum("q,qg,qgv->v", np.prod(p[groups], 1), advantage, score) / group_size


def draw_task(rng: np.random.Generator, vocabulary: int = 4, width: int = 5) -> tuple[ndarray, ndarray, ndarray]:
    """A random one-step task: head (V, S), hidden (1, S), target (1,)."""
    head, hidden = rng.normal(size=(vocabulary, width)), rng.normal(size=(1, width))
    return head, hidden, rng.integers(0, vocabulary, 1)


def enumerate_one_step(
    head: Float[ndarray, "V S"], hidden: Float[ndarray, "1 S"], target: int, group_size: int, baseline: Baseline
) -> dict[str, float]:
    """Alignment, both gaps and the second moment of the costate by summing over all V^G groups (ddof 0, ε 0)."""
    p = softmax(hidden @ head.T)[0]
    groups = np.array(list(itertools.product(range(len(p)), repeat=group_size)))
    weight = np.prod(p[groups], 1)
    advantage = from_group((groups == target).astype(float), baseline, ddof=0, eps=0.0)[:, 0]
    costate = advantage[:, None] * (head - p @ head)[groups[:, 0]]
    gradient = p[target] * (head[target] - p @ head)
    norm = float(np.linalg.norm(gradient))
    return {
        "alignment": float(weight @ (costate @ gradient)),
        "gap_conditional": norm * float(np.linalg.norm(weight @ costate - gradient)),
        "gap_per_sample": norm * float(weight @ np.linalg.norm(costate - gradient, axis=1)),
        "costate_second_moment": float(weight @ (costate**2).sum(1)),
    }


def s10_scale(*, seed: int = 0, examples: int = 20) -> Evidence:
    """κ_n(p)·∂J against enumeration of every group, three baselines, n = 2..5."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        p = rng.dirichlet(np.ones(3))
        for n, baseline in itertools.product(range(2, 6), _BASELINES):
            got = expected_logit_gradient(p, np.eye(3)[0], n, baseline)
            scale = impact.grpo_scale(p[:1], n, baseline=baseline, ddof=0, eps=0.0)[0]
            worst = max(worst, float(np.abs(got - scale * p[0] * (np.eye(3)[0] - p)).max()))
    return Evidence(worst, ALGEBRA, f"enumeration of V^n groups, {examples} policies")


def s10_nonbinary_counterexample() -> Counterexample:
    """p = (.45,.45,.1), r = (0,1,10), n = 2: the middle logit moves the wrong way."""
    p, reward = np.array([0.45, 0.45, 0.1]), np.array([0.0, 1.0, 10.0])
    true = p * (reward - p @ reward)
    got = expected_logit_gradient(p, reward, 2, "standardised")
    return Counterexample(float(got[1]), float(true[1]), 0.3, "middle logit: GRPO against ∂J (opposite signs)")


def draw_simplex(rng: np.random.Generator, vocabulary: int) -> Float[ndarray, "1 V"]:
    """One distribution from a mixture that reaches sharp, flat, dusty and two-atom corners."""
    kind = rng.integers(4)
    if kind == 0:
        p = rng.dirichlet(np.full(vocabulary, 10 ** rng.uniform(-2, 1)))
    elif kind == 1:
        p = softmax(rng.normal(size=(1, vocabulary)) * 10 ** rng.uniform(-1, 1.3))[0]
    elif kind == 2:
        k = int(rng.integers(1, vocabulary + 1))
        p = np.where(np.arange(vocabulary) < k, 1.0, 10 ** rng.uniform(-12, -3))
    else:
        epsilon = 10 ** rng.uniform(-12, -0.31)
        p = np.zeros(vocabulary)
        p[:2] = 1 - epsilon, epsilon
    p = np.maximum(p, 0)
    return (p / p.sum())[None]


def s17_sharp(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Largest violation of the corrected bounds over the mixed simplex generator."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples * 10):
        p = draw_simplex(rng, int(rng.integers(2, 40)))
        h, kappa = simplex.entropy(p), simplex.softmax_covariance_norm(p)
        sharp, x = simplex.sharp_entropy_bound(h), p.max(1)
        over = (kappa - sharp, sharp - simplex.linear_entropy_bound(h), kappa - 2 * x * (1 - x), x * (1 - x) - kappa)
        worst = max(worst, *(float(o[0]) for o in over), float((kappa - simplex.SOFTMAX_CONSTANT * np.sqrt(h))[0]))
    return Evidence(worst, 1e-11, f"largest violation, {examples * 10} distributions, absolute")


def s17_counterexample() -> Counterexample:
    """C·√(H/ln V) with C = 1 at (½,½,0,…) and V = 100352 is below the covariance norm ½."""
    p = np.zeros((1, 100_352))
    p[0, :2] = 0.5
    bound = simplex.paper_entropy_bound(simplex.entropy(p), p.shape[1], 1.0)[0]
    norm = simplex.softmax_covariance_norm(p)[0]
    return Counterexample(
        float(bound), float(norm), 0.2, "bound with C = 1 against the norm it should exceed, V = 100352"
    )


def s22_alignment(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E⟨λ̂,G⟩ = κ_n Σ and E⟨λ̂,G⟩ ≥ Σ − Λ_cond ≥ Σ − Λ_sample against enumeration."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        head, hidden, target = draw_task(rng)
        m = one_step(head, hidden, target, group_size=4, ddof=0, eps=0.0)
        exact = enumerate_one_step(head, hidden, int(target[0]), 4, "standardised")
        chain = (m.signal - m.gap_conditional - m.alignment, m.gap_conditional - m.gap_per_sample)
        worst = max(worst, abs(float(m.alignment[0]) - exact["alignment"]), *(float(c[0]) for c in chain))
    return Evidence(worst, ALGEBRA, f"enumeration of V^n groups, {examples} tasks, absolute")


def _rare_success() -> OneStep:
    """Four tokens, identity head, p_y = 0.01, groups of 8, ddof 0."""
    p = np.array([0.01, 0.33, 0.33, 0.33])
    return one_step(np.eye(4), np.log(p)[None], np.array([0]), group_size=8, ddof=0, eps=0.0)


def s22_counterexample() -> Counterexample:
    """S/Σ at perfect alignment (û = κG): the 'usable' share should be at least 1, it is 2 − κ < 0."""
    m = _rare_success()
    usable = float((m.signal - m.gap_conditional)[0] / m.signal[0])
    return Counterexample(usable, float(m.alignment[0] / m.signal[0]), 3.0, "S/Σ against E⟨λ̂,G⟩/Σ, p_y = .01, n = 8")


def s23_closed_form(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Every closed form of the one-step task against enumeration, three baselines."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        head, hidden, target = draw_task(rng)
        for baseline in _BASELINES:
            m = one_step(head, hidden, target, group_size=4, baseline=baseline, ddof=0, eps=0.0)
            exact = enumerate_one_step(head, hidden, int(target[0]), 4, baseline)
            worst = max(worst, *(abs(float(getattr(m, k)[0]) - v) / max(1.0, abs(v)) for k, v in exact.items()))
    return Evidence(worst, CLOSED_FORM, f"enumeration of V^n groups, {examples} tasks × 3 baselines")


def s23_counterexample() -> Counterexample:
    """V = 2, baseline b = p = .1: an unbiased costate (gap 0) with per-sample gap 2|1−2p|Σ = 1.6Σ."""
    p = np.array([0.1, 0.9])
    distance = np.array([1.0, 0.0]) - p
    gradient = p[0] * distance
    costate = np.array([(1 - p[0]) * (np.eye(2)[0] - p), (0 - p[0]) * (np.eye(2)[1] - p)])
    norm = np.linalg.norm(gradient)
    per_sample = norm * float(p @ np.linalg.norm(costate - gradient, axis=1)) / norm**2
    conditional = norm * float(np.linalg.norm(p @ costate - gradient)) / norm**2
    return Counterexample(
        float(per_sample), float(conditional), 1.5, "Λ_sample/Σ against Λ_cond/Σ for an unbiased costate"
    )


def s24_headroom(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Violations of 0 ≤ H ≤ min(max−mean, α range²/8), of monotonicity, and of the Bernoulli form."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        reward, alphas = rng.normal(size=6) * 3, np.sort(10 ** rng.uniform(-2, 2, 4))
        h = [impact.headroom(reward, float(a)) for a in alphas]
        span = float(np.ptp(reward))
        over = [x - min(reward.max() - reward.mean(), a * span**2 / 8) for x, a in zip(h, alphas, strict=True)]
        p = rng.random(1)
        atoms = impact.headroom(np.array([0.0, 1.0]), float(alphas[0]), weight=np.array([1 - p[0], p[0]]))
        form = abs(atoms - float(impact.headroom_bernoulli(p, float(alphas[0]))[0]))
        worst = max(worst, form, *(-x / span for x in h), *(o / span for o in over), *(-np.diff(h) / span))
    return Evidence(float(worst), 1e-11, f"largest violation relative to the range, {examples} rewards")


def s25_peak(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Grid argmax of H_α(p) against p* = 1/α − 1/(e^α − 1)."""
    grid = np.linspace(1e-5, 1 - 1e-5, 200_001)
    alphas = np.linspace(0.5, 20, examples) + np.random.default_rng(seed).uniform(0, 0.1)
    gaps = [abs(grid[np.argmax(impact.headroom_bernoulli(grid, float(a)))] - (1 / a - 1 / np.expm1(a))) for a in alphas]
    return Evidence(float(max(gaps)), 1e-4, f"grid argmax, {examples} values of α, absolute")


def free_logit_gain(start: Float[ndarray, " Q"], group_size: int, vocabulary: int, time: float) -> Float[ndarray, " Q"]:
    """Gain in p of the expected GRPO flow on free logits, dp/ds = κ_n(p) c (p(1−p))², c = V/(V−1) (ledger O8)."""
    from scipy.integrate import solve_ivp

    c = vocabulary / (vocabulary - 1)

    def rate(_: float, p: ndarray) -> ndarray:
        p = np.clip(p, 0.0, 1.0)
        return impact.grpo_scale(p, group_size, ddof=0, eps=0.0) * c * (p * (1 - p)) ** 2

    end = solve_ivp(rate, (0, time), start, rtol=1e-9, atol=1e-11).y[:, -1]
    return np.asarray(end - start)


def s26_counterexample() -> Counterexample:
    """Rank correlation of S_sample·H_1 with the gain of the free-logit flow (V = 4, n = 8, time 2): claimed +1."""
    start = np.linspace(0.02, 0.98, 49)
    p = np.column_stack([start, *[(1 - start) / 3] * 3])
    m = one_step(np.eye(4), np.log(p), np.zeros(49, dtype=int), group_size=8, ddof=0, eps=0.0)
    score = (m.signal - m.gap_per_sample) * impact.headroom_bernoulli(start, 1.0)
    return Counterexample(1.0, spearman(score, free_logit_gain(start, 8, 4, 2.0)), 1.5, "Spearman of S·H with the gain")


def s26_first_order(*, seed: int = 0, examples: int = 20) -> Evidence:
    """(ΔR/η)/(κ_n Σ) − 1 for one small expected GRPO step on free logits."""
    rng, worst, eta = np.random.default_rng(seed), 0.0, 1e-6
    for _ in range(examples):
        z = rng.normal(size=(1, 4))
        m = one_step(np.eye(4), z, np.array([0]), group_size=8, ddof=0, eps=0.0)
        after = softmax(z + eta * m.scale[:, None] * m.value_gradient)[0, 0]
        worst = max(worst, abs(float((after - m.success[0]) / eta / m.alignment[0]) - 1))
    return Evidence(worst, 1e-5, f"relative, η = 1e-6, {examples} policies (the error is O(η) plus rounding)")


def adam_travel(gradient: Float[ndarray, "K P"], *, beta1: float = 0.9, beta2: float = 0.999) -> Float[ndarray, " P"]:
    """Mean update of Adam over a sequence of gradients, in units of the learning rate."""
    first, second, total = np.zeros(gradient.shape[1]), np.zeros(gradient.shape[1]), np.zeros(gradient.shape[1])
    for k, g in enumerate(gradient, start=1):
        first, second = beta1 * first + (1 - beta1) * g, beta2 * second + (1 - beta2) * g**2
        total += first / (1 - beta1**k) / np.sqrt(second / (1 - beta2**k))
    return total / len(gradient)


def alternating(mean: Float[ndarray, " P"], spread: Float[ndarray, " P"], updates: int) -> Float[ndarray, "K P"]:
    """Gradients μ + σ, μ − σ, μ + σ, …: mean μ and variance σ² over every pair."""
    sign = np.where(np.arange(updates) % 2 == 0, 1.0, -1.0)
    return mean + sign[:, None] * spread


def s26_adam(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Mean update of Adam on alternating gradients less μ/√(μ² + σ²)."""
    rng = np.random.default_rng(seed)
    mean, spread = rng.normal(size=examples), np.abs(rng.normal(size=examples))
    found = adam_travel(alternating(mean, spread, 4000), beta2=0.9999)
    worst = float(np.abs(found - adam_step(mean, spread**2)).max())
    return Evidence(worst, 1e-2, f"absolute, 4000 updates, β₂ = .9999, {examples} parameters (error O(1/updates))")


def s27_counterexample() -> Counterexample:
    """Claimed: a costate as long as ‖G‖; true: with R = p_y shared by the group every advantage is 0."""
    m = _rare_success()
    shared = from_group(np.full((1, 8), m.success[0]))
    gradient = float(np.sqrt(m.signal[0]))
    return Counterexample(
        gradient, float(np.abs(shared).max()), gradient / 2, "‖G‖ against the largest |Â|·…, shared R"
    )


def s27_indicator(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[(1[a=y] − b) d_a] = p_y d_y for random b."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        head, hidden, target = draw_task(rng)
        m = one_step(head, hidden, target, group_size=2)
        p, d = m.probability[0], head - m.probability @ head
        left = (p * (np.eye(len(p))[target[0]] - rng.normal())) @ d
        worst = max(worst, float(np.abs(left - m.value_gradient[0]).max()))
    return Evidence(worst, ALGEBRA, f"finite sums, {examples} tasks, absolute")
