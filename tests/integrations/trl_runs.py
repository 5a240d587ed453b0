"""Real GRPO runs of TRL on tiny models, a few steps each."""

from pathlib import Path
from typing import Any

from tests import tiny_models


def right_token(prompt: str) -> int:
    """Token id that the reward wants: one of the tokenizer's, fixed by the prompt's length."""
    return 40 + len(prompt) % 7


def one_token_reward(completion_ids: list[list[int]], prompts: list[str], **_: Any) -> list[float]:
    """1 for the right first token."""
    return [float(ids[0] == right_token(p)) for ids, p in zip(completion_ids, prompts, strict=True)]


def even_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of even tokens: real-valued."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def make_trainer(folder: Path, reward: Any, *, callbacks: Any = (), model: Any = None, **changes: Any) -> Any:
    """A GRPOTrainer on CPU over a tiny model and eight prompts."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompts = ["a" * (i + 1) + " =" for i in range(8)]
    settings: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 4,
        "learning_rate": 1e-3, "max_steps": 2, "gradient_checkpointing": False, "bf16": False, "use_cpu": True,
        "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "seed": 0,
    }  # fmt: skip
    return GRPOTrainer(
        model=tiny_models.model("Olmo2", initializer_range=0.3).train() if model is None else model,
        reward_funcs=reward,
        args=GRPOConfig(**{**settings, **changes}),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tiny_models.tokenizer(),
        callbacks=list(callbacks),
    )
