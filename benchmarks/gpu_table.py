"""Lines of the table that benchmarks/gpu.py prints after each part."""

from typing import Any

Row = dict[str, Any]


def lines(part: str, result: Row) -> list[str]:
    """What a person wants to read of a part's result, whole or not."""
    return {"rates": rates, "a": rungs, "b": ladder, "c": credit, "d": again}[part](result)


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}g}"


def rates(result: Row) -> list[str]:
    """Ceilings."""
    names = {"matrix_bfloat16": "bf16 product, FLOP/s", "matrix_float32": "fp32 product, FLOP/s",
             "copy": "copy, bytes/s read and written", "host_to_device": "host to device, bytes/s",
             "disk_read": "disk read, bytes/s", "disk_write": "disk write, bytes/s"}  # fmt: skip
    return [str(result.get("card")), *(f"{title:32} {number(result.get(key))}" for key, title in names.items())]


def rungs(result: Row) -> list[str]:
    """Seconds of every stage of every rung over its floor."""
    found = []
    for rung in result.get("rungs", []):
        for name, row in rung.items():
            if isinstance(row, dict):
                text = row.get("error") or f"{row['seconds']:9.3f} s, floor {number(row.get('floor_seconds'))} s"
                found.append(f"{rung['rung']} {name:14} {text}, gap {number(row.get('gap'))}"[:150])
    for row in result.get("forward_backward", []):
        head = f"{row['precision']:16} {row['prompts']:4} × {row['length']:4}"
        took = row.get("error") or f"{row['seconds']:.4f} s"
        found.append(f"{head} {took}, share of bf16 rate {number(row.get('share_of_matrix_rate'))}"[:150])
    return found


def ladder(result: Row) -> list[str]:
    """Pretraining, rewards of the rungs, and of each protocol the best predictors."""
    found = []
    if made := result.get("pretraining"):
        speed = f", {number(made.get('tokens_per_second'))} tokens/s, share of bf16 rate "
        speed += number(made.get("share_of_matrix_rate"))
        found.append(
            f"{made['parameters']:,} parameters, {made['tokens']:,} tokens, {number(made.get('seconds'))} s{speed}"
        )
    if rows := result.get("checkpoints"):
        found.append("R before: " + " ".join(f"{r['step']}:{r['reward_before']:.2f}" for r in rows))
    for study in result.get("studies", []):
        head = f"{study['optimizer']} {study.get('learning_rate', 0):g}"
        scores = study.get("forecast", {})
        error = f"R² {number(scores.get('r_squared'))}, mean error {number(scores.get('error'))}"
        found.append(
            f"{head}: {len(study.get('rungs', []))} rungs, {len(study.get('left', []))} left; forecast {error}"
        )
        rows = [r for r in study.get("predictors", []) if r["spearman"] is not None]
        for row in sorted(rows, key=lambda r: -r["spearman"]):
            found.append(f"   {row['predictor']:32} {row['spearman']:+.2f}")
    return found + [f"FAILED {text}"[:150] for text in result.get("failed", [])]


def credit(result: Row) -> list[str]:
    """Share of squared credit that crosses positions, and flow over that of lag 0, by layer."""
    found = []
    for rung in result.get("rungs", []):
        if "error" in rung:
            found.append(f"{rung['rung']} {rung['error']}"[:150])
            continue
        found.append(f"{rung['rung']} crossing " + " ".join(number(x, 2) for x in rung["crossing"]))
        for layer in (0, len(rung["flow"]) // 2):
            flow = rung["flow"][layer]
            share = " ".join(f"{lag}:{x / flow[0]:.1e}" for lag, x in zip(rung["lags"], flow, strict=True))
            found.append(f"   layer {layer:2} flow over lag 0: {share}")
    return found


def again(result: Row) -> list[str]:
    """Largest differences."""
    found = []
    for name, row in result.items():
        if not isinstance(row, dict):
            continue
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        text = row.get("error") or ", ".join(f"{k} {v:.1e}" for k, v in numbers.items())
        found.append(f"{name:20} {text}"[:170])
    return found
