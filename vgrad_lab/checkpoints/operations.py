"""What a part of the experiment must compute and move at the least, counted from a model's sizes, before it is run.

Operations: two per multiply-add of the matrix products (linear maps, attention, head); norms, softmax, rotary
embedding and the optimiser's arithmetic are left out. Bytes: every number that must cross the device's memory, once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from vgrad_lab.checkpoints.errors import UserError

FLOAT32, BFLOAT16 = 4, 2
"""Bytes of a number."""
ADAMW_MOVES, SGD_MOVES = 7, 3
"""Numbers that a fused update reads and writes per weight: θ, g, m, v read and θ, m, v written; θ, g and θ."""
FLASH, EAGER = 2.5, 2.0
"""Attention's backward pass over its forward pass: with the scores computed again, and with them kept."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with gated MLPs and an untied head: OLMo-2, Llama.

    key_width: of keys and values (below ``width`` with grouped queries). norms: numbers in the norms of a block.
    """

    layers: int
    width: int
    intermediate: int
    vocab: int
    key_width: int
    norms: int

    @property
    def block(self) -> int:
        """Numbers in the matrices of one block: q, o; k, v; gate, up, down."""
        return 2 * self.width**2 + 2 * self.width * self.key_width + 3 * self.width * self.intermediate

    @property
    def parameters(self) -> int:
        """Trainable numbers: L·(block + norms) + 2·V·d + d."""
        return self.layers * (self.block + self.norms) + 2 * self.vocab * self.width + self.width


OLMO2_1B = Shape(layers=16, width=2048, intermediate=8192, vocab=100352, key_width=2048, norms=4 * 2048)
OLMO2_7B = Shape(layers=32, width=4096, intermediate=11008, vocab=100352, key_width=4096, norms=4 * 4096)
"""The published sizes; 1B has 1,484,916,736 parameters."""


@dataclass(frozen=True)
class Work:
    """Operations, bytes through the device's memory, and bytes off the disk."""

    flops: float = 0.0
    bytes: float = 0.0
    disk: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.disk + other.disk)

    def times(self, count: int) -> "Work":
        """The same work so many times."""
        return Work(count * self.flops, count * self.bytes, count * self.disk)


def shape_of(config: Any) -> Shape:
    """Sizes from a configuration of transformers (OLMo-2 or Llama, head not tied).

    Raises UserError for another architecture: its counts would be wrong.
    """
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kind = str(getattr(config, "model_type", None))
    if kind not in ("olmo2", "llama") or getattr(config, "tie_word_embeddings", False):
        raise UserError(f"operations of {kind} are not counted here; give an OLMo-2 or Llama with a head of its own")
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    key_width = width // heads * int(getattr(config, "num_key_value_heads", None) or heads)
    norms = 3 * width + key_width if kind == "olmo2" else 2 * width
    return Shape(
        layers=int(config.num_hidden_layers),
        width=width,
        intermediate=int(config.intermediate_size),
        vocab=int(config.vocab_size),
        key_width=key_width,
        norms=norms,
    )


def forward_work(shape: Shape, lengths: Int[ndarray, " Q"], *, size: int = FLOAT32) -> Work:
    """One forward pass over prompts of these lengths, the head at the last position of each.

    FLOPs 2·L·block·ΣT + 4·L·d·ΣT² + 2·Q·d·V (attention over the full square, as kernels do it); bytes: the weights
    once, ``size`` bytes a number, of the embedding only the rows that are read.
    """
    t = _lengths(lengths)
    tokens = int(t.sum())
    products = 2 * shape.layers * shape.block * tokens + 2 * len(t) * shape.width * shape.vocab
    return Work(products + _attention(shape, t), float(size * (_matrices(shape) + tokens * shape.width)))


def backward_work(shape: Shape, lengths: Int[ndarray, " Q"], *, size: int = FLOAT32, attention: float = FLASH) -> Work:
    """One backward pass, to the gradient of every weight: twice the products of the forward pass, attention's
    ``attention`` times; the weights read once (``size`` bytes a number), the gradient written once in float32."""
    t = _lengths(lengths)
    forward, square = forward_work(shape, t), _attention(shape, t)
    moved = size * _matrices(shape) + FLOAT32 * shape.parameters
    return Work(2 * (forward.flops - square) + attention * square, float(moved))


def update_work(shape: Shape, optimizer: str) -> Work:
    """One fused optimiser step in float32: 28 bytes a weight with AdamW, 12 with SGD. Raises UserError for another."""
    moves = {"adamw": ADAMW_MOVES, "sgd": SGD_MOVES}.get(optimizer)
    if moves is None:
        raise UserError(f"optimizer is {optimizer!r}; give adamw or sgd")
    return Work(bytes=float(FLOAT32 * moves * shape.parameters))


def load_work(shape: Shape, *, size: int = FLOAT32) -> Work:
    """Weights off the disk and into the device's memory, once."""
    return Work(bytes=float(size * shape.parameters), disk=float(size * shape.parameters))


def measure_work(shape: Shape, lengths: Int[ndarray, " Q"], *, size: int = FLOAT32) -> Work:
    """One measure: states by a forward pass, ‖∇J‖ by a forward and a backward pass."""
    return forward_work(shape, lengths, size=size).times(2) + backward_work(shape, lengths, size=size)


def forecast_work(shape: Shape, prompts: Mapping[str, int], length: float, *, size: int = FLOAT32) -> Work:
    """One forecast, from the prompts that it counted itself (``forward``, ``backward``), at their mean length.

    Bytes are those of the operations' smallest number of passes, two: a lower bound that batching cannot beat.
    """
    one = np.array([max(1, round(length))])
    forward, backward = forward_work(shape, one, size=size), backward_work(shape, one, size=size)
    flops = prompts["forward"] * forward.flops + prompts["backward"] * backward.flops
    return Work(flops, forward.bytes + backward.bytes)


def grpo_work(
    shape: Shape, lengths: Int[ndarray, " N"], updates: int, evaluated: Iterable[Int[ndarray, " Q"]], *, optimizer: str,
    size: int = FLOAT32,
) -> Work:  # fmt: skip
    """A GRPO run: per update forward and backward over its prompts and a step; evaluations forward.

    lengths: of all prompts of all updates in order, equally many an update. Raises ValueError otherwise.
    """
    t = _lengths(lengths)
    if updates < 1 or len(t) % updates:
        raise ValueError(f"{len(t)} prompts for {updates} updates; give a whole number of prompts for each update")
    total = update_work(shape, optimizer).times(updates)
    for block in np.split(t, updates):
        total = total + forward_work(shape, block, size=size) + backward_work(shape, block, size=size)
    for batch in evaluated:
        total = total + forward_work(shape, batch, size=size)
    return total


def floor_seconds(work: Work, *, flops: float, bandwidth: float, disk: float | None = None) -> float:
    """max(FLOPs/rate, bytes/bandwidth, disk bytes/disk rate): no version runs faster.

    flops: matrix rate in FLOP/s. bandwidth: of the device's memory, bytes/s, reads and writes together. disk: bytes/s,
    needed where the work has disk bytes. Raises ValueError for a rate that is missing or not positive.
    """
    needed = {"flops": (work.flops, flops), "bandwidth": (work.bytes, bandwidth), "disk": (work.disk, disk)}
    times = [0.0]
    for name, (amount, rate) in needed.items():
        if amount > 0 and not (rate is not None and 0 < rate < float("inf")):
            raise ValueError(f"{name} is {rate}; give the measured rate, a positive number per second")
        if amount > 0:
            times.append(amount / float(rate or 1))
    return max(times)


def _lengths(lengths: Int[ndarray, " Q"]) -> Int[ndarray, " Q"]:
    """Lengths as int64. Raises ValueError for none, or one below 1."""
    t = np.asarray(lengths, dtype=np.int64)
    if t.ndim != 1 or not len(t) or t.min() < 1:
        raise ValueError(f"lengths has shape {t.shape}; give the tokens of each prompt, at least 1 each")
    return t


def _attention(shape: Shape, t: Int[ndarray, " Q"]) -> float:
    """FLOPs of scores and mixing, forward: 4·L·d·ΣT²."""
    return float(4 * shape.layers * shape.width * int((t**2).sum()))


def _matrices(shape: Shape) -> int:
    """Numbers that a forward pass reads whole: all but the embedding."""
    return shape.parameters - shape.vocab * shape.width
