"""What can be wrong with a ladder: the kinds an audit knows, and which of them stop it."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from vgrad_lab.checkpoints.errors import UserError

REFUSED = {
    "duplicate": "two rungs hold identical weights",
    "equal to main": "a rung holds the weights of main, the final model (main_step names a rung that should)",
    "missing shard": "files of the weights are missing",
    "no weights": "a rung has no weights that can be read",
    "bin only": "weights only as .bin, which can run code when loaded",
    "architecture": "config.json is not that of the ladder",
    "rope": "the RoPE base is not that of the ladder",
    "python file": "the repository carries code, which is never fetched and never run",
    "unreadable": "the metadata of a rung cannot be read",
}
"""Kinds that stop a ladder until they are allowed by name."""

REMARKS = {
    "two sets": "shards and a single file of weights lie side by side; the shards are taken",
    "size": "the weights of a rung have another size than those of most",
    "token count": "the tokens in a name are not step × tokens per step",
    "main is last": "the last rung is main, as this ladder says",
}
"""Kinds that are told and stop nothing."""


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Args:
        kind: a key of REFUSED or REMARKS.
        rungs: names of the rungs that it concerns, by step.
        detail: one line: what was found, what was expected.
    """

    kind: str
    rungs: tuple[str, ...]
    detail: str

    @property
    def refuses(self) -> bool:
        """Whether it stops the ladder unless it is allowed."""
        return self.kind in REFUSED


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds, each once, in order. Raises UserError for one that cannot be allowed."""
    given = tuple(dict.fromkeys(kinds))
    for kind in given:
        if kind not in REFUSED:
            raise UserError(f"cannot allow {kind!r}: {nearest(kind, REFUSED)}")
    return given


def nearest(name: str, names: Iterable[str], *, count: int = 3) -> str:
    """Clause with the real names most like a wrong one, or with all (at most ten) when none is like it."""
    names = list(names)
    close = get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"the nearest {'name is' if len(close) == 1 else 'names are'} {', '.join(close)}"
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"there is {shown}" if names else "there are none"
