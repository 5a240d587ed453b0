"""Two costate recursions on the same finite rollouts: their expected difference, its exact sum and its bound."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class Paths:
    """Every path of a finite system, with the terms of λ̂_t = c_t + γ J_t^T λ̂_{t+1} and λ_t = c'_t + γ D_t^T λ_{t+1}.

    state: label of S_t at all T+1 nodes. probability: of the path, positive. credit, reward_gradient: c and c'.
    jacobian, true_jacobian: J and D, (out, in). Step t leads from node t to node t+1.
    """

    state: Int[ndarray, "B T1"]
    probability: Float[ndarray, " B"]
    credit: Float[ndarray, "B T S"]
    reward_gradient: Float[ndarray, "B T S"]
    jacobian: Float[ndarray, "B T S S"]
    true_jacobian: Float[ndarray, "B T S S"]

    def __post_init__(self) -> None:
        shape = self.credit.shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"credit has shape {shape}; give a non-empty (B,T,S) array")
        batch, steps, width = shape
        expected = {
            "state": (batch, steps + 1), "probability": (batch,), "reward_gradient": shape,
            "jacobian": (batch, steps, width, width), "true_jacobian": (batch, steps, width, width),
        }  # fmt: skip
        for name, wanted in expected.items():
            given = getattr(self, name)
            if given.shape != wanted:
                raise ValueError(f"{name} has shape {given.shape}; credit {shape} asks for {wanted}")
        for name in ("probability", "credit", "reward_gradient", "jacobian", "true_jacobian"):
            if not np.all(np.isfinite(getattr(self, name))):
                raise ValueError(f"{name} holds NaN or infinite values; drop or fix them first")
        if self.probability.min() <= 0 or abs(self.probability.sum() - 1) > 1e-9:
            raise ValueError(f"probability has minimum {self.probability.min()} and sum {self.probability.sum()}; give "
                             "positive numbers that sum to 1 (leave impossible paths out)")  # fmt: skip


def pull_back(
    term: Float[ndarray, "B T S"], jacobian: Float[ndarray, "B T S S"], *, discount: float = 1.0
) -> Float[ndarray, "B T1 S"]:
    """λ_t = term_t + γ jacobian_t^T λ_{t+1} with λ_{T+1} = 0, along every path."""
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")
    batch, steps, width = term.shape
    costate = np.zeros((batch, steps + 1, width))
    for t in reversed(range(steps)):
        costate[:, t] = term[:, t] + discount * _transposed(jacobian[:, t], costate[:, t + 1])
    return costate


def conditional_mean(
    values: Float[ndarray, "B S"], probability: Float[ndarray, " B"], label: Int[ndarray, " B"]
) -> Float[ndarray, "B S"]:
    """E[values | label], given back path by path."""
    _, group = np.unique(label, return_inverse=True)
    mass = np.bincount(group, probability)
    total = np.zeros((len(mass), values.shape[1]))
    np.add.at(total, group, probability[:, None] * values)
    return np.asarray((total / mass[:, None])[group])


def costate_difference(paths: Paths, *, time: int, discount: float = 1.0) -> Float[ndarray, "B S"]:
    """E[λ̂_t − λ_t | S_t] for t = ``time``, path by path; raises ValueError for a time outside. Ledger S20.identity."""
    _check_time(paths, time)
    empirical = pull_back(paths.credit, paths.jacobian, discount=discount)[:, time]
    true = pull_back(paths.reward_gradient, paths.true_jacobian, discount=discount)[:, time]
    return conditional_mean(empirical - true, paths.probability, paths.state[:, time])


def difference_sum(paths: Paths, *, time: int, discount: float = 1.0) -> Float[ndarray, "B S"]:
    """The same difference from the terms alone, path by path.

    Σ_{k≥t} γ^{k−t} E[P_{t→k}^T ((c_k − c'_k) − γ (D_k − J_k)^T G_{k+1}(S_{k+1})) | S_t], with P_{t→k} = J_{k−1} ⋯ J_t
    and G_k(S_k) = E[λ_k | S_k]. Equal to ``costate_difference`` for a Markov state and Jacobians that do not look past
    S_{k+1}. Raises ValueError for a time outside. Ledger S20.identity.
    """
    _check_time(paths, time)
    value_gradient = _value_gradients(paths, discount)
    batch, steps, width = paths.credit.shape
    product, total = np.tile(np.eye(width), (batch, 1, 1)), np.zeros((batch, width))
    for k in range(time, steps):
        missing = paths.true_jacobian[:, k] - paths.jacobian[:, k]
        step = paths.credit[:, k] - paths.reward_gradient[:, k]
        step = step - discount * _transposed(missing, value_gradient[:, k + 1])
        total += discount ** (k - time) * _transposed(product, step)
        product = paths.jacobian[:, k] @ product
    return conditional_mean(total, paths.probability, paths.state[:, time])


def difference_bound(paths: Paths, *, time: int, discount: float = 1.0) -> Float[ndarray, " B"]:
    """Σ_{k≥t} γ^{k−t} E[Π_{t≤j<k} ‖J_j‖ (η_k + γ ‖D_k − J_k‖ ‖G_{k+1}‖) | S_t], path by path.

    η_k = ‖E[c_k − c'_k | S_k]‖; it bounds the norm of ``costate_difference`` where that equals ``difference_sum``.
    Raises ValueError for a time outside. Ledger S20.identity.
    """
    _check_time(paths, time)
    value_gradient = _value_gradients(paths, discount)
    product, total = np.ones(len(paths.state)), np.zeros(len(paths.state))
    for k in range(time, paths.credit.shape[1]):
        immediate = conditional_mean(
            paths.credit[:, k] - paths.reward_gradient[:, k], paths.probability, paths.state[:, k]
        )
        missing = _norm(paths.true_jacobian[:, k] - paths.jacobian[:, k])
        reach = missing * np.linalg.norm(value_gradient[:, k + 1], axis=-1)
        total += discount ** (k - time) * product * (np.linalg.norm(immediate, axis=-1) + discount * reach)
        product = product * _norm(paths.jacobian[:, k])
    return conditional_mean(total[:, None], paths.probability, paths.state[:, time])[:, 0]


def paper_bound(paths: Paths, *, discount: float = 1.0, power: bool = True) -> float:
    """Right side of eq. 23 at the first node: Σ_{k>1} γ^{k−1} ‖J_{k←k−1}‖^{k−2} ε_k, every norm its largest.

    ε_k = ‖D − J‖ ‖E[λ_k | S_{k−1}]‖ for the step into node k, as in A.9. power: False takes the product of the chain's
    norms, which A.9 derives, in place of the printed power. Ledger S20.
    """
    costate = pull_back(paths.reward_gradient, paths.true_jacobian, discount=discount)
    total, product = 0.0, 1.0
    for k in range(1, paths.credit.shape[1] + 1):
        known = conditional_mean(costate[:, k], paths.probability, paths.state[:, k - 1])
        gap = (_norm(paths.true_jacobian[:, k - 1] - paths.jacobian[:, k - 1]) * np.linalg.norm(known, axis=-1)).max()
        growth = float(_norm(paths.jacobian[:, k - 1]).max())
        total += discount**k * (growth ** (k - 1) if power else product) * float(gap)
        product *= growth
    return total


def _value_gradients(paths: Paths, discount: float) -> Float[ndarray, "B T1 S"]:
    costate = pull_back(paths.reward_gradient, paths.true_jacobian, discount=discount)
    nodes = range(paths.state.shape[1])
    return np.stack([conditional_mean(costate[:, k], paths.probability, paths.state[:, k]) for k in nodes], axis=1)


def _check_time(paths: Paths, time: int) -> None:
    if not 0 <= time < paths.credit.shape[1]:
        raise ValueError(f"time is {time}; give one of 0 … {paths.credit.shape[1] - 1}")


def _transposed(matrix: ndarray, vector: ndarray) -> ndarray:
    return np.asarray(np.einsum("boi,bo->bi", matrix, vector))


def _norm(matrix: ndarray) -> ndarray:
    return np.asarray(np.linalg.norm(matrix, 2, axis=(-2, -1)))
