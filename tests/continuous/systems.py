"""Random systems for the tests of this floor, and the same rollouts in torch."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from numpy import ndarray

from vgrad_lab import strategies
from vgrad_lab.continuous import environments, noise, policies
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.maps import Map
from vgrad_lab.continuous.payoffs import Payoff
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import Rollout, rollout


@dataclass(frozen=True)
class System:
    environment: Environment
    policy: ShiftPolicy
    rollout: Rollout
    discount: float


def by_functions(environment: Environment) -> Environment:
    """The same environment without its arrays, so that the reference path runs."""
    return replace(environment, dynamics=None, payoff=None)


class Spec(NamedTuple):
    """What Hypothesis draws; ``build`` makes the system, outside the strategy (beartype draws random numbers)."""

    shape: strategies.RolloutShape
    environment: str
    mean: str
    discount: float
    seed: int


ENVIRONMENTS = ("linear-quadratic", "goal", "drift", "tanh", "wide")


def specs() -> st.SearchStrategy[Spec]:
    return st.builds(
        Spec,
        strategies.rollout_shapes(),
        st.sampled_from(ENVIRONMENTS),
        st.sampled_from(["linear", "tanh"]),
        strategies.discounts(),
        strategies.seeds(),
    )


def _environment(kind: str, rng: np.random.Generator, size: int, action_size: int) -> Environment:
    if kind == "tanh":
        return environments.random_tanh_network(rng, size, action_size)
    if kind == "wide":
        dynamics = environments.random_tanh_network(rng, size, action_size, width=7).dynamics
        half = rng.normal(size=(size, size))
        payoff = Payoff(0.1 * half @ half.T, 0.1 * np.eye(action_size), rng.normal(size=size), exponential=True)
        return environments.from_arrays(dynamics, payoff)
    environment = environments.random_linear_quadratic(rng, size, action_size)
    if kind == "goal":
        return environments.from_arrays(environment.dynamics, replace(environment.payoff, goal=rng.normal(size=size)))
    if kind == "drift":
        payoff = Payoff(np.diag(rng.random(size)), np.diag(rng.random(action_size)))
        return environments.from_arrays(Map(environment.dynamics.inner, rng.normal(size=size)), payoff)
    return environment


def build(spec: Spec) -> System:
    rng, shape, law = np.random.default_rng(spec.seed), spec.shape, noise.gaussian(0.5)
    environment = _environment(spec.environment, rng, shape.state_size, shape.action_size)
    if spec.mean == "linear":
        gain = 0.3 * rng.normal(size=(shape.action_size, shape.state_size))
        policy = policies.linear_policy(gain, rng.normal(size=shape.action_size), noise=law)
    else:
        weights = rng.normal(size=(3, shape.state_size)), rng.normal(size=3), rng.normal(size=(shape.action_size, 3))
        policy = policies.tanh_policy(*weights, noise=law)
    start = rng.normal(size=(shape.batch, shape.state_size))
    draws = law.draw(rng, (shape.batch, shape.horizon, shape.action_size))
    return System(environment, policy, rollout(environment, policy, start, draws), spec.discount)


def _map(
    m: Map, x: torch.Tensor, *, inner: torch.Tensor, shift: torch.Tensor, outer: torch.Tensor | None
) -> torch.Tensor:
    z = torch.einsum("bhi,bi->bh", inner, x) + shift
    return z if outer is None else torch.einsum("boh,bh->bo", outer, torch.tanh(z))


def autograd(system: System) -> tuple[ndarray, ndarray]:
    """Costates (B,T,S) and parameter gradients (B,P), from torch's autograd through the unrolled rollout."""
    environment, policy, played, discount = system.environment, system.policy, system.rollout, system.discount
    batch = len(played.state)
    dynamics, payoff, mean = environment.dynamics, environment.payoff, policy.mean_map(policy.theta)
    theta = torch.tensor(np.tile(policy.theta, (batch, 1)), requires_grad=True)
    cut = mean.inner.size, mean.inner.size + mean.shift.size
    parts = {
        "inner": theta[:, : cut[0]].reshape(batch, *mean.inner.shape),
        "shift": theta[:, cut[0] : cut[1]],
        "outer": None if mean.outer is None else theta[:, cut[1] :].reshape(batch, *mean.outer.shape),
    }
    fixed = {
        "inner": torch.tensor(dynamics.inner).expand(batch, -1, -1),
        "shift": torch.tensor(dynamics.shift),
        "outer": None if dynamics.outer is None else torch.tensor(dynamics.outer).expand(batch, -1, -1),
    }
    goal = (
        torch.zeros(environment.state_size, dtype=torch.float64) if payoff.goal is None else torch.tensor(payoff.goal)
    )
    Q, R = torch.tensor(payoff.state_cost), torch.tensor(payoff.action_cost)
    states, rewards = [torch.tensor(played.state[:, 0].copy(), requires_grad=True)], []
    for t in range(played.reward.shape[1]):
        action = _map(mean, states[t], **parts) + torch.tensor(played.noise_draw[:, t].copy())
        e = states[t] - goal
        cost = torch.einsum("bi,ij,bj->b", e, Q, e) + torch.einsum("bi,ij,bj->b", action, R, action)
        rewards.append(torch.exp(-cost) if payoff.exponential else -cost)
        states.append(_map(dynamics, torch.cat([states[t], action], 1), **fixed))
    total = sum(discount**t * r.sum() for t, r in enumerate(rewards))
    first = torch.autograd.grad(total, [theta], retain_graph=True)[0].numpy()
    costates = []
    for t in range(len(rewards)):
        to_go = sum(discount ** (k - t) * rewards[k].sum() for k in range(t, len(rewards)))
        costates.append(torch.autograd.grad(to_go, states[t], retain_graph=True)[0].numpy())
    return np.stack(costates, 1), first


def assert_close(found: ndarray, expected: ndarray, tolerance: float) -> None:
    """Largest deviation relative to the largest expected entry."""
    scale = max(float(np.max(np.abs(expected))), 1e-12)
    error = float(np.max(np.abs(found - expected))) / scale
    assert error <= tolerance, f"relative error {error:.3g} above {tolerance:g}"
