"""Load one checkpoint from a folder, or say in one line why it cannot be loaded."""

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import is_checkpoint

CHUNK = 1 << 22
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Args:
        model: a `transformers` causal language model in evaluation mode.
        tokenizer: its tokenizer.
        sha256: identity of the weights, see `content_identity`.
        path: the folder it came from.
    """

    model: Any
    tokenizer: Any
    sha256: str
    path: Path


def content_identity(path: Path | str) -> str:
    """SHA-256 over names and bytes of the safetensors files, in the order of their names.

    Two folders with equal weights in equal files have equal identity, wherever they lie and whatever else they hold.
    """
    total = hashlib.sha256()
    for file in sorted(Path(path).glob("*.safetensors")):
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        total.update(f"{file.name}\0{digest.hexdigest()}\n".encode())
    return total.hexdigest()


def load_checkpoint(
    path: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Checkpoint:
    """Model and tokenizer of a folder: from local safetensors only, and never with code from the folder.

    Args:
        path: folder with config.json, *.safetensors and a tokenizer.
        dtype: type of the weights after loading; float16 overflows in OLMo-like models and is refused.
        device: where the model goes.

    Raises:
        UserError: dtype is float16, the path is missing or no checkpoint, the weights are only in `.bin` files,
            damaged, incomplete, superfluous or not finite, or the tokenizer is missing.
    """
    path = Path(path)
    if dtype == torch.float16:
        raise UserError("dtype float16 overflows to NaN in OLMo-like models; choose float32 (to measure) or bfloat16")
    _check_folder(path)
    with quiet():
        model, info = _load_model(path, dtype)
        tokenizer = _load_tokenizer(path)
    _check_keys(path, info)
    _check_finite(path, model)
    return Checkpoint(model=model.to(device).eval(), tokenizer=tokenizer, sha256=content_identity(path), path=path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings of `transformers` in a block; what they would say is checked, not printed."""
    log = transformers.utils.logging
    bars, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _check_folder(path: Path) -> None:
    """Refuse what is no checkpoint folder, before any library touches it."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"checkpoint {path} {what}; expected a folder with config.json and *.safetensors")
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path} is no checkpoint: it has no config.json; give a folder written by `save_pretrained` "
            "(for a ladder, one of its step<number> folders)"
        )
    if not is_checkpoint(path):
        found = "only .bin weights" if any(path.glob("*.bin")) else "no weights"
        raise UserError(
            f"{path} has {found}; expected *.safetensors (.bin files can run code when loaded and are not read); "
            "convert with `model.save_pretrained(folder)` in an environment you trust"
        )
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError, struct.error) as error:
            raise UserError(f"{file} is damaged ({error}); download or write the checkpoint again") from error


def _load_model(path: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """Model and loading report."""
    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} cannot be loaded as a causal language model ({reason}); "
            "check that config.json belongs to these weights"
        ) from error


def _load_tokenizer(path: Path) -> Any:
    """Tokenizer of the folder."""
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(
            f"{path} has no tokenizer ({', '.join(TOKENIZER_FILES[:3])}, …); save one beside the weights with "
            "`tokenizer.save_pretrained(folder)`"
        )
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust tokenizer raises bare Exception for a damaged file
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the tokenizer in {path} cannot be loaded ({reason}); save it again") from error


def _check_keys(path: Path, info: dict[str, Any]) -> None:
    """Refuse weights that do not match the model one to one."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in info.get(kind) or ())
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(
                f"weights in {path} do not fit the model of config.json: {kind.replace('_', ' ')} {shown}; "
                "check that both files come from the same checkpoint"
            )


def _check_finite(path: Path, model: Any) -> None:
    """Refuse NaN and infinity, and name the tensor."""
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"tensor {name} in {path} holds NaN or infinity; this checkpoint is broken, leave it out")
