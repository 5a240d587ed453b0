"""Weights put into a model that stands already, and the next checkpoint's read from the disk meanwhile.

Memory: a checkpoint held here takes as much of the host as its files; a `Bench` holds two, the present one and the
next, in buffers that are used again. For a GPU they are pinned, so that a copy to the card is one transfer.
"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import is_checkpoint
from vgrad_lab.checkpoints.loading import (
    Checkpoint,
    check_finite,
    check_keys,
    content_identity,
    load_checkpoint,
    load_tokenizer,
    quiet,
)
from vgrad_lab.checkpoints.post_load import loaded_facts

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
WRITTEN_BY = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""Keys of config.json that say who wrote it and in which type, not what the model is."""


@dataclass(frozen=True)
class HostWeights:
    """A checkpoint's weights in host memory, as its files hold them.

    Args:
        path: its folder.
        sha256: identity of the files, see `content_identity`.
        tensors: by the names in the files.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]


def weight_files(path: Path) -> tuple[Path, ...]:
    """The safetensors files that loading reads: the single one, else the shards that the index names.

    Raises:
        UserError: there are neither, the index is damaged, or a shard is missing.
    """
    if (path / SINGLE).is_file():
        return (path / SINGLE,)
    try:
        places = json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = tuple(path / name for name in sorted({Path(str(name)).name for name in places.values()}))
    except FileNotFoundError as error:
        raise UserError(f"{path} has neither {SINGLE} nor {INDEX}; download or write the checkpoint again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / INDEX} is damaged ({error}); download or write the checkpoint again") from error
    for file in files:
        if not file.is_file():
            raise UserError(f"{path} lacks {file.name}, which its index names; download the checkpoint again")
    return files


def read_weights(path: Path, *, pinned: bool = False, into: dict[str, Tensor] | None = None) -> HostWeights:
    """All tensors of a checkpoint folder in host memory, never mapped to the file.

    Args:
        path: the folder.
        pinned: in memory that a GPU copies from directly.
        into: tensors of an earlier checkpoint, which are overwritten where name, shape and type agree.

    Raises:
        UserError: a file is missing or damaged.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(path):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - not a dictionary
                    given = stored.get_tensor(name)
                    old = None if into is None else into.get(name)
                    if old is None or old.shape != given.shape or old.dtype != given.dtype:
                        old = torch.empty(given.shape, dtype=given.dtype, pin_memory=pinned)
                    found[name] = old.copy_(given)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}); download or write the checkpoint again") from error
    return HostWeights(path, content_identity(path), found)


def reload(model: Any, weights: HostWeights) -> None:
    """Put a checkpoint's weights into a model of the same architecture, in place, bit for bit as loading would.

    A tensor that the model ties to another may be missing from the files, as in loading; the type is the model's.

    Raises:
        UserError: names or shapes are not the model's, and nothing is changed; or a weight is not finite, and the model
            must not be used until it is reloaded.
    """
    targets: dict[str, Tensor] = model.state_dict(keep_vars=True)
    given = weights.tensors
    shared: dict[int | str, list[str]] = {}
    for name, target in targets.items():
        shared.setdefault(target.data_ptr() or name, []).append(name)
    groups = [[n for n in names if n in given] for names in shared.values()]
    lacking = [names[0] for names, found in zip(shared.values(), groups, strict=True) if not found]
    torn = [n for found in groups for n in found[1:] if not torch.equal(given[n], given[found[0]])]
    shapes = [n for n in given if n in targets and given[n].shape != targets[n].shape]
    odd = [n for n in given if n not in targets]
    check_keys(weights.path, {"missing_keys": lacking, "unexpected_keys": odd, "mismatched_keys": shapes + torn})
    with torch.no_grad():
        for found in groups:
            targets[found[0]].copy_(given[found[0]], non_blocking=True)
    check_finite(weights.path, model)


def same_architecture(one: Path, other: Path) -> bool:
    """Whether two folders' config.json agree, apart from who wrote them and in which type."""
    try:
        configs = [json.loads((path / "config.json").read_text(encoding="utf-8")) for path in (one, other)]
        first, second = ({k: v for k, v in config.items() if k not in WRITTEN_BY} for config in configs)
    except (OSError, ValueError, AttributeError):
        return False
    return bool(first == second)


class ReadAhead:
    """Reads one checkpoint at a time into host memory in a thread; the buffers of those given back are used again."""

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._coming: tuple[Path, Future[HostWeights]] | None = None
        self._spare: dict[str, Tensor] | None = None

    def start(self, path: Path) -> None:
        """Begin to read a checkpoint, unless one is being read or waits to be taken."""
        if self._coming is None:
            spare, self._spare = self._spare, None
            self._coming = (path, self._pool.submit(read_weights, path, pinned=self._pinned, into=spare))

    def take(self, path: Path) -> HostWeights:
        """The weights of a checkpoint, waited for, or read now if another was begun. Raises as `read_weights` does."""
        if self._coming is not None and self._coming[0] != path:
            self._drop()
        self.start(path)
        coming, self._coming = self._coming, None
        assert coming is not None
        return coming[1].result()

    def give_back(self, weights: HostWeights) -> None:
        """Say that these weights are not needed any more; the next read writes over them."""
        self._spare = weights.tensors

    def close(self) -> None:
        """Wait for the thread and end it."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _drop(self) -> None:
        """Forget what was begun; it was not wanted."""
        coming, self._coming = self._coming, None
        if coming is not None and coming[1].exception() is None:
            self._spare = coming[1].result().tensors


@dataclass(frozen=True)
class _Standing:
    """What lies on the bench: a checkpoint on a device, and its weights as read."""

    checkpoint: Checkpoint
    weights: HostWeights
    device: str


class Bench:
    """One checkpoint at a time on one device: loaded once for all work on it, its weights put back before each piece.

    The next is loaded into the standing model where the architecture is the same; a family whose tensors `transformers`
    renames when it loads them (GPT-NeoX) is loaded anew. Memory: the model on the device, and on the host its weights
    and those of the checkpoint that is read ahead.

    Args:
        order: folders in the order in which they will be asked for; the one after the present is read ahead.
    """

    def __init__(self, order: tuple[Path, ...] = ()) -> None:
        self._after = dict(pairwise(order))
        self._reader: ReadAhead | None = None
        self._standing: _Standing | None = None

    def checkpoint(self, path: Path | str, *, device: str = "cpu") -> Checkpoint:
        """The checkpoint of a folder, with the weights that its files had when they were read, in evaluation mode.

        What an earlier caller did to the model it was given is undone: use one at a time. Raises as `load_checkpoint`
        does; the checkpoint asked for next is not touched by that.
        """
        path = Path(path)
        if self._reader is None:
            self._reader = ReadAhead(pinned=torch.device(device).type == "cuda")
        now, self._standing = self._standing, None  # whatever fails leaves nothing half changed behind
        if now is not None and now.device == device and now.checkpoint.path == path:
            now.checkpoint.model.zero_grad(set_to_none=True)
            reload(now.checkpoint.model.eval(), now.weights)
        else:
            before, now = now, None
            now = None if before is None else self._renewed(self._reader, before, path, device)
            del before  # the old model goes before another is made
            if now is None:
                self._reader.start(path)
                now = _Standing(load_checkpoint(path, device=device), self._reader.take(path), device)
        self._standing = now
        following = self._after.get(path)
        if following is not None and is_checkpoint(following):
            self._reader.start(following)
        return now.checkpoint

    def close(self) -> None:
        """Let the model go and end the reading."""
        self._standing = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _renewed(self, reader: ReadAhead, old: _Standing, path: Path, device: str) -> _Standing | None:
        """The next checkpoint in the standing model; None where that does not fit, or loading should say why not."""
        reader.give_back(old.weights)
        if old.device != device or not same_architecture(old.checkpoint.path, path):
            return None
        weights, model = reader.take(path), old.checkpoint.model
        model.zero_grad(set_to_none=True)
        try:
            reload(model.eval(), weights)
        except UserError:
            return None
        with quiet():
            tokenizer = load_tokenizer(path)
        facts = loaded_facts(path, model, tokenizer)
        loaded = Checkpoint(model=model, tokenizer=tokenizer, sha256=weights.sha256, path=path, facts=facts)
        return _Standing(loaded, weights, device)
