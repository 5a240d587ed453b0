"""Measure, forecast, or run GRPO from, one checkpoint or every rung of a ladder."""

from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vgrad_lab.checkpoints.atomic import require_writable
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import ForecastPlan
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.ladders import RUNG_NAME, Rung, is_checkpoint, list_rungs
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.sampled_tasks import Task
from vgrad_lab.checkpoints.store import export, publish, read_records
from vgrad_lab.checkpoints.sweep import Unit, make_units, run_unit
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.experiments.sampled_lines import is_sampled, sampled_measures


def rungs_of(path: Path) -> tuple[Rung, ...]:
    """The rungs of a ladder, or the one checkpoint that the path is (or should have been)."""
    if path.is_dir() and not is_checkpoint(path) and any(RUNG_NAME.fullmatch(p.name) for p in path.iterdir()):
        return list_rungs(path)
    match = RUNG_NAME.fullmatch(path.name)
    return (Rung(step=int(match[1]) if match else 0, path=path, name=path.name or str(path)),)


def run(
    path: Path,
    *,
    task: Task | None = None,
    measures: MeasureSettings | None = None,
    rl: GrpoSettings | None = None,
    seeds: tuple[int, ...] = (0,),
    forecast: ForecastPlan | None = None,
    out: Path | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Records of the units; with ``out`` they are published there as they come, and finished ones are not repeated.

    task: label copying unless given.

    Raises UserError when there is nothing that could be loaded: for a single checkpoint its own error is the error.
    """
    units = make_units(
        rungs_of(path),
        LabelCopy() if task is None else task,
        measures=measures,
        rl=() if rl is None else (rl,),
        seeds=seeds,
        forecasts=() if forecast is None else (forecast,),
    )
    if out is not None:
        require_writable(out)
    known = read_records(out) if out is not None else {}
    bar = tqdm(units, unit="unit", disable=None if progress else True)
    records = [_one(unit, known.get(unit.id), out) for unit in bar]
    if out is not None:
        export(out)
    if len(units) == 1 and records[0]["status"] != "done":
        raise UserError(records[0]["error"])
    return records


def _one(unit: Unit, known: dict[str, Any] | None, out: Path | None) -> dict[str, Any]:
    if known is not None and known["status"] == "done":
        return known
    record = run_unit(unit)
    if out is not None:
        publish(out, record)
    return record


MEASURES = (
    ("R_before, mean p(y*|q) over the full vocabulary", "reward_before"),
    ("R restricted to the labels", "reward_restricted"),
    ("label mass", "label_mass"),
    ("pass@k", "pass_at_k"),
    ("entropy, nats", "entropy"),
    ("Σ, signal", "signal"),
    ("Λ, conditional mean of the costate", "costate_gap_conditional"),
    ("Λ, single costates", "costate_gap_per_sample"),
    ("Λ, group-mean costates (sampled)", "costate_gap_group_mean"),
    ("E⟨λ̂,G⟩, alignment", "alignment"),
    ("H_α within prompts", "headroom_within"),
    ("H_α between prompts", "headroom_between"),
    ("P_gap = (Σ−Λ conditional)·H within", "impact_score"),
    ("P_gap with Λ of single costates", "impact_score_per_sample"),
    ("‖∇J‖₁", "gradient_l1"),
    ("‖∇J‖²", "gradient_l2_squared"),
)


def _failures(records: list[dict[str, Any]]) -> list[str]:
    return [
        f"{r['checkpoint']['name']} seed {r['seed']} FAILED: {r['error']}" for r in records if r["status"] != "done"
    ]


def describe_measures(records: list[dict[str, Any]]) -> str:
    """One column per checkpoint up to four, else one line per checkpoint with the main numbers."""
    done = [r for r in records if r["status"] == "done"]
    if done and is_sampled(done[0]):
        return "\n".join(sampled_measures(done) + _failures(records))
    lines: list[str] = []
    if done and len(done) <= 4:
        options = done[0]["result"]
        lines.append(
            f"state: head input, post final norm · α = {options['alpha']:g} · group of {options['group_size']}"
        )
        lines.append(" " * 50 + "".join(f"{r['checkpoint']['name']:>14}" for r in done))
        lines += [f"{text:<50}" + "".join(f"{r['result'][key]:>14.5g}" for r in done) for text, key in MEASURES]
    elif done:
        keys = ("reward_before", "signal", "costate_gap_conditional", "headroom_within", "impact_score", "gradient_l1")
        lines.append(f"{'checkpoint':<14}" + "".join(f"{key:>26}" for key in keys))
        lines += [
            f"{r['checkpoint']['name']:<14}" + "".join(f"{r['result'][key]:>26.5g}" for key in keys) for r in done
        ]
    return "\n".join(lines + _failures(records))


def _with_error(value: float, error: float | None, *, sign: str = "") -> str:
    """A number, and its standard error where it has one."""
    return f"{value:{sign}.4f}" + ("" if error is None else f" ± {error:.4f}")


def describe_rl(records: list[dict[str, Any]]) -> str:
    """One line per checkpoint and seed: reward before and after each budget."""
    lines = []
    for r in records:
        if r["status"] == "done":
            x = r["result"]
            sampled = "reward_standard_error" in x
            errors = x["reward_standard_error"] if sampled else [None] * len(x["budgets"])
            values = zip(x["budgets"], x["reward_after"], errors, strict=True)
            after = "  ".join(f"{k}: {_with_error(v, e)}" for k, v, e in values)
            before = _with_error(x["reward_before"], x.get("reward_before_standard_error"))
            gain = _with_error(x["gain_mean"], x.get("gain_standard_error"), sign="+")
            name = f"{r['checkpoint']['name']} seed {r['seed']}"
            lines.append(f"{name}  R before {before}  after {after}  mean gain {gain}")
            if sampled:
                lines.append(
                    f"  {x['evaluation_samples']} answers to each of {x['evaluation_prompts']} prompts; of the groups "
                    f"trained on {x['dead_groups'][-1]:.0%} had equal rewards; mean answer "
                    f"{x['answer_length_before']:.1f} tokens before, {x['answer_length_after'][-1]:.1f} after"
                )
    return "\n".join(lines + _failures(records))
