"""The YAML of `vgrad sweep`: what it means, and one clear line for each mistake."""

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests import tiny_models
from tests.checkpoints.fake_units import Inline
from tests.loopback_hub import FAULTS, Repository, folder_files, serve
from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.sampled_grpo import SampledSettings
from vgrad_lab.checkpoints.sampled_tasks import SampledTask, task_name
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.specs import FOLDER_PATTERN
from vgrad_lab.checkpoints.sweep import run_unit
from vgrad_lab.experiments import sweep_command
from vgrad_lab.experiments.sweep_command import sweep
from vgrad_lab.experiments.sweep_config import read_config, units_of
from vgrad_lab.experiments.sweep_ladders import HubLadder

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


def vgrad(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    """`vgrad sweep` in this process, units too."""
    app = typer.Typer()
    app.command()(sweep_command.sweep)
    monkeypatch.setattr(sweep_command, "make_executor", lambda *_: Inline())
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_command_runs_continues_tells_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real checkpoints, one with a corrupt header: a row with its reason, the other done, exit code 1."""
    for i in (1, 2):
        tiny_models.save(tmp_path / "ladder" / f"step{i:06d}", seed=i)
    (tmp_path / "ladder" / "step000002" / "model.safetensors").write_bytes(b"\xff" * 64)
    config = written(tmp_path, TEXT.replace("[measure, rl]", "[measure]"))
    assert len(units_of(read_config(config))) == 2
    runs = [vgrad(monkeypatch, config, *more) for more in (("-q",), ("--status",))]
    assert [run.exit_code for run in runs] == [1, 1]
    assert runs[0].output == runs[1].output
    assert runs[1].output.endswith("2 units: 1 done, 1 failed\n")
    assert "damaged" in runs[1].output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[olmo2-1b-papr]", "no folder .*olmo2-1b-papr, and no ladder named .*olmo2-1b-paper"),
        ("[{ladder: x, ever: 2}]", "unknown key 'ever'.*every"),
        ("[{rungs: [1]}]", "ladders has no ladder; add it"),
        ("[{ladder: x, every: a}]", "every is 'a'; expected int or NoneType"),
        ("[{ladder: x, allow: duplicat}]", "cannot allow 'duplicat'.*duplicate"),
        ("[{ladder: nosuch}]", "no ladder named 'nosuch'"),
        ("[3]", "expected a list of str, or of mappings with the keys ladder, rungs"),
        ("[]", "ladders is empty"),
    ],
)
def test_each_mistake_about_a_ladder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    error = vgrad(monkeypatch, written(tmp_path, f"ladders: {text}\nout: run")).exception
    assert isinstance(error, UserError)
    assert re.search(message, str(error))
    assert "\n" not in str(error)
    assert not (tmp_path / "run").exists()


def test_entries_of_ladders(tmp_path: Path) -> None:
    (tmp_path / "olmo2-7b").mkdir()
    text = (
        "ladders: [olmo2-1b, olmo2-7b, mine.yaml, allenai/OLMo-2-0425-1B, {ladder: olmo2-1b, from: 0, to: 9, rungs: 3,"
    )
    config = read_config(written(tmp_path, text + " every: 2, allow: duplicate, cache: rungs, keep: true}]"))
    assert config.ladders == (
        HubLadder("olmo2-1b"),
        tmp_path / "olmo2-7b",
        HubLadder(str(tmp_path / "mine.yaml")),
        HubLadder("allenai/OLMo-2-0425-1B"),
        HubLadder("olmo2-1b", (3,), 0, 9, 2, ("duplicate",), str(tmp_path / "rungs"), True),
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Main and three rungs of a tiny OLMo-2."""
    folder = tmp_path_factory.mktemp("hub")
    names = ("main", "step1", "step2", "step3")
    return Repository(
        "ours/ladder",
        {name: folder_files(tiny_models.save(folder / name, seed=seed)) for seed, name in enumerate(names)},
    )


HUB_TEXT = TEXT.replace("ladders: ladder", "ladders: [{ladder: ours.yaml, to: 2, cache: rungs}]").replace(", rl]", "]")


def test_a_sweep_straight_from_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Repository) -> None:
    """Audited, fetched, run, evicted; a second call fetches nothing; a folder of these rungs has the same units."""
    (tmp_path / "ours.yaml").write_text(f"repository: ours/ladder\npattern: '{FOLDER_PATTERN}'\n")
    config = written(tmp_path, HUB_TEXT)
    with serve(repository, default=True) as hub:
        assert vgrad(monkeypatch, config, "--status").output.endswith("2 units: 0 done, 0 failed, 2 open\n")
        run = vgrad(monkeypatch, config, "-q")
        assert (run.exit_code, run.exception) == (0, None)
        assert run.output.endswith("2 units: 2 done, 0 failed\n")
        fetched = [asked for asked in hub.requests if asked.endswith("model.safetensors")]
        assert len(fetched) == 2
        assert not list((tmp_path / "rungs").glob("*/step*"))
        assert vgrad(monkeypatch, config).output.endswith("2 units: 2 done, 0 failed\n")
        assert len([asked for asked in hub.requests if asked.endswith("model.safetensors")]) == 2
        hub.plant("*/model.safetensors", "404")
        config.write_text(config.read_text().replace("to: 2", "to: 3"))
        failed = vgrad(monkeypatch, config)
    assert failed.exit_code == 1
    assert "step3 could not be fetched: ours/ladder at step3, model.safetensors" in failed.output
    (audit,) = (tmp_path / "run" / "ladders").glob("*.json")
    assert json.loads(audit.read_text())["verdict"] == "clean"
    records = store.read_records(tmp_path / "run")
    found = list_rungs_of(tmp_path, repository)
    units = units_of(replace(read_config(config), ladders=(found,)))
    assert {unit.id for unit in units} == {*records}


def list_rungs_of(folder: Path, repository: Repository) -> Path:
    """The repository's rungs as a folder."""
    for k in (1, 2, 3):
        target = folder / "local" / f"step{k:06d}"
        target.mkdir(parents=True)
        for name, one in repository.branches[f"step{k}"].items():
            assert one.content is not None
            (target / name).write_bytes(one.content)
    return folder / "local"


def test_a_refused_ladder_refuses_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Repository
) -> None:
    (tmp_path / "ours.yaml").write_text(f"repository: ours/ladder\npattern: '{FOLDER_PATTERN}'\n")
    config = written(tmp_path, HUB_TEXT.replace("to: 2", "to: 3"))
    with serve(FAULTS["duplicate rung"](repository), default=True) as hub:
        refused = vgrad(monkeypatch, config).exception
        assert isinstance(refused, UserError)
        assert "allow: [duplicate]" in str(refused)
        assert not [asked for asked in hub.requests if asked.endswith("model.safetensors")]
        assert not (tmp_path / "run").exists()
        config.write_text(config.read_text().replace("to: 3", "to: 3, allow: [duplicate]"))
        assert vgrad(monkeypatch, config).output.endswith("3 units: 3 done, 0 failed\n")
    (audit,) = (tmp_path / "run" / "ladders").glob("*.json")
    assert json.loads(audit.read_text())["allowed"] == ["duplicate"]


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
