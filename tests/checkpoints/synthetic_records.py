"""Plausible records of a run, drawn from a seed: a ladder that learns to copy, and RL that follows the forecast."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from vgrad_lab.impact import forecast, grpo_scale, headroom, headroom_bernoulli
from vgrad_lab.simplex import entropy, softmax_covariance_norm

BUDGETS = [10, 20, 25, 30]
GROUP = 8
VOCABULARY = 64
RATES = {"adamw": 1e-4, "sgd": 1e-2}


def checkpoint(step: int) -> dict[str, Any]:
    loss = 2.6 + 4.3 / (1 + step / 60)
    training = {"train_loss": loss if step else None, "validation_loss": loss + 0.3, "tokens": step * 1024}
    return {"name": f"step{step:06d}", "step": step, "sha256": f"{step:064x}", "training": training}


def probabilities(step: int, rng: np.random.Generator, prompts: int = 24) -> np.ndarray:
    """Rows with the answer in column 0, the other three labels next, dust behind."""
    at = (step - 600) / 220
    logits = rng.normal(0, 0.4, (prompts, VOCABULARY))
    logits[:, :4] += 1.2 + 1.4 * np.tanh((step - 250) / 150)
    logits[:, 0] += 3.2 / (1 + np.exp(-at)) + rng.normal(0, 0.7, prompts)
    rows = np.exp(logits - logits.max(1, keepdims=True))
    return rows / rows.sum(1, keepdims=True)


def measure(step: int, rng: np.random.Generator) -> dict[str, Any]:
    p = probabilities(step, rng)
    success, weight = p[:, 0], np.full(len(p), 1 / len(p))
    scale, per_prompt = grpo_scale(success, GROUP), (success * (1 - success)) ** 2 * 40
    signal, reward = float(per_prompt.mean()), float(success.mean())
    hit = 1 - (1 - success) ** GROUP
    l1 = (450 + 60 * rng.random()) * (reward * (1 - reward)) ** 0.9
    return {
        "reward_before": reward,
        "reward_restricted": float((success / p[:, :4].sum(1)).mean()),
        "label_mass": float(p[:, :4].sum(1).mean()),
        "pass_at_k": float(hit.mean()),
        "k": GROUP,
        "entropy": float(entropy(p).mean()),
        "success_variance": float((success * (1 - success)).mean()),
        "mixed_group": float((hit - success**GROUP).mean()),
        "signal": signal,
        "costate_gap_conditional": float((np.abs(scale - 1) * per_prompt).mean()),
        "costate_gap_per_sample": signal * (4 - reward),
        "costate_gap_group_mean": signal * (2 - reward / 2),
        "alignment": float((scale * per_prompt).mean()),
        "headroom_within": float(headroom_bernoulli(success, 1.0).mean()),
        "headroom_between": headroom(success, 1.0),
        "alpha": 1.0,
        "group_size": GROUP,
        "gradient_l1": l1,
        "gradient_l2_squared": l1**2 / 4e4,
        "vocabulary": VOCABULARY,
        "per_prompt": {
            "success": success.tolist(),
            "weight": weight.tolist(),
            "entropy": entropy(p).tolist(),
            "covariance_norm": softmax_covariance_norm(p).tolist(),
            "pmax": p.max(1).tolist(),
        },
    }


def rl(result: dict[str, Any], optimizer: str, rng: np.random.Generator) -> dict[str, Any]:
    gradient = result["gradient_l1" if optimizer == "adamw" else "gradient_l2_squared"]
    rate = RATES[optimizer]
    curve = forecast(
        result["reward_before"], gradient, optimizer=optimizer, learning_rate=rate, group_size=GROUP, updates=30
    )
    after = np.clip(curve[BUDGETS] + rng.normal(0, 0.012, 4), 0, 1)
    return {
        "optimizer": optimizer,
        "learning_rate": rate,
        "budgets": BUDGETS,
        "reward_before": result["reward_before"],
        "reward_after": after.tolist(),
        "reward_restricted_after": np.minimum(after + 0.2, 1).tolist(),
        "label_mass_after": np.minimum(after + 0.1, 1).tolist(),
        "gain_mean": float((after - result["reward_before"]).mean()),
    }


def records(
    seed: int = 0,
    *,
    steps: tuple[int, ...] = tuple(range(100, 2001, 100)),
    optimizers: tuple[str, ...] = ("adamw",),
    seeds: tuple[int, ...] = (0, 1),
    failed: int = 0,
) -> list[dict[str, Any]]:
    """Measure units, then RL units; the last ``failed`` of them failed."""
    rng = np.random.default_rng(seed)
    common = {"task": "label-copy", "device": "cpu", "error": None, "status": "done", "versions": {"numpy": "2.4.6"}}
    found = []
    for step in steps:
        result = measure(step, rng)
        base = {**common, "checkpoint": checkpoint(step), "settings": {"group_size": GROUP, "alpha": 1.0}}
        unit = f"measure-{step}"
        found.append({**base, "unit": unit, "stage": "measure", "protocol": "measure", "seed": 0, "result": result})
        for optimizer in optimizers:
            for rl_seed in seeds:
                settings = {"group_size": GROUP, "learning_rate": RATES[optimizer], "optimizer": optimizer}
                unit, outcome = f"rl-{optimizer}-{step}-{rl_seed}", rl(result, optimizer, rng)
                own = {"unit": unit, "stage": "rl", "protocol": "grpo", "seed": rl_seed, "settings": settings}
                found.append({**base, **own, "result": outcome})
    for record in found[len(found) - failed :]:
        record.update(status="failed", result=None, error="RuntimeError: loss is <nan> & gone")
    return found


def write(folder: Path, found: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found), encoding="utf-8")
    return folder
