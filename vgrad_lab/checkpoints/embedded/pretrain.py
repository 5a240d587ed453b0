"""The embedded ladder: pretrain a small OLMo-2 from the standard library's own text, checkpoint by checkpoint."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from vgrad_lab.checkpoints.atomic import TEMPORARY, remove_temporary, require_writable, write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import Rung, is_checkpoint, list_rungs, rung_name

SETTINGS_FILE = "settings.json"
TRAINING_FILE = "training.json"
FAMILIES = ("olmo2", "llama", "gpt_neox")
"""Architectures that a ladder may have: transformers' names."""
PRECISIONS = ("float32", "bfloat16")
LATER: dict[str, object] = {"family": "olmo2", "device": "cpu", "precision": "float32", "packages": (), "also": ()}
"""Settings that came after the first ladders, with the values at which ``facts`` leaves them out."""
RESUME_PREFIX = "resume-"
"""Prefix of the optimisers' state, kept beside the newest checkpoint until the ladder is finished."""


@dataclass(frozen=True)
class LadderSettings:
    """Everything that decides the bytes of a ladder, on one machine with one number of threads.

    On a GPU equal settings give nearly equal weights: some of its sums have no fixed order.

    Args:
        seed: seed of the initial weights, the record documents and the batches.
        family, hidden, layers, heads, intermediate, vocab, positions: the model.
        batch, length, steps: rows per step, predicted tokens per row, optimiser steps.
        every: steps between checkpoints; the last step is one too.
        documents: number of record documents.
        characters: size of the corpus in characters; None takes all of it.
        corpus_share, span_share: shares of plain text and of repeated spans among the rows; the rest are records.
        muon_lr, adam_lr: peak learning rates of the 2-D block matrices and of all else.
        weight_decay, clip, warmup, final_lr: decoupled decay, gradient-norm limit, warm-up steps, and the share of the
            peak learning rate that the cosine ends at.
        device: where the model trains, in the words of torch.
        precision: of the forward and backward products; weights, gradients and optimisers are float32 throughout.
        packages: installed packages whose docstrings follow the standard library's text.
        also: further steps with a checkpoint, such as early ones.

    Raises:
        UserError: a number that cannot work.
    """

    seed: int = 0
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    intermediate: int = 256
    vocab: int = 1024
    positions: int = 256
    batch: int = 16
    length: int = 64
    steps: int = 2000
    every: int = 100
    documents: int = 20000
    characters: int | None = None
    corpus_share: float = 0.4
    span_share: float = 0.1
    muon_lr: float = 2e-2
    adam_lr: float = 4e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 50
    final_lr: float = 0.1
    family: str = "olmo2"
    device: str = "cpu"
    precision: str = "float32"
    packages: tuple[str, ...] = ()
    also: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "intermediate", "batch", "length", "steps", "every", "documents")
        for name in sizes:
            if getattr(self, name) < 1:
                raise UserError(f"ladder setting {name} is {getattr(self, name)}; give a positive whole number")
        if self.seed < 0 or self.warmup < 0:
            raise UserError(f"ladder settings seed={self.seed}, warmup={self.warmup}; neither can be negative")
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise UserError(f"hidden={self.hidden} must be an even multiple of heads={self.heads}; change one of them")
        if self.family not in FAMILIES:
            raise UserError(f"family is {self.family!r}; choose one of {', '.join(FAMILIES)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}")
        if not all(1 <= step <= self.steps for step in self.also):
            raise UserError(f"also is {self.also}; give steps from 1 to {self.steps}")
        if self.length > self.positions:
            raise UserError(f"length={self.length} exceeds positions={self.positions}; make positions larger")
        shares = (self.corpus_share, self.span_share, 1 - self.corpus_share - self.span_share)
        if min(shares) < 0:
            raise UserError(f"data shares {shares} of corpus, spans and records must not be negative; lower the first")


TINY = LadderSettings(
    hidden=32, layers=2, heads=2, intermediate=64, batch=8, length=48, steps=40, every=10, documents=200,
    characters=200_000, warmup=10,
)  # fmt: skip
"""A ladder of four checkpoints in about two seconds, for tests and tutorials; nothing emerges on it."""


def facts(settings: LadderSettings) -> dict[str, object]:
    """The settings by name as JSON holds them; what came later only where it says something, so that older ladders
    keep their identity."""
    found = {k: v for k, v in asdict(settings).items() if k not in LATER or v != LATER[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def settings_identity(settings: LadderSettings) -> str:
    """First 16 hex digits of the SHA-256 of the settings' canonical JSON."""
    canonical = json.dumps(facts(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def checkpoint_steps(settings: LadderSettings) -> tuple[int, ...]:
    """Steps after which a checkpoint is saved."""
    return tuple(sorted({*range(settings.every, settings.steps + 1, settings.every), settings.steps, *settings.also}))


def pretrain(
    settings: LadderSettings, folder: Path | str, *, progress: bool = True, threads: int = 2
) -> tuple[Rung, ...]:
    """Make the ladder of these settings in a folder, or finish the one that was begun there.

    Each checkpoint appears whole or not at all. A second call goes on behind the newest checkpoint and, with the same
    machine, Python and number of threads, writes the same bytes as a run without interruption; on a finished ladder
    it returns at once. One process per folder at a time.

    Args:
        settings: what to train.
        folder: where; made when it is missing.
        progress: show a progress bar, if the output is a terminal.
        threads: CPU threads of torch.

    Returns:
        The ladder's rungs.

    Raises:
        UserError: the folder holds another ladder, or other files, or was begun with another corpus.
    """
    if threads < 1:
        raise UserError(f"threads is {threads}; give a positive whole number, such as the number of physical cores")
    folder = Path(folder)
    begun = _read_settings(settings, folder)
    if not (begun and all(is_checkpoint(folder / rung_name(step)) for step in checkpoint_steps(settings))):
        from vgrad_lab.checkpoints.embedded.mixture import (
            build_mixture,  # torch and transformers take seconds to import
        )
        from vgrad_lab.checkpoints.embedded.training import train

        if begun and begun.get("threads") != threads:
            raise UserError(
                f"the ladder in {folder} was begun with {begun.get('threads')} threads, {threads} asked, and the "
                "weights depend on that; continue with the same number, or give another folder"
            )
        require_writable(folder)
        mixture = build_mixture(settings)
        data = {"corpus_sha256": mixture.corpus_sha256, "data_sha256": mixture.data_sha256}
        _write_settings(settings, folder, begun, data, threads)
        train(settings, mixture, folder, progress=progress, threads=threads)
    for state in folder.glob(f"{RESUME_PREFIX}*"):
        state.unlink()
    return list_rungs(folder)


def _read_settings(settings: LadderSettings, folder: Path) -> dict[str, object]:
    """What the folder records of the ladder in it, empty for a new one; refuse a folder that holds something else."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder for the ladder")
    path = folder / SETTINGS_FILE
    if not path.is_file():
        others = [p.name for p in folder.iterdir() if not p.name.startswith(TEMPORARY)] if folder.exists() else []
        if others:
            raise UserError(f"{folder} holds other files ({others[0]}, …); give a new or empty folder for the ladder")
        return {}
    try:
        recorded: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        there = dict(recorded["settings"])  # type: ignore[call-overload]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {folder} and pretrain again") from error
    here = facts(settings)
    here, there = ({**LATER, **x} for x in (here, there))
    differing = [
        f"{k} {there.get(k)} there, {here.get(k)} asked" for k in {**here, **there} if there.get(k) != here.get(k)
    ]
    if differing:
        raise UserError(
            f"{folder} holds a ladder of other settings ({'; '.join(differing[:3])}); "
            "give another folder, or the settings of this one"
        )
    return recorded


def _write_settings(
    settings: LadderSettings, folder: Path, begun: dict[str, object], data: dict[str, str], threads: int
) -> None:
    """Record settings and data of a new ladder, or check that an old one is continued on the same data."""
    differing = [name.removesuffix("_sha256") for name, value in data.items() if begun and begun.get(name) != value]
    if differing:
        raise UserError(
            f"the ladder in {folder} was begun with Python {begun.get('python')} on other text ({differing[0]} differs "
            f"under this Python {platform.python_version()} and these library versions); finish it with the versions "
            "it was begun with, or begin a new folder"
        )
    remove_temporary(folder)
    if not begun:
        record = {
            "identity": settings_identity(settings),
            "settings": facts(settings),
            **data,
            "threads": threads,
            "python": platform.python_version(),
        }
        write_file(folder / SETTINGS_FILE, json.dumps(record, indent=2) + "\n")
