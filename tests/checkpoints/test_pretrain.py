"""The embedded ladder: resumed after any crash it has the same bytes; finished it is left alone; others are refused."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.optim import Muon

from vgrad_lab.checkpoints.atomic import TEMPORARY, new_folder, write_file
from vgrad_lab.checkpoints.embedded import training
from vgrad_lab.checkpoints.embedded.mixture import build_mixture
from vgrad_lab.checkpoints.embedded.optim import build_optimisers, learning_rate_factor
from vgrad_lab.checkpoints.embedded.pretrain import (
    TINY,
    LadderSettings,
    checkpoint_steps,
    pretrain,
    settings_identity,
)
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

SCRIPT = """
import sys
from vgrad_lab.checkpoints.embedded.pretrain import TINY, pretrain
rungs = pretrain(TINY, sys.argv[1], progress=False, threads=1)
print(len(rungs), "torch" in sys.modules)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def ladder(tiny_ladder: Path, tmp_path: Path) -> Path:
    """A copy of the finished ladder that may be damaged."""
    return Path(shutil.copytree(tiny_ladder, tmp_path / "ladder"))


def test_ladder_is_finished_and_clean(tiny_ladder: Path) -> None:
    assert sorted(path.name for path in tiny_ladder.iterdir()) == [
        "settings.json", "step000010", "step000020", "step000030", "step000040",
    ]  # fmt: skip
    losses = []
    for rung in list_rungs(tiny_ladder):
        facts = json.loads((rung.path / "training.json").read_text())
        assert facts["step"] == rung.step
        assert facts["tokens"] == rung.step * TINY.batch * TINY.length
        losses.append(facts["validation_loss"])
    assert losses[-1] < losses[0] < math.log(TINY.vocab) + 1
    recorded = json.loads((tiny_ladder / "settings.json").read_text())
    assert recorded["identity"] == settings_identity(TINY)
    assert recorded["corpus_sha256"] == facts["corpus_sha256"]


def test_validation_loss_is_that_of_the_saved_model(tiny_ladder: Path) -> None:
    rows = torch.from_numpy(build_mixture(TINY).validation)
    model = load_checkpoint(tiny_ladder / "step000030").model
    with torch.no_grad():
        loss = model(input_ids=rows, labels=rows).loss.item()
    facts = json.loads((tiny_ladder / "step000030" / "training.json").read_text())
    assert facts["validation_loss"] == pytest.approx(loss, rel=PLANTED_FAULT / 10)


@pytest.mark.parametrize("place", ["before state", "behind state", "in checkpoint", "behind checkpoint"])
def test_crash_in_the_third_save(
    place: str, tiny_ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in a save the process dies, the next call ends with the bytes of a run without interruption."""
    crash = KeyboardInterrupt(place)
    save_state, publish, count = training.save_state, training.new_folder, iter(range(99))

    def state(path: Path, optimisers: tuple[torch.optim.Optimizer, ...]) -> None:
        third = next(count) == 2
        if third and place == "before state":
            raise crash
        save_state(path, optimisers)
        if third and place == "behind state":
            raise crash

    @contextmanager
    def folder(path: Path) -> Iterator[Path]:
        with publish(path) as temporary:
            yield temporary
            if path.name == "step000030" and place == "in checkpoint":
                shutil.copytree(temporary, path.with_name(f"{TEMPORARY}{path.name}-0"))
                raise crash
        if path.name == "step000030" and place == "behind checkpoint":
            raise crash

    monkeypatch.setattr(training, "save_state", state)
    monkeypatch.setattr(training, "new_folder", folder)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TINY, tmp_path, progress=False, threads=1)
    assert len(list_rungs(tmp_path)) == (3 if place == "behind checkpoint" else 2)
    monkeypatch.undo()
    drawn = []
    batches = training.draw_batch
    monkeypatch.setattr(training, "draw_batch", lambda m, s, step: (drawn.append(step), batches(m, s, step))[1])
    pretrain(TINY, tmp_path, progress=False, threads=1)
    assert drawn[0] == (31 if place == "behind checkpoint" else 21)
    assert contents(tmp_path) == contents(tiny_ladder)


def test_killed_process(tiny_ladder: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment behind the first checkpoint, in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "step000010").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list_rungs(tmp_path)[0].step == 10
    pretrain(TINY, tmp_path, progress=False, threads=1)
    assert contents(tmp_path) == contents(tiny_ladder)


def test_finished_ladder_is_left_alone(tiny_ladder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_ladder.rglob("*")}
    run = subprocess.run([sys.executable, "-c", SCRIPT, str(tiny_ladder)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["4", "False"]
    assert {path: path.stat().st_mtime_ns for path in tiny_ladder.rglob("*")} == before


def test_lost_checkpoint_is_made_again(ladder: Path, tiny_ladder: Path) -> None:
    shutil.rmtree(ladder / "step000020")
    pretrain(TINY, ladder, progress=False, threads=1)
    assert contents(ladder) == contents(tiny_ladder)


def test_other_seed_is_another_ladder(tmp_path: Path, tiny_ladder: Path) -> None:
    short = replace(TINY, seed=1, steps=2, every=1)
    assert [rung.step for rung in pretrain(short, tmp_path / "a" / "b", progress=False, threads=1)] == [1, 2]
    first = [
        load_checkpoint(folder).sha256 for folder in (tmp_path / "a" / "b" / "step000001", tiny_ladder / "step000010")
    ]
    assert first[0] != first[1]


def test_other_settings_are_refused(tiny_ladder: Path) -> None:
    with pytest.raises(UserError, match=r"other settings \(seed 0 there, 1 asked; steps 40 there, 50 asked\)"):
        pretrain(replace(TINY, seed=1, steps=50), tiny_ladder)


@pytest.mark.parametrize("kind", ["corpus", "data"])
def test_other_text_is_refused(kind: str, ladder: Path) -> None:
    recorded = json.loads((ladder / "settings.json").read_text())
    (ladder / "settings.json").write_text(json.dumps({**recorded, f"{kind}_sha256": "0", "python": "3.99.0"}))
    assert len(pretrain(TINY, ladder)) == 4
    shutil.rmtree(ladder / "step000040")
    with pytest.raises(UserError, match=rf"begun with Python 3.99.0 on other text \({kind} differs .*new folder"):
        pretrain(TINY, ladder, threads=1)


def test_other_thread_count_is_refused_for_an_unfinished_ladder(ladder: Path) -> None:
    assert len(pretrain(TINY, ladder, threads=2)) == 4
    shutil.rmtree(ladder / "step000040")
    with pytest.raises(UserError, match="begun with 1 threads, 2 asked"):
        pretrain(TINY, ladder, threads=2)


def test_other_folders_are_refused(tmp_path: Path, ladder: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(.*\); give a new or empty folder"):
        pretrain(TINY, tmp_path)
    with pytest.raises(UserError, match="is a file; give a folder"):
        pretrain(TINY, tmp_path / "notes.txt")
    (ladder / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings.json is damaged .*; delete"):
        pretrain(TINY, ladder)
    with pytest.raises(UserError, match="threads is 0"):
        pretrain(TINY, tmp_path / "new", threads=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps is 0; give a positive"),
        ({"seed": -1}, "neither can be negative"),
        ({"hidden": 30, "heads": 4}, "even multiple of heads"),
        ({"hidden": 12, "heads": 4}, "even multiple of heads"),
        ({"length": 300}, "exceeds positions"),
        ({"family": "lama"}, "family is 'lama'; choose one of olmo2, llama, gpt_neox"),
        ({"corpus_share": 0.95}, "must not be negative"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LadderSettings(**fields)


@pytest.mark.parametrize(("every", "kind"), [(10, "training"), (1, "validation")])
def test_divergence_is_said_and_not_saved(every: int, kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{kind} loss is (nan|inf) at step \d+; lower muon_lr and adam_lr"):
        pretrain(replace(TINY, adam_lr=1e30, warmup=0, every=every), tmp_path, progress=False, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_callers_torch_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    pretrain(replace(TINY, steps=1, every=1), tmp_path, progress=False, threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_steps_and_learning_rate() -> None:
    assert checkpoint_steps(LadderSettings()) == tuple(range(100, 2001, 100))
    assert checkpoint_steps(LadderSettings(steps=250)) == (100, 200, 250)
    assert checkpoint_steps(LadderSettings(steps=5)) == (5,)
    factors = np.array([learning_rate_factor(LadderSettings(), step) for step in range(1, 2001)])
    assert factors[[0, 24, 49]] == pytest.approx([0.02, 0.5, 1.0], rel=ALGEBRA)
    assert factors[1024] == pytest.approx(0.55, rel=ALGEBRA)
    assert factors[-1] == pytest.approx(0.1, rel=ALGEBRA)
    assert (np.diff(factors[49:]) < 0).all()


def test_initial_weights_and_optimisers() -> None:
    model = training.build_model(LadderSettings())
    assert sum(p.numel() for p in model.parameters()) == 529_632
    assert abs(model.model.embed_tokens.weight.std().item() - 1) < 0.01
    for layer in model.model.layers:
        assert (layer.post_attention_layernorm.weight == 0.5).all()
        assert (layer.post_feedforward_layernorm.weight == 0.5).all()
    muon, adam = build_optimisers(model, LadderSettings())
    assert isinstance(muon, Muon)
    matrices = {id(p) for p in muon.param_groups[0]["params"]}
    rest = {id(p) for p in adam.param_groups[0]["params"]}
    assert not matrices & rest
    assert matrices | rest == {id(p) for p in model.parameters()}
    assert matrices == {id(p) for p in model.model.layers.parameters() if p.ndim == 2}


def test_atomic_writes_leave_nothing_behind(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "old")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "b") as temporary:
        shutil.copy(tmp_path / "missing", shutil.copy(tmp_path / "a", temporary))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / f"{TEMPORARY}b-{os.getpid()}" / "left by an earlier process with this number").mkdir(parents=True)
    for content in ("one", "two"):
        with new_folder(tmp_path / "b") as temporary:
            (temporary / "file").write_text(content)
            assert not (tmp_path / "b").exists() or content == "two"
        assert contents(tmp_path / "b") == {"file": content.encode()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_other_families_have_ladders_of_their_own(family: str, tmp_path: Path) -> None:
    settings = replace(TINY, family=family, steps=4, every=2)
    assert settings_identity(settings) != settings_identity(replace(settings, family="olmo2"))
    rungs = pretrain(settings, tmp_path, progress=False, threads=1)
    assert [json.loads((r.path / "config.json").read_text())["model_type"] for r in rungs] == [family] * 2
    first, second = (load_file(r.path / "model.safetensors") for r in rungs)
    assert all(not torch.equal(first[name], second[name]) for name in first if first[name].ndim == 2)
    with pytest.raises(UserError, match=f"family {family} there, olmo2 asked"):
        pretrain(replace(settings, family="olmo2"), tmp_path, progress=False, threads=1)


def test_the_family_leaves_older_ladders_their_identity() -> None:
    assert settings_identity(LadderSettings()) == "781a535e5a12a8fb"
