"""The YAML file of `vgrad sweep`: which ladders, task, protocols, seeds and stages, and where the work runs."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import nearest
from vgrad_lab.checkpoints.forecast import plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.schedule import Policy
from vgrad_lab.checkpoints.sweep import Unit, make_units
from vgrad_lab.checkpoints.tasks import LabelCopy

KEYS = ("ladders", "out", "task", "stages", "seeds", "measures", "protocols", "forecast", "executor", "policy")
STAGES = ("measure", "rl", "forecast")


@dataclass(frozen=True)
class Where:
    """Where units run.

    Args:
        kind: local, ray or submitit.
        workers: units at a time; with gpus, one per GPU of this machine instead (local).
        threads: threads, and cores asked for, of each unit.
        gpus: GPUs asked for by each unit: 0 or 1.
        address: of a running Ray cluster; none starts one on this machine.
        cluster: slurm or local (submitit).
        partition: of SLURM.
        minutes: limit of one unit (submitit).
        memory_gb: memory of one unit (submitit).
    """

    kind: Literal["local", "ray", "submitit"] = "local"
    workers: int = 2
    threads: int = 1
    gpus: int = 0
    address: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    minutes: int = 60
    memory_gb: int = 16

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "minutes", "memory_gb"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.gpus not in (0, 1):
            raise UserError(f"gpus is {self.gpus}; a unit takes 0 or 1")


@dataclass(frozen=True)
class SweepConfig:
    """A sweep: units come from ladders, task, stages, protocols and seeds; the rest says where and when they run."""

    ladders: tuple[Path, ...]
    out: Path
    task: LabelCopy
    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    measures: MeasureSettings
    protocols: tuple[GrpoSettings, ...]
    forecast: ForecastSettings
    executor: Where
    policy: Policy


def read_config(path: Path) -> SweepConfig:
    """A sweep from a YAML file; relative paths lie beside the file.

    Raises UserError for a file that cannot be read, an unknown key (with the nearest), a wrong type or value.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; give a YAML file that describes a sweep") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())})") from error
    values = _known(given, KEYS, str(path))
    if "ladders" not in values:
        raise UserError(f"{path} has no ladders; add one such as ladders: [runs/embedded/ladder]")
    ladders = tuple(path.parent / p for p in _several(values["ladders"], str, f"{path}: ladders"))
    stages = tuple(_several(values.get("stages", STAGES[:2]), str, f"{path}: stages"))
    for stage in stages:
        if stage not in STAGES:
            raise UserError(f"{path}: stages has {stage!r}; {nearest(stage, list(STAGES))}")
    seeds = tuple(_several(values.get("seeds", [0]), int, f"{path}: seeds"))
    if not ladders or not stages or not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: ladders, stages and seeds each need an entry; seeds are different and not negative")
    given_protocols = values.get("protocols", [{}])
    if not isinstance(given_protocols, list) or not given_protocols:
        raise UserError(f"{path}: protocols is {given_protocols!r}; expected a list of mappings")
    protocols = tuple(_protocol(p, f"{path}: protocols") for p in given_protocols)
    if len(set(protocols)) < len(protocols):
        raise UserError(f"{path}: protocols holds one protocol twice; leave one of them out")
    return SweepConfig(
        ladders=ladders,
        out=path.parent / str(values.get("out", f"runs/{path.stem}")),
        task=_filled(LabelCopy, values.get("task", {}), f"{path}: task"),
        stages=stages,
        seeds=seeds,
        measures=_filled(MeasureSettings, values.get("measures", {}), f"{path}: measures"),
        protocols=protocols,
        forecast=_filled(ForecastSettings, values.get("forecast", {}), f"{path}: forecast"),
        executor=_filled(Where, values.get("executor", {}), f"{path}: executor"),
        policy=_filled(Policy, values.get("policy", {}), f"{path}: policy"),
    )


def units_of(config: SweepConfig) -> list[Unit]:
    """Units of a sweep, in the order of the ladders. Raises UserError for a ladder that is none, or equal rungs."""
    rungs = [rung for folder in config.ladders for rung in list_rungs(folder)]
    return make_units(
        rungs,
        config.task,
        measures=config.measures if "measure" in config.stages else None,
        rl=config.protocols if "rl" in config.stages else (),
        seeds=config.seeds,
        forecasts=[plan_of(p, config.forecast) for p in config.protocols] if "forecast" in config.stages else (),
    )


def _known(given: object, known: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise UserError(f"{where} holds {type(given).__name__}; expected a mapping with the keys {', '.join(known)}")
    for key in given:
        if key not in known:
            raise UserError(f"{where} has the unknown key {key!r}: {nearest(str(key), list(known))}")
    return dict(given)


def _several(given: object, kind: type, where: str) -> list[Any]:
    """A list of a kind, or one of it alone."""
    found = given if isinstance(given, list | tuple) else [given]
    if not all(type(value) is kind for value in found):
        raise UserError(f"{where} is {given!r}; expected a list of {kind.__name__}")
    return list(found)


def _protocol(given: object, where: str) -> GrpoSettings:
    """A protocol; learning rate and clip default to those of its optimiser."""
    values = _known(given, [f.name for f in fields(GrpoSettings)], where)
    default = default_settings(str(values.get("optimizer", "adamw")))
    rate, clip = default.learning_rate, default.clip
    return _filled(GrpoSettings, {"learning_rate": rate, "clip": clip, **values}, where)


def _filled(cls: type[Any], given: object, where: str) -> Any:
    """A dataclass from a mapping, its types checked; what it refuses itself is said with the place."""
    assert is_dataclass(cls)
    values, hints = _known(given, [f.name for f in fields(cls)], where), get_type_hints(cls)
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    for name in missing:
        if name not in values:
            raise UserError(f"{where} has no {name}; add it")
    try:
        return cls(**{name: _typed(value, hints[name], f"{where}: {name}") for name, value in values.items()})
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from error


def _typed(value: Any, hint: Any, where: str) -> Any:
    """A value as its annotation asks: lists become tuples, whole numbers floats; YAML reads 1e-4 as text."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        origin = get_origin(kind)
        if origin is Literal and value in get_args(kind):
            return value
        if origin is tuple and isinstance(value, list):
            return tuple(_typed(item, get_args(kind)[0], where) for item in value)
        if kind is type(None) and value is None:
            return None
        if kind is float and type(value) in (int, float, str):
            try:
                return float(value)
            except ValueError:
                continue
        if isinstance(kind, type) and type(value) is kind:
            return value
    words = [
        " or ".join(map(str, get_args(k))) if get_origin(k) is Literal else getattr(k, "__name__", str(k))
        for k in kinds
    ]
    raise UserError(f"{where} is {value!r}; expected {' or '.join(words)}")
