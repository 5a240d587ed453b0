"""Synthetic record documents: a few keys and their values stated again and again, from which copying is learned."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

FORMATS = (
    "{k}: {v}\n",
    "{k}: {v}\n",
    "{k} = {v}\n",
    "The {k} is {v}. ",
    "{k} is {v}. ",
    "{k} -> {v}\n",
    "{k}: {v} ",
    "{k} {v}\n",
)
"""Forms of one line; a document keeps to one of them."""
HELD_OUT = frozenset({"label", "answer", "target", "option", "input", "output", "copy", "correct"})
"""Words of the label-copy task's templates: they never occur in a record, so that the task is zero-shot."""
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LETTER_SHARE, WORD_SHARE = 0.30, 0.55
"""Shares of letters and corpus words among the values; the rest are the numbers 0 to 99."""
MOST_WORDS = 4000
DRAWS = 96
"""Uniform numbers set aside for one document; the longest document uses fewer."""


def common_words(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The corpus's most frequent words of 2 to 12 letters, without the held-out ones, by falling count."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"\b[A-Za-z]{2,12}\b", text))
    kept = [(-n, word) for word, n in counts.items() if word.lower() not in HELD_OUT]
    return tuple(word for _, word in sorted(kept)[:MOST_WORDS])


def common_sentences(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Different short sentences of the corpus, in order of appearance, without held-out words: fillers."""
    found: dict[str, None] = {}
    for text in texts:
        for sentence in re.findall(r"(?<=[.\n] )[A-Z][a-z]+(?: [a-z]+){2,8}\.", " ".join(text.split())):
            if HELD_OUT.isdisjoint(re.findall(r"[a-z]+", sentence.lower())):
                found[sentence] = None
    return tuple(found)


def record_documents(texts: tuple[str, ...], n: int, *, rng: np.random.Generator) -> tuple[str, ...]:
    """Documents of 6 to 14 lines over 1 to 4 keys; a key keeps its value through its document.

    Every second statement of a key can be predicted by copying the value from the first, which is what the label-copy
    task asks for with other keys.

    Args:
        texts: corpus that lends words and filler sentences.
        n: number of documents.
        rng: generator; one block of uniform numbers is drawn for all documents.
    """
    words, sentences = common_words(texts), common_sentences(texts)
    if not words:
        raise ValueError("the texts hold no word of 2 to 12 letters; give more text")
    return tuple(_document(iter(row), words, sentences) for row in rng.random((n, DRAWS)).tolist())


def _document(draw: Iterator[float], words: tuple[str, ...], sentences: tuple[str, ...]) -> str:
    """One document, a function of its uniform numbers."""
    form = _pick(FORMATS, next(draw))
    wanted = 1 + int(4 * next(draw))
    pairs = tuple({_key(draw, words, lower=form.startswith("The")): _value(draw, words) for _ in range(wanted)}.items())
    filler_share = 0.3 * next(draw)
    parts = []
    for _ in range(6 + int(9 * next(draw))):
        key, value = _pick(pairs, next(draw))
        parts.append(form.replace("{k}", key).replace("{v}", value))
        if next(draw) < filler_share and sentences:
            parts.append(_pick(sentences, next(draw)) + form[-1])
    return "".join(parts).rstrip()


def _key(draw: Iterator[float], words: tuple[str, ...], *, lower: bool) -> str:
    """One or two words; as written, in lower case, or with a capital."""
    key = _pick(words, next(draw))
    if next(draw) < 0.3:
        key += " " + _pick(words, next(draw)).lower()
    if lower:
        return key.lower()
    return key[0].upper() + key[1:] if next(draw) < 0.5 else key


def _value(draw: Iterator[float], words: tuple[str, ...]) -> str:
    """A capital letter, a word of the corpus, or a number."""
    kind, choice = next(draw), next(draw)
    if kind < LETTER_SHARE:
        return _pick(LETTERS, choice)
    if kind < LETTER_SHARE + WORD_SHARE:
        return _pick(words, choice)
    return str(int(100 * choice))


def _pick(items: tuple[Item, ...], u: float) -> Item:
    return items[int(len(items) * u)]
