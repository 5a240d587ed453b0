"""Answers and checks of tutorial 10."""

import math
from typing import Any

from _exercises import Exercise, Wrong, asked, number

PARAMETERS = 7_298_617_344
GIGABYTES = 16 * PARAMETERS / 1e9
MINUTES = (20 * 120 + 60) / 60


def examine_gigabytes(answer: Any) -> str:
    given = number(answer)
    if math.isclose(given, GIGABYTES, rel_tol=2e-3):
        return "Four float32 numbers a weight: 117 GB. Activations come on top, so a card of 120 GB is too small."
    for bytes_each, words in (
        (4, "that is the weights alone"),
        (8, "weights and gradient; AdamW keeps two moments more"),
        (12, "AdamW keeps two moments, m and v"),
        (2, "float32 takes four bytes a number"),
    ):
        if math.isclose(given, bytes_each * PARAMETERS / 1e9, rel_tol=2e-3):
            raise Wrong(words)
    raise Wrong(f"16 bytes times the parameters, over 10⁹, is not {given:g}")


def bend(flops, bandwidth):
    """6 N t/flops = 12 N/bandwidth at t = 2 flops/bandwidth."""
    return 2 * flops / bandwidth


def examine_bend(answer: Any) -> str:
    for flops, bandwidth in ((100e12, 1e12), (400e12, 2.5e12), (7.0, 2.0)):
        given, right = number(asked(answer, flops, bandwidth)), bend(flops, bandwidth)
        if math.isclose(given, right, rel_tol=1e-6):
            continue
        if math.isclose(given, right / 4, rel_tol=1e-6) or math.isclose(given, right * 4, rel_tol=1e-6):
            raise Wrong("12 bytes over 6 operations: the 2 belongs above")
        if math.isclose(given, 1 / right, rel_tol=1e-6) or math.isclose(given, 2 * bandwidth / flops, rel_tol=1e-6):
            raise Wrong("upside down: a faster unit needs more tokens to be busy")
        raise Wrong(f"at {flops:g} operations/s and {bandwidth:g} bytes/s it is {right:g}, yours gives {given:g}")
    return "The size of the model falls out: 200 tokens at 100 TFLOP/s and 1 TB/s, whatever the model."


def examine_minutes(answer: Any) -> str:
    given = number(answer)
    if math.isclose(given, MINUTES, rel_tol=1e-3):
        return "Twenty downloads of two minutes, and the last minute of work: the line is the bottleneck."
    if math.isclose(given, 20 * 180 / 60, rel_tol=1e-3):
        raise Wrong("that is one thing after the other; the next rung is fetched while this one computes")
    if math.isclose(given, 40, rel_tol=1e-3):
        raise Wrong("the downloads are done then, the work on the last rung is not")
    if math.isclose(given, 22, rel_tol=1e-3):
        raise Wrong("the work hides behind the downloads, not the other way round: a download takes longer")
    raise Wrong(f"a download takes 6e9/50e6 = 120 s, the work 60 s; {given:g} minutes do not follow")


EXERCISES = (
    Exercise(
        "how many GB do weights, gradient and moments of 7B take in float32?",
        "θ, g, m and v: four numbers a weight, four bytes a number.",
        GIGABYTES,
        "4·4·7,298,617,344 bytes = 116.8 GB.",
        examine_gigabytes,
    ),
    Exercise(
        "from how many tokens on does the card compute rather than wait?",
        "Put 6·N·t/flops equal to 12·N/bandwidth and solve for t.",
        bend,
        "t = 2·flops/bandwidth.",
        examine_bend,
    ),
    Exercise(
        "after how many minutes is the last rung done?",
        "Which is longer, a download or the work? The longer one sets the pace; the other adds its last turn.",
        MINUTES,
        "20 downloads of 2 minutes and 1 minute of work behind the last: 41.",
        examine_minutes,
    ),
)
