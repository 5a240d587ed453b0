"""What a model is after loading: RoPE base as built, and a loss on a fixed text that tells two set-ups apart."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.rung_config import rope_bases, rope_kinds, text_part

TEXT = "The answer is A. The label of the first item is B, and the label of the second item is A. The answer is B."
"""Read by every checkpoint after loading."""
LONGEST = 32
"""Tokens of it at most."""
ROPE_TOLERANCE = 1e-3
"""Relative, of the base that the model's frequencies give: they are kept in float32."""


def loaded_facts(path: Path, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Class, type of weights, tied head, RoPE bases and loss fingerprint of a loaded model.

    The fingerprint is the mean loss in nats per token of the fixed TEXT: another tokenizer, RoPE base, precision or
    version of a library that computes something else moves it.

    Raises:
        UserError: the model was built with another RoPE base than config.json states, or the loss is not finite.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    loss = fingerprint(model, tokenizer)
    if not math.isfinite(loss):
        raise UserError(
            f"{path} gives the loss {loss} on a plain sentence though its weights are finite; load it in float32, or "
            "leave it out"
        )
    return {
        "class": type(model).__name__,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tied_head": head is not None and embedding is not None and head.weight is embedding.weight,
        "rope_bases": list(check_rope(path, model)),
        "loss_fingerprint": loss,
    }


def fingerprint_tokens(model: Any, tokenizer: Any) -> Tensor:
    """The fixed text as this model reads it, (1, T) with T at least 2."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or LONGEST
    tokens = tokenizer.encode(TEXT)[: min(LONGEST, limit)]
    size = model.get_input_embeddings().num_embeddings
    if len(tokens) < 2 or max(tokens) >= size:
        raise UserError(
            f"the tokenizer gives {len(tokens)} tokens up to {max(tokens, default=0)} for a plain sentence, but the "
            f"model knows {size}; check that tokenizer and weights come from the same checkpoint"
        )
    return torch.tensor([tokens], device=model.get_input_embeddings().weight.device)


def fingerprint(model: Any, tokenizer: Any) -> float:
    """Mean next-token loss on the fixed text, nats per token."""
    tokens = fingerprint_tokens(model, tokenizer)
    logp = torch.log_softmax(_logits(model, tokens)[:, :-1].double(), -1)
    return float(-logp.gather(-1, tokens[:, 1:, None].to(logp.device)).mean())


def bfloat16_error(model: Any, tokenizer: Any) -> dict[str, float]:
    """What a float32 model loses in bfloat16 on the fixed text; the model itself is left as it is.

    Returns:
        `loss`: change of the fingerprint, nats per token; `logit`: largest difference of a logit; `probability`:
        largest difference of a next-token probability.
    """
    tokens = fingerprint_tokens(model, tokenizer)
    with torch.no_grad():
        low = copy.deepcopy(model).to(torch.bfloat16)
    exact, rough = (_logits(one, tokens).double() for one in (model, low))
    probability = (torch.softmax(exact, -1) - torch.softmax(rough, -1)).abs().max()
    loss = fingerprint(low, tokenizer) - fingerprint(model, tokenizer)
    return {"loss": loss, "logit": float((exact - rough).abs().max()), "probability": float(probability)}


def _logits(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def check_rope(path: Path, model: Any) -> tuple[float, ...]:
    """RoPE bases of the loaded configuration, ascending; empty for a model without RoPE.

    Each base that config.json states must be there and no other (an old Olmo3 configuration leaves the sliding layers
    of transformers 5.23 at 500 000 whatever it states), and where the embedding is the plain one the frequencies of the
    model must be θ^(−k/n), k = 0..n−1.

    Raises:
        UserError: they are not, which a library that misreads an old or a new configuration does in silence.
    """
    given = text_part(json.loads((path / "config.json").read_text(encoding="utf-8")))
    stated = rope_bases(given)
    loaded_config = model.config.get_text_config().to_dict()
    own = loaded_config.get("rope_parameters")
    loaded = rope_bases({"rope_parameters": own} if own else loaded_config)  # other keys may be there and not be read
    built = tuple(_built_bases(model)) if rope_kinds(loaded_config) == ("default",) else ()
    wrong = set(stated) - set(loaded)
    if stated and not str(given.get("model_type")).startswith("gemma"):  # whose local layers have a base by default
        wrong |= set(loaded) - set(stated) - {given.get("rope_local_base_freq")}
    odd = [base for base in built if not any(np.isclose(base, one, rtol=ROPE_TOLERANCE, atol=0.0) for one in loaded)]
    if wrong or (loaded and odd):
        theirs = ", ".join(f"{base:g}" for base in (*loaded, *odd))
        ours = ", ".join(f"{base:g}" for base in stated) or "none"
        raise UserError(
            f"{path} was loaded with RoPE base {theirs}, but its config.json states {ours}; use the version of "
            "transformers that wrote it, or correct config.json"
        )
    return loaded


def _built_bases(model: Any) -> Iterator[float]:
    """θ from the second frequency of each rotary embedding."""
    for name, frequencies in model.named_buffers():
        if name.endswith("inv_freq") and frequencies.numel() > 1:
            yield float(frequencies.double().flatten()[1] ** -frequencies.numel())
