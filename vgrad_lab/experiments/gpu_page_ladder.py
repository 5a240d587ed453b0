"""Sections of the GPU page on the ladder that was pretrained there: predictors, credit flow, differences of runs."""

from collections.abc import Sequence
from typing import Any

from vgrad_lab.checkpoints.report.predictors import NAN
from vgrad_lab.checkpoints.report.style import signed
from vgrad_lab.experiments.forecast_page import table

Json = dict[str, Any]
AGAIN = ("same run twice", "bfloat16 run", "other seed")
MEASURED = {"bfloat16 measure": "bfloat16 products", "measure on the CPU": "on the CPU"}
"""Comparison -> its column's head."""


def short(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, or a dash."""
    return "–" if value is None else f"{value:.{digits}g}"


def correlation(value: float | None) -> str:
    """A correlation, or "undefined"."""
    return signed(NAN if value is None else value)


def ladder_sections(result: Json) -> list[str]:
    """Parts b, c and d of a results file; a part without results is left out here (its row says why)."""
    found = {name: result["parts"].get(name, {}).get("result") or {} for name in "bcd"}
    return [*_pretraining(found["b"]), *_studies(found["b"]), *_credit(found["c"]), *_differences(found["d"])]


def _pretraining(part: Json) -> list[str]:
    made = part.get("pretraining")
    if not made:
        return []
    speed = made.get("tokens_per_second")
    fast = f" at {short(speed)} tokens/s, {short(made.get('share_of_matrix_rate'))} of the bf16 rate" if speed else ""
    rewards = {row["step"]: row["reward_before"] for row in part.get("checkpoints", [])}
    rows = [
        [f"{step}", short(train), short(validation), short(rewards.get(step))]
        for step, train, validation in made["losses"]
    ]
    texts = ", ".join(f"{name} {about}" for name, about in part["texts"].items())
    return [
        f"### A ladder of {made['parameters']:,} parameters, pretrained there", "",
        f"{made['tokens']:,} tokens{fast}, products in {part['ladder']['precision']}, seed {part['ladder']['seed']}. "
        f"Text: docstrings of {texts}; sha256 of the corpus `{made['corpus_sha256'][:16]}`. Records as in the embedded "
        "ladder.", "",
        *table(("step", "training loss, nats", "validation loss", "R before RL"), rows), "",
    ]  # fmt: skip


def _studies(part: Json) -> list[str]:
    lines: list[str] = []
    for study in part.get("studies", []):
        rate = study.get("learning_rate")
        lines += [f"#### RL with {study['optimizer']}, learning rate {short(rate)}", ""]
        if rate is not None:
            lines += [
                f"The rate was chosen before any RL by the forecast of `{study['chosen_at']}`: the largest of "
                f"{', '.join(short(t['learning_rate']) for t in study['tried'])} at which it ends at most half way "
                "from R before to 1.", "",
            ]  # fmt: skip
        lines += [*_scores(study, part.get("seeds", [])), *_left(study)]
    return lines


def _scores(study: Json, seeds: Sequence[int]) -> list[str]:
    if "predictors" not in study:
        return ["Fewer than three rungs are finished: nothing to correlate.", ""]
    f = study["forecast"]
    rows = [
        [row["predictor"], correlation(row["spearman"]) + _interval(row), correlation(row["partial"]),
         correlation(row.get("spearman_after")), short(row["regret"]),
         correlation(row["r_squared"]) if row["kind"] == "forecast" else "–"]
        for row in study["predictors"]
    ]  # fmt: skip
    head = ("predictor", "Spearman with the gain [90 %]", "given R", "with R_after", "regret", "R²")
    return [
        f"{len(study['rungs'])} rungs, {len(seeds)} RL seeds, one pretraining seed; intervals over the rungs. "
        f"`forecast` is the whole curve, without any RL step: mean absolute error {short(f['error'])}, "
        f"{short(f['coverage'])} of the runs' points in its 90 % band.", "",
        *table(head, rows), "",
    ]  # fmt: skip


def _interval(row: Json) -> str:
    return f" [{correlation(row['low'])}, {correlation(row['high'])}]" if row.get("low") is not None else ""


def _left(study: Json) -> list[str]:
    lines = [f"- failed: `{text}`" for text in study.get("failed", [])]
    if study.get("left"):
        lines.append(f"- not reached in time: {', '.join(study['left'])}")
    return [*lines, ""] if lines else []


def _credit(part: Json) -> list[str]:
    """Crossing share and flow over that of lag 0, at five layers."""
    rungs = part.get("rungs", [])
    done = [r for r in rungs if "error" not in r]
    if not rungs:
        return []
    lines = [
        "### Credit flow in that ladder", "",
        f"{part['sequences']} sequences of {part['length']} tokens ({part['text']}), tokens fixed. Norms of "
        "∂z̃_k/∂h_t^(l), z̃ the centred logit of the true token at k. *Crossing*: the share of the squared norms that "
        "reaches earlier positions, all of it through attention; at the last layer it is 0 ([S13](ledger.md#s13)).", "",
    ]  # fmt: skip
    if done:
        layers = _layers(len(done[0]["crossing"]))
        rows = [[r["rung"], *(short(r["crossing"][i]) for i in layers)] for r in done]
        lines += ["Crossing, by layer:", "", *table(("rung", *(f"layer {i}" for i in layers)), rows), ""]
        for r in done[:: max(1, len(done) - 1)]:
            rows = [[f"{i}", *(short(x / r["flow"][i][0], 2) for x in r["flow"][i])] for i in layers]
            head = ("layer", *(f"lag {lag}" for lag in r["lags"]))
            lines += [f"Flow over that of lag 0, `{r['rung']}`:", "", *table(head, rows), ""]
        error = max(r["relative_standard_error"] for r in done)
        lines += [
            f"Norms of whole Jacobians ∂h_k^(L)/∂h_t^(l) from {part['probes']} random directions: median relative "
            f"standard error at most {short(error, 2)}; root mean square of (estimate − exact)/error on one row: "
            f"{', '.join(short(r['root_mean_square_z'], 2) for r in done)}.", "",
        ]  # fmt: skip
    return lines + [f"- `{r['rung']}`: {r['error']}" for r in rungs if "error" in r]


def _layers(count: int) -> list[int]:
    """Five layers from the embedding to the last, or all of fewer."""
    return sorted({round(i * (count - 1) / 4) for i in range(5)})


def _differences(part: Json) -> list[str]:
    if not any(name in part for name in (*AGAIN, *MEASURED)):
        return []
    rows = []
    for name in AGAIN:
        row = part.get(name, {})
        cells = ("reward_difference", "largest_weight_difference", "weight_difference_over_way")
        rows.append([name, *(short(row.get(cell), 2) for cell in cells), row.get("error", "")])
    lines = [
        "### How far equal things differ", "",
        f"RL from `{part['rung']}` of {part['ladder']}, {part['updates']} updates, AdamW at {part['learning_rate']:g}, "
        "against a float32 run with the same seed. Over the way: ‖θ − θ'‖/‖θ − θ₀‖.", "",
        *table(("", "largest difference of a reward", "of a weight", "over the way", "error"), rows), "",
    ]  # fmt: skip
    there = {title: part[name] for name, title in MEASURED.items() if name in part and "error" not in part[name]}
    if there:
        names = list(next(iter(there.values())))
        rows = [[name, *(short(row[name], 2) for row in there.values())] for name in names]
        lines += ["Relative change of a measure:", "", *table(("quantity", *there), rows), ""]
    return lines + [f"- {name}: {part[name]['error']}" for name in MEASURED if "error" in part.get(name, {})]
