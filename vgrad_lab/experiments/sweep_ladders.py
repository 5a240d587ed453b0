"""The ladders of a sweep: folders taken where they lie, and ladders of a hub walked rung by rung."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.filled import filled, known
from vgrad_lab.checkpoints.findings import check_kinds

if TYPE_CHECKING:
    from vgrad_lab.checkpoints.audit import Audit

KEYS = ("ladder", "rungs", "from", "to", "every", "allow", "cache", "keep")


@dataclass(frozen=True)
class HubLadder:
    """A ladder as the commands of `vgrad ladder` take it.

    Args:
        ladder: a built-in name, a repository, a YAML file, or a folder.
        rungs: steps or names; without them and without a range, the ladder's own.
        start, stop, every: a range of steps, both ends included.
        allow: kinds of findings of the audit to let pass.
        cache: where rungs are fetched to; the default cache without it.
        keep: evict nothing.
    """

    ladder: str
    rungs: tuple[int | str, ...] = ()
    start: int | None = None
    stop: int | None = None
    every: int | None = None
    allow: tuple[str, ...] = ()
    cache: str | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        check_kinds(self.allow)


def read_ladders(given: object, home: Path, where: str) -> tuple[Path | HubLadder, ...]:
    """Entries of `ladders`: a folder beside the file, a name as `vgrad ladder` takes it, or a mapping with options.

    Raises UserError for an entry that is neither, an unknown key or a wrong type.
    """
    entries = given if isinstance(given, list) else [given]
    if not entries:
        raise UserError(f"{where} is empty; add a folder or the name of a ladder")
    return tuple(_entry(one, home, where) for one in entries)


def _entry(given: object, home: Path, where: str) -> Path | HubLadder:
    if isinstance(given, str):
        return HubLadder(_beside(given, home)) if _is_name(given) and not (home / given).is_dir() else home / given
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is {given!r}; expected a list of str, or of mappings with the keys {', '.join(KEYS)}")
    values = known(given, KEYS, where)
    for key, name in (("from", "start"), ("to", "stop")):
        if key in values:
            values[name] = values.pop(key)
    for key in ("rungs", "allow"):
        if key in values and not isinstance(values[key], list):
            values[key] = [values[key]]
    made: HubLadder = filled(HubLadder, values, where)
    places = {"ladder": _beside(made.ladder, home)} | ({"cache": str(home / made.cache)} if made.cache else {})
    return HubLadder(**{**made.__dict__, **places})


def _is_name(text: str) -> bool:
    """Whether a text names a ladder rather than a folder."""
    from vgrad_lab.checkpoints.known_ladders import KNOWN

    return text in KNOWN or text in {s.repository for s in KNOWN.values()} or text.endswith((".yaml", ".yml"))


def _beside(name: str, home: Path) -> str:
    """A file or folder beside the configuration, or the name as it is."""
    return str(home / name) if name.endswith((".yaml", ".yml")) or (home / name).is_dir() else name


def check_folder(folder: Path) -> None:
    """Raise UserError with the nearest names where an entry is neither a folder nor a ladder."""
    from vgrad_lab.checkpoints.known_ladders import find_spec

    if not folder.exists():
        try:
            find_spec(folder.name)
        except UserError as error:
            raise UserError(f"ladders has {folder.name!r}, but there is no folder {folder}, and {error}") from error


def audited(entry: HubLadder, *, progress: bool = True) -> "Audit":
    """The rungs of an entry, looked at through metadata. Raises UserError when the audit refuses them."""
    from vgrad_lab.checkpoints.audit import audit, require
    from vgrad_lab.checkpoints.known_ladders import find_spec
    from vgrad_lab.checkpoints.resolve import resolve, select

    every = select(resolve(find_spec(entry.ladder)), entry.rungs, start=entry.start, stop=entry.stop, every=entry.every)
    result = audit(every, allow=entry.allow, progress=progress)
    try:
        require(result)
    except UserError as error:
        kinds = ", ".join(dict.fromkeys(one.kind for one in result.refused))
        hint = f" (in a sweep: {{ladder: {entry.ladder}, allow: [{kinds}]}})" if kinds else ""
        raise UserError(f"{error}{hint}") from error
    return result


def cache_of(entry: HubLadder) -> Path:
    """Folder that the rungs of an entry are fetched to."""
    from vgrad_lab.checkpoints.cache import default_cache

    return Path(entry.cache).expanduser() if entry.cache else default_cache()
