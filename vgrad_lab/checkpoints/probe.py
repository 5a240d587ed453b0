"""Measure a checkpoint before any RL: signal, gap, headroom and the trivial baselines, from one forward pass.

The state is the head's input at the answer position, *after* the final norm; rewards are 1[a = y*] with the answer
sampled from the full vocabulary (closed forms in ``one_step``). Only ‖∇J‖ needs a backward pass.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab import impact, simplex
from vgrad_lab.advantage import Baseline
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.precision import Precision, running
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.one_step import OneStep, one_step, sampled_group_gap

EVALUATION_SEED = 10_000
"""Seed of the evaluation prompts; RL prompts are drawn with other seeds."""


@dataclass(frozen=True)
class MeasureSettings:
    """What Λ and H are read with: α per unit reward, the GRPO group, and how many prompts are drawn.

    precision: of the backbone's matrix products; sums over states and vocabulary are float64 in any case.
    states, answers: of tasks of sampled answers only: where Σ and Λ are taken, as `group_costates.place_of` reads it
    (none: its defaults), and how many answers to a prompt (None: two groups, at least 8).
    """

    alpha: float = 1.0
    group_size: int = 8
    baseline: Baseline = "standardised"
    ddof: int = 1
    eps: float = 1e-4
    prompts: int = 256
    sampled_groups: int = 64
    micro_batch: int = 64
    precision: Precision = "float32"
    states: tuple[str, ...] = ()
    answers: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise UserError(f"alpha is {self.alpha}; give a positive number")


LATER: dict[str, Any] = {"precision": "float32", "states": (), "answers": None}
"""Settings that came after the first records, with the values at which ``measure_facts`` leaves them out."""


def measure_facts(settings: MeasureSettings) -> dict[str, Any]:
    """Settings as a record holds them: what came later is left out at its default, so that old hashes stay valid."""
    return {k: v for k, v in asdict(settings).items() if k not in LATER or v != LATER[k]}


def evaluation_prompts(checkpoint: Checkpoint, task: LabelCopy, prompts: int) -> PromptBatch:
    """The evaluation set: ``prompts`` draws, duplicates merged into weights."""
    drawn = draw_prompts(task, prompts, seed=EVALUATION_SEED)
    return encode_prompts(task, checkpoint.tokenizer, drawn, deduplicate=True)


def micro_batches(batch: PromptBatch, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` prompts."""
    return (slice(i, i + size) for i in range(0, len(batch.last), size))


def answer_state(model: Any, tokens: Tensor, last: Tensor) -> Float[Tensor, "B S"]:
    """Head input (post-final-norm state) at position ``last`` of each right-padded row; causal, so no mask."""
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(tokens), device=hidden.device), last.to(hidden.device)]


def answer_logits(model: Any, tokens: Tensor, last: Tensor) -> Float[Tensor, "B V"]:
    """Logits at the answer position only: the head is applied to one state a row."""
    return model.get_output_embeddings()(answer_state(model, tokens, last))


def on_device(model: Any, batch: PromptBatch, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, last positions and targets of some prompts, cut to their longest and moved to the model."""
    longest = int(batch.last[rows].max()) + 1
    parts = (batch.tokens[rows, :longest], batch.last[rows], batch.target[rows])
    tokens, last, target = (torch.from_numpy(np.ascontiguousarray(x)).to(model.device) for x in parts)
    return tokens, last, target


def check_linear_head(model: Any, batch: PromptBatch) -> None:
    """Refuse a model whose logits are not head · h (soft-capped, scaled or biased): the closed forms need that.

    Raises UserError, naming the largest difference.
    """
    with torch.no_grad():
        tokens, last, _ = on_device(model, batch, slice(0, 1))
        direct = model(input_ids=tokens, use_cache=False).logits[0, int(last[0])]
        ours = answer_state(model, tokens, last)[0] @ model.get_output_embeddings().weight.T
    difference = float((direct - ours).abs().max())
    if not difference <= 1e-3 * max(1.0, float(direct.abs().max())):
        raise UserError(
            f"{type(model).__name__} logits differ from head·h by {difference:.3g} (soft-capping, scaling or a bias); "
            "the closed forms need a plain linear head, choose a model that has one"
        )


def check_answer_logits(model: Any, batch: PromptBatch) -> None:
    """Refuse a transformers model whose logits are not its head's output (soft-capped, scaled): RL would miss that.

    Raises UserError, naming the largest difference.
    """
    if not hasattr(model, "config"):
        return
    with torch.no_grad():
        tokens, last, _ = on_device(model, batch, slice(0, 1))
        direct = model(input_ids=tokens, use_cache=False).logits[0, int(last[0])]
        difference = float((direct - answer_logits(model, tokens, last)[0]).abs().max())
    if math.isfinite(difference) and difference > 1e-3 * max(1.0, float(direct.abs().max())):
        raise UserError(
            f"{type(model).__name__} logits differ from head output by {difference:.3g} (soft-capping or scaling), "
            "which RL here would leave out; choose a model without, or switch it off in config.json"
        )


def answer_states(model: Any, batch: PromptBatch, micro_batch: int) -> Float[ndarray, "Q S"]:
    """Post-final-norm state at the answer position of every prompt, float64."""
    with torch.no_grad():
        states = [answer_state(model, *on_device(model, batch, rows)[:2]) for rows in micro_batches(batch, micro_batch)]
    return torch.cat(states).double().cpu().numpy()


def reward_gradient_norms(model: Any, batch: PromptBatch, micro_batch: int) -> tuple[float, float]:
    """‖∇_θ J‖₁ and ‖∇_θ J‖² of the mean reward J = Σ_q w_q p(y*|q), one backward pass over the prompts."""
    model.zero_grad(set_to_none=True)
    for rows in micro_batches(batch, micro_batch):
        tokens, last, target = on_device(model, batch, rows)
        probability = torch.softmax(answer_logits(model, tokens, last).float(), -1)
        chosen = probability[torch.arange(len(target), device=target.device), target]
        weight = torch.as_tensor(batch.weight[rows], dtype=chosen.dtype, device=chosen.device)
        torch.autograd.backward((weight * chosen).sum())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norms = [(g.abs().sum(), (g * g).sum()) for g in (x.double() for x in gradients)]  # one in float64 at a time
    model.zero_grad(set_to_none=True)
    return float(sum(l1 for l1, _ in norms)), float(sum(l2 for _, l2 in norms))


def reward_summary(probability: Float[ndarray, "Q V"], batch: PromptBatch) -> dict[str, float]:
    """Mean reward over the full vocabulary, renormalised over the labels, and the labels' mass."""
    p = probability[np.arange(len(batch.target)), batch.target]
    mass = probability[:, batch.labels].sum(1)
    return {
        "reward": float(batch.weight @ p),
        "reward_restricted": float(batch.weight @ (p / np.maximum(mass, np.finfo(float).tiny))),
        "label_mass": float(batch.weight @ mass),
    }


def _scores(m: OneStep, w: ndarray, s: MeasureSettings) -> dict[str, float]:
    """Everything that is a weighted mean over prompts of a closed form."""
    p, k = m.success, s.group_size
    headroom_within = float(w @ impact.headroom_bernoulli(p, s.alpha))
    signal, conditional, sample = float(w @ m.signal), float(w @ m.gap_conditional), float(w @ m.gap_per_sample)
    return {
        "signal": signal,
        "costate_gap_conditional": conditional,
        "costate_gap_per_sample": sample,
        "alignment": float(w @ m.alignment),
        "costate_second_moment": float(w @ m.costate_second_moment),
        "headroom_within": headroom_within,
        "headroom_between": impact.headroom(p, s.alpha, weight=w),
        "impact_score": impact.impact_score(signal, conditional, headroom_within),
        "impact_score_per_sample": impact.impact_score(signal, sample, headroom_within),
        "success_variance": float(w @ (p * (1 - p))),
        "pass_at_k": float(w @ -np.expm1(k * np.log1p(-np.minimum(p, 1 - 1e-16)))),
        "mixed_group": float(w @ (1 - p**k - (1 - p) ** k)),
    }


def measure(checkpoint: Checkpoint, task: LabelCopy, settings: MeasureSettings, *, seed: int = 0) -> dict[str, Any]:
    """All measures of one checkpoint on a task, before any RL.

    seed: of the sampled reading of Λ (group means) only; all else is closed form. In bfloat16 its error against float32
    is measured and part of the result. Raises UserError for a head that is not linear or non-finite activations.
    Ledger: S22-S27.
    """
    if settings.states or settings.answers is not None:
        raise UserError("states and answers belong to tasks of sampled answers; label copying is measured exactly")
    model, batch = checkpoint.model, evaluation_prompts(checkpoint, task, settings.prompts)
    check_linear_head(model, batch)
    head = model.get_output_embeddings().weight.detach().double().cpu().numpy()
    with running(model, settings.precision):
        states = answer_states(model, batch, settings.micro_batch)
        l1, l2_squared = reward_gradient_norms(model, batch, settings.micro_batch)
    m = _closed_forms(checkpoint, head, states, batch, settings)
    rewards = reward_summary(m.probability, batch)
    result = {
        "reward_before": rewards.pop("reward"),
        **rewards,
        **_scores(m, batch.weight, settings),
        **_group_mean_gap(head, m, batch, settings, seed),
        **_distribution(m, batch),
        "gradient_l1": l1,
        "gradient_l2_squared": l2_squared,
        "alpha": settings.alpha,
        "group_size": settings.group_size,
        "k": settings.group_size,
        "vocabulary": len(head),
        "parameters": sum(x.numel() for x in model.parameters()),
    }
    if settings.precision != "float32":
        result["precision_error"] = _precision_error(checkpoint, head, states, batch, settings, result)
    return result


def _closed_forms(
    checkpoint: Checkpoint, head: ndarray, states: ndarray, batch: PromptBatch, settings: MeasureSettings
) -> OneStep:
    try:
        return one_step(
            head,
            states,
            batch.target,
            group_size=settings.group_size,
            baseline=settings.baseline,
            ddof=settings.ddof,
            eps=settings.eps,
        )
    except ValueError as error:
        raise UserError(f"{checkpoint.path} cannot be measured: {error}") from error


def _precision_error(
    checkpoint: Checkpoint,
    head: ndarray,
    states: ndarray,
    batch: PromptBatch,
    settings: MeasureSettings,
    result: dict[str, Any],
) -> dict[str, float]:
    """What rounding cost: the largest error of a state's norm and of p(y*|q), the errors of the main numbers.

    All relative to float32, but for the probability and the reward.
    """
    model, size = checkpoint.model, settings.micro_batch
    with running(model):
        exact = answer_states(model, batch, size)
        l1, l2_squared = reward_gradient_norms(model, batch, size)
    m = _closed_forms(checkpoint, head, exact, batch, settings)
    scores = _scores(m, batch.weight, settings) | {"gradient_l1": l1, "gradient_l2_squared": l2_squared}
    named = ("signal", "costate_gap_conditional", "impact_score", "gradient_l1", "gradient_l2_squared")
    success = np.array(result["per_prompt"]["success"])
    return {
        "state": float((np.linalg.norm(states - exact, axis=1) / np.linalg.norm(exact, axis=1)).max()),
        "probability": float(np.abs(success - m.success).max()),
        "reward_before": float(batch.weight @ (success - m.success)),
        **{k: float((result[k] - scores[k]) / max(abs(scores[k]), np.finfo(float).tiny)) for k in named},
    }


def _group_mean_gap(
    head: ndarray, m: OneStep, batch: PromptBatch, settings: MeasureSettings, seed: int
) -> dict[str, float]:
    """The sampled reading of Λ (costate averaged over a group) with its standard error."""
    sampled = sampled_group_gap(
        head,
        m,
        batch.target,
        group_size=settings.group_size,
        groups=settings.sampled_groups,
        rng=np.random.default_rng(seed),
        baseline=settings.baseline,
        ddof=settings.ddof,
        eps=settings.eps,
    )
    variance = (batch.weight**2) @ sampled.var(1, ddof=1) / settings.sampled_groups
    return {
        "costate_gap_group_mean": float(batch.weight @ sampled.mean(1)),
        "costate_gap_group_mean_se": float(np.sqrt(variance)),
    }


def _distribution(m: OneStep, batch: PromptBatch) -> dict[str, Any]:
    """Entropy and the per-prompt numbers that figures need."""
    entropy = simplex.entropy(m.probability)
    return {
        "entropy": float(batch.weight @ entropy),
        "per_prompt": {
            "success": m.success.tolist(),
            "weight": batch.weight.tolist(),
            "template": batch.template.tolist(),
            "entropy": entropy.tolist(),
            "covariance_norm": simplex.softmax_covariance_norm(m.probability).tolist(),
            "pmax": m.probability.max(1).tolist(),
        },
    }
