"""docs/tasks.md does what it says: its YAML is that of docs/tasks, and each task runs on a real checkpoint."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.rewards import load_function
from vgrad_lab.checkpoints.sampled_tasks import SampledTask
from vgrad_lab.checkpoints.task_files import SampledFile, read_task
from vgrad_lab.experiments import one_checkpoint
from vgrad_lab.experiments.checkpoint_commands import measure, rl
from vgrad_lab.experiments.sweep_config import read_config

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def _own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's PYTHONPATH=docs/tasks."""
    monkeypatch.syspath_prepend(str(DOCS / "tasks"))
    load_function.cache_clear()


def test_the_page_shows_the_files() -> None:
    for name in ("pairs.yaml", "labels.yaml", "half.yaml"):
        assert (DOCS / "tasks" / name).read_text(encoding="utf-8") in BLOCKS
    source = (DOCS / "tasks" / "half_marks.py").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert all(block in source for block in shown)
    assert json.loads((DOCS / "tasks" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[1]) == json.loads(
        re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0]
    )


def test_every_key_is_explained() -> None:
    keys = {*SampledFile.__dataclass_fields__, "reward"}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## Rewards")[0], re.MULTILINE)) == keys | {"sampled"}


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_every_task_of_the_page_runs(index: int, tmp_path: Path, tiny_rung: Rung) -> None:
    """Measured and trained on by the commands, as a user types them."""
    (tmp_path / "pairs.jsonl").write_bytes((DOCS / "tasks" / "pairs.jsonl").read_bytes())
    file = tmp_path / "task.yaml"
    file.write_text(BLOCKS[index], encoding="utf-8")
    measure(tiny_rung.path, task=file, group=4, prompts=4, out=tmp_path / "run")
    rl(tiny_rung.path, task=file, group=2, budget=[1], out=tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    kind = "sampled" if isinstance(read_task(file), SampledTask) else "label-copy"
    assert [(r["stage"], r["status"], r["task"].rsplit("-", 1)[0]) for r in records] == [
        ("measure", "done", kind),
        ("rl", "done", kind),
    ]


def test_the_sweep_of_the_page(tmp_path: Path, tiny_rung: Rung) -> None:
    config = read_config(DOCS / "tasks" / "sweep.yaml")
    assert config.task == read_task(DOCS / "tasks" / "pairs.yaml")
    assert config.stages == ("measure", "rl")


def test_lines_for_sampled_answers(tmp_path: Path, tiny_rung: Rung) -> None:
    """What `vgrad rl` prints: errors beside the rewards, and how they were taken."""
    from vgrad_lab.checkpoints.sampled_grpo import SampledSettings

    task: Any = read_task(DOCS / "tasks" / "half.yaml")
    settings = SampledSettings(budgets=(1,), group_size=2, prompts=2, evaluation_prompts=4)
    (record,) = one_checkpoint.run(tiny_rung.path, task=task, rl=settings)
    x = record["result"]
    lines = one_checkpoint.describe_rl([record]).splitlines()
    assert f"R before {x['reward_before']:.4f}" in lines[0]
    assert lines[1].startswith("  4 answers to each of 4 prompts; of the groups trained on ")
    x.update(reward_before_standard_error=0.25, gain_standard_error=0.5, reward_standard_error=[None])
    (first, _) = one_checkpoint.describe_rl([record]).splitlines()
    assert f"R before {x['reward_before']:.4f} ± 0.2500  after 1: {x['reward_after'][0]:.4f}  mean gain" in first
    assert first.endswith(" ± 0.5000")


def test_the_table_is_that_of_the_committed_run() -> None:
    found = json.loads((DOCS / "results" / "sampled_pairs.json").read_text(encoding="utf-8"))
    assert found["command"] in PAGE
    for m in found["measures"]:
        one, two = (r for r in found["rl"] if r["step"] == m["step"])
        cells = [str(m["step"]), _cell(one["reward_before"], one["reward_before_standard_error"])]
        cells += [_cell(r["reward_after"][1], r["reward_standard_error"][1]) for r in (one, two)]
        cells += [f"{one['dead_groups'][1]:.0%}", "undefined"]
        if m["signal"]["value"] is not None:
            cells[-1] = f"{m['signal']['value']:.2g} ± {m['signal']['standard_error']:.1g}"
        assert f"| {' | '.join(cells)} |\n" in PAGE


def _cell(value: float, error: float | None) -> str:
    return f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")
