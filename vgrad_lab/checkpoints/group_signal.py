"""Signal, alignment and gap from sampled answers: U-statistics over the independent answers of a prompt.

With s_i = ∂ log π(o_i)/∂h and the answers o_1 … o_G to one prompt independent, G_q = ∂E[R]/∂h = E[R s] = Cov(R, s) for
every state h that the prompt fixes (ledger S21.exact). What is a polynomial of the law of (R, s) can be estimated
without bias as a mean over disjoint answers; it needs inner products of scores only:

- estimable: Σ = E‖G‖² (4 answers), E⟨λ̂,G⟩ (the group and 2 more), E‖E[λ̂|q] − G‖² (two groups), Λ where E[λ̂|q] is known
  to be parallel to G on one side of it (leave-one-out, own mean, standardised rewards 0 and 1);
- not estimable from any fixed number of answers: ‖G‖ (a root), so Λ for other rewards and the single-sample Λ of §6;
  the cosine and κ(p) as E⟨λ̂,G⟩/Σ (ratios); G after the first answer token, where every answer has its own prefix.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.checkpoints.group_estimate import Estimate, check_reward, is_binary, over_prompts, same_reward, undefined
from vgrad_lab.impact import binary_advantages

ALL_DEAD = "all groups dead: no prompt has answers of different reward"
ALL_SILENT = "no prompt has two answers apart from its most common reward, so that every product of answers is zero"
PER_SAMPLE = "a norm of single costates has no unbiased estimate from samples (ledger S23)"


@dataclass(frozen=True)
class GroupRule:
    """The protocol's advantages: its group size n, baseline, and ddof and ε of the standardised one."""

    size: int
    baseline: Baseline = "standardised"
    ddof: int = 1
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(f"a group needs at least 2 samples, got {self.size}")


@dataclass(frozen=True)
class SignalEstimates:
    """Estimates at one state; ``usable`` holds Σ̂ − Λ̂ of every prompt, None where Λ is undefined.

    bias_squared: E‖E[λ̂|q] − G‖², so that Λ ≤ √(Σ·bias_squared) where Λ itself is undefined.
    """

    signal: Estimate
    alignment: Estimate
    gap: Estimate
    bias_squared: Estimate
    usable: Float[ndarray, " Q"] | None


def _check(reward: ndarray, gram: ndarray) -> None:
    check_reward(reward)
    if gram.shape != (*reward.shape, reward.shape[1]):
        raise ValueError(
            f"gram has shape {gram.shape}; rewards {reward.shape} ask for {(*reward.shape, reward.shape[1])}"
        )
    if not np.all(np.isfinite(gram)):
        raise ValueError("gram holds non-finite values; the checkpoint or its activations are broken")


def signal_per_prompt(reward: Float[ndarray, "Q G"], gram: Float[ndarray, "Q G G"]) -> Float[ndarray, " Q"]:
    """‖G_q‖² of each prompt without bias: the mean over disjoint pairs of answers of ⟨c_ij, c_kl⟩.

    c_ij = ½ (R_i − R_j)(s_i − s_j), whose mean is Cov(R, s) = G. Written out, Σ_{i≠k} w_ik ⟨s_i, s_k⟩ with
    w_ik = Σ_{j≠l, both ∉ {i,k}} (R_i − R_j)(R_k − R_l) / (G(G−1)(G−2)(G−3)). Exactly 0 for a dead group.

    reward: R. gram: ⟨s_i, s_j⟩; its diagonal is not used. Raises ValueError for fewer than 4 answers a prompt,
    other shapes or non-finite numbers. Ledger: S22.sampled.
    """
    _check(reward, gram)
    g = reward.shape[1]
    if g < 4:
        raise ValueError(f"the signal needs at least 4 answers per prompt, got {g}")
    r = reward - reward[:, :1]  # a shift changes nothing, and this one leaves a dead group exactly 0
    a, b = r[:, :, None], r[:, None, :]
    first = r.sum(1)[:, None, None] - a - b
    second = (r**2).sum(1)[:, None, None] - a**2 - b**2
    others = g - 2
    weight = others * (others - 1) * a * b - (others - 1) * first * (a + b) + first**2 - second
    weight[:, np.arange(g), np.arange(g)] = 0
    return np.asarray((weight * gram).sum((1, 2)) / (g * (g - 1) * (g - 2) * (g - 3)))


def contributing(reward: Float[ndarray, "Q G"]) -> Bool[ndarray, " Q"]:
    """Prompts with two disjoint pairs of answers that differ in reward: all others add exactly 0 to every estimate.

    With one success among failures no product of two independent samples of the gradient is left.
    """
    return np.asarray(same_reward(check_reward(reward)).max(1) <= reward.shape[1] - 2)


def _windows(reward: ndarray, rule: GroupRule) -> Float[ndarray, "Q G G"]:
    """Row r: Â_i/n of the group of n consecutive answers from r on (cyclic), 0 outside it."""
    q, g = reward.shape
    index = (np.arange(g)[:, None] + np.arange(rule.size)) % g
    groups = reward[:, index].reshape(-1, rule.size)
    advantage = from_group(groups, rule.baseline, ddof=rule.ddof, eps=rule.eps).reshape(q, g, rule.size)
    weight = np.zeros((q, g, g))
    weight[:, np.arange(g)[:, None], index] = advantage / rule.size
    return weight


def alignment_per_prompt(
    reward: Float[ndarray, "Q G"], gram: Float[ndarray, "Q G G"], rule: GroupRule
) -> Float[ndarray, " Q"]:
    """E⟨λ̂, G⟩ of each prompt without bias, for any rewards and baseline.

    The mean over groups a of n consecutive answers of ⟨(1/n) Σ_{i∈a} Â_i s_i, Ĝ⟩, Ĝ = Σ_{j∉a} (R_j − R̄) s_j/(m − 1)
    from the m = G − n answers outside it (R̄ theirs): no answer meets itself, neither in s nor in an advantage.

    Raises ValueError for fewer than n + 2 answers a prompt. Ledger: S22.sampled.
    """
    _check(reward, gram)
    g, rest = reward.shape[1], reward.shape[1] - rule.size
    if rest < 2:
        raise ValueError(f"the alignment needs {rule.size} + 2 answers per prompt, got {g}")
    costate = _windows(reward, rule)
    outside = (np.arange(g)[None, :] - np.arange(g)[:, None]) % g >= rule.size
    mean = (outside * reward[:, None, :]).sum(2, keepdims=True) / rest
    gradient = outside * (reward[:, None, :] - mean) / (rest - 1)
    return np.asarray(((costate @ gram) * gradient).sum((1, 2)) / g)


def costate_square_per_prompt(
    reward: Float[ndarray, "Q G"], gram: Float[ndarray, "Q G G"], rule: GroupRule
) -> Float[ndarray, " Q"]:
    """‖E[λ̂|q]‖² of each prompt without bias: products of the mean costates of two disjoint groups.

    Raises ValueError for fewer than 2n answers a prompt. Ledger: S22.sampled.
    """
    _check(reward, gram)
    if reward.shape[1] < 2 * rule.size:
        raise ValueError(f"two groups of {rule.size} need {2 * rule.size} answers per prompt, got {reward.shape[1]}")
    costate = _windows(reward, rule)
    other = np.roll(costate, -rule.size, axis=1)
    return np.asarray(((costate @ gram) * other).sum((1, 2)) / reward.shape[1])


def one_sided(rule: GroupRule) -> int:
    """+1 where κ_n(p) ≥ 1 for every p, −1 where κ_n(p) ≤ 1 for every p, 0 where neither is known; rewards 0 and 1.

    κ_n(p) is a mean of Â(1,k+1) − Â(0,k) over k (``impact.grpo_scale``), so it lies between their extremes.
    """
    won, lost = binary_advantages(rule.size, rule.baseline, ddof=rule.ddof, eps=rule.eps)
    jump = won - lost
    return 1 if jump.min() >= 1 else -1 if jump.max() <= 1 else 0


def _gap(
    reward: ndarray, rule: GroupRule, signal: ndarray, alignment: ndarray | None, why: str
) -> ndarray | str:  # fmt: skip
    """Λ of every prompt, or why it has no unbiased estimate."""
    if rule.baseline == "leave_one_out":
        return np.zeros(len(signal))
    if rule.baseline == "group_mean":
        return signal / rule.size
    if not is_binary(reward):
        return "rewards other than 0 and 1: E λ̂ need not be parallel to G, and a norm has no unbiased estimate"
    if alignment is None:
        return why
    side = one_sided(rule)
    if side == 0:
        return f"κ lies on both sides of 1 (ε = {rule.eps:g}), and |κ − 1| has no unbiased estimate"
    return side * (alignment - signal)


def estimate_signal(
    reward: Float[ndarray, "Q G"], gram: Float[ndarray, "Q G G"], rule: GroupRule
) -> SignalEstimates:  # fmt: skip
    """Σ, E⟨λ̂,G⟩, Λ and E‖E[λ̂|q] − G‖² as means over prompts, with standard errors, or why they are undefined.

    Eqs. 24-27 with conditional expectations over the answers given the prompt. E⟨λ̂,G⟩ is Σ for leave-one-out and
    (n−1)/n Σ for the own mean (ledger S21.group); Λ = |κ − 1| Σ = ±(E⟨λ̂,G⟩ − Σ) for standardised rewards 0 and 1.

    reward: R of G independent answers to each prompt. gram: ⟨s_i, s_j⟩ of their scores at the state. rule: the
    protocol's advantages, whose n need not be G. Raises ValueError for shapes or non-finite numbers. Ledger:
    S22.sampled.
    """
    _check(reward, gram)
    g, n = reward.shape[1], rule.size
    if g < 4:
        return _nothing(f"needs 4 answers per prompt, got {g}")
    if not contributing(reward).any():
        return _nothing(ALL_DEAD if bool((reward == reward[:, :1]).all()) else ALL_SILENT)
    signal = signal_per_prompt(reward, gram)
    factor = {"leave_one_out": 1.0, "group_mean": (n - 1) / n}.get(rule.baseline)
    alignment, why = (
        None if factor is None else factor * signal,
        f"needs a group of {n} and 2 more answers per prompt, got {g}",
    )
    if factor is None and g >= n + 2:
        alignment = alignment_per_prompt(reward, gram, rule)
    gap = _gap(reward, rule, signal, alignment, why)
    bias: Estimate = undefined(f"needs two groups of {n} answers per prompt, got {g}")
    if factor is not None:
        bias = over_prompts((1 - factor) ** 2 * signal, exact=factor == 1)
    elif alignment is not None and g >= 2 * n:
        bias = over_prompts(costate_square_per_prompt(reward, gram, rule) - 2 * alignment + signal)
    return SignalEstimates(
        over_prompts(signal),
        undefined(why) if alignment is None else over_prompts(alignment),
        undefined(gap) if isinstance(gap, str) else over_prompts(gap, exact=rule.baseline == "leave_one_out"),
        bias,
        None if isinstance(gap, str) else signal - gap,
    )


def _nothing(reason: str) -> SignalEstimates:
    return SignalEstimates(undefined(reason), undefined(reason), undefined(reason), undefined(reason), None)
