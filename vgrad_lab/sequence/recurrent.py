"""Recurrent language models: a stacked GRU, and a network that keeps nothing but the last token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vgrad_lab.sequence.initialise import empty_device, materialise
from vgrad_lab.sequence.trace import Edit, SequenceModel, Trace, check_tokens, unchanged

UNBOUNDED = 2**31
"""``max_length`` of a model without position embeddings."""


@dataclass(frozen=True)
class RecurrentSpec:
    """Sizes of a recurrent model; the embedding is as wide as the recurrent state."""

    vocab: int
    width: int = 8
    layers: int = 1

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")


class GRU(SequenceModel):
    """Stacked gated recurrent units from a zero state, without final norm: h_t^(l) = f(h_t^(l−1), h_{t−1}^(l))."""

    def __init__(self, spec: RecurrentSpec, *, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.vocab, self.width, self.layers, self.max_length = spec.vocab, spec.width, spec.layers, UNBOUNDED
        with empty_device():
            self.embedding = nn.Embedding(spec.vocab, spec.width)
            self.cells = nn.ModuleList(nn.GRUCell(spec.width, spec.width) for _ in range(spec.layers))
            self.head = nn.Linear(spec.width, spec.vocab, bias=False)
        materialise(self, seed=seed, dtype=dtype)

    def forward(self, inputs: Int[Tensor, "B T"], *, edit: Edit = unchanged) -> Trace:
        """States, head input and logits; raises ValueError for bad tokens."""
        check_tokens(inputs, vocab=self.vocab, name="inputs")
        embedded = edit(0, 0, self.embedding(inputs))
        carried = [torch.zeros_like(embedded[:, 0]) for _ in self.cells]
        steps = []
        for t in range(inputs.shape[1]):
            below = embedded[:, t]
            for i, cell in enumerate(self.cells):
                below = carried[i] = edit(i + 1, t, cell(below, carried[i]).unsqueeze(1)).squeeze(1)
            steps.append(torch.stack(carried))
        hidden = torch.cat([embedded.unsqueeze(0), torch.stack(steps, dim=2)])
        return Trace(hidden, hidden[-1], self.head(hidden[-1]))

    def read_out(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B V"]:
        """The head alone; there is no final norm."""
        return self.head(state)

    def token_table(self) -> Float[Tensor, "V S"]:
        """Rows of the token embedding."""
        return self.embedding.weight


class TokenOnly(SequenceModel):
    """h_t = f(e_{o_{t−1}}): every state forgets all but the newest token, so no state reads another position."""

    def __init__(self, spec: RecurrentSpec, *, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.vocab, self.width, self.layers, self.max_length = spec.vocab, spec.width, spec.layers, UNBOUNDED
        with empty_device():
            self.embedding = nn.Embedding(spec.vocab, spec.width)
            self.maps = nn.ModuleList(nn.Linear(spec.width, spec.width) for _ in range(spec.layers))
            self.head = nn.Linear(spec.width, spec.vocab, bias=False)
        materialise(self, seed=seed, dtype=dtype)

    def forward(self, inputs: Int[Tensor, "B T"], *, edit: Edit = unchanged) -> Trace:
        """States, head input and logits; raises ValueError for bad tokens."""
        check_tokens(inputs, vocab=self.vocab, name="inputs")
        states = [edit(0, 0, self.embedding(inputs))]
        for layer, linear in enumerate(self.maps, start=1):
            states.append(edit(layer, 0, torch.tanh(linear(states[-1]))))
        return Trace(torch.stack(states), states[-1], self.head(states[-1]))

    def read_out(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B V"]:
        """The head alone; there is no final norm."""
        return self.head(state)

    def token_table(self) -> Float[Tensor, "V S"]:
        """Rows of the token embedding."""
        return self.embedding.weight
