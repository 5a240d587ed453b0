"""Costates on a token tree: value gradients of logits, of states and of shared embeddings under patching, exactly.

A state stands before each token and gives its logits, z = W h. What it does to later states is a Jacobian per prefix:
none for free states and logits, the recurrence for a recurrent network. The sequence floor has the same in torch.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.discrete.token_tree import (
    TokenTree,
    action_value,
    check_per_token,
    log_policy,
    objective,
    prefix_probability,
    token_logprob,
)


@dataclass(frozen=True)
class TreeStates:
    """A state for every open prefix, the matrix that reads logits off it, and how it moves the states after it.

    state: h(o_<t). readout: W, z = W h. jacobian: ∂h(o_<t)/∂h(o_<t−1), zero for the empty prefix.
    Raises ValueError for shapes that don't fit and for non-finite entries.
    """

    state: Float[ndarray, "N S"]
    readout: Float[ndarray, "V S"]
    jacobian: Float[ndarray, "N S S"]

    def __post_init__(self) -> None:
        count, size = self.state.shape
        if self.readout.shape[1] != size or self.jacobian.shape != (count, size, size):
            raise ValueError(
                f"state {self.state.shape}, readout {self.readout.shape} and jacobian {self.jacobian.shape} don't fit; "
                f"give (N, S), (V, S) and (N, S, S)"
            )
        if not all(np.all(np.isfinite(x)) for x in (self.state, self.readout, self.jacobian)):
            raise ValueError("state, readout or jacobian hold NaN or infinite values; give finite ones")

    @property
    def logits(self) -> Float[ndarray, "N V"]:
        """z(prefix) = W h(prefix)."""
        return self.state @ self.readout.T


def free_states(state: Float[ndarray, "N S"], readout: Float[ndarray, "V S"]) -> TreeStates:
    """States that no other state reads: each prefix its own. The logits themselves: ``free_states(z, np.eye(V))``."""
    return TreeStates(state, readout, np.zeros((len(state), state.shape[1], state.shape[1])))


def parents(tree: TokenTree) -> Int[ndarray, " N"]:
    """Row of the prefix one token shorter; 0 for the empty one."""
    found = np.zeros(len(tree.prefixes), dtype=np.int64)
    b, t = np.nonzero(tree.scored[:, 1:])
    found[tree.node[b, t + 1]] = tree.node[b, t]
    return found


def recurrent_states(
    tree: TokenTree,
    *,
    readout: Float[ndarray, "V S"],
    recurrence: Float[ndarray, "S S"],
    embedding: Float[ndarray, "V S"],
    start: Float[ndarray, " S"],
    patch: tuple[int, Float[ndarray, " S"]] | None = None,
) -> TreeStates:
    """States of a recurrent network, h(()) = start, h(o_≤t) = tanh(A h(o_<t) + e(o_t)), with their Jacobians.

    recurrence: A; zero for a network that keeps nothing but the newest token. patch: row of a prefix and the value put
    in the place of its state; later states read it. Raises ValueError for a row that is no prefix.
    """
    if patch is not None and not 0 <= patch[0] < len(tree.prefixes):
        raise ValueError(f"patch is at row {patch[0]}; give the row of an open prefix, 0 … {len(tree.prefixes) - 1}")
    above, size = parents(tree), len(start)
    state, jacobian = np.zeros((len(above), size)), np.zeros((len(above), size, size))
    for row, prefix in enumerate(tree.prefixes):
        if prefix:
            state[row] = np.tanh(recurrence @ state[above[row]] + embedding[prefix[-1]])
            jacobian[row] = (1 - state[row] ** 2)[:, None] * recurrence
        else:
            state[row] = start
        if patch is not None and patch[0] == row:
            state[row], jacobian[row] = patch[1], 0.0
    return TreeStates(state, readout, jacobian)


def value_from(tree: TokenTree, logits: Float[ndarray, "N V"], reward: Float[ndarray, " B"], *, node: int) -> float:
    """V(prefix) = E[R | prefix] for the prefix in row ``node``."""
    return float((np.exp(log_policy(tree, logits)) * action_value(tree, logits, reward))[node].sum())


def state_value_gradient(tree: TokenTree, states: TreeStates, reward: Float[ndarray, " B"]) -> Float[ndarray, "N S"]:
    """G(prefix) = ∂E[R | prefix, do(h(prefix) = h)]/∂h at the natural h, for every open prefix.

    G(p) = Wᵀ π∘(Q − V) + Σ_v π(v) (∂h(pv)/∂h(p))ᵀ G(pv), from the longest prefixes on; no score, no sample.

    reward: one number per answer, of the tokens alone. Raises ValueError for rewards or states that don't fit.
    Ledger: R09.
    """
    policy, q = np.exp(log_policy(tree, states.logits)), action_value(tree, states.logits, reward)
    gradient = (policy * (q - (policy * q).sum(1, keepdims=True))) @ states.readout
    above = parents(tree)
    for row in range(len(above) - 1, 0, -1):
        chance = policy[above[row], tree.prefixes[row][-1]]
        gradient[above[row]] += chance * states.jacobian[row].T @ gradient[row]
    return np.asarray(gradient)


def empirical_costate(tree: TokenTree, states: TreeStates, advantage: Float[ndarray, "B T"]) -> Float[ndarray, "B T S"]:
    """λ̂_t = ∂/∂h_t Σ_{k≥t} Â_k log π(o_k|o_<k) along every answer, tokens fixed; 0 after its end.

    λ̂_t = Â_t Wᵀ(e(o_t) − π) + (∂h_{t+1}/∂h_t)ᵀ λ̂_{t+1}.

    advantage: per token, 0 after the end. Raises ValueError for one that doesn't fit. Ledger: R09.
    """
    check_per_token(tree, advantage, name="advantage")
    policy = np.exp(log_policy(tree, states.logits))
    score = states.readout[tree.tokens] - (policy @ states.readout)[tree.node]
    costate = advantage[..., None] * score
    for t in reversed(range(tree.horizon - 1)):
        on = tree.scored[:, t + 1]
        costate[on, t] += np.einsum("bij,bi->bj", states.jacobian[tree.node[on, t + 1]], costate[on, t + 1])
    return costate


def prefix_mean(
    tree: TokenTree, logits: Float[ndarray, "N V"], per_token: Float[ndarray, "B T S"]
) -> Float[ndarray, "N S"]:
    """E[x_t | o_<t] of a quantity along the answers, for the prefix before each token; no division by a probability."""
    logprob = token_logprob(tree, logits)
    chance = np.exp(np.cumsum(logprob[:, ::-1], axis=1)[:, ::-1])  # π(o_t o_{t+1} … | o_<t)
    found = np.zeros((len(tree.prefixes), per_token.shape[2]))
    np.add.at(found, tree.node[tree.scored], (chance[..., None] * per_token)[tree.scored])
    return found


def expected_costate(tree: TokenTree, states: TreeStates, advantage: Float[ndarray, "B T"]) -> Float[ndarray, "N S"]:
    """E[λ̂_t | o_<t] of every open prefix; the value gradient if advantages are of return type. Ledger: R09."""
    return prefix_mean(tree, states.logits, empirical_costate(tree, states, advantage))


def shared_gradient(
    tree: TokenTree, logits: Float[ndarray, "N V"], per_prefix: Float[ndarray, "N S"], *, row: Int[ndarray, " N"]
) -> Float[ndarray, "M S"]:
    """∂J/∂h for free states that prefixes share: Σ P(prefix) G(prefix) over the prefixes that read each.

    row: which shared state each prefix reads, from 0. Raises ValueError for another length or negative rows.
    """
    if row.shape != (len(tree.prefixes),) or row.min() < 0:
        raise ValueError(f"row has shape {row.shape}; give one number from 0 on per prefix, ({len(tree.prefixes)},)")
    found = np.zeros((int(row.max()) + 1, per_prefix.shape[1]))
    np.add.at(found, row, prefix_probability(tree, logits)[:, None] * per_prefix)
    return found


def shared_objective(
    tree: TokenTree,
    shared: Float[ndarray, "M S"],
    readout: Float[ndarray, "V S"],
    reward: Float[ndarray, " B"],
    *,
    row: Int[ndarray, " N"],
) -> float:
    """J as a function of states that prefixes share, z(prefix) = W h(row(prefix))."""
    return objective(tree, shared[row] @ readout.T, reward)
