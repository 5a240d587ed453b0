"""Any causal LM of the transformers library gives a Trace: its own logits and states, families, padding, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests import tiny_models
from tests.helpers import unchecked
from vgrad_lab.sequence.credit_flow import empirical_costate, hidden_jacobian, token_logprob
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.sequence.padding import padding
from vgrad_lab.sequence.trace import Patch, trace, trace_embeddings
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT

INPUTS = torch.tensor([[3, 4, 5, 6, 2], [7, 3, 9, 9, 8]])
SINGLE = 2e-5
"""Relative agreement of two float32 computations of one number."""


@pytest.fixture(scope="module", params=tiny_models.CAUSAL)
def hooked(request: pytest.FixtureRequest) -> HookedDecoder:
    return HookedDecoder(tiny_models.causal(request.param))


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library's norms and softmaxes, which cast to float32 whatever the model is, cast to float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def close(found: torch.Tensor, truth: torch.Tensor) -> bool:
    return float((found - truth).norm().detach()) <= SINGLE * float(truth.norm().detach())


def test_trace_is_the_library_forward(hooked: HookedDecoder) -> None:
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hooked.decoder.modules()]
    found = trace(hooked, INPUTS)
    assert before == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hooked.decoder.modules()]
    reference: Any = hooked.decoder(input_ids=INPUTS, output_hidden_states=True)
    assert torch.equal(found.logits, reference.logits)
    assert torch.equal(found.hidden[:-1], torch.stack(reference.hidden_states[:-1]))
    assert torch.equal(found.after_final_norm, reference.hidden_states[-1])
    assert not torch.equal(found.before_final_norm, reference.hidden_states[-1])
    assert len(hooked.state_names) == hooked.layers + 2
    assert "before the final norm" in hooked.state_names[-2]
    norm = hooked.decoder.get_submodule(hooked.layout.final_norm or "")
    assert close(norm(found.before_final_norm), found.after_final_norm)


def test_read_out_and_table(hooked: HookedDecoder) -> None:
    found = trace(hooked, INPUTS)
    assert close(hooked.read_out(found.hidden[-1, :, 2]), found.logits[:, 2])
    offset = found.hidden[0] - hooked.token_table()[INPUTS]
    assert float((offset[0] - offset[1]).abs().max().detach()) <= SINGLE


@pytest.mark.usefixtures("double")
def test_costate_is_the_derivative_in_double_precision(hooked: HookedDecoder) -> None:
    """Central differences of the model's own objective, under patching, at every layer."""
    name = type(hooked.decoder).__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    model = HookedDecoder(tiny_models.causal(name, attn_implementation="eager").double())
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.integers(0, model.vocab, INPUTS.shape))
    advantage = rng.normal(size=INPUTS.shape)
    natural = trace(model, INPUTS)
    costate = empirical_costate(natural, targets, advantage)

    def objective(layer: int, value: torch.Tensor) -> float:
        logits = trace(model, INPUTS, patch=Patch(layer, 1, value)).logits
        return float((torch.from_numpy(advantage) * token_logprob(logits, targets)).sum().detach())

    for layer in range(model.layers + 1):
        h, step = natural.hidden[layer, :, 1].detach(), 1e-4
        direction = torch.from_numpy(rng.normal(size=h.shape))
        coarse, fine = (
            (objective(layer, h + s * direction) - objective(layer, h - s * direction)) / (2 * s)
            for s in (step, step / 2)
        )
        slope = float((costate[layer, :, 1] * direction).sum())
        found = (4 * fine - coarse) / 3
        assert abs(found - slope) <= CLOSED_FORM * 100 * max(abs(slope), 1.0), (name, layer, found, slope)
        assert abs(found - slope * (1 + PLANTED_FAULT)) > CLOSED_FORM * 100 * max(abs(slope), 1.0)


def test_patched_trace_and_embeddings(hooked: HookedDecoder) -> None:
    natural = trace(hooked, INPUTS)
    same = trace(hooked, INPUTS, patch=Patch(1, 2, natural.hidden[1, :, 2].detach()))
    assert torch.equal(same.logits, natural.logits)
    moved = trace(hooked, INPUTS, patch=Patch(1, 2, torch.ones(hooked.width)))
    assert torch.equal(moved.logits[:, :2], natural.logits[:, :2])
    assert not torch.equal(moved.logits[:, 4], natural.logits[:, 4])
    again = trace_embeddings(hooked, natural.hidden[0].detach())
    assert torch.equal(again.logits, natural.logits)
    assert torch.equal(again.hidden, natural.hidden)


def test_padded_rows_give_what_they_give_alone(hooked: HookedDecoder) -> None:
    short = torch.tensor([[4, 5, 9]])
    alone = trace(hooked, short)
    targets = torch.tensor([[5, 9, 2]])
    truth = empirical_costate(alone, targets, np.ones((1, 3)))
    for pads in (slice(0, 2), slice(3, 5)):
        mask = torch.ones_like(INPUTS)
        mask[0, pads] = 0
        real = mask[0] == 1
        inputs, wanted = INPUTS.clone(), INPUTS.clone()
        inputs[0, real], wanted[0, real] = short[0], targets[0]
        inputs[0, pads] = 1
        found = trace(hooked, inputs, attention_mask=mask)
        assert close(found.hidden[:, 0, real], alone.hidden[:, 0])
        assert close(found.logits[0, real], alone.logits[0])
        assert close(found.logits[1], trace(hooked, INPUTS).logits[1])
        costate = empirical_costate(found, wanted, np.ones((2, 5)))
        assert close(costate[:, 0, real], truth[:, 0])
        assert float(costate[:, 0, pads].abs().max()) == 0.0
        assert float(found.hidden[:, 0, pads].abs().max().detach()) == 0.0
        first = int(real.nonzero()[0])
        jacobian = hidden_jacobian(found, source=(0, first), target=(hooked.layers, first + 2))
        assert close(jacobian[0], hidden_jacobian(alone, source=(0, 0), target=(hooked.layers, 2))[0])
        moved = trace(hooked, inputs, attention_mask=mask, patch=Patch(1, 2, torch.ones(hooked.width)))
        place = int(real[:2].sum())
        by_hand = trace(hooked, short, patch=Patch(1, place, torch.ones(hooked.width)))
        assert close(moved.logits[0, real], by_hand.logits[0])
    assert not close(trace(hooked, inputs[:, [3, 4, 0, 1, 2]]).logits[:1, 2:], alone.logits)


def test_padding_works_for_recurrent_models_too() -> None:
    from vgrad_lab.experiments.verify_sequence import build

    for kind in ("gru", "pre", "token"):
        model = build(kind, vocab=3, layers=2, seed=0)  # type: ignore[arg-type]
        inputs = torch.tensor([[0, 0, 1, 2], [2, 1, 1, 0]])
        found = trace(model, inputs, attention_mask=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
        alone = trace(model, inputs[:1, 2:])
        assert float((found.hidden[:, :1, 2:] - alone.hidden).abs().max().detach()) <= ALGEBRA


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], "row 0 is no single run"),
        ([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], "row 1 is no single run"),
        ([[1, 1, 1, 1, 2], [1, 1, 1, 1, 1]], "other than 0 and 1"),
        ([[1, 1, 1, 1]], "has shape"),
    ],
)
def test_bad_masks_are_refused(mask: list[list[int]], message: str) -> None:
    model = HookedDecoder(tiny_models.causal("Llama"))
    with pytest.raises(ValueError, match=message):
        unchecked(padding)(torch.tensor(mask), INPUTS)
    if len(mask) == len(INPUTS):
        with pytest.raises(ValueError, match=message):
            trace(model, INPUTS, attention_mask=torch.tensor(mask))


def test_a_patch_on_padding_is_refused() -> None:
    model = HookedDecoder(tiny_models.causal("Llama"))
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    with pytest.raises(ValueError, match="padding in some row"):
        trace(model, INPUTS, attention_mask=mask, patch=Patch(0, 0, torch.ones(model.width)))


def test_heads_tied_and_soft_capped() -> None:
    tied = HookedDecoder(tiny_models.causal("Llama", tie_word_embeddings=True))
    assert tied.layout.head == "lm_head"
    assert torch.equal(trace(tied, INPUTS).logits, tied.decoder(input_ids=INPUTS).logits)
    capped = HookedDecoder(tiny_models.causal("Gemma2", final_logit_softcapping=0.05))
    found = trace(capped, INPUTS)
    assert float(found.logits.abs().max().detach()) <= 0.05 * (1 + SINGLE)
    assert close(capped.read_out(found.hidden[-1, :, 1]), found.logits[:, 1])
    free = HookedDecoder(tiny_models.causal("Gemma2", final_logit_softcapping=None))
    slopes = [
        empirical_costate(trace(model, INPUTS), INPUTS, np.ones((2, 5)))[-1].norm(dim=-1) for model in (capped, free)
    ]
    assert float((slopes[0] / slopes[1]).max()) < 0.9


def test_embedding_scale_of_gemma_is_in_the_table() -> None:
    model = HookedDecoder(tiny_models.causal("Gemma"))
    weight = model.decoder.get_submodule(model.layout.embedding).weight
    assert close(model.token_table(), weight * model.width**0.5)
    assert close(trace(model, INPUTS).hidden[0], model.token_table()[INPUTS])


def test_an_embedding_behind_a_norm_has_no_table() -> None:
    torch.manual_seed(0)
    config = transformers.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=11)
    model = HookedDecoder(transformers.BloomForCausalLM(config).eval())
    assert torch.equal(trace(model, INPUTS).logits, model.decoder(input_ids=INPUTS).logits)
    with pytest.raises(ValueError, match="not its token embedding plus"):
        model.token_table()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "Linear lacks config"),
        (lambda: tiny_models.causal("Llama").model, "no output head"),
        (lambda: tiny_models.encoder_decoder(), "encoder-decoder"),
        (lambda: tiny_models.not_causal(), "not causal"),
        (lambda: tiny_models.causal("GPT2", resid_pdrop=0.5).train(), r"call model.eval\(\)"),
        (lambda: tiny_models.causal("OPT", word_embed_proj_dim=8), "one width"),
        (lambda: without_layers(), "lists of 2 layers"),
    ],
)
def test_models_that_give_no_trace_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HookedDecoder(make())


def without_layers() -> Any:
    model = tiny_models.causal("Llama")
    model.model.layers = torch.nn.Sequential(*model.model.layers)
    return model


def test_bad_inputs_are_refused() -> None:
    model = HookedDecoder(tiny_models.causal("Llama"))
    run, embed = unchecked(trace), unchecked(trace_embeddings)
    with pytest.raises(ValueError, match="int64 token ids .*trace_embeddings"):
        run(model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"token ids must lie in 0 … 10"):
        run(model, torch.tensor([[0, 11]]))
    with pytest.raises(ValueError, match="at most 32"):
        run(model, torch.zeros(1, 33, dtype=torch.int64))
    with pytest.raises(ValueError, match="int64; give floating-point"):
        embed(model, torch.zeros(1, 3, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"non-empty \(B,T,16\)"):
        embed(model, torch.zeros(1, 3, 15))
    patch = Patch(0, 0, torch.zeros(16))
    object.__setattr__(patch, "value", torch.zeros(16, dtype=torch.int64))
    with pytest.raises(ValueError, match="int64; give floating-point"):
        run(model, INPUTS, patch=patch)
    with torch.no_grad():
        blind = trace(model, INPUTS)
    with pytest.raises(ValueError, match="no graph"):
        unchecked(empirical_costate)(blind, INPUTS, np.ones((2, 5)))
    model.decoder.train()
    getattr(model.decoder, "activation_checkpointing_enable", model.decoder.gradient_checkpointing_enable)()
    with pytest.raises(ValueError, match="gradient_checkpointing_disable"):
        run(model, INPUTS)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_our_transformer_equals_opt_layer_by_layer(norm: Any) -> None:
    """OPT with the same weights; on a stream of zero mean its LayerNorm is our RMSNorm."""
    ours = Transformer(TransformerSpec(11, width=8, layers=3, heads=2, head_width=4, norm=norm), seed=3)
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            if "embedding" in name:
                weight -= weight.mean(1, keepdim=True)
            elif name.endswith(("attention.output.weight", "network.2.weight")):
                weight -= weight.mean(0, keepdim=True)
    theirs = HookedDecoder(tiny_models.opt_like(ours))
    mine, library = trace(ours, INPUTS), trace(theirs, INPUTS)
    for layer in range(ours.layers + 1):
        error = (mine.hidden[layer] - library.hidden[layer]).norm() / library.hidden[layer].norm()
        assert float(error.detach()) <= ALGEBRA, layer
    assert float(((mine.logits - library.logits).norm() / library.logits.norm()).detach()) <= ALGEBRA
    costates = [empirical_costate(t, INPUTS, np.ones((2, 5))) for t in (mine, library)]
    centred = [c - c.mean(-1, keepdim=True) for c in costates]  # directions that leave the stream's mean alone
    assert float((centred[0] - centred[1]).norm() / centred[0].norm()) <= 10 * ALGEBRA
    with torch.no_grad():
        ours.blocks[0].attention.output.weight *= 1 + PLANTED_FAULT  # type: ignore[union-attr, operator]
    assert float((trace(ours, INPUTS).hidden[1] - mine.hidden[1]).norm().detach()) > ALGEBRA
