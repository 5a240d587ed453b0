"""S18: the rank of the attention pathway, as a total over the layers above the source."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgrad_lab.experiments import verify_attention as attention
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


GROUPED = [(6, 1, 3, 6), (6, 2, 3, 12), (6, 3, 3, 15), (8, 4, 4, 24), (4, 1, 6, 10), (4, 4, 2, 8), (3, 1, 5, 8)]


@pytest.mark.parametrize(("heads", "groups", "head_width", "rank"), GROUPED)
def test_grouped_heads_attain_the_rank_of_one_layer(heads: int, groups: int, head_width: int, rank: int) -> None:
    assert attention.grouped_rank(heads, groups, head_width) == rank
    assert attention.grouped_case(heads, groups, head_width, layers=1, seed=0) == (rank, rank)


@pytest.mark.parametrize(
    ("heads", "groups", "head_width", "layers", "rank"),
    [(6, 1, 3, 3, 18), (6, 2, 3, 2, 24), (6, 3, 3, 2, 33), (4, 1, 6, 2, 22), (4, 1, 6, 3, 34), (3, 1, 5, 3, 28)],
)
def test_grouped_heads_attain_the_rank_of_more_layers(
    heads: int, groups: int, head_width: int, layers: int, rank: int
) -> None:
    """Fewer than n_heads·d_head for each layer, and more than the last layer's rank for each."""
    assert attention.grouped_case(heads, groups, head_width, layers=layers, seed=0) == (rank, rank)
    assert rank <= layers * heads * head_width


@settings(max_examples=25)
@given(
    st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["pre", "post"]),
    st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_grouped_rank_is_a_bound(groups: int, shared: int, head_width: int, layers: int, norm: str, seed: int) -> None:
    rank, bound = attention.grouped_case(
        groups * shared, groups, head_width, layers=layers, seed=seed, norm=norm
    )  # fmt: skip
    assert rank <= bound


def test_the_rank_of_one_layer_is_no_bound_for_each_of_two() -> None:
    rank, _ = attention.grouped_case(4, 1, 6, layers=2, seed=0)
    assert rank > 2 * attention.grouped_rank(4, 1, 6)


def test_no_bound_when_the_heads_fill_the_state() -> None:
    """n_heads·d_head = d, the usual configuration: full rank up to the direction that the norm removes."""
    spec = TransformerSpec(4, width=16, layers=1, heads=4, head_width=4)
    model = Transformer(spec, seed=0)
    inputs = checks.draw_batch(np.random.default_rng(0), model)[0]
    assert checks.jacobian_rank(model, inputs, source=(0, 0), target=(1, 3)) >= 15


def test_evidence() -> None:
    assert checks.s18_rank(examples=2).passed
    assert attention.s18_grouped(examples=4).passed
