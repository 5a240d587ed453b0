"""`vgrad readings`: P_gap of a checkpoint, or of each of a ladder, under any reading of the paper's §6."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.experiments.command_line import Json, Quiet, as_json

HELP = "repeatable; default the first"


def _option(name: str, help_: str) -> Any:
    return typer.Option(f"--{name}", help=f"{help_} {HELP}.")


def readings(
    path: Annotated[Path, typer.Argument(help="A checkpoint folder, or a ladder (a folder of step<number> folders).")],
    reward: Annotated[list[str] | None, _option("reward", "R: sampled, probability, log_probability;")] = None,
    advantage: Annotated[
        list[str] | None, _option("advantage", "Â: standardised, group_mean, leave_one_out, detached;")
    ] = None,
    gap: Annotated[list[str] | None, _option("gap", "Λ: conditional, per_sample, group_mean;")] = None,
    headroom: Annotated[list[str] | None, _option("headroom", "H over: samples, prompts, pooled;")] = None,
    vocabulary: Annotated[list[str] | None, _option("vocabulary", "Tokens sampled: full, labels;")] = None,
    state: Annotated[list[str] | None, _option("state", "h: head (after the norm), last, first;")] = None,
    group: Annotated[list[int] | None, typer.Option(help="n inside Λ; repeatable. Default 8.", min=2)] = None,
    alpha: Annotated[list[float] | None, typer.Option(help="α of H; repeatable. Default 1.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every option of each choice that is not given.")] = False,
    prompts: Annotated[int, typer.Option(help="Evaluation prompts drawn.", min=1)] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the group-mean readings.", min=0)] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Say which reading of the paper each option is.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """P_gap under each reading of the paper's §6, from one pass over the prompts; no RL step.

    Examples: `vgrad readings runs/embedded/ladder/step001000 --gap conditional --gap per_sample` ·
    `vgrad readings runs/embedded/ladder --all --json` · `vgrad readings PATH --headroom prompts --alpha 5 --explain`
    """
    from itertools import product

    from vgrad_lab.checkpoints.reading_options import CHOICES, Reading, ReadingSettings, distinct
    from vgrad_lab.checkpoints.readings import as_rows

    given = {"reward": reward, "advantage": advantage, "gap": gap, "headroom": headroom, "vocabulary": vocabulary,
             "state": state}  # fmt: skip
    chosen = {name: _chosen(name, values, all_) for name, values in given.items()}
    groups, alphas = tuple(dict.fromkeys(group or (8,))), tuple(dict.fromkeys(alpha or (1.0,)))
    settings = ReadingSettings(states=chosen["state"], groups=groups, alphas=alphas, prompts=prompts)
    wanted = distinct(Reading(*choice) for choice in product(*chosen.values(), groups, alphas))
    records = _measured(path, settings, seed=seed, progress=not (quiet or json_))
    done = [(name, as_rows(found, wanted)) for name, found, _ in records if found is not None]
    failed = [(name, why) for name, _, why in records if why is not None]
    if json_:
        lists = [{"checkpoint": name, "readings": rows} for name, rows in done]
        typer.echo(as_json([*lists, *({"checkpoint": name, "error": why} for name, why in failed)]))
    else:
        typer.echo(describe(done, failed, CHOICES if explain else None))
    if failed:
        raise typer.Exit(1)


def _chosen(name: str, values: list[str] | None, all_: bool) -> tuple[Any, ...]:
    """The options given, each once; else all, or the first."""
    from vgrad_lab.checkpoints.reading_options import CHOICES, known_option

    options = tuple(CHOICES[name])
    picked = tuple(values) if values else options if all_ else options[:1]
    return tuple(known_option(name, option) for option in dict.fromkeys(picked))


def _measured(path: Path, settings: Any, *, seed: int, progress: bool) -> list[tuple[str, Any, str | None]]:
    """(name, readings, None) of each checkpoint, or (name, None, error); a single checkpoint raises its UserError."""
    from tqdm.auto import tqdm

    from vgrad_lab.checkpoints.errors import UserError
    from vgrad_lab.checkpoints.loading import load_checkpoint
    from vgrad_lab.checkpoints.readings import measure_readings
    from vgrad_lab.checkpoints.tasks import LabelCopy
    from vgrad_lab.experiments.one_checkpoint import rungs_of

    found: list[tuple[str, Any, str | None]] = []
    rungs = rungs_of(path)
    for rung in tqdm(rungs, unit="checkpoint", disable=None if progress else True):
        try:
            measured = measure_readings(load_checkpoint(rung.path), LabelCopy(), settings, seed=seed)
            found.append((rung.name, measured, None))
        except UserError as error:
            if len(rungs) == 1:
                raise
            found.append((rung.name, None, str(error)))
    return found


def describe(
    done: Sequence[tuple[str, list[dict[str, Any]]]],
    failed: Sequence[tuple[str, str]],
    sentences: dict[str, dict[str, str]] | None = None,
) -> str:
    """One checkpoint: its readings with Σ, Λ, H and P_gap. A ladder: who is chosen by each reading, and from where."""
    lines = []
    if len(done) == 1:
        lines.append(f"{'reading':<76}{'Σ':>11}{'Λ':>11}{'H':>11}{'P_gap':>12}")
        for r in done[0][1]:
            numbers = "".join(f"{r[key]:>11.4g}" for key in ("signal_value", "gap_value", "headroom_value"))
            lines.append(f"{_name(r):<76}{numbers}{r['impact_score']:>12.4g}")
    elif done:
        lines.append(f"{'reading':<76}{'N*, argmax':>14}{'largest':>12}{'smallest':>12}{'Σ < Λ':>8}")
        for same in zip(*(rows for _, rows in done), strict=True):
            scores = [r["impact_score"] for r in same]
            best, negative = scores.index(max(scores)), sum(r["signal_value"] < r["gap_value"] for r in same)
            flat = max(scores) == min(scores)
            star = "none: all equal" if flat else done[best][0]
            lines.append(
                f"{_name(same[0]):<76}{star:>14}{max(scores):>12.4g}{min(scores):>12.4g}{negative:>5}/{len(same)}"
            )
    for name, options in (sentences or {}).items():
        lines += ["", f"{name}:", *(f"  {option}: {text}" for option, text in options.items())]
    return "\n".join([*lines, *(f"{name} FAILED: {why}" for name, why in failed)])


def _name(row: dict[str, Any]) -> str:
    fields = ("reward", "advantage", "gap", "headroom", "vocabulary", "state")
    return f"{' · '.join(row[f] for f in fields)} · n {row['group']} · α {row['alpha']:g}"
