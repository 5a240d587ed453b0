"""Exact expectations over every token sequence: value gradients under patching and expected costates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.sequence.credit_flow import empirical_costate, token_logprob
from vgrad_lab.sequence.trace import Patch, SequenceModel, Trace, check_tokens, trace

MOST = 100_000
"""Largest number of sequences or groups that is enumerated."""


@dataclass(frozen=True)
class Continuations:
    """Every continuation of one prefix, in lexicographic order.

    inputs: prefix and all continuation tokens but the last; targets: inputs shifted by one and completed.
    given: length of the prefix; positions given−1 … T−1 sample the continuation.
    scored: True where the target was sampled: in the continuation, up to and with the end token if there is one.
    """

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    given: int
    scored: Bool[Tensor, "B T"]

    @property
    def sampled(self) -> slice:
        """Positions of the continuation."""
        return slice(self.given - 1, None)

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """Number of sampled tokens of each continuation."""
        return self.scored.sum(1)


def all_sequences(vocab: int, horizon: int) -> Int[Tensor, "B T"]:
    """All vocab^horizon sequences in lexicographic order; raises ValueError when there are too many to enumerate."""
    if vocab < 1 or horizon < 1 or vocab**horizon > MOST:
        raise ValueError(f"{vocab}^{horizon} sequences; give vocab ≥ 1, horizon ≥ 1 and at most {MOST} sequences")
    return torch.cartesian_prod(*[torch.arange(vocab)] * horizon).reshape(-1, horizon)


def continuations(
    vocab: int, prefix: Sequence[int], *, remaining: int, end: int | None = None
) -> Continuations:  # fmt: skip
    """Every continuation of ``prefix`` by at most ``remaining`` tokens.

    end: the token that ends an answer; what follows it is filled with it and not scored. None: all of one length.
    Raises ValueError for an empty or bad prefix, an end outside the vocabulary and too many continuations.
    """
    head = torch.tensor([list(prefix)], dtype=torch.int64)
    check_tokens(head, vocab=vocab, name="prefix")
    if end is not None and not 0 <= end < vocab:
        raise ValueError(f"end is {end}; token ids must lie in 0 … {vocab - 1}")
    tail = all_sequences(vocab, remaining)
    over = torch.zeros_like(tail, dtype=torch.bool)
    if end is not None:
        over[:, 1:] = (tail == end).cummax(1).values[:, :-1]
        kept = ((tail == end) | ~over).all(1)
        tail, over = tail[kept], over[kept]
    tokens = torch.cat([head.expand(len(tail), -1), tail], dim=1)
    unscored = torch.zeros(len(tail), len(prefix) - 1, dtype=torch.bool)
    return Continuations(tokens[:, :-1], tokens[:, 1:], len(prefix), torch.cat([unscored, ~over], dim=1))


def sequence_probability(result: Trace, cases: Continuations) -> Float[Tensor, " B"]:
    """π(o | prefix) = Π_k π(o_k | o_{<k}) over the scored tokens of every continuation, differentiable."""
    return (token_logprob(result.logits, cases.targets) * cases.scored).sum(1).exp()


def value(
    model: SequenceModel, cases: Continuations, reward: Float[ndarray, " B"], *, patch: Patch | None = None
) -> Float[Tensor, ""]:
    """V = E[R | prefix, do(h_t^(l) = h)] as a finite sum, differentiable in the patched value."""
    weight = torch.as_tensor(_one_per_case("reward", reward, cases))
    return (sequence_probability(trace(model, cases.inputs, patch=patch), cases) * weight).sum()


def value_gradient(model: SequenceModel, cases: Continuations, reward: Float[ndarray, " B"]) -> Float[Tensor, "L1 T S"]:
    """G_t^(l) = ∂/∂h E[R | prefix, do(h_t^(l) = h)] at the natural h, for every layer and every prefix position.

    reward: one number per continuation; it must depend on tokens only. The T axis is the prefix. Ledger S21.exact.
    """
    natural = trace(model, cases.inputs[:1]).hidden[:, 0, : cases.given].detach()
    gradient = torch.zeros_like(natural)
    for layer in range(natural.shape[0]):
        for position in range(cases.given):
            h = natural[layer, position].clone().requires_grad_()
            outcome = value(model, cases, reward, patch=Patch(layer, position, h))
            gradient[layer, position] = torch.autograd.grad(outcome, h)[0]
    return gradient


def expected_costate(
    model: SequenceModel, cases: Continuations, advantage: Float[ndarray, "B *T"]
) -> Float[Tensor, "L1 T S"]:
    """E[λ̂_t^(l) | prefix] by enumeration, for every layer and every prefix position.

    advantage: (B,) or one column per sampled token; what stands after the end counts for nothing. The T axis is the
    prefix. Ledger S21.exact.
    """
    sampled = cases.targets.shape[1] - cases.given + 1
    if advantage.shape not in ((len(cases.targets),), (len(cases.targets), sampled)):
        raise ValueError(f"advantage has shape {advantage.shape}; give ({len(cases.targets)},) or one column per "
                         f"sampled token, ({len(cases.targets)}, {sampled})")  # fmt: skip
    result = trace(model, cases.inputs)
    probability = sequence_probability(result, cases).detach().numpy()
    weight = np.zeros(tuple(cases.targets.shape))
    weight[:, cases.sampled] = probability[:, None] * (advantage if advantage.ndim == 2 else advantage[:, None])
    weight *= cases.scored.numpy()
    return empirical_costate(result, cases.targets, weight)[:, :, : cases.given].sum(1)


def expected_group_advantage(
    rule: Callable[[ndarray], ndarray], reward: Float[ndarray, " B"], probability: Float[ndarray, " B"], *, group: int
) -> Float[ndarray, " B"]:
    """E[Â_1 | o_1 = b] over the group−1 other samples, by brute force over all B^(group−1) of them.

    rule: rewards (…, G) -> advantages (…, G). reward, probability: over all sequences of the prompt. Ledger S21.group.
    """
    if group < 2 or len(reward) ** group > MOST * 10:
        raise ValueError(f"group is {group} over {len(reward)} sequences; give group ≥ 2 and fewer sequences")
    others = np.stack(np.meshgrid(*[np.arange(len(reward))] * (group - 1), indexing="ij"), -1).reshape(-1, group - 1)
    chance = probability[others].prod(1)
    return np.array([chance @ rule(_with_first(r, reward[others]))[:, 0] for r in reward])


def _with_first(first: float, others: ndarray) -> ndarray:
    return np.concatenate([np.full((len(others), 1), first), others], axis=1)


def _one_per_case(name: str, values: ndarray, cases: Continuations) -> ndarray:
    if values.shape != (len(cases.targets),):
        raise ValueError(f"{name} has shape {values.shape}; give one number per continuation, ({len(cases.targets)},)")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} holds NaN or infinite values; drop or fix them first")
    return values
