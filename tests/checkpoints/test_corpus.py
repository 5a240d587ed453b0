"""Corpus, tokenizer, records and data mixture are functions of their inputs, and hold what they promise."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vgrad_lab.checkpoints.embedded.corpus import stdlib_texts, texts_sha256
from vgrad_lab.checkpoints.embedded.mixture import Mixture, build_mixture, draw_batch
from vgrad_lab.checkpoints.embedded.pretrain import TINY
from vgrad_lab.checkpoints.embedded.records import FORMATS, HELD_OUT, common_words, record_documents
from vgrad_lab.checkpoints.embedded.tokenizer import END, END_ID, PAD, PAD_ID, train_tokenizer
from vgrad_lab.checkpoints.errors import UserError

LONG = "A docstring that has more than eighty characters, which is what the corpus takes from a module, number {}."
WORDS = ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu label Answer COPY",)


@pytest.fixture(scope="module")
def texts() -> tuple[str, ...]:
    return stdlib_texts(characters=TINY.characters)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return build_mixture(TINY)


def test_corpus_is_read_from_source_alone(tmp_path: Path) -> None:
    files = {
        "pydoc_data/topics.py": "topics = {'b': 'second ' 'topic', 'a': 'first topic'}",
        "broken.py": "def (:",
        "explodes.py": f'"""{LONG.format(1)}"""\nraise SystemExit\nclass C:\n    """{LONG.format(2)}"""\n',
        "again.py": f'async def f():\n    """{LONG.format(1)}"""\n',
        "short.py": '"""Too short."""',
        "test/left_out.py": f'"""{LONG.format(3)}"""',
        "site-packages/installed.py": f'"""{LONG.format(4)}"""',
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    assert stdlib_texts(root=tmp_path) == ("first topic", "second topic", LONG.format(1), LONG.format(2))
    assert stdlib_texts(root=tmp_path, characters=12) == ("first topic", "second topic")
    just_more = sum(map(len, ("first topic", "second topic", LONG.format(1)))) + 1
    assert len(stdlib_texts(root=tmp_path, characters=just_more)) == 4, "a repeated text counts once"


def test_corpus_is_the_same_each_time(texts: tuple[str, ...]) -> None:
    again = stdlib_texts(characters=TINY.characters)
    assert again == texts
    assert len(set(texts)) == len(texts)
    assert sum(map(len, texts[:-1])) < 200_000 <= sum(map(len, texts))
    assert texts_sha256(again) == texts_sha256(texts)
    assert texts_sha256(("ab", "c")) != texts_sha256(("a", "bc"))


def test_no_source_tree_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text found below .*run with a Python that ships them"):
        stdlib_texts(root=tmp_path)
    with pytest.raises(ValueError, match="characters is 0"):
        stdlib_texts(characters=0)


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_tokenizer_inverts(mixture: Mixture, text: str) -> None:
    assume(END not in text and PAD not in text)
    tokens = mixture.tokenizer.encode(text)
    assert mixture.tokenizer.decode(tokens) == text
    assert not {END_ID, PAD_ID} & set(tokens)


def test_tokenizer_is_the_same_each_time(texts: tuple[str, ...], mixture: Mixture) -> None:
    again = train_tokenizer(texts, vocab=TINY.vocab)
    assert again.get_vocab() == mixture.tokenizer.get_vocab()
    assert (again.eos_token_id, again.pad_token_id, len(again)) == (END_ID, PAD_ID, TINY.vocab)


@pytest.mark.parametrize(("vocab", "message"), [(257, "at least 258"), (1024, "fill only")])
def test_tokenizer_refuses_a_vocab_it_cannot_fill(vocab: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_tokenizer(WORDS, vocab=vocab)


def test_records_keep_values_and_leave_task_words_out() -> None:
    documents = record_documents(WORDS, 300, rng=np.random.default_rng(3))
    assert documents == record_documents(WORDS, 300, rng=np.random.default_rng(3))
    assert documents != record_documents(WORDS, 300, rng=np.random.default_rng(4))
    shapes = {f: re.compile(re.escape(f).replace(r"\{k\}", "(.+?)").replace(r"\{v\}", "(\\w+)")) for f in FORMATS}
    for document in documents:
        assert HELD_OUT.isdisjoint(re.findall(r"[a-z]+", document.lower()))
        if "\n" not in document:
            continue
        lines = [f"{line}\n" for line in document.split("\n")]
        assert 6 <= len(lines) <= 14
        matches = [[shape.fullmatch(line) for line in lines] for f, shape in shapes.items() if f.endswith("\n")]
        whole = next(found for found in matches if all(found))
        pairs = {(m[1], m[2]) for m in whole if m}
        assert len({key for key, _ in pairs}) <= 4
        assert len(dict(pairs)) == len(pairs), f"a key changed its value in {document!r}"


def test_common_words_leave_task_words_out(texts: tuple[str, ...]) -> None:
    words = common_words(texts)
    assert HELD_OUT.isdisjoint(map(str.lower, words))
    assert words[0] == "the"
    with pytest.raises(ValueError, match="no word"):
        record_documents(("1 2 3",), 1, rng=np.random.default_rng(0))


def test_batches_depend_on_seed_and_step_alone(mixture: Mixture) -> None:
    first = draw_batch(mixture, TINY, 7)
    assert first.shape == (TINY.batch, TINY.length + 1)
    assert (first == draw_batch(mixture, TINY, 7)).all()
    assert (first != draw_batch(mixture, TINY, 8)).any()
    assert (first != draw_batch(mixture, replace(TINY, seed=1), 7)).any()


def test_identities_of_corpus_and_data(mixture: Mixture) -> None:
    other = build_mixture(replace(TINY, seed=1))
    assert build_mixture(TINY).data_sha256 == mixture.data_sha256 != other.data_sha256
    assert other.corpus_sha256 == mixture.corpus_sha256


def test_each_kind_of_row_is_what_it_is_called(mixture: Mixture) -> None:
    plain = draw_batch(mixture, replace(TINY, corpus_share=1.0, span_share=0.0), 1)
    spans = draw_batch(mixture, replace(TINY, corpus_share=0.0, span_share=1.0), 1)
    records = draw_batch(mixture, replace(TINY, corpus_share=0.0, span_share=0.0), 1)
    corpus = np.lib.stride_tricks.sliding_window_view(np.resize(mixture.corpus.tokens, 100_000), TINY.length + 1)
    assert all((corpus == row).all(1).any() for row in plain)
    for row in spans:
        assert any((row[period:] == row[:-period]).all() for period in range(1, TINY.length // 2 + 2))
    starts = {tuple(mixture.records.tokens[s : s + 5]) for s in mixture.records.starts}
    assert all(tuple(row[:5]) in starts for row in records)


def test_validation_text_is_held_out(texts: tuple[str, ...], mixture: Mixture) -> None:
    trained = mixture.tokenizer.decode(mixture.corpus.tokens).split("<|endoftext|>")[:-1]
    held_out = "<|endoftext|>".join(texts[10::20])
    assert len(trained) + len(texts[10::20]) == len(texts)
    assert not set(trained) & set(texts[10::20])
    assert 1 <= len(mixture.validation) <= 64
    assert all(mixture.tokenizer.decode(row).strip("\ufffd") in held_out for row in mixture.validation)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(UserError, match="held-out text has"):
        build_mixture(replace(TINY, characters=20_000, length=200, vocab=300))
