"""Specifications of ladders: built-in, from YAML, of a folder; what is wrong in one is said in a line."""

import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import REFUSED, REMARKS, Finding, check_kinds, nearest
from vgrad_lab.checkpoints.known_ladders import KNOWN, find_spec
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN, Architecture, LadderSpec, folder_spec, read_spec

REAL_NAMES = {
    "olmo2-1b": {"stage1-step50000-tokens105B": 50_000, "stage1-step1907359-tokens4001B": 1_907_359},
    "olmo2-1b-early": {"stage1-step1000-tokens3B": 1000, "step1000": 1000, "step2000-tokens5B": 2000},
    "olmo2-7b": {"stage1-step928646-tokens3896B": 928_646},
    "olmo2-13b": {"stage1-step596057-tokens5001B": 596_057},
    "olmo2-32b": {"stage1-step721901-tokens6056B": 721_901},
    "olmo3-7b": {"stage1-step1413814": 1_413_814},
    "pythia-160m": {"step0": 0, "step512": 512, "step143000": 143_000},
    "smollm2-1.7b": {"step-125000": 125_000},
    "smollm3-3b": {"stage1-step-40000": 40_000},
    "amber": {"ckpt_000": 0, "ckpt_358": 358},
}
"""Names seen in the repositories, with their steps."""
OTHERS = ("main", "stage2-ingredient1-step1000-tokens3B", "stage2-step1000", "it-SFT", "stage1-step10-tokens1B-hf", "")


@pytest.mark.parametrize("ladder", REAL_NAMES)
def test_patterns_match_real_names_and_no_others(ladder: str) -> None:
    regex = KNOWN[ladder].regex
    for name, step in REAL_NAMES[ladder].items():
        match = regex.fullmatch(name)
        assert match is not None
        assert int(match["step"]) == step
    assert not [name for name in OTHERS if regex.fullmatch(name)]


def test_every_family_is_known() -> None:
    for name in ("olmo2-1b", "olmo2-7b", "olmo2-13b", "olmo2-32b", "olmo2-1b-early", "olmo3-7b", "olmo3-32b"):
        assert KNOWN[name].repository is not None
        assert KNOWN[name].architecture.rope_base == 500_000
    assert [name for name, spec in KNOWN.items() if spec.name != name] == []
    assert len({spec.repository for spec in KNOWN.values()}) == len(KNOWN) - 1  # two are parts of OLMo-2 1B


def test_the_papers_ladder_has_twenty_rungs() -> None:
    steps = KNOWN["olmo2-1b-paper"].steps
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (50_000, 1_000_000)
    assert {b - a for a, b in pairwise(steps)} == {50_000}


def test_find_by_name_repository_file_and_folder(tmp_path: Path) -> None:
    assert find_spec("olmo2-7b") is KNOWN["olmo2-7b"]
    assert find_spec("allenai/OLMo-2-0425-1B") is KNOWN["olmo2-1b"]
    (tmp_path / "mine.yaml").write_text("repository: a/b\npattern: 'step(?P<step>\\d+)'\n")
    assert find_spec(str(tmp_path / "mine.yaml")).name == "mine"
    assert find_spec(str(tmp_path)).folder == tmp_path


@pytest.mark.parametrize("name", ["olmo2-1", "pythia-160", "allenai/OLMo-2-0425-1b"])
def test_an_unknown_name_suggests_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match="nearest") as error:
        find_spec(name)
    named = str(error.value).split("nearest")[1]
    assert {"olmo2-1": "olmo2-1b", "pythia-160": "pythia-160m"}.get(name, "allenai/OLMo-2-0425-1B") in named


FULL = r"""
name: ours
repository: owner/our-ladder
pattern: 'ckpt-(?P<step>\d+)'
tokens_per_step: 1048576
architecture: {class: LlamaForCausalLM, layers: 12, width: 768, rope_base: 10000}
main_step: 5000
steps: {from: 1000, to: 3000, every: 1000}
allow: [bin only]
note: a test
"""


def test_a_yaml_file_holds_everything(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(FULL)
    assert read_spec(tmp_path / "l.yaml") == LadderSpec(
        name="ours",
        pattern=r"ckpt-(?P<step>\d+)",
        repository="owner/our-ladder",
        tokens_per_step=1_048_576,
        architecture=Architecture("LlamaForCausalLM", 12, 768, 10_000.0),
        main_step=5000,
        steps=(1000, 2000, 3000),
        allow=("bin only",),
        note="a test",
    )


def test_a_relative_folder_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("folder: runs/ladder\n")
    spec = read_spec(tmp_path / "l.yaml")
    assert spec.folder == tmp_path / "runs" / "ladder"
    assert spec.pattern == FOLDER_PATTERN == folder_spec(tmp_path).pattern


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repository: a/b\npatern: x", "unknown key 'patern': the nearest name is pattern"),
        ("repository: a/b", "no pattern"),
        ("- a\n- b", "holds list; expected a mapping"),
        ("", "holds NoneType"),
        ("{", "no YAML"),
        ('pattern: "step(?P<step>\\d+)"', "single quotes"),
        ("repository: a/b\npattern: 'step(\\d+)'", "no group named step"),
        ("repository: a/b\npattern: 'step((?P<step>\\d+)'", "no regular expression"),
        ("repository: a/b\nfolder: c\npattern: 's(?P<step>\\d+)'", "one of them"),
        ("pattern: 's(?P<step>\\d+)'", "one of them"),
        ("repository: ab\npattern: 's(?P<step>\\d+)'", "expected owner/name"),
        ("folder: c\ntokens_per_step: -1", "positive"),
        ("folder: c\ntokens_per_step: true", "expected int"),
        ("folder: c\ntokens_per_step: '5'", "expected int"),
        ("folder: c\nallow: duplicate", "expected list"),
        ("folder: c\nallow: [duplicates]", "nearest name is duplicate"),
        ("folder: c\nallow: [1]", "cannot allow '1'"),
        ("folder: c\narchitecture: {layer: 3}", "unknown key 'layer': the nearest name is layers"),
        ("folder: c\narchitecture: {layers: many}", "layers is 'many'"),
        ("folder: c\narchitecture: {layers: 0}", "layers is 0; give a positive"),
        ("folder: c\narchitecture: {rope_base: .nan}", "rope_base is nan; give a positive"),
        ("folder: c\nsteps: {from: 0, to: 10}", "from, to and every"),
        ("folder: c\nsteps: {from: 0, to: 10, every: 0}", "positive"),
        ("folder: c\nsteps: {from: 0, to: 1000000000000, every: 1}", "at most"),
        ("folder: c\nsteps: [1, -2]", "not negative"),
        ("folder: c\nsteps: [1, x]", "whole numbers"),
        ("name: !!python/object/apply:os.system ['true']\nfolder: c", "no YAML"),
    ],
)
def test_a_wrong_file_is_one_clear_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "l.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read_spec(path)
    assert "\n" not in str(error.value)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10), st.floats(), st.text(max_size=4), st.just(r"s(?P<step>\d+)"),
    st.lists(st.integers(-1, 9) | st.text(max_size=4), max_size=3),
    st.dictionaries(st.sampled_from(["from", "to", "every", "class", "layers", "rope_base"]), st.integers(-3, 9)),
)  # fmt: skip


@given(given_=st.dictionaries(st.sampled_from([f.name for f in fields(LadderSpec)]), VALUES, max_size=6))
def test_any_mapping_is_a_ladder_or_one_line(given_: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump({"folder": "here", **given_}, allow_unicode=True), encoding="utf-8")
    found: list[UserError] = []
    try:
        spec = read_spec(path)
    except UserError as error:
        found.append(error)
    else:
        assert "step" in spec.regex.groupindex
        assert all(step >= 0 for step in spec.steps)
    assert all("\n" not in str(error) for error in found)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_spec(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot read"):
        read_spec(tmp_path / "b.yaml")


def test_kinds_of_findings() -> None:
    assert check_kinds(["duplicate", "rope", "duplicate"]) == ("duplicate", "rope")
    assert not set(REFUSED) & set(REMARKS)
    for kind in REMARKS:
        with pytest.raises(UserError, match="cannot allow"):
            check_kinds([kind])
    assert Finding("rope", (), "").refuses
    assert not Finding("size", (), "").refuses


def test_nearest_names() -> None:
    assert nearest("zzz", ["a", "b"]) == "there is a, b"
    assert nearest("zzz", []) == "there are none"
    assert nearest("zzz", map(str, range(12))).endswith("and 2 more")
