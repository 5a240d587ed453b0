"""Measures of a checkpoint: closed forms against autograd and sampling, several model families, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny_models
from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints import probe
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.stats import assert_mean_close

SETTINGS = probe.MeasureSettings(prompts=24, sampled_groups=8, micro_batch=7)


@pytest.fixture(params=tiny_models.FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    return load_checkpoint(tiny_models.save(tmp_path / "c", request.param))


def test_value_gradient_and_reward_equal_autograd(checkpoint: Checkpoint) -> None:
    """Σ by a hook on the head's input, R and ‖∇J‖ by one plain backward through the whole model."""
    result = probe.measure(checkpoint, LabelCopy(), SETTINGS)
    batch = probe.evaluation_prompts(checkpoint, LabelCopy(), SETTINGS.prompts)
    tokens, last, target = probe.on_device(checkpoint.model, batch, slice(None))
    seen: list[torch.Tensor] = []
    head = checkpoint.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = checkpoint.model(input_ids=tokens, use_cache=False).logits
    hook.remove()
    p = torch.softmax(logits[torch.arange(len(last)), last].double(), -1)[torch.arange(len(last)), target]
    weight = torch.from_numpy(batch.weight)
    gradient = torch.autograd.grad(p.sum(), seen[0], retain_graph=True)[0]
    at_answer = gradient[torch.arange(len(last)), last].double()
    assert gradient.abs().sum() == pytest.approx(float(at_answer.abs().sum()), rel=1e-6), "no credit at other positions"
    assert result["signal"] == pytest.approx(float(weight @ (at_answer**2).sum(1)), rel=1e-4)
    assert result["reward_before"] == pytest.approx(float(weight @ p.detach()), rel=1e-5)
    parameters = list(checkpoint.model.parameters())
    whole = torch.autograd.grad((weight * p).sum(), parameters, allow_unused=True)
    flat = torch.cat([g.flatten().double() for g in whole if g is not None])
    assert result["gradient_l1"] == pytest.approx(float(flat.abs().sum()), rel=1e-4)
    assert result["gradient_l2_squared"] == pytest.approx(float(flat @ flat), rel=1e-4)


def test_alignment_equals_sampled_groups(tmp_path: Path) -> None:
    """E⟨λ̂,G⟩ in closed form against Monte Carlo over groups, on one prompt's logits."""
    checkpoint = load_checkpoint(tiny_models.save(tmp_path / "c"))
    batch = probe.evaluation_prompts(checkpoint, LabelCopy(), 8)
    head = checkpoint.model.get_output_embeddings().weight.detach().double().numpy() * 20
    state = probe.answer_states(checkpoint.model, batch, 8)[:1]
    likely = (state @ head.T).argmax(1)  # a random model almost never gives the right label
    m = probe.one_step(head, state, likely, group_size=8)
    rng, p = np.random.default_rng(0), m.probability[0]
    action = rng.choice(len(p), size=(40_000, 8), p=p)
    advantage = from_group((action == likely[0]).astype(float))
    costate_dot_gradient = advantage * ((head - p @ head) @ m.value_gradient[0])[action]
    scale = float(m.alignment[0])
    assert_mean_close(costate_dot_gradient.mean(1), scale, detectable=0.5 * scale)


def test_results_do_not_depend_on_the_micro_batch(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_models.save(tmp_path / "c"))
    one = probe.measure(checkpoint, LabelCopy(), SETTINGS)
    other = probe.measure(checkpoint, LabelCopy(), probe.MeasureSettings(prompts=24, sampled_groups=8, micro_batch=24))
    for key in ("signal", "costate_gap_per_sample", "gradient_l1", "gradient_l2_squared", "reward_before", "entropy"):
        assert one[key] == pytest.approx(other[key], rel=1e-4), key


def test_readings_obey_their_order(checkpoint: Checkpoint) -> None:
    r = probe.measure(checkpoint, LabelCopy(), SETTINGS)
    assert r["costate_gap_conditional"] <= r["costate_gap_group_mean"] + 6 * r["costate_gap_group_mean_se"]
    assert r["costate_gap_conditional"] <= r["costate_gap_per_sample"] + 1e-12
    assert r["alignment"] >= r["signal"] - r["costate_gap_conditional"] - 1e-12
    assert 0 <= r["reward_before"] <= r["label_mass"] <= 1
    assert r["pass_at_k"] >= r["reward_before"]
    assert r["impact_score"] == pytest.approx((r["signal"] - r["costate_gap_conditional"]) * r["headroom_within"])


def test_soft_capped_logits_are_refused(tmp_path: Path) -> None:
    path = tiny_models.save(tmp_path / "gemma", "Gemma2", head_dim=8, final_logit_softcapping=0.05)
    with pytest.raises(UserError, match="soft-capping"):
        probe.measure(load_checkpoint(path), LabelCopy(), SETTINGS)


def test_tied_embeddings_are_measured(tmp_path: Path) -> None:
    path = tiny_models.save(tmp_path / "tied", "Llama", tie_word_embeddings=True)
    assert np.isfinite(probe.measure(load_checkpoint(path), LabelCopy(), SETTINGS)["signal"])


def test_label_of_two_tokens_is_refused(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_models.save(tmp_path / "c"))
    with pytest.raises(UserError, match="exactly one"):
        probe.measure(checkpoint, LabelCopy(labels=("A", "Zebra")), SETTINGS)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_that_is_no_positive_number_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match=f"alpha is {alpha}; give a positive number"):
        probe.MeasureSettings(alpha=alpha)
