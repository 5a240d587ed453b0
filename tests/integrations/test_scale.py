"""λ̂ from a loss's gradient against ∂(Â Σ ℓ)/∂h by autograd, for each loss as TRL writes it, without TRL."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny_models
from tests.helpers import unchecked
from vgrad_lab.integrations import scale, watch, window
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT

LOSSES = ("grpo", "sapo", "bnpo", "dr_grpo", "dapo", "cispo", "vespo", "luspo")
LONGEST, PROMPT = 7, 5
SINGLE = PLANTED_FAULT / 1000
"""For models that compute their norms in float32 whatever their weights are: a thousandth of the fault to be found."""


def trl_loss(kind: str, logp: Tensor, mask: Tensor, advantage: Tensor, k: int, tokens: Tensor, spg: int) -> Tensor:
    """``GRPOTrainer._compute_loss`` of TRL 1.16 at ratio 1: per-token loss, then its aggregation, line by line."""
    ratio = torch.exp(logp - logp.detach())
    a = advantage.unsqueeze(1)
    if kind in ("cispo", "vespo"):
        per_token = -ratio.detach() * a * logp
    elif kind == "sapo":
        temperature = torch.where(a > 0, 1.0, 1.05)
        per_token = -torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * a
    else:
        per_token = -torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a)
    if kind in ("grpo", "sapo"):
        return ((per_token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean() / k
    if kind == "bnpo":
        return (per_token * mask).sum() / mask.sum().clamp(min=1.0) / k
    if kind == "dr_grpo":
        return (per_token * mask).sum() / (per_token.size(0) * LONGEST) / k
    if kind == "luspo":
        return (per_token * mask).sum(-1).mean() / k
    return (per_token * mask).sum() / (tokens * k / spg)


def batch(seed: int, rows: int) -> dict[str, Tensor]:
    """Left-padded prompts and right-padded answers of 0 to LONGEST tokens, with advantages that include a zero."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(0, LONGEST + 1, (rows,), generator=g)
    length[0] = LONGEST
    left = torch.randint(0, PROMPT - 1, (rows, 1), generator=g)
    advantage = torch.randn(rows, generator=g, dtype=torch.float64)
    advantage[1:][-1:] = 0
    return {
        "prompt_ids": torch.randint(2, 11, (rows, PROMPT), generator=g),
        "prompt_mask": (torch.arange(PROMPT) >= left).int(),
        "completion_ids": torch.randint(2, 11, (rows, LONGEST), generator=g),
        "completion_mask": (torch.arange(LONGEST) < length[:, None]).int(),
        "advantages": advantage,
        "num_items_in_batch": length.sum() * 3,
    }


def answer_logp(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Log-probabilities of the answer tokens, as TRL reads them: the backbone's state times the head's weight."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    logits = hidden[:, PROMPT - 1 : -1] @ model.get_output_embeddings().weight.T
    return torch.log_softmax(logits, -1).gather(2, inputs["completion_ids"][..., None])[..., 0]


def states(model: Any) -> tuple[list[Tensor], list[Any]]:
    """Every layer's input and output and the backbone's output, filled in by the next forward pass."""
    kept: list[Tensor] = []

    def keep(_module: Any, _args: Any, out: Any) -> None:
        last = getattr(out, "last_hidden_state", None)
        kept.append(last if last is not None else out[0] if isinstance(out, tuple) else out)

    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    handles = [layers[0].register_forward_pre_hook(lambda _m, a, k: kept.append(a[0] if a else k["hidden_states"]),
                                                   with_kwargs=True)]  # fmt: skip
    handles += [m.register_forward_hook(keep) for m in (*layers, model.base_model)]
    return kept, handles


def direct(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """∂(Σ_i Â_i Σ_t ℓ_{i,t})/∂h of every state: rows do not mix, so each row is its own λ̂_i."""
    kept, handles = states(model)
    surrogate = (inputs["advantages"][:, None] * answer_logp(model, inputs) * inputs["completion_mask"]).sum()
    found = torch.autograd.grad(surrogate, kept)
    for handle in handles:
        handle.remove()
    return list(found)


def without_dropout(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def fake_trainer(kind: str, k: int, spg: int) -> Any:
    return SimpleNamespace(
        loss_type=kind, current_gradient_accumulation_steps=k, max_completion_length=LONGEST,
        accelerator=SimpleNamespace(num_processes=1, scaler=None), args=SimpleNamespace(steps_per_generation=spg),
    )  # fmt: skip


def backward(model: Any, kind: str, inputs: dict[str, Tensor], k: int, spg: int) -> None:
    tokens = inputs["num_items_in_batch"].clamp(min=1.0)
    loss = trl_loss(kind, answer_logp(model, inputs), inputs["completion_mask"], inputs["advantages"], k, tokens, spg)
    torch.autograd.backward(loss)


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("k", "spg"), [(1, 1), (3, 3), (2, 4)])
def test_costate_of_each_loss_is_the_direct_derivative(kind: str, k: int, spg: int) -> None:
    model = without_dropout(tiny_models.causal("GPT2", seed=1).double().train())
    for seed, rows in ((0, 4), (1, 1), (2, 6)):
        inputs = batch(seed, rows)
        wanted = direct(model, inputs)
        kept, handles = states(model)
        tokens = inputs["num_items_in_batch"].clamp(min=1.0)
        logp = answer_logp(model, inputs)
        loss = trl_loss(kind, logp, inputs["completion_mask"], inputs["advantages"], k, tokens, spg)
        gradients = torch.autograd.grad(loss, kept)
        for handle in handles:
            handle.remove()
        made = window.micro_batch(fake_trainer(kind, k, spg), inputs)
        for gradient, truth in zip(gradients, wanted, strict=True):
            found = scale.empirical_costate(gradient, 1 / made.scale)
            assert float((found - truth).norm()) <= CLOSED_FORM * float(truth.norm())
            assert float((found * (1 + PLANTED_FAULT) - truth).norm()) > CLOSED_FORM * float(truth.norm())


@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["plain", "checkpointed", "reentrant"])
@pytest.mark.parametrize("family", ["Olmo2", "Llama", "Qwen2", "GPTNeoX", "GPT2"])
def test_watched_norms_are_those_of_the_direct_costates(family: str, checkpointing: bool | None) -> None:
    """Two micro-batches of one step; norms, shares and counts; hooks gone afterwards."""
    model = without_dropout(tiny_models.causal(family, seed=2).double().train())
    close = CLOSED_FORM if family in ("GPT2", "GPTNeoX") else SINGLE
    parts = [batch(seed, rows) for seed, rows in ((3, 4), (4, 4))]
    wanted = [direct(model, inputs) for inputs in parts]
    if checkpointing is not None:
        name = "activation_checkpointing_enable"  # until transformers 5.2x: gradient_checkpointing_enable
        getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    seen, total = watch.watch(model, failed=fail), window.Window()
    for inputs in parts:
        watch.clear(seen)
        seen.armed = True
        batch_ = window.micro_batch(fake_trainer("dapo", 2, 2), inputs)
        backward(model, "dapo", inputs, 2, 2)
        window.add_micro_batch(total, seen, batch_)
    watch.release(seen)
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules() if m is not model.get_input_embeddings()
    )
    found = window.describe_costates(total, seen.layers)
    rows = [torch.cat([w[i] for w in wanted]) for i in range(seen.layers + 2)]
    norms = [float(r.flatten(1).norm(dim=1).mean()) for r in rows]
    assert found["costate_norm"] == pytest.approx(norms[:-1], rel=close)
    assert found["costate_norm_head"] == pytest.approx(norms[-1], rel=close)
    credit = torch.cat([w[-1].norm(dim=2) for w in wanted])
    length = torch.cat([inputs["completion_mask"].sum(1) for inputs in parts])
    last = sum(float(credit[i, PROMPT - 2 + int(n)]) for i, n in enumerate(length) if n > 0)
    assert found["first_share"] == pytest.approx(float(credit[:, PROMPT - 1].sum() / credit.sum()), rel=close)
    assert found["last_share"] == pytest.approx(last / float(credit.sum()), rel=close)
    low = torch.cat([w[0].norm(dim=2) for w in wanted])
    assert found["prompt_share"] == pytest.approx(float(low[:, : PROMPT - 1].sum() / low.sum()), rel=close)


class Adapter(torch.nn.Module):
    """What PEFT does, in structure: a frozen linear map plus a trained low-rank one, model behind get_base_model()."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def get_base_model(self) -> Any:
        return self.inner


class LowRank(torch.nn.Module):
    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.down = torch.nn.Parameter(torch.randn(2, base.in_features, dtype=torch.float64) * 0.1)
        self.up = torch.nn.Parameter(torch.randn(base.out_features, 2, dtype=torch.float64) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + x @ self.down.T @ self.up.T


@pytest.mark.parametrize(("layers", "defined"), [((0, 1), [False, True, True]), ((1,), [False, False, True])])
def test_an_adapter_on_a_frozen_model_leaves_layers_below_it_undefined(
    layers: tuple[int, ...], defined: list[bool]
) -> None:
    model = tiny_models.model("Olmo2", seed=3).double().train()
    inputs = batch(5, 4)
    model.requires_grad_(False)
    for i in layers:
        model.model.layers[i].mlp.down_proj = LowRank(model.model.layers[i].mlp.down_proj)
    model.enable_input_require_grads()
    wanted = direct(model, inputs)
    model.disable_input_require_grads()
    seen, total = watch.watch(Adapter(model), failed=fail), window.Window()
    seen.armed = True
    made = window.micro_batch(fake_trainer("grpo", 1, 1), inputs)
    backward(model, "grpo", inputs, 1, 1)
    window.add_micro_batch(total, seen, made)
    watch.release(seen)
    found = window.describe_costates(total, seen.layers)
    assert [v is not None for v in found["costate_norm"]] == defined
    for value, truth in zip([*found["costate_norm"], found["costate_norm_head"]], wanted, strict=True):
        assert value is None or value == pytest.approx(float(truth.flatten(1).norm(dim=1).mean()), rel=SINGLE)


def test_loss_scale_of_float16_is_taken_out() -> None:
    gradient, weight = torch.ones(2, 1, 3, dtype=torch.float64), torch.tensor([0.5, 0.25], dtype=torch.float64)
    whole = scale.empirical_costate(gradient, weight)
    assert torch.equal(scale.empirical_costate(gradient * 1024, weight, loss_scale=1024.0), whole)
    trainer = fake_trainer("grpo", 1, 1)
    plain = window.micro_batch(trainer, batch(0, 4)).scale
    trainer.accelerator.scaler = SimpleNamespace(get_scale=lambda: 1024.0)
    assert torch.equal(window.micro_batch(trainer, batch(0, 4)).scale, plain / 1024)


def test_more_processes_share_the_tokens_of_dapo() -> None:
    inputs = batch(0, 4)
    trainer = fake_trainer("dapo", 2, 4)
    alone = window.micro_batch(trainer, inputs).scale
    trainer.accelerator.num_processes = 2
    assert torch.equal(window.micro_batch(trainer, inputs).scale, alone / 2)


def test_tool_tokens_do_not_count() -> None:
    inputs = batch(0, 4)
    inputs["tool_mask"] = torch.ones_like(inputs["completion_mask"])
    inputs["tool_mask"][:, 1] = 0
    counted = (inputs["completion_mask"] * inputs["tool_mask"]).sum(1)
    made = window.micro_batch(fake_trainer("grpo", 1, 1), inputs)
    assert torch.equal(made.scale, 4.0 * counted.clamp(min=1).double())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_type": "ppo"}, "loss_type is 'ppo'"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"loss_type": "dr_grpo"}, "max_completion_length, got None"),
        ({"loss_type": "dapo"}, "window_tokens=None"),
        ({"loss_type": "dapo", "window_tokens": 0.0}, "window_tokens=0"),
    ],
)
def test_bad_numbers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unchecked(scale.loss_weight)(**{"loss_type": "grpo", "length": torch.tensor([1, 2]), **change})
    with pytest.raises(ValueError, match="must be positive"):
        scale.empirical_costate(torch.ones(1, 1, 1), torch.zeros(1))
