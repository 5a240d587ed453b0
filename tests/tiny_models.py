"""Tiny real `transformers` checkpoints for tests: several families, one small byte-level BPE tokenizer."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vgrad_lab.checkpoints.loading import quiet
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts

FAMILIES = ("Olmo2", "Llama", "Qwen2", "GPTNeoX")


@cache
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE trained on the task's prompts, in which " A".." D" are single tokens."""
    text = [f"{prompt} {'ABCD'[y]}" for prompt, y in draw_prompts(LabelCopy(), 500, seed=0)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|pad|>"]
    bpe.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=special[0], pad_token=special[1], add_prefix_space=False
    )


def config(family: str, **changes: Any) -> Any:
    """A two-layer configuration of a family."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {
        "vocab_size": 320,
        "max_position_embeddings": 128,
        "pad_token_id": 1,
        "eos_token_id": 0,
        "bos_token_id": 0,
    }
    return getattr(transformers, f"{family}Config")(**{**sizes, **changes})


def model(family: str = "Olmo2", *, seed: int = 0, **changes: Any) -> Any:
    """A randomly initialised causal LM in evaluation mode."""
    torch.manual_seed(seed)
    return getattr(transformers, f"{family}ForCausalLM")(config(family, **changes)).eval()


def save(folder: Path, family: str = "Olmo2", *, seed: int = 0, **changes: Any) -> Path:
    """Write model and tokenizer as a checkpoint folder."""
    with quiet():
        model(family, seed=seed, **changes).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder
