"""What a rung holds, from metadata alone: names, sizes and hashes, config.json and the index of its shards."""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.hub_client import ask, client
from vgrad_lab.checkpoints.resolve import Ladder, NamedRung

CONFIG, INDEX, BIN_INDEX = "config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"
WEIGHTS = (".safetensors", ".bin")
SHARD = re.compile(r".+-(\d{5})-of-(\d{5})\.(safetensors|bin)")
LARGEST_TEXT = 50_000_000
"""Bytes of a text file above which it is not read."""
AT_ONCE, TIMEOUT = 8, 30


@dataclass(frozen=True)
class HubFile:
    """One file of a rung.

    Args:
        path: its name from the root of the rung.
        size: bytes.
        sha256: of its content, where the hub knows it (an LFS object) or the file is on disk; None otherwise.
        blob: git's name for it; None on disk.
    """

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None

    @property
    def identity(self) -> str:
        """Equal for equal content."""
        return self.sha256 or f"git:{self.blob}"


@dataclass(frozen=True)
class Inventory:
    """A rung's files, and what its small ones say.

    Args:
        rung: name of the rung, or `main`.
        files: all files, by path.
        config: config.json; None if there is none that can be read.
        shards: files that the index of the safetensors names; None without an index.
        bin_shards: the same for `.bin`.
        problem: why nothing is known of the rung; None when it is.
    """

    rung: str
    files: tuple[HubFile, ...] = ()
    config: dict[str, Any] | None = None
    shards: frozenset[str] | None = None
    bin_shards: frozenset[str] | None = None
    problem: str | None = None

    def file(self, path: str) -> HubFile | None:
        """The file of that name, or None."""
        return next((one for one in self.files if one.path == path), None)


def take_inventory(ladder: Ladder, *, progress: bool = False) -> tuple[Inventory, ...]:
    """Inventories of the rungs in order, and of main last where there is a main. Reads no byte of weights on a hub.

    A text file with equal content in several rungs is read once. A rung whose metadata cannot be read has a problem
    instead of files. Files of a local folder are hashed.
    """
    rungs = [*ladder.rungs, *([NamedRung(-1, "main", ladder.main)] if ladder.main else [])]
    if ladder.spec.folder is not None:
        return tuple(_from_disk(rung.name, ladder.spec.folder / rung.name) for rung in rungs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        bar = tqdm(total=len(rungs), desc="metadata", unit="rung", disable=None if progress else True)
        listed = []
        with bar:
            for one in pool.map(partial(_listing, ladder), rungs):
                listed.append(one)
                bar.update()
        texts: dict[str, tuple[str, str]] = {}
        for rung, one in zip(rungs, listed, strict=True):
            texts |= {file.identity: (rung.commit, file.path) for file in _texts(one)}
        read = dict(zip(texts, pool.map(lambda at: _text(ladder, *at), texts.values()), strict=True))
    return tuple(_with_texts(one, {file.path: read[file.identity] for file in _texts(one)}) for one in listed)


def _listing(ladder: Ladder, rung: NamedRung) -> Inventory:
    """Files of one commit."""
    hub, repository = client(ladder.endpoint), ladder.spec.repository
    question = partial(hub.model_info, repository, revision=rung.commit, files_metadata=True, timeout=TIMEOUT)
    try:
        found = ask(question, about=f"{repository} at {rung.name}").siblings or []
    except UserError as error:
        return Inventory(rung.name, problem=str(error))
    files = (
        HubFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id or f"{rung.commit}/{s.rfilename}")
        for s in found
    )
    return Inventory(rung.name, tuple(sorted(files, key=lambda file: file.path)))


def _texts(inventory: Inventory) -> Iterator[HubFile]:
    return (f for name in (CONFIG, INDEX, BIN_INDEX) if (f := inventory.file(name)) and f.size <= LARGEST_TEXT)


def _text(ladder: Ladder, commit: str, path: str) -> str | UserError:
    """A small file of a commit, or why it cannot be read."""
    from huggingface_hub import get_session, get_token, hf_hub_url, hf_raise_for_status

    repository = str(ladder.spec.repository)
    url = hf_hub_url(repository, path, revision=commit, endpoint=ladder.endpoint)
    headers = {"authorization": f"Bearer {token}"} if (token := get_token()) else {}

    def question() -> str:
        response = get_session().get(url, headers=headers, follow_redirects=True, timeout=TIMEOUT)
        hf_raise_for_status(response)
        return str(response.text)

    try:
        return ask(question, about=f"{repository} at {commit[:8]}, {path}")
    except UserError as error:
        return error


def _with_texts(inventory: Inventory, texts: dict[str, str | UserError]) -> Inventory:
    """The inventory with its text files understood; one that cannot be is the rung's problem."""
    problems = [str(text) for text in texts.values() if isinstance(text, UserError)]
    parsed: dict[str, dict[str, Any]] = {}
    for path, text in texts.items():
        if isinstance(text, str):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                parsed[path] = value
            else:
                problems.append(f"{inventory.rung}: {path} is no JSON object")
    return replace(
        inventory,
        config=parsed.get(CONFIG),
        shards=_named(parsed.get(INDEX)),
        bin_shards=_named(parsed.get(BIN_INDEX)),
        problem=inventory.problem or "; ".join(problems) or None,
    )


def _named(index: dict[str, Any] | None) -> frozenset[str] | None:
    """Files that an index of shards names."""
    names = (index or {}).get("weight_map")
    return frozenset(map(str, names.values())) if isinstance(names, dict) and names else None


def _from_disk(name: str, folder: Path) -> Inventory:
    """The inventory of a checkpoint folder; files that hold weights are hashed."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = {path.relative_to(folder).as_posix(): path for path in found}
    files = tuple(
        HubFile(key, path.stat().st_size, _sha256(path) if path.suffix in WEIGHTS else None)
        for key, path in paths.items()
    )
    inventory = Inventory(name, files)
    wanted = [file.path for file in _texts(inventory)]
    return _with_texts(inventory, {key: paths[key].read_text(encoding="utf-8", errors="replace") for key in wanted})


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Weights:
    """The files of a rung that would be loaded.

    Args:
        kind: `safetensors`, `bin`, or `none`.
        files: those that are there.
        missing: names of those that are not.
        aside: a single file that lies beside the chosen shards and is not taken.
        index: name of the index of the shards; None for a single file.
    """

    kind: str
    files: tuple[HubFile, ...] = ()
    missing: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    index: str | None = None


def choose_weights(inventory: Inventory) -> Weights:
    """Which files are the weights: shards before a single file, safetensors before `.bin`.

    Shards go first because some ladders carry main's single file beside each step's own shards. Without an index the
    numbers in the names say how many shards there must be, and the index itself counts as missing.
    """
    for kind, index, single in (("safetensors", INDEX, "model.safetensors"), ("bin", BIN_INDEX, "pytorch_model.bin")):
        named = inventory.shards if kind == "safetensors" else inventory.bin_shards
        wanted = named or _numbered(inventory, kind)
        if not wanted and inventory.file(single):
            wanted = frozenset({single})
        if not wanted:
            continue
        files = tuple(file for file in inventory.files if file.path in wanted)
        missing = wanted - {file.path for file in files}
        if named is None and wanted != {single}:
            missing |= {index}
        aside = (single,) if single not in wanted and inventory.file(single) else ()
        return Weights(kind, files, tuple(sorted(missing)), aside, None if wanted == {single} else index)
    return Weights("none")


def _numbered(inventory: Inventory, kind: str) -> frozenset[str]:
    """All names that a series such as `model-00001-of-00002.safetensors` must have; of several series, the fullest."""
    stem = "model" if kind == "safetensors" else "pytorch_model"
    counts: dict[int, int] = {}
    for file in inventory.files:
        match = SHARD.fullmatch(file.path)
        if match and match[3] == kind and file.path.startswith(f"{stem}-") and int(match[2]) > 0:
            counts[int(match[2])] = counts.get(int(match[2]), 0) + 1
    if not counts:
        return frozenset()
    total = max(counts, key=lambda n: (counts[n] / n, n))
    return frozenset(f"{stem}-{k:05d}-of-{total:05d}.{kind}" for k in range(1, total + 1))


def weights_identity(weights: Weights) -> str | None:
    """What `content_identity` of the fetched rung will be, from metadata; None where the hub gives no hash.

    SHA-256 over names and hashes of the safetensors files, in the order of their names.
    """
    if weights.kind != "safetensors" or weights.missing or not all(file.sha256 for file in weights.files):
        return None
    lines = (f"{file.path}\0{file.sha256}\n" for file in sorted(weights.files, key=lambda file: file.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


SMALL = (
    CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt",
    "chat_template.jinja",
)  # fmt: skip


def needed_files(inventory: Inventory) -> tuple[HubFile, ...]:
    """Files to fetch: the chosen weights with their index, the configuration, the tokenizer. Never code."""
    weights = choose_weights(inventory)
    names = {*SMALL, *(file.path for file in weights.files), weights.index}
    return tuple(file for file in inventory.files if file.path in names)
