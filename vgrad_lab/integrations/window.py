"""What one optimiser step of a trainer leaves behind for the log: sums over its micro-batches, and its groups."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.integrations.groups import dead_groups, describe_groups, levels
from vgrad_lab.integrations.scale import loss_weight
from vgrad_lab.integrations.signal import OneToken, answer_geometry, describe_signal, right_tokens, surplus
from vgrad_lab.integrations.watch import PARTS, Watch, plain_model, summarise

PLAIN_SAMPLING = {"top_p": (1.0, None), "top_k": (0, None), "min_p": (None, 0.0), "repetition_penalty": (1.0, None)}
SCALED_LOGITS = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
)  # fmt: skip


@dataclass(frozen=True)
class Generation:
    """Answers sampled at once: rewards of all processes, and of this one's prompts their right tokens (or None).

    contradicted: one-token answers, but not with one right token for each prompt.
    """

    first_row: int
    rows: int
    reward: Float[ndarray, "Q G"]
    by_function: Float[ndarray, "Q G F"]
    one_token: OneToken | None
    contradicted: bool


@dataclass(frozen=True)
class MicroBatch:
    """Weights of the micro-batch whose backward pass comes next."""

    scale: Float[Tensor, " B"]
    prompt: int
    length: Int[Tensor, " B"]
    rows: Int[Tensor, " B"] | None


@dataclass
class Window:
    """Sums of one step: ``PARTS`` per layer, answers counted, head inputs of one-token answers, generations."""

    parts: dict[int, Float[Tensor, " 5"]] = field(default_factory=dict)
    answers: int = 0
    states: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)


def total_rewards(trainer: Any, by_function: Float[Tensor, "B F"]) -> Float[ndarray, " B"]:
    """Weighted sum over reward functions, NaN for an answer that none of them scored."""
    table = by_function.double().cpu().numpy()
    weight = trainer.reward_weights.double().cpu().numpy()
    return np.where(np.isnan(table).all(1), np.nan, np.nansum(table * weight, axis=1))


def generation(
    trainer: Any, output: dict[str, Any], by_function: Float[Tensor, "B F"], seen: set[float] | None, first_row: int
) -> Generation:
    """One generation batch of a GRPO trainer. seen: rewards of the run so far, None when they are not binary."""
    group = int(trainer.num_generations)
    total = total_rewards(trainer, by_function)
    ids, rank = output["completion_ids"], int(trainer.accelerator.process_index)
    binary = levels(seen) if seen is not None else None
    one_token, applies = None, False
    if binary and ids.shape[1] == 1 and len(ids) % group == 0 and bool((output["completion_mask"] == 1).all()):
        local = total[rank * len(ids) : (rank + 1) * len(ids)].reshape(-1, group)
        applies, one_token = True, right_tokens(local, ids.cpu().numpy().reshape(-1, group), binary)
    table = by_function.double().cpu().numpy().reshape(-1, group, by_function.shape[1])
    contradicted = applies and one_token is None
    return Generation(first_row, len(ids), total.reshape(-1, group), table, one_token, contradicted)


def micro_batch(trainer: Any, inputs: dict[str, Any]) -> MicroBatch:
    """Scale, widths and rows of the inputs of a loss. Raises ValueError for a loss type that is not known."""
    mask = inputs["completion_mask"]
    counted = mask if "tool_mask" not in inputs else mask * inputs["tool_mask"]
    steps = int(trainer.current_gradient_accumulation_steps)
    tokens = inputs["num_items_in_batch"].clamp(min=1).double() / trainer.accelerator.num_processes
    weight = loss_weight(
        trainer.loss_type,
        counted.sum(1),
        accumulation=steps,
        max_completion_length=trainer.max_completion_length,
        window_tokens=tokens * steps / trainer.args.steps_per_generation,
    )
    scaler = getattr(trainer.accelerator, "scaler", None)
    loss_scale = float(scaler.get_scale()) if scaler is not None else 1.0
    width = int(inputs["prompt_ids"].shape[1])
    return MicroBatch(1 / (weight * loss_scale), width, mask.sum(1), inputs.get("vgrad_row"))


def add_micro_batch(window: Window, seen: Watch, batch: MicroBatch) -> None:
    """Add what the hooks kept during a backward pass. Raises ValueError when the states are not one row per answer."""
    for layer, norm in seen.norms.items():
        if len(norm) != len(batch.scale):
            raise ValueError(
                f"states have {len(norm)} rows, the loss {len(batch.scale)}; packed rows are not supported"
            )
        part = summarise(norm, batch.scale, prompt=batch.prompt, length=batch.length)
        window.parts[layer] = window.parts[layer] + part if layer in window.parts else part
    if seen.norms:
        window.answers += len(batch.scale)
    if seen.state is not None and batch.rows is not None and seen.norms:
        window.states.append((batch.rows, seen.state[:, batch.prompt - 1].clone()))


def describe_costates(window: Window, layers: int) -> dict[str, Any]:
    """Mean ‖λ̂‖ per layer and the shares of credit by position; None for a layer that gets no gradient (frozen)."""
    if not window.parts or not window.answers:
        return {}
    order = sorted(window.parts)
    rows = dict(zip(order, torch.stack([window.parts[i] for i in order]).tolist(), strict=True))
    named = {layer: dict(zip(PARTS, row, strict=True)) for layer, row in rows.items()}
    norms = [named[i]["norm"] / window.answers if i in named else None for i in range(layers + 1)]
    found: dict[str, Any] = {"costate_norm": norms if layers else []}
    head = named.get(layers + 1)
    if head:
        found["costate_norm_head"] = head["norm"] / window.answers
        if head["mass"] > 0:
            found["first_share"], found["last_share"] = head["first"] / head["mass"], head["last"] / head["mass"]
    lowest = named[order[0]]
    if order[0] <= layers and lowest["mass"] > 0:
        found["prompt_share"] = lowest["prompt"] / lowest["mass"]
    return found


def describe_generations(trainer: Any, window: Window, alpha: float, seen: set[float] | None) -> dict[str, Any]:
    """Numbers of the groups sampled in this step; empty when the step reuses older answers."""
    if not window.generations:
        return {}
    reward = np.concatenate([g.reward for g in window.generations])
    mixed = trainer.multi_objective_aggregation != "sum_then_normalize" and len(trainer.reward_funcs) > 1
    binary = levels(seen) if seen is not None and not mixed else None
    found: dict[str, Any] = describe_groups(
        reward, alpha=alpha, scale=trainer.scale_rewards, binary=binary, batches=len(window.generations)
    )
    if mixed:  # each reward function has its own spread
        table = np.concatenate([g.by_function for g in window.generations])
        dead = np.stack([dead_groups(table[..., i]) for i in range(table.shape[2])]).all(0)
        found["dead_groups"] = float(dead.mean())
    return {**found, "groups": len(reward), "group_size": int(reward.shape[1])}


def plain_head(trainer: Any) -> Tensor | None:
    """Weight of the output head over the temperature, or None where logits or samples are not softmax(W h / τ)."""
    args, model = trainer.args, plain_model(trainer.model)
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    plain = all(getattr(args, name, None) in allowed for name, allowed in PLAIN_SAMPLING.items())
    scaled = any(getattr(config, name, None) not in (None, 1.0) for name in SCALED_LOGITS)
    if not plain or scaled or getattr(args, "generation_kwargs", None) or type(head) is not torch.nn.Linear:
        return None
    whole = type(head.weight) is torch.nn.Parameter and head.weight.dim() == 2
    if head.bias is not None or not whole or not trainer.temperature > 0:
        return None
    return head.weight.detach() / trainer.temperature


def describe_one_token(trainer: Any, window: Window) -> tuple[dict[str, float], tuple[float, float]]:
    """Σ, alignment and Λ of the prompts of this step, before the optimiser moves, and ``signal.surplus``.

    Empty and (0, 0) where not defined.
    """
    fresh, nothing = window.generations, (dict[str, float](), (0.0, 0.0))
    if not fresh or not window.states or any(g.one_token is None for g in fresh):
        return nothing
    head = plain_head(trainer)
    if head is None:
        return nothing
    rows = torch.cat([r for r, _ in window.states]).cpu().numpy()
    states = torch.cat([h for _, h in window.states])
    group, (base, size) = int(trainer.num_generations), (fresh[0].first_row, sum(g.rows for g in fresh))
    inside = np.flatnonzero((rows >= base) & (rows < base + size))
    prompt, first = np.unique((rows[inside] - base) // group, return_index=True)
    each = [g.one_token for g in fresh if g.one_token is not None]
    known = np.concatenate([o.known for o in each])[prompt]
    target = np.concatenate([o.target for o in each])[prompt]
    successes = np.concatenate([o.successes for o in each])[prompt]
    seen = OneToken(target, known, successes, group, each[-1].levels)
    if not known.any():
        return nothing
    chosen = torch.as_tensor(inside[first[known]], device=states.device)
    with torch.no_grad():
        hidden = states[chosen].to(head.dtype)
        p, distance = answer_geometry(head, hidden, torch.as_tensor(target[known], device=head.device))
    return describe_signal(seen, p, distance, scale=trainer.scale_rewards), surplus(seen, p)
