"""An audit of a ladder through metadata alone: what would make its rungs lie, before a byte of weights is fetched."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import Finding, check_kinds
from vgrad_lab.checkpoints.inventory import Inventory, Weights, choose_weights, take_inventory, weights_identity
from vgrad_lab.checkpoints.resolve import MAIN, Ladder
from vgrad_lab.checkpoints.rung_config import architecture_findings

UNUSABLE = ("unreadable", "no weights", "missing shard")
"""Findings whose rungs are left out when they are allowed; all other rungs are kept as they are."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        ladder: the rungs audited.
        inventories: one per rung, in order.
        findings: all of them.
        allowed: kinds that were let pass, by the specification or by whoever asked.
    """

    ladder: Ladder
    inventories: tuple[Inventory, ...]
    findings: tuple[Finding, ...]
    allowed: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Findings that stop the ladder."""
        return tuple(one for one in self.findings if one.refuses and one.kind not in self.allowed)

    @property
    def usable(self) -> tuple[Inventory, ...]:
        """Rungs that can be fetched: those that are not left out."""
        out = {rung for one in self.findings if one.kind in UNUSABLE for rung in one.rungs}
        return tuple(one for one in self.inventories if one.rung not in out)


def audit(
    ladder: Ladder,
    *,
    allow: Iterable[str] = (),
    inventories: tuple[Inventory, ...] | None = None,
    progress: bool = False,
) -> Audit:
    """Compare the rungs of a ladder with each other, with main and with what is expected.

    Equal weights are seen by their hashes: whole rungs, and single files that two rungs (or a rung and main) share.

    Args:
        ladder: the rungs.
        allow: kinds of findings to let pass, beside those of the specification; they stay in the record.
        inventories: what the rungs and main (last, named `main`) hold; asked for by default.
        progress: show a bar on a terminal.

    Raises:
        UserError: a kind that cannot be allowed.
    """
    allowed = check_kinds((*ladder.spec.allow, *allow))
    taken = take_inventory(ladder, progress=progress) if inventories is None else inventories
    rungs = taken[: len(ladder.rungs)]
    main = next((one for one in taken[len(ladder.rungs) :] if one.rung == MAIN), None)
    weights = {one.rung: choose_weights(one) for one in rungs}
    findings = [
        *_file_findings(rungs, weights),
        *_duplicates(ladder, weights),
        *_equal_to_main(ladder, weights, main),
        *architecture_findings(ladder.spec, rungs),
        *_sizes(weights),
        *_token_counts(ladder),
    ]
    return Audit(ladder, rungs, tuple(findings), allowed)


def require(result: Audit) -> None:
    """Raise UserError when an audit refuses its ladder, with each finding and how to let it pass."""
    if not result.refused and result.usable:
        return
    place = result.ladder.spec.place
    if not result.refused:
        raise UserError(f"{place}: no rung is left after the audit; see `vgrad ladder audit`")
    found = "; ".join(f"{one.kind}: {one.detail}" for one in result.refused[:3])
    more = f" and {len(result.refused) - 3} more" if len(result.refused) > 3 else ""
    options = " ".join(f"--allow '{kind}'" for kind in dict.fromkeys(one.kind for one in result.refused))
    raise UserError(f"the audit refuses {place}: {found}{more}; leave those rungs out, or let them pass with {options}")


def audit_record(result: Audit) -> dict[str, Any]:
    """The audit as JSON holds it: verdict, findings, what was allowed, identity of each rung."""
    ladder = result.ladder
    verdict = "refused" if result.refused else "allowed" if any(f.refuses for f in result.findings) else "clean"
    usable = {one.rung for one in result.usable}
    rungs = [
        {
            "step": rung.step,
            "name": rung.name,
            "commit": rung.commit,
            "usable": rung.name in usable,
            "sha256": weights_identity(choose_weights(one)),
            "weights": {file.path: file.identity for file in choose_weights(one).files},
        }
        for rung, one in zip(ladder.rungs, result.inventories, strict=True)
    ]
    findings = [{**asdict(one), "allowed": one.refuses and one.kind in result.allowed} for one in result.findings]
    return {
        "ladder": ladder.spec.name,
        "place": ladder.spec.place,
        "main": ladder.main,
        "verdict": verdict,
        "allowed": list(result.allowed),
        "findings": findings,
        "rungs": rungs,
    }


def _file_findings(rungs: tuple[Inventory, ...], weights: dict[str, Weights]) -> Iterator[Finding]:
    """One finding per rung for metadata, weights and code."""
    for one in rungs:
        chosen = weights[one.rung]
        if one.problem is not None:
            yield Finding("unreadable", (one.rung,), one.problem)
            continue
        if chosen.kind == "none":
            others = [file.path for file in one.files if file.path.endswith(".safetensors")]
            detail = f"only {', '.join(others[:3])}" if others else "no model.safetensors, no shards"
            yield Finding("no weights", (one.rung,), f"{one.rung} has {detail}")
        if chosen.kind == "bin":
            yield Finding("bin only", (one.rung,), f"{one.rung} has {chosen.files[0].path if chosen.files else '.bin'}")
        if chosen.missing:
            yield Finding("missing shard", (one.rung,), f"{one.rung} lacks {_few(chosen.missing)}")
        if any(file.size == 0 for file in chosen.files):
            yield Finding("missing shard", (one.rung,), f"{one.rung} has an empty file of weights")
        if chosen.aside:
            yield Finding("two sets", (one.rung,), f"{one.rung} has {_few(chosen.aside)} beside its shards")
        code = [file.path for file in one.files if file.path.endswith(".py")]
        if code or "auto_map" in (one.config or {}):
            yield Finding("python file", (one.rung,), f"{one.rung} has {_few(code) or 'auto_map in config.json'}")


def _duplicates(ladder: Ladder, weights: dict[str, Weights]) -> Iterator[Finding]:
    """Groups of rungs with equal weights, then pairs that share some files."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for rung in ladder.rungs:
        if files := weights[rung.name].files:
            groups[tuple(sorted(file.identity for file in files))].append(rung.name)
    for names in groups.values():
        if len(names) > 1:
            yield Finding("duplicate", tuple(names), f"{_few(names)} hold the same weights")
    holders: dict[str, list[str]] = defaultdict(list)
    for identities, names in groups.items():
        for identity in set(identities):
            holders[identity] += names[:1]
    told: set[tuple[str, ...]] = set()
    for names in holders.values():
        if len(names) > 1 and tuple(names) not in told:
            told.add(tuple(names))
            yield Finding("duplicate", tuple(names), f"{_few(names)} share a file of their weights")


def _equal_to_main(ladder: Ladder, weights: dict[str, Weights], main: Inventory | None) -> Iterator[Finding]:
    """Rungs any of whose files is one of main's, except where the ladder ends in main."""
    theirs = {file.identity for file in choose_weights(main).files} if main else set()
    if main and (whole := main.file("model.safetensors")):
        theirs.add(whole.identity)
    for rung in ladder.rungs:
        ours = {file.identity for file in weights[rung.name].files}
        if not ours & theirs:
            continue
        whole_of_it = "holds the weights of main" if ours <= theirs else "shares a file of its weights with main"
        last = rung.step == ladder.spec.main_step and ours <= theirs
        yield Finding("main is last" if last else "equal to main", (rung.name,), f"{rung.name} {whole_of_it}")


def _sizes(weights: dict[str, Weights]) -> Iterator[Finding]:
    """Rungs whose weights have another size than most; a header may differ by a little."""
    sizes = {name: sum(file.size for file in one.files) for name, one in weights.items() if not one.missing}
    sizes = {name: size for name, size in sizes.items() if size}
    if not sizes:
        return
    usual = Counter(sizes.values()).most_common(1)[0][0]
    for name, size in sizes.items():
        if abs(size - usual) > max(0.001 * usual, 4096):
            yield Finding("size", (name,), f"{name} has {size} bytes of weights, most have {usual}")


def _token_counts(ladder: Ladder) -> Iterator[Finding]:
    """Names whose tokens are neither floor nor ceiling of step × tokens per step."""
    per_step = ladder.spec.tokens_per_step
    for rung in ladder.rungs:
        if per_step is None or rung.tokens is None:
            continue
        exact = rung.step * per_step
        if not exact // 10**9 <= rung.tokens <= -(-exact // 10**9):
            expected = f"{exact / 1e9:.1f}"
            yield Finding("token count", (rung.name,), f"{rung.name} says {rung.tokens}B tokens, expected {expected}B")


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
