"""A checkpoint loads as it was saved, or one line says why not and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.loading import Checkpoint, content_identity, load_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_rung: Rung, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_rung.path, tmp_path / "step000040"))


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite a safetensors file after an edit of its tensors."""
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_weights_and_tokenizer_come_back(tiny_checkpoint: Checkpoint, tiny_rung: Rung) -> None:
    stored = load_file(tiny_rung.path / WEIGHTS)
    state = tiny_checkpoint.model.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert not tiny_checkpoint.model.training
    assert tiny_checkpoint.path == tiny_rung.path
    assert tiny_checkpoint.model.config.rope_parameters["rope_theta"] == 10000.0
    assert tiny_checkpoint.tokenizer.decode(tiny_checkpoint.tokenizer.encode("a  b\n, c")) == "a  b\n, c"


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_checkpoint(folder)
    assert capfd.readouterr() == ("", "")


def test_dtype(folder: Path) -> None:
    model = load_checkpoint(folder, dtype=torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with pytest.raises(UserError, match="float16 overflows"):
        load_checkpoint(folder, dtype=torch.float16)


def test_identity_is_that_of_the_weights(folder: Path, tiny_rung: Rung) -> None:
    identity = content_identity(folder)
    assert identity == content_identity(tiny_rung.path) == load_checkpoint(folder).sha256
    (folder / "training.json").unlink()
    assert content_identity(folder) == identity
    change(folder / WEIGHTS, lambda tensors: tensors["lm_head.weight"][0, 0].mul_(1.001))
    assert content_identity(folder) != identity


def test_identity_covers_every_shard_and_its_name(tmp_path: Path) -> None:
    for name, shards in {"a": ("1", "2"), "b": ("2", "1"), "c": ("1",)}.items():
        (tmp_path / name).mkdir()
        for i, content in enumerate(shards):
            (tmp_path / name / f"model-{i}.safetensors").write_text(content)
    assert len({content_identity(tmp_path / name) for name in "abc"}) == 3


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; expected a folder"):
        load_checkpoint(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; expected a folder"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(UserError, match=r"no config.json; give a folder written by"):
        load_checkpoint(tmp_path)


def test_bin_weights_are_not_read(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"has no weights; expected \*.safetensors"):
        load_checkpoint(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"only .bin weights; .* convert with"):
        load_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1000])
def test_damaged_weights(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(UserError, match=r"model.safetensors is damaged .*; download or write the checkpoint again"):
        load_checkpoint(folder)


def test_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load_checkpoint(folder)


def test_code_in_the_folder_is_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a user who answers yes to whatever the library asks."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": code}))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load_checkpoint(folder)
    assert not (folder / "ran").exists()


def test_missing_tensor(folder: Path) -> None:
    change(folder / WEIGHTS, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(UserError, match=r"do not fit .* missing keys lm_head.weight"):
        load_checkpoint(folder)


def test_superfluous_tensor(folder: Path) -> None:
    change(folder / WEIGHTS, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
    with pytest.raises(UserError, match=r"do not fit .* unexpected keys extra.weight"):
        load_checkpoint(folder)


def test_tensor_of_another_shape(folder: Path) -> None:
    change(folder / WEIGHTS, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(3, 3)}))
    with pytest.raises(UserError, match=r"lm_head.weight|belongs to these weights"):
        load_checkpoint(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(folder: Path, value: float) -> None:
    change(folder / WEIGHTS, lambda tensors: tensors["model.norm.weight"][3].fill_(value))
    with pytest.raises(UserError, match=r"tensor model.norm.weight in .* holds NaN or infinity"):
        load_checkpoint(folder)


def test_tokenizer_missing_or_damaged(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be loaded .* save it again"):
        load_checkpoint(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer .*tokenizer.save_pretrained"):
        load_checkpoint(folder)


def test_message_is_one_line(folder: Path) -> None:
    change(folder / WEIGHTS, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(3, 3)}))
    with pytest.raises(UserError) as raised:
        load_checkpoint(folder)
    assert "\n" not in str(raised.value)
