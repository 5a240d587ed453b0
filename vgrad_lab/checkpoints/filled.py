"""Frozen dataclasses from YAML: unknown keys named with the nearest one, types checked, each mistake one line."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import nearest


def read_yaml(path: Path, what: str) -> object:
    """What a YAML file holds. Raises UserError, naming what was expected, for one that cannot be read or is none."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; give a YAML file that describes {what}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())})") from error


def known(given: object, keys: Sequence[str], where: str) -> dict[str, Any]:
    """A mapping with known keys alone. Raises UserError otherwise."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} holds {type(given).__name__}; expected a mapping with the keys {', '.join(keys)}")
    for key in given:
        if key not in keys:
            raise UserError(f"{where} has the unknown key {key!r}: {nearest(str(key), list(keys))}")
    return dict(given)


def several(given: object, kind: type, where: str) -> list[Any]:
    """A list of a kind, or one of it alone."""
    found = given if isinstance(given, list | tuple) else [given]
    if not all(type(value) is kind for value in found):
        raise UserError(f"{where} is {given!r}; expected a list of {kind.__name__}")
    return list(found)


def filled(cls: type[Any], given: object, where: str) -> Any:
    """A dataclass from a mapping, its types checked; what it refuses itself is said with the place."""
    assert is_dataclass(cls)
    values, hints = known(given, [f.name for f in fields(cls)], where), get_type_hints(cls)
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
