"""Specifications of ladders: which names are rungs, how many tokens a step saw, what the models should be."""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.filled import known
from vgrad_lab.checkpoints.findings import check_kinds

FOLDER_PATTERN = r"step(?P<step>\d+)"
"""Sub-folders that `save_pretrained` loops and this package write."""
MOST_STEPS = 100_000
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Architecture:
    """What config.json of each rung should say; None where it is not known, and then the rungs must agree.

    Args:
        name: class in `transformers`, such as `Olmo2ForCausalLM`.
        layers: number of blocks.
        width: hidden size.
        rope_base: base θ of the rotary embedding.
    """

    name: str | None = None
    layers: int | None = None
    width: int | None = None
    rope_base: float | None = None


@dataclass(frozen=True)
class LadderSpec:
    r"""A ladder of checkpoints on a hub or in a folder.

    Args:
        name: what `vgrad ladder` calls it.
        pattern: regular expression for the whole name of a rung (branch, tag or sub-folder); the group `step` is the
            pretraining step, an optional group `tokens` the tokens seen, in billions.
        repository: `owner/name` on the hub; None for a folder.
        folder: folder with one sub-folder per rung; None for a repository.
        tokens_per_step: tokens of one optimizer step; None if it is not known.
        architecture: what the models should be.
        main_step: step whose weights main holds, where main is the end of the ladder itself; None otherwise.
        steps: steps taken when none are asked for; empty for all.
        allow: kinds of findings that the audit lets pass.
        note: what a reader should know.

    Raises UserError for a pattern that is no regular expression or lacks the group, for no or two places, for a
    number that is not positive, and for an unknown kind.
    """

    name: str
    pattern: str
    repository: str | None = None
    folder: Path | None = None
    tokens_per_step: int | None = None
    architecture: Architecture = Architecture()
    main_step: int | None = None
    steps: tuple[int, ...] = ()
    allow: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise UserError(
                f"ladder {self.name}: pattern {self.pattern!r} is no regular expression: {error}"
            ) from error
        if "step" not in groups:
            raise UserError(
                f"ladder {self.name}: pattern {self.pattern!r} has no group named step; write (?P<step>\\d+) for it"
            )
        if (self.repository is None) == (self.folder is None):
            raise UserError(f"ladder {self.name}: give a repository or a folder, one of them")
        if self.repository is not None and not REPOSITORY.fullmatch(self.repository):
            raise UserError(f"ladder {self.name}: repository is {self.repository!r}; expected owner/name")
        if self.tokens_per_step is not None and self.tokens_per_step <= 0:
            raise UserError(f"ladder {self.name}: tokens_per_step is {self.tokens_per_step}; give a positive number")
        check_kinds(self.allow)

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern)

    @property
    def place(self) -> str:
        """Repository or folder, for messages."""
        return self.repository or str(self.folder)


def folder_spec(folder: Path) -> LadderSpec:
    """The ladder of a local folder with `step<number>` sub-folders."""
    return LadderSpec(name=folder.name or str(folder), pattern=FOLDER_PATTERN, folder=folder)


def read_spec(path: Path) -> LadderSpec:
    """A ladder from a YAML file whose keys are the arguments of `LadderSpec`; a relative folder lies beside the file.

    `architecture` is a mapping with class, layers, width and rope_base; `steps` a list, or a mapping with from, to
    and every. Raises UserError for a file that cannot be read, an unknown key (with the nearest), a wrong type.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; give a YAML file that describes a ladder") from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path} is no YAML ({line}); put a pattern between single quotes") from error
    names = [field.name for field in fields(LadderSpec)]
    values = {"name": path.stem, **known(given, names, f"{path}")}
    if "pattern" not in values and "folder" in values:
        values["pattern"] = FOLDER_PATTERN
    _check_types(values, path)
    if "folder" in values:
        values["folder"] = path.parent / values["folder"]
    if "architecture" in values:
        parts = known(values["architecture"], ["class", "layers", "width", "rope_base"], f"{path}: architecture")
        _check_types(parts, path)
        values["architecture"] = _architecture(parts, path)
    values["steps"] = _steps(values.get("steps", ()), path)
    values["allow"] = tuple(str(kind) for kind in values.get("allow", ()))
    if "pattern" not in values:
        raise UserError(rf"{path} has no pattern; add one such as pattern: 'step(?P<step>\d+)'")
    return LadderSpec(**values)


_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,), "pattern": (str,), "repository": (str,), "folder": (str,), "note": (str,), "class": (str,),
    "tokens_per_step": (int,), "main_step": (int,), "layers": (int,), "width": (int,), "rope_base": (int, float),
    "architecture": (dict,), "steps": (list, dict), "allow": (list,),
}  # fmt: skip


def _check_types(values: dict[str, Any], path: Path) -> None:
    for key, value in values.items():
        if not isinstance(value, _TYPES[key]) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in _TYPES[key])
            raise UserError(f"{path}: {key} is {value!r}; expected {expected}")


def _architecture(parts: dict[str, Any], path: Path) -> Architecture:
    for key in ("layers", "width", "rope_base"):
        if not 0 < parts.get(key, 1) < float("inf"):
            raise UserError(f"{path}: {key} is {parts[key]}; give a positive number")
    base = float(parts["rope_base"]) if "rope_base" in parts else None
    return Architecture(parts.get("class"), parts.get("layers"), parts.get("width"), base)


def _steps(given: Any, path: Path) -> tuple[int, ...]:
    """Steps of a list, or of a range with both ends."""
    if isinstance(given, dict):
        given = known(given, ["from", "to", "every"], f"{path}: steps")
        if set(given) != {"from", "to", "every"} or not all(type(v) is int for v in given.values()):
            raise UserError(f"{path}: steps is {given}; expected the whole numbers from, to and every")
        if given["every"] <= 0:
            raise UserError(f"{path}: steps has every: {given['every']}; give a positive number")
        given = range(given["from"], given["to"] + 1, given["every"])
        if len(given) > MOST_STEPS:
            raise UserError(f"{path}: steps are {len(given)} numbers; give at most {MOST_STEPS}")
    if not all(type(step) is int and step >= 0 for step in given):
        raise UserError(f"{path}: steps is {list(given)}; expected whole numbers that are not negative")
    return tuple(given)
