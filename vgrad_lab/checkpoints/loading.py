"""Load one checkpoint from a folder, or say in one line why it cannot be loaded."""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import is_checkpoint
from vgrad_lab.checkpoints.post_load import loaded_facts

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
        facts: what the post-load check saw, for the record, see `loaded_facts`.
    """

    model: Any
    tokenizer: Any
    sha256: str
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


def content_identity(path: Path | str) -> str:
    """SHA-256 over names and bytes of the safetensors files (of the `.bin` files where there are none), by name.

    Two folders with equal weights in equal files have equal identity, wherever they lie and whatever else they hold.
    """
    total = hashlib.sha256()
    files = sorted(Path(path).glob("*.safetensors")) or sorted(Path(path).glob("*.bin"))
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        total.update(f"{file.name}\0{digest.hexdigest()}\n".encode())
    return total.hexdigest()


def load_checkpoint(
    path: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    device_map: str | dict[str, Any] | None = None,
    allow_bin: bool = False,
) -> Checkpoint:
    """Model and tokenizer of a folder: from local safetensors only, and never with code from the folder.

    Args:
        path: folder with config.json, *.safetensors and a tokenizer.
        dtype: type of the weights after loading; float16 overflows in OLMo-like models and is refused. What bfloat16
            costs is measured by `post_load.bfloat16_error`.
        device: where the model goes.
        device_map: places of the layers of a model larger than one device, such as `auto`; needs `accelerate`, and
            `device` is not used then.
        allow_bin: read `.bin` files where there are no safetensors, as tensors alone (`weights_only`).

    Raises:
        UserError: dtype is float16, the path is missing or no checkpoint, the weights are only in `.bin` files and that
            is not allowed, damaged, incomplete, superfluous or not finite, the tokenizer is missing, or the model's
            RoPE base or loss is not what config.json and finite weights should give.
    """
    path = Path(path)
    if dtype == torch.float16:
        raise UserError("dtype float16 overflows to NaN in OLMo-like models; choose float32 (to measure) or bfloat16")
    _check_folder(path, allow_bin=allow_bin)
    with quiet():
        model, info = _load_model(path, dtype, device_map)
        tokenizer = load_tokenizer(path)
    check_keys(path, info)
    check_finite(path, model)
    model = (model if device_map is not None else model.to(device)).eval()
    facts = loaded_facts(path, model, tokenizer)
    return Checkpoint(model=model, tokenizer=tokenizer, sha256=content_identity(path), path=path, facts=facts)


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


def _check_folder(path: Path, *, allow_bin: bool) -> None:
    """Refuse what is no checkpoint folder, before any library touches it."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"checkpoint {path} {what}; expected a folder with config.json and *.safetensors")
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path} is no checkpoint: it has no config.json; give a folder written by `save_pretrained` "
            "(for a ladder, one of its step<number> folders)"
        )
    if not is_checkpoint(path) and not (allow_bin and any(path.glob("*.bin"))):
        found = "only .bin weights" if any(path.glob("*.bin")) else "no weights"
        raise UserError(
            f"{path} has {found}; expected *.safetensors (.bin files can run code when loaded and are not read); "
            "convert with `model.save_pretrained(folder)` in an environment you trust, or pass allow_bin=True to read "
            "them as tensors alone"
        )
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError, struct.error) as error:
            raise UserError(f"{file} is damaged ({error}); download or write the checkpoint again") from error


def _load_model(path: Path, dtype: torch.dtype, device_map: str | dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Model and loading report."""
    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=is_checkpoint(path),
            weights_only=True,
            device_map=device_map,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever a library makes of a damaged file
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} cannot be loaded as a causal language model ({reason}); "
            "check that config.json belongs to these weights"
        ) from error


def load_tokenizer(path: Path) -> Any:
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


def check_keys(path: Path, info: dict[str, Any]) -> None:
    """Refuse weights that do not match the model one to one."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in info.get(kind) or ())
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(
                f"weights in {path} do not fit the model of config.json: {kind.replace('_', ' ')} {shown}; "
                "check that both files come from the same checkpoint"
            )


def check_finite(path: Path, model: Any) -> None:
    """Refuse NaN and infinity, and name the tensor."""
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"tensor {name} in {path} holds NaN or infinity; this checkpoint is broken, leave it out")
