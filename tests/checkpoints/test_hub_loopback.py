"""The loopback hub against the real client: what a hub would answer, and every fault that can be planted."""

import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file

from tests import tiny_models
from tests.loopback_hub import FAULTS, Hub, Repository, blob, folder_files, serve
from vgrad_lab.checkpoints.audit import audit, audit_record
from vgrad_lab.checkpoints.loading import content_identity, quiet
from vgrad_lab.checkpoints.resolve import resolve
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, LadderSpec

NAME = "ours/ladder"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three tiny OLMo-2 checkpoints in several shards."""
    made = {}
    for seed, branch in enumerate(("main", "step1", "step2")):
        made[branch] = tmp_path_factory.mktemp("hub") / branch
        with quiet():
            tiny_models.model(seed=seed).save_pretrained(made[branch], max_shard_size="30KB")
            tiny_models.tokenizer().save_pretrained(made[branch])
    return made


@pytest.fixture(scope="module")
def repository(folders: dict[str, Path]) -> Repository:
    return Repository(NAME, {branch: folder_files(folder) for branch, folder in folders.items()})


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    huggingface_hub.utils.disable_progress_bars()
    with serve(repository) as running:
        yield running
    huggingface_hub.utils.enable_progress_bars()


def fetch(hub: Hub, folder: Path, commit: str) -> Path:
    return Path(snapshot_download(NAME, revision=commit, cache_dir=folder, endpoint=hub.endpoint))


def test_metadata_as_the_client_reads_it(hub: Hub, repository: Repository) -> None:
    api = HfApi(endpoint=hub.endpoint)
    refs = {ref.name: ref.target_commit for ref in api.list_repo_refs(NAME).branches}
    assert refs == {branch: repository.commit(branch) for branch in repository.branches}
    files = repository.branches["step1"]
    assert len([path for path in files if path.endswith(".safetensors")]) > 1
    info = api.model_info(NAME, revision="step1", files_metadata=True)
    assert info.sha == refs["step1"]
    assert info.siblings is not None
    seen = {s.rfilename: (s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings}
    assert seen == {path: (one.size, one.sha256 if one.large else None) for path, one in files.items()}
    tree = {entry.path: entry for entry in api.list_repo_tree(NAME, revision=refs["step1"], recursive=True)}
    assert tree.keys() == files.keys()
    assert api.model_info(NAME).sha == refs["main"]
    assert api.model_info(NAME).siblings[0].size is None  # as on the hub: sizes only when asked for
    paths = api.get_paths_info(NAME, ["config.json", "none"], revision="step2")
    assert [entry.path for entry in paths] == ["config.json"]


def test_a_snapshot_by_commit_and_a_warm_cache(hub: Hub, repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit("step2")
    assert folder_files(fetch(hub, tmp_path, commit)) == repository.branches["step2"]
    before = len(hub.requests)
    fetch(hub, tmp_path, commit)
    assert len(hub.requests) == before


def test_metadata_tell_the_identity_that_a_fetched_rung_will_have(hub: Hub, folders: dict[str, Path]) -> None:
    spec = LadderSpec("ours", FOLDER_PATTERN, NAME)
    record = audit_record(audit(resolve(spec, endpoint=hub.endpoint)))
    assert [rung["sha256"] for rung in record["rungs"]] == [content_identity(folders[b]) for b in ("step1", "step2")]
    assert record["verdict"] == "clean"


def test_what_is_not_there(hub: Hub) -> None:
    api = HfApi(endpoint=hub.endpoint)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("ours/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="step99")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(NAME, "none.json", revision="step1")


def test_faults_on_the_wire(hub: Hub, repository: Repository, tmp_path: Path) -> None:
    commit, whole = repository.commit("step2"), repository.branches["step2"]
    shard = "*/resolve/*-00001-of-*.safetensors"
    for kind, error in (("404", RemoteEntryNotFoundError), ("gated", GatedRepoError), ("short", OSError)):
        hub.plant(shard, kind, times=1)  # type: ignore[arg-type]
        with pytest.raises(error):
            fetch(hub, tmp_path / kind, commit)
    hub.plant(shard, "flip", times=1)
    assert folder_files(fetch(hub, tmp_path / "flip", commit)) != whole, "the client alone does not see a changed bit"
    hub.plant(shard, "500", times=1)
    hub.plant(shard, "truncate", times=1)
    assert folder_files(fetch(hub, tmp_path / "retried", commit)) == whole
    hub.plant("*/refs", "404")
    hub.heal()
    HfApi(endpoint=hub.endpoint).list_repo_refs(NAME)


def test_a_rate_holds_bodies_back(hub: Hub, tmp_path: Path) -> None:
    content = bytes(100_000)
    hub.repositories["ours/big"] = Repository("ours/big", {"main": {"a.bin": blob(content, large=True)}})
    hub.rate = 400_000
    start = time.monotonic()
    HfApi(endpoint=hub.endpoint).hf_hub_download("ours/big", "a.bin", cache_dir=tmp_path)
    assert time.monotonic() - start >= 0.25


def test_the_process_is_offline_again_outside(repository: Repository) -> None:
    assert constants.HF_HUB_OFFLINE
    with serve(repository) as hub:
        HfApi(endpoint=hub.endpoint).list_repo_refs(NAME)
    with pytest.raises(OfflineModeIsEnabled):
        HfApi(endpoint=hub.endpoint).list_repo_refs(NAME)


def test_every_fault_of_a_repository_changes_the_last_rung_alone(repository: Repository) -> None:
    for plant in FAULTS.values():
        changed = plant(repository)
        assert [b for b in changed.branches if changed.branches[b] != repository.branches[b]] == ["step2"]
        assert changed.commit("step2") != repository.commit("step2")
    assert FAULTS["duplicate rung"](repository).commit("step2") != repository.commit("step1")


def test_from_pretrained_loads_a_revision_and_runs_no_code(
    repository: Repository, folders: dict[str, Path], tmp_path: Path
) -> None:
    """transformers with this hub as its hub: bit-equal weights, the `.py` file not even asked for."""
    with serve(FAULTS["python file"](repository), default=True) as hub, quiet():
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            NAME, revision="step2", cache_dir=tmp_path, use_safetensors=True, output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(NAME, revision="step2", cache_dir=tmp_path)
    assert not any(info.values())
    assert len(tokenizer) == len(tiny_models.tokenizer())
    assert not [asked for asked in hub.requests if ".py" in asked]
    loaded, ours = model.state_dict(), {}
    for shard in folders["step2"].glob("*.safetensors"):
        ours |= load_file(shard)
    assert loaded.keys() == ours.keys()
    assert all(torch.equal(loaded[name], ours[name]) for name in ours)
