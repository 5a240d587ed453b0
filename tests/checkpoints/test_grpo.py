"""GRPO: the update against a plain reference, prefixes, determinism, refusals."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny_models
from vgrad_lab.checkpoints import grpo, probe
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import forecast
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts
from vgrad_lab.impact import grpo_scale
from vgrad_lab.stats import assert_mean_close

FAST = grpo.GrpoSettings(prompts=16, group_size=32, budgets=(1, 3), evaluation_prompts=16, learning_rate=1e-3)
"""512 samples an update: a random model gives the right one of 320 tokens once or twice."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return load_checkpoint(tiny_models.save(tmp_path / "c"))


def test_update_equals_a_plain_reference(checkpoint: Checkpoint) -> None:
    """Same samples, repeated prompts, full logits, mean over samples of Â log π: the textbook update."""
    settings = dataclasses.replace(FAST, optimizer="sgd", learning_rate=0.5, clip=None, prompts=4, group_size=8)
    batch = encode_prompts(LabelCopy(), checkpoint.tokenizer, draw_prompts(LabelCopy(), 4, seed=3))
    ours, reference = copy.deepcopy(checkpoint.model), checkpoint.model
    generator = torch.Generator().manual_seed(7)
    grpo.step(ours, grpo.make_optimizer(ours, settings), batch, 0, settings, generator)

    tokens, last, target = probe.on_device(reference, batch, slice(None))
    logits = reference(input_ids=tokens.repeat_interleave(8, 0), use_cache=False).logits
    logp = torch.log_softmax(logits[torch.arange(32), last.repeat_interleave(8)], -1)
    with torch.no_grad():
        action = torch.multinomial(logp[::8].exp(), 8, replacement=True, generator=torch.Generator().manual_seed(7))
    reward = (action == target[:, None]).float()
    advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-4)
    loss = -(advantage.flatten() * logp[torch.arange(32), action.flatten()]).mean()
    loss.backward()
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a, b - 0.5 * b.grad, rtol=1e-4, atol=1e-6)


def test_expected_gradient_is_scaled_by_kappa() -> None:
    """Mean over draws of the loss gradient in logit space = −κ_8(p) ∂p_y/Q per prompt."""
    logits = torch.tensor([[1.0, 0.0, -0.5, 0.3]], dtype=torch.float64)
    generator, draws = torch.Generator().manual_seed(0), []
    for _ in range(4000):
        z = logits.clone().requires_grad_()
        grpo.grpo_loss(z, torch.tensor([1]), FAST, generator).backward()
        draws.append(z.grad.numpy()[0])
    p = torch.softmax(logits, -1).numpy()[0]
    truth = -float(grpo_scale(p[1:2], FAST.group_size)[0]) * p[1] * (np.eye(4)[1] - p)
    assert_mean_close(np.array(draws), truth, detectable=0.15)


def test_penalty_is_the_kl_from_the_start() -> None:
    """KL and its gradient against the textbook sums; 0 with no gradient at the start itself."""
    torch.manual_seed(0)
    logits, start = torch.randn(2, 3, 7, dtype=torch.float64)
    logits.requires_grad_()
    p, q = torch.softmax(logits, -1), torch.softmax(start, -1)
    expected = (p * (p / q).log()).sum(-1)
    found = grpo.divergence(logits, start)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    (ours,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    (still,) = torch.autograd.grad(grpo.divergence(start.requires_grad_(), start.detach()).sum(), start)
    assert float(still.abs().max()) < 1e-6


def test_update_with_a_penalty(checkpoint: Checkpoint) -> None:
    """One SGD step from a moved model: the step without the penalty minus rate·β·∇KL."""
    plain = dataclasses.replace(FAST, optimizer="sgd", learning_rate=0.5, clip=None, prompts=4)
    batch = encode_prompts(LabelCopy(), checkpoint.tokenizer, draw_prompts(LabelCopy(), 4, seed=3))
    reference, moved = checkpoint.model, copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    stepped = []
    for settings in (plain, dataclasses.replace(plain, kl=0.7)):
        model = copy.deepcopy(moved)
        generator = torch.Generator().manual_seed(7)
        grpo.step(model, grpo.make_optimizer(model, settings), batch, 0, settings, generator, reference=reference)
        stepped.append(model)
    tokens, last, _ = probe.on_device(moved, batch, slice(None))
    start = probe.answer_logits(reference, tokens, last).detach()
    grpo.divergence(probe.answer_logits(moved, tokens, last), start).mean().backward()
    for without, penalised, p in zip(*(m.parameters() for m in (*stepped, moved)), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(without - penalised, 0.5 * 0.7 * p.grad, rtol=1e-3, atol=1e-6)


def test_a_run_follows_its_schedule_and_its_penalty(checkpoint: Checkpoint) -> None:
    """A warm-up of one update stands still first; the penalty changes what comes after the first update."""
    base = dataclasses.replace(FAST, budgets=(1, 2), learning_rate=1e-2)
    runs = [
        grpo.train(copy.deepcopy(checkpoint), LabelCopy(), dataclasses.replace(base, **change), seed=0)
        for change in ({}, {"warmup": 1}, {"kl": 5.0})
    ]
    plain, warm, held = (run["reward_after"] for run in runs)
    assert warm[0] == runs[1]["reward_before"] != warm[1]
    assert held[1] != plain[1]


def test_budgets_are_prefixes_of_one_run(checkpoint: Checkpoint) -> None:
    long = grpo.train(copy.deepcopy(checkpoint), LabelCopy(), FAST, seed=0)
    short = grpo.train(copy.deepcopy(checkpoint), LabelCopy(), dataclasses.replace(FAST, budgets=(1,)), seed=0)
    assert long["reward_after"][0] == short["reward_after"][0]
    assert long["reward_before"] == short["reward_before"]
    gains = np.array(long["reward_after"]) - long["reward_before"]
    assert long["gain_mean"] == pytest.approx(float(gains.mean()))


def test_same_seed_same_run_and_other_seed_another(checkpoint: Checkpoint) -> None:
    runs = [grpo.train(copy.deepcopy(checkpoint), LabelCopy(), FAST, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0]["reward_after"] != runs[2]["reward_after"]


def test_grpo_raises_the_reward(checkpoint: Checkpoint) -> None:
    settings = grpo.GrpoSettings(learning_rate=1e-2, budgets=(60,), evaluation_prompts=64)
    result = grpo.train(checkpoint, LabelCopy(), settings, seed=0)
    assert result["gain_mean"] > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": ()}, "budgets"),
        ({"budgets": (3, 2)}, "budgets"),
        ({"budgets": (0, 2)}, "budgets"),
        ({"group_size": 1}, "group_size"),
        ({"prompts": 0}, "prompts"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"clip": float("inf")}, "clip"),
        ({"clip": 0.0}, "clip"),
        ({"warmup": 3}, "warmup"),
        ({"warmup": -1}, "warmup"),
        ({"kl": -0.1}, "kl"),
        ({"kl": float("nan")}, "kl"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(FAST, **change)


def test_a_step_that_explodes_is_named(checkpoint: Checkpoint) -> None:
    settings = dataclasses.replace(FAST, optimizer="sgd", learning_rate=1e30, clip=None, budgets=(5,))
    with pytest.raises(UserError, match="not finite|holds non-finite"):
        grpo.train(checkpoint, LabelCopy(), settings, seed=0)


def test_defaults_per_optimiser() -> None:
    assert (grpo.default_settings("sgd").learning_rate, grpo.default_settings("sgd").clip) == (1e-2, None)
    assert grpo.default_settings("adamw") == grpo.GrpoSettings()
    with pytest.raises(UserError, match="'lion'; choose one of adamw, sgd"):
        grpo.default_settings("lion")


def test_soft_capped_logits_are_not_trained_without_their_cap(tmp_path: Path) -> None:
    path = tiny_models.save(tmp_path / "gemma", "Gemma2", head_dim=8, final_logit_softcapping=0.05)
    with pytest.raises(UserError, match="soft-capping or scaling"):
        grpo.train(load_checkpoint(path), LabelCopy(), FAST, seed=0)
    with pytest.raises(UserError, match="soft-capping or scaling"):
        forecast(load_checkpoint(path), LabelCopy(), FAST)
