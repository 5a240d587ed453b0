"""The label-copy task: prompts that state a label once and ask for it again as one token."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from vgrad_lab.checkpoints.errors import UserError

TEMPLATES = (
    "Label: {y}\nLabel:",
    "The label is {y}. The label is",
    "Target label: {y}\n{f}\nTarget label:",
    "Answer: {y}\n{f}\nAnswer:",
    "Option = {y}\nOption =",
    "Copy: {y}\nCopy:",
    "The answer is {y}. {f} The answer is",
    "Output -> {y}\n{f}\nOutput ->",
)
"""`{y}` is the label and `{f}` a filler; the label is asked for at the end, with a leading space."""
FILLERS = (
    "The file is read once.",
    "All names are kept in order.",
    "This value may be empty.",
    "It returns a new list.",
    "The first item comes last.",
    "No error is raised here.",
    "Each line has its own number.",
    "The default is used instead.",
    "A string can hold any text.",
    "See the next section for more.",
    "The object is not changed.",
    "There are two ways to do it.",
)


@dataclass(frozen=True)
class LabelCopy:
    """Copy a label: q = template(y, filler), reward R(a) = 1[a = y] for one sampled token a.

    The rung of the paper's §6 task that a very small model can climb; with R the indicator, E[R | q] = p(y*|q) over
    the full vocabulary (ledger S27 shows why the reward must not be p(y*|q) itself).

    Args:
        labels: the answers; each, with a leading space, must be one token of the tokenizer that is used.
        templates: texts with one or more `{y}` and optionally `{f}`, without white space at the end.
        fillers: sentences that may stand for `{f}`.
        seed: seed of `draw_prompts` where the caller gives none.

    Raises:
        UserError: a template, filler or label cannot make a prompt.
    """

    labels: tuple[str, ...] = ("A", "B", "C", "D")
    templates: tuple[str, ...] = TEMPLATES
    fillers: tuple[str, ...] = FILLERS
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or not all(map(str.strip, self.labels)):
            raise UserError(f"labels are {self.labels}; give two or more different labels, none of them blank")
        if not self.templates:
            raise UserError("the task has no template; give one or more texts such as 'Label: {y}\\nLabel:'")
        for template in self.templates:
            if "{y}" not in template or template != template.rstrip():
                raise UserError(f"template {template!r} must name the label as {{y}} and must not end in white space")
            if "{f}" in template and not self.fillers:
                raise UserError(f"template {template!r} asks for a filler {{f}}, but the task has no fillers")


@dataclass(frozen=True)
class PromptBatch:
    """Encoded prompts, right-padded; `weight` sums to 1, so that Σ_q weight_q f_q is the mean over the prompts drawn.

    Args:
        tokens: token ids; beyond `last` stands padding, which no causal position reads.
        last: index of the last real position of each prompt.
        target: token id of the right answer.
        labels: token ids of all labels (the task's actions).
        weight: share of each prompt among the prompts drawn.
        template: index of the prompt's template, −1 for a text that the task would not draw.
    """

    tokens: Int64[ndarray, "Q T"]
    last: Int64[ndarray, "Q"]
    target: Int64[ndarray, "Q"]
    labels: Int64[ndarray, "A"]
    weight: Float64[ndarray, "Q"]
    template: Int64[ndarray, "Q"]


@lru_cache(maxsize=8)
def task_identity(task: Any) -> str:
    """First 16 hex digits of the SHA-256 of a task's canonical JSON (a frozen dataclass): equal exactly when it is."""
    canonical = json.dumps({"task": type(task).__name__, **asdict(task)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def prompt_text(task: LabelCopy, *, template: int, label: int, filler: int = 0) -> str:
    """Text of one prompt, chosen by its three indices."""
    text = task.templates[template].replace("{y}", task.labels[label])
    return text.replace("{f}", task.fillers[filler]) if "{f}" in text else text


def draw_prompts(
    task: LabelCopy, n: int, *, rng: np.random.Generator | None = None, seed: int | None = None
) -> list[tuple[str, int]]:
    """Draw n prompts: template, label and filler uniform and independent.

    Args:
        task: the task.
        n: number of prompts, at least 1.
        rng: generator to draw from; or
        seed: seed of a new one. Without both, the task's own seed is used.

    Returns:
        n pairs (text, index of the label that is right).

    Raises:
        ValueError: n < 1, or both rng and seed given.
    """
    if n < 1 or (rng is not None and seed is not None):
        raise ValueError(f"got n={n}, rng={rng}, seed={seed}; give n >= 1 and rng or seed, not both")
    if rng is None:
        rng = np.random.default_rng(task.seed if seed is None else seed)
    sizes = (len(task.templates), len(task.labels), max(1, len(task.fillers)))
    rows = rng.integers(0, sizes, size=(n, 3)).tolist()
    return [(prompt_text(task, template=t, label=y, filler=f), y) for t, y, f in rows]


def encode_prompts(
    task: LabelCopy, tokenizer: Any, prompts: list[tuple[str, int]], *, deduplicate: bool = False
) -> PromptBatch:
    """Tokens, last position, target and weight of prompts.

    Args:
        task: the task the prompts come from.
        tokenizer: a `transformers` tokenizer.
        prompts: pairs (text, index of the right label), as `draw_prompts` gives them.
        deduplicate: merge equal prompts, in order of first appearance; their weights add up.

    Returns:
        The batch; Q counts the prompts after merging, T is the longest prompt in tokens.

    Raises:
        UserError: a label is not one token, or the tokenizer cannot put a label's token straight after a prompt.
        ValueError: no prompts.
    """
    if not prompts:
        raise ValueError("got no prompts; give at least one")
    counts = Counter(prompts) if deduplicate else None
    rows = list(counts) if counts else prompts
    labels = label_tokens(task, tokenizer)
    encoded = [_encode(tokenizer, text, task.labels[y], int(labels[y])) for text, y in rows]
    lengths = np.array([len(tokens) for tokens in encoded], dtype=np.int64)
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    padded = np.full((len(rows), lengths.max()), pad, dtype=np.int64)
    for row, tokens in zip(padded, encoded, strict=True):
        row[: len(tokens)] = tokens
    share = np.array([counts[row] if counts else 1 for row in rows], dtype=np.float64)
    template = _template_of(task)
    return PromptBatch(
        tokens=padded,
        last=lengths - 1,
        target=labels[[y for _, y in rows]],
        labels=labels,
        weight=share / len(prompts),
        template=np.array([template.get(row, -1) for row in rows], dtype=np.int64),
    )


def label_tokens(task: LabelCopy, tokenizer: Any) -> Int64[ndarray, "A"]:
    """Token id of each label with its leading space.

    Raises:
        UserError: a label is not exactly one token, is unknown to the tokenizer, or shares its token with another.
    """
    ids: dict[int, str] = {}
    for label in task.labels:
        tokens = tokenizer.encode(f" {label}", add_special_tokens=False)
        if len(tokens) != 1:
            raise UserError(
                f"label {f' {label}'!r} is {len(tokens)} tokens of this tokenizer, but the task needs exactly one; "
                "choose other labels, such as single capital letters, or a tokenizer with a larger vocabulary"
            )
        if tokens[0] == tokenizer.unk_token_id or tokens[0] in ids:
            other = ids.get(tokens[0], "the unknown token")
            raise UserError(
                f"label {f' {label}'!r} has the token of {other!r} in this tokenizer, so that the two cannot be told "
                "apart; choose other labels"
            )
        ids[tokens[0]] = label
    return np.array(list(ids), dtype=np.int64)


def _encode(tokenizer: Any, text: str, label: str, label_token: int) -> list[int]:
    """Tokens of a prompt, after a check that the label's token follows them in the encoding of the whole text."""
    tokens: list[int] = tokenizer.encode(text)
    if not tokens or tokenizer.encode(f"{text} {label}") != [*tokens, label_token]:
        raise UserError(
            f"prompt {text!r} followed by {f' {label}'!r} is not encoded as the prompt's tokens and then the label's "
            "one token (a tokenizer that appends an end token, or merges across the space, does this); use the "
            "tokenizer of a causal language model, or other templates"
        )
    return tokens


def _template_of(task: LabelCopy) -> dict[tuple[str, int], int]:
    """Template index of every prompt that the task can draw."""
    return {
        (prompt_text(task, template=t, label=y, filler=f), y): t
        for t, y, f in product(range(len(task.templates)), range(len(task.labels)), range(max(1, len(task.fillers))))
    }
