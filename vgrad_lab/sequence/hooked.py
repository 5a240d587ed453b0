"""Real decoder stacks (the layout of Llama and OLMo models) as SequenceModels, by forward hooks."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vgrad_lab.sequence.trace import Edit, SequenceModel, Trace, check_tokens, unchanged


class HookedDecoder(SequenceModel):
    """Wrap a causal model with ``model.embed_tokens``, ``model.layers``, ``model.norm`` and ``lm_head``.

    Nothing of the wrapped model is changed; hooks live for one forward pass. Needs no import of its library.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        body: Any = getattr(decoder, "model", None)
        missing = [n for n in ("embed_tokens", "layers", "norm") if not hasattr(body, n)]
        if missing or not hasattr(decoder, "lm_head"):
            raise ValueError(
                f"{type(decoder).__name__} lacks {missing or ['lm_head']}; "
                "give a causal decoder with model.embed_tokens, model.layers, model.norm and lm_head"
            )
        self.decoder = decoder
        self.vocab, self.width = body.embed_tokens.weight.shape
        self.layers = len(body.layers)
        self.max_length = int(decoder.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]

    def forward(self, inputs: Int[Tensor, "B T"], *, edit: Edit = unchanged) -> Trace:
        """States, head input (after the final norm) and logits; raises ValueError for bad tokens."""
        check_tokens(inputs, vocab=self.vocab, name="inputs", max_length=self.max_length)
        body: Any = self.decoder.model
        states: dict[int, Tensor] = {}
        head_input: list[Tensor] = []

        def keep(layer: int, h: Tensor) -> Tensor:
            states[layer] = edit(layer, 0, h)
            return states[layer]

        handles = [
            module.register_forward_hook(lambda _module, _args, out, layer=layer: keep(layer, out))
            for layer, module in enumerate([body.embed_tokens, *body.layers])
        ]
        handles.append(body.norm.register_forward_hook(lambda _module, _args, out: head_input.append(out)))
        try:
            logits = self.decoder(input_ids=inputs, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return Trace(torch.stack([states[i] for i in range(self.layers + 1)]), head_input[0], logits)

    def read_out(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B V"]:
        """Final norm, then the head."""
        decoder: Any = self.decoder
        return decoder.lm_head(decoder.model.norm(state))

    def token_table(self) -> Float[Tensor, "V S"]:
        """Rows of the token embedding."""
        decoder: Any = self.decoder
        return decoder.model.embed_tokens.weight
