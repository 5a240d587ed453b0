"""The YAML of `vgrad sweep`: what it means, and one clear line for each mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_models
from vgrad_lab.checkpoints.errors import UserError
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
