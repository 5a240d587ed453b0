"""The YAML of `vgrad sweep`: what it means, and one clear line for each mistake."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_models
from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.sampled_grpo import SampledSettings
from vgrad_lab.checkpoints.sampled_tasks import SampledTask, task_name
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.sweep import run_unit
from vgrad_lab.experiments.sweep_command import sweep
from vgrad_lab.experiments.sweep_config import read_config, units_of

TEXT = """
ladders: ladder
out: run
task: {labels: [A, B]}
stages: [measure, rl]
seeds: [0, 1]
measures: {prompts: 8, sampled_groups: 4}
protocols:
  - {optimizer: adamw, learning_rate: 1e-3, prompts: 2, budgets: [1], evaluation_prompts: 8}
executor: {kind: local, workers: 2}
policy: {retries: 1, pause: 0.1, poll: 0.1}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_values_paths_and_numbers(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, TEXT))
    assert config.ladders == (tmp_path / "ladder",)
    assert config.out == tmp_path / "run"
    assert config.protocols[0].learning_rate == 1e-3
    assert config.protocols[0].budgets == (1,)
    assert config.task.labels == ("A", "B")
    assert config.policy.retries == 1


def test_the_default_rate_and_clip_are_those_of_the_optimiser(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, "ladders: x\nprotocols: [{optimizer: sgd}, {}]"))
    assert [(p.learning_rate, p.clip) for p in config.protocols] == [(1e-2, None), (1e-4, 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ladder: x", "unknown key 'ladder'.*ladders"),
        ("ladders: x\nprotocols: [{learning_rat: 1}]", "protocols has the unknown key 'learning_rat'.*learning_rate"),
        ("ladders: x\nexecutor: {kind: slurm}", "kind is 'slurm'; expected local or ray or submitit"),
        ("ladders: x\nexecutor: {workers: 0}", "executor: workers is 0"),
        ("ladders: x\nexecutor: {gpus: 2}", "gpus is 2"),
        ("ladders: x\nexecutor: {workers: true}", "workers is True; expected int"),
        ("ladders: x\npolicy: {lease: -1}", "policy: .*lease is -1"),
        ("ladders: x\nstages: [measur]", "stages has 'measur'.*measure"),
        ("ladders: x\nseeds: [0, 0]", "seeds are different"),
        ("ladders: x\nseeds: [a]", "expected a list of int"),
        ("ladders: x\nprotocols: []", "expected a list of mappings"),
        ("ladders: x\nprotocols: [{}, {}]", "one protocol twice"),
        ("ladders: x\nprotocols: [{optimizer: adam}]", "optimizer|adam"),
        ("ladders: x\ntask: {labels: [A]}", "two or more different labels"),
        ("ladders: x\ntask: {labels: [1, 2]}", "labels is 1; expected str"),
        ("out: y", "no ladders"),
        ("- a", "holds list; expected a mapping"),
        ("", "holds NoneType"),
        ("a: [", "no YAML"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_config(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_the_command_runs_continues_tells_and_fails(tmp_path: Path) -> None:
    """Two real checkpoints, one with a corrupt header: a row with its reason, the other done, exit code 1."""
    for i in (1, 2):
        tiny_models.save(tmp_path / "ladder" / f"step{i:06d}", seed=i)
    (tmp_path / "ladder" / "step000002" / "model.safetensors").write_bytes(b"\xff" * 64)
    config = written(tmp_path, TEXT.replace("[measure, rl]", "[measure]"))
    assert len(units_of(read_config(config))) == 2
    command = [sys.executable, "-c", "from vgrad_lab.cli import main; main()", "sweep"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.run([*command, str(config), *more], capture_output=True, text=True, env=environment, check=False)
        for more in (("-q",), ("--status",))
    ]
    assert [run.returncode for run in runs] == [1, 1], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert runs[1].stdout.endswith("2 units: 1 done, 1 failed\n")
    assert "damaged" in runs[1].stdout


SAMPLED = """
ladders: ladder
out: run
task: task.yaml
stages: [rl]
seeds: [1]
protocols:
  - {loss: dr_grpo, learning_rate: 1e-3, prompts: 2, group_size: 2, budgets: [1], evaluation_prompts: 4}
executor: {kind: local, workers: 2}
"""


def sampled(folder: Path, text: str = SAMPLED) -> Path:
    """A sweep, its task and its prompts, side by side."""
    rows = [{"prompt": f"Label: {y}\nLabel:", "answer": y} for y in "ABCDEFGH"]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "task.yaml").write_text("kind: sampled\nprompts: prompts.jsonl\nheld_out: 0.5\nmax_tokens: 3\n")
    return written(folder, text)


def test_a_task_file_or_a_task_in_place(tmp_path: Path) -> None:
    one = read_config(sampled(tmp_path))
    place = "{kind: sampled, prompts: prompts.jsonl, held_out: 0.5, max_tokens: 3}"
    other = read_config(sampled(tmp_path, SAMPLED.replace("task.yaml", place)))
    assert one.task == other.task
    assert isinstance(one.task, SampledTask)
    assert one.protocols[0] == SampledSettings(
        loss="dr_grpo", learning_rate=1e-3, prompts=2, group_size=2, budgets=(1,), evaluation_prompts=4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("task.yaml", "missing.yaml"), "cannot read .*missing.yaml"),
        (("[rl]", "[rl, forecast]"), "stages has forecast, but the forecast needs closed forms over one token"),
        (("dr_grpo", "ppo"), "loss is 'ppo'; expected grpo or dr_grpo or dapo"),
        (("evaluation_prompts: 4", "kl: 0.1"), "protocols: kl is 0.1: for answers of several tokens"),
        (("task: task.yaml", "task: {}"), "protocols has the unknown key 'loss'"),
    ],
)
def test_each_mistake_of_a_sampled_sweep_is_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_config(sampled(tmp_path, SAMPLED.replace(*change)))
    assert "\n" not in str(error.value)


def test_a_sampled_sweep_runs_and_repeats_what_its_units_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real checkpoints, a process per unit; the records are those of the units run here, and no unit is run again."""
    for i in (1, 2):
        tiny_models.save(tmp_path / "ladder" / f"step{i:06d}", seed=i, initializer_range=0.3)
    config = sampled(tmp_path)
    sweep(config, quiet=True)
    assert capsys.readouterr().out.endswith("2 units: 2 done, 0 failed\n")
    records = store.read_records(tmp_path / "run")
    units = units_of(read_config(config))
    for unit in units:
        record = records[unit.id]
        assert record["task"] == task_name(unit.task)
        assert record["settings"]["loss"] == "dr_grpo"
        assert record["result"] == json.loads(json.dumps(unit.run()["result"]))
    sweep(config, quiet=True)
    assert store.read_records(tmp_path / "run") == records


def test_a_forecast_of_sampled_answers_is_refused_with_its_reason(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "ladder" / "step000001")
    config = read_config(sampled(tmp_path))
    unit = units_of(config)[0]
    plan = plan_of(GrpoSettings(), ForecastSettings())
    record = run_unit(dataclasses.replace(unit, stage="forecast", settings=plan))
    assert record["status"] == "failed"
    assert "no forecast of this task: the forecast needs closed forms" in record["error"]
