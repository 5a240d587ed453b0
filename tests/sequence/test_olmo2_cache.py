"""The one-step recursion over the library's own key-value cache, grouped heads and answers that end, on OLMo-2."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, Olmo2Config, Olmo2ForCausalLM

from vgrad_lab.experiments.verify_answers import answers, exact_values, gae_errors, group_errors, prefix_values
from vgrad_lab.experiments.verify_attention import grouped_rank
from vgrad_lab.experiments.verify_sequence import draw_batch, jacobian_rank, recursion_error, relative_error
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

Layers = list[tuple[Tensor, Tensor]]


def run(decoder: Olmo2ForCausalLM, tokens: Tensor, columns: Layers | None) -> tuple[Tensor, Layers]:
    """Logits of ``tokens`` read after the cached ``columns``, and the cache that grew by them."""
    cache = DynamicCache(columns) if columns else DynamicCache()
    result = decoder(input_ids=tokens, past_key_values=cache, use_cache=True)
    return result.logits, [(layer.keys, layer.values) for layer in cache.layers]


def leaves(columns: Layers, length: int) -> Layers:
    """The first ``length`` columns of every layer, each a leaf of its own."""
    return [tuple(x[:, :, :length].detach().clone().requires_grad_() for x in pair) for pair in columns]  # type: ignore[misc]


def flat(columns: Layers) -> list[Tensor]:
    return [x for pair in columns for x in pair]


def step(decoder: Olmo2ForCausalLM, token: Tensor, target: Tensor, weight: Tensor, cache: Layers, after: list[Tensor]):  # type: ignore[no-untyped-def]
    """∂(Â_t ℓ_t)/∂S_t + (∂S_{t+1}/∂S_t)^T λ_{t+1}."""
    logits, grown = run(decoder, token[:, None], cache)
    logprob = logits[:, -1].log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    objective = (weight * logprob).sum() + sum((x * y).sum() for x, y in zip(flat(grown), after, strict=True))
    return list(torch.autograd.grad(objective, flat(cache)))


@pytest.mark.parametrize("seed", range(5))
def test_one_step_is_exact_for_the_cache_of_the_library(olmo2: HookedDecoder, seed: int) -> None:
    decoder, rng = olmo2.decoder, np.random.default_rng(seed)
    inputs, targets, advantage = draw_batch(rng, olmo2, length=4)
    weight = torch.from_numpy(advantage)
    _, full = run(decoder, inputs, None)
    costate = [torch.zeros_like(x) for x in flat(full)]
    faulty = [x.clone() for x in costate]
    for t in (3, 2, 1):
        cache = leaves(full, t)
        logits, _ = run(decoder, inputs[:, t:], cache)
        logprob = logits.log_softmax(-1).gather(-1, targets[:, t:, None]).squeeze(-1)
        truth = torch.autograd.grad((weight[:, t:] * logprob).sum(), flat(cache))
        cache = leaves(full, t)
        costate = step(decoder, inputs[:, t], targets[:, t], weight[:, t], cache, costate)
        cache = leaves(full, t)
        scale = 1 + PLANTED_FAULT * (t == 2)
        faulty = step(decoder, inputs[:, t], targets[:, t], scale * weight[:, t], cache, faulty)
        whole = torch.cat([x.flatten() for x in truth])
        assert relative_error(torch.cat([x.flatten() for x in costate]), whole) <= ALGEBRA
    assert relative_error(torch.cat([x.flatten() for x in faulty]), whole) > ALGEBRA


def test_without_the_patch_the_library_is_not_in_double_precision() -> None:
    """The trap: ``double()`` leaves norms and softmax in float32, so the recursion closes to single precision only."""
    config = Olmo2Config(
        vocab_size=3, hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, attn_implementation="eager", pad_token_id=None,
        eos_token_id=None, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = HookedDecoder(Olmo2ForCausalLM(config).double().eval())
    rng = np.random.default_rng(0)
    errors = [recursion_error("cache", plain, *draw_batch(rng, plain, length=4)) for _ in range(5)]
    assert max(errors) > ALGEBRA
    assert max(errors) < 1e-4


def test_grouped_heads_of_the_library(olmo2: HookedDecoder) -> None:
    """Two query heads of width 4 on one key-value head: at most 6 of 8 directions leave the layer below the last."""
    inputs = draw_batch(np.random.default_rng(0), olmo2)[0]
    bounds = [min(8, grouped_rank(2, 1, 4, layers=3 - layer)) for layer in range(4)]
    ranks = [jacobian_rank(olmo2, inputs, source=(layer, 0), target=(3, 3)) for layer in range(4)]
    assert bounds == [8, 8, 6, 0]
    assert all(rank <= bound for rank, bound in zip(ranks, bounds, strict=True))
    assert ranks[2:] == [6, 0]


def test_answers_that_end_early(olmo2: HookedDecoder) -> None:
    rng = np.random.default_rng(3)
    case = answers(olmo2, 3, rng)
    assert gae_errors(case, prefix_values(case.cases, rng), decay=1.0).max() <= ALGEBRA
    exact = exact_values(case.cases, case.chance(), case.reward)
    assert gae_errors(case, exact, decay=0.5).max() <= ALGEBRA
    assert gae_errors(case, exact, decay=0.5, planted=PLANTED_FAULT).max() > ALGEBRA
    binary = answers(olmo2, 2, rng, binary=True)
    for baseline in ("leave_one_out", "group_mean", "standardised"):
        assert group_errors(binary, baseline, group=3, tokens=1).max() <= ALGEBRA
