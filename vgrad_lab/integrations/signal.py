"""Signal, gap and alignment during a run, where they are defined: one-token answers with one right token per prompt.

The right token of a prompt is known only where some sample found it. Such a prompt stands for the others by the inverse
of the chance to be known, 1 − (1 − p)^G, in which p is exact; so the means over prompts are unbiased.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.impact import grpo_scale


@dataclass(frozen=True)
class OneToken:
    """Right token per prompt, where it is known, and how often it was sampled; ``levels``: of failure and success."""

    target: Int[ndarray, " Q"]
    known: Bool[ndarray, " Q"]
    successes: Int[ndarray, " Q"]
    group_size: int
    levels: tuple[float, float]


def right_tokens(
    reward: Float[ndarray, "Q G"], token: Int[ndarray, "Q G"], levels: tuple[float, float]
) -> OneToken | None:
    """The right token of each prompt as its own samples show it.

    None where rewards are not binary, where a prompt has two right tokens, or one token was right and wrong: then the
    closed forms do not hold. levels: rewards of failure and success.
    """
    low, high = levels
    right = reward == high
    if reward.shape[1] < 2 or not np.all(right | (reward == low)):
        return None
    known = right.any(1)
    target = token[np.arange(len(token)), right.argmax(1)]
    if bool(((token == target[:, None]) != right)[known].any()):
        return None
    return OneToken(np.where(known, target, 0), known, right.sum(1), int(reward.shape[1]), levels)


def answer_geometry(
    head: Float[Tensor, "V S"], hidden: Float[Tensor, "Q S"], target: Int[Tensor, " Q"]
) -> tuple[Float[ndarray, " Q"], Float[ndarray, " Q"]]:
    """p_y and ‖d_y‖², d_y = W_y − Σ_j p_j W_j, in the head's own precision: the two numbers that Σ needs.

    As ``vgrad_lab.one_step``, without the distances of the other tokens and on the model's device. Ledger: S22.
    """
    probability = torch.softmax((hidden @ head.T).float() if head.dtype != torch.float64 else hidden @ head.T, -1)
    centred = head[target] - (probability.to(head.dtype) @ head)
    p = probability.gather(1, target[:, None])[:, 0]
    pair = torch.stack([p.double(), (centred.double() ** 2).sum(1)]).cpu().numpy()
    return pair[0], pair[1]


def surplus(prompts: OneToken, p: Float[ndarray, " K"]) -> tuple[float, float]:
    """Successes of the known prompts beyond what one right token explains, and their variance if it does.

    Given k ≥ 1, k ~ Bin(G, p) has mean Gp/c and second moment Gp(1 − p + Gp)/c, c = 1 − (1 − p)^G. Other right tokens,
    not sampled twice in one group, show themselves here. p: of the K known prompts.
    """
    g, k = prompts.group_size, prompts.successes[prompts.known]
    p = np.clip(p, 1e-300, 1 - 1e-12)
    mean = g * p / -np.expm1(g * np.log1p(-p))
    return float((k - mean).sum()), float(np.maximum(mean * (1 - p + g * p) - mean**2, 0).sum())


def describe_signal(
    prompts: OneToken,
    p: Float[ndarray, " K"],
    distance: Float[ndarray, " K"],
    *,
    scale: str = "group",
    eps: float = 1e-4,
) -> dict[str, float]:
    """Σ, E⟨λ̂,G⟩ and the conditional Λ at the head's input, means over prompts.

    Σ = E‖G‖², G = c p d_y with c the rewards' difference; E⟨λ̂,G⟩ = κΣ and Λ = |κ − 1|Σ per prompt (eqs. 24-27).

    p, distance: of the K known prompts. scale: "group" or "none"; with another the last two are left out. Empty where
    no prompt is known. Ledger: S22, S22.alignment.
    """
    if not len(p):
        return {}
    low, high = prompts.levels
    width, g = high - low, prompts.group_size
    chance = -np.expm1(g * np.log1p(-np.minimum(p, 1 - 1e-16)))
    signal = (width * p) ** 2 * distance
    weight = 1 / (chance * len(prompts.known))
    found = {"signal": float(weight @ signal)}
    if scale in ("group", "none"):
        kappa = grpo_scale(p, g, baseline="group_mean")
        if scale == "group":
            kappa = grpo_scale(p, g, baseline="standardised", ddof=1, eps=eps / width) / width
        found["alignment"] = float(weight @ (kappa * signal))
        found["costate_gap"] = float(weight @ (np.abs(kappa - 1) * signal))
    return found
