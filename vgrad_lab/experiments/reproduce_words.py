"""The words of docs/reproduce.md: what the paper says, what stands for it here, and verdicts from intervals."""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
STUDY = "`python -m vgrad_lab.experiments.readings_study RUN…`"
RUN = "`vgrad reproduce --seed S --out runs/seedS`"
INTRODUCTION = (
    "§6 of the paper measures P_gap = (Σ − Λ)·H_α at 20 pretraining checkpoints of OLMo-2 1B, runs GRPO from each, and "
    "reports two rank correlations. Its code, α, group size, learning rate, prompts and layer are not given, and some "
    "words can be read in more than one way. Here every reading is a named option, all are measured on the same "
    "checkpoints, and every figure and number is listed with what it is here.",
)
READ = (
    "Numbers are means over ladders, in brackets 90 % bootstrap intervals over ladders; each ladder is a "
    "pretraining run of its own. With so few ladders the intervals are rough. *Reproduced*: the paper's number lies in "
    "the interval, or the claim holds; *not testable here*: it needs what this project has not run."
)
PROTOCOL = (
    (
        "§6: OLMo-2 1B, pretraining steps 50k to 1M in increments of 50k (20 checkpoints)", RUN,
        "OLMo-2 architecture with half a million parameters, pretrained here; {checkpoints}",
        "not testable here: no 1B checkpoint was run. Everything below is about the small ladders",
    ),
    (
        "§6: label copying, label in {A, B, C, D}, answer in one token", RUN,
        "8 templates, 4 labels, one token", "reproduced as a task; the paper's templates are not given",
    ),
    (
        "§6: reward R = p(y*\\|q)", RUN,
        "1[a = y*] of a sampled token, whose mean is p(y*\\|q)",
        "as written it cannot be run: a reward that the group shares has advantage 0 ([S27](ledger.md#s27))",
    ),
    (
        "§6: budgets K ∈ {10, 20, 25, 30}, mean response over them", RUN, "K = {budgets}, one run per seed",
        "reproduced as a protocol; learning rate, group size and batch are not given",
    ),
)  # fmt: skip
FOUNDATIONS = {
    "S17": "Fig. 2",
    "S22": "Figs. 1, 3–5: Σ − Λ as usable signal",
    "S23": "Figs. 1, 3–5: Λ over single costates",
    "S24": "Figs. 1, 3–5: H_α",
    "S25": "Fig. 3, right: where H_α is small",
    "S26": "Figs. 1, 4, 5; eq. 31",
    "S27": "the reward of all of them",
}
"""Ledger id -> the figures that rest on it."""
LIMITS = (
    "- Four ladders of half a million parameters and one task: nothing here says what OLMo-2 1B does.",
    "- RL used groups of 8 with the standard deviation, AdamW at 1e-4 and SGD at 1e-2; n inside Λ is a reading, the RL "
    "is the same for all.",
    "- One answer token, so t has one value and the costate's direction is never wrong: λ̂'s mean is parallel to G. "
    "Longer answers could tell readings apart that are equal here.",
    "- The named readings are what the text allows; the authors' code may do something else.",
)


def judged(e: Json, paper: float) -> str:
    """A correlation against the paper's number, in words: reproduced, weaker, stronger, none, reversed or undefined."""
    if e["value"] is None:
        return "undefined"
    low, high = (e["value"], e["value"]) if e["low"] is None else (e["low"], e["high"])
    if low <= paper <= high:
        return "reproduced"
    if low > paper:
        return "reproduced, stronger"
    if high < 0:
        return "not reproduced: reversed"
    return "not reproduced: weaker" if low > 0 else "not reproduced: no correlation established"


def compared(combined: Json, alone: Sequence[Json]) -> str:
    """Whether the combined predictor's mean lies above both others."""
    values = [combined["value"], *(e["value"] for e in alone)]
    if any(v is None for v in values):
        return "undefined"
    first, *others = values
    if first > max(others):
        return "reproduced"
    return f"not reproduced: {['R_before', 'P_gap'][others.index(max(others))]} alone is better"
