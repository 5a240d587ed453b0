"""Cases in which the forecast is known exactly: free logits, small steps, large budgets, and what must not matter."""

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from tests.checkpoints.taught import TASK, VOCABULARY, Free, checkpoint_of, taught, twin
from vgrad_lab.checkpoints.expected_update import adam_direction, moments
from vgrad_lab.checkpoints.forecast import forecast, fresh_prompts
from vgrad_lab.checkpoints.grpo import GrpoSettings, learning_rates, train
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import answer_logits, evaluation_prompts, on_device
from vgrad_lab.checkpoints.rehearsal import looks_after
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import expit, logit
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE

SINGLE = PLANTED_FAULT / 1000
"""Expected updates are float32 in their probabilities."""
ONE = LabelCopy(templates=("Label: {y}\nLabel:",))
MANY = 10**9
"""Prompts per update that leave no noise."""
SGD = GrpoSettings(optimizer="sgd", clip=None, learning_rate=0.3, budgets=(20,))
SMALL = ForecastSettings(prompts=16, micro_batch=4, evaluation_prompts=32, passes=2)


def coin_updates(p0: float, rl: GrpoSettings) -> np.ndarray:
    """Expected gradient ascent of free logits: u += η c min(1, clip/|g|) p(1 − p)(κ(p) − β(u − u₀)), c = V/(V − 1)."""
    u, c = [float(logit(np.array(p0)))], VOCABULARY / (VOCABULARY - 1)
    for rate in learning_rates(rl):
        p = expit(np.array([u[-1]]))
        kappa = grpo_scale(p, rl.group_size, baseline=rl.baseline, ddof=rl.ddof, eps=rl.eps)
        push = float((p * (1 - p) * (kappa - rl.kl * (u[-1] - u[0])))[0])
        kept = 1.0 if rl.clip is None else min(1.0, rl.clip / (abs(push) * np.sqrt(c)))
        u.append(u[-1] + rl.learning_rate * rate * c * push * kept)
    return expit(np.array(u))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 3.0},
        {"group_size": 4},
        {"group_size": 64, "ddof": 0},
        {"baseline": "leave_one_out"},
        {"clip": 0.2},
        {"prompts": 1},
        {"kl": 0.5},
        {"schedule": "cosine", "warmup": 4},
        {"kl": 2.0, "schedule": "linear"},
    ],
)
def test_free_logits_are_forecast_exactly(changes: dict[str, Any]) -> None:
    """No direction can turn and no prompt differs: κ and its change, clip, penalty and schedule stand alone."""
    rl = dataclasses.replace(SGD, **changes)
    found, truth = forecast(checkpoint_of(Free(0.3)), ONE, rl, SMALL).reward, coin_updates(0.3, rl)
    tolerance = 0.02 * float(np.ptp(truth))
    np.testing.assert_allclose(found, truth, atol=tolerance)
    at = [0, *looks_after(20)]
    np.testing.assert_allclose(found[at], truth[at], atol=SINGLE)
    faulty = coin_updates(0.3, dataclasses.replace(rl, learning_rate=(1 + 10 * PLANTED_FAULT) * rl.learning_rate))
    assert np.abs(found - faulty)[at].max() > SINGLE


def adam_logits(p0: float, rl: GrpoSettings) -> np.ndarray:
    """Adam on the expected gradient of free logits, step by step: first the right logit, then one of the others."""
    u, m, v, curve = np.array([logit(np.array(p0)) + np.log(VOCABULARY - 1), 0.0]), np.zeros(2), np.zeros(2), [p0]
    for k in range(1, rl.budgets[-1] + 1):
        p = np.array([curve[-1]])
        push = float(grpo_scale(p, rl.group_size)[0] * p[0] * (1 - p[0]))
        g = push * np.array([1.0, -1 / (VOCABULARY - 1)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u += rl.learning_rate * m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        curve.append(float(expit(np.array(u[0] - u[1] - np.log(VOCABULARY - 1)))))
    return np.array(curve)


@pytest.mark.parametrize("p0", [0.01, 0.5, 0.99])
def test_adam_without_noise_is_a_sign(p0: float) -> None:
    """Measured once: the right logit rises, all others fall by η per update. At every update: Adam, memory and all."""
    rl = GrpoSettings(learning_rate=0.02, prompts=MANY, budgets=(25,), clip=None)
    once = forecast(checkpoint_of(Free(p0)), ONE, rl, ForecastSettings(passes=1)).reward
    np.testing.assert_allclose(logit(once), logit(np.array(p0)) + 0.04 * np.arange(26), atol=1e-4)
    again = forecast(checkpoint_of(Free(p0)), ONE, rl, dataclasses.replace(SMALL, passes=25)).reward
    truth = logit(adam_logits(p0, rl))
    assert np.abs(logit(again) - truth).max() < 0.04 * np.ptp(truth)


@pytest.mark.parametrize("rl", [SGD, GrpoSettings(learning_rate=0.2)], ids=["sgd", "adamw"])
def test_large_budgets_saturate(rl: GrpoSettings) -> None:
    curve = forecast(checkpoint_of(Free(0.3)), ONE, rl, updates=200)
    assert np.all(np.diff(curve.reward) >= -ALGEBRA)
    assert 0.98 < curve.reward[-1] <= 1
    assert np.all((curve.lower <= curve.upper) & (curve.upper <= 1) & (curve.lower >= 0))


@pytest.mark.parametrize("p0", [1e-12, 1 - 1e-12])
@pytest.mark.parametrize("rl", [SGD, GrpoSettings(learning_rate=1e-3)], ids=["sgd", "adamw"])
def test_nothing_is_learnt_where_every_group_is_dead(rl: GrpoSettings, p0: float) -> None:
    curve = forecast(checkpoint_of(Free(p0)), ONE, rl, updates=30).reward
    np.testing.assert_allclose(curve, p0, atol=1e-8)


def first_order(checkpoint: Checkpoint, rl: GrpoSettings, settings: ForecastSettings) -> tuple[float, float]:
    """R₀ and ⟨∇J, d⟩ on the evaluation prompts, by one backward pass; d from the first pass's prompts."""
    model = checkpoint.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    evaluation = evaluation_prompts(checkpoint, TASK, settings.evaluation_prompts)
    m = moments(Scene(model, parameters, evaluation, rl, settings, 8), fresh_prompts(checkpoint, TASK, settings, 0))
    direction, _ = adam_direction(m, None, share=0.0)
    tokens, last, target = on_device(model, evaluation, slice(None))
    p = torch.softmax(answer_logits(model, tokens, last), -1)[torch.arange(len(target)), target]
    reward = (torch.from_numpy(evaluation.weight) * p).sum()
    gradient = torch.autograd.grad(reward, parameters)
    return reward.item(), sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))


def smooth(kind: str) -> Checkpoint:
    """A taught model in float64; of the tied kind head and embedding are one, of the frozen kind half is frozen."""
    checkpoint = twin(taught("GPTNeoX"))
    if kind == "tied":
        checkpoint.model.config.tie_word_embeddings = True
        checkpoint.model.set_output_embeddings(copy.deepcopy(checkpoint.model.get_output_embeddings()))
        checkpoint.model.get_output_embeddings().weight = checkpoint.model.get_input_embeddings().weight
    checkpoint.model.double()
    for name, p in checkpoint.model.named_parameters():
        p.requires_grad_(kind != "frozen" or "mlp" in name)
    return checkpoint


@pytest.mark.parametrize("kind", ["plain", "tied", "frozen"])
def test_small_rates_gain_what_the_first_order_says(kind: str) -> None:
    """R_k = R₀ + ηk⟨∇J, d⟩ + O(η²) on the evaluation prompts: remainder of rate 2; a wrong slope has rate 1."""
    checkpoint, settings = smooth(kind), dataclasses.replace(SMALL, passes=1, ray_prompts=1000)
    rates = 1e-5 / 2.0 ** np.arange(4)
    start, slope = first_order(checkpoint, GrpoSettings(), settings)
    updates, remainder, wrong = np.arange(9), [], []
    for rate in rates:
        rl = GrpoSettings(learning_rate=float(rate), budgets=(8,))
        gain = forecast(checkpoint, TASK, rl, settings).reward - start
        remainder.append(np.abs(gain - rate * updates * slope)[[1, 4, 8]])
        wrong.append(np.abs(gain - rate * updates * slope * (1 + 100 * PLANTED_FAULT))[8])
    found = np.diff(np.log2(remainder), axis=0)
    np.testing.assert_allclose(found[-1], -2.0, atol=TAYLOR_RATE)
    assert np.diff(np.log2(wrong))[-1] > -2 + TAYLOR_RATE


def test_rewards_are_means_over_the_prompts_drawn() -> None:
    """Merged prompts keep their weight: the curve starts at the mean over all draws, and blocks do not matter."""
    task = LabelCopy(templates=("Label: {y}\nLabel:", "Copy: {y}\nCopy:"))
    checkpoint, rl = taught("GPTNeoX"), GrpoSettings(learning_rate=1e-4, budgets=(6,))
    merged = evaluation_prompts(checkpoint, task, 100)
    assert len(merged.weight) == 8
    assert np.ptp(merged.weight) > 0
    drawn = encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, 100, seed=10_000))
    tokens, last, target = on_device(checkpoint.model, drawn, slice(None))
    with torch.no_grad():
        p = torch.softmax(answer_logits(checkpoint.model, tokens, last).double(), -1)[torch.arange(100), target]
    settings = dataclasses.replace(SMALL, evaluation_prompts=100)
    whole = forecast(checkpoint, task, rl, settings).reward
    assert whole[0] == pytest.approx(p.mean().item(), rel=SINGLE)
    parts = forecast(checkpoint, task, dataclasses.replace(rl, micro_batch=3), settings).reward
    np.testing.assert_allclose(parts, whole, rtol=SINGLE)


def test_the_tokenizers_padding_does_not_matter() -> None:
    checkpoint, rl = taught("GPTNeoX"), GrpoSettings(learning_rate=1e-3, budgets=(6,))
    plain = forecast(checkpoint, TASK, rl, SMALL).reward
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token = "left", "left", "!"
    other = dataclasses.replace(checkpoint, tokenizer=tokenizer)
    np.testing.assert_allclose(forecast(other, TASK, rl, SMALL).reward, plain, rtol=SINGLE)


@pytest.mark.parametrize("rl", [SGD, GrpoSettings(kl=0.1)], ids=["sgd", "penalised"])
def test_nothing_is_made_on_another_device_than_the_models(rl: GrpoSettings) -> None:
    """What is made without a device goes to the default one, here to one that holds no numbers."""
    checkpoint = taught("GPTNeoX")
    plain = forecast(checkpoint, TASK, rl, SMALL, updates=3).reward
    with torch.device("meta"):
        found = forecast(checkpoint, TASK, rl, SMALL, updates=3).reward
    np.testing.assert_array_equal(found, plain)


def test_where_steps_are_too_large_for_a_ray_the_run_is_rehearsed() -> None:
    """The ray falls; the rehearsal is a run with a seed of its own, and ends near other runs."""
    checkpoint = taught("Olmo2", 0.3)
    small, large = (GrpoSettings(learning_rate=rate, budgets=(10, 20, 30)) for rate in (1e-5, 2e-3))
    calm, found = forecast(checkpoint, TASK, small), forecast(checkpoint, TASK, large)
    assert not calm.overshoots
    assert not calm.rehearsed
    assert found.overshoots
    assert found.rehearsed
    real = [train(twin(checkpoint), TASK, large, seed=k)["reward_after"] for k in (1, 2)]
    off = np.abs(found.reward[[10, 20, 30]] - np.mean(real, 0)).mean()
    assert off < 0.02 < 0.1 < np.mean(real, 0)[-1] - found.reward[0]


def test_a_ray_that_is_left_within_a_few_updates_is_rehearsed() -> None:
    """Free logits never fall along the ray; at a rate of 0.09 their logit moves by 0.5 within 3 updates."""
    calm, coarse = (GrpoSettings(learning_rate=rate, clip=None, budgets=(6,)) for rate in (0.07, 0.1))
    assert not forecast(checkpoint_of(Free(0.3)), ONE, calm, SMALL).rehearsed
    assert forecast(checkpoint_of(Free(0.3)), ONE, coarse, SMALL).rehearsed
    assert not forecast(checkpoint_of(Free(0.3)), ONE, coarse, SMALL, updates=3).rehearsed
