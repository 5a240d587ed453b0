"""Bias and noise of single empirical costates, exactly: every continuation, every outcome of the group's others."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.advantage import Baseline
from vgrad_lab.impact import binary_advantages, others_weight
from vgrad_lab.sequence.credit_flow import state_gradient, token_logprob
from vgrad_lab.sequence.enumeration import Continuations, continuations, sequence_probability
from vgrad_lab.sequence.tasks import Task, draw
from vgrad_lab.sequence.trace import SequenceModel, trace

REMAINING = 2
"""Tokens that are sampled after the prompt."""
GROUPS: dict[str, Baseline] = {"leave-one-out": "leave_one_out", "standardised": "standardised"}
RULES = ("no baseline", *GROUPS, "own token only")
"""Â = R; the two group baselines; and leave-one-out credit cut to each state's own token (first term of eq. 15)."""


@dataclass(frozen=True)
class Moments:
    """Exact first moment of λ̂ and exact mean of ‖λ̂‖², for one prompt.

    mean: (L1,T,S) over the prompt's positions. square: (L1,), summed over positions and components.
    """

    mean: Float[Tensor, "L1 T S"]
    square: Float[ndarray, " L1"]


def value_gradients(
    model: SequenceModel, cases: Continuations, reward: Float[ndarray, " B"]
) -> tuple[Float[Tensor, "L1 T S"], float]:
    """∂V/∂h_t^(l) for every layer and prompt position at once, by differentiating V = Σ_o π(o) R(o) itself; and V.

    One backward pass where ``enumeration.value_gradient`` patches each state in turn; equal to it.
    """
    result = trace(model, cases.inputs)
    value = (sequence_probability(result, cases) * torch.as_tensor(reward)).sum()
    return state_gradient(value, result)[:, :, : cases.given].sum(1), float(value.detach())


def costate_moments(
    model: SequenceModel, cases: Continuations, reward: Float[ndarray, " B"], *, group: int
) -> dict[str, Moments]:
    """Moments of one sample's λ̂ under each of ``RULES``; reward: 0 or 1 per continuation.

    The group's other samples enter through the number of successes among them, Bin(group−1, p). Ledger O5.
    """
    result = trace(model, cases.inputs)
    logprob = token_logprob(result.logits, cases.targets)[:, cases.sampled]
    probability = logprob.detach().sum(1).exp().numpy()
    score = state_gradient(logprob.sum(), result)[:, :, : cases.given]
    own = torch.zeros_like(score)
    own[:, :, -1] = state_gradient(logprob[:, 0].sum(), result)[:, :, cases.given - 1]
    chance = others_weight(np.clip(np.array([probability @ reward]), 0.0, 1.0), group)[0]
    found = {"no baseline": _moments(score, probability, reward, reward**2)}
    for name, baseline in GROUPS.items():
        won, lost = binary_advantages(group, baseline, ddof=0, eps=0.0)
        first, second = (np.where(reward > 0, chance @ won**k, chance @ lost**k) for k in (1, 2))
        found[name] = _moments(score, probability, first, second)
        if name == "leave-one-out":
            found["own token only"] = _moments(own, probability, first, second)
    return found


def costate_quality(
    model: SequenceModel, task: Task, *, prompts: int, group: int, seed: int
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Bias, angle and noise of single costates at the last query, pooled over prompts, first and last layer.

    R = 1 when the right answer is among the two sampled tokens. bias: ‖E λ̂ − G‖/‖G‖. cosine: of E λ̂ with G, mean
    over prompts. noise: (tr Cov λ̂)^½/‖E λ̂‖. None where a gradient vanishes. Ledger S21.exact, S21.group.
    """
    batch = draw(task, prompts, rng=np.random.default_rng([seed, 3]))
    q = task.queries[-1]
    gradients, moments = [], []
    for tokens, answer in zip(batch.inputs[:, : q + 1].tolist(), batch.targets[:, q].tolist(), strict=True):
        cases = continuations(task.vocab, tokens, remaining=REMAINING)
        reward = (cases.targets[:, cases.sampled] == answer).any(1).double().numpy()
        gradients.append(value_gradients(model, cases, reward)[0])
        moments.append(costate_moments(model, cases, reward, group=group))
    return {
        rule: {
            name: _quality([g[layer] for g in gradients], [m[rule].mean[layer] for m in moments],
                           [float(m[rule].square[layer]) for m in moments])
            for name, layer in (("bottom", 0), ("top", -1))
        }
        for rule in RULES
    }  # fmt: skip


def _moments(score: Tensor, probability: ndarray, first: ndarray, second: ndarray) -> Moments:
    mean = torch.einsum("b,lbts->lts", torch.as_tensor(probability * first), score)
    square = torch.einsum("b,lb->l", torch.as_tensor(probability * second), score.square().sum((2, 3)))
    return Moments(mean, square.numpy())


def _quality(truth: list[Tensor], mean: list[Tensor], square: list[float]) -> dict[str, float | None]:
    sizes = [float(g.norm()) for g in truth]
    found = [float(m.norm()) for m in mean]
    if min(sizes) == 0 or min(found) == 0:
        return {"bias": None, "cosine": None, "noise": None}
    error = sum(float((m - g).square().sum()) for m, g in zip(mean, truth, strict=True))
    spread = sum(max(s - m**2, 0.0) for s, m in zip(square, found, strict=True))
    cosines = [float((m * g).sum()) / (a * b) for m, g, a, b in zip(mean, truth, found, sizes, strict=True)]
    return {
        "bias": (error / sum(x**2 for x in sizes)) ** 0.5,
        "cosine": float(np.mean(cosines)),
        "noise": (spread / sum(x**2 for x in found)) ** 0.5,
    }
