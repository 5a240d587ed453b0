"""Weights put into a standing model: bit for bit what loading gives, refused as loading refuses."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny_models
from tests.checkpoints.taught import TASK
from vgrad_lab.checkpoints import grpo, reload
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint, content_identity, load_checkpoint, quiet

NARROW: dict[str, Any] = {"head_dim": 8}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("Olmo2", {}), ("Llama", {}), ("Llama", {"tie_word_embeddings": True}), ("Qwen2", {"tie_word_embeddings": True}),
    ("Qwen3", NARROW), ("Gemma", NARROW),
]  # fmt: skip


def saved(folder: Path, family: str = "Olmo2", *, seed: int = 0, shard: str = "5GB", **changes: Any) -> Path:
    """A checkpoint folder, in shards of at most this size."""
    with quiet():
        tiny_models.model(family, seed=seed, **changes).save_pretrained(folder, max_shard_size=shard)
        tiny_models.tokenizer().save_pretrained(folder)
    return folder


def equal(a: Any, b: Any) -> bool:
    """Whether two models have equal weights and buffers, bit for bit."""
    pairs = zip([*a.named_parameters(), *a.named_buffers()], [*b.named_parameters(), *b.named_buffers()], strict=True)
    return all(m == n and x.dtype == y.dtype and torch.equal(x, y) for (m, x), (n, y) in pairs)


@pytest.mark.parametrize(("family", "changes"), CASES, ids=lambda x: str(x) if isinstance(x, str) else "-".join(x))
def test_reloaded_is_loaded(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """One file into a model, then shards of other weights: each time the model that loading gives."""
    model = load_checkpoint(saved(tmp_path / "a", family, seed=0, **changes)).model
    head = model.get_output_embeddings().weight
    for seed, shard in ((1, "20KB"), (2, "5GB")):
        path = saved(tmp_path / str(seed), family, seed=seed, shard=shard, **changes)
        assert (path / reload.INDEX).is_file() == (shard == "20KB")
        weights = reload.read_weights(path)
        reload.reload(model, weights)
        assert weights.sha256 == content_identity(path)
        assert equal(model, load_checkpoint(path).model)
    assert model.get_output_embeddings().weight is head
    tied = model.get_input_embeddings().weight is head
    assert tied == bool(changes.get("tie_word_embeddings", family == "Gemma"))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.bfloat16])
def test_the_type_is_the_models(stored: torch.dtype, loaded: torch.dtype, tmp_path: Path) -> None:
    model = load_checkpoint(saved(tmp_path / "a"), dtype=loaded).model
    with quiet():
        path = saved(tmp_path / "b", seed=3)
        tiny_models.model(seed=3).to(stored).save_pretrained(path)
    reload.reload(model, reload.read_weights(path))
    assert equal(model, load_checkpoint(path, dtype=loaded).model)


def test_buffers_of_an_earlier_read_are_used_again(tmp_path: Path) -> None:
    first = reload.read_weights(saved(tmp_path / "a", seed=0))
    places = {name: x.data_ptr() for name, x in first.tensors.items()}
    second = reload.read_weights(saved(tmp_path / "b", seed=1), into=first.tensors)
    assert {name: x.data_ptr() for name, x in second.tensors.items()} == places
    assert all(torch.equal(x, load_file(tmp_path / "b" / reload.SINGLE)[n]) for n, x in second.tensors.items())
    other = reload.read_weights(saved(tmp_path / "c", hidden_size=8), into=second.tensors)
    assert all(torch.equal(x, load_file(tmp_path / "c" / reload.SINGLE)[n]) for n, x in other.tensors.items())


def test_memory_is_that_of_the_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", shard="20KB")
    held = sum(x.numel() * x.element_size() for x in reload.read_weights(path).tensors.values())
    assert held == json.loads((path / reload.INDEX).read_text(encoding="utf-8"))["metadata"]["total_size"]


def change(path: Path, name: str, edit: Any) -> None:
    """Rewrite one tensor of a single file, or take it out (None)."""
    tensors = load_file(path / reload.SINGLE)
    made = edit(tensors.pop(name).clone())
    save_file(tensors if made is None else tensors | {name: made}, path / reload.SINGLE, metadata={"format": "pt"})


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x: None, f"do not fit the model of config.json: missing keys {NORM}"),
        (lambda x: x[:-1].clone(), f"mismatched keys {NORM}"),
        (lambda x: x.index_fill(0, torch.tensor([3]), float("nan")), f"tensor {NORM} in .* holds NaN or infinity"),
        (lambda x: x.index_fill(0, torch.tensor([3]), float("inf")), f"tensor {NORM} in .* holds NaN or infinity"),
    ],
    ids=["missing", "shape", "nan", "inf"],
)
def test_refused_as_loading_refuses(edit: Any, message: str, tmp_path: Path) -> None:
    model = load_checkpoint(saved(tmp_path / "a")).model
    path = saved(tmp_path / "b", seed=1)
    change(path, NORM, edit)
    weights = reload.read_weights(path)
    with pytest.raises(UserError, match=message):
        reload.reload(model, weights)
    if "NaN" not in message:
        assert equal(model, load_checkpoint(tmp_path / "a").model)


def test_a_name_too_many_is_refused(tmp_path: Path) -> None:
    model = load_checkpoint(saved(tmp_path / "a")).model
    path = saved(tmp_path / "b", seed=1)
    save_file(load_file(path / reload.SINGLE) | {"extra": torch.zeros(2)}, path / reload.SINGLE)
    weights = reload.read_weights(path)
    with pytest.raises(UserError, match="unexpected keys extra"):
        reload.reload(model, weights)


def test_tied_tensors_that_differ_in_the_file_are_refused(tmp_path: Path) -> None:
    model = load_checkpoint(saved(tmp_path / "a", "Qwen2", tie_word_embeddings=True)).model
    path = saved(tmp_path / "b", "Qwen2", seed=1, tie_word_embeddings=True)
    tensors = load_file(path / reload.SINGLE)
    both = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(both, path / reload.SINGLE, metadata={"format": "pt"})
    reload.reload(model, reload.read_weights(path))
    assert torch.equal(model.lm_head.weight, both["lm_head.weight"])
    save_file(both | {"lm_head.weight": both["lm_head.weight"] + 1}, path / reload.SINGLE, metadata={"format": "pt"})
    weights = reload.read_weights(path)
    with pytest.raises(UserError, match="mismatched keys (lm_head|model.embed_tokens)"):
        reload.reload(model, weights)


def damage(path: Path, how: str) -> None:
    """Spoil a sharded checkpoint."""
    shard = sorted(path.glob("model-*.safetensors"))[1]
    if how == "missing":
        shard.unlink()
    elif how == "short":
        shard.write_bytes(shard.read_bytes()[:-40])
    elif how == "header":
        shard.write_bytes(b"\x00" * 40 + shard.read_bytes()[40:])
    elif how == "index":
        (path / reload.INDEX).write_text("{", encoding="utf-8")
    elif how == "map":
        (path / reload.INDEX).write_text('{"weight_map": []}', encoding="utf-8")
    else:
        (path / reload.INDEX).unlink()


DAMAGE = {
    "missing": "lacks model-00002-of-.*, which its index names",
    "short": "is damaged", "header": "is damaged", "index": "index.json is damaged", "map": "index.json is damaged",
    "none": "has neither model.safetensors nor",
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_folder_is_named(how: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a", shard="20KB")
    damage(path, how)
    with pytest.raises(UserError, match=DAMAGE[how]):
        reload.read_weights(path)


def test_architectures_are_told_apart_by_what_the_model_is(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a"), saved(tmp_path / "b", seed=1)
    config = json.loads((b / "config.json").read_text(encoding="utf-8"))
    (b / "config.json").write_text(json.dumps(config | {"transformers_version": "0", "dtype": "bfloat16"}))
    assert reload.same_architecture(a, b)
    (b / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert not reload.same_architecture(a, b)
    for content in ("{", "[]"):
        (b / "config.json").write_text(content)
        assert not reload.same_architecture(a, b)
    assert not reload.same_architecture(a, tmp_path / "nowhere")


@pytest.fixture
def ladder(tmp_path: Path) -> list[Path]:
    """Three rungs of one architecture, the second in shards."""
    shards = ("5GB", "20KB", "5GB")
    return [saved(tmp_path / f"step{i}", seed=i, shard=s, initializer_range=0.2) for i, s in enumerate(shards)]


def spoil(found: Checkpoint) -> None:
    """Train a checkpoint, and leave it in a bad state."""
    settings = grpo.GrpoSettings(prompts=2, budgets=(1,), evaluation_prompts=4, learning_rate=0.1)
    grpo.train(found, TASK, settings, seed=0)
    found.model.train()
    for p in found.model.parameters():
        p.grad = torch.ones_like(p)


def test_a_bench_gives_every_caller_the_checkpoint_as_loaded(ladder: list[Path]) -> None:
    """The same model throughout, its weights those of the files after any use of it; facts and identity as loaded."""
    bench = reload.Bench(tuple(ladder))
    models = set()
    for path in (ladder[0], ladder[0], ladder[1], ladder[1], ladder[2], ladder[0]):
        found, expected = bench.checkpoint(path), load_checkpoint(path)
        assert equal(found.model, expected.model)
        assert (found.sha256, found.path, found.facts) == (expected.sha256, path, expected.facts)
        assert not any(m.training for m in found.model.modules())
        assert all(p.grad is None for p in found.model.parameters())
        models.add(id(found.model))
        spoil(found)
    assert len(models) == 1
    bench.close()


def test_work_on_a_bench_equals_work_after_loading(ladder: list[Path]) -> None:
    settings = grpo.GrpoSettings(prompts=4, budgets=(2,), evaluation_prompts=16, learning_rate=1e-2)
    bench = reload.Bench(tuple(ladder))
    for path in ladder[:2]:
        bench_runs = [grpo.train(bench.checkpoint(path), TASK, settings, seed=s) for s in (0, 1, 0)]
        fresh = [grpo.train(load_checkpoint(path), TASK, settings, seed=s) for s in (0, 1, 0)]
        assert bench_runs == fresh
    bench.close()


def test_a_bench_loads_another_architecture_anew(ladder: list[Path], tmp_path: Path) -> None:
    bench, other = reload.Bench(), saved(tmp_path / "other", "GPTNeoX")
    first = bench.checkpoint(ladder[0]).model
    second = bench.checkpoint(other).model
    assert type(second).__name__ == "GPTNeoXForCausalLM"
    renamed = saved(tmp_path / "renamed", "GPTNeoX", seed=4)  # loading renames a tensor: the bench loads it anew
    assert equal(bench.checkpoint(renamed).model, load_checkpoint(renamed).model)
    third = bench.checkpoint(ladder[0]).model
    assert third is not first
    assert equal(third, load_checkpoint(ladder[0]).model)
    bench.close()


@pytest.mark.parametrize("how", ["missing", "short", "header", "nan", "tokenizer", "config", "gone"])
def test_a_bad_rung_is_refused_and_the_next_is_well(how: str, ladder: list[Path]) -> None:
    if how == "nan":
        change(ladder[2], NORM, lambda x: x * float("nan"))
    elif how == "tokenizer":
        (ladder[1] / "tokenizer.json").unlink()
    elif how == "config":
        (ladder[1] / "config.json").write_text("{", encoding="utf-8")
    elif how == "gone":
        shutil.rmtree(ladder[1])
    else:
        damage(ladder[1], how)
    bad = ladder[2] if how == "nan" else ladder[1]
    good = ladder[1] if how == "nan" else ladder[2]
    bench = reload.Bench((ladder[0], bad, good))
    bench.checkpoint(ladder[0])
    for _ in range(2):
        with pytest.raises(UserError):
            bench.checkpoint(bad)
    assert equal(bench.checkpoint(good).model, load_checkpoint(good).model)
    bench.close()


def test_the_next_checkpoint_is_read_while_the_present_is_in_use(
    ladder: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read of the second begins before it is asked for, in a thread, and happens once."""
    begun, read = {path: threading.Event() for path in ladder}, reload.read_weights
    calls: list[tuple[Path, bool]] = []

    def watched(path: Path, **rest: Any) -> reload.HostWeights:
        calls.append((path, threading.current_thread() is threading.main_thread()))
        begun[path].set()
        return read(path, **rest)

    monkeypatch.setattr(reload, "read_weights", watched)
    bench = reload.Bench(tuple(ladder))
    bench.checkpoint(ladder[0])
    assert begun[ladder[1]].wait(30)
    bench.checkpoint(ladder[1])
    bench.checkpoint(ladder[1])
    assert begun[ladder[2]].wait(30)
    bench.close()
    assert calls == [(path, False) for path in ladder]


def test_what_was_begun_and_is_not_wanted_is_dropped(ladder: list[Path]) -> None:
    reader = reload.ReadAhead()
    damage(ladder[1], "short")
    reader.start(ladder[1])
    assert reader.take(ladder[2]).path == ladder[2]
    with pytest.raises(UserError, match="is damaged"):
        reader.take(ladder[1])
    assert reader.take(ladder[0]).path == ladder[0]
    reader.close()
