"""Checkpoints of any causal family: loaded as they were, measured, trained; what cannot be right is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny_models
from vgrad_lab.checkpoints import post_load
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, train
from vgrad_lab.checkpoints.loading import content_identity, load_checkpoint, quiet
from vgrad_lab.checkpoints.post_load import bfloat16_error, fingerprint
from vgrad_lab.checkpoints.probe import MeasureSettings, measure
from vgrad_lab.checkpoints.tasks import LabelCopy

FAMILIES = ("Olmo2", "Olmo3", "Llama", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3", "GPTNeoX", "GPT2")
CAPPED = ("Gemma2",)
"""Families whose default logits are soft-capped, which the closed forms refuse."""
FEW = MeasureSettings(prompts=16, sampled_groups=4)
STEPS = GrpoSettings(prompts=8, group_size=256, budgets=(1, 2), evaluation_prompts=16)
TEXT_ENTRY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny checkpoint of a family, written once; read it, never write into it."""
    made: dict[str, Path] = {}

    def one(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            with quiet():
                model(family).save_pretrained(made[family])
                tiny_models.tokenizer().save_pretrained(made[family])
        return made[family]

    return one


def model(family: str, **changes: Any) -> Any:
    sizes = {"num_key_value_heads": 1} if family in ("Llama", "Gemma", "Gemma2", "Gemma3", "Qwen2", "Qwen3") else {}
    return tiny_models.causal(family, **{"vocab_size": 320, "max_position_embeddings": 128, **sizes, **changes})


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


@TEXT_ENTRY
def test_a_family_loads_as_it_was_saved(family: str, saved: Callable[[str], Path]) -> None:
    checkpoint, original = load_checkpoint(saved(family)), model(family)
    tokens = torch.tensor([[5, 9, 200, 17, 3, 42]])
    with torch.no_grad():
        assert torch.equal(checkpoint.model(tokens).logits, original(tokens).logits)
    facts = checkpoint.facts
    assert facts["class"] == type(original).__name__
    assert facts["dtype"] == "float32"
    assert facts["parameters"] == sum(p.numel() for p in original.parameters())
    assert facts["tied_head"] == bool(original.config.tie_word_embeddings)
    assert facts["loss_fingerprint"] == pytest.approx(fingerprint(original, tiny_models.tokenizer()), rel=1e-12)
    assert bool(facts["rope_bases"]) == (family != "GPT2")
    json.dumps(facts, allow_nan=False)


@TEXT_ENTRY
def test_a_family_is_measured_and_trained(family: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = saved(family)
    if family in CAPPED:
        with pytest.raises(UserError, match="soft-capping"):
            measure(load_checkpoint(folder), LabelCopy(), FEW)
        folder = Path(shutil.copytree(folder, tmp_path / "uncapped"))
        edit_config(folder, lambda config: config.update(final_logit_softcapping=None))
    checkpoint = load_checkpoint(folder)
    measured = measure(checkpoint, LabelCopy(), FEW)
    assert 0 < measured["reward_before"] < 1
    assert measured["signal"] > 0
    before = [p.detach().clone() for p in checkpoint.model.parameters()]
    trained = train(checkpoint, LabelCopy(), STEPS, seed=0)
    assert trained["reward_before"] == pytest.approx(measured["reward_before"], rel=1e-5)
    assert np.isfinite(trained["reward_after"]).all()
    assert not all(torch.equal(a, b) for a, b in zip(before, checkpoint.model.parameters(), strict=True))


@pytest.mark.parametrize("family", ["Olmo2", "Llama", "Qwen2", "Qwen3", "GPTNeoX"])
def test_both_spellings_of_the_rope_base_are_read(family: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    """`rope_theta` at the top (before version 5 of transformers) and `rope_parameters` give the same base."""
    folder = Path(shutil.copytree(saved(family), tmp_path / "old"))

    def old(config: dict[str, Any]) -> None:
        config.pop("rope_parameters", None)
        config["rotary_emb_base" if family == "GPTNeoX" else "rope_theta"] = 700_000
        config["rope_scaling"] = None

    edit_config(folder, old)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.facts["rope_bases"] == [700_000.0]
    if family != "GPTNeoX":  # a quarter of a head of width 8 has one frequency, which is 1 for every base
        assert checkpoint.facts["loss_fingerprint"] != load_checkpoint(saved(family)).facts["loss_fingerprint"]


@pytest.mark.parametrize(("base", "refused"), [(500_000, False), (700_000, True)])
def test_an_old_olmo3_whose_sliding_layers_take_another_base_is_refused(
    saved: Callable[[str], Path], tmp_path: Path, base: int, refused: bool
) -> None:
    folder = Path(shutil.copytree(saved("Olmo3"), tmp_path / "old"))
    edit_config(folder, lambda config: config.pop("rope_parameters"))
    edit_config(folder, lambda config: config.update(rope_theta=base, rope_scaling=None))
    if refused:
        with pytest.raises(UserError, match="was loaded with RoPE base 500000, 700000, but its config.json states 7"):
            load_checkpoint(folder)
    else:
        assert load_checkpoint(folder).facts["rope_bases"] == [500_000.0]


def test_a_base_that_the_library_drops_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """The trap: a spelling that this library does not read falls back to 10 000 in silence."""
    folder = Path(shutil.copytree(saved("Olmo2"), tmp_path / "odd"))
    edit_config(folder, lambda config: config.update(rotary_emb_base=500_000))
    with pytest.raises(UserError, match=r"was loaded with RoPE base 10000, but its config.json states 10000, 500000"):
        load_checkpoint(folder)


@pytest.mark.parametrize("error", [1.01, 0.99])
def test_frequencies_that_are_not_those_of_the_base_are_refused(saved: Callable[[str], Path], error: float) -> None:
    checkpoint = load_checkpoint(saved("Olmo2"))
    assert post_load.check_rope(checkpoint.path, checkpoint.model) == (10_000.0,)
    checkpoint.model.model.rotary_emb.inv_freq.mul_(error)
    with pytest.raises(UserError, match="was loaded with RoPE base 10000, "):
        post_load.check_rope(checkpoint.path, checkpoint.model)


def test_the_fingerprint_tells_models_apart(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """A change of 0.1 % in the weights moves it; loading again does not."""
    first, again = (load_checkpoint(saved("Llama")).facts["loss_fingerprint"] for _ in range(2))
    assert first == again
    folder = Path(shutil.copytree(saved("Llama"), tmp_path / "changed"))
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v * 1.001 for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert abs(load_checkpoint(folder).facts["loss_fingerprint"] - first) > 1e-6 * first


@TEXT_ENTRY
def test_bfloat16_has_an_error_that_is_told(family: str, saved: Callable[[str], Path]) -> None:
    exact, rough = load_checkpoint(saved(family)), load_checkpoint(saved(family), dtype=torch.bfloat16)
    assert rough.facts["dtype"] == "bfloat16"
    assert rough.facts["rope_bases"] == exact.facts["rope_bases"]
    error = bfloat16_error(exact.model, exact.tokenizer)
    assert next(exact.model.parameters()).dtype == torch.float32
    assert 0 < error["probability"] < 0.1
    assert 0 < error["logit"] < 0.5
    change = rough.facts["loss_fingerprint"] - exact.facts["loss_fingerprint"]
    assert error["loss"] == pytest.approx(change, abs=1e-2)
    assert abs(error["loss"]) < 0.05


def test_bin_weights_only_when_asked_for(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("Llama"), tmp_path / "bin"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only .bin weights.*allow_bin=True"):
        load_checkpoint(folder)
    checkpoint = load_checkpoint(folder, allow_bin=True)
    original = load_checkpoint(saved("Llama"))
    assert checkpoint.facts == original.facts
    assert checkpoint.sha256 == content_identity(folder) != original.sha256


class Evil:
    """A pickle that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_bin_weights_that_carry_code_do_not_run(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("Llama"), tmp_path / "evil"))
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load_checkpoint(folder, allow_bin=True)
    assert not (tmp_path / "ran").exists()


def test_layers_can_be_placed(saved: Callable[[str], Path]) -> None:
    placed = load_checkpoint(saved("Olmo2"), device_map={"": "cpu"})
    assert placed.facts == load_checkpoint(saved("Olmo2")).facts


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with quiet():
        model("Llama", vocab_size=20).save_pretrained(tmp_path)
        tiny_models.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="but the model knows 20"):
        load_checkpoint(tmp_path)


def test_a_loss_that_is_not_finite_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Finite weights so large that the sums overflow."""
    folder = Path(shutil.copytree(saved("Llama"), tmp_path / "large"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"].fill_(3e38)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="gives the loss nan on a plain sentence"):
        load_checkpoint(folder)
