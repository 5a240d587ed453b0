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


CAUSAL = ("Olmo2", "Llama", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3", "GPTNeoX", "GPT2")
"""Families that the trace of states is tested on."""


def causal(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A causal LM over 11 tokens with two layers of width 16, at most 32 positions, in evaluation mode.

    Weights are drawn with a standard deviation large enough for every layer to matter.
    """
    sizes = {"vocab_size": 11, "max_position_embeddings": 32, "pad_token_id": 1, "initializer_range": 0.2}
    if family in ("Gemma", "Gemma2", "Gemma3", "Qwen3"):
        sizes["head_dim"] = 8
    if family == "OPT":
        sizes |= {"ffn_dim": 32, "word_embed_proj_dim": 16}
    kind = {"Gemma3": "Gemma3Text"}.get(family, family)
    made = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM"))
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        return made(config(kind, **{**sizes, **changes})).eval()


def encoder_decoder() -> Any:
    """A tiny T5."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 11}
    with torch.random.fork_rng():
        return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).eval()


def not_causal() -> Any:
    """A tiny BERT with a language-model head, which reads the future."""
    with torch.random.fork_rng(), quiet():
        return transformers.BertLMHeadModel(config("Bert", vocab_size=11)).eval()


def opt_like(ours: Any) -> Any:
    """An OPT without biases that holds the weights of our small transformer, in float64.

    Its LayerNorm subtracts the mean, so the two agree where the residual stream has zero mean.
    """
    width, pre = ours.width, isinstance(ours.final_norm, torch.nn.RMSNorm)
    settings = transformers.OPTConfig(
        vocab_size=ours.vocab, hidden_size=width, word_embed_proj_dim=width, ffn_dim=4 * width,
        num_hidden_layers=ours.layers, num_attention_heads=ours.blocks[0].attention.heads, dropout=0.0,
        max_position_embeddings=ours.max_length, do_layer_norm_before=pre, activation_function="gelu",
        enable_bias=False, tie_word_embeddings=False, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng():
        theirs = transformers.OPTForCausalLM(settings).double().eval()
    decoder = theirs.model.decoder
    pairs = [(decoder.embed_tokens, ours.embedding), (theirs.lm_head, ours.head)]
    for layer, block in zip(decoder.layers, ours.blocks, strict=True):
        attention = layer.self_attn
        parts = block.attention.query_key_value.weight.chunk(3)
        for one, weight in zip((attention.q_proj, attention.k_proj, attention.v_proj), parts, strict=True):
            one.weight.data.copy_(weight)
        pairs += [(attention.out_proj, block.attention.output)]
        pairs += [(layer.fc1, block.network[0]), (layer.fc2, block.network[2])]
    for one, other in pairs:
        one.weight.data.copy_(other.weight)
    decoder.embed_positions.weight.data[2:].copy_(ours.position_embedding.weight)
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    return theirs
