"""Names of rungs as the repository has them: listed, matched, never made up."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import nearest
from vgrad_lab.checkpoints.hub_client import ask, client
from vgrad_lab.checkpoints.specs import LadderSpec

MAIN = "main"


@dataclass(frozen=True, order=True)
class NamedRung:
    """A rung that exists.

    Args:
        step: pretraining step.
        name: branch, tag or sub-folder.
        commit: 40 hex digits; empty in a folder.
        tokens: tokens seen in billions, where the name says so.
    """

    step: int
    name: str
    commit: str = ""
    tokens: int | None = None


@dataclass(frozen=True)
class Ladder:
    """The rungs of a specification that exist, by step.

    Args:
        spec: what was asked for.
        rungs: at least one, steps ascending.
        main: commit of main; None in a folder or where there is no main.
        endpoint: address of the hub; None for the default.
    """

    spec: LadderSpec
    rungs: tuple[NamedRung, ...]
    main: str | None = None
    endpoint: str | None = None


def resolve(spec: LadderSpec, *, endpoint: str | None = None) -> Ladder:
    """All rungs of a ladder: branches and tags (or sub-folders) whose whole name matches the pattern.

    Raises:
        UserError: the repository or folder is not there, nothing in it matches (with the nearest names), or two names
            have one step.
    """
    refs = _folder_refs(spec) if spec.repository is None else _hub_refs(spec, endpoint)
    rungs = sorted(
        NamedRung(int(match["step"]), name, commit, _tokens(match.groupdict()))
        for name, commit in refs.items()
        if (match := spec.regex.fullmatch(name)) and (match["step"] or "").isdecimal()
    )
    if not rungs:
        raise UserError(f"no rung in {spec.place} matches {spec.pattern!r}: {nearest('step1000', refs)}")
    for one, other in pairwise(rungs):
        if one.step == other.step:
            raise UserError(
                f"{one.name} and {other.name} in {spec.place} are both step {one.step}; narrow the pattern "
                f"{spec.pattern!r} so that each step is one rung"
            )
    return Ladder(spec, tuple(rungs), refs.get(MAIN), endpoint)


def _hub_refs(spec: LadderSpec, endpoint: str | None) -> dict[str, str]:
    """Commit of each tag and branch; a branch goes before a tag of its name."""
    hub = client(endpoint)
    refs = ask(lambda: hub.list_repo_refs(spec.repository), about=spec.place)
    return {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}


def _folder_refs(spec: LadderSpec) -> dict[str, str]:
    folder = spec.folder
    if folder is None or not folder.is_dir():
        raise UserError(f"no ladder at {folder}; give a folder with one sub-folder per checkpoint")
    return {path.name: "" for path in sorted(folder.iterdir()) if path.is_dir()}


def _tokens(groups: dict[str, str | None]) -> int | None:
    tokens = groups.get("tokens")
    return int(tokens) if tokens and tokens.isdecimal() else None


def find(ladder: Ladder, wanted: str | int) -> NamedRung:
    """The rung with a step or a name. Raises UserError with the nearest real ones when there is none."""
    text = str(wanted).strip()
    for rung in ladder.rungs:
        if text == rung.name or (text.isdecimal() and int(text) == rung.step):
            return rung
    raise UserError(f"no rung {text} in {ladder.spec.place}: the nearest are {', '.join(_near(ladder, text))}")


def _near(ladder: Ladder, text: str) -> list[str]:
    """Up to three names: by step where the wrong name holds one, else by spelling."""
    match = ladder.spec.regex.fullmatch(text)
    digits = text if text.isdecimal() else (match["step"] or "") if match else ""
    if digits.isdecimal():
        closest = sorted(ladder.rungs, key=lambda rung: (abs(rung.step - int(digits)), rung.step))
        return [rung.name for rung in closest[:3]]
    names = [rung.name for rung in ladder.rungs]
    return get_close_matches(text, names, n=3, cutoff=0.0)


def select(
    ladder: Ladder,
    wanted: Iterable[str | int] = (),
    *,
    start: int | None = None,
    stop: int | None = None,
    every: int | None = None,
) -> Ladder:
    """Part of a ladder.

    Args:
        ladder: all of it.
        wanted: steps or names; without any, and without a range, the specification's own steps (all if it has none).
        start, stop: first and last step, both inclusive.
        every: keep steps that it divides.

    Raises:
        UserError: a wanted rung does not exist, `every` is not positive, names and a range are both given, or
            nothing is left.
    """
    wanted = tuple(wanted)
    ranged = (start, stop, every) != (None, None, None)
    if wanted and ranged:
        raise UserError("rungs by name and a range were both given; choose one")
    if every is not None and every <= 0:
        raise UserError(f"every is {every}; give a positive number of steps")
    if not wanted and not ranged:
        wanted = ladder.spec.steps
    if wanted:
        return replace(ladder, rungs=tuple(sorted({find(ladder, one) for one in wanted})))
    low, high = start if start is not None else 0, stop if stop is not None else ladder.rungs[-1].step
    kept = tuple(r for r in ladder.rungs if low <= r.step <= high and r.step % (every or 1) == 0)
    if not kept:
        steps = f"{ladder.rungs[0].step} to {ladder.rungs[-1].step}"
        raise UserError(
            f"no rung of {ladder.spec.place} from {low} to {high} every {every or 1}; its steps go from {steps}"
        )
    return replace(ladder, rungs=kept)
