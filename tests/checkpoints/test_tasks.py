"""Prompts, their encoding, and the refusals of the label-copy task."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.checkpoints.embedded.records import HELD_OUT
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts, prompt_text, task_identity
from vgrad_lab.tolerances import ALGEBRA

TASK = LabelCopy()


@dataclass(frozen=True)
class Words:
    """A tokenizer of whole words, with an end token behind every text if asked."""

    vocabulary: dict[str, int]
    appends_end: bool = False
    pad_token_id: int | None = None
    eos_token_id: int | None = None
    unk_token_id: int = 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        tokens = [self.vocabulary.get(word, 0) for word in text.split()]
        return [*tokens, 1] if self.appends_end and add_special_tokens else tokens


def test_draws_are_a_function_of_the_seed() -> None:
    prompts = draw_prompts(TASK, 64, seed=3)
    assert prompts == draw_prompts(TASK, 64, rng=np.random.default_rng(3))
    assert prompts != draw_prompts(TASK, 64, seed=4)
    assert draw_prompts(replace(TASK, seed=3), 64) == prompts
    assert prompts[:8] == draw_prompts(TASK, 8, seed=3)
    for text, label in prompts:
        assert text.count(f" {TASK.labels[label]}") >= 1
        assert text == text.rstrip()


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 1, "seed": 0, "rng": np.random.default_rng(0)}])
def test_draws_refuse_what_they_cannot_do(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="give n >= 1 and rng or seed"):
        draw_prompts(TASK, **arguments)
    with pytest.raises(ValueError, match="no prompts"):
        encode_prompts(TASK, Words({}), [])


def test_identity_changes_with_every_field() -> None:
    others = [
        replace(TASK, labels=("A", "B")),
        replace(TASK, templates=TASK.templates[:1]),
        replace(TASK, fillers=()[:0], templates=TASK.templates[:1]),
        replace(TASK, seed=1),
    ]
    identities = {task_identity(task) for task in (TASK, *others)}
    assert len(identities) == 5
    assert task_identity(LabelCopy()) == task_identity(TASK)
    assert all(len(identity) == 16 for identity in identities)


def test_every_template_uses_a_word_that_pretraining_left_out() -> None:
    for template in TASK.templates:
        assert HELD_OUT & {word.lower().strip(":.=") for word in template.split()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ("A",)}, "two or more different labels"),
        ({"labels": ("A", "A")}, "two or more different labels"),
        ({"labels": ("A", " ")}, "none of them blank"),
        ({"templates": ()}, "has no template"),
        ({"templates": ("Label:",)}, "must name the label"),
        ({"templates": ("Label: {y} Label: ",)}, "must not end in white space"),
        ({"templates": ("{y} {f} Label:",), "fillers": ()}, "has no fillers"),
    ],
)
def test_impossible_tasks_are_refused(fields: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TASK, **fields)


def test_merging_keeps_every_mean(tiny_checkpoint: Checkpoint) -> None:
    prompts = draw_prompts(TASK, 256, seed=1)
    plain = encode_prompts(TASK, tiny_checkpoint.tokenizer, prompts)
    merged = encode_prompts(TASK, tiny_checkpoint.tokenizer, prompts, deduplicate=True)
    assert len(plain.last) == 256 > len(set(prompts)) == len(merged.last)
    for batch in (plain, merged):
        assert abs(batch.weight.sum() - 1) < ALGEBRA
    for name in ("last", "target", "template"):
        values = [(batch.weight * getattr(batch, name)).sum() for batch in (plain, merged)]
        assert abs(values[0] - values[1]) <= ALGEBRA * abs(values[0])
    heaviest = int(merged.weight.argmax())
    text = tiny_checkpoint.tokenizer.decode(merged.tokens[heaviest, : merged.last[heaviest] + 1])
    assert merged.weight[heaviest] * 256 == pytest.approx(sum(t == text for t, _ in prompts), rel=ALGEBRA)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 11)), min_size=1, max_size=12))
def test_encoding_reads_back(tiny_checkpoint: Checkpoint, choices: list[tuple[int, int, int]]) -> None:
    prompts = [(prompt_text(TASK, template=t, label=y, filler=f), y) for t, y, f in choices]
    batch = encode_prompts(TASK, tiny_checkpoint.tokenizer, prompts)
    decode = tiny_checkpoint.tokenizer.decode
    for q, (text, label) in enumerate(prompts):
        end = batch.last[q] + 1
        assert decode(batch.tokens[q, :end]) == text
        assert (batch.tokens[q, end:] == tiny_checkpoint.tokenizer.pad_token_id).all()
        assert decode([batch.target[q]]) == f" {TASK.labels[label]}"
    assert batch.template.tolist() == [t for t, _, _ in choices]
    assert [decode([token]) for token in batch.labels] == [f" {label}" for label in TASK.labels]
    assert encode_prompts(TASK, tiny_checkpoint.tokenizer, [("Mark: A\nMark:", 0)]).template.tolist() == [-1]


def test_right_padding_changes_no_prediction(tiny_checkpoint: Checkpoint) -> None:
    """Logits at `last` of the padded batch = logits of the prompt alone, in float64; one position off must differ."""
    model = tiny_checkpoint.model
    batch = encode_prompts(TASK, tiny_checkpoint.tokenizer, draw_prompts(TASK, 16, seed=0))
    assert batch.last.min() < batch.last.max()
    tokens, rows = torch.from_numpy(batch.tokens), torch.arange(16)
    model.double()
    try:
        with torch.no_grad():
            padded = model(input_ids=tokens).logits[rows, batch.last]
            alone = torch.stack(
                [model(input_ids=row[None, : n + 1]).logits[0, -1] for row, n in zip(tokens, batch.last, strict=True)]
            )
            early = model(input_ids=tokens).logits[rows, batch.last - 1]
    finally:
        model.float()
    scale = alone.abs().max()
    assert (padded - alone).abs().max() <= ALGEBRA * scale
    assert (early - alone).abs().max() > 1e-2 * scale


def test_label_of_two_tokens_is_refused(tiny_checkpoint: Checkpoint) -> None:
    task = replace(TASK, labels=("A", "Quixotic"))
    with pytest.raises(UserError, match=r"' Quixotic' is \d tokens .* exactly one; choose other labels"):
        encode_prompts(task, tiny_checkpoint.tokenizer, draw_prompts(task, 4))


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    task = replace(TASK, templates=("Label {y} Label",), labels=("A", "B"))
    prompts = draw_prompts(task, 2)
    with pytest.raises(UserError, match="' B' has the token of 'the unknown token'"):
        encode_prompts(task, Words({"Label": 1, "A": 2}), prompts)
    with pytest.raises(UserError, match="' B' has the token of 'A'"):
        encode_prompts(task, Words({"Label": 1, "A": 2, "B": 2}), prompts)


def test_tokenizer_that_ends_every_text_is_refused() -> None:
    task = replace(TASK, templates=("Label {y} Label",), labels=("A", "B"))
    vocabulary = {"Label": 2, "A": 3, "B": 4}
    assert encode_prompts(task, Words(vocabulary), [("Label A Label", 0)]).tokens.tolist() == [[2, 3, 2]]
    with pytest.raises(UserError, match="tokenizer of a causal language model"):
        encode_prompts(task, Words(vocabulary, appends_end=True), [("Label A Label", 0)])
