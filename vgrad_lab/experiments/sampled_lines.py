"""Measures of sampled answers as lines of text: value ± standard error, or "undefined (why)"."""

from typing import Any

HEADS = (
    ("R_before", "reward_before"),
    ("within-prompt variance of R", "success_variance"),
    ("pass@k", "pass_at_k"),
    ("share of dead groups", "dead_groups"),
    ("κ, GRPO's scale", "grpo_scale"),
    ("entropy, nats per token", "entropy"),
    ("entropy of the answer, nats", "answer_entropy"),
    ("answer length, tokens", "answer_length"),
    ("share of answers that ended", "ended"),
    ("H_α within prompts", "headroom_within"),
    ("H_α between prompts", "headroom_between"),
)
PLACE = (
    ("Σ, signal", "signal"),
    ("E⟨λ̂,G⟩, alignment", "alignment"),
    ("Λ, conditional mean of the costate", "costate_gap_conditional"),
    ("E‖E[λ̂|q] − G‖²", "costate_bias_squared"),
    ("Λ, single costates", "costate_gap_per_sample"),
    ("P_gap = (Σ−Λ conditional)·H within", "impact_score"),
)
MAIN = ("reward_before", "signal", "costate_gap_conditional", "headroom_within", "impact_score")
WIDE, COLUMN = 42, 26


def is_sampled(record: dict[str, Any]) -> bool:
    """Whether a finished record holds measures of sampled answers."""
    return bool(record["result"].get("kind") == "sampled")


def number(measure: dict[str, Any]) -> str:
    """Value ± standard error of one measure, or "undefined"."""
    if measure["value"] is None:
        return "undefined"
    error = measure["standard_error"]
    return f"{measure['value']:.5g}" + (f" ± {error:.2g}" if error is not None else " ± undefined")


def sampled_measures(done: list[dict[str, Any]]) -> list[str]:
    """Columns for up to four checkpoints, a line each for more; every reason for what is undefined once."""
    if not done:
        return []
    options = done[0]["result"]
    lines = [
        f"{options['prompts']} prompts, {options['answers']} answers each at temperature {options['temperature']:g} · "
        f"α = {options['alpha']:g} · group of {options['group_size']} ({options['baseline']})"
    ]
    why: list[str] = []
    if len(done) > 4:
        lines.append(f"state: {options['place']}")
        lines.append(f"{'checkpoint':<14}" + "".join(f"{key:>{COLUMN}}" for key in MAIN))
        cells = [(f"{r['checkpoint']['name']:<14}", [r["result"][key] for key in MAIN]) for r in done]
        return lines + [name + _cells(row, why) for name, row in cells] + _reasons(why)
    lines.append(" " * WIDE + "".join(f"{r['checkpoint']['name']:>{COLUMN}}" for r in done))
    lines += [f"{text:<{WIDE}}" + _cells([r["result"][key] for r in done], why) for text, key in HEADS]
    used = "".join(f"{r['result']['contributing']:>{COLUMN}}" for r in done)
    lines.append(f"{'prompts with a say in Σ, Λ, alignment':<{WIDE}}{used}")
    for place in options["places"]:
        lines.append(f"state: {place}")
        rows = ((text, [r["result"]["places"][place][key] for r in done]) for text, key in PLACE)
        lines += [f"  {text:<{WIDE - 2}}" + _cells(row, why) for text, row in rows]
    return lines + _reasons(why)


def _cells(measures: list[dict[str, Any]], why: list[str]) -> str:
    """Numbers in columns; one undefined alone in its line says why, several are numbered for `_reasons`."""
    if len(measures) == 1 and measures[0]["value"] is None:
        return f"  undefined ({measures[0]['reason']})"
    return "".join(f"{_marked(measure, why):>{COLUMN}}" for measure in measures)


def _marked(measure: dict[str, Any], why: list[str]) -> str:
    reason = measure.get("reason", "")
    if not reason:
        return number(measure)
    if reason not in why:
        why.append(reason)
    return f"{number(measure)} [{why.index(reason) + 1}]"


def _reasons(why: list[str]) -> list[str]:
    return [f"[{i}] undefined ({reason})" for i, reason in enumerate(why, start=1)]
