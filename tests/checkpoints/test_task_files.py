"""Task files: what they mean, what enters a task's identity, and one clear line for each mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.rewards import Reward
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask, evaluation_examples, task_name
from vgrad_lab.checkpoints.task_files import hold_out, read_examples, read_task, task_of
from vgrad_lab.checkpoints.tasks import LabelCopy, task_identity

VOID = Reward(kind="regex", pattern="a")
ROWS = [{"prompt": f"{i} + 1 =", "answer": i + 1, "note": ["x", {"y": None}]} for i in range(8)]


def written(folder: Path, text: str, rows: list[Any] | None = None, name: str = "p.jsonl") -> Path:
    lines = [json.dumps(row) for row in (ROWS if rows is None else rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "task.yaml").write_text(text, encoding="utf-8")
    return folder / "task.yaml"


FULL = r"""
kind: sampled
prompts: p.jsonl
held_out: 0.5
reward: {kind: regex, pattern: '(\d+)'}
temperature: 0.7
max_tokens: 5
stop: "\n"
eos: false
"""


def test_values_of_a_sampled_task(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, FULL))
    assert isinstance(task, SampledTask)
    assert (task.temperature, task.max_tokens, task.stop, task.eos) == (0.7, 5, ("\n",), False)
    assert task.reward.pattern == r"(\d+)"
    assert len(task.prompts) == len(task.evaluation) == 4
    assert {e.prompt for e in (*task.prompts, *task.evaluation)} == {row["prompt"] for row in ROWS}
    assert json.loads(task.prompts[0].row) in ROWS
    assert hash(task)


def test_a_label_task_with_and_without_its_kind(tmp_path: Path) -> None:
    expected = LabelCopy(labels=("A", "B"), templates=("It is {y}. {f} It is",), fillers=("So.",), seed=3)
    text = "labels: [A, B]\ntemplates: ['It is {y}. {f} It is']\nfillers: [So.]\nseed: 3\n"
    assert read_task(written(tmp_path, text)) == expected
    assert read_task(written(tmp_path, "kind: label-copy\n" + text)) == expected
    assert task_of({}, tmp_path, "task") == LabelCopy()
    assert task_of("task.yaml", tmp_path, "task") == expected


def test_identity_is_that_of_the_content(tmp_path: Path) -> None:
    """Not of the path, nor of keys in another order; any value of any row counts."""
    (tmp_path / "other").mkdir()
    one = read_task(written(tmp_path, FULL))
    two = read_task(written(tmp_path / "other", FULL.replace("p.jsonl", "q.jsonl"), name="q.jsonl"))
    turned = read_task(written(tmp_path, FULL, [dict(reversed(row.items())) for row in ROWS]))
    assert task_identity(one) == task_identity(two) == task_identity(turned)
    changed = [dict(row) for row in ROWS]
    changed[3]["note"] = []
    assert task_identity(read_task(written(tmp_path, FULL, changed))) != task_identity(one)
    assert task_name(one) == f"sampled-{task_identity(one)[:8]}"
    assert task_name(LabelCopy()) == f"label-copy-{task_identity(LabelCopy())[:8]}"


def test_the_label_task_keeps_the_identity_of_old_records() -> None:
    assert task_identity(LabelCopy()) == "8dae67d4dbbfa548"


def test_templates_and_text_files(tmp_path: Path) -> None:
    text = 'kind: sampled\nprompts: p.jsonl\nheld_out: 0\ntemplate: "Q: {question} {n}\\nA:"\n'
    task = read_task(written(tmp_path, text, [{"question": "{n}?", "n": 2, "answer": "B"}]))
    assert isinstance(task, SampledTask)
    assert task.prompts[0].prompt == "Q: {n}? 2\nA:"
    assert task.evaluation == ()
    (tmp_path / "p.txt").write_text("one\r\n\ntwo \n", encoding="utf-8")
    assert [e.prompt for e in read_examples(tmp_path / "p.txt")] == ["one", "two "]


def test_an_evaluation_file_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "kind: sampled\nprompts: p.jsonl\nevaluation: e.jsonl\n")
    (tmp_path / "e.jsonl").write_text('{"prompt": "new", "answer": 1}', encoding="utf-8")
    task = read_task(path)
    assert isinstance(task, SampledTask)
    assert [e.prompt for e in task.evaluation] == ["new"]
    assert len(task.prompts) == 8
    (tmp_path / "e.jsonl").write_text(json.dumps(ROWS[2]), encoding="utf-8")
    with pytest.raises(UserError, match="1 of 1 evaluation prompts also stand in p.jsonl, such as '2 . 1 ='"):
        read_task(path)


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40), st.floats(0, 0.99), st.integers(0, 5))
def test_held_out_prompts_are_never_trained_on(prompts: list[str], share: float, seed: int) -> None:
    examples = tuple(Example(p, json.dumps({"i": i})) for i, p in enumerate(prompts))
    distinct = len(set(prompts))
    try:
        train, test = hold_out(examples, share, seed=seed)
    except UserError:
        assert round(share * distinct) < 2 or round(share * distinct) == distinct
        return
    assert not {e.prompt for e in train} & {e.prompt for e in test}
    assert sorted((*train, *test), key=repr) == sorted(examples, key=repr)
    assert len({e.prompt for e in test}) == round(share * distinct) >= 2
    assert train


def test_evaluation_examples_are_the_same_for_everyone() -> None:
    examples = tuple(Example(str(i)) for i in range(20))
    task = SampledTask(examples[:4], examples[4:], reward=VOID)
    assert evaluation_examples(task, 16) == examples[4:]
    some = evaluation_examples(task, 5)
    assert len(some) == 5
    assert some == evaluation_examples(task, 5)
    assert [int(e.prompt) for e in some] == sorted(int(e.prompt) for e in some)
    assert evaluation_examples(SampledTask(examples[:4], reward=VOID), 9) == examples[:4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: sample\nprompts: p.jsonl", "kind is 'sample'.*sampled"),
        ("prompts: p.jsonl", "has prompts but no kind; add kind: sampled"),
        ("kind: sampled", "has no prompts; add it"),
        ("kind: sampled\nprompts: 3", "prompts is 3; expected str"),
        ("kind: sampled\nprompts: none.jsonl", "cannot read the prompts file .*none.jsonl"),
        (
            "kind: sampled\nprompts: p.jsonl\nprompt: q",
            "p.jsonl, line 1 has q None; expected a text .it has prompt, ans",
        ),
        ("kind: sampled\nprompts: p.jsonl\ntemplate: '{q}'", "line 1 has q None"),
        ("kind: sampled\nprompts: p.jsonl\nmax_token: 3", "unknown key 'max_token'.*max_tokens"),
        ("kind: sampled\nprompts: p.jsonl\nmax_tokens: 0", "max_tokens is 0"),
        ("kind: sampled\nprompts: p.jsonl\nmax_tokens: 2.5", "max_tokens is 2.5; expected int"),
        ("kind: sampled\nprompts: p.jsonl\ntemperature: 0", "temperature is 0.0; give a positive"),
        ("kind: sampled\nprompts: p.jsonl\ntemperature: .nan", "temperature is nan"),
        ("kind: sampled\nprompts: p.jsonl\nstop: ['']", "empty text would stop every answer"),
        ("kind: sampled\nprompts: p.jsonl\nheld_out: 1", "held_out is 1.0"),
        ("kind: sampled\nprompts: p.jsonl\nheld_out: 0.1", "held_out 0.1 of 8 different prompts is 1, but 2"),
        ("kind: sampled\nprompts: p.jsonl\nreward: exac", "reward: kind is 'exac'; expected exact or regex"),
        ("kind: sampled\nprompts: p.jsonl\nreward: {kind: regex}", "reward: .*regex needs a pattern"),
        ("kind: sampled\nprompts: p.jsonl\nreward: {source: x}", "reward has the unknown key 'source'"),
        ("kind: sampled\nprompts: p.jsonl\nreward: {answer: right}", "has right None; a reward of kind exact needs"),
        ("kind: sampled\nprompts: p.jsonl\nreward: {kind: importable, function: 'no_such:f'}", "cannot be imported"),
        ("kind: label-copy\nlabels: [A]", "two or more different labels"),
        ("kind: label-copy\nlabel: [A]", "unknown key 'label'.*labels"),
        ("- a", "holds list; expected a mapping"),
        ("3", "holds int"),
        ("task.yaml", "holds str; expected a mapping"),
        ("", "holds NoneType"),
        ("a: [", "no YAML"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_task(written(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"prompt": "a"}\n{"prompt"', "line 2 is no JSON"),
        (b'{"prompt": "a"}\n\n["a"]', "line 3 holds a list; expected an object"),
        (b'{"prompt": ["a"]}', "line 1 has prompt \\['a'\\]; expected a text"),
        (b'{"prompt": ""}', "a prompt is empty"),
        (b"\xff\xfe", "cannot read the prompts file"),
    ],
)
def test_each_fault_of_a_prompts_file_names_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, "kind: sampled\nprompts: p.jsonl\nheld_out: 0\nreward: {kind: regex, pattern: a}")
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_task(path)
    assert "\n" not in str(error.value)


def test_a_task_in_place_is_a_mapping_or_a_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sweep.yaml: task holds list; expected a mapping, or the path of a task file"):
        task_of([1], tmp_path, "sweep.yaml: task")


def test_a_missing_task_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*none.yaml.*give a YAML file that describes a task"):
        read_task(tmp_path / "none.yaml")
