"""GRPO on sampled answers: gradients against the formula and the closed form, prefixes, determinism, refusals."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny_models
from tests.checkpoints import reward_functions
from vgrad_lab.checkpoints import grpo, probe, sampled_grpo
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.generation import Rollouts, sample
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.rewards import Reward, importable
from vgrad_lab.checkpoints.sampled_tasks import Example, SampledTask
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts
from vgrad_lab.impact import grpo_scale
from vgrad_lab.stats import assert_mean_close

VOWELS = importable("tests.checkpoints.reward_functions:share_of_vowels")
EXAMPLES = tuple(Example(f"Label: {y}\nLabel:", json.dumps({"answer": y})) for y in "ABCD")
TASK = SampledTask(EXAMPLES, reward=VOWELS, temperature=0.7, max_tokens=4, stop=("e", "1"))
FAST = sampled_grpo.SampledSettings(prompts=3, group_size=4, budgets=(1, 3), evaluation_prompts=4, learning_rate=1e-3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return load_checkpoint(tiny_models.save(tmp_path / "c", initializer_range=0.3))


def formula(model: Any, rollouts: Rollouts, loss: str) -> torch.Tensor:
    """TRL's loss, written answer by answer: −mean over answers, or over tokens, of Â/(s + ε) log π."""
    terms, group = [], rollouts.reward.shape[1]
    for b in range(len(rollouts.tokens)):
        r = rollouts.reward[b // group]
        advantage = (r[b % group] - r.mean()) / (r.std(ddof=1) + 1e-4)
        start, size = int(rollouts.prompt_length[b]), int(rollouts.answer_length[b])
        row = rollouts.tokens[b : b + 1, : start + size]
        logp = torch.log_softmax(model(input_ids=row).logits[0, start - 1 : -1] / rollouts.temperature, -1)
        terms.append(-advantage * logp.gather(1, row[0, start:, None])[:, 0])
    if loss == "grpo":
        return torch.stack([t.mean() for t in terms]).mean()
    if loss == "dr_grpo":
        return torch.stack([t.sum() for t in terms]).sum() / (6 * len(terms))
    return torch.cat(terms).mean()


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("micro_batch", [64, 2])
def test_gradient_is_that_of_the_formula(checkpoint: Checkpoint, loss: Any, micro_batch: int) -> None:
    settings = dataclasses.replace(FAST, loss=loss, micro_batch=micro_batch)
    rollouts = sample(checkpoint, TASK, EXAMPLES, group_size=4, rng=np.random.default_rng(5))
    rollouts.reward[1] = 0.5  # a dead group
    assert len(set(rollouts.answer_length.tolist())) > 1
    model = checkpoint.model
    sampled_grpo.backward(model, rollouts, settings, max_tokens=6)
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    formula(model, rollouts, loss).backward()
    for a, p in zip(ours, model.parameters(), strict=True):
        scale = float(p.grad.abs().max())
        torch.testing.assert_close(a, p.grad, rtol=0, atol=2e-5 * scale + 1e-9)
        assert not scale or float((1.001 * a - p.grad).abs().max()) > 2e-5 * scale, "0.1 % would not be seen"


SPACED = importable("tests.checkpoints.reward_functions:spaced")


def taught(path: Path, prompts: list[tuple[str, int]]) -> tuple[Checkpoint, Any]:
    """A checkpoint that gives the right labels some mass, and the prompts as the label task encodes them."""
    found = load_checkpoint(path)
    batch = encode_prompts(LabelCopy(), found.tokenizer, prompts)
    states = torch.from_numpy(probe.answer_states(found.model, batch, 64)).float()
    with torch.no_grad():
        for y in sorted({y for _, y in prompts}):
            token = int(batch.labels[y])
            found.model.get_output_embeddings().weight[token] += 0.5 * states[batch.target == token].mean(0)
    return found, batch


def labelled(prompts: list[tuple[str, int]]) -> SampledTask:
    """The label task as a sampled one: one token, temperature 1, reward 1[a = y]."""
    examples = tuple(Example(text, json.dumps({"answer": "ABCD"[y]})) for text, y in prompts)
    return SampledTask(examples, reward=SPACED, max_tokens=1)


def test_one_token_answers_are_those_of_the_label_task(tmp_path: Path) -> None:
    """max_tokens 1, temperature 1, reward 1[a = y]: the mean gradient is the closed form's, −κ_G(p) ∂p per prompt."""
    prompts = draw_prompts(LabelCopy(), 8, seed=1)
    checkpoint, batch = taught(tiny_models.save(tmp_path / "c"), prompts)
    model, head = checkpoint.model, checkpoint.model.get_output_embeddings().weight
    p = torch.softmax(probe.answer_logits(model, *probe.on_device(model, batch, slice(None))[:2]), -1)
    right = p[torch.arange(8), torch.from_numpy(batch.target)]
    chance = right.detach().double().numpy()
    assert chance.min() > 0.005
    kappa = torch.from_numpy(grpo_scale(chance, 8)).float()
    (truth,) = torch.autograd.grad(-(kappa * right).mean(), head)
    size, settings, draws, task = float(truth.norm()), dataclasses.replace(FAST, group_size=8), [], labelled(prompts)
    for seed in range(12):  # of 12 groups a prompt each: as many updates at once
        rollouts = sample(checkpoint, task, task.prompts * 12, group_size=8, rng=np.random.default_rng(seed))
        sampled_grpo.backward(model, rollouts, settings, max_tokens=1)
        draws.append([float((head.grad * truth).sum()) / size])
    assert_mean_close(np.array(draws), np.array([size]), detectable=0.5 * size)
    with pytest.raises(AssertionError):
        assert_mean_close(1.5 * np.array(draws), np.array([size]), detectable=0.8 * size)
    wide = sample(checkpoint, task, task.prompts, group_size=600, rng=np.random.default_rng(0)).reward
    assert_mean_close(wide.T, chance, detectable=0.25)


def test_a_one_token_run_gains_what_its_evaluation_says(tmp_path: Path) -> None:
    """The label task learnt from samples: the exact reward rises, and the sampled evaluation is that of the model."""
    prompts = draw_prompts(LabelCopy(), 60, seed=2)
    checkpoint, batch = taught(tiny_models.save(tmp_path / "c"), prompts)
    before = grpo.evaluate(checkpoint.model, batch, 64)["reward"]
    settings = sampled_grpo.SampledSettings(
        learning_rate=1e-2, budgets=(15,), evaluation_prompts=60, evaluation_samples=20
    )
    task = labelled(prompts)
    result = sampled_grpo.train(checkpoint, task, settings, seed=0)
    after = grpo.evaluate(checkpoint.model, batch, 64)["reward"]
    assert after - before > 0.05
    with torch.no_grad():
        logits = probe.answer_logits(checkpoint.model, *probe.on_device(checkpoint.model, batch, slice(None))[:2])
    chance = torch.softmax(logits.double(), -1)[torch.arange(60), torch.from_numpy(batch.target)].numpy()
    found = sampled_grpo.evaluate(checkpoint, task, settings)
    assert result["reward_after"] == [float(found.reward.mean())]
    assert_mean_close((found.reward - chance)[:, None], np.zeros(1), detectable=0.15)
    assert result["dead_groups"][0] < 1
    assert result["answer_length_after"] == [1.0]


def test_budgets_are_prefixes_and_seeds_repeat(checkpoint: Checkpoint) -> None:
    def run(seed: int = 0, **change: Any) -> dict[str, Any]:
        return sampled_grpo.train(copy.deepcopy(checkpoint), TASK, dataclasses.replace(FAST, **change), seed=seed)

    long, again, other, short, cut = run(), run(), run(1), run(budgets=(1,)), run(micro_batch=1)
    assert long == again
    assert long["reward_after"] != other["reward_after"]
    assert long["reward_before"] == other["reward_before"]
    for key in ("reward_after", "reward_standard_error", "dead_groups", "answer_length_after", "ended_after"):
        assert long[key][0] == short[key][0]
    assert cut["reward_after"] == pytest.approx(long["reward_after"], abs=1e-6)
    gains = np.array(long["reward_after"]) - long["reward_before"]
    assert long["gain_mean"] == pytest.approx(float(gains.mean()))
    json.dumps(long, allow_nan=False)


def test_a_run_follows_its_seed_and_its_schedule(checkpoint: Checkpoint) -> None:
    """One prompt to train on, so that seeds differ by the answers alone; a warm-up of one update stands still first."""
    task = dataclasses.replace(TASK, prompts=EXAMPLES[:1], evaluation=EXAMPLES)
    base = dataclasses.replace(FAST, budgets=(1, 2), learning_rate=1e-2, evaluation_samples=8)
    runs = [
        sampled_grpo.train(copy.deepcopy(checkpoint), task, dataclasses.replace(base, **change), seed=seed)
        for change, seed in (({}, 0), ({}, 1), ({"warmup": 1}, 0))
    ]
    assert runs[0]["reward_after"] != runs[1]["reward_after"]
    assert runs[2]["reward_after"][0] == runs[2]["reward_before"] != runs[2]["reward_after"][1]
    found = sampled_grpo._result(
        base, dict.fromkeys(range(3), sampled_grpo.evaluate(checkpoint, task, base)), [1.0, 0.0]
    )
    assert found["dead_groups"] == [1.0, 0.5]


def test_every_prompt_is_trained_on_once_an_epoch(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of four prompts in updates of three, in another order each; the clip bounds SGD's step."""
    trained: list[str] = []

    def spy(model: Checkpoint, task: SampledTask, examples: Any, **given: Any) -> Rollouts:
        if examples is not task.prompts:
            trained.extend(example.prompt for example in examples)
        return sample(model, task, examples, **given)

    monkeypatch.setattr(sampled_grpo, "sample", spy)
    before = [p.detach().clone() for p in checkpoint.model.parameters()]
    settings = dataclasses.replace(FAST, prompts=2, budgets=(4,), optimizer="sgd", learning_rate=1.0, clip=1e-3)
    sampled_grpo.train(checkpoint, TASK, settings, seed=0)
    prompts = sorted(example.prompt for example in EXAMPLES)
    assert sorted(trained[:4]) == sorted(trained[4:]) == prompts
    assert trained[:4] != trained[4:]
    moved = [(p.detach() - q).norm() for p, q in zip(checkpoint.model.parameters(), before, strict=True)]
    assert 0 < float(torch.stack(moved).norm()) < 4.1e-3


def test_bfloat16_and_recomputed_layers(checkpoint: Checkpoint) -> None:
    """Recomputing changes nothing; bfloat16 products change the numbers a little, and their mismatch is told."""
    runs = [
        sampled_grpo.train(copy.deepcopy(checkpoint), TASK, dataclasses.replace(FAST, **change), seed=0)
        for change in ({}, {"recompute": True}, {"precision": "bfloat16"})
    ]
    assert runs[1]["reward_after"] == pytest.approx(runs[0]["reward_after"], abs=1e-6)
    assert runs[0]["policy_mismatch"] < 1e-5
    assert runs[2]["policy_mismatch"] != runs[0]["policy_mismatch"]


def test_a_model_that_samples_another_policy_is_refused(checkpoint: Checkpoint) -> None:
    """Log-probabilities of sampling that are not those of the pass that is differentiated."""
    rollouts = sample(checkpoint, TASK, EXAMPLES, group_size=4, rng=np.random.default_rng(5))
    other = dataclasses.replace(rollouts, temperature=0.75)
    with pytest.raises(UserError, match="nats a token between sampling and the pass that is differentiated"):
        sampled_grpo.backward(checkpoint.model, other, FAST, max_tokens=4)


def test_standard_error_is_over_prompts(checkpoint: Checkpoint) -> None:
    """Against sampling anew: the error of the mean over other prompts and answers is the one that is named."""
    settings = dataclasses.replace(FAST, evaluation_samples=3)
    found = sampled_grpo.evaluate(checkpoint, TASK, settings)
    assert found.reward.shape == (4,)
    result = sampled_grpo._result(dataclasses.replace(settings, budgets=(1,)), {0: found, 1: found}, [0.0])
    assert result["reward_before_standard_error"] == pytest.approx(found.reward.std(ddof=1) / 2)
    assert result["gain_standard_error"] is None


def test_the_reward_rises(checkpoint: Checkpoint) -> None:
    settings = dataclasses.replace(FAST, prompts=4, group_size=8, budgets=(15,), learning_rate=1e-2)
    result = sampled_grpo.train(checkpoint, dataclasses.replace(TASK, stop=(), temperature=1.0), settings, seed=0)
    assert result["gain_mean"] > 4 * result["gain_standard_error"] > 0


def test_dead_groups_leave_the_weights(checkpoint: Checkpoint) -> None:
    task = SampledTask(EXAMPLES, reward=Reward(kind="regex", pattern="never such a text"), max_tokens=2)
    before = copy.deepcopy(checkpoint.model.state_dict())
    result = sampled_grpo.train(checkpoint, task, FAST, seed=0)
    assert result["dead_groups"] == [1.0, 1.0]
    assert result["gain_mean"] == 0
    assert all(torch.equal(before[k], v) for k, v in checkpoint.model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl": 0.1}, "part through the sampled prefixes"),
        ({"evaluation_samples": 0}, "evaluation_samples is 0"),
        ({"evaluation_prompts": 1}, "evaluation_prompts 1"),
        ({"budgets": ()}, "budgets"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(FAST, **change)


def test_an_unknown_loss_is_refused() -> None:
    assert sampled_grpo.known_loss("dapo") == "dapo"
    with pytest.raises(UserError, match="loss is 'ppo'; choose one of grpo, dr_grpo, dapo"):
        sampled_grpo.known_loss("ppo")


def test_plain_settings_are_taken_too_and_a_broken_run_is_named(checkpoint: Checkpoint) -> None:
    plain = grpo.GrpoSettings(prompts=2, group_size=2, budgets=(1,), evaluation_prompts=2)
    assert sampled_grpo.train(copy.deepcopy(checkpoint), TASK, plain, seed=0)["loss"] == "dapo"
    wild = dataclasses.replace(FAST, optimizer="sgd", learning_rate=1e30, clip=None, budgets=(5,))
    with pytest.raises(UserError, match="not finite"):
        sampled_grpo.train(checkpoint, TASK, wild, seed=0)
    with pytest.raises(UserError, match="1 evaluation prompt"):
        sampled_grpo.train(checkpoint, dataclasses.replace(TASK, prompts=EXAMPLES[:1]), FAST, seed=0)


def test_reward_functions_are_used() -> None:
    assert reward_functions.share_of_vowels("", "ab", {}) == pytest.approx(1 / 3)
