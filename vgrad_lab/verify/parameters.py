"""Checker of how an environment depends on θ: its start, dynamics and reward against environments made with other θ."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from vgrad_lab.verify.derivatives import compare


def check_parameters(environment: Any, state: ndarray, action: ndarray, seed: int) -> dict[str, float]:
    """Check ``environment.parameters``: ∂s_1/∂θ, f_θ and r_θ entry by entry, zero where they are None.

    environment: with ``parameters`` as in ``check_environment``. state, action: rows at which f_θ and r_θ are compared.
    seed: of the generator from which every ``at(theta)`` draws its start. Returns the largest error of each Jacobian
    over its scale. Raises AssertionError that names the Jacobian and its worst entry.
    """
    parameters, batch = environment.parameters, len(state)
    theta = np.asarray(parameters.theta)
    if theta.ndim != 1:
        raise AssertionError(f"parameters.theta has shape {theta.shape}, expected (P,)")

    def start(other: Any) -> ndarray:
        return np.asarray(other.initial(np.random.default_rng(seed), batch))

    values: dict[str, tuple[Callable[[Any, int], ndarray], tuple[ndarray, ...]]] = {
        "initial_state": (lambda other, i: start(other)[i], (start(environment),)),
        "transition": (lambda other, i: other.transition(state[i : i + 1], action[i : i + 1])[0], (state, action)),
        "reward": (lambda other, i: other.reward(state[i : i + 1], action[i : i + 1])[0], (state, action)),
    }
    errors, thetas = {}, np.tile(theta, (batch, 1))
    for name, (value, where) in values.items():

        def rows(points: ndarray, value: Callable[[Any, int], ndarray] = value) -> ndarray:
            return np.stack([np.asarray(value(parameters.at(point), i)) for i, point in enumerate(points)])

        here = np.stack([np.asarray(value(environment, i)) for i in range(batch)])
        if not np.allclose(rows(thetas), here, rtol=1e-9, atol=1e-12):
            raise AssertionError(
                f"parameters.at(parameters.theta) is another environment: its {name} differs; make both from one "
                "function of θ, and let initial draw the same noise from the same generator"
            )
        jacobian, label = getattr(parameters, name, None), f"parameters.{name}"
        if jacobian is None:
            claimed, label = np.zeros((*here.shape, len(theta))), f"{label} is None, which says zero: it"
        else:
            claimed = np.asarray(jacobian(*where))
        errors[f"parameters.{name}"] = compare(label, rows, thetas, claimed)
    return errors
