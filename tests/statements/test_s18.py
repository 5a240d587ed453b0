"""S18: the rank of the attention pathway, as a total over the layers above the source."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_sequence as checks
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec


@settings(max_examples=12)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31 - 1))
def test_rank_is_bounded_by_heads_and_layers_above(heads: int, head_width: int, layers: int, seed: int) -> None:
    spec = TransformerSpec(4, width=16, layers=layers, heads=heads, head_width=head_width)
    model = Transformer(spec, seed=seed)
    inputs = checks.draw_batch(np.random.default_rng(seed), model)[0]
    for layer in range(layers + 1):
        rank = checks.jacobian_rank(model, inputs, source=(layer, 0), target=(layers, 3))
        assert rank <= min(16, (layers - layer) * heads * head_width)


@pytest.mark.parametrize(
    ("heads", "head_width", "layers", "ranks"), [(2, 4, 3, [24, 16, 8, 0]), (1, 2, 4, [8, 6, 4, 2, 0])]
)
def test_attained_ranks(heads: int, head_width: int, layers: int, ranks: list[int]) -> None:
    model = Transformer(TransformerSpec(4, width=32, layers=layers, heads=heads, head_width=head_width), seed=0)
    inputs = checks.draw_batch(np.random.default_rng(0), model)[0]
    found = [checks.jacobian_rank(model, inputs, source=(layer, 0), target=(layers, 3)) for layer in range(layers + 1)]
    assert found == ranks


def test_bound_of_one_layer_is_broken_by_two() -> None:
    model = Transformer(TransformerSpec(4, width=16, layers=2, heads=1, head_width=2), seed=0)
    inputs = checks.draw_batch(np.random.default_rng(0), model)[0]
    assert checks.jacobian_rank(model, inputs, source=(0, 0), target=(2, 3)) > 2


def test_evidence() -> None:
    assert checks.s18_rank(examples=2).passed
