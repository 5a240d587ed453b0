"""Scores of sampled answers of real causal LMs against value gradients by patching, over every answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import tiny_models
from tests.checkpoints.enumerated_groups import Prompt, mean_of
from vgrad_lab.checkpoints import group_costates
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.generation import Rollouts
from vgrad_lab.checkpoints.group_costates import Place, place_of, score_products
from vgrad_lab.checkpoints.group_signal import GroupRule, alignment_per_prompt, signal_per_prompt
from vgrad_lab.impact import grpo_scale
from vgrad_lab.sequence.enumeration import Continuations, continuations, sequence_probability, value_gradient
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.sequence.trace import trace
from vgrad_lab.tolerances import CLOSED_FORM

PROMPT = (0, 2, 1)
PLACES = (
    Place(0, "prompt"), Place(0, "last"), Place(1, "prompt"), Place(1, "last"), Place(2, "prompt"), Place(2, "last"),
    Place("head_input", "last"), Place("head_input", "prompt"),
)  # fmt: skip
EXACT = ("GPTNeoX", "GPT2")
"""Families whose norms compute in the precision of the weights; the others cast to float32 inside."""


def every_answer(family: str, *, seed: int = 0) -> tuple[HookedDecoder, Continuations, Rollouts]:
    """All answers of one or two tokens (token 3 ends one) to one prompt, as if each had been sampled once."""
    model = tiny_models.causal(family, seed=seed, vocab_size=4, pad_token_id=0, eos_token_id=3).double()
    hooked = HookedDecoder(model)
    cases = continuations(4, PROMPT, remaining=2, end=3)
    reward = np.random.default_rng(seed).permutation(np.arange(len(cases.targets)) % 2).astype(float)
    with torch.no_grad():
        logp = torch.log_softmax(trace(hooked, cases.inputs).logits, -1)
    chosen = logp.gather(-1, cases.targets[..., None])[..., 0] * cases.scored
    rollouts = Rollouts(
        tokens=torch.cat([cases.inputs[:, :1], cases.targets], 1),
        prompt_length=torch.full((len(reward),), len(PROMPT)),
        answer_length=cases.lengths,
        logp=chosen[:, len(PROMPT) - 1 :],
        reward=reward[None],
        texts=(("",) * len(reward),),
        ended=torch.ones(len(reward), dtype=torch.bool),
        temperature=1.0,
    )
    return hooked, cases, rollouts


def chance(hooked: HookedDecoder, cases: Continuations) -> np.ndarray:
    return np.asarray(sequence_probability(trace(hooked, cases.inputs), cases).detach())


@pytest.mark.parametrize("family", tiny_models.CAUSAL)
def test_mean_score_times_reward_is_the_value_gradient(family: str) -> None:
    """‖Σ_o π R s‖² at every layer and position against ∂E[R]/∂h by patching; with answers that end early."""
    hooked, cases, rollouts = every_answer(family)
    weight = chance(hooked, cases) * rollouts.reward[0]
    truth = value_gradient(hooked, cases, rollouts.reward[0])
    found = score_products(hooked.decoder, rollouts, PLACES, micro_batch=5)
    assert found.mismatch <= 1e-6
    for place in PLACES[:-2]:
        assert isinstance(place.layer, int)
        rows = truth[place.layer] if place.positions == "prompt" else truth[place.layer, -1:]
        exact, signal = float((rows**2).sum()), float(weight @ found.gram[place.name][0] @ weight)
        assert signal == pytest.approx(exact, rel=CLOSED_FORM if family in EXACT else 1e-4), place


@pytest.mark.parametrize("family", EXACT)
def test_signal_of_the_head_input_is_that_of_the_first_token(family: str) -> None:
    """At the head's input only the first token's distribution depends on the prompt's last state: G = Wᵀ C(p) Q."""
    hooked, cases, rollouts = every_answer(family)
    pi = chance(hooked, cases)
    first = cases.targets[:, len(PROMPT) - 1].numpy()
    p = np.bincount(first, pi)
    value = np.bincount(first, pi * rollouts.reward[0]) / p
    head = hooked.decoder.get_output_embeddings().weight.detach().numpy()
    gradient = (p * value) @ (head - p @ head)
    found = score_products(hooked.decoder, rollouts, PLACES)
    weight = pi * rollouts.reward[0]
    for place in PLACES[-2:]:
        signal = float(weight @ found.gram[place.name][0] @ weight)
        assert signal == pytest.approx(float(gradient @ gradient), rel=CLOSED_FORM)


@pytest.mark.parametrize("family", EXACT)
def test_estimators_are_unbiased_on_a_language_model(family: str) -> None:
    """Mean over all groups of 4 and 5 of the answers with two tokens: Σ by patching, alignment κ_n(p) Σ."""
    hooked, cases, rollouts = every_answer(family, seed=1)
    pi, reward = chance(hooked, cases), rollouts.reward[0]
    truth = value_gradient(hooked, cases, reward)
    for place in (Place(0, "prompt"), Place(1, "last")):
        gram = score_products(hooked.decoder, rollouts, (place,)).gram[place.name][0]
        level, axis = np.linalg.eigh(gram)
        every = Prompt(pi, axis * np.sqrt(np.maximum(level, 0)), reward)
        merged = _coarse(every)
        exact = float((truth[0] ** 2).sum() if place.layer == 0 else (truth[1, -1] ** 2).sum())
        assert every.signal == pytest.approx(exact, rel=CLOSED_FORM)
        assert mean_of(signal_per_prompt, every, 4) == pytest.approx(exact, rel=CLOSED_FORM)
        rule = GroupRule(3)
        factor = float(grpo_scale(np.array([every.success]), 3)[0])
        found = mean_of(lambda r, g, rule=rule: alignment_per_prompt(r, g, rule), merged, 5)
        assert found == pytest.approx(factor * exact, rel=CLOSED_FORM)


def _coarse(every: Prompt) -> Prompt:
    """Answers of one reward put together in pairs, scores averaged: the law of Σ_i R_i s_i changes, no mean does."""
    parts = []
    for level in (0.0, 1.0):
        rows = np.flatnonzero(every.reward == level)
        for half in np.array_split(rows, 3):
            weight = every.chance[half]
            parts.append((weight.sum(), weight @ every.score[half] / weight.sum(), level))
    weight, score, reward = (np.array(x) for x in zip(*parts, strict=True))
    return Prompt(weight, score, reward)


def test_temperature_is_that_of_the_policy() -> None:
    """At temperature 2 the scores are those of softmax(logits/2), which is the policy of a halved head."""
    hooked, _, rollouts = every_answer("GPT2")
    warm = score_products(hooked.decoder, replace(rollouts, temperature=2.0), (Place(1, "last"),))
    assert warm.mismatch > 1e-3
    hooked.decoder.lm_head.weight = torch.nn.Parameter(hooked.decoder.lm_head.weight / 2)
    halved = score_products(hooked.decoder, rollouts, (Place(1, "last"),))
    name = Place(1, "last").name
    np.testing.assert_allclose(warm.gram[name], halved.gram[name], rtol=1e-10, atol=1e-15)


def test_nothing_of_the_model_is_changed() -> None:
    hooked, _, rollouts = every_answer("Llama")
    model = hooked.decoder
    before = {name: p.clone() for name, p in model.named_parameters()}
    score_products(model, rollouts, PLACES)
    assert all(p.requires_grad and p.grad is None and torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_micro_batches_change_nothing() -> None:
    hooked, _, rollouts = every_answer("Qwen3")
    found = [score_products(hooked.decoder, rollouts, PLACES, micro_batch=n) for n in (1, 4, 100)]
    for other in found[1:]:
        for name, gram in found[0].gram.items():
            np.testing.assert_allclose(other.gram[name], gram, rtol=1e-5, atol=1e-9)


def test_long_scores_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked, _, rollouts = every_answer("GPT2")
    whole = score_products(hooked.decoder, rollouts, PLACES).gram
    monkeypatch.setattr(group_costates, "COLUMNS", 5)
    for name, gram in score_products(hooked.decoder, rollouts, PLACES).gram.items():
        np.testing.assert_allclose(gram, whole[name], rtol=1e-10, atol=1e-15)


def test_prompts_that_are_not_needed_cost_nothing() -> None:
    hooked, _, rollouts = every_answer("GPT2")
    two = replace(
        rollouts,
        **{k: getattr(rollouts, k).repeat(2, 1) for k in ("tokens", "logp")},
        **{k: getattr(rollouts, k).repeat(2) for k in ("prompt_length", "answer_length", "ended")},
        reward=np.vstack([rollouts.reward, rollouts.reward]),
        texts=rollouts.texts * 2,
    )
    passes: list[int] = []
    handle = hooked.decoder.register_forward_hook(lambda *_: passes.append(1))
    one = score_products(hooked.decoder, rollouts, PLACES).gram
    whole = len(passes)
    found = score_products(hooked.decoder, two, PLACES, needed=np.array([False, True])).gram
    handle.remove()
    assert len(passes) == 2 * whole
    for name, gram in found.items():
        assert not gram[0].any()
        np.testing.assert_allclose(gram[1], one[name][0], rtol=1e-12)


def test_what_cannot_be_measured_is_refused() -> None:
    hooked, _, rollouts = every_answer("GPT2")
    model = hooked.decoder
    with pytest.raises(UserError, match="layer is 3; give 0"):
        score_products(model, rollouts, (Place(3),))
    with pytest.raises(UserError, match="no place is named"):
        score_products(model, rollouts, ())
    with pytest.raises(UserError, match="hidden states cannot be named"):
        score_products(tiny_models.encoder_decoder(), rollouts, PLACES)
    with pytest.raises(ValueError, match="micro_batch is 0"):
        score_products(model, rollouts, PLACES, micro_batch=0)
    mixed = replace(rollouts, prompt_length=torch.arange(len(rollouts.tokens)) % 2 + 2)
    with pytest.raises(ValueError, match="different length"):
        score_products(model, mixed, PLACES)


def test_places_are_read_from_text() -> None:
    texts = ("head", "head:prompt", "0", "12:last")
    assert [place_of(t) for t in texts] == [
        Place("head_input", "last"), Place("head_input", "prompt"), Place(0, "prompt"), Place(12, "last")
    ]  # fmt: skip
    for bad in ("", "layer 3", "1.5", "²", "3:answer", ":last"):
        with pytest.raises(UserError, match="give head or a layer"):
            place_of(bad)
