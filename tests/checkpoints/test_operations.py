"""Counted operations and bytes: equal to torch's own counter on small models, and to the tensors' sizes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests import tiny_models
from tests.helpers import unchecked
from vgrad_lab.checkpoints import operations as op
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.probe import answer_logits
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

CASES = [("Olmo2", 4), ("Olmo2", 2), ("Llama", 4), ("Llama", 1)]


def model(family: str, keys: int, **changes: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": keys, "attn_implementation": "eager", "tie_word_embeddings": False}
    return tiny_models.model(family, **{**sizes, **changes})


def counted(made: Any, prompts: int, length: int) -> tuple[int, int]:
    """FLOPs of forward and backward as torch counts them."""
    tokens, last = torch.zeros(prompts, length, dtype=torch.int64), torch.full((prompts,), length - 1)
    with FlopCounterMode(display=False) as forward:
        total = answer_logits(made, tokens, last).sum()
    with FlopCounterMode(display=False) as backward:
        total.backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize(("family", "keys"), CASES)
@pytest.mark.parametrize(("prompts", "length"), [(1, 1), (5, 7), (2, 19)])
def test_torch_counts_the_same(family: str, keys: int, prompts: int, length: int) -> None:
    made = model(family, keys)
    shape, lengths = op.shape_of(made.config), np.full(prompts, length)
    forward, backward = counted(made, prompts, length)
    assert op.forward_work(shape, lengths).flops == forward
    assert op.backward_work(shape, lengths, attention=op.EAGER).flops == backward
    wrong = replace(shape, intermediate=shape.intermediate + 1)
    assert abs(op.forward_work(wrong, lengths).flops - forward) > PLANTED_FAULT * forward, "a planted fault is seen"


@pytest.mark.parametrize(("family", "keys"), CASES)
def test_parameters_and_bytes_are_those_of_the_tensors(family: str, keys: int) -> None:
    made = model(family, keys)
    shape = op.shape_of(made.config)
    weights = list(made.parameters())
    assert shape.parameters == sum(p.numel() for p in weights)
    assert op.load_work(shape).disk == sum(p.numel() * p.element_size() for p in weights)
    read = sum(p.numel() for p in weights) - made.get_input_embeddings().weight.numel()
    lengths = np.array([3, 4])
    assert op.forward_work(shape, lengths).bytes == 4 * (read + 7 * shape.width)
    assert op.backward_work(shape, lengths, size=op.BFLOAT16).bytes == 2 * read + 4 * shape.parameters
    optimizer = torch.optim.AdamW(weights, fused=True)
    made(input_ids=torch.zeros(1, 2, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    moments = sum(v.numel() for s in optimizer.state.values() for k, v in s.items() if k != "step")
    assert op.update_work(shape, "adamw").bytes == 4 * (3 * shape.parameters + 2 * moments)
    assert op.update_work(shape, "sgd").bytes == 12 * shape.parameters


def test_published_sizes() -> None:
    assert op.OLMO2_1B.parameters == 1_484_916_736
    assert abs(4 * op.OLMO2_1B.parameters - (4_983_360_992 + 956_326_560)) < 1e5, "the shards but for their headers"
    assert op.OLMO2_7B.parameters == 7_298_617_344


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 40))
def test_work_adds_up_over_prompts(lengths: list[int], more: int) -> None:
    shape = op.Shape(layers=2, width=8, intermediate=12, vocab=16, key_width=4, norms=16)
    whole = op.forward_work(shape, np.array([*lengths, more])).flops
    parts = op.forward_work(shape, np.array(lengths)).flops + op.forward_work(shape, np.array([more])).flops
    assert whole == parts
    assert op.backward_work(shape, np.array([more])).flops > 2 * op.forward_work(shape, np.array([more])).flops
    assert op.forward_work(shape, np.array([more + 1])).flops > op.forward_work(shape, np.array([more])).flops


def test_parts_are_sums_of_passes() -> None:
    shape, t = op.OLMO2_1B, np.full(32, 10)
    forward, backward = op.forward_work(shape, t), op.backward_work(shape, t)
    assert op.measure_work(shape, t) == forward.times(2) + backward
    run = op.grpo_work(shape, np.tile(t, 3), 3, [t, t], optimizer="adamw")
    by_hand = (forward + backward + op.update_work(shape, "adamw")).times(3) + forward.times(2)
    assert (run.flops, run.bytes) == pytest.approx((by_hand.flops, by_hand.bytes), rel=ALGEBRA)
    cost = op.forecast_work(shape, {"forward": 32, "backward": 64}, 10.0)
    assert cost.flops == pytest.approx(forward.flops + 2 * backward.flops, rel=ALGEBRA)


def test_floor_is_the_slowest_of_three() -> None:
    work = op.Work(flops=1e12, bytes=1e9, disk=1e8)
    assert op.floor_seconds(work, flops=1e12, bandwidth=1e12, disk=1e12) == 1.0
    assert op.floor_seconds(work, flops=1e15, bandwidth=1e9, disk=1e12) == 1.0
    assert op.floor_seconds(work, flops=1e15, bandwidth=1e12, disk=1e8) == 1.0
    assert op.floor_seconds(op.Work(), flops=0.0, bandwidth=0.0) == 0.0


def test_doors() -> None:
    shape = op.OLMO2_1B
    with pytest.raises(UserError, match="gpt_neox are not counted"):
        op.shape_of(tiny_models.config("GPTNeoX"))
    with pytest.raises(UserError, match="with a head of its own"):
        op.shape_of(tiny_models.config("Llama", tie_word_embeddings=True))
    with pytest.raises(UserError, match="give adamw or sgd"):
        op.update_work(shape, "lion")
    for lengths in ([], [[1]], [0]):
        with pytest.raises(ValueError, match="at least 1 each"):
            unchecked(op._lengths)(np.array(lengths, dtype=int))
    with pytest.raises(ValueError, match="whole number of prompts"):
        op.grpo_work(shape, np.full(7, 3), 3, [], optimizer="sgd")
    with pytest.raises(ValueError, match="disk is None; give the measured rate"):
        op.floor_seconds(op.Work(disk=1.0), flops=1.0, bandwidth=1.0)
    with pytest.raises(ValueError, match="flops is 0"):
        op.floor_seconds(op.Work(flops=1.0), flops=0.0, bandwidth=1.0)
