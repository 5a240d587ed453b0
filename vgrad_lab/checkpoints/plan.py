"""What a ladder costs before a byte of weights is fetched: bytes, room on the disk, time."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.inventory import Inventory, choose_weights, needed_files


@dataclass(frozen=True)
class PlannedRung:
    """One rung: bytes of its weights and of its other files."""

    name: str
    weight_bytes: int
    other_bytes: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weight_bytes + self.other_bytes


@dataclass(frozen=True)
class Plan:
    """The cost of a ladder when one rung is fetched ahead and each is evicted after use.

    Args:
        rungs: in order.
        weight_bytes, other_bytes: to download, summed over the rungs.
        peak_bytes: most bytes on the disk at one time: a rung in use and the next.
        rate: bytes per second.
        compute: seconds of work per rung.
        download_seconds: time of the downloads alone.
        total_seconds: until the last rung is done, downloads hidden behind work where they fit.
    """

    rungs: tuple[PlannedRung, ...]
    weight_bytes: int
    other_bytes: int
    peak_bytes: int
    rate: float
    compute: float
    download_seconds: float
    total_seconds: float


def make_plan(inventories: Iterable[Inventory], *, rate: float = 100e6, compute: float = 0.0) -> Plan:
    """Cost of fetching rungs in this order.

    bytes = Σₖ bₖ; disk = maxₖ (bₖ + bₖ₊₁); download k+1 starts when download k and the work on rung k−1 are done.

    Args:
        inventories: of the rungs, in order.
        rate: bytes per second.
        compute: seconds of work per rung.

    Raises:
        UserError: no rung, a rate that is no positive number, or a negative `compute`.
    """
    if not 0 < rate < float("inf"):
        raise UserError(f"rate is {rate:g} bytes per second; give a positive number")
    if not 0 <= compute < float("inf"):
        raise UserError(f"compute is {compute:g} seconds; give a number that is not negative")
    rungs = tuple(_planned(one) for one in inventories)
    if not rungs:
        raise UserError("there is no rung to plan for; choose at least one, see `vgrad ladder list`")
    sizes = [rung.total for rung in rungs]
    peak = max(a + b for a, b in zip(sizes, [*sizes[1:], 0], strict=True))
    return Plan(
        rungs=rungs,
        weight_bytes=sum(rung.weight_bytes for rung in rungs),
        other_bytes=sum(rung.other_bytes for rung in rungs),
        peak_bytes=peak,
        rate=rate,
        compute=compute,
        download_seconds=sum(sizes) / rate,
        total_seconds=_finish([size / rate for size in sizes], compute),
    )


def _planned(inventory: Inventory) -> PlannedRung:
    weights = sum(file.size for file in choose_weights(inventory).files)
    return PlannedRung(inventory.rung, weights, sum(file.size for file in needed_files(inventory)) - weights)


def _finish(downloads: list[float], compute: float) -> float:
    """When the last rung is done: two rungs on the disk at most, one download and one computation at a time."""
    fetched = worked = evicted = 0.0
    for seconds in downloads:
        fetched = max(fetched, evicted) + seconds
        evicted, worked = worked, max(fetched, worked) + compute
    return worked


def plan_record(plan: Plan) -> dict[str, Any]:
    """The plan as JSON holds it, with the sum of all bytes."""
    return {**asdict(plan), "bytes": plan.weight_bytes + plan.other_bytes}


def gigabytes(count: int) -> str:
    """Bytes in GB of 10⁹ with one decimal, in MB or kB when small."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Seconds as `3 d 4 h`, `2 h 05 min`, `7 min` or `12 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
