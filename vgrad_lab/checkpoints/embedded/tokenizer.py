"""Byte-level BPE trained on the corpus: the tokenizer of the embedded ladder."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vgrad_lab.checkpoints.errors import UserError

END, PAD = "<|endoftext|>", "<|pad|>"
END_ID, PAD_ID = 0, 1
SMALLEST = 258
"""256 bytes and the two special tokens."""


def train_tokenizer(texts: tuple[str, ...], *, vocab: int = 1024, model_max_length: int = 256) -> Any:
    """Train a tokenizer that inverts exactly: decode(encode(text)) = text for every text without special tokens.

    With the whole corpus and 1024 tokens, " A" … " D" are one token each; with 512 they are not.

    Args:
        texts: training texts.
        vocab: number of tokens, special ones (ids 0 end, 1 padding) and all 256 bytes included.
        model_max_length: longest input in tokens, recorded in the tokenizer.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.

    Raises:
        UserError: vocab is below 258, or larger than the texts can fill.
    """
    if vocab < SMALLEST:
        raise UserError(f"vocab is {vocab}; a byte-level tokenizer needs at least {SMALLEST} tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    if tokenizer.get_vocab_size() != vocab:
        raise UserError(
            f"the texts fill only {tokenizer.get_vocab_size()} of {vocab} tokens; give more text or a smaller vocab"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        padding_side="right",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )
