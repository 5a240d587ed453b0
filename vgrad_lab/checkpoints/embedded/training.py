"""The pretraining loop of the embedded ladder: torch and transformers are imported here, not in `pretrain`."""

import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

from vgrad_lab.checkpoints.atomic import new_folder
from vgrad_lab.checkpoints.embedded.mixture import Mixture, draw_batch
from vgrad_lab.checkpoints.embedded.optim import (
    build_optimisers,
    learning_rate_factor,
    load_state,
    save_state,
    set_learning_rate,
)
from vgrad_lab.checkpoints.embedded.pretrain import RESUME_PREFIX, TRAINING_FILE, LadderSettings, checkpoint_steps
from vgrad_lab.checkpoints.embedded.tokenizer import END_ID, PAD_ID
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import is_checkpoint, rung_name
from vgrad_lab.checkpoints.loading import quiet

EMA_DECAY = 0.95


@dataclass(frozen=True)
class Position:
    """Where training stands: steps done and the running mean of the training loss (nats per token)."""

    step: int
    loss: float | None


def build_model(settings: LadderSettings) -> Any:
    """The model with random weights, drawn from the seed without touching torch's global generator.

    Embeddings are N(0, 1) and OLMo-2's post-norm weights 0.5, where the library has N(0, 0.02²) and 1: otherwise
    unit-rms block outputs bury the token identity, and copying emerges late.
    """
    own = {"layer_norm_eps": 1e-5} if settings.family == "gpt_neox" else {"rms_norm_eps": 1e-6}
    config = AutoConfig.for_model(
        settings.family,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.intermediate,
        vocab_size=settings.vocab,
        max_position_embeddings=settings.positions,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            model.get_input_embeddings().weight.normal_()
            for layer in model.model.layers if settings.family == "olmo2" else ():
                layer.post_attention_layernorm.weight.fill_(0.5)
                layer.post_feedforward_layernorm.weight.fill_(0.5)
    return model


def train(settings: LadderSettings, mixture: Mixture, folder: Path, *, progress: bool, threads: int) -> None:
    """Train from the newest checkpoint that can be resumed to the end, saving every checkpoint on the way.

    Raises:
        UserError: the loss is not finite, or there is no such device.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = _placed(build_model(settings), settings.device)
        optimisers = build_optimisers(model, settings)
        position = _resume(settings, folder, model, optimisers)
        _loop(settings, mixture, folder, model, optimisers, position, progress)
    finally:
        torch.set_num_threads(threads_before)


def _loop(
    settings: LadderSettings,
    mixture: Mixture,
    folder: Path,
    model: Any,
    optimisers: tuple[Optimizer, ...],
    position: Position,
    progress: bool,
) -> None:
    """Optimiser steps and checkpoints from a position to the end."""
    model.train()
    saved = set(checkpoint_steps(settings))
    steps = range(position.step + 1, settings.steps + 1)
    bar = tqdm(steps, "pretraining", settings.steps, initial=position.step, disable=None if progress else True)
    mean = position.loss
    for step in bar:
        set_learning_rate(optimisers, learning_rate_factor(settings, step))
        loss = _step(settings, model, optimisers, draw_batch(mixture, settings, step))
        _check_loss("training", loss, step)
        mean = loss if mean is None else EMA_DECAY * mean + (1 - EMA_DECAY) * loss
        if step in saved:
            _save(settings, mixture, folder, model, optimisers, Position(step, mean))
            bar.set_postfix(loss=f"{mean:.3f}")


def _step(
    settings: LadderSettings, model: Any, optimisers: tuple[Optimizer, ...], rows: Int64[ndarray, "B T1"]
) -> float:
    """One forward, backward and optimiser step; the loss before it, in nats per token."""
    with _products(settings):
        loss = _loss(model, rows)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return float(loss.item())


def _loss(model: Any, rows: Int64[ndarray, "B T1"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of each row's tokens behind the first, given all before them."""
    tokens = torch.from_numpy(rows).to(model.device)
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _placed(model: Any, device: str) -> Any:
    """The model on the device."""
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # an unknown name; torch without that device
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"there is no device {device!r}; give cpu, or run where there is one ({reason})") from error


def _products(settings: LadderSettings) -> AbstractContextManager[object]:
    """The precision of the products inside; nothing at all for float32."""
    if settings.precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16)


def _check_loss(kind: str, loss: float, step: int) -> None:
    """Stop at NaN or infinity, before anything of it is saved."""
    if not math.isfinite(loss):
        raise UserError(f"the {kind} loss is {loss} at step {step}; lower muon_lr and adam_lr, or raise warmup")


def _save(
    settings: LadderSettings,
    mixture: Mixture,
    folder: Path,
    model: Any,
    optimisers: tuple[Optimizer, ...],
    position: Position,
) -> None:
    """Publish the optimisers' state, then the checkpoint, and only then drop the state before."""
    name = rung_name(position.step)
    model.eval()
    with torch.no_grad(), _products(settings):
        validation = float(_loss(model, mixture.validation).item())
    model.train()
    _check_loss("validation", validation, position.step)
    facts = {
        "step": position.step,
        "train_loss": position.loss,
        "validation_loss": validation,
        "tokens": position.step * settings.batch * settings.length,
        "corpus_sha256": mixture.corpus_sha256,
    }
    state = folder / f"{RESUME_PREFIX}{name}.safetensors"
    save_state(state, optimisers)
    with new_folder(folder / name) as temporary, quiet():
        model.save_pretrained(temporary)
        mixture.tokenizer.save_pretrained(temporary)
        (temporary / TRAINING_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for old in folder.glob(f"{RESUME_PREFIX}*"):
        if old != state:
            old.unlink()


def _resume(settings: LadderSettings, folder: Path, model: Any, optimisers: tuple[Optimizer, ...]) -> Position:
    """Restore model and optimisers from the newest checkpoint that has its state and all checkpoints before it."""
    found = Position(0, None)
    for step in checkpoint_steps(settings):
        checkpoint, state = folder / rung_name(step), folder / f"{RESUME_PREFIX}{rung_name(step)}.safetensors"
        if not is_checkpoint(checkpoint):
            break
        if state.is_file():
            facts = json.loads((checkpoint / TRAINING_FILE).read_text(encoding="utf-8"))
            found = Position(step, facts["train_loss"])
    if found.step:
        weights = load_file(folder / rung_name(found.step) / "model.safetensors")
        model.load_state_dict(weights)
        load_state(folder / f"{RESUME_PREFIX}{rung_name(found.step)}.safetensors", optimisers)
    return found
