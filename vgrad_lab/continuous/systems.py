"""Named environments: a bandit, a pendulum, a point mass with an obstacle, one that shares θ with its policy.

Rewards, and the dynamics of the pendulum, are known as functions only; all are smooth everywhere.
"""

from functools import partial

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray

from vgrad_lab.continuous.by_functions import halves
from vgrad_lab.continuous.environments import BatchFunction, Environment, Jacobians, ParameterJacobians
from vgrad_lab.continuous.maps import Map


def _positive(**numbers: float) -> None:
    for name, x in numbers.items():
        if not (np.isfinite(x) and x > 0):
            raise ValueError(f"{name} must be a positive number, got {x}")


def _same(matrix: ndarray) -> BatchFunction:
    """A Jacobian that is the same for all rows, without memory for each: steps back are then one matrix product."""
    return lambda state, action: np.broadcast_to(matrix, (len(state), *matrix.shape))


def bandit(target: Float[ndarray, "A S"], *, width: float = 1.0) -> Environment:
    """One-step contextual bandit; meant for horizon 1.

    r = exp(−‖a − Ms‖²/(2·width²)) in (0, 1], s' = s, s_1 uniform in [−1, 1]^S.

    target: M. width: units of action. With Gaussian noise E r is in closed form. Raises ValueError for a target that is
    not a finite matrix or a width that is not positive. Ledger: S08.
    """
    if np.ndim(target) != 2 or not np.all(np.isfinite(target)):
        raise ValueError(f"target has shape {np.shape(target)}, expected (A, S) of finite numbers")
    _positive(width=width)
    action_size, size = target.shape
    weight = np.full(action_size, -0.5 / width**2)

    def missed(state: ndarray, action: ndarray) -> tuple[ndarray, ndarray]:
        """a − Ms, a column each, and r."""
        away = action.T - target @ state.T
        return away, np.exp(weight @ (away * away))

    def slopes(state: ndarray, action: ndarray) -> tuple[ndarray, ndarray]:
        """r_s and r_a."""
        by_action, r = missed(state, action)
        np.multiply(r, -1 / width**2, r)
        np.multiply(by_action, r, by_action)
        return (-target.T @ by_action).T, by_action.T

    reward_state, reward_action = halves(slopes)
    return Environment(
        state_size=size,
        action_size=action_size,
        initial=lambda rng, batch: rng.uniform(-1.0, 1.0, (batch, size)),
        transition=lambda state, action: state.copy(),
        reward=lambda state, action: missed(state, action)[1],
        jacobians=Jacobians(
            transition_state=_same(np.eye(size)),
            transition_action=_same(np.zeros((size, action_size))),
            reward_state=reward_state,
            reward_action=reward_action,
        ),
        dynamics=Map(np.hstack([np.eye(size), np.zeros((size, action_size))]), np.zeros(size)),
    )


def _turned(state: ndarray, speed: ndarray, time_step: float) -> tuple[ndarray, ndarray, ndarray]:
    """1 + cos and sin of the step Δω', and s' = (x, y, ω') as columns (3,B); tan(Δω'/2) is cheaper than both."""
    half = np.tan(speed * (0.5 * time_step))
    wide = half * half
    np.add(wide, 1, wide)
    np.divide(2, wide, wide)
    (x, y), out = (state[:, 0], state[:, 1]), np.empty((3, len(speed)), speed.dtype)
    for turned, ahead, along in ((out[0], np.subtract(x, half * y), x), (out[1], np.add(y, half * x), y)):
        np.multiply(wide, ahead, ahead)
        np.subtract(ahead, along, turned)
    out[2] = speed
    return wide, np.multiply(half, wide, half), out


def _turn_slopes(
    wide: ndarray, s: ndarray, after: ndarray, by_speed: ndarray, by_action: float, time_step: float
) -> tuple[Float[ndarray, "B 3 3"], Float[ndarray, "B 3 1"]]:
    """f_s and f_a of the pendulum from what ``_turned`` gives: by ω', and the turn of (x, y) itself."""
    f_s, f_a = np.empty((3, 3, len(s))), np.empty((3, 1, len(s)))
    for row, at, sign in ((0, after[1], -1), (1, after[0], 1)):  # ∂(x', y')/∂ω' = Δ(−y', x')
        for out, share in ((f_s[row, 1], by_speed[1]), (f_s[row, 2], by_speed[2]), (f_a[row, 0], by_action)):
            np.multiply(at, sign * time_step * share, out)
    f_s[2], f_a[2] = by_speed[:, None], by_action
    np.subtract(wide, 1, f_s[0, 0])
    f_s[1, 0] = s
    np.subtract(f_s[0, 1], s, f_s[0, 1])
    np.add(f_s[1, 1], f_s[0, 0], f_s[1, 1])
    return f_s.transpose(2, 0, 1), f_a.transpose(2, 0, 1)


def _on_the_circle(rng: np.random.Generator, batch: int) -> Float[ndarray, "B 3"]:
    angle, speed = rng.uniform(-np.pi, np.pi, batch), rng.uniform(-1.0, 1.0, batch)
    return np.stack([np.cos(angle), np.sin(angle), speed], axis=1)


def pendulum(
    *, time_step: float = 0.05, gravity: float = 10.0, torque: float = 4.0, damping: float = 0.1, cost: float = 0.01
) -> Environment:
    """Pendulum with a smooth reward; the angle is measured from upright and enters as (cos φ, sin φ), never wrapped.

    ω' = (1 − damping)·ω + Δ(gravity·sin φ + torque·a), φ' = φ + Δω', r = cos φ − 1 − cost·(ω² + a²).

    State (cos φ, sin φ, ω), ω in rad/s, Δ = time_step in s, gravity and torque in rad/s². s_1: φ uniform, ω in [−1, 1].
    Raises ValueError for a number that is not positive or damping ≥ 1. Ledger: S04.
    """
    _positive(time_step=time_step, gravity=gravity, torque=torque, damping=damping, cost=cost)
    if damping >= 1:
        raise ValueError(f"damping must lie in (0, 1), got {damping}; it is the share of speed lost in one step")
    by_speed = np.array([0.0, time_step * gravity, 1 - damping])

    by_action = time_step * torque

    def moved(state: ndarray, action: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        return _turned(state, state @ by_speed + by_action * action[:, 0], time_step)

    def slopes(state: ndarray, action: ndarray) -> tuple[ndarray, ndarray]:
        return _turn_slopes(*moved(state, action), by_speed, by_action, time_step)

    def reward_state(state: ndarray, action: ndarray) -> Float[ndarray, "B 3"]:
        out = np.zeros((3, len(state)))
        out[0], out[2] = 1, state[:, 2] * (-2 * cost)
        return out.T

    transition_state, transition_action = halves(slopes)
    return Environment(
        state_size=3,
        action_size=1,
        initial=_on_the_circle,
        transition=lambda state, action: moved(state, action)[2].T,
        reward=lambda state, action: state[:, 0] - 1 - cost * (state[:, 2] ** 2 + action[:, 0] ** 2),
        jacobians=Jacobians(
            transition_state=transition_state,
            transition_action=transition_action,
            reward_state=reward_state,
            reward_action=lambda state, action: -2 * cost * action,
        ),
    )


def obstacle(
    *,
    time_step: float = 0.1,
    goal: tuple[float, float] = (1.0, 0.0),
    centre: tuple[float, float] = (0.0, 0.1),
    radius: float = 0.3,
    height: float = 2.0,
    action_cost: float = 0.05,
) -> Environment:
    """Point mass in the plane (a double integrator) that passes a smooth hill of cost on its way to a goal.

    p' = p + Δv, v' = v + Δa, r = −‖p − goal‖² − 0.1·‖v‖² − action_cost·‖a‖² − height·exp(−‖p − centre‖²/(2·radius²)).

    State (p, v) in m and m/s, action in m/s², Δ = time_step in s. s_1: within 0.1 of p = (−1, 0),
    v = 0. Raises ValueError for a number that is not positive. Ledger: S04.
    """
    _positive(time_step=time_step, radius=radius, height=height, action_cost=action_cost)
    eye, zero = np.eye(2), np.zeros((2, 2))
    by_state, by_action = np.block([[eye, time_step * eye], [zero, eye]]), np.vstack([zero, time_step * eye])

    def hill(state: ndarray) -> Inexact[ndarray, "B 1"]:
        away = ((state[:, :2] - centre) ** 2).sum(1, keepdims=True)
        return height * np.exp(-0.5 * away / radius**2)

    def reward(state: ndarray, action: ndarray) -> Inexact[ndarray, " B"]:
        distance, speed = ((state[:, :2] - goal) ** 2).sum(1), (state[:, 2:] ** 2).sum(1)
        return -distance - 0.1 * speed - action_cost * (action**2).sum(1) - hill(state)[:, 0]

    def reward_state(state: ndarray, action: ndarray) -> Float[ndarray, "B 4"]:
        push = hill(state) * (state[:, :2] - centre) / radius**2
        return np.concatenate([push - 2 * (state[:, :2] - goal), -0.2 * state[:, 2:]], axis=1)

    return Environment(
        state_size=4,
        action_size=2,
        initial=lambda rng, batch: np.array([-1.0, 0.0, 0.0, 0.0]) + rng.uniform(-0.1, 0.1, (batch, 4)),
        transition=lambda state, action: (by_state @ state.T + by_action @ action.T).T,
        reward=reward,
        jacobians=Jacobians(
            transition_state=_same(by_state),
            transition_action=_same(by_action),
            reward_state=reward_state,
            reward_action=lambda state, action: -2 * action_cost * action,
        ),
        dynamics=Map(np.hstack([by_state, by_action]), np.zeros(4)),
    )


def _check_couplings(theta: ndarray, **couplings: ndarray | None) -> None:
    if theta.ndim != 1 or not np.all(np.isfinite(theta)):
        raise ValueError(f"theta has shape {theta.shape}, expected (P,) of finite numbers")
    for name, x in couplings.items():
        shape = (2, len(theta)) if name == "start" else (len(theta),)
        if x is not None and (x.shape != shape or not np.all(np.isfinite(x))):
            raise ValueError(f"{name} has shape {x.shape}, expected {shape} of finite numbers, to fit theta")


def shared_point_mass(
    theta: Inexact[ndarray, " P"],
    *,
    gain: Float[ndarray, " P"] | None = None,
    price: Float[ndarray, " P"] | None = None,
    start: Float[ndarray, "2 P"] | None = None,
    time_step: float = 0.2,
) -> Environment:
    """Point mass on a line that shares θ with its policy: actuator gain, price of an action and start may depend on θ.

    p' = p + Δv, v' = v + Δ·exp(gainᵀθ)·a, r = −p² − 0.1·v² − 0.05·exp(priceᵀθ)·a², s_1 = (−1, 0) + start·θ + 0.1·ζ.

    theta: the policy's θ. gain, price, start: how θ enters, None where it does not; without all three this is a plain
    point mass. State (p, v) in m and m/s, one action in m/s², Δ = time_step in s, ζ standard normal. Raises ValueError
    for shapes that do not fit θ, non-finite numbers, or a time_step that is not positive. Ledger: S05, S05.extra.
    """
    _positive(time_step=time_step)
    _check_couplings(theta, gain=gain, price=price, start=start)
    push = time_step * (1.0 if gain is None else np.exp(gain @ theta))
    cost = 0.05 * (1.0 if price is None else np.exp(price @ theta))
    centre = np.array([-1.0, 0.0]) + (0.0 if start is None else start @ theta)
    by_state, by_action = np.array([[1.0, time_step], [0.0, 1.0]]), np.array([[0.0], [1.0]]) * push
    return Environment(
        state_size=2,
        action_size=1,
        initial=lambda rng, batch: centre + 0.1 * rng.standard_normal((batch, 2)),
        transition=lambda state, action: (by_state @ state.T + by_action @ action.T).T,
        reward=lambda state, action: -(state**2) @ np.array([1.0, 0.1]) - cost * action[:, 0] ** 2,
        jacobians=Jacobians(
            transition_state=_same(by_state),
            transition_action=_same(by_action),
            reward_state=lambda state, action: state * [-2.0, -0.2],
            reward_action=lambda state, action: -2 * cost * action,
        ),
        dynamics=Map(np.hstack([by_state, by_action]), np.zeros(2)),
        parameters=ParameterJacobians(
            theta,
            partial(shared_point_mass, gain=gain, price=price, start=start, time_step=time_step),
            initial_state=None if start is None else lambda state: np.tile(start, (len(state), 1, 1)),
            transition=None if gain is None else lambda state, action: (action @ by_action.T)[:, :, None] * gain,
            reward=None if price is None else lambda state, action: -cost * action**2 * price,
        ),
    )
