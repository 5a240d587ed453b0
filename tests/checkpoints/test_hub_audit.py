"""Resolve and audit against the loopback hub: every lie is found, nothing honest is refused, no weight is asked for."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests import ladder_copies as copies
from tests import loopback_hub
from tests.loopback_hub import FAULTS, Files, Hub, Repository, blob, declared, serve
from vgrad_lab.checkpoints import hub_client
from vgrad_lab.checkpoints.audit import Audit, audit, audit_record, require
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.inventory import (
    HubFile,
    Inventory,
    Weights,
    choose_weights,
    needed_files,
    take_inventory,
    weights_identity,
)
from vgrad_lab.checkpoints.known_ladders import KNOWN
from vgrad_lab.checkpoints.resolve import Ladder, NamedRung, find, resolve, select
from vgrad_lab.checkpoints.rung_config import rope_bases, rope_kinds
from vgrad_lab.checkpoints.specs import Architecture, LadderSpec, folder_spec

SPEC = KNOWN["olmo2-1b"]
LAST = copies.stage1(3000)
KEYS = (
    *("architectures", "num_hidden_layers", "n_layer", "hidden_size", "rope_theta", "rotary_emb_base", "vocab_size"),
    *("rope_parameters", "rope_scaling", "rope_type", "type", "text_config", "auto_map", "full_attention"),
)
KIND_OF = {
    "duplicate rung": "duplicate",
    "stale main": "equal to main",
    "missing shard": "missing shard",
    "bin only": "bin only",
    "python file": "python file",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve(copies.small()) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test finds the honest ladder, and waits for retries are short."""
    monkeypatch.setattr(hub_client, "FIRST_WAIT", 0.001)
    if "hub" in request.fixturenames:
        running: Hub = request.getfixturevalue("hub")
        running.heal()
        running.repositories = {"allenai/OLMo-2-0425-1B": copies.small()}


def look(hub: Hub, repository: Repository | None = None, *, spec: LadderSpec = SPEC, **options: Any) -> Audit:
    """Serve a repository and audit all its rungs."""
    if repository is not None:
        hub.repositories[repository.name] = repository
    return audit(resolve(spec, endpoint=hub.endpoint), **options)


def kinds(result: Audit) -> list[str]:
    return [one.kind for one in result.findings]


def changed(**files: Any) -> Repository:
    """The honest ladder with files of the last rung replaced, or taken away by None; `_` in names is `.`."""
    repository = copies.small()
    new = {key.replace("_", "."): value for key, value in files.items()}
    kept: Files = {**repository.branches[LAST], **new}
    return repository.with_branch(LAST, {k: v for k, v in kept.items() if v is not None})


def config(**changes: Any) -> Repository:
    """The honest ladder with another config.json in the last rung; None takes a key away."""
    new = {k: v for k, v in {**copies.OLMO2_1B, **changes}.items() if v is not None}
    return changed(config_json=blob(json.dumps(new)))


def test_an_honest_ladder_is_clean_and_no_weight_is_asked_for(hub: Hub) -> None:
    hub.requests.clear()
    result = look(hub)
    assert result.findings == ()
    assert len(result.usable) == 3
    require(result)
    assert audit_record(result)["verdict"] == "clean"
    assert not [asked for asked in hub.requests if asked.endswith((".safetensors", ".bin"))]
    assert sum("resolve" in asked for asked in hub.requests) == 2  # equal config.json and index are read once


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_refused_and_can_be_allowed_on_the_record(hub: Hub, fault: str) -> None:
    repository, kind = FAULTS[fault](copies.small()), KIND_OF[fault]
    result = look(hub, repository)
    assert [one.kind for one in result.refused] == [kind]
    assert LAST in result.findings[0].rungs
    with pytest.raises(UserError, match=f"{kind}.*--allow '{kind}'"):
        require(result)
    assert audit_record(result)["verdict"] == "refused"
    allowed = look(hub, repository, allow=[kind])
    require(allowed)
    record = audit_record(allowed)
    assert record["verdict"] == "allowed"
    assert record["allowed"] == [kind]
    assert record["findings"][0]["allowed"] is True
    assert len(allowed.usable) == (2 if kind == "missing shard" else 3)
    other = next(name for name in KIND_OF.values() if name != kind)
    with pytest.raises(UserError, match="refuses"):
        require(look(hub, repository, allow=[other]))
    require(look(hub, repository, spec=replace(SPEC, allow=(kind,))))


def test_one_shared_shard_is_seen_too(hub: Hub) -> None:
    shard = copies.SHARDS[1]
    theirs = copies.small().branches
    for other, kind, words in (
        (copies.stage1(1000), "duplicate", "share a file"),
        ("main", "equal to main", "shares a file"),
    ):
        files = {**theirs[LAST], shard: theirs[other][shard]}
        result = look(hub, copies.small().with_branch(LAST, files))
        assert kinds(result) == [kind]
        assert words in result.findings[0].detail


def test_main_that_ends_the_ladder_is_told_and_not_refused(hub: Hub) -> None:
    result = look(hub, FAULTS["stale main"](copies.small()), spec=replace(SPEC, main_step=3000))
    assert kinds(result) == ["main is last"]
    require(result)
    early = copies.small().with_branch(copies.stage1(1000), copies.rung("main"))
    result = look(hub, early, spec=replace(SPEC, main_step=3000))
    assert kinds(result) == ["equal to main"]


def test_a_single_file_of_main_beside_own_shards(hub: Hub) -> None:
    """What some Pythia branches hold: the shards are the rung, the single file is main."""
    single = declared(5000, "main alone")
    repository = copies.small()
    main = {**{k: v for k, v in repository.branches["main"].items() if "safetensors" not in k}}
    repository = repository.with_branch("main", {**main, "model.safetensors": single})
    both = repository.with_branch(LAST, {**repository.branches[LAST], "model.safetensors": single})
    result = look(hub, both)
    assert kinds(result) == ["two sets"]
    require(result)
    needed = {file.path for file in needed_files(result.usable[-1])}
    assert "model.safetensors" not in needed
    assert {*copies.SHARDS, "config.json", "model.safetensors.index.json"} <= needed
    alone = repository.with_branch(LAST, {**main, "model.safetensors": single})
    assert "equal to main" in kinds(look(hub, alone))
    main_has_both = alone.with_branch("main", {**copies.rung("main"), "model.safetensors": single})
    assert "equal to main" in kinds(look(hub, main_has_both))


@pytest.mark.parametrize(
    ("repository", "kind", "words"),
    [
        (
            config(architectures=["LlamaForCausalLM"]),
            "architecture",
            "class LlamaForCausalLM, the ladder expects Olmo2",
        ),
        (config(architectures=None), "architecture", "class not stated"),
        (config(num_hidden_layers=15), "architecture", "layers 15, the ladder expects 16"),
        (config(hidden_size=2049), "architecture", "width 2049"),
        (config(vocab_size=100_353), "architecture", "vocabulary 100353, most rungs have 100352"),
        (config(rope_theta=500_500), "rope", "RoPE base 500500, the ladder expects 500000"),
        (config(rope_theta=None), "rope", "RoPE base not stated"),
        (config(rope_scaling={"type": "yarn"}), "rope", "kind of RoPE yarn, most rungs have default"),
        (config(auto_map={"AutoModel": "modeling_ours.Ours"}), "python file", "auto_map in config.json"),
        (changed(config_json=None), "architecture", "no config.json to read"),
        (changed(config_json=declared(60_000_000, "config.json")), "architecture", "no config.json to read"),
        (changed(config_json=blob("[1]")), "unreadable", "no JSON object"),
        (changed(config_json=blob("{")), "unreadable", "no JSON object"),
        (changed(config_json=blob("[" * 100_000)), "unreadable", "no JSON object"),
        (changed(**{name.replace(".", "_"): None for name in copies.SHARDS}), "missing shard", "lacks model-00001"),
        (changed(model_safetensors_index_json=None), "missing shard", "lacks model.safetensors.index.json"),
        (changed(model_safetensors_index_json=blob("{}")), "missing shard", "lacks model.safetensors.index.json"),
        (changed(**{copies.SHARDS[0].replace(".", "_"): declared(0, "empty")}), "missing shard", "empty file"),
        (changed(**{copies.SHARDS[0].replace(".", "_"): declared(4500, "longer")}), None, ""),
        (changed(**{copies.SHARDS[0].replace(".", "_"): declared(9_000_000, "longer")}), "size", "most have 5000"),
    ],
)
def test_what_differs_is_found(hub: Hub, repository: Repository, kind: str | None, words: str) -> None:
    result = look(hub, repository)
    assert kinds(result) == ([] if kind is None else [kind])
    if kind is not None:
        assert LAST in result.findings[0].rungs
        assert words in result.findings[0].detail


def test_another_size_is_told_from_a_longer_header() -> None:
    def held(name: str, size: int) -> Inventory:
        return Inventory(name, (HubFile("model.safetensors", size, name),), copies.OLMO2_1B)

    for size, found in ((10**9, False), (10**9 + 900_000, False), (10**9 + 1_100_000, True), (5 * 10**8, True)):
        sizes = [10**9, 10**9, size]
        rungs = tuple(NamedRung(k, f"step{k}") for k in range(3))
        taken = tuple(held(f"step{k}", n) for k, n in enumerate(sizes))
        assert kinds(audit(Ladder(SPEC, rungs), inventories=taken)) == ["size"] * found


def test_rope_in_every_spelling() -> None:
    assert rope_bases({"rope_theta": 5e5}) == (5e5,)
    assert rope_bases({"rotary_emb_base": 10_000}) == (1e4,)
    assert rope_bases({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}) == (5e5,)
    nested = {"rope_parameters": {"full": {"rope_theta": 1e6, "rope_type": "yarn"}, "sliding": {"rope_theta": 1e4}}}
    assert rope_bases(nested) == (1e4, 1e6)
    assert rope_kinds(nested) == ("yarn",)
    assert rope_bases({"rope_theta": True}) == rope_bases({}) == rope_bases({"rope_parameters": None}) == ()
    assert rope_kinds({}) == rope_kinds({"rope_scaling": None}) == ("default",)


def test_an_old_and_a_new_spelling_of_one_base_agree(hub: Hub) -> None:
    new = {"rope_theta": None, "rope_parameters": {"rope_theta": 500_000.0, "rope_type": "default"}}
    assert look(hub, config(**new)).findings == ()


def test_a_configuration_with_a_text_part(hub: Hub) -> None:
    inner = {k: v for k, v in copies.OLMO2_1B.items() if k != "architectures"}
    nested = changed(config_json=blob(json.dumps({"architectures": ["Olmo2ForCausalLM"], "text_config": inner})))
    assert look(hub, nested).findings == ()


def test_an_unknown_architecture_must_only_agree(hub: Hub) -> None:
    spec = replace(SPEC, architecture=Architecture())
    assert look(hub, spec=spec).findings == ()
    assert kinds(look(hub, config(rope_theta=10_000), spec=spec)) == ["rope"]


def test_tokens_in_a_name_are_checked(hub: Hub) -> None:
    for wrong in (2100, 2096, 1):
        repository = copies.small().with_branch(f"stage1-step1000000-tokens{wrong}B", copies.rung("late"))
        assert kinds(look(hub, repository)) == ["token count"]
    repository = copies.small().with_branch("stage1-step1000000-tokens2097B", copies.rung("late"))
    assert look(hub, repository).findings == ()


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), ANY_JSON), st.sampled_from([SPEC.architecture, Architecture()]))
def test_no_configuration_breaks_the_audit(odd: dict[str, Any], expected: Architecture) -> None:
    """Whatever config.json holds, it is the same as the others', or it is found."""
    held = [Inventory(f"step{k}", (HubFile("model.safetensors", 9, str(k)),), copies.OLMO2_1B) for k in range(3)]
    held[2] = replace(held[2], config={**copies.OLMO2_1B, **odd})
    rungs = tuple(NamedRung(k, f"step{k}") for k in range(3))
    result = audit(Ladder(replace(SPEC, architecture=expected), rungs), inventories=tuple(held))
    assert {rung for one in result.findings for rung in one.rungs} <= {"step2"}
    if odd.get("num_hidden_layers", 16) not in (16, None):
        assert "architecture" in kinds(result)
    json.dumps(audit_record(result), allow_nan=False)


@given(
    weights=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6),
    main=st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_equal_weights_are_found_whatever_is_equal(
    weights: list[tuple[int, int]], main: tuple[int, int] | None
) -> None:
    """Against a plain comparison of all pairs: findings say exactly which rungs share a file, with whom."""

    def inventory(name: str, shards: tuple[int, int]) -> Inventory:
        files = tuple(HubFile(p, 100, f"{k}{p}") for p, k in zip(copies.SHARDS, shards, strict=True))
        return Inventory(name, files, copies.OLMO2_1B, frozenset(copies.SHARDS))

    rungs = tuple(NamedRung(k, f"step{k}", "c") for k in range(len(weights)))
    held = [inventory(r.name, w) for r, w in zip(rungs, weights, strict=True)]
    held += [] if main is None else [inventory("main", main)]
    result = audit(Ladder(SPEC, rungs, None if main is None else "m"), inventories=tuple(held))
    pairs = {(i, j) for i in range(len(weights)) for j in range(i) if any(map(int.__eq__, weights[i], weights[j]))}
    told = [set(one.rungs) for one in result.findings if one.kind == "duplicate"]
    assert {name for names in told for name in names} >= {f"step{i}" for i, j in pairs if weights[i] == weights[j]}
    assert bool(told) == bool(pairs)
    assert all(any({f"step{i}", f"step{j}"} <= names for i, j in pairs) for names in told)
    equal = {one.rungs[0] for one in result.findings if one.kind == "equal to main"}
    assert equal == {f"step{k}" for k, w in enumerate(weights) if main and any(map(int.__eq__, w, main))}


def test_errors_of_the_hub_concern_their_rung_alone(hub: Hub) -> None:
    commit = hub.repositories["allenai/OLMo-2-0425-1B"].commit(LAST)
    hub.plant(f"*/revision/{commit}", "500")
    result = look(hub)
    assert [(one.kind, one.rungs) for one in result.findings] == [("unreadable", (LAST,))]
    assert "status 500 after 4 attempts" in result.findings[0].detail
    assert len(look(hub, allow=["unreadable"]).usable) == 2
    hub.heal()
    hub.plant("*/revision/*", "500", times=2)
    hub.plant("*/resolve/*", "500", times=2)
    assert look(hub).findings == ()
    hub.heal()
    hub.plant("*/resolve/*config.json", "404")
    assert set(kinds(look(hub))) == {"unreadable"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [("404", "the file is not there"), ("500", "status 500 after 4 attempts"), ("gated", "hf auth login")],
)
def test_a_repository_that_cannot_be_listed(hub: Hub, kind: Any, words: str) -> None:
    hub.plant("*/refs", kind)
    with pytest.raises(UserError, match=words):
        resolve(SPEC, endpoint=hub.endpoint)


def test_no_repository_no_hub_no_answer(hub: Hub) -> None:
    with pytest.raises(UserError, match="ours/none: no such repository"):
        resolve(replace(SPEC, repository="ours/none"), endpoint=hub.endpoint)
    with pytest.raises(UserError, match=r"cannot be reached after 4 attempts"):
        resolve(SPEC, endpoint="http://127.0.0.1:9")
    with pytest.raises(UserError, match="not a model hub's"):
        hub_client.ask(lambda: json.loads("<html>"), about="x")
    waits: list[float] = []
    with pytest.raises(UserError, match="after 3 attempts"):
        hub_client.ask(_fail, about="x", attempts=3, wait=1.0, sleep=waits.append)
    assert waits == [1.0, 2.0]
    with pytest.raises(UserError, match="attempts is 0"):
        hub_client.ask(_fail, about="x", attempts=0)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api"; r=0; t=55'}, 55.0),
        ({"RateLimit": '"api";r=20;t=55'}, 0.01),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.01),
        ({"Retry-After": "999999"}, 330.0),
        ({}, 0.01),
    ],
)
def test_a_hub_that_asks_to_wait_is_obeyed(headers: dict[str, str], wait: float) -> None:
    class LimitedError(Exception):
        response = SimpleNamespace(status_code=429, headers=headers)

    answers, waits = iter([LimitedError(), None]), list[float]()

    def question() -> str:
        if error := next(answers):
            raise error
        return "an answer"

    assert hub_client.ask(question, about="x", wait=0.01, sleep=waits.append) == "an answer"
    assert waits == [wait]


def _fail() -> None:
    raise TimeoutError("a token must not be here")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        resolve(SPEC, endpoint="http://127.0.0.1:9")
    assert not hub_client.transient(OfflineModeIsEnabled("said at once"))
    assert hub_client.transient(ConnectionError("asked again"))


def test_names_are_listed_never_made_up(hub: Hub) -> None:
    longer = copies.small().with_branch("stage1-step4000-tokens9B-hf", copies.rung("another format"))
    hub.repositories[longer.name] = longer
    ladder = resolve(SPEC, endpoint=hub.endpoint)
    assert [rung.name for rung in ladder.rungs] == [copies.stage1(step) for step in (1000, 2000, 3000)]
    assert [rung.tokens for rung in ladder.rungs] == [3, 5, 7]
    assert find(ladder, 2000) == find(ladder, "2000") == find(ladder, copies.stage1(2000))
    for wrong in (2900, "2900", "stage1-step2900-tokens7B", "stage1-step3000-tokens8B"):
        with pytest.raises(UserError, match=f"no rung .*: the nearest are {LAST}, "):
            find(ladder, wrong)
    with pytest.raises(UserError, match=f"no rung stage1-stp3000-tokens7B .*: the nearest are {LAST}"):
        find(ladder, "stage1-stp3000-tokens7B")
    with pytest.raises(UserError, match="no rung in .* the nearest names? (is|are) stage1-step1000"):
        resolve(replace(SPEC, pattern=r"step(?P<step>\d+)"), endpoint=hub.endpoint)
    loose = replace(SPEC, pattern=r"stage(?P<step>\d)-.*")
    with pytest.raises(UserError, match=r"are both step 1; narrow the pattern"):
        resolve(loose, endpoint=hub.endpoint)


def test_select_a_part(hub: Hub) -> None:
    ladder = resolve(SPEC, endpoint=hub.endpoint)

    def steps(*wanted: str | int, **options: int) -> list[int]:
        return [rung.step for rung in select(ladder, wanted, **options).rungs]

    assert steps() == [1000, 2000, 3000]
    assert steps(3000, "1000", LAST) == [1000, 3000]
    assert steps(start=2000) == [2000, 3000]
    assert steps(stop=2000) == [1000, 2000]
    assert steps(every=2000) == [2000]
    assert steps(start=0, stop=10_000, every=1000) == [1000, 2000, 3000]
    preset = replace(ladder, spec=replace(SPEC, steps=(2000,)))
    assert [rung.step for rung in select(preset).rungs] == [2000]
    assert [rung.step for rung in select(preset, stop=1000).rungs] == [1000]
    with pytest.raises(UserError, match="every is 0"):
        steps(every=0)
    with pytest.raises(UserError, match="choose one"):
        steps(1000, every=2)
    with pytest.raises(UserError, match="no rung of .* from 4000 to 3000 every 1; its steps go from 1000 to 3000"):
        steps(start=4000)


def write(folder: Path, seed: int, **changes: Any) -> None:
    folder.mkdir(parents=True)
    save_file({"w": np.random.default_rng(seed).standard_normal(8)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**copies.OLMO2_1B, **changes}))


def test_a_folder_is_audited_the_same_way(tmp_path: Path) -> None:
    for seed, step in enumerate((10, 20, 30)):
        write(tmp_path / f"step{step:06d}", seed)
    (tmp_path / "unfinished").mkdir()
    ladder = resolve(folder_spec(tmp_path))
    assert [rung.step for rung in ladder.rungs] == [10, 20, 30]
    assert audit(ladder).findings == ()
    write(tmp_path / "step000040", 0)
    write(tmp_path / "step000050", 5, rope_theta=10_000)
    (tmp_path / "step000060").mkdir()
    result = audit(resolve(folder_spec(tmp_path)))
    found = {one.kind: one.rungs for one in result.findings}
    assert found["duplicate"] == ("step000010", "step000040")
    assert found["rope"] == ("step000050",)
    assert found["no weights"] == ("step000060",)
    with pytest.raises(UserError, match="no ladder at"):
        resolve(folder_spec(tmp_path / "none"))


def test_weights_are_chosen_by_one_rule() -> None:
    def chosen(*paths: str, shards: frozenset[str] | None = None) -> tuple[str, list[str], tuple[str, ...]]:
        weights = choose_weights(Inventory("r", tuple(HubFile(p, 1, p) for p in paths), shards=shards))
        return weights.kind, [file.path for file in weights.files], weights.missing

    one, two = copies.SHARDS
    both = frozenset(copies.SHARDS)
    assert chosen("model.safetensors") == ("safetensors", ["model.safetensors"], ())
    assert chosen(one, two, "model.safetensors", shards=both) == ("safetensors", [one, two], ())
    assert chosen(one, shards=both) == ("safetensors", [one], (two,))
    assert chosen(one) == ("safetensors", [one], (two, "model.safetensors.index.json"))
    left_over = "model-00001-of-00003.safetensors"
    assert chosen(one, two, left_over) == ("safetensors", [one, two], ("model.safetensors.index.json",))
    assert chosen("model.safetensors", "pytorch_model.bin")[0] == "safetensors"
    assert chosen("pytorch_model.bin") == ("bin", ["pytorch_model.bin"], ())
    assert chosen("pytorch_model-00001-of-00002.bin")[2][0] == "pytorch_model-00002-of-00002.bin"
    assert chosen("adapter_model.safetensors", "model-00000-of-00000.safetensors", "optimizer.bin") == ("none", [], ())
    assert chosen("model.safetensors", shards=frozenset({"model.safetensors"}))[1] == ["model.safetensors"]


def test_needed_files_are_the_weights_their_index_and_the_tokenizer() -> None:
    index = "model.safetensors.index.json"

    def needed(*paths: str, shards: frozenset[str] | None = None) -> set[str]:
        files = tuple(HubFile(p, 1, p) for p in (*paths, "config.json", "tokenizer.json", "modeling.py", "README.md"))
        return {file.path for file in needed_files(Inventory("r", files, shards=shards))} - {"config.json"}

    assert needed("model.safetensors", "pytorch_model.bin", "optimizer.pt") == {"model.safetensors", "tokenizer.json"}
    single = frozenset({"model.safetensors"})
    assert needed("model.safetensors", index, shards=single) == {"model.safetensors", "tokenizer.json"}
    both = frozenset(copies.SHARDS)
    assert needed(*copies.SHARDS, index, shards=both) == {*both, index, "tokenizer.json"}


def test_two_shared_shards_are_told_once() -> None:
    paths = [f"model-{k:05d}-of-00003.safetensors" for k in (1, 2, 3)]

    def held(name: str, last: str) -> Inventory:
        files = tuple(HubFile(p, 9, last if p == paths[2] else p) for p in paths)
        return Inventory(name, files, copies.OLMO2_1B, frozenset(paths))

    rungs = (NamedRung(0, "a"), NamedRung(1, "b"))
    result = audit(Ladder(SPEC, rungs), inventories=(held("a", "x"), held("b", "y")))
    assert kinds(result) == ["duplicate"]
    assert result.findings[0].detail == "a, b share a file of their weights"


def test_an_identity_needs_all_hashes() -> None:
    one = HubFile("model.safetensors", 1, "a")
    assert weights_identity(Weights("safetensors", (one,))) is not None
    assert weights_identity(Weights("safetensors", (replace(one, sha256=None, blob="b"),))) is None
    assert weights_identity(Weights("safetensors", (one,), missing=("b",))) is None
    assert weights_identity(Weights("bin", (one,))) is None


def test_hashes_that_the_hub_does_not_give_are_never_equal(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without any hash is not taken for another one; what it says is read all the same."""
    honest = loopback_hub._info

    def bare(*arguments: Any, **options: Any) -> dict[str, Any]:
        info = honest(*arguments, **options)
        return {**info, "siblings": [{k: s[k] for k in ("rfilename", "size")} for s in info["siblings"]]}

    monkeypatch.setattr(loopback_hub, "_info", bare)
    taken = take_inventory(resolve(SPEC, endpoint=hub.endpoint))
    assert len({file.identity for one in taken for file in one.files if file.path in copies.SHARDS}) == 8
    assert [one.config for one in taken] == [copies.OLMO2_1B] * 4
    assert audit(resolve(SPEC, endpoint=hub.endpoint)).findings == ()


def test_tags_are_names_too_and_a_branch_goes_first(hub: Hub) -> None:
    honest = copies.small()
    tags = {copies.stage1(4000): copies.stage1(3000), copies.stage1(1000): copies.stage1(3000)}
    hub.repositories[honest.name] = replace(honest, tags=tags)
    ladder = resolve(SPEC, endpoint=hub.endpoint)
    commits = {rung.step: rung.commit for rung in ladder.rungs}
    assert commits[4000] == honest.commit(copies.stage1(3000))
    assert commits[1000] == honest.commit(copies.stage1(1000))
    assert kinds(audit(ladder)) == ["duplicate"]


def test_the_odd_rung_is_named_wherever_it_stands(hub: Hub) -> None:
    first = copies.stage1(1000)
    odd = copies.small().with_branch(first, copies.rung("odd", config={**copies.OLMO2_1B, "vocab_size": 7}))
    result = look(hub, odd)
    assert [(one.kind, one.rungs) for one in result.findings] == [("architecture", (first,))]


def test_kinds_that_cannot_be_allowed(hub: Hub) -> None:
    with pytest.raises(UserError, match=re.escape("cannot allow 'duplicates': the nearest name is duplicate")):
        look(hub, allow=["duplicates"])
    lost = copies.small((1000, 2000))
    for branch in (copies.stage1(1000), copies.stage1(2000)):
        files = {k: v for k, v in lost.branches[branch].items() if k != copies.SHARDS[0]}
        lost = lost.with_branch(branch, files)
    result = look(hub, lost, allow=["missing shard"])
    with pytest.raises(UserError, match="no rung is left"):
        require(result)
