"""What VGradCallback costs per step of TRL's GRPOTrainer, and how well its λ̂ is scaled.

    python benchmarks/trl_callback.py --json docs/results/benchmark-trl-callback.json

(a) Processor time per step with and without the callback, runs of a few steps interleaved, on a model of 0.5 million
parameters with one-token answers and on one of 25 million with longer ones (aim: at most 3 % more). (b) For each loss
type, the largest relative difference over layers between the logged ‖λ̂‖ and a direct ∂(Â Σ ℓ)/∂h in float64 (aim:
1e-6). Needs the extra ``trl``.
"""

import argparse
import copy
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.store import canonical
from vgrad_lab.integrations import credit_log
from vgrad_lab.integrations.trl import VGradCallback
from vgrad_lab.provenance import versions
from vgrad_lab.stats import bootstrap

SIZES: dict[str, dict[str, int]] = {
    "0.5M": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 4, "vocab_size": 512, "answers": 128, "answer_tokens": 1},
    "25M": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 6,
            "num_key_value_heads": 6, "vocab_size": 8192, "answers": 16, "answer_tokens": 24},
}  # fmt: skip
LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo")
PROMPTS = [f"w{i} w{i + 1} w{i + 2} w{i + 3} w{i + 4} w{i + 5} w{i + 6} w{i + 7}" for i in range(10, 74)]


def tokenizer(vocab: int) -> Any:
    """One token a word."""
    words = {f"w{i}": i for i in range(vocab)}
    made = Tokenizer(models.WordLevel(words, unk_token="w2"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="w0", pad_token="w1", unk_token="w2")


def model(size: dict[str, int]) -> Any:
    """A random OLMo-2 of one size."""
    torch.manual_seed(0)
    shape = {k: v for k, v in size.items() if not k.startswith("answer")}
    config = transformers.Olmo2Config(**shape, max_position_embeddings=128, pad_token_id=1, eos_token_id=0)
    return transformers.Olmo2ForCausalLM(config)


def low(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """1 for a first token in the lower half of the vocabulary: half of the groups' answers succeed, none is dead."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def make_trainer(folder: str, size: dict[str, int], made: Any, callbacks: list[Any], **changes: Any) -> GRPOTrainer:
    """TRL's defaults but for size, device and silence."""
    settings: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": size["answers"], "num_generations": 8,
        "max_completion_length": size["answer_tokens"], "learning_rate": 1e-5, "bf16": False, "use_cpu": True,
        "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "seed": 0,
    }  # fmt: skip
    trainer = GRPOTrainer(
        model=made,
        reward_funcs=low,
        args=GRPOConfig(**{**settings, **changes}),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tokenizer(size["vocab_size"]),
        callbacks=callbacks,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


class Clock(TrainerCallback):
    """Processor seconds between the starts of successive steps, the first step of each run left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Forget the last run's steps."""
        self.starts: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Note a step."""
        self.starts.append(time.process_time())
        if len(self.starts) > 2:
            self.seconds.append(self.starts[-1] - self.starts[-2])


def overhead(size: dict[str, int], rounds: int, steps: int) -> dict[str, Any]:
    """Processor time of a step with the callback over the same step without; runs of both take turns.

    Training is the same bit for bit, so steps are compared in pairs; median with a bootstrap interval of 90 %.
    """
    base, callback = model(size), VGradCallback()
    clocks = {"without": Clock(), "with": Clock()}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for name, clock in clocks.items():
            callbacks = [clock, callback] if name == "with" else [clock]
            twin = copy.deepcopy(base)
            trainers[name] = make_trainer(f"{folder}/{name}", size, twin, callbacks, max_steps=steps)
        for turn in range(rounds):
            for name in list(clocks) if turn % 2 else list(clocks)[::-1]:
                torch.manual_seed(turn)
                trainers[name].train()
    assert callback.problem is None, callback.problem
    seconds = {name: np.array(clock.seconds) for name, clock in clocks.items()}
    ratio = seconds["with"] / seconds["without"] - 1
    interval = bootstrap(lambda index: float(np.median(ratio[index])), len(ratio))
    return {
        "parameters": sum(p.numel() for p in base.parameters()),
        "seconds_per_step": {name: float(np.median(values)) for name, values in seconds.items()},
        "overhead": interval.value,
        "overhead_90": [interval.low, interval.high],
        "steps": len(ratio),
    }


def scale_errors(loss: str) -> float:
    """Largest relative error over layers of the logged mean ‖λ̂‖ in one accumulated step of four micro-batches."""
    size = {**SIZES["0.5M"], "answers": 8, "answer_tokens": 5}
    kept: list[tuple[Any, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {"loss_type": loss, "max_steps": 1, "gradient_accumulation_steps": 4}
        trainer = make_trainer(folder, size, model(size).double(), [VGradCallback()], **changes)
        original: Callable[..., Any] = trainer.compute_loss

        def spy(live: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            kept.append((copy.deepcopy(trainer.model), dict(inputs)))
            return original(live, inputs, *args, **kwargs)

        trainer.compute_loss = spy
        trainer.train()
        record = credit_log.steps(credit_log.read(Path(folder)))[0]
    rows = [direct_norms(*pair) for pair in kept]
    truth = [float(torch.cat(layer).mean()) for layer in zip(*rows, strict=True)]
    found = [*record["costate_norm"][:-1], record["costate_norm_head"]]
    return max(abs(a / b - 1) for a, b in zip(found, truth, strict=True))


def direct_norms(twin: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """‖∂(Â Σ ℓ)/∂h‖ of each answer at the embedding, between layers and at the head's input."""
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    twin.gradient_checkpointing_disable()
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    out = twin.base_model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    logits = out.last_hidden_state[:, inputs["prompt_ids"].shape[1] - 1 : -1] @ twin.get_output_embeddings().weight.T
    logp = torch.log_softmax(logits, -1).gather(2, inputs["completion_ids"][..., None])[..., 0]
    surrogate = (inputs["advantages"][:, None] * logp * inputs["completion_mask"]).sum()
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    return [g.flatten(1).norm(dim=1).detach() for g in torch.autograd.grad(surrogate, states)]


def main() -> None:
    """Run, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {
        "command": f"python benchmarks/trl_callback.py --rounds {args.rounds} --steps {args.steps}",
        "versions": versions(), "threads": args.threads, "device": "cpu", "clock": "time.process_time",
        "scale_error": {loss: scale_errors(loss) for loss in LOSSES}, "models": {},
    }  # fmt: skip
    for loss, error in result["scale_error"].items():
        print(f"{loss:8s} largest relative error of ‖λ̂‖ {error:.1e} (aim ≤ 1e-6)")
    for name, size in SIZES.items():
        rounds = args.rounds * (3 if name == "0.5M" else 1)
        result["models"][name] = found = overhead(size, rounds, args.steps)
        low_, high = found["overhead_90"]
        seconds = found["seconds_per_step"]["without"]
        print(f"{name}: costs {found['overhead']:+.1%} [{low_:+.1%}, {high:+.1%}] of {seconds:.3f} s (aim ≤ 3 %)")
    if args.json:
        write_file(args.json, canonical(result) + "\n")


if __name__ == "__main__":
    main()
