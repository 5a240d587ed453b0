"""What the embedded ladder is trained on: plain text, repeated spans, record documents, as one token stream each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from vgrad_lab.checkpoints.embedded.corpus import corpus_texts, texts_sha256
from vgrad_lab.checkpoints.embedded.pretrain import LadderSettings
from vgrad_lab.checkpoints.embedded.records import common_words, record_documents
from vgrad_lab.checkpoints.embedded.tokenizer import END_ID, train_tokenizer
from vgrad_lab.checkpoints.errors import UserError

VALIDATE_EVERY = 20
"""Every 20th text of the corpus is held out for the validation loss; some repeat passages of texts that are not."""
VALIDATION_ROWS = 64
RECORD_STREAM, BATCH_STREAM = 1, 2
"""Independent random streams of one seed."""


@dataclass(frozen=True)
class Stream:
    """Token sequences laid end to end, and where each begins."""

    tokens: Int64[ndarray, "T"]
    starts: Int64[ndarray, "Q"]


@dataclass(frozen=True)
class Mixture:
    """Tokenizer and token streams of one ladder.

    Args:
        tokenizer: trained on the whole corpus.
        corpus, words, records: streams of plain text, of single words, and of record documents.
        validation: rows of held-out plain text, each with the row's first token in front.
        corpus_sha256: identity of the corpus.
        data_sha256: identity of all token streams, so of the corpus, the tokenizer and the records.
    """

    tokenizer: Any
    corpus: Stream
    words: Stream
    records: Stream
    validation: Int64[ndarray, "Q T1"]
    corpus_sha256: str
    data_sha256: str


def build_mixture(settings: LadderSettings) -> Mixture:
    """Corpus, tokenizer and all token streams, a function of the settings and of versions (Python's, the packages').

    Raises:
        UserError: the corpus is too small for one row.
    """
    texts = corpus_texts(characters=settings.characters, packages=settings.packages)
    tokenizer = train_tokenizer(texts, vocab=settings.vocab, model_max_length=settings.positions)
    rng = np.random.default_rng((settings.seed, RECORD_STREAM))
    documents = record_documents(texts, settings.documents, rng=rng)
    train = [text for i, text in enumerate(texts) if i % VALIDATE_EVERY != VALIDATE_EVERY // 2]
    held_out = texts[VALIDATE_EVERY // 2 :: VALIDATE_EVERY]
    corpus = _stream(tokenizer, train, end=True)
    words = _stream(tokenizer, [f" {word}" for word in common_words(texts)], end=False)
    records = _stream(tokenizer, documents, end=True)
    validation = _rows(_stream(tokenizer, held_out, end=True).tokens, settings.length + 1)
    return Mixture(
        tokenizer=tokenizer,
        corpus=corpus,
        words=words,
        records=records,
        validation=validation,
        corpus_sha256=texts_sha256(texts),
        data_sha256=_sha256(corpus.tokens, words.tokens, records.tokens, validation),
    )


def draw_batch(mixture: Mixture, settings: LadderSettings, step: int) -> Int64[ndarray, "B T1"]:
    """Rows of one optimiser step, a function of the settings' seed and the step alone.

    Each row is plain text with probability `corpus_share`, a repeated span with `span_share`, or else a record
    document from its beginning, followed by the next ones.
    """
    rng = np.random.default_rng((settings.seed, BATCH_STREAM, step))
    size = settings.length + 1
    rows = np.empty((settings.batch, size), dtype=np.int64)
    for row, kind in zip(rows, rng.random(settings.batch), strict=True):
        if kind < settings.corpus_share:
            row[:] = _window(mixture.corpus, int(rng.integers(len(mixture.corpus.tokens))), size)
        elif kind < settings.corpus_share + settings.span_share:
            row[:] = np.resize(_span(mixture, rng, size), size)
        else:
            row[:] = _window(mixture.records, int(rng.choice(mixture.records.starts)), size)
    return rows


def _span(mixture: Mixture, rng: np.random.Generator, size: int) -> Int64[ndarray, "_"]:
    """A piece of text or a few random words, at most half a row long."""
    if rng.random() < 0.5:
        length = int(rng.integers(3, max(4, size // 2)))
        return _window(mixture.corpus, int(rng.integers(len(mixture.corpus.tokens))), length)
    ends = np.append(mixture.words.starts[1:], len(mixture.words.tokens))
    chosen = rng.integers(len(ends), size=int(rng.integers(2, 9)))
    pieces = [mixture.words.tokens[mixture.words.starts[i] : ends[i]] for i in chosen]
    return np.concatenate(pieces)[: max(1, size // 2)]


def _window(stream: Stream, start: int, size: int) -> Int64[ndarray, "_"]:
    """Tokens from a place on; the stream's beginning follows its end."""
    return np.take(stream.tokens, np.arange(start, start + size), mode="wrap")


def _stream(tokenizer: Any, texts: Sequence[str], *, end: bool) -> Stream:
    """Encode texts and lay them end to end, each with the end token behind it if asked."""
    tail = [END_ID] if end else []
    encoded = [[*e.ids, *tail] for e in tokenizer.backend_tokenizer.encode_batch_fast(list(texts))]
    lengths = np.array([len(tokens) for tokens in encoded], dtype=np.int64)
    tokens = np.fromiter((token for tokens in encoded for token in tokens), dtype=np.int64, count=int(lengths.sum()))
    return Stream(tokens=tokens, starts=np.cumsum(lengths) - lengths)


def _sha256(*arrays: Int64[ndarray, "..."]) -> str:
    """SHA-256 of shapes and contents, in little-endian order on every machine."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}\n".encode() + array.astype("<i8").tobytes())
    return digest.hexdigest()


def _rows(tokens: Int64[ndarray, "T"], size: int) -> Int64[ndarray, "Q T1"]:
    """Up to 64 disjoint rows, evenly spread."""
    n = min(VALIDATION_ROWS, len(tokens) // size)
    if n < 1:
        raise UserError(f"the held-out text has {len(tokens)} tokens, fewer than a row of {size}; raise `characters`")
    starts = np.arange(n) * (len(tokens) // n)
    return tokens[starts[:, None] + np.arange(size)]
