"""How a model computes: bfloat16 over float32 weights, the mask given, layers computed twice."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import tiny_models
from tests.checkpoints.taught import TASK
from tests.helpers import unchecked
from vgrad_lab.checkpoints import precision, probe
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.tasks import PromptBatch, draw_prompts, encode_prompts

FAMILIES = tiny_models.CAUSAL
NARROW = ("Gemma", "Gemma2", "Gemma3", "Qwen3")


def model_of(family: str, **changes: Any) -> Any:
    import transformers

    kind = {"Gemma3": "Gemma3Text"}.get(family, family)
    made = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM"))
    torch.manual_seed(0)
    head = {"head_dim": 8} if family in NARROW else {}
    return made(tiny_models.config(kind, **head, initializer_range=0.2, **changes)).eval()


def batch_of(count: int = 6) -> PromptBatch:
    return encode_prompts(TASK, tiny_models.tokenizer(), draw_prompts(TASK, count, seed=1))


def states(model: Any, batch: PromptBatch) -> torch.Tensor:
    with torch.no_grad():
        return probe.answer_state(model, *probe.on_device(model, batch, slice(None))[:2])


def gradients(model: Any, batch: PromptBatch) -> list[torch.Tensor]:
    tokens, last, target = probe.on_device(model, batch, slice(None))
    loss = torch.nn.functional.cross_entropy(probe.answer_logits(model, tokens, last), target)
    found = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    return list(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_given_mask_changes_nothing(family: str) -> None:
    """States and gradients with our causal mask equal those with the library's own."""
    model, batch = model_of(family), batch_of()
    before, slopes = states(model, batch), gradients(model, batch)
    with precision.running(model, mask=True):
        torch.testing.assert_close(states(model, batch), before, rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(gradients(model, batch), slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert "forward" not in model.base_model.__dict__
    assert torch.equal(states(model, batch), before)


def test_where_attention_is_not_plain_the_model_makes_its_own_mask() -> None:
    full = ["full_attention"] * 2
    config = SimpleNamespace(layer_types=full, sliding_window=None, _attn_implementation="sdpa")
    assert precision.plain(config, 10)
    windowed = SimpleNamespace(layer_types=None, sliding_window=8, _attn_implementation="sdpa")
    assert precision.plain(windowed, 8)
    assert not precision.plain(windowed, 9)
    assert precision.plain(SimpleNamespace(_attn_implementation="sdpa"), 10)
    assert not precision.plain(SimpleNamespace(layer_types=full, _attn_implementation="eager"), 10)
    mixed = SimpleNamespace(layer_types=["full_attention", "sliding_attention"], _attn_implementation="sdpa")
    assert not precision.plain(mixed, 2)
    model = model_of("Gemma3", sliding_window=2)
    before = states(model, batch_of())
    with precision.running(model, mask=True):
        assert torch.equal(states(model, batch_of()), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_near_float32(family: str) -> None:
    """States within 3 % of their norm, probabilities within 0.002, gradients within 10 % of their norm; none equal."""
    model, batch = model_of(family), batch_of()
    exact, slopes = states(model, batch), gradients(model, batch)
    with precision.running(model, "bfloat16"):
        rough, rounded = states(model, batch), gradients(model, batch)
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).norm() / exact.norm()) < 0.03
    head = model.get_output_embeddings()
    chance = [torch.softmax(head(x).double(), -1) for x in (exact, rough)]
    assert float((chance[0] - chance[1]).detach().abs().max()) < 0.002
    flat = [torch.cat([g.flatten() for g in found]) for found in (slopes, rounded)]
    assert all(g.dtype == torch.float32 for g in rounded)
    assert 0 < float((flat[0] - flat[1]).norm() / flat[0].norm()) < 0.1


def test_weights_changed_between_passes_are_seen() -> None:
    """No rounded copy of a weight outlives its pass: an update inside the block reaches the next pass."""
    model, batch = model_of("Olmo2"), batch_of()
    with precision.running(model, "bfloat16"):
        before = states(model, batch)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.5)
        inside = states(model, batch)
    assert not torch.equal(inside, before)
    with precision.running(model, "bfloat16"):
        assert torch.equal(states(model, batch), inside)


def test_a_copy_made_inside_computes_with_its_own_weights() -> None:
    model, batch = model_of("Olmo2"), batch_of()
    with precision.running(model, "bfloat16", mask=True):
        twin = copy.deepcopy(model)
        before = states(twin, batch)
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(2.0)
        assert torch.equal(states(twin, batch), before)
        assert not torch.equal(states(model, batch), before)


def test_blocks_may_lie_in_each_other_and_end_by_an_exception() -> None:
    model, batch = model_of("Olmo2"), batch_of()

    def fail() -> None:
        with precision.running(model, "bfloat16"):
            with precision.running(model, mask=True):
                rough = states(model, batch)
            assert torch.equal(states(model, batch), rough)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "forward" not in model.base_model.__dict__


def test_other_types_and_names_are_refused() -> None:
    model = model_of("Olmo2").to(torch.bfloat16)
    refused = pytest.raises(UserError, match=r"weights are torch\.bfloat16; load them in float32")
    with refused, precision.running(model, "bfloat16"):
        pass
    with pytest.raises(UserError, match="'float16'; choose one of float32, bfloat16"):
        precision.known_precision("float16")
    assert precision.known_precision("bfloat16") == "bfloat16"


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_computed_twice_give_the_same_gradient(family: str) -> None:
    """The same gradient, fewer tensors kept for the backward pass, dropout off as before."""
    model, batch = model_of(family), batch_of()
    kept: list[int] = []

    def saved() -> list[torch.Tensor]:
        count = 0

        def pack(x: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            tokens, last, target = probe.on_device(model, batch, slice(None))
            loss = torch.nn.functional.cross_entropy(probe.answer_logits(model, tokens, last), target)
        kept.append(count)
        return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))

    plain = saved()
    with precision.recomputing(model, True):
        assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.Dropout))
        again = saved()
    assert not any(m.training for m in model.modules())
    assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    assert kept[1] < 0.7 * kept[0]
    after = saved()
    assert kept[2] == kept[0]
    assert all(torch.equal(a, b) for a, b in zip(plain, after, strict=True))


def test_a_model_without_such_layers_is_refused() -> None:
    refused = pytest.raises(UserError, match="Linear has no layers that can be computed twice")
    with refused, unchecked(precision.recomputing)(torch.nn.Linear(2, 2), True):
        pass
