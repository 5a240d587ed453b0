"""A ladder on disk: one folder per checkpoint, named by its pretraining step."""

import re
from dataclasses import dataclass
from pathlib import Path

from vgrad_lab.checkpoints.errors import UserError

RUNG_NAME = re.compile(r"step(\d+)")
"""A finished checkpoint folder; any other name (a temporary folder, the resume state) is not a rung."""


@dataclass(frozen=True, order=True)
class Rung:
    """One checkpoint of a ladder.

    Args:
        step: pretraining step.
        path: its folder, with config.json and weights as safetensors.
        name: the folder's name, such as `step000100`.
    """

    step: int
    path: Path
    name: str


def rung_name(step: int) -> str:
    """Folder name of a step: six digits, so that names sort as steps do."""
    return f"step{step:06d}"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a model configuration and at least one safetensors file."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def list_rungs(folder: Path | str) -> tuple[Rung, ...]:
    """All finished checkpoints of a ladder, by step.

    A sub-folder counts when it is named `step<digits>` and holds config.json and safetensors; temporary folders of an
    interrupted run do not count.

    Raises:
        UserError: the path is missing, is no folder, or holds no checkpoint.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"no ladder at {folder}: it does not exist; make one with `vgrad ladder pretrain {folder}`")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; a ladder is a folder with one sub-folder per checkpoint (step000100, …)")
    rungs = sorted(
        Rung(step=int(match[1]), path=path, name=path.name)
        for path in folder.iterdir()
        if (match := RUNG_NAME.fullmatch(path.name)) and is_checkpoint(path)
    )
    if rungs:
        return tuple(rungs)
    if is_checkpoint(folder):
        raise UserError(
            f"{folder} is one checkpoint, not a ladder; give the folder above it, "
            "or put the checkpoint into a sub-folder named step<number>"
        )
    raise UserError(
        f"{folder} holds no checkpoint; expected sub-folders named step<number>, each with config.json and "
        f"*.safetensors; make a ladder with `vgrad ladder pretrain {folder}`"
    )
