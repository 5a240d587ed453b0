"""Measures of sampled answers: against the closed forms of one-token tasks, on every family, and what is undefined."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests import tiny_models
from tests.checkpoints.taught import TASK, checkpoint_of, taught
from vgrad_lab.checkpoints import sampled_measure
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.filled import filled
from vgrad_lab.checkpoints.generation import Rollouts
from vgrad_lab.checkpoints.group_estimate import NO_SPREAD
from vgrad_lab.checkpoints.group_headroom import headroom_between, headroom_within
from vgrad_lab.checkpoints.group_signal import ALL_DEAD, GroupRule
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.probe import EVALUATION_SEED, MeasureSettings, measure
from vgrad_lab.checkpoints.report.collect import collect
from vgrad_lab.checkpoints.report.export import Scored, summary_json
from vgrad_lab.checkpoints.report.scores import study_rows
from vgrad_lab.checkpoints.rewards import Reward
from vgrad_lab.checkpoints.sampled_measure import PLACES, measure_sampled
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask
from vgrad_lab.checkpoints.store import canonical
from vgrad_lab.checkpoints.tasks import draw_prompts
from vgrad_lab.experiments.one_checkpoint import describe_measures, run
from vgrad_lab.experiments.sampled_lines import HEADS, PLACE

SETTINGS = MeasureSettings(prompts=8, group_size=4, micro_batch=8)
SHORT = SampledTask(
    tuple(Example(f"Label: {y}\nLabel:", json.dumps({"answer": y})) for y in "ABCDABCD"), max_tokens=2, eos=True
)
"""Two tokens an answer; the right one is the label, then the end."""
CLOSE = SampledTask(SHORT.prompts, reward=Reward("regex", pattern="[ABac-k]"), max_tokens=2)
"""Rewards that a taught model misses, and a random one finds, now and then."""


def copying(prompts: int) -> SampledTask:
    """The one-token label-copy task as a task of sampled answers, on the prompts that ``measure`` draws."""
    drawn = draw_prompts(TASK, prompts, seed=EVALUATION_SEED)
    rows = tuple(Example(text, json.dumps({"answer": TASK.labels[label]})) for text, label in drawn)
    return SampledTask(rows, max_tokens=1, eos=False)


def length_reward(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """Share of letters in an answer, between 0 and 1."""
    return sum(c.isalpha() for c in completion) / max(len(completion), 1)


def big_reward(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """Beyond 1."""
    return 3.0 * length_reward(prompt, completion, row)


def record(result: dict[str, Any], name: str = "step000010") -> dict[str, Any]:
    return {"status": "done", "result": result, "checkpoint": {"name": name}, "seed": 0, "error": None}


def test_one_token_answers_agree_with_the_closed_forms() -> None:
    """Estimates of 64 prompts within 5 standard errors of the exact measures of the same prompts."""
    checkpoint, settings = taught("Olmo2"), MeasureSettings(prompts=64)
    exact = measure(checkpoint, TASK, settings)
    found = measure_sampled(checkpoint, copying(64), settings, seed=0)
    assert found["prompts"] == 64
    assert found["answers"] == 16
    for key in (
        "reward_before", "pass_at_k", "entropy", "signal", "alignment", "costate_gap_conditional", "headroom_within",
        "impact_score",
    ):  # fmt: skip
        value, error = found[key]["value"], found[key]["standard_error"]
        assert abs(value - exact[key]) <= 5 * error, key
        assert error < 0.7 * abs(exact[key]), key
    assert abs(found["mixed_group"]["value"] - exact["mixed_group"]) <= 5 * found["mixed_group"]["standard_error"]
    assert found["dead_groups"]["value"] == pytest.approx(1 - found["mixed_group"]["value"])
    assert found["success_variance"]["value"] == pytest.approx(exact["success_variance"], rel=0.1)


def test_a_wrong_temperature_is_seen() -> None:
    """The planted fault: answers of softmax(logits/1.3) miss the closed forms of temperature 1."""
    checkpoint, settings = taught("Olmo2"), MeasureSettings(prompts=64)
    exact = measure(checkpoint, TASK, settings)
    found = measure_sampled(checkpoint, replace(copying(64), temperature=1.3), settings, seed=0)
    assert abs(found["reward_before"]["value"] - exact["reward_before"]) > 5 * found["reward_before"]["standard_error"]


@pytest.mark.parametrize("family", tiny_models.CAUSAL)
def test_every_family_is_measured(family: str) -> None:
    """Also with tied or soft-capped heads, for which the closed forms of `measure` are refused."""
    model = tiny_models.causal(family, vocab_size=320, max_position_embeddings=128, eos_token_id=0, bos_token_id=0)
    found = measure_sampled(checkpoint_of(model), CLOSE, SETTINGS, seed=1)
    canonical(found)  # refuses NaN and infinity
    assert list(found["places"]) == [place.name for place in PLACES]
    for key in ("reward_before", "signal", "alignment", "costate_gap_conditional", "impact_score", "headroom_within"):
        assert found[key]["value"] is not None, (key, found[key])
    assert 1 <= found["answer_length"]["value"] <= 2
    assert found["signal"] == found["places"][PLACES[0].name]["signal"]
    text = describe_measures([record(found)])
    for line, _ in (*HEADS, *PLACE):
        assert line in text
    assert re.search(r"Λ, single costates +undefined \(a norm of single costates has", text)
    assert "nan" not in text


def test_results_depend_on_the_seed_and_not_on_the_micro_batch() -> None:
    checkpoint = taught("Olmo2")
    one = measure_sampled(checkpoint, CLOSE, SETTINGS, seed=0)
    for size in (3, 64):
        other = measure_sampled(checkpoint, CLOSE, replace(SETTINGS, micro_batch=size), seed=0)
        for key in ("reward_before", "signal", "alignment", "answer_entropy"):
            assert other[key]["value"] == pytest.approx(one[key]["value"], rel=1e-3, abs=1e-7), key
    assert measure_sampled(checkpoint, CLOSE, SETTINGS, seed=1)["signal"] != one["signal"]


def test_no_success_leaves_the_signal_undefined() -> None:
    never = SampledTask(SHORT.prompts, reward=Reward("regex", pattern="no such answer"), max_tokens=2)
    found = measure_sampled(taught("Olmo2"), never, SETTINGS, seed=0)
    assert found["reward_before"] == {"value": 0.0, "standard_error": None, "reason": NO_SPREAD}
    assert found["dead_groups"]["value"] == 1
    assert found["policy_mismatch"] is None
    for key in ("signal", "alignment", "costate_gap_conditional"):
        assert found[key] == {"value": None, "standard_error": None, "reason": ALL_DEAD}
    assert found["impact_score"]["reason"] == f"Λ is undefined: {ALL_DEAD}"
    assert f"undefined ({ALL_DEAD})" in describe_measures([record(found)])


def test_real_rewards_have_a_signal_and_no_gap() -> None:
    where = f"{__name__}:length_reward"
    task = SampledTask(SHORT.prompts, reward=Reward("importable", function=where), max_tokens=2)
    found = measure_sampled(taught("Olmo2"), task, SETTINGS, seed=0)
    for key in ("signal", "alignment", "costate_bias_squared", "headroom_within"):
        assert found[key]["value"] is not None, key
    for key in ("costate_gap_conditional", "impact_score", "grpo_scale", "pass_at_k"):
        assert found[key]["value"] is None, key
        assert "rewards other than 0 and 1" in found[key]["reason"]
    own = measure_sampled(taught("Olmo2"), task, replace(SETTINGS, baseline="group_mean"), seed=0)
    assert own["costate_gap_conditional"]["value"] == pytest.approx(own["signal"]["value"] / 4)
    assert own["impact_score"]["value"] is not None
    beyond = SampledTask(SHORT.prompts, reward=Reward("importable", function=f"{__name__}:big_reward"), max_tokens=2)
    wide = measure_sampled(taught("Olmo2"), beyond, replace(SETTINGS, baseline="group_mean"), seed=0)
    assert wide["headroom_within"]["reason"] == "rewards outside [0, 1]: their range is not known"
    assert wide["impact_score"]["reason"].startswith("H is undefined: rewards outside")
    assert wide["signal"]["value"] == pytest.approx(9 * own["signal"]["value"], rel=1e-6)


def test_too_few_answers_or_prompts_and_a_large_alpha_are_undefined() -> None:
    checkpoint = taught("Olmo2")
    few = measure_sampled(checkpoint, CLOSE, replace(SETTINGS, answers=3), seed=0)
    assert few["signal"]["reason"] == "needs 4 answers per prompt, got 3"
    assert few["pass_at_k"]["reason"] == "needs 4 answers per prompt, got 3"
    tight = measure_sampled(checkpoint, CLOSE, replace(SETTINGS, answers=5), seed=0)
    assert tight["signal"]["value"] is not None
    assert tight["alignment"]["reason"] == "needs a group of 4 and 2 more answers per prompt, got 5"
    sharp = measure_sampled(checkpoint, CLOSE, replace(SETTINGS, alpha=8.0), seed=0)
    assert "may be biased by" in sharp["headroom_within"]["reason"]
    assert sharp["impact_score"]["reason"].startswith("H is undefined")
    one = measure_sampled(checkpoint, CLOSE, replace(SETTINGS, prompts=1), seed=0)
    assert one["reward_before"]["value"] is not None
    assert one["reward_before"]["reason"] == "a standard error needs 2 prompts"
    assert one["impact_score"]["value"] is None
    assert "± undefined" in describe_measures([record(one)])


def test_other_places_can_be_named() -> None:
    named = replace(SETTINGS, states=("1", "2:last", "1:prompt"))
    found = measure_sampled(taught("Olmo2"), CLOSE, named, seed=0)
    assert list(found["places"]) == [
        "output of layer 1, all prompt positions",
        "output of layer 2, last prompt position",
    ]
    assert found["place"] == "output of layer 1, all prompt positions"
    for states, message in ((("9",), "layer is 9"), (("head:first",), "state is 'head:first'"), (("-1",), "state is")):
        with pytest.raises(UserError, match=message):
            measure_sampled(taught("Olmo2"), CLOSE, replace(SETTINGS, states=states), seed=0)
    with pytest.raises(UserError, match="answers is 1"):
        measure_sampled(taught("Olmo2"), CLOSE, replace(SETTINGS, answers=1), seed=0)
    for given in ({"states": ("head",)}, {"answers": 8}):
        with pytest.raises(UserError, match="belong to tasks of sampled answers"):
            measure(taught("Olmo2"), TASK, replace(SETTINGS, **given))


def test_a_policy_that_is_not_the_sampling_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*args: Any, **options: Any) -> Any:
        rollouts = sampled_measure_sample(*args, **options)
        return replace(rollouts, logp=rollouts.logp - 0.02 * (rollouts.logp != 0))

    sampled_measure_sample = sampled_measure.sample
    monkeypatch.setattr(sampled_measure, "sample", other)
    with pytest.raises(UserError, match=r"differ by 0\.02 nats a token"):
        measure_sampled(taught("Olmo2"), CLOSE, SETTINGS, seed=0)


def test_a_broken_checkpoint_is_refused() -> None:
    model = tiny_models.model("Olmo2")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises((UserError, ValueError), match=r"finite|cannot be"):
        measure_sampled(checkpoint_of(model), CLOSE, SETTINGS, seed=0)


def test_several_checkpoints_share_the_reasons() -> None:
    found = measure_sampled(taught("Olmo2"), CLOSE, SETTINGS, seed=0)
    two = describe_measures([record(found, "step000010"), record(found, "step000020")])
    reason = re.findall(r"^\[(\d)\] undefined \(a norm of single costates", two, re.MULTILINE)
    assert len(reason) == 1
    assert two.count(f"undefined [{reason[0]}]") == 2 * len(PLACES)
    many = [record(found, f"step{i:06d}") for i in range(5)]
    lines = describe_measures([*many, {**record(found), "status": "failed", "error": "no"}]).splitlines()
    assert [line.split()[0] for line in lines[3:8]] == [f"step{i:06d}" for i in range(5)]
    assert lines[-1] == "step000010 seed 0 FAILED: no"
    assert np.isfinite(float(lines[3].split()[1]))


def test_bfloat16_is_measured_and_named() -> None:
    exact = measure_sampled(taught("Olmo2"), CLOSE, SETTINGS, seed=0)
    found = measure_sampled(taught("Olmo2"), CLOSE, replace(SETTINGS, precision="bfloat16"), seed=0)
    assert "precision" not in exact
    assert found["precision"] == "bfloat16"
    assert 0 < found["policy_mismatch"] < 0.05
    assert 1e-5 < abs(found["answer_entropy"]["value"] - exact["answer_entropy"]["value"]) < 0.5
    assert exact["policy_mismatch"] < 1e-5
    assert abs(found["reward_before"]["value"] - exact["reward_before"]["value"]) < 0.2


def test_reports_read_sampled_measures(tmp_path: Path) -> None:
    """Undefined stays undefined in its tables; Σ, Λ and P_gap of sampled answers are among the predictors."""
    for step in (10, 20, 30):
        tiny_models.save(tmp_path / "ladder" / f"step{step:06d}", seed=step, initializer_range=0.2)
    rl = GrpoSettings(budgets=(1,), prompts=2, group_size=4, evaluation_prompts=8)
    run(tmp_path / "ladder", task=CLOSE, measures=SETTINGS, rl=rl, out=tmp_path / "out")
    found = collect(tmp_path / "out")
    rows = {row.name: row for row in study_rows(found.studies[0], resamples=20)}
    json.loads(summary_json("run", found, [Scored("stem", found.studies[0], rows)]))
    for name in ("Σ", "R_before", "P_gap conditional × within", "mixed group", "E[p(1 − p)]"):
        assert rows[name].undefined == 0, name
    for name in ("P_gap per sample × within", "‖∇J‖²", "forecast"):
        assert rows[name].undefined == 3, name


def test_the_page_says_what_is_printed() -> None:
    """Its YAML is read, and its numbers of answers and prompts are those from which a headroom is defined."""
    page = (Path(__file__).parents[2] / "docs" / "sampled_measures.md").read_text(encoding="utf-8")
    given = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    settings = filled(MeasureSettings, given["measures"], "the page")
    assert settings.states == ("head:last", "2:prompt")
    assert "7 at α = 1, 12 at α = 2; between: also 8 prompts at α = 1" in page
    for alpha, answers in ((1.0, 7), (2.0, 12)):
        assert headroom_within(np.eye(3, answers), alpha).value is not None
        assert headroom_within(np.eye(3, answers - 1), alpha).value is None
    assert headroom_between(np.eye(8, 7), 1.0).value is not None
    assert headroom_between(np.eye(7, 16), 1.0).value is None


def test_entropies_and_lengths_of_given_answers() -> None:
    """Two prompts, two answers each, by hand: log-probabilities −1 and −2, −3 alone, and so on."""
    rollouts = Rollouts(
        tokens=torch.zeros(4, 4, dtype=torch.int64),
        prompt_length=torch.full((4,), 2),
        answer_length=torch.tensor([2, 1, 2, 2]),
        logp=torch.tensor([[-1.0, -2.0], [-3.0, 0.0], [-1.0, -1.0], [0.0, -4.0]], dtype=torch.float64),
        reward=np.array([[0.0, 1.0], [1.0, 1.0]]),
        texts=(("", ""), ("", "")),
        ended=torch.tensor([True, False, False, False]),
        temperature=1.0,
    )
    found = sampled_measure.reward_measures(rollouts, 1.0, GroupRule(2))
    assert found["entropy"].value == pytest.approx(np.mean([1.5, 3.0, 1.0, 2.0]))
    assert found["answer_entropy"].value == pytest.approx(np.mean([3.0, 3.0, 2.0, 4.0]))
    assert found["answer_length"].value == pytest.approx(1.75)
    assert found["ended"].value == pytest.approx(0.25)
    assert found["entropy"].standard_error == pytest.approx(0.375)
