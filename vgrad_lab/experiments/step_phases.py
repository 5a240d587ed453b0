"""The phase diagram of step sizes: which runs converge, stagnate or collapse, for three algorithms.

Expected updates on ``discrete.bandit.steepening`` (ledger G06), so nothing is drawn at random. REINFORCE's border is
2/V, that of groups of G 2/(V√(G−1)); infinite groups converge at no rate, their strip is runs that have not come far.

python -m vgrad_lab.experiments.step_phases --out DIR [--tiny]
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgrad_lab.discrete.phase_diagram import PHASES, draw_phases, phase_map
from vgrad_lab.discrete.update_scale import Algorithm
from vgrad_lab.provenance import versions

STATEMENTS = ("G06", "G06.groups")
ALGORITHMS: dict[Algorithm, str] = {
    "reinforce": "REINFORCE",
    "grpo": "GRPO, groups of {group_size}",
    "population_grpo": "GRPO, infinite groups",
}
"""Algorithms of the picture and their titles."""


@dataclass(frozen=True)
class Settings:
    """Grid of learning rates and of success rates at the start, updates per run, V, and the group size."""

    lowest: float = 0.01
    highest: float = 8.0
    rates: int = 60
    starts: int = 24
    updates: int = 3000
    second_moment: float = 2.0
    group_size: int = 8


SETTINGS, TINY = Settings(), Settings(lowest=0.05, rates=14, starts=3, updates=400)


def axes(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates, evenly spaced in their logarithm, and success rates at the start."""
    rates = np.geomspace(settings.lowest, settings.highest, settings.rates)
    return rates, np.linspace(0.04, 0.96, settings.starts)


def run(settings: Settings = SETTINGS) -> dict[str, Any]:
    """Phase maps, one row of digits (places in PHASES) per success rate, and each algorithm's border.

    border: the largest learning rate up to which every run of the grid converges, 0 for none.
    """
    rates, starts = axes(settings)
    maps, borders = {}, {}
    for name in ALGORITHMS:
        found = phase_map(
            rates,
            starts,
            name,
            updates=settings.updates,
            second_moment=settings.second_moment,
            group_size=settings.group_size,
        )
        maps[name] = ["".join(map(str, row)) for row in found.tolist()]
        lawful = np.cumprod((found == 0).all(0)).sum()
        borders[name] = float(rates[lawful - 1]) if lawful else 0.0
    return {"settings": asdict(settings), "phases": list(PHASES), "maps": maps, "borders": borders}


def score(result: dict[str, Any]) -> dict[str, float]:
    """1 for each statement whose prediction the maps bear out, 0 otherwise."""
    s = Settings(**result["settings"])
    cell = (s.highest / s.lowest) ** (1 / (s.rates - 1))
    edges = {"reinforce": 2 / s.second_moment, "grpo": 2 / s.second_moment / math.sqrt(s.group_size - 1)}
    near = {name: edge / cell < result["borders"][name] <= edge for name, edge in edges.items()}
    stagnates = result["borders"]["population_grpo"] < 0.2 * result["borders"]["grpo"]
    return {"G06": float(near["reinforce"] and stagnates), "G06.groups": float(near["grpo"])}


def plot(result: dict[str, Any], path: Path) -> Path:
    """Write the picture as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = Settings(**result["settings"])
    rates, starts = axes(settings)
    with mpl.rc_context({"svg.hashsalt": "vgrad_lab", "svg.fonttype": "path"}):
        figure = Figure(figsize=(10.5, 3.5), layout="constrained")
        panels = figure.subplots(1, len(ALGORITHMS), sharey=True)
        for axis, (name, title) in zip(panels, ALGORITHMS.items(), strict=True):
            phase = np.array([[int(digit) for digit in row] for row in result["maps"][name]])
            draw_phases(axis, rates, starts, phase)
            axis.set_title(title.format(group_size=settings.group_size))
            axis.set_ylabel("success rate at the start" if axis is panels[0] else "")
        figure.savefig(path, metadata={"Date": None})
    return path


def main(folder: Path, *, tiny: bool = False) -> list[Path]:
    """Run, score, write ``phase_diagram.json`` and ``phase_diagram.svg``; returns their paths."""
    result = run(TINY if tiny else SETTINGS)
    command = f"python -m vgrad_lab.experiments.step_phases{' --tiny' if tiny else ''}"
    result |= {"command": command, "versions": versions(), "device": "cpu", "seed": None, "score": score(result)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "phase_diagram.json"
    path.write_text(json.dumps(result, allow_nan=False, sort_keys=True) + "\n", encoding="utf-8")
    return [path, plot(result, folder / "phase_diagram.svg")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/step_phases"), help="folder of the results")
    parser.add_argument("--tiny", action="store_true", help="a coarse grid, a second")
    given = parser.parse_args()
    sys.stdout.write("\n".join(map(str, main(given.out, tiny=given.tiny))) + "\n")
