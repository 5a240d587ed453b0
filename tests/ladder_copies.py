"""Ladders for the loopback hub: small ones with any files, and OLMo-2 1B with its names and sizes but no weights."""

import json
from collections.abc import Iterable
from typing import Any

from tests.loopback_hub import Files, Repository, blob, declared

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OLMO2_1B_BYTES = (4_983_360_992, 956_326_560)
TOKENS_PER_STEP = 2_097_152
OLMO2_1B: dict[str, Any] = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 100_352,
    "rope_theta": 500_000,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}
"""config.json as it was written before version 5 of transformers."""


def index(names: Iterable[str]) -> str:
    """Index of shards with one tensor in each."""
    return json.dumps({"metadata": {}, "weight_map": {f"tensor.{k}": name for k, name in enumerate(names)}})


def rung(weights: str, *, config: dict[str, Any] | None = None, sizes: Iterable[int] = (4000, 1000)) -> Files:
    """Files of one rung in two shards; equal `weights` are equal weights."""
    text = {"config.json": json.dumps(OLMO2_1B if config is None else config), "tokenizer.json": "{}"}
    shards = {name: declared(size, f"{weights} {name}") for name, size in zip(SHARDS, sizes, strict=True)}
    return {**{k: blob(v) for k, v in text.items()}, "model.safetensors.index.json": blob(index(SHARDS)), **shards}


def small(steps: Iterable[int] = (1000, 2000, 3000), *, name: str = "allenai/OLMo-2-0425-1B") -> Repository:
    """Main and a few rungs, named as OLMo-2's are."""
    branches = {"main": rung("main")}
    return Repository(name, branches | {stage1(step): rung(f"step {step}") for step in steps})


def stage1(step: int) -> str:
    """Name of a stage-1 rung: tokens in billions, rounded up."""
    return f"stage1-step{step}-tokens{-(-step * TOKENS_PER_STEP // 10**9)}B"


def olmo2_1b() -> Repository:
    """Names and sizes of `allenai/OLMo-2-0425-1B`: stage 1 every 10 000 steps and irregular ones, stage 2."""
    steps = [*range(0, 1_900_001, 10_000), 300, 23_100, 1_907_359]
    names = ["main", *(stage1(step) for step in sorted(steps))]
    for ingredient in (1, 2, 3):
        for step in (*range(1000, 23_001, 1000), 23_852):
            tokens = -(-step * TOKENS_PER_STEP // 10**9)
            names.append(f"stage2-ingredient{ingredient}-step{step}-tokens{tokens}B")
    return Repository("allenai/OLMo-2-0425-1B", {name: rung(name, sizes=OLMO2_1B_BYTES) for name in names})
