"""Models: causality, patching, explicit seeds, validation at the door."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments.verify_sequence import KINDS, Kind, build
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.sequence.recurrent import RecurrentSpec
from vgrad_lab.sequence.trace import Patch, trace
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec
from vgrad_lab.tolerances import ALGEBRA

kinds = st.sampled_from(KINDS)
INPUTS = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])


@given(kinds, st.integers(1, 3), st.integers(0, 99))
def test_shapes_names_and_causality(kind: Kind, layers: int, seed: int) -> None:
    model = build(kind, vocab=3, layers=layers, seed=seed)
    found = trace(model, INPUTS)
    assert found.hidden.shape == (layers + 1, 2, 4, model.width)
    assert found.logits.shape == (2, 4, 3)
    same = bool((found.head_input == found.hidden[-1]).all())
    assert same == (kind != "pre")
    changed = INPUTS.clone()
    changed[:, 3] = 0
    assert torch.equal(trace(model, changed).hidden[:, :, :3], found.hidden[:, :, :3])
    assert not torch.equal(trace(model, changed).logits[:, 3], found.logits[:, 3])


@given(kinds, st.integers(0, 99))
def test_patching_the_natural_value_changes_nothing(kind: Kind, seed: int) -> None:
    model = build(kind, vocab=3, layers=2, seed=seed)
    natural = trace(model, INPUTS)
    for layer in range(3):
        same = trace(model, INPUTS, patch=Patch(layer, 1, natural.hidden[layer, :, 1].detach()))
        assert torch.equal(same.logits, natural.logits)
        moved = trace(model, INPUTS, patch=Patch(layer, 1, natural.hidden[layer, :, 1].detach() + 0.1))
        assert torch.equal(moved.logits[:, :1], natural.logits[:, :1])
        assert not torch.equal(moved.logits[:, 1], natural.logits[:, 1])
        later_moves = kind == "gru" if layer == 2 else kind != "token"
        if layer or kind != "gru":
            assert torch.equal(moved.logits[:, 2:], natural.logits[:, 2:]) != later_moves


def test_patched_transformer_equals_a_hand_computed_forward() -> None:
    model = Transformer(TransformerSpec(3, layers=1, heads=1, head_width=4), seed=1)
    h = torch.linspace(-1, 1, model.width, dtype=torch.float64)
    found = trace(model, INPUTS, patch=Patch(0, 1, h)).logits
    stream = (model.embedding(INPUTS) + model.position_embedding(torch.arange(4))).detach().numpy()
    stream[:, 1] = h.numpy()
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def norm(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6))

    q, k, v = np.split(norm(stream) @ w["blocks.0.attention.query_key_value.weight"].T, 3, axis=-1)
    mixed = np.zeros_like(v)
    for t in range(4):
        weight = np.exp(np.einsum("bs,bjs->bj", q[:, t], k[:, : t + 1]) / 2)
        mixed[:, t] = np.einsum("bj,bjs->bs", weight / weight.sum(1, keepdims=True), v[:, : t + 1])
    stream = stream + mixed @ w["blocks.0.attention.output.weight"].T
    inner = torch.nn.functional.gelu(torch.from_numpy(norm(stream) @ w["blocks.0.network.0.weight"].T)).numpy()
    stream = stream + inner @ w["blocks.0.network.2.weight"].T
    expected = norm(stream) @ w["head.weight"].T
    assert np.abs(found.detach().numpy() - expected).max() <= ALGEBRA * np.abs(expected).max()


@given(st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.sampled_from(["pre", "post"]), st.integers(0, 99))
def test_shared_heads_equal_repeated_ones(heads: tuple[int, int], norm: str, seed: int) -> None:
    query_heads, groups = heads
    spec = {"layers": 2, "heads": query_heads, "head_width": 3, "norm": norm}
    shared = Transformer(TransformerSpec(3, key_value_heads=groups, **spec), seed=seed)
    full = Transformer(TransformerSpec(3, **spec), seed=seed)
    full.load_state_dict(
        {
            name: torch.cat([p[: 3 * query_heads], *(_repeated(x, query_heads // groups) for x in
                             p[3 * query_heads :].chunk(2))]) if "query_key_value" in name else p
            for name, p in shared.state_dict().items()
        }
    )  # fmt: skip
    assert float((trace(full, INPUTS).logits - trace(shared, INPUTS).logits).detach().abs().max()) <= ALGEBRA


def _repeated(weight: torch.Tensor, times: int) -> torch.Tensor:
    return weight.view(-1, 3, weight.shape[1]).repeat_interleave(times, 0).flatten(0, 1)


@given(st.integers(1, 3), st.integers(0, 99))
def test_gru_equals_the_library_gru(layers: int, seed: int) -> None:
    model = build("gru", vocab=3, layers=layers, seed=seed)
    weights = dict(model.named_parameters())
    library = torch.nn.GRU(model.width, model.width, layers, batch_first=True, dtype=torch.float64)
    for name, parameter in library.named_parameters():
        kind, layer = name.rsplit("_l", 1)
        parameter.data.copy_(weights[f"cells.{layer}.{kind}"])
    expected = library(weights["embedding.weight"][INPUTS])[0]
    found = trace(model, INPUTS)
    assert float((found.head_input - expected).abs().max().detach()) <= ALGEBRA
    assert float((found.logits - expected @ weights["head.weight"].T).abs().max().detach()) <= ALGEBRA


def test_patched_value_carries_its_gradient() -> None:
    h = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    model = build("pre", vocab=3, layers=2, seed=0)
    later = trace(model, INPUTS, patch=Patch(0, 0, h)).logits[:, 3].sum()
    assert float(torch.autograd.grad(later, h)[0].norm()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_are_explicit(kind: Kind) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (build(kind, vocab=3, layers=2, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].dtype is torch.float64
    assert bool(torch.isfinite(weights[0]).all())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.tensor([[0, 3]]), "0 … 2"),
        (torch.tensor([[-1, 0]]), "0 … 2"),
        (torch.zeros(2, 0, dtype=torch.int64), "non-empty"),
        (torch.zeros(3, dtype=torch.int64), "non-empty"),
        (torch.zeros(1, 2), "int64"),
        (torch.zeros(1, 17, dtype=torch.int64), "at most 16"),
    ],
)
def test_bad_tokens_are_refused(inputs: torch.Tensor, message: str) -> None:
    model = build("pre", vocab=3, layers=1, seed=0)
    with pytest.raises(ValueError, match=message):
        unchecked(trace)(model, inputs)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch(3, 0, torch.zeros(8)), "layers are 0 … 2"),
        (Patch(0, 4, torch.zeros(8)), "positions 0 … 3"),
        (Patch(0, 0, torch.zeros(7)), r"give \(8,\) or \(2, 8\)"),
    ],
)
def test_bad_patches_are_refused(patch: Patch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(build("pre", vocab=3, layers=2, seed=0), INPUTS, patch=patch)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="layers is 0"):
        TransformerSpec(3, layers=0)
    with pytest.raises((ValueError, TypeError), match="'pre'"):
        TransformerSpec(3, norm="none")  # type: ignore[arg-type]
    for groups in (0, 2, 6):
        with pytest.raises(ValueError, match=f"key_value_heads is {groups}; give a divisor of heads = 3"):
            TransformerSpec(3, heads=3, key_value_heads=groups)
    with pytest.raises(ValueError, match="width is 0"):
        RecurrentSpec(3, width=0)
    with pytest.raises(ValueError, match=r"lacks .*embed_tokens"):
        HookedDecoder(torch.nn.Linear(2, 2))
