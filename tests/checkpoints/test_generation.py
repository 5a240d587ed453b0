"""Sampled answers: equal to one-by-one sampling without a cache, distributed as the enumerated policy."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny_models
from tests.helpers import unchecked
from vgrad_lab.checkpoints import decoding, generation
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.rewards import Reward
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask
from vgrad_lab.discrete.token_tree import token_tree
from vgrad_lab.stats import assert_mean_close

EXAMPLES = tuple(
    Example(text, '{"answer": "A"}') for text in ("Label: A\nLabel:", "The label is B. The label is", "Copy: C\nCopy:")
)
TASK = SampledTask(EXAMPLES, reward=Reward(), temperature=0.8, max_tokens=6)
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}


def bloom() -> Any:
    """A model without position ids."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"vocab_size": 11, "hidden_size": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 1}
        return transformers.BloomForCausalLM(transformers.BloomConfig(**sizes, initializer_range=0.2)).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(tiny_models.save(tmp_path_factory.mktemp("generation") / "c", initializer_range=0.3))


def one_by_one(model: Any, prompt: list[int], uniform: np.ndarray, temperature: float) -> tuple[list[int], list[float]]:
    """The textbook loop: no batch, no cache, no padding, token 0 ends."""
    answer: list[int] = []
    logp: list[float] = []
    for u in uniform:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, -1].double()
        p = torch.softmax(logits / temperature, -1).numpy()
        answer.append(int(np.searchsorted(np.cumsum(p), u, side="right")))
        logp.append(float(np.log(p[answer[-1]])))
        if answer[-1] == 0:
            break
    return answer, logp


@pytest.mark.parametrize(
    "family", ["Olmo2", "Llama", "Qwen2", "Gemma2", "Gemma3", "sliding", "GPTNeoX", "GPT2", "Bloom"]
)
def test_equals_one_by_one_without_cache(family: str) -> None:
    """Token for token under the same uniform numbers; prompts of unequal length, groups, early ends."""
    model = {"Bloom": bloom, "sliding": lambda: tiny_models.causal("Gemma3", **SLIDING)}.get(
        family, lambda: tiny_models.causal(family)
    )()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(2, 11, size).tolist() for size in (1, 7, 3, 7)]
    uniform = rng.random((4, 3, 8))
    ended = 0
    for chosen in decoding.batches(model, [len(p) for p in prompts], 3):
        stopping = decoding.Stopping((0,))
        part = decoding.generate(
            model, [prompts[q] for q in chosen], uniform[chosen], temperature=0.8, stopping=stopping
        )
        for row, (answer, logp, end) in enumerate(zip(*part, strict=True)):
            q, g = chosen[row // 3], row % 3
            expected, truth = one_by_one(model, prompts[q], uniform[q, g], 0.8)
            assert answer == expected
            np.testing.assert_allclose(logp[: len(truth)].numpy(), truth, atol=1e-5)
            assert not logp[len(truth) :].any()
            assert bool(end) == (expected[-1] == 0)
            ended += bool(end)
    assert 0 < ended < 12


def test_frequencies_are_those_of_the_enumerated_policy() -> None:
    """All answers of at most two tokens over five; another temperature must be seen."""
    model, tree, temperature = tiny_models.causal("Llama", vocab_size=5).double(), token_tree(5, 2, end=0), 0.7
    prompt = [2, 3, 1]
    logp = []
    for prefix in tree.prefixes:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *prefix]])).logits[0, -1]
        logp.append(torch.log_softmax(logits / temperature, -1).numpy())
    each = np.where(tree.scored, np.array(logp)[tree.node, tree.tokens], 0.0)
    exact = np.exp(each.sum(1))
    assert exact.sum() == pytest.approx(1)
    uniform = np.random.default_rng(0).random((1, 8_000, 2))
    found = {
        t: decoding.generate(model, [prompt], uniform, temperature=t, stopping=decoding.Stopping((0,)))
        for t in (0.7, 1.0)
    }
    place = {answer: i for i, answer in enumerate(tree.answers)}
    drawn = {t: np.eye(tree.size)[[place[tuple(a)] for a in part[0]]] for t, part in found.items()}
    assert_mean_close(drawn[0.7], exact, detectable=0.08)
    with pytest.raises(AssertionError):
        assert_mean_close(drawn[1.0], exact, detectable=0.08)
    rows = drawn[0.7].argmax(1)
    np.testing.assert_allclose(found[0.7][1].sum(1).numpy(), each.sum(1)[rows], atol=1e-6)


def test_batches_do_not_matter_and_seeds_do(checkpoint: Checkpoint) -> None:
    runs = [
        generation.sample(checkpoint, TASK, EXAMPLES, group_size=4, rng=np.random.default_rng(seed), micro_batch=size)
        for seed, size in ((0, 64), (0, 1), (0, 2), (1, 64))
    ]
    for other in runs[1:3]:
        assert torch.equal(runs[0].tokens, other.tokens)
        torch.testing.assert_close(runs[0].logp, other.logp, atol=1e-5, rtol=0)
        assert runs[0].texts == other.texts
    assert runs[0].texts != runs[3].texts


def test_rows_are_prompt_by_sample(checkpoint: Checkpoint) -> None:
    rollouts = generation.sample(checkpoint, TASK, EXAMPLES, group_size=2, rng=np.random.default_rng(0))
    encode = checkpoint.tokenizer.encode
    for b in range(6):
        start, length = int(rollouts.prompt_length[b]), int(rollouts.answer_length[b])
        prompt, answer = rollouts.tokens[b, :start].tolist(), rollouts.tokens[b, start : start + length].tolist()
        assert prompt == encode(EXAMPLES[b // 2].prompt)
        assert (
            checkpoint.tokenizer.decode(answer[:-1] if rollouts.ended[b] else answer) == rollouts.texts[b // 2][b % 2]
        )
        assert length == 6 or bool(rollouts.ended[b])
    assert rollouts.reward.shape == (3, 2)
    assert rollouts.temperature == 0.8


def test_logprobs_with_gradient_are_those_of_sampling(checkpoint: Checkpoint) -> None:
    """Rows of unequal prompts and answers, whole and in part; the gradient against a row at a time."""
    task = dataclasses.replace(TASK, stop=tuple("abcdefghijklm"))
    rollouts = generation.sample(checkpoint, task, EXAMPLES, group_size=5, rng=np.random.default_rng(2))
    assert len(set(rollouts.answer_length.tolist())) > 1
    for rows in (slice(None), slice(3, 9), slice(14, 15)):
        logp, real = generation.token_logprobs(checkpoint.model, rollouts, rows)
        torch.testing.assert_close(logp.double(), rollouts.logp[rows, : logp.shape[1]], atol=1e-5, rtol=0)
        assert torch.equal(real.sum(1), rollouts.answer_length[rows])
        assert not logp[~real].any()
    weight = checkpoint.model.get_output_embeddings().weight
    (whole,) = torch.autograd.grad(generation.token_logprobs(checkpoint.model, rollouts)[0].sum(), weight)
    parts = []
    for b in range(15):
        end = int(rollouts.prompt_length[b] + rollouts.answer_length[b])
        row, start = rollouts.tokens[b : b + 1, :end], int(rollouts.prompt_length[b])
        logits = checkpoint.model(input_ids=row).logits[0, start - 1 : -1] / 0.8
        chosen = torch.log_softmax(logits, -1).gather(1, row[0, start:, None]).sum()
        parts.append(torch.autograd.grad(chosen, weight)[0])
    torch.testing.assert_close(whole, torch.stack(parts).sum(0), atol=1e-4, rtol=1e-4)


def test_a_stop_text_ends_an_answer_and_is_cut_off(checkpoint: Checkpoint) -> None:
    """Without it the same random numbers give the same tokens, only more of them."""
    free = dataclasses.replace(TASK, max_tokens=12, eos=False)
    long = generation.sample(checkpoint, free, EXAMPLES, group_size=8, rng=np.random.default_rng(0))
    letter = next(c for c in "abcdefghijklmnopqrstuvwxyz" if 2 < sum(c in t for row in long.texts for t in row) < 22)
    task = dataclasses.replace(free, stop=(letter, "never this"))
    short = generation.sample(checkpoint, task, EXAMPLES, group_size=8, rng=np.random.default_rng(0))
    for b in range(24):
        whole, cut = long.texts[b // 8][b % 8], short.texts[b // 8][b % 8]
        start, length = int(short.prompt_length[b]), int(short.answer_length[b])
        assert torch.equal(short.tokens[b, start : start + length], long.tokens[b, start : start + length])
        assert cut == whole.split(letter)[0]
        assert bool(short.ended[b]) == (letter in whole)
        assert not bool(long.ended[b])


def test_draw_at_the_edges() -> None:
    """u = 0 takes the first token that can come, u next to 1 the last; −∞ never comes; NaN is refused."""
    inf = float("inf")
    logits = torch.tensor([[-inf, 0.0, 1.0, -inf]]).expand(2, 4)
    token, logp = decoding.draw(logits, torch.tensor([0.0, np.nextafter(1, 0)], dtype=torch.float64), 1.0)
    assert token.tolist() == [1, 2]
    np.testing.assert_allclose(logp.exp().sum().item(), 1)
    many = torch.full((1000, 300), -3.0)
    many[:, 200:] = -inf
    last, _ = decoding.draw(many, torch.full((1000,), float(np.nextafter(1, 0)), dtype=torch.float64), 0.1)
    assert set(last.tolist()) == {199}
    for bad in (float("nan"), inf):
        with pytest.raises(UserError, match="not finite"):
            decoding.draw(torch.tensor([[0.0, bad]]), torch.tensor([0.5]), 1.0)


def test_wrong_calls_are_refused(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(0)
    for change in ({"group_size": 0}, {"micro_batch": 0}, {"examples": ()}):
        given = {"examples": EXAMPLES, "group_size": 2, "micro_batch": 4} | change
        with pytest.raises(ValueError, match="give ≥ 1"):
            unchecked(generation.sample)(checkpoint, TASK, rng=rng, **given)
    for task, message in (
        (dataclasses.replace(TASK, max_tokens=126), "context of 128; shorten it, or lower max_tokens"),
        (dataclasses.replace(TASK, prompts=(Example("a<|endoftext|>", '{"answer": "A"}'),)), "end token behind it"),
    ):
        with pytest.raises(UserError, match=message):
            generation.sample(checkpoint, task, task.prompts, group_size=2, rng=rng)
    tokenizer = tiny_models.tokenizer.__wrapped__()
    tokenizer.eos_token = None
    model = tiny_models.model()
    model.generation_config.eos_token_id = None
    bare = Checkpoint(model, tokenizer, "0", Path("here"))
    with pytest.raises(UserError, match="tokenizer of here has no end token; set eos: false"):
        generation.sample(bare, TASK, EXAMPLES, group_size=2, rng=rng)
    open_ended = generation.sample(bare, dataclasses.replace(TASK, eos=False), EXAMPLES, group_size=2, rng=rng)
    assert open_ended.answer_length.tolist() == [6] * 6


def test_a_model_without_a_cache_that_can_be_shared_is_refused() -> None:
    model = tiny_models.causal("Llama")
    forward = model.forward

    def stateless(input_ids: Any, attention_mask: Any = None, position_ids: Any = None, use_cache: bool = False) -> Any:
        return forward(input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False)

    model.forward = stateless
    with pytest.raises(UserError, match="no cache that a group can share"):
        decoding.generate(model, [[2, 3]], np.zeros((1, 2, 3)))


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    broken = load_checkpoint(tiny_models.save(tmp_path / "c"))
    with torch.no_grad():
        broken.model.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(UserError, match="logits are not finite while sampling"):
        generation.sample(broken, TASK, EXAMPLES, group_size=2, rng=np.random.default_rng(0))


def test_rounding_never_draws_a_token_that_cannot_come() -> None:
    """float32 sums miss 1 on either side, and a number below 1 may have been rounded to 1: the last that can come."""
    logits = torch.randn(400, 900, generator=torch.Generator().manual_seed(0))
    logits[:, 700:] = -float("inf")
    uniform = torch.ones(400)
    totals = torch.log_softmax(logits, -1).exp().cumsum(-1)[:, -1]
    assert float(totals.min()) < 1 < float(totals.max())
    token, logp = decoding.draw(logits, uniform, 1.0)
    assert int(token.max()) <= 699
    assert bool(torch.isfinite(logp).all())


def test_stop_texts_of_several_tokens(checkpoint: Checkpoint) -> None:
    """A text ends an answer when its last token completes it, wherever the tokens are cut, and only then."""
    tokenizer = checkpoint.tokenizer
    stopping = decoding.Stopping((0,), ("label is", "é!"), tokenizer)
    for text in ("so the label is", "café!"):
        tokens = torch.tensor([tokenizer.encode(text)])
        assert bool(stopping.ends(tokens))
        assert not bool(stopping.ends(tokens[:, :-1]))
        assert not bool(decoding.Stopping((0,)).ends(tokens))
    assert stopping.ends(torch.tensor([[5, 0], [0, 5]])).tolist() == [True, False]


def test_text_of_an_answer(checkpoint: Checkpoint) -> None:
    """Without the end token, from before the first stop text; an end token elsewhere and other tokens stay visible."""
    tokenizer = checkpoint.tokenizer
    a, b = tokenizer.encode(" A"), tokenizer.encode(" B")
    assert generation.answer_text(tokenizer, [*a, *b, 0], (0,), ()) == " A B"
    assert generation.answer_text(tokenizer, [*a, 0], (), ()) == " A<|endoftext|>"
    assert generation.answer_text(tokenizer, [*a, 1, *b], (0,), ()) == " A<|pad|> B"
    assert generation.answer_text(tokenizer, [0], (0,), ()) == ""
    assert generation.answer_text(tokenizer, [*a, *b, *a], (0,), (" B", "A")) == " "
