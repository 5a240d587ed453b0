"""Answers and checks of tutorial 08."""

import math
from typing import Any

import numpy as np
from _exercises import Exercise, Wrong, asked, number

from vgrad_lab.impact import grpo_scale

GROUP = 8


def examine_share(answer: Any) -> str:
    share = number(answer)
    if math.isclose(share, 0.5, rel_tol=1e-6):
        raise Wrong("that is μ/(μ + σ); mean and deviation add as squares in √(μ² + σ²)")
    if not math.isclose(share, math.sqrt(0.5), rel_tol=5e-4):
        raise Wrong(f"μ/√(μ² + σ²) with σ = μ is not {share:g}")
    return "1/√2: noise as large as the mean costs 29 % of the step, whatever the learning rate."


def coin_speed(p, p0):
    """κ(p) p(1 − p) over κ(p₀) p₀(1 − p₀)."""
    now, first = (grpo_scale(np.array([x]), GROUP)[0] * x * (1 - x) for x in (p, p0))
    return now / first


def examine_speed(answer: Any) -> str:
    for p0, p in ((0.1, 0.4), (0.3, 0.95), (0.5, 0.5)):
        given, right = float(np.squeeze(asked(answer, p, p0))), coin_speed(p, p0)
        plain = p * (1 - p) / (p0 * (1 - p0))
        if math.isclose(given, right, rel_tol=1e-6):
            continue
        if math.isclose(given, plain, rel_tol=1e-6):
            raise Wrong("that is the true gradient's speed; GRPO's expected gradient has a factor κ(p) in front")
        if math.isclose(given, right * plain, rel_tol=1e-6):
            raise Wrong("that is the speed of p; the parameter moves by the gradient once, p by dp/dθ more")
        if math.isclose(given, 1 / right, rel_tol=1e-6):
            raise Wrong("upside down: now over first")
        raise Wrong(f"from p₀ = {p0} to p = {p} it is {right:.4f}, yours gives {given:.4f}")
    return "Early it speeds up (p(1 − p) grows), near p = 1 it stops: the forecast bends where the run does."


def examine_smallest(answer: Any) -> str:
    n = number(answer)
    if n != int(n):
        raise Wrong(f"a whole number was asked for, this is {n:g}")
    if n < 1 or math.ceil(0.9 * (n + 1) - 1e-9) > n:
        raise Wrong(
            f"for n = {n:g} it is error number {math.ceil(0.9 * (n + 1) - 1e-9)} of {n:g}, which does not exist"
        )
    if n > 9:
        raise Wrong(f"{n:g} will do, but so will fewer")
    return "⌈0.9·10⌉ = 9 of 9: the largest error. Fewer runs cannot support a 90 % band."


EXERCISES = (
    Exercise(
        "what share of a full step does Adam make where σ = μ?",
        "Put σ = μ into μ/√(μ² + σ²).",
        math.sqrt(0.5),
        "μ/√(2μ²) = 1/√2 = 0.7071.",
        examine_share,
    ),
    Exercise(
        "write the parameter's speed at p relative to the first update's at p₀.",
        "The parameter moves by η·κ(p)·dp/dθ, and dp/dθ = p(1 − p). Divide by the same at p₀.",
        coin_speed,
        "κ(p)·p(1 − p) at p over the same at p₀; the learning rate cancels.",
        examine_speed,
    ),
    Exercise(
        "from how many calibration errors on is there a 90 % width?",
        "Need ⌈0.9 (n + 1)⌉ ≤ n. Try n = 8 and n = 9.",
        9,
        "0.9·(n + 1) ≤ n exactly when n ≥ 9.",
        examine_smallest,
    ),
)
