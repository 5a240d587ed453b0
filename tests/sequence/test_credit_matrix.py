"""Credit norms and spectra: against whole Jacobians, stated errors calibrated over seeds, exact zeros, refusals."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from tests import tiny_models
from tests.helpers import unchecked
from vgrad_lab.experiments.verify_sequence import KINDS, Kind, build, draw_batch
from vgrad_lab.sequence.credit_flow import credit_norms, hidden_jacobian, lag_profile, logit_credit, selectivity
from vgrad_lab.sequence.credit_matrix import credit_matrix, directions, jacobian_norms
from vgrad_lab.sequence.hooked import HookedDecoder
from vgrad_lab.sequence.pull_back import pull_back
from vgrad_lab.sequence.spectrum import leading_singular_values, numerical_rank, singular_values, stable_rank
from vgrad_lab.sequence.trace import SequenceModel, probing, trace
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT


def whole_norms(model: SequenceModel, inputs: torch.Tensor, layer: int) -> np.ndarray:
    """The slow way: torch.autograd.functional.jacobian of every target state by every probe."""
    shape = (model.layers + 1, *inputs.shape, model.width)
    rows = []
    for k in range(inputs.shape[1]):

        def state(probe: torch.Tensor, k: int = k) -> torch.Tensor:
            return model(inputs, edit=probing(probe)).hidden[layer, 0, k]

        jacobian = torch.autograd.functional.jacobian(state, torch.zeros(shape, dtype=torch.float64))
        rows.append(jacobian.square().sum((0, -1)).sqrt().numpy())
    return np.stack(rows, axis=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_exact_mode_is_the_whole_jacobian(kind: Kind, layer: int) -> None:
    model = build(kind, vocab=3, layers=2, seed=5)
    inputs = draw_batch(np.random.default_rng(5), model, length=5)[0][:1]
    found = credit_matrix(model, inputs, layer=layer, probes=None)
    truth = whole_norms(model, inputs, layer)
    scale = np.maximum(truth, ALGEBRA)
    assert np.all(np.abs(found.norm - truth) <= ALGEBRA * scale)
    assert np.any(np.abs(found.norm - truth * (1 + PLANTED_FAULT)) > ALGEBRA * scale)
    assert np.all(found.standard_error == 0.0)
    assert np.all(found.norm[truth == 0.0] == 0.0)
    future = np.triu(np.ones((5, 5), dtype=bool), 1)
    assert np.all(found.norm[:, 0, future] == 0.0)
    if kind in ("pre", "post"):
        assert np.all(found.norm[layer:, 0, ~np.eye(5, dtype=bool)] == 0.0)  # ledger S13
    assert credit_matrix(model, inputs, layer=layer, probes=99).norm == pytest.approx(found.norm, rel=ALGEBRA)


@settings(max_examples=10)
@given(st.sampled_from(KINDS), st.integers(0, 999), st.integers(2, 6), st.integers(1, 9), st.integers(1, 5))
def test_neither_chunk_nor_choice_of_positions_matters(
    kind: Kind, seed: int, probes: int, chunk: int, length: int
) -> None:
    model = build(kind, vocab=3, layers=1, seed=seed)
    inputs = draw_batch(np.random.default_rng(seed), model, length=length)[0]
    same_in_parts(model, inputs, probes=probes, seed=seed, chunk=chunk)


def test_nor_do_the_prefixes_of_a_long_sequence() -> None:
    spec = TransformerSpec(3, layers=2, max_length=37)
    inputs = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (2, 37)))
    same_in_parts(Transformer(spec, seed=1), inputs, probes=3, seed=0, chunk=50)


def same_in_parts(model: SequenceModel, inputs: torch.Tensor, *, probes: int, seed: int, chunk: int) -> None:
    """Norms and errors in other chunks, for some positions, from one trace: the same numbers."""
    length, near = inputs.shape[1], {"rel": CLOSED_FORM, "abs": CLOSED_FORM}
    plain = credit_matrix(model, inputs, probes=probes, seed=seed)
    assert np.all(np.isfinite(plain.standard_error))
    chunked = credit_matrix(model, inputs, probes=probes, seed=seed, chunk=chunk)
    assert chunked.norm == pytest.approx(plain.norm, **near)
    some = sorted({0, length // 2, length - 1}, reverse=True)
    part = credit_matrix(model, inputs, probes=probes, seed=seed, positions=some)
    assert part.norm == pytest.approx(plain.norm[:, :, some], **near)
    assert part.standard_error == pytest.approx(plain.standard_error[:, :, some], rel=1e-6, abs=1e-7)
    norm, error = jacobian_norms(trace(model, inputs), target=(model.layers, length - 1), probes=probes, seed=seed)
    assert norm == pytest.approx(plain.norm[:, :, -1], **near)
    assert error == pytest.approx(plain.standard_error[:, :, -1], rel=1e-6, abs=1e-7)


def over_seeds(probes: int, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact norms of three cross-position Jacobians, and estimates and their stated errors for many seeds."""
    model = Transformer(TransformerSpec(5, width=16, layers=2, heads=2, head_width=8), seed=3)
    found = trace(model, torch.tensor([[0, 3, 1, 4]]))
    runs = [jacobian_norms(found, target=(2, 3), probes=probes, seed=s) for s in range(seeds)]
    norm, error = (np.stack([run[i][0, 0, :3] for run in runs]) for i in range(2))
    return jacobian_norms(found, target=(2, 3), probes=None)[0][0, 0, :3], norm, error


@pytest.mark.parametrize("probes", [2, 4, 8])
def test_stated_error_is_calibrated_over_seeds(probes: int) -> None:
    """‖J‖² is unbiased, the stated error is the spread over seeds, and Student's t covers."""
    exact, norm, error = over_seeds(probes, 400)
    assert_mean_close((norm / exact) ** 2, np.ones_like(exact), detectable=0.3)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean_close(1.3 * (norm / exact) ** 2, np.ones_like(exact), detectable=0.4)
    stated, seen = np.sqrt((error**2).mean(0)), norm.std(0)
    assert np.all(np.abs(stated / seen - 1) < 0.3), stated / seen
    assert np.all(np.abs(stated / 2 / seen - 1) > 0.3)  # half the error would be found
    freedom = (probes - 1) * (probes + 2) / 2
    covered = np.abs(norm - exact) <= student.isf(0.025, freedom) * error
    assert 0.88 <= covered.mean() <= 0.99, covered.mean()


def test_directions_are_orthonormal_and_seeded() -> None:
    q = directions(3, 1, 2, 8, 4)
    assert float((torch.einsum("nbs,mbs->bnm", q, q) - torch.eye(4)).abs().max()) <= ALGEBRA
    assert torch.equal(q, directions(3, 1, 2, 8, 4))
    assert not torch.equal(q, directions(3, 2, 2, 8, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_lanczos_finds_the_singular_values(kind: Kind) -> None:
    model = build(kind, vocab=4, layers=3, seed=1)
    inputs = draw_batch(np.random.default_rng(0), model, length=6)[0]
    places = {"source": (1, 2), "target": (3, 5)}
    truth = singular_values(trace(model, inputs), **places)
    full = leading_singular_values(model, inputs, **places, count=model.width)
    assert np.abs(full.value - truth).max() <= ALGEBRA
    norm = credit_matrix(model, inputs, probes=None).norm[1, :, 5, 2]
    assert np.sqrt((truth**2).sum(1)) == pytest.approx(norm, rel=ALGEBRA)
    for steps in (2, 4):
        some = leading_singular_values(model, inputs, **places, count=2, steps=steps)
        distance = np.abs(some.value[:, :, None] - truth[:, None, :]).min(2)
        assert np.all(distance <= some.error)
        assert np.all(some.value <= truth[:, :2] + ALGEBRA)
        assert some.products == 2 * steps


def test_lanczos_error_bound_over_seeds() -> None:
    model = build("pre", vocab=4, layers=3, seed=1)
    inputs = torch.tensor([[0, 1, 2, 3]])
    truth = singular_values(trace(model, inputs), source=(0, 0), target=(3, 3))
    found = [leading_singular_values(model, inputs, source=(0, 0), target=(3, 3), steps=3, seed=s) for s in range(20)]
    distance = np.array([np.abs(f.value[0, 0] - truth[0]).min() for f in found])
    bound = np.array([f.error[0, 0] for f in found])
    assert np.all(distance <= bound)
    assert np.median(distance / bound) > 1e-6  # and not by a bound that says nothing


def test_rank_is_that_of_proposition_3() -> None:
    """Layers (2, 4, L = 3) with d = 32: 24, 16, 8, 0 (ledger S18)."""
    model = Transformer(TransformerSpec(5, width=32, layers=3, heads=2, head_width=4), seed=0)
    result = trace(model, torch.tensor([[0, 1, 2, 3]]))
    spectra = [singular_values(result, source=(layer, 0), target=(3, 3)) for layer in range(4)]
    assert [int(numerical_rank(s)[0]) for s in spectra] == [24, 16, 8, 0]
    assert all(1 <= stable_rank(s)[0] <= 24 for s in spectra[:3])
    assert np.isnan(stable_rank(spectra[3])[0])


@pytest.mark.parametrize("family", ["Olmo2", "Gemma2", "GPTNeoX", "GPT2", "Qwen3"])
def test_library_models(family: str) -> None:
    """Float32 models with the library's own attention kernels: exact mode, estimate and Lanczos agree."""
    model = HookedDecoder(tiny_models.causal(family))
    inputs = torch.tensor([[3, 4, 5, 6, 2, 9]])
    exact = credit_matrix(model, inputs, probes=None)
    jacobian = hidden_jacobian(trace(model, inputs), source=(1, 2), target=(2, 5))
    assert exact.norm[1, 0, 5, 2] == pytest.approx(float(jacobian.norm()), rel=1e-4)
    assert np.all(exact.norm[2, 0, ~np.eye(6, dtype=bool)] == 0.0)
    rough = credit_matrix(model, inputs, probes=8)
    z = (rough.norm - exact.norm)[exact.norm > 0] / np.maximum(rough.standard_error[exact.norm > 0], 1e-5)
    assert np.abs(z).max() < student.isf(1e-7, rough.degrees_of_freedom)
    top = leading_singular_values(model, inputs, source=(1, 2), target=(2, 5), count=2)
    truth = np.linalg.svd(jacobian[0].double().numpy(), compute_uv=False)
    assert np.all(np.abs(top.value[0] - truth[:2]) <= top.error[0] + 1e-4 * truth[0])


def test_pull_back_without_batching_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    result = trace(build("pre", vocab=3, layers=2, seed=0), torch.tensor([[0, 1, 2]]))
    state, v = result.hidden[2, :, 2], torch.eye(8, dtype=torch.float64)[:, None]
    batched = pull_back(result, state, v)
    grad = torch.autograd.grad

    def refuse(*args, is_grads_batched=False, **kwargs):  # type: ignore[no-untyped-def]
        if is_grads_batched:
            raise RuntimeError("vmap: no batching rule")
        return grad(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    assert float((pull_back(result, state, v) - batched).abs().max()) <= ALGEBRA


def test_logit_credit_profile_and_selectivity() -> None:
    model = build("pre", vocab=3, layers=2, seed=0)
    inputs, targets, _ = draw_batch(np.random.default_rng(0), model)
    result = trace(model, inputs)
    together = logit_credit(result, targets, positions=[3, 1])
    for i, k in enumerate((3, 1)):
        assert together[:, :, i] == pytest.approx(credit_norms(result, targets, position=k), rel=ALGEBRA)
    assert lag_profile(result, targets, positions=[3])[:, 1] == pytest.approx(together[:, :, 0, 2].mean(1), rel=ALGEBRA)
    matrix = credit_matrix(model, inputs, probes=None)
    diagonal = [np.diagonal(matrix.norm, offset=-lag, axis1=2, axis2=3).mean((1, 2)) for lag in range(4)]
    assert matrix.lag_profile == pytest.approx(np.stack(diagonal, axis=1), rel=ALGEBRA)
    norms = together[:, :, 0]
    source, others = np.array([0, 1]), np.array([[1, 2], [0, 2]])
    found = selectivity(norms, source=source, others=others)
    by_hand = norms[0, 1, 1] / (norms[0, 1, 1] + (norms[0, 1, 0] + norms[0, 1, 2]) / 2)
    assert found[0, 1] == pytest.approx(by_hand, rel=ALGEBRA)
    assert np.all(np.isnan(found[-1]))


def test_refusals() -> None:
    model = build("pre", vocab=3, layers=2, seed=0)
    inputs = torch.tensor([[0, 1, 2]])
    matrix, lanczos = unchecked(credit_matrix), unchecked(leading_singular_values)
    for arguments, message in (
        ({"layer": 3}, "layer is 3"),
        ({"layer": -1}, "layer is -1"),
        ({"positions": [3]}, "position is 3"),
        ({"positions": [-1]}, "position is -1"),
        ({"positions": []}, "positions is empty"),
        ({"probes": 1}, "at least 2"),
        ({"probes": 0}, "at least 2"),
        ({"chunk": 0}, "chunk is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            matrix(model, inputs, **arguments)
    with pytest.raises(ValueError, match="int64 token ids"):
        matrix(model, torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="target"):
        jacobian_norms(trace(model, inputs), target=(2, 3))
    with pytest.raises(ValueError, match="no probe"):
        unchecked(jacobian_norms)(model(inputs), target=(2, 2))
    with pytest.raises(ValueError, match="source"):
        lanczos(model, inputs, source=(0, 3), target=(2, 2))
    with pytest.raises(ValueError, match="count is 9"):
        lanczos(model, inputs, source=(0, 0), target=(2, 2), count=9)
    norms = np.ones((1, 1, 3))
    with pytest.raises(ValueError, match="source must name"):
        selectivity(norms, source=np.array([3]), others=np.array([[0]]))
    with pytest.raises(ValueError, match="holds the source"):
        selectivity(norms, source=np.array([0]), others=np.array([[0]]))


def test_the_benchmark_runs_on_a_small_model() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "credit_matrix.py"
    module = types.ModuleType("credit_matrix_benchmark")
    sys.modules[module.__name__] = module  # its dataclass looks itself up
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    passes = module.against_passes(module.TINY, module.TINY.every, 1)
    assert 0 < passes["relative_standard_error"]["median"] < 1
    loop = module.against_loop(module.TINY)
    assert loop["exact_difference"] < 1e-5
    assert loop["ratio_exact"] > 0
    assert 0 < module.resident("VmRSS") <= module.resident("VmHWM")
