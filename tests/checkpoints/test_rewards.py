"""Rewards: what each kind is worth, and one clear line for each mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.rewards import Reward, check_source, importable, load_function, score
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask
from vgrad_lab.checkpoints.tasks import task_identity

HERE = "tests.checkpoints.reward_functions"


def worth(reward: Reward, completion: str, **row: Any) -> float:
    return score(reward, prompt="q", completion=completion, row=json.dumps(row))


@given(st.text(), st.text(" \n\t", max_size=3), st.text(" \n\t", max_size=3))
def test_exact_leaves_white_space_at_the_ends_out(answer: str, before: str, after: str) -> None:
    if answer.strip():
        assert worth(Reward(), before + answer + after, answer=answer) == 1
        assert worth(Reward(), answer + "x", answer=answer) == 0


@pytest.mark.parametrize(
    ("pattern", "completion", "answer", "expected"),
    [
        (r"#### (-?\d+)", "so\n#### 42", "42", 1),
        (r"#### (-?\d+)", "#### 42 #### 43", "43", 0),
        (r"#### (-?\d+)", "42", "42", 0),
        (r"#### (-?\d+)", "#### 42", 42, 1),
        (r"^\s*(\w+)", " A B", " A ", 1),
        (r"yes|no", "well, no", None, 1),
        (r"yes|no", "maybe", None, 0),
        (r"a.b", "a\nb", None, 1),
        (r"(x)?y", "y", "x", 0),
    ],
)
def test_regex(pattern: str, completion: str, answer: Any, expected: float) -> None:
    row = {} if answer is None else {"answer": answer}
    assert worth(Reward(kind="regex", pattern=pattern), completion, **row) == expected


def test_the_key_of_the_answer_has_a_name() -> None:
    assert worth(Reward(answer="solution"), " 7", solution=7, answer="8") == 1


def test_a_function_of_ones_own() -> None:
    reward = importable(f"{HERE}:share_of_vowels")
    assert worth(reward, "ab") == pytest.approx(1 / 3)
    assert type(worth(importable(f"{HERE}:spaced"), " A", answer="A")) is float


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "returned None for the prompt 'q'; expected a finite number"),
        ("nan", "returned nan"),
        ("text", "returned '1'"),
        ("too_large", "returned 1000"),
        ("leaves", "raised SystemExit: 3 for the prompt 'q'"),
        ("raises", "raised KeyError: 'no such key' for the prompt 'q' and the answer 'A'"),
    ],
)
def test_a_function_that_gives_no_number_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"reward function '{HERE}:{name}' {message}"):
        worth(importable(f"{HERE}:{name}"), "A")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no.such.module:f", "cannot be imported .ModuleNotFoundError.*PYTHONPATH"),
        (f"{HERE}:missing", "cannot be imported .AttributeError"),
        (f"{HERE}:not_callable", "is a int; expected f.prompt, completion, row."),
        ("json.dumps", "write it as 'package.module:name'"),
        ("os;x:f", "write it as 'package.module:name'"),
    ],
)
def test_a_function_that_is_not_there(function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        importable(function)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "regex"}, "regex needs a pattern"),
        ({"pattern": "a"}, "exact takes no pattern; pattern belongs to kind: regex"),
        ({"kind": "importable"}, "importable needs a function"),
        ({"kind": "regex", "pattern": "("}, "'.' is no regular expression"),
    ],
)
def test_a_reward_without_what_it_needs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Reward(**given)


@pytest.mark.parametrize("row", ["{}", '{"answer": null}', '{"answer": " "}', '{"answer": true}', '{"answer": ["A"]}'])
def test_a_row_without_an_answer_is_refused_with_the_task(row: str) -> None:
    with pytest.raises(UserError, match="prompt 'q' has answer .*; a reward of kind exact needs a text or a number"):
        SampledTask((Example("q", row),))
    assert SampledTask((Example("q", row),), reward=Reward(kind="regex", pattern="a"))


def test_a_changed_function_is_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    file = tmp_path / "reward_of_ones_own_a.py"
    file.write_text("def f(prompt, completion, row):\n    return 1\n")
    one = importable("reward_of_ones_own_a:f")
    file.write_text("def f(prompt, completion, row):\n    return 0\n")
    load_function.cache_clear()
    other = importable("reward_of_ones_own_a:f")
    tasks = [SampledTask((Example("q"),), reward=r) for r in (one, other, one)]
    assert task_identity(tasks[0]) == task_identity(tasks[2]) != task_identity(tasks[1])
    check_source(other)
    check_source(Reward(kind="importable", function="reward_of_ones_own_a:f"))
    with pytest.raises(UserError, match="'reward_of_ones_own_a:f' has changed since the task was read"):
        check_source(one)
    file.unlink()
    with pytest.raises(UserError, match="has changed since the task was read"):
        check_source(other)


def test_a_function_without_a_file() -> None:
    assert importable("builtins:len").source is None
