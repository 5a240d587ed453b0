"""Rehearsals: Adam's is a run, SGD's knows no sampled answer; noise of an SGD update counts in second order only."""

import dataclasses
import itertools
from collections.abc import Callable
from math import comb

import numpy as np
import pytest
import torch

from tests.checkpoints.taught import TASK, taught, twin
from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.forecast import forecast
from vgrad_lab.checkpoints.grpo import GrpoSettings, train
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import evaluation_prompts
from vgrad_lab.checkpoints.rehearsal import exact_step, looks_after, prompts_per_update, rehearse
from vgrad_lab.checkpoints.scene import ForecastSettings, Scene
from vgrad_lab.checkpoints.tasks import draw_prompts, encode_prompts
from vgrad_lab.tolerances import PLANTED_FAULT, TAYLOR_RATE

GROUP = 4
SINGLE = PLANTED_FAULT / 1000
"""Probabilities are float32."""
SGD = GrpoSettings(optimizer="sgd", clip=None, learning_rate=0.01, budgets=(6,))


def won(theta: float, k: int) -> tuple[float, float]:
    """Chance of k right answers of a coin p = σ(θ), and the GRPO gradient of that group."""
    p = 1 / (1 + np.exp(-theta))
    reward = np.array([[1.0] * k + [0.0] * (GROUP - k)])
    gradient = float(np.mean(from_group(reward, "standardised", ddof=1, eps=1e-4) * (reward - p)))
    return comb(GROUP, k) * p**k * (1 - p) ** (GROUP - k), gradient


Step = Callable[[list[float]], float]
"""An optimiser: its next step over the learning rate, from all gradients so far."""


def ascent(gradients: list[float]) -> float:
    """Plain gradient ascent."""
    return gradients[-1]


def adam(gradients: list[float]) -> float:
    """Adam with its usual constants."""
    m = v = 0.0
    for g in gradients:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    k = len(gradients)
    return (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)


def mean_less_exact(step: Step, rate: float, updates: int = 3, start: float = -1.0) -> float:
    """E p after sampled updates, over every group that can come, less p after updates along the mean gradient."""
    mean = 0.0
    for path in itertools.product(range(GROUP + 1), repeat=updates):
        theta, chance, seen = start, 1.0, []
        for k in path:
            share, gradient = won(theta, k)
            chance *= share
            seen.append(gradient)
            theta += rate * step(seen)
        mean += chance / (1 + np.exp(-theta))
    theta, seen = start, []
    for _ in range(updates):
        seen.append(sum(share * gradient for share, gradient in (won(theta, k) for k in range(GROUP + 1))))
        theta += rate * step(seen)
    return float(mean - 1 / (1 + np.exp(-theta)))


def test_noise_enters_in_second_order() -> None:
    """Halving the rate divides what the noise does by 4 for plain steps, by 2 for Adam's."""
    rates = 0.2 / 2.0 ** np.arange(5)
    for step, order in ((ascent, 2), (adam, 1)):
        found = [abs(mean_less_exact(step, float(rate))) for rate in rates]
        assert -np.diff(np.log2(found))[-1] == pytest.approx(order, abs=TAYLOR_RATE)


def scene(checkpoint: Checkpoint, rl: GrpoSettings, settings: ForecastSettings | None = None) -> Scene:
    evaluation = evaluation_prompts(checkpoint, TASK, rl.evaluation_prompts)
    parameters = list(checkpoint.model.parameters())
    return Scene(
        checkpoint.model, parameters, evaluation, rl, settings or ForecastSettings(seed=5), updates=rl.budgets[-1]
    )


@pytest.mark.parametrize("kl", [0.0, 0.2])
def test_adams_rehearsal_is_a_run(kl: float) -> None:
    """The same prompts and the same seed of answers: bit for bit the rewards of ``train``."""
    rl = GrpoSettings(learning_rate=1e-3, prompts=4, budgets=(1, 2, 4, 7), evaluation_prompts=32, kl=kl)
    real = train(twin(taught("GPTNeoX")), TASK, rl, seed=5)
    checkpoint = twin(taught("GPTNeoX"))
    batch = encode_prompts(TASK, checkpoint.tokenizer, draw_prompts(TASK, 28, rng=np.random.default_rng([5, 1])))
    found = rehearse(scene(checkpoint, rl), batch, np.ones(7))
    np.testing.assert_allclose(found[[0, 1, 2, 4, 7]], [real["reward_before"], *real["reward_after"]], rtol=1e-12)


def test_sgd_samples_no_answer() -> None:
    """Another seed of the answers changes nothing; other prompts do. A fault in κ is seen against torch's own step."""
    checkpoint, curves = taught("GPTNeoX"), []
    batch = encode_prompts(TASK, checkpoint.tokenizer, draw_prompts(TASK, 48, rng=np.random.default_rng(0)))
    for seed in (0, 1):
        curves.append(rehearse(scene(twin(checkpoint), SGD, ForecastSettings(seed=seed)), batch, np.ones(6)))
    np.testing.assert_array_equal(*curves)
    other = encode_prompts(TASK, checkpoint.tokenizer, draw_prompts(TASK, 48, rng=np.random.default_rng(1)))
    assert np.abs(rehearse(scene(twin(checkpoint), SGD), other, np.ones(6)) - curves[0]).max() > SINGLE


def test_an_exact_step_is_the_mean_of_sampled_ones() -> None:
    """By leave-one-out advantages, whose factor is 1: the step is η times the gradient of the mean success."""
    from vgrad_lab.checkpoints.probe import answer_logits, on_device

    rl = dataclasses.replace(SGD, baseline="leave_one_out")
    moved, plain = twin(taught("GPTNeoX")), twin(taught("GPTNeoX"))
    batch = encode_prompts(TASK, moved.tokenizer, draw_prompts(TASK, 8, rng=np.random.default_rng(2)))
    tokens, last, target = on_device(plain.model, batch, slice(None))
    success = torch.softmax(answer_logits(plain.model, tokens, last), -1)[torch.arange(8), target].mean()
    gradient = torch.autograd.grad(success, list(plain.model.parameters()), allow_unused=True)
    s = scene(moved, rl)
    exact_step(s, torch.optim.SGD(moved.model.parameters(), lr=rl.learning_rate), batch, slice(None), None)
    for new, old, g in zip(s.parameters, plain.model.parameters(), gradient, strict=True):
        if g is not None:
            torch.testing.assert_close(new.detach(), old.detach() + rl.learning_rate * g, rtol=1e-5, atol=1e-7)


def test_sizes() -> None:
    assert prompts_per_update(SGD, ForecastSettings()) == 8
    assert prompts_per_update(dataclasses.replace(SGD, prompts=3), ForecastSettings()) == 3
    assert prompts_per_update(GrpoSettings(prompts=40), ForecastSettings()) == 40
    for updates in (0, 1, 2, 8, 9, 30, 1000):
        at = looks_after(updates)
        assert at == sorted(set(at))
        assert len(at) <= 8
        assert updates == 0 or (at[-1] == updates and at[0] >= 1)


@pytest.mark.parametrize(
    "rl", [SGD, dataclasses.replace(SGD, kl=0.1), GrpoSettings(kl=0.1)], ids=["sgd", "kl", "adamw"]
)
def test_a_rate_that_explodes_is_named(rl: GrpoSettings) -> None:
    checkpoint = taught("GPTNeoX")
    before = [p.detach().clone() for p in checkpoint.model.parameters()]
    with pytest.raises(UserError, match="not finite"):
        forecast(checkpoint, TASK, dataclasses.replace(rl, learning_rate=1e30))
    assert all(torch.equal(a, b) for a, b in zip(before, checkpoint.model.parameters(), strict=True))
