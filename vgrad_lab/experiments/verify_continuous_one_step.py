"""Evidence and counterexamples for one step: interchange (S01–S03), Lemma 1 (S08), eq. 11 (S09); NumPy only."""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy import ndarray

from vgrad_lab.advantage import group_mean, leave_one_out
from vgrad_lab.continuous import oracles
from vgrad_lab.continuous.environments import linear_quadratic
from vgrad_lab.continuous.estimators import pathwise_gradient
from vgrad_lab.continuous.noise import NOISES, Noise, gaussian, panels, uniform
from vgrad_lab.continuous.policies import linear_policy
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.continuous.variance import one_step_moments
from vgrad_lab.experiments.verify_continuous import draw_system
from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, QUADRATURE
from vgrad_lab.verify import score_and_pathwise

Reward = tuple[Callable[[ndarray], ndarray], Callable[[ndarray], ndarray], tuple[float, ...]]
REWARDS: dict[str, Reward] = {
    "sin": (np.sin, np.cos, ()),
    "square": (np.square, lambda a: 2 * a, ()),
    "bump": (lambda a: np.exp(-(a**2)), lambda a: -2 * a * np.exp(-(a**2)), ()),
    "absolute": (np.abs, np.sign, (0.0,)),
    "hinge": (lambda a: np.maximum(a, 0), lambda a: (a > 0) * 1.0, (0.0,)),
}
"""One-step rewards that are absolutely continuous: r, r' and the actions at which r has a kink."""
STEP: Reward = (lambda a: (a > 0) * 1.0, np.zeros_like, (0.0,))
"""The Heaviside reward: differentiable almost everywhere, its derivative misses the jump."""
ROOT: Reward = (lambda a: np.sqrt(np.abs(a)), lambda a: np.sign(a) / (2 * np.sqrt(np.abs(a))), (0.0,))
"""√|a|: absolutely continuous with an unbounded slope."""
SMOOTH_NOISES = tuple(name for name, make in NOISES.items() if not make(1.0).jumps)
"""Names of the noises whose density does not jump."""


def s01_gelbaum_olmsted() -> Counterexample:
    """a = θ³ξ⁻²e^{−θ²/ξ}, ξ ~ U(0,1), r = a: every path has slope 0 at θ = 0, and J(θ) = θe^{−θ²} has slope 1."""
    noise, step = 0.5 + 0.5 * np.linspace(-1, 1, 101)[1:], 1e-4

    def path(theta: float) -> ndarray:
        return np.asarray(theta**3 / noise**2 * np.exp(-(theta**2) / noise))

    slope_of_paths = float(np.max(np.abs(path(step) - path(-step))) / (2 * step))
    u, weight = panels((step**2, 45.0), ())
    mean = step * float(weight @ np.exp(-u))  # J(θ) after u = θ²/ξ
    return Counterexample(slope_of_paths, mean / step, 0.9, "E ∂R/∂θ against J'(0)")


def s01_interchange(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E ∂R_1/∂θ against ∂J/∂θ in closed form, linear-quadratic systems, along a grid exact for them."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        environment, policy = draw_system(rng, linear=True)
        discount, horizon = float(rng.uniform()), max(1, 4 // environment.action_size)
        noise, weight = oracles.gauss_hermite_noise(3, horizon, environment.action_size, scale=0.5)
        start = np.tile(environment.initial(rng, 1), (len(noise), 1))
        found = weight @ pathwise_gradient(
            environment, policy, rollout(environment, policy, start, noise), discount=discount
        )
        oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=horizon, discount=discount)
        expected = oracles.parameter_gradient(oracle, start[:1])
        worst = max(worst, float(np.max(np.abs(found - expected)) / np.max(np.abs(expected))))
    return Evidence(float(worst), ALGEBRA, f"relative error of E ∂R_1/∂θ over {examples} linear-quadratic systems")


def joint_value(system: tuple[ndarray, ...], second: ndarray, theta: ndarray, discount: float) -> complex:
    """J of a linear policy θ = (K, b) in s' = As + Ba, r = −sᵀQs − aᵀRa, from E[ζζᵀ], ζ = (1, s_1, ξ_1, …, ξ_T).

    States and actions are linear in ζ whatever the joint law of start and noise is.
    """
    A, B, Q, R = system
    size, action_size = B.shape
    gain, bias = theta[: action_size * size].reshape(action_size, size), theta[action_size * size :]
    now = np.zeros((size, len(second)), complex)
    now[:, 1 : 1 + size] = np.eye(size)
    total: complex = 0
    for t in range((len(second) - 1 - size) // action_size):
        action = gain @ now
        action[:, 0] += bias
        first = 1 + size + t * action_size
        action[:, first : first + action_size] += np.eye(action_size)
        total -= discount**t * np.trace((now.T @ Q @ now + action.T @ R @ action) @ second)
        now = A @ now + B @ action
    return total


def s01_dependent(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E ∂R_1/∂θ against ∂J/∂θ for noise that depends on time, on itself and on s_1: a joint Gaussian law."""
    rng, worst, tiny = np.random.default_rng(seed), 0.0, 1e-30
    for _ in range(examples):
        size, horizon, discount = int(rng.integers(1, 3)), int(rng.integers(2, 5)), float(rng.uniform())
        A, B, half = (0.5 * rng.standard_normal(shape) for shape in ((size, size), (size, 1), (size, size)))
        environment = linear_quadratic(A, B, half @ half.T, np.eye(1))
        policy = linear_policy(0.3 * rng.standard_normal((1, size)), rng.standard_normal(1))
        count = size + horizon
        root, centre = 0.5 * rng.standard_normal((count, count)), rng.standard_normal(count)
        grid, weight = oracles.gauss_hermite_noise(3, count, 1)
        joint = centre + grid[..., 0] @ root.T
        played = rollout(environment, policy, joint[:, :size], joint[:, size:, None])
        found = weight @ pathwise_gradient(environment, policy, played, discount=discount)
        mean = np.concatenate([[1.0], centre])
        second = np.outer(mean, mean)
        second[1:, 1:] += root @ root.T
        system = (A, B, half @ half.T, np.eye(1))
        steps = [policy.theta + 1j * tiny * unit for unit in np.eye(len(policy.theta))]
        expected = np.array([joint_value(system, second, theta, discount).imag / tiny for theta in steps])
        worst = max(worst, float(np.max(np.abs(found - expected)) / np.max(np.abs(expected))))
    return Evidence(worst, CLOSED_FORM, f"relative error of E ∂R_1/∂θ over {examples} joint laws")


def s02_moving_support() -> Counterexample:
    """x ~ U(0, θ), c = x: the score is −1/θ inside, SF = −½, and F = θ/2 has slope ½."""
    theta = 1.7
    x, weight = panels((0.0, theta), ())
    claimed = float(weight @ (x * (-1 / theta))) / theta
    means = [float(w @ y) / (theta + h) for h in (1e-3, -1e-3) for y, w in [panels((0.0, theta + h), ())]]
    return Counterexample(claimed, (means[0] - means[1]) / 2e-3, 0.9, "SF against F' for U(0, θ), c = x")


def s02_dominated(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Score-function form against ∂F: softmax (a finite sum, by complex steps), Heaviside under N(ā, σ²)."""
    rng, worst, tiny = np.random.default_rng(seed), 0.0, 1e-30
    for _ in range(examples):
        logits, cost = rng.standard_normal(6), rng.standard_normal(6)
        p = np.exp(logits) / np.exp(logits).sum()
        score = np.eye(6) - p
        shifted = np.exp(logits + 1j * tiny * np.eye(6))
        truth = ((shifted @ cost) / shifted.sum(1)).imag / tiny
        worst = max(worst, float(np.max(np.abs((p * cost) @ score - truth))))
        scale, mean = float(2 ** rng.uniform(-1, 1)), float(rng.normal())
        found = score_and_pathwise(gaussian(scale), *STEP[:2], mean=mean, breaks=STEP[2])
        worst = max(worst, abs(found.score_function - float(gaussian(scale).density(np.array(mean)))))
    return Evidence(float(worst), QUADRATURE, "largest |SF − ∂F|, softmax and Heaviside under Gaussians")


def s03_heaviside() -> Counterexample:
    """c = 1[x > 0], x = θ + z, z ~ N(0, 1) at θ = 0.3: PD = 0 and F' = φ(0.3)."""
    found = score_and_pathwise(gaussian(1.0), *STEP[:2], mean=0.3, breaks=STEP[2])
    return Counterexample(found.pathwise, float(np.exp(-0.045) / np.sqrt(2 * np.pi)), 0.3, "PD against F' = φ(θ)")


def s03_flip() -> float:
    """The ω at which both variances are equal, by bisection."""
    low, high = 0.5, 2.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        found = one_step_moments("sine", frequency=middle)
        low, high = (middle, high) if found.pathwise < found.score_function else (low, middle)
    return (low + high) / 2


def s03_variance(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Closed-form variances of both forms for c = sin ωx against quadrature."""
    rng, worst = np.random.default_rng(seed), 0.0
    x, weight = gaussian(1.0).quadrature(())
    for w in rng.uniform(0.2, 6, examples):
        moments = one_step_moments("sine", frequency=float(w))
        both = (w * np.cos(w * x), moments.pathwise), (np.sin(w * x) * x, moments.score_function)
        for samples, closed in both:
            mean = weight @ samples
            worst = max(worst, abs(weight @ (samples - mean) ** 2 - closed) / max(1.0, closed))
    return Evidence(float(worst), QUADRATURE, f"relative error of the variances at {examples} frequencies")


def _draw_noise(rng: np.random.Generator, name: str) -> tuple[Noise, float]:
    """The noise at a random scale, and a mean action that keeps 0 off the corners of ν.

    The nearer to one, the worse the differences of E√|a| that stand for the truth: 2e-8 within 0.05 scales.
    """
    scale = float(2 ** rng.uniform(-1, 1))
    noise = NOISES[name](scale)
    corners = (*noise.breaks, *(x for x, _ in noise.jumps))
    while True:
        mean = float(rng.normal())
        if min((abs(mean + x) for x in corners), default=scale) > 0.2 * scale:
            return noise, mean


def s08_lemma(*, seed: int = 0, examples: int = 20) -> Evidence:
    """SF = PD = ∂E r for each density without jumps and each absolutely continuous reward."""
    rng, worst = np.random.default_rng(seed), 0.0
    pairs = list(product(SMOOTH_NOISES, (*REWARDS.values(), ROOT)))
    for i in range(max(examples, len(pairs))):
        name, (reward, slope, breaks) = pairs[i % len(pairs)]
        noise, mean = _draw_noise(rng, name)
        found = score_and_pathwise(noise, reward, slope, mean=mean, breaks=breaks)
        scale = max(1.0, abs(found.pathwise))
        worst = max(
            worst, abs(found.score_function - found.pathwise) / scale, abs(found.truth - found.pathwise) / scale
        )
    return Evidence(float(worst), QUADRATURE, "largest |SF − PD| and |∂E r − PD| over noises and rewards")


def s08_jump(*, seed: int = 0, examples: int = 20) -> Evidence:
    """PD = SF − Σ[rν] and ∂E r = PD + Σ[r]ν = SF − Σ[ν]r for each density and each reward, jumps or none."""
    rng, worst = np.random.default_rng(seed), 0.0
    pairs = list(product(NOISES, (*REWARDS.values(), ROOT, STEP)))
    for i in range(max(examples, len(pairs))):
        name, (reward, slope, breaks) = pairs[i % len(pairs)]
        noise, mean = _draw_noise(rng, name)
        found = score_and_pathwise(noise, reward, slope, mean=mean, breaks=breaks)
        residuals = (
            found.pathwise - (found.score_function - found.jump),
            found.truth - (found.pathwise + found.reward_jump),
            found.truth - (found.score_function - found.density_jump),
        )
        worst = max(worst, *(abs(x) / max(1.0, abs(found.score_function)) for x in residuals))
    return Evidence(float(worst), QUADRATURE, "largest residual of the three identities over noises and rewards")


def s08_uniform() -> Counterexample:
    """ξ ~ U(−1, 1), r = a²/2 at ā = 0.3: the score is zero inside, so SF = 0; PD = ∂E r = 0.3."""
    found = score_and_pathwise(uniform(1.0), lambda a: a**2 / 2, lambda a: a, mean=0.3)
    return Counterexample(found.score_function, found.truth, 0.2, "SF against ∂E r for uniform noise")


def s08_both_wrong() -> Counterexample:
    """ξ ~ U(−1, 1) and the Heaviside reward: SF = PD = 0, while ∂E r = ½."""
    found = score_and_pathwise(uniform(1.0), STEP[0], STEP[1], mean=0.3, breaks=STEP[2])
    return Counterexample(max(abs(found.score_function), abs(found.pathwise)), found.truth, 0.4, "SF = PD, both wrong")


def s09_stopped() -> Counterexample:
    """r = a ~ N(θ, 1), leave-one-out Â, n = 3, θ = 0.7: the left side of eq. 11 is θ, the right with Â stopped is 0."""
    theta = 0.7
    noise, weight = oracles.gauss_hermite_noise(4, 1, 3)
    reward = theta + noise[:, 0]
    advantage = leave_one_out(reward)
    left = float(weight @ (advantage * reward * noise[:, 0])[:, 0])
    return Counterexample(float(weight @ advantage[:, 0]), left, 0.5, "ā'E[Â ∂r/∂a] against E[Â r ∂log π]")


def s09_unstopped(*, seed: int = 0, examples: int = 20) -> Evidence:
    """E[Â_i ∂log π(a_i)] = ā'E[∂Â_i/∂a_i] and E[Â r ∂log π] = ∂Var(r) + μ∂μ, quadratic rewards, exact grids."""
    rng, worst = np.random.default_rng(seed), 0.0
    for _ in range(examples):
        n, (constant, linear, square), mean = int(rng.integers(2, 5)), rng.standard_normal(3), float(rng.normal())
        noise, weight = oracles.gauss_hermite_noise(6, 1, n)
        score, action = noise[:, 0], mean + noise[:, 0]
        reward, slope = constant + linear * action + square * action**2, linear + 2 * square * action
        for form, factor in ((leave_one_out, 1.0), (group_mean, 1 - 1 / n)):
            left = weight @ (form(reward) * score)[:, 0]
            worst = max(worst, abs(left - factor * (weight @ slope[:, 0])))
        mu, moment = weight @ reward[:, 0], weight @ reward[:, 0] ** 2
        d_mu, d_moment = (weight @ (x[:, 0] * score[:, 0]) for x in (reward, reward**2))
        twice = weight @ (leave_one_out(reward) * reward * score)[:, 0]
        worst = max(worst, abs(twice - (d_moment - 2 * mu * d_mu + mu * d_mu)) / max(1.0, moment))
    return Evidence(float(worst), CLOSED_FORM, "largest deviation of both identities, groups of 2 to 4")
