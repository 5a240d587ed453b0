"""Answers and checks of tutorial 01."""

import math
from typing import Any

import numpy as np
from _exercises import Exercise, Wrong, asked, number

from vgrad_lab import verify
from vgrad_lab.continuous import environments, noise, policies
from vgrad_lab.continuous.costate import closed_loop_jacobian, closed_loop_reward_gradient, costate
from vgrad_lab.continuous.gradient_critic import affine_features, blended_costate, learn_gradient_critic, predict
from vgrad_lab.continuous.rollout import sample_rollout


def pendulum_step(s, a):
    """The pendulum of the exercise, to see that only its Jacobian was repaired."""
    speed = s[:, 1] + 0.1 * (-np.sin(s[:, 0]) - 0.1 * s[:, 1] + a[:, 0])
    return np.stack([s[:, 0] + 0.1 * speed, speed], axis=1)


def transition_by_state(s, a):
    """∂v'/∂x = −0.1 cos x, as gravity pulls back; x' = x + 0.1 v' inherits 0.1 times it."""
    gravity, drag = -0.1 * np.cos(s[:, 0]), np.full(len(s), 1 - 0.1 * 0.1)
    return np.stack([np.stack([1 + 0.1 * gravity, 0.1 * drag], 1), np.stack([gravity, drag], 1)], 1)


def repaired() -> environments.Environment:
    """The pendulum with right Jacobians."""
    return environments.Environment(
        state_size=2,
        action_size=1,
        initial=lambda rng, batch: rng.normal(size=(batch, 2)),
        transition=pendulum_step,
        reward=lambda s, a: np.cos(s[:, 0]) - 0.05 * s[:, 1] ** 2 - 0.01 * a[:, 0] ** 2,
        jacobians=environments.Jacobians(
            transition_state=transition_by_state,
            transition_action=lambda s, a: np.tile([[0.01], [0.1]], (len(s), 1, 1)),
            reward_state=lambda s, a: np.stack([-np.sin(s[:, 0]), -0.1 * s[:, 1]], axis=1),
            reward_action=lambda s, a: -0.02 * a,
        ),
    )


def examine_pendulum(answer: Any) -> str:
    if not isinstance(answer, environments.Environment):
        answer = asked(answer)
    if not isinstance(answer, environments.Environment):
        raise Wrong(f"an Environment was asked for, this is a {type(answer).__name__}")
    rng = np.random.default_rng(0)
    s, a = rng.normal(size=(5, 2)), rng.normal(size=(5, 1))
    if not np.allclose(answer.transition(s, a), pendulum_step(s, a)):
        raise Wrong("the dynamics changed: the pendulum is right, its Jacobian is not")
    if not np.allclose(answer.reward(s, a), repaired().reward(s, a)):
        raise Wrong("the reward changed: it is right, a Jacobian is not")
    try:
        worst = verify.check_environment(answer)
    except AssertionError as problem:
        raise Wrong(f"the checker says:\n{problem}") from problem
    return f"Largest error of the four Jacobians: {max(worst.values()):.0e} of their scale."


def age() -> int:
    """The smallest whole k with (γρ)^k < 0.01."""
    return math.ceil(math.log(0.01) / math.log(0.95 * 0.95))


def examine_age(answer: Any) -> str:
    given = number(answer)
    if given != round(given):
        raise Wrong(f"{given:g} is no whole number of steps: round it, but which way?")
    weight, before = 0.9025**given, 0.9025 ** (given - 1)
    if given == math.ceil(math.log(0.01) / math.log(0.95)):
        raise Wrong("that is the age for one factor of 0.95; each step brings γ and ρ")
    if weight >= 0.01:
        raise Wrong(f"at age {given:g} the weight is {weight:.5f}, not below 0.01 yet")
    if before < 0.01:
        raise Wrong(f"one step earlier the weight is {before:.5f}, below 0.01 already: another age is the first")
    return f"(γρ)^{given:g} = {weight:.5f}."


def myopic_costate(environment, policy, track):
    """Dr_t: only the step's own reward counts, directly and through the action."""
    return closed_loop_reward_gradient(environment, policy, track)


def _example(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    environment = environments.random_tanh_network(rng, 3, 2)
    policy = policies.linear_policy(rng.normal(size=(2, 3)), noise=noise.gaussian(0.5))
    return environment, policy, sample_rollout(environment, policy, rng, batch=20, horizon=6)


def examine_myopic(answer: Any) -> str:
    for seed in range(3):
        environment, policy, track = _example(seed)
        given = np.asarray(asked(answer, environment, policy, track))
        right = costate(environment, policy, track, discount=0.0)[:, :-1]
        if given.shape != right.shape:
            raise Wrong(f"expected one vector per step, shape {right.shape}, this is {given.shape}")
        state, action = (x.reshape(-1, x.shape[-1]) for x in (track.state[:, :-1], track.action))
        direct = environment.jacobians.reward_state(state, action).reshape(right.shape)
        if np.allclose(given, direct):
            raise Wrong("that is r_s, the direct way. A nudged state also changes the action, and so the reward")
        if not np.allclose(given, right, rtol=1e-9, atol=1e-12):
            raise Wrong(f"the largest deviation is {np.abs(given - right).max():.3g}. Put γ = 0 into eq. 6")
    return "λ_t = Dr_t: all credit for the future is gone."


def target(Dr, Df, next_target, next_critic, discount, decay):
    """Dr + γ Dfᵀ (λ g' + (1 − λ) g_w): part measured, part learnt."""
    return Dr + discount * np.einsum("bij,bi->bj", Df, decay * next_target + (1 - decay) * next_critic)


def examine_target(answer: Any) -> str:
    environment, policy, track = _example(7)
    critic = learn_gradient_critic(environment, policy, track, features=affine_features, discount=0.9, decay=0.5)
    learnt = predict(critic, track.state)
    Dr, Df = (f(environment, policy, track) for f in (closed_loop_reward_gradient, closed_loop_jacobian))
    for decay in (1.0, 0.0, 0.3):
        sweep, blend = blended_costate(environment, policy, track, learnt, discount=0.9, decay=decay)
        for t in (4, 2, 0):
            parts = Dr[:, t], Df[:, t], sweep[:, t + 1], learnt[:, t + 1], 0.9, decay
            given, right = np.asarray(asked(answer, *parts)), sweep[:, t]
            if given.shape != right.shape:
                raise Wrong(f"expected one vector per rollout, shape {right.shape}, this is {given.shape}")
            if np.allclose(given, right, rtol=1e-9, atol=1e-12):
                continue
            if np.allclose(given, Dr[:, t] + 0.9 * np.einsum("bij,bj->bi", Df[:, t], blend[:, t + 1])):
                raise Wrong("Df stands the wrong way round: the way back uses its transpose, Dfᵀ")
            if np.allclose(given, Dr[:, t] + np.einsum("bij,bi->bj", Df[:, t], blend[:, t + 1])):
                raise Wrong("γ is missing before the future")
            swapped = (1 - decay) * sweep[:, t + 1] + decay * learnt[:, t + 1]
            if np.allclose(given, Dr[:, t] + 0.9 * np.einsum("bij,bi->bj", Df[:, t], swapped)):
                raise Wrong("λ and 1 − λ are swapped: λ = 1 must give the raw costate")
            raise Wrong(f"for λ = {decay:g} the largest deviation is {np.abs(given - right).max():.3g}")
    return "λ = 1 is eq. 6; λ = 0 trusts the critic after a single step."


EXERCISES = (
    Exercise(
        "repair the Jacobian and give the repaired pendulum",
        "The checker names the entry [1, 0] = ∂v'/∂x. Differentiate v' = v + 0.1(−sin x − 0.1 v + a) by x.",
        repaired(),
        "∂v'/∂x = −0.1 cos x: use transition_by_state with sign = −1.",
        examine_pendulum,
    ),
    Exercise(
        "after how many steps is the weight first below 0.01, for ρ = 0.95 and γ = 0.95?",
        "The weight at age k is (γρ)^k. Take logarithms; dividing by log(γρ) < 0 turns the inequality round.",
        age(),
        "k > log 0.01 / log 0.9025 = 44.9, so 45.",
        examine_age,
    ),
    Exercise(
        "return λ_t for γ = 0 as an array (B, T, S)",
        "Section 1 has a name for the slope of a step's own reward in its state, the policy in the loop.",
        myopic_costate,
        "With γ = 0 eq. 6 reads λ_t = Dr_t = r_s + ā_sᵀ r_a.",
        examine_myopic,
    ),
    Exercise(
        "return the target g'_t of one step from Dr_t, Df_t and what is known at t + 1",
        "It is eq. 6 with λ_{t+1} replaced by a blend of next_target (share λ) and next_critic (share 1 − λ).",
        target,
        "np.einsum('bij,bi->bj', Df, x) is Dfᵀx for each rollout.",
        examine_target,
    ),
)
