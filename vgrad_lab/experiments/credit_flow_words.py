"""Numbers with intervals as words, for the credit study's page."""

from typing import Any

Estimate = dict[str, Any]


def plain(x: float, *, signed: bool = False) -> str:
    """Three digits; scientific where that would show nothing or too many."""
    plus = "+" if signed else ""
    if x == 0:
        return "0"
    text = (
        f"{x:{plus}.1e}" if abs(x) < 5e-4 or abs(x) >= 1e5 else f"{x:{plus}.0f}" if abs(x) >= 100 else f"{x:{plus}.3g}"
    )
    return text.replace("-", "−")


def number(estimate: Estimate, *, signed: bool = False) -> str:
    """value [low, high]; "undefined" with the number of seeds in which it is; exact values stand alone."""
    if estimate["value"] is None:
        return f"undefined ({estimate['undefined']} of {estimate['seeds']} seeds)"
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if low is None:
        return f"{plain(value, signed=signed)} (one seed)"
    if low == high:
        return plain(value, signed=signed)
    return f"{plain(value, signed=signed)} [{plain(low, signed=signed)}, {plain(high, signed=signed)}]"


def ratio_word(estimate: Estimate) -> str:
    """Whether a ratio's interval lies above, below or around 1."""
    if estimate["value"] is None or estimate["low"] is None:
        return number(estimate)
    word = "larger" if estimate["low"] > 1 else "smaller" if estimate["high"] < 1 else "not told apart by these seeds"
    return f"{word}, ratio {number(estimate)}"


def span(estimates: list[Estimate]) -> str:
    """Smallest to largest value of several estimates; how many are undefined is said."""
    values = [e["value"] for e in estimates if e["value"] is not None]
    missing = len(estimates) - len(values)
    if not values:
        return "undefined"
    text = f"{plain(min(values))} … {plain(max(values))}" if min(values) != max(values) else plain(values[0])
    return text + (f" ({missing} undefined)" if missing else "")
