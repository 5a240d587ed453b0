"""`vgrad reproduce`: the paper's experiment, on the embedded ladder or on one of real checkpoints."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments.checkpoint_commands import TaskFile
from vgrad_lab.experiments.command_line import Json, Quiet, as_json
from vgrad_lab.experiments.fetch_commands import Cache
from vgrad_lab.experiments.ladder_commands import Allow, Every, From, Rungs, To, chosen_ladder

Out = Annotated[Path | None, typer.Option(help="Run folder; an unfinished run in it continues. Default: runs/NAME.")]
Tiny = Annotated[bool, typer.Option("--tiny", help="The same path in under a minute, with toy sizes.")]
FirstSeed = Annotated[int, typer.Option(help="Seed of the pretraining; with --ladder, first seed of RL.", min=0)]
Workers = Annotated[int, typer.Option(help="Processes on the CPU, one thread each.", min=1)]
LadderName = Annotated[
    str | None, typer.Option(help="A ladder instead of the embedded one: built-in name, owner/name, YAML, folder.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Evict no rung after use.")]
Dtype = Annotated[str, typer.Option(help="Of the backbone's matrix products: float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Gpus = Annotated[int | None, typer.Option(help="GPUs, a process for each; default all.", min=1)]
Optimizers = Annotated[list[str] | None, typer.Option("--optimizer", help="adamw or sgd; repeatable. Default adamw.")]
Rate = Annotated[
    float | None, typer.Option(help="Learning rate; default 1e-4 (adamw; 1e-5 from 1e8 parameters on), 1e-2 (sgd).")
]
Seeds = Annotated[int, typer.Option(help="Number of RL seeds.", min=1)]
Forecast = Annotated[bool, typer.Option(help="Forecast each run of RL before it.")]
Recompute = Annotated[bool, typer.Option("--recompute", help="Compute layers again in the backward pass: less memory.")]
States = Annotated[str, typer.Option(help="Where AdamW's moments lie: device, or host for a model too large.")]


def reproduce(
    out: Out = None,
    tiny: Tiny = False,
    seed: FirstSeed = 0,
    workers: Workers = 2,
    ladder: LadderName = None,
    rung: Rungs = None,
    start: From = None,
    stop: To = None,
    every: Every = None,
    allow: Allow = None,
    cache: Cache = None,
    keep: Keep = False,
    dtype: Dtype = "float32",
    device: Device = "auto",
    gpus: Gpus = None,
    task: TaskFile = None,
    optimizer: Optimizers = None,
    lr: Rate = None,
    seeds: Seeds = 1,
    forecast: Forecast = True,
    recompute: Recompute = False,
    states: States = "device",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure every rung of a ladder, forecast and run GRPO from it, compare prediction and gain, write the report.

    Without --ladder the embedded ladder is pretrained first. A second call continues where the first stopped and never
    repeats finished work.

    Examples: `vgrad reproduce` · `vgrad reproduce --tiny --out /tmp/tiny` · `vgrad reproduce --ladder olmo2-1b-paper`
    """
    asked = (rung, start, stop, every, allow, cache, keep, gpus, task, optimizer, lr, recompute)
    if ladder is None:
        if any(asked) or (dtype, device, seeds, forecast, states) != ("float32", "auto", 1, True, "device"):
            raise UserError("an option of a real ladder was given without one; name it, as in --ladder olmo2-1b-paper")
        result = _embedded(out or Path("runs/embedded"), tiny, seed, workers, not (quiet or json_))
    else:
        audited = _audited(chosen_ladder(ladder, rung, start, stop, every), allow, not (quiet or json_))
        options: dict[str, Any] = {
            "optimizers": optimizer or ["adamw"],
            "rate": lr,
            "seeds": tuple(range(seed, seed + seeds)),
        }
        options |= {"precision": dtype, "recompute": recompute, "states": states, "forecast": forecast, "tiny": tiny}
        places = {"device": device, "gpus": gpus, "workers": workers}
        result = _real(out, audited, task, options, places, cache, keep, not (quiet or json_))
    _finish(result, json_)


def _finish(result: dict[str, Any], json_: bool) -> None:
    """Say what was done; exit code 1 when a unit failed."""
    from vgrad_lab.experiments import embedded_ladder

    typer.echo(as_json(result) if json_ else embedded_ladder.describe(result))
    raise typer.Exit(int(result["failed"] > 0))


def _embedded(out: Path, tiny: bool, seed: int, workers: int, progress: bool) -> dict[str, Any]:
    from vgrad_lab.experiments import embedded_ladder

    settings = embedded_ladder.TINY if tiny else embedded_ladder.SETTINGS
    return embedded_ladder.run(out, embedded_ladder.with_seed(settings, seed), workers=workers, progress=progress)


def _audited(ladder: Any, allow: list[str] | None, progress: bool) -> Any:
    from vgrad_lab.checkpoints.audit import audit, require

    result = audit(ladder, allow=allow or (), progress=progress)
    require(result)
    return result


def _real(
    out: Path | None,
    audited: Any,
    task: Path | None,
    options: dict[str, Any],
    places: dict[str, Any],
    cache: Path | None,
    keep: bool,
    progress: bool,
) -> dict[str, Any]:
    from vgrad_lab.checkpoints.cache import default_cache
    from vgrad_lab.checkpoints.precision import known_precision
    from vgrad_lab.checkpoints.task_files import read_task
    from vgrad_lab.checkpoints.tasks import LabelCopy
    from vgrad_lab.experiments import ladder_reproduction as real

    known_precision(options["precision"])
    if options["states"] not in ("device", "host"):
        raise UserError(f"states is {options['states']!r}; choose device or host")
    place = real.choose_place(**places)
    given = LabelCopy() if task is None else read_task(task)
    protocol = real.make_protocol(given, **options, parameters=real.parameters_of(audited))
    folder = out or Path("runs") / audited.ladder.spec.name.replace("/", "--")
    return real.run(folder, audited, protocol, place, cache=cache or default_cache(), keep=keep, progress=progress)
