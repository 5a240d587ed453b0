"""What a ladder on a GPU adds to the settings: precision, device, more text, early checkpoints; all off by default."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vgrad_lab.checkpoints.embedded import corpus
from vgrad_lab.checkpoints.embedded.corpus import corpus_texts, licences, package_folder, stdlib_texts
from vgrad_lab.checkpoints.embedded.pretrain import LATER, TINY, LadderSettings, facts, pretrain, settings_identity
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.ladders import list_rungs

SHORT = replace(TINY, steps=20, every=20)


def validation(ladder: Path) -> list[float]:
    """Validation loss of every rung."""
    return [json.loads((r.path / "training.json").read_text())["validation_loss"] for r in list_rungs(ladder)]


@pytest.fixture(scope="module")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder in bfloat16 products with an early checkpoint."""
    folder = tmp_path_factory.mktemp("rough")
    pretrain(replace(SHORT, precision="bfloat16", also=(5,)), folder, progress=False, threads=1)
    return folder


def test_defaults_leave_the_identity_and_the_file_alone() -> None:
    assert set(facts(LadderSettings())) == set(asdict(LadderSettings())) - set(LATER)
    for name, value in {"precision": "bfloat16", "device": "cuda", "packages": ("numpy",), "also": (1,)}.items():
        changed = replace(LadderSettings(), **{name: value})
        assert settings_identity(changed) != settings_identity(LadderSettings())
        assert json.loads(json.dumps(facts(changed))) == facts(changed), "a record reads back as it was"


def test_bfloat16_products_train_float32_weights(rough: Path, tmp_path: Path) -> None:
    pretrain(replace(SHORT, also=(5,)), tmp_path, progress=False, threads=1)
    assert [rung.step for rung in list_rungs(rough)] == [5, 20]
    exact, found = validation(tmp_path), validation(rough)
    assert found != exact, "the precision is used"
    assert found == pytest.approx(exact, rel=0.01)
    weights = load_file(rough / "step000020" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}


def test_an_unfinished_ladder_goes_on_with_equal_settings(rough: Path, tmp_path: Path) -> None:
    settings = replace(SHORT, precision="bfloat16", also=(5,))
    copied = Path(shutil.copytree(rough, tmp_path / "ladder"))
    shutil.rmtree(copied / "step000020")
    pretrain(settings, copied, progress=False, threads=1)
    again, first = ((f / "step000020" / "model.safetensors").read_bytes() for f in (copied, rough))
    assert again == first
    with pytest.raises(UserError, match="precision bfloat16 there, float32 asked"):
        pretrain(replace(settings, precision="float32"), copied, progress=False, threads=1)


def test_text_of_packages_follows_the_standard_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.py").write_text(f'"""{"A text of the library. " * 9}"""\n')
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda _: str(tmp_path))
    plain, package = corpus_texts(), stdlib_texts(root=package_folder("jaxtyping"))
    assert len(plain) == 1
    both = corpus_texts(packages=("jaxtyping", "jaxtyping"))
    assert both == (*plain, *package), "each text once"
    assert corpus_texts(characters=10, packages=("jaxtyping",)) == plain, "the limit is over everything"
    more = len(plain[0]) + len(package[0]) + 1
    assert corpus_texts(characters=more, packages=("jaxtyping",)) == (*plain, *package[:2])


@pytest.mark.parametrize("deep", ["-" * 20_000 + "1", "+".join(["1"] * 20_000)])
def test_a_file_nested_too_deep_is_passed_over(deep: str, tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(f"x = {deep}\n")
    (tmp_path / "plain.py").write_text(f'"""{"A text of the library. " * 9}"""\n')
    assert len(stdlib_texts(root=tmp_path)) == 1


def test_licences_are_named() -> None:
    found = licences(("numpy", "yaml", "no_such_package"))
    assert list(found) == ["python", "numpy", "yaml", "no_such_package"]
    assert "BSD" in found["numpy"]
    assert "MIT" in found["yaml"], "by the distribution's name, PyYAML"
    assert found["no_such_package"] == "not stated"


def test_doors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="precision is 'float16'; choose one of float32, bfloat16"):
        replace(TINY, precision="float16")
    for also in ((0,), (41,)):
        with pytest.raises(UserError, match="give steps from 1 to 40"):
            replace(TINY, also=also)
    with pytest.raises(UserError, match="'no_such_package' is not installed"):
        package_folder("no_such_package")
    with pytest.raises(UserError, match=r"'typing_extensions' is not installed \(or has no folder\)"):
        package_folder("typing_extensions")
    with pytest.raises(UserError, match="no device 'warp'; give cpu, or run where there is one"):
        pretrain(replace(SHORT, device="warp"), tmp_path, progress=False, threads=1)
