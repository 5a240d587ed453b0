"""Any causal language model of the transformers library as a SequenceModel, by forward hooks."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vgrad_lab.sequence.layout import Layout, find_layout, first_tensor, with_first
from vgrad_lab.sequence.trace import Edit, SequenceModel, Trace, check_tokens, unchanged


class HookedDecoder(SequenceModel):
    """Wrap a transformers causal LM; its layers, final norm and head are found by watching it run on two tokens.

    Nothing of the wrapped model is changed; hooks live for one forward pass, and its logits are its own, bit for bit
    (soft-capped, scaled or tied heads included). Needs no import of its library. Raises ValueError for an
    encoder-decoder, a model without head or layers, one that is not causal, that draws random numbers (dropout), or
    whose layers do not hand one (B,T,S) state to the next.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.layout: Layout = find_layout(decoder)
        self.decoder = decoder
        self.vocab, self.width = self.layout.vocab, self.layout.width
        self.layers, self.max_length = len(self.layout.layers), self.layout.max_length

    @property
    def state_names(self) -> tuple[str, ...]:
        """For every row of ``Trace.hidden``, then for ``Trace.head_input``: which module it leaves or enters."""
        layers, norm = self.layout.layers, self.layout.final_norm
        before = f", before the final norm {norm}" if norm else ", no final norm"
        names = [f"input of {layers[0]}", *(f"output of {name}" for name in layers)]
        return (*names[:-1], names[-1] + before, f"output of {norm}, after the final norm" if norm else names[-1])

    def forward(self, inputs: Int[Tensor, "B T"], *, edit: Edit = unchanged) -> Trace:
        """States, head input and logits; raises ValueError for bad tokens."""
        check_tokens(inputs, vocab=self.vocab, name="inputs", max_length=self.max_length)
        if self.decoder.training and _recomputes(self.decoder):
            raise ValueError("gradient checkpointing would run each hook twice; call gradient_checkpointing_disable()")
        states: list[Tensor] = []
        head_input: list[Tensor] = []

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            states.append(edit(0, 0, first_tensor(args, kwargs)))
            return with_first(args, kwargs, states[0])

        def leave(layer: int) -> Callable[..., Any]:
            def hook(_module: nn.Module, _args: Any, out: Any) -> Any:
                states.append(edit(layer, 0, out[0] if isinstance(out, tuple) else out))
                return (states[-1], *out[1:]) if isinstance(out, tuple) else states[-1]

            return hook

        modules = [self.decoder.get_submodule(name) for name in self.layout.layers]
        handles = [modules[0].register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [module.register_forward_hook(leave(i)) for i, module in enumerate(modules, start=1)]
        head: Any = self.decoder.get_submodule(self.layout.head)
        handles.append(head.register_forward_pre_hook(lambda _module, args: head_input.append(args[0])))
        try:
            logits = self.decoder(input_ids=inputs, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return Trace(torch.stack(states), head_input[0], logits)

    def read_out(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B V"]:
        """What the model makes of a last-layer state: final norm, head, scaling and soft cap, by its own code."""
        inputs = torch.zeros(len(state), 1, dtype=torch.int64, device=state.device)
        last = self.layers
        found = self(inputs, edit=lambda layer, _start, h: state.unsqueeze(1) if layer == last else h)
        return found.logits[:, 0]

    def token_table(self) -> Float[Tensor, "V S"]:
        """What the embedding gives for every token, its scaling included (Gemma), without position.

        Raises ValueError where layer 0 is not this plus something that the token does not change.
        """
        if not self.layout.additive:
            raise ValueError(
                f"layer 0 of {type(self.decoder).__name__} is not its token embedding plus a position (a norm or a "
                "projection stands between), so a soft token cannot be fed through the table; patch layer 0 instead"
            )
        table: Any = self.decoder.get_submodule(self.layout.embedding)
        return table(torch.arange(self.vocab, device=table.weight.device))


def _recomputes(model: nn.Module) -> bool:
    """Whether a backward pass runs the layers again; the library has renamed the property."""
    name = "is_activation_checkpointing"
    return bool(getattr(model, name if hasattr(model, name) else "is_gradient_checkpointing", False))
