"""Credit flow: Taylor-checked Jacobians and costates, lag profiles, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import unchecked
from vgrad_lab.experiments.verify_sequence import KINDS, Kind, build, draw_batch
from vgrad_lab.sequence.credit_flow import (
    credit_norms,
    empirical_costate,
    hidden_jacobian,
    lag_profile,
    token_logprob,
)
from vgrad_lab.sequence.trace import Patch, trace
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, TAYLOR_RATE

STEPS = (1e-4, 5e-5)


def taylor_rate(error_at: dict[float, float]) -> float:
    big, small = STEPS
    return float(np.log(error_at[big] / error_at[small]) / np.log(big / small))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_costate_is_the_derivative_under_patching(kind: Kind, layer: int) -> None:
    rng = np.random.default_rng(1)
    model = build(kind, vocab=3, layers=2, seed=2)
    inputs, targets, advantage = draw_batch(rng, model)
    natural = trace(model, inputs)
    costate = empirical_costate(natural, targets, advantage)[layer, :, 1]
    direction = torch.from_numpy(rng.normal(size=costate.shape))
    h = natural.hidden[layer, :, 1].detach()

    def objective(step: float) -> float:
        logits = trace(model, inputs, patch=Patch(layer, 1, h + step * direction)).logits
        return float((torch.from_numpy(advantage) * token_logprob(logits, targets)).sum().detach())

    def rate(slope: float) -> float:
        return taylor_rate({s: abs(objective(s) - objective(0.0) - s * slope) for s in STEPS})

    slope = float((costate * direction).sum())
    assert abs(rate(slope) - 2) <= TAYLOR_RATE
    assert abs(rate(slope * (1 + PLANTED_FAULT)) - 2) > TAYLOR_RATE


@pytest.mark.parametrize("kind", ["pre", "post", "gru"])
def test_jacobian_is_the_derivative_of_later_states(kind: Kind) -> None:
    rng = np.random.default_rng(4)
    model = build(kind, vocab=3, layers=2, seed=3)
    inputs, _, _ = draw_batch(rng, model)
    natural = trace(model, inputs)
    jacobian = hidden_jacobian(natural, source=(1, 0), target=(2, 3))
    direction = torch.from_numpy(rng.normal(size=(2, model.width)))
    h = natural.hidden[1, :, 0].detach()
    first_order = torch.einsum("boi,bi->bo", jacobian, direction)

    def rate(prediction: torch.Tensor) -> float:
        found = {}
        for s in STEPS:
            moved = trace(model, inputs, patch=Patch(1, 0, h + s * direction)).hidden[2, :, 3]
            found[s] = float((moved - natural.hidden[2, :, 3] - s * prediction).norm().detach())
        return taylor_rate(found)

    assert abs(rate(first_order) - 2) <= TAYLOR_RATE
    assert abs(rate(torch.einsum("bio,bi->bo", jacobian, direction)) - 2) > TAYLOR_RATE


@given(st.sampled_from(KINDS), st.integers(0, 99))
def test_jacobian_to_itself_is_the_identity(kind: Kind, seed: int) -> None:
    model = build(kind, vocab=3, layers=1, seed=seed)
    result = trace(model, draw_batch(np.random.default_rng(seed), model)[0])
    identity = hidden_jacobian(result, source=(1, 2), target=(1, 2))
    assert torch.equal(identity, torch.eye(model.width, dtype=torch.float64).expand(2, -1, -1))


@given(st.integers(0, 99))
def test_costate_at_the_top_has_a_closed_form(seed: int) -> None:
    """λ̂ = Â·(W_a − Σ_j p_j W_j) where nothing else reads the state: post-norm, last layer."""
    model = build("post", vocab=4, layers=1, seed=seed)
    inputs, targets, advantage = draw_batch(np.random.default_rng(seed), model)
    result = trace(model, inputs)
    w = dict(model.named_parameters())["head.weight"].detach()
    closed = torch.from_numpy(advantage)[..., None] * (w[targets] - result.logits.detach().softmax(-1) @ w)
    error = (empirical_costate(result, targets, advantage)[-1] - closed).abs().max()
    assert float(error) <= ALGEBRA * float(closed.abs().max())
    faulty = closed * (1 + PLANTED_FAULT)
    assert float((empirical_costate(result, targets, advantage)[-1] - faulty).norm() / closed.norm()) > ALGEBRA


def test_one_advantage_per_sequence_is_broadcast() -> None:
    model = build("pre", vocab=3, layers=1, seed=0)
    inputs, targets, advantage = draw_batch(np.random.default_rng(0), model)
    result = trace(model, inputs)
    one = empirical_costate(result, targets, advantage[:, 0])
    full = empirical_costate(result, targets, torch.from_numpy(np.repeat(advantage[:, :1], 4, axis=1)))
    assert torch.equal(one, full)


def test_lag_profile_is_the_mean_of_credit_norms() -> None:
    model = build("gru", vocab=3, layers=1, seed=0)
    inputs, targets, _ = draw_batch(np.random.default_rng(0), model)
    result = trace(model, inputs)
    profile = lag_profile(result, targets, positions=(1, 3))
    norms = {k: credit_norms(result, targets, position=k).mean(1) for k in (1, 3)}
    assert profile.shape == (2, 4)
    np.testing.assert_allclose(profile[:, 1], (norms[1][:, 0] + norms[3][:, 2]) / 2, rtol=ALGEBRA)
    np.testing.assert_allclose(profile[:, 3], norms[3][:, 0], rtol=ALGEBRA)
    exact = hidden_jacobian(result, source=(1, 0), target=(1, 3))
    w = dict(model.named_parameters())["head.weight"].detach()
    slope = w[targets[:, 3]] - w.mean(0)
    np.testing.assert_allclose(norms[3][1, 0], torch.einsum("boi,bo->bi", exact, slope).norm(dim=1).mean())


def test_refusals() -> None:
    model = build("pre", vocab=3, layers=1, seed=0)
    inputs, targets, advantage = draw_batch(np.random.default_rng(0), model)
    result = trace(model, inputs)
    costate, logprob = unchecked(empirical_costate), unchecked(token_logprob)
    with pytest.raises(ValueError, match="detach"):
        costate(result, targets, torch.zeros(2, dtype=torch.float64, requires_grad=True))
    with pytest.raises(ValueError, match="NaN"):
        costate(result, targets, np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match=r"give \(2,\) or \(2, 4\)"):
        costate(result, targets, advantage[:, :3])
    with pytest.raises(ValueError, match="targets runs from"):
        costate(result, targets + 3, advantage)
    with pytest.raises(ValueError, match="targets has shape"):
        logprob(result.logits, targets[:, :3])
    with pytest.raises(ValueError, match="no probe"):
        costate(model(inputs), targets, advantage)
    with pytest.raises(ValueError, match="source"):
        hidden_jacobian(result, source=(2, 0), target=(1, 0))
    with pytest.raises(ValueError, match="target"):
        hidden_jacobian(result, source=(0, 0), target=(1, 4))
    with pytest.raises(ValueError, match="position is 4"):
        credit_norms(result, targets, position=4)
    with pytest.raises(ValueError, match="empty"):
        lag_profile(result, targets, positions=())
