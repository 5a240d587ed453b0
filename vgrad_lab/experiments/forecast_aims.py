"""What the forecast was to reach on held-out ladders, and whether it does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vgrad_lab.checkpoints.report.style import amount
from vgrad_lab.experiments.forecast_records import DEFAULTS

Json = dict[str, Any]
VARIATIONS = 8
AT_LEAST = 0.85


@dataclass(frozen=True)
class Aim:
    """An aim, what was found, and whether it is met (None where undefined)."""

    aim: str
    found: str
    met: bool | None


def aims(result: Json) -> list[Aim]:
    """Every aim against the means over held-out ladders of a summary."""
    rows = {r["setting"]: r for r in result["settings"] if r["split"] == "held out"}
    found = []
    for name in DEFAULTS:
        if name in rows:
            found += [
                _aim(f"{name}: R² of the gain ≥ 0.95", rows[name]["r_squared"], lambda x: x >= 0.95),
                _aim(f"{name}: Spearman ≥ 0.95", rows[name]["spearman"], lambda x: x >= 0.95),
                _aim(f"{name}: regret ≤ 0.02", rows[name]["regret"], lambda x: x <= 0.02),
                _aim(f"{name}: error of the curve ≤ 0.02", rows[name]["error"], lambda x: x <= 0.02),
                _aim(f"{name}: 85 to 95 % in the 90 % band", rows[name]["coverage"], lambda x: 0.85 <= x <= 0.95),
            ]
    others = [r for name, r in rows.items() if name not in DEFAULTS]
    return [*found, variations(others)] if others else found


def variations(rows: Sequence[Json]) -> Aim:
    """Held-out variations with R² of at least 0.85; one that is undefined does not count."""
    good = [r for r in rows if r["r_squared"]["value"] is not None and r["r_squared"]["value"] >= AT_LEAST]
    text = f"{len(good)} of {len(rows)}"
    return Aim(f"R² ≥ {AT_LEAST} on at least {VARIATIONS} held-out variations", text, len(good) >= VARIATIONS)


def _aim(text: str, estimate: Json, holds: Callable[[float], bool]) -> Aim:
    value = estimate["value"]
    return Aim(text, "undefined" if value is None else amount(value), None if value is None else holds(value))
