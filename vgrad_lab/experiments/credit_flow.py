"""Credit flow against lag: a recurrent network and a transformer of equal size on associative recall.

What reaches an earlier state from a later logit, tokens fixed? Nothing at a transformer's last layer; something at
every lag at the input of its first block, and in a GRU. Training makes the transformer's flow selective.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgrad_lab.provenance import versions
from vgrad_lab.sequence.credit_flow import credit_norms, lag_profile
from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec
from vgrad_lab.sequence.tasks import RecallTask, draw_recall
from vgrad_lab.sequence.trace import SequenceModel, trace
from vgrad_lab.sequence.training import recall_quality, train_recall
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

STATEMENTS = ("S13", "S13.depth", "S15")


@dataclass(frozen=True)
class Settings:
    """Sizes, length of training and seed; the defaults give two models of about 58,000 parameters."""

    seed: int = 0
    pairs: int = 4
    tokens: int = 8
    layers: int = 2
    transformer_width: int = 48
    gru_width: int = 68
    steps: int = 500
    batch: int = 64
    learning_rate: float = 5e-3
    measured: int = 256


SETTINGS = Settings()
TINY = Settings(pairs=2, tokens=3, transformer_width=16, gru_width=24, steps=25, batch=16, measured=16)


def run(settings: Settings = SETTINGS) -> dict[str, Any]:
    """Train both models and measure their credit flow before and after; plain numbers, the same for the same seed."""
    task = RecallTask(pairs=settings.pairs, keys=settings.tokens, values=settings.tokens)
    result: dict[str, Any] = {"settings": asdict(settings), "queries": list(task.queries), "models": {}}
    for name, model in _models(settings, task).items():
        stages = {"before": _measure(model, task, settings)}
        losses = train_recall(
            model,
            task,
            steps=settings.steps,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
        )
        stages["after"] = _measure(model, task, settings)
        size = sum(p.numel() for p in model.parameters())
        result["models"][name] = {"parameters": size, "losses": losses, **stages}
    return result


def score(result: dict[str, Any]) -> dict[str, float]:
    """1.0 for every statement id whose prediction this run shows, else 0.0."""
    stages = ("before", "after")
    transformer, gru = (np.array([result["models"][n][s]["flow"] for s in stages]) for n in ("transformer", "gru"))
    return {
        "S13": float(np.all(transformer[:, -1, 1:] == 0.0)),
        "S13.depth": float(np.all(transformer[:, 0, 1:] > 0.0)),
        "S15": float(np.all(gru[:, -1] > 0.0)),
    }


def plot(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write credit_flow.svg and credit_flow.png into ``folder`` and return their paths."""
    from vgrad_lab.experiments.credit_flow_figure import draw

    return draw(result, folder)


def main(folder: Path, *, tiny: bool = False, seed: int = 0) -> list[Path]:
    """Run, then write credit_flow.json and the figure into ``folder``; returns the paths."""
    result = run(replace(TINY if tiny else SETTINGS, seed=seed))
    result |= {"score": score(result), "command": "vgrad credit", "versions": versions(), "device": "cpu"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "credit_flow.json"
    path.write_text(json.dumps(result, allow_nan=False, sort_keys=True) + "\n", encoding="utf-8")
    return [path, *plot(result, folder)]


def _models(settings: Settings, task: RecallTask) -> dict[str, SequenceModel]:
    spec = TransformerSpec(
        task.vocab,
        width=settings.transformer_width,
        layers=settings.layers,
        heads=4,
        head_width=settings.transformer_width // 4,
        max_length=4 * task.pairs,
    )
    recurrent = RecurrentSpec(task.vocab, width=settings.gru_width, layers=settings.layers)
    return {
        "transformer": Transformer(spec, seed=settings.seed, dtype=torch.float32),
        "gru": GRU(recurrent, seed=settings.seed, dtype=torch.float32),
    }


def _measure(model: SequenceModel, task: RecallTask, settings: Settings) -> dict[str, Any]:
    """Quality, flow per (layer, lag), and per layer the flow into the shown value asked for and into the others."""
    cases = draw_recall(task, settings.measured, rng=np.random.default_rng(settings.seed + 1))
    result = trace(model, cases.inputs)
    asked, other = [], []
    shown = np.arange(1, 2 * task.pairs, 2)
    for q, position in enumerate(task.queries):
        norms = credit_norms(result, cases.targets, position=position)[:, :, shown]
        hit = shown == cases.source[:, q, None].numpy()
        asked.append(norms[:, hit].mean(1))
        other.append(norms[:, ~hit].mean(1))
    quality = recall_quality(model, task, batch=settings.measured, seed=settings.seed + 2)
    return {
        **asdict(quality),
        "flow": lag_profile(result, cases.targets, positions=task.queries).tolist(),
        "asked": np.mean(asked, axis=0).tolist(),
        "other": np.mean(other, axis=0).tolist(),
    }
