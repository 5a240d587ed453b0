"""A small causal transformer with pre- or post-norm blocks that sends every residual state through an edit."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vgrad_lab.sequence.initialise import empty_device, materialise
from vgrad_lab.sequence.trace import Edit, SequenceModel, Trace, check_tokens, unchanged


@dataclass(frozen=True)
class TransformerSpec:
    """Sizes of a transformer; ``norm`` places the RMS norm before each sublayer or after each residual sum.

    key_value_heads: heads of keys and values, each shared by heads/key_value_heads query heads; None for one each.
    """

    vocab: int
    width: int = 8
    layers: int = 2
    heads: int = 2
    head_width: int = 4
    norm: Literal["pre", "post"] = "pre"
    max_length: int = 16
    expansion: int = 4
    key_value_heads: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "layers", "heads", "head_width", "max_length", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.groups < 1 or self.heads % self.groups:
            raise ValueError(f"key_value_heads is {self.key_value_heads}; give a divisor of heads = {self.heads}")
        if self.norm not in ("pre", "post"):
            raise ValueError(f"norm is {self.norm!r}; give 'pre' or 'post'")

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return self.heads if self.key_value_heads is None else self.key_value_heads


class Attention(nn.Module):
    """Causal multi-head attention without biases, key-value heads possibly shared; masked weights are exactly 0."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.heads, self.groups, self.head_width = spec.heads, spec.groups, spec.head_width
        inner = spec.heads * spec.head_width
        self.query_key_value = nn.Linear(spec.width, inner + 2 * spec.groups * spec.head_width, bias=False)
        self.output = nn.Linear(inner, spec.width, bias=False)

    def weigh(self, x: Float[Tensor, "B T S"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights α (B, heads, T, T) and queries, keys, values (B, heads, T, head width), groups repeated."""
        sizes = [count * self.head_width for count in (self.heads, self.groups, self.groups)]
        query, key, value = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in self.query_key_value(x).split(sizes, -1)
        )
        key, value = (part.repeat_interleave(self.heads // self.groups, dim=1) for part in (key, value))
        scores = query @ key.transpose(-1, -2) * self.head_width**-0.5
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1), query, key, value

    def forward(self, x: Float[Tensor, "B T S"]) -> Float[Tensor, "B T S"]:
        """o_t = W_O Σ_{j≤t} α_{tj} v_j, per head."""
        weight, _, _, value = self.weigh(x)
        return self.output((weight @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a GELU network, each added to the residual stream."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.pre = spec.norm == "pre"
        self.attention = Attention(spec)
        self.network = nn.Sequential(
            nn.Linear(spec.width, spec.expansion * spec.width, bias=False),
            nn.GELU(),
            nn.Linear(spec.expansion * spec.width, spec.width, bias=False),
        )
        self.attention_norm = nn.RMSNorm(spec.width, eps=1e-6)
        self.network_norm = nn.RMSNorm(spec.width, eps=1e-6)

    def forward(self, h: Float[Tensor, "B T S"]) -> Float[Tensor, "B T S"]:
        """Pre-norm: h + f(norm(h)); post-norm: norm(h + f(h))."""
        if self.pre:
            h = h + self.attention(self.attention_norm(h))
            return h + self.network(self.network_norm(h))
        h = self.attention_norm(h + self.attention(h))
        return self.network_norm(h + self.network(h))


class Transformer(SequenceModel):
    """Token and position embeddings, ``layers`` blocks, a final RMS norm (pre-norm only) and an untied head."""

    def __init__(self, spec: TransformerSpec, *, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.vocab, self.width = spec.vocab, spec.width
        self.layers, self.max_length = spec.layers, spec.max_length
        with empty_device():
            self.embedding = nn.Embedding(spec.vocab, spec.width)
            self.position_embedding = nn.Embedding(spec.max_length, spec.width)
            self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
            self.final_norm = nn.RMSNorm(spec.width, eps=1e-6) if spec.norm == "pre" else nn.Identity()
            self.head = nn.Linear(spec.width, spec.vocab, bias=False)
        materialise(self, seed=seed, dtype=dtype)

    def forward(self, inputs: Int[Tensor, "B T"], *, edit: Edit = unchanged) -> Trace:
        """States, head input and logits; raises ValueError for bad tokens."""
        check_tokens(inputs, vocab=self.vocab, name="inputs", max_length=self.max_length)
        position = torch.arange(inputs.shape[1], device=inputs.device)
        states = [edit(0, 0, self.embedding(inputs) + self.position_embedding(position))]
        for layer, block in enumerate(self.blocks, start=1):
            states.append(edit(layer, 0, block(states[-1])))
        head_input = self.final_norm(states[-1])
        return Trace(torch.stack(states), head_input, self.head(head_input))

    def read_out(self, state: Float[Tensor, "B S"]) -> Float[Tensor, "B V"]:
        """Final norm, then the head."""
        return self.head(self.final_norm(state))

    def token_table(self) -> Float[Tensor, "V S"]:
        """Rows of the token embedding."""
        return self.embedding.weight
