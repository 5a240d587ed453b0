"""docs/off_policy.md and its results: one is made from the other, the numbers are those of now, the prose holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from vgrad_lab.discrete.estimator_types import reference_problem
from vgrad_lab.experiments import off_policy_page, off_policy_study
from vgrad_lab.experiments.off_policy_study import SEED, SHIFTS, UPDATES, divergences, equal_groups, one

ROOT = Path(__file__).parents[1]
COMMITTED = json.loads((ROOT / "docs" / "results" / "off_policy.json").read_text(encoding="utf-8"))


def rows() -> dict[str, Any]:
    return {row["title"]: row for row in COMMITTED["updates"]}


def same(found: Any, expected: Any) -> None:
    """Equal, numbers to nine digits, through lists and dictionaries."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            same(found[key], expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert found == expected


def test_page_is_made_from_the_results() -> None:
    text = (ROOT / "docs" / "off_policy.md").read_text(encoding="utf-8")
    assert off_policy_page.page(COMMITTED) == text, "docs/off_policy.md is stale; make it from the results again"
    other = json.loads(json.dumps(COMMITTED))
    other["updates"][3]["at"][2]["bend"] *= 1.001
    assert off_policy_page.page(other) != text


def test_results_are_those_of_now() -> None:
    problem = reference_problem()
    same(divergences(problem), COMMITTED["divergences"])
    same(equal_groups(), COMMITTED["equal"])
    assert [row["title"] for row in COMMITTED["updates"]] == [u.title for u in UPDATES]
    for row, update in list(zip(COMMITTED["updates"], UPDATES, strict=True))[2::4]:
        same(one(update, problem, size=SHIFTS[-1], seed=SEED), row["at"][-1])


def test_command_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(off_policy_study, "updates", lambda problem: COMMITTED["updates"])
    off_policy_study.main(["--out", str(tmp_path / "x.json")])
    assert "x.json" in capsys.readouterr().out
    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert written.keys() == COMMITTED.keys()
    assert written["command"] == COMMITTED["command"]
    same(written["problem"], COMMITTED["problem"])


def test_prose_on_older_answers() -> None:
    found = rows()
    exact = found["leave-one-out, ratio of the answer"]
    assert max(a["bend"] for a in exact["at"]) < 1e-12
    for title, row in found.items():
        if title != exact["title"] and "GRPO" not in title:
            assert row["at"][-1]["bend"] > 0.05, title
    none, token, clipped = (
        [a["bend"] for a in found[title]["at"]]
        for title in ("leave-one-out, no ratio", "leave-one-out, ratio of the token", "the same, clipped 0.2")
    )
    for i, shift in enumerate(SHIFTS[1:], 1):
        assert token[i] < none[i]
        assert token[i] / shift == pytest.approx(token[1] / SHIFTS[1], rel=0.15), "of first order"
    assert clipped[1] == pytest.approx(token[1])
    assert clipped[3] > 2 * token[3]
    data, higher = (
        found[t]["at"]
        for t in ("the same advantages, min(ρ, 1.28) as data (CISPO)", "DAPO, token, clip-higher 0.2, 0.28")
    )
    assert sum(a["bend"] <= b["bend"] + 1e-12 for a, b in zip(data, higher, strict=True)) == len(SHIFTS)
    narrow, free = (found[t]["at"] for t in ("GSPO, clipped 3e-4, 4e-4", "GSPO, not clipped"))
    assert all(a["bend"] > 1.5 * b["bend"] for a, b in zip(narrow[1:], free[1:], strict=True))


def test_prose_on_kl_terms() -> None:
    found = {(r["term"], r["place"]): r["at"] for r in COMMITTED["divergences"]}
    exact = [("k1", "reward"), ("k1", "reward_to_go"), ("k3", "sequence_ratio")]
    for key, at in found.items():
        errors = [a["error"] for a in at]
        assert (max(errors) < 1e-12) == (key in exact)
    smallest = min(exact, key=lambda key: found[key][-1]["variance"])
    assert smallest == ("k3", "sequence_ratio")
    assert found[("k1", "loss")][0]["cosine"] is None
    near = found[("k3", "reward")][0]
    assert abs(near["scale"]) < 0.1, "next to nothing near the reference"


def test_every_row_has_its_title() -> None:
    assert set(off_policy_page.TERMS) == {(r["term"], r["place"]) for r in COMMITTED["divergences"]}
    with pytest.raises(KeyError):
        off_policy_page.page(
            {**COMMITTED, "divergences": [{"term": "k4", "place": "loss", "at": COMMITTED["divergences"][0]["at"]}]}
        )
