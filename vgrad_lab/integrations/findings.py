"""What can be wrong with a GRPO run, one check each: a function of the log that returns a finding or None.

A check raises ``NotLogged`` when the log does not hold what it reads, so that silence is told apart from health.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

DEAD_SHARE = 0.5
"""Mean share of dead groups, over the second half of a run, that is too many."""
VANISHED = 1e-3
"""Credit of the lowest layer over that of the highest below which it has vanished; states' scales differ by less."""
COLLAPSED = 0.1
"""Entropy, in nats and as a share of its start, below which sampling has collapsed."""
ALWAYS = 0.9
"""Share of steps that counts as always."""
RATIO_CLIPPED = 0.2
"""Share of tokens with a clipped probability ratio that is too many."""
SOLVED = 0.95
"""Success rate from which there is little left to learn."""
FALL = 4.0
"""Standard errors by which the end of a run must lie below its best stretch; the best of many stretches is at stake."""
RISE = 2.0
"""Standard errors by which the last quarter must lie above the first to count as a rise."""


class NotLogged(Exception):
    """The log does not hold, or not often enough, what a check reads."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its name, what it is, the numbers that show it, their steps, and what to do."""

    name: str
    what: str
    evidence: str
    steps: tuple[int, int]
    remedy: str


@dataclass(frozen=True)
class Log:
    """The records of a run and the settings it was last started with."""

    records: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    settings: dict[str, Any]


Series = tuple[Int[ndarray, " K"], Float[ndarray, " K"]]


def series(log: Log, name: str, *, least: int) -> Series:
    """Steps and values of one number; raises NotLogged with fewer than ``least`` values."""
    rows = [(r["step"], r[name]) for r in log.steps if _number(r.get(name))]
    if len(rows) < least:
        raise NotLogged(f"{name} was logged in {len(rows)} steps, {least} are needed")
    return np.array([step for step, _ in rows]), np.array([float(value) for _, value in rows])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def outcome(log: Log, *, least: int) -> tuple[str, Series]:
    """The run's success rate or, for rewards that are not binary, its mean reward."""
    try:
        return "success rate", series(log, "success", least=least)
    except NotLogged:
        return "reward", series(log, "reward", least=least)


def solved(log: Log) -> bool:
    """Whether the last fifth of the run succeeds nearly always."""
    try:
        _, value = series(log, "success", least=1)
    except NotLogged:
        return False
    return float(value[-_stretch(len(value)) :].mean()) >= SOLVED


def _stretch(n: int) -> int:
    return min(n, max(5, n // 5))


def _noise(value: Float[ndarray, " K"]) -> float:
    """Standard deviation of one step's value around the trend, from the differences of neighbours."""
    return float(np.sqrt(np.mean(np.diff(value) ** 2) / 2))


def check_dead_groups(log: Log) -> Finding | None:
    """Groups with equal rewards have no advantage and no gradient."""
    step, dead = series(log, "dead_groups", least=5)
    half = slice(len(dead) // 2, None)
    share = float(dead[half].mean())
    if share < DEAD_SHARE or solved(log):
        return None
    kinds = {}
    for name in ("all_fail", "all_success"):
        try:
            kinds[name] = float(series(log, name, least=5)[1][half].mean())
        except NotLogged:
            continue
    split = (
        f": all failed in {kinds['all_fail']:.0%}, all succeeded in {kinds['all_success']:.0%}"
        if len(kinds) == 2
        else ""
    )
    if kinds.get("all_success", 0.0) > kinds.get("all_fail", 0.0):
        remedy = "leave solved prompts out, add harder ones, or sample until groups are mixed"
    else:
        remedy = (
            "use larger groups (num_generations) or easier prompts, give partial credit, or start from a checkpoint "
            "that succeeds now and then (pass@k > 0)"
        )
    evidence = f"{share:.0%} of the groups had equal rewards{split}"
    what = "Most groups teach nothing: all their rewards are equal, so every advantage is zero."
    return Finding("dead_groups", what, evidence, _span(step[half]), remedy)


def check_vanishing_credit(log: Log) -> Finding | None:
    """Credit that does not reach the lower layers."""
    ratios = []
    for record in log.steps:
        layers = record.get("costate_norm")
        norms = [v for v in layers if _number(v)] if isinstance(layers, list) else []
        if len(norms) >= 2 and norms[-1] > 0:
            ratios.append((record["step"], norms[0] / norms[-1]))
    if len(ratios) < 3:
        raise NotLogged(f"costate norms of two layers were logged in {len(ratios)} steps with credit, 3 are needed")
    ratio = float(np.median([r for _, r in ratios]))
    if ratio >= VANISHED:
        return None
    return Finding(
        "vanishing_credit",
        "Credit vanishes on the way down: the lowest layers get next to none of the costate of the highest.",
        f"median ‖λ̂‖ of the lowest layer is {ratio:.1e} of that of the highest",
        (ratios[0][0], ratios[-1][0]),
        "check the residual stream (post-norm, tiny residual scale, saturated gates, float16 underflow); "
        "train in bfloat16 or float32",
    )


def check_step_size(log: Log) -> Finding | None:
    """A step below the gradient-gap threshold raises the log-odds of success; a lasting fall shows one above it."""
    name, (step, value) = outcome(log, least=20)
    width, noise = _stretch(len(value)), _noise(value)
    mean = np.convolve(value, np.full(width, 1 / width), mode="valid")
    best, last = int(mean[: len(mean) - width + 1].argmax()), float(mean[-1])
    fall = float(mean[best]) - last
    if fall <= 0.1 * abs(float(mean[best])) or fall <= FALL * noise * np.sqrt(2 / width):
        return None
    rates = [r["learning_rate"] for r in log.steps if _number(r.get("learning_rate"))]
    rate = f"; learning rate up to {max(rates):g}" if rates else ""
    return Finding(
        "step_too_large",
        f"The {name} falls after its best stretch. Below the gradient-gap threshold each step raises the log-odds of "
        "success on average, so the step is too large for what the gradient knows (or the prompts got harder).",
        f"{name} {mean[best]:.3g} at steps {step[best]}-{step[best + width - 1]}, then {last:.3g}{rate}",
        (int(step[best]), int(step[-1])),
        "lower the learning rate (by 3 to 10), warm up, clip the gradient's norm, or use more prompts per step; with "
        "dynamic sampling the step does not shrink as success nears 1, so decay the rate there (ledger G06)",
    )


def check_entropy(log: Log) -> Finding | None:
    """Sampling without spread finds nothing new."""
    step, entropy = series(log, "entropy", least=10)
    width = _stretch(len(entropy))
    first, last = float(entropy[:width].mean()), float(entropy[-width:].mean())
    if last >= COLLAPSED * min(1.0, first) or solved(log):
        return None
    return Finding(
        "entropy_collapse",
        "Entropy has collapsed before the task was solved: samples of a group are alike, and nothing new is tried.",
        f"entropy per token from {first:.3g} to {last:.3g} nats",
        _span(step),
        "raise epsilon_high (clip higher), add an entropy bonus or a KL term to the start, lower the learning rate, or "
        "sample at a higher temperature",
    )


def check_flat(log: Log) -> Finding | None:
    """A reward that does not rise."""
    name, (step, value) = outcome(log, least=20)
    quarter = len(value) // 4
    first, last = value[:quarter], value[-quarter:]
    error = _noise(value) * float(np.sqrt(2 / quarter))
    rise = float(last.mean() - first.mean())
    if rise > RISE * error or solved(log) or check_step_size(log) is not None:
        return None
    return Finding(
        "reward_flat",
        f"The {name} does not rise.",
        f"first quarter {first.mean():.3g}, last quarter {last.mean():.3g}; a rise above {RISE * error:.2g} would show",
        _span(step),
        "look at dead groups and clipping first; then raise the learning rate (to 3 times, watching the success rate), "
        "use more prompts per step, or train longer",
    )


def check_gradient_clipping(log: Log) -> Finding | None:
    """A gradient that is clipped at each step: the step's length no longer depends on it."""
    limit = log.settings.get("max_grad_norm")
    if limit is None or not _number(limit) or limit <= 0:
        return None
    step, norm = series(log, "grad_norm", least=5)
    share = float((norm > limit).mean())
    if share < ALWAYS:
        return None
    return Finding(
        "clipping_always",
        "The gradient's norm is clipped at nearly every step, so the step ignores how much there is to learn.",
        f"norm above max_grad_norm = {limit:g} in {share:.0%} of {len(norm)} steps, median {np.median(norm):.3g}",
        _span(step),
        "raise max_grad_norm above the median norm and lower the learning rate by the same factor (with Adam, clipping "
        "matters little: lower the rate only if the reward is unstable)",
    )


def check_ratio_clipping(log: Log) -> Finding | None:
    """Probability ratios outside the clip range: answers too old for the policy."""
    step, share = series(log, "clip_ratio/region_mean", least=5)
    often = float((share > RATIO_CLIPPED).mean())
    if often < ALWAYS:
        return None
    return Finding(
        "ratio_clipping_always",
        "Many probability ratios are clipped at nearly every step: their tokens get no gradient.",
        f"{share.mean():.0%} of tokens on average, above {RATIO_CLIPPED:.0%} in {often:.0%} of steps",
        _span(step),
        "use fewer updates per batch of answers (num_iterations, steps_per_generation), or a lower learning rate",
    )


def check_finite(log: Log) -> Finding | None:
    """Numbers that were not finite; the log holds null for them."""
    names = ("grad_norm", "costate_norm_head", "reward", "entropy")
    broken = [r["step"] for r in log.steps if any(name in r and r[name] is None for name in names)]
    if not broken:
        return None
    return Finding(
        "not_finite",
        "The gradient or the costate is not finite.",
        f"in {len(broken)} of {len(log.steps)} steps, first at step {broken[0]}",
        (broken[0], broken[-1]),
        "train in bfloat16 or float32, lower the learning rate, look for NaN in the rewards",
    )


def check_callback(log: Log) -> Finding | None:
    """Whether the callback measured to the end."""
    stopped = [r for r in log.records if r["kind"] in ("start", "disabled")]
    if not stopped or stopped[-1]["kind"] == "start":
        return None
    last = log.steps[-1]["step"]
    return Finding(
        "measuring_stopped",
        "The callback met an error and stopped measuring; the run went on without it.",
        f"after step {last}: {stopped[-1].get('reason')}",
        (last, last),
        "compare the versions of TRL and vgrad_lab, and report the error",
    )


CHECKS: dict[str, Callable[[Log], Finding | None]] = {
    "measuring": check_callback,
    "finite numbers": check_finite,
    "dead groups": check_dead_groups,
    "credit in early layers": check_vanishing_credit,
    "step size": check_step_size,
    "entropy": check_entropy,
    "reward rises": check_flat,
    "gradient clipping": check_gradient_clipping,
    "ratio clipping": check_ratio_clipping,
}


def _span(step: Int[ndarray, " K"]) -> tuple[int, int]:
    return int(step[0]), int(step[-1])
