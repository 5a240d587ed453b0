"""Deterministic checks and counterexamples of the sequence floor's statements on hidden states (S13-S16, S18)."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vgrad_lab.ledger.types import Counterexample, Evidence
from vgrad_lab.sequence.credit_flow import empirical_costate, hidden_jacobian, state_gradient
from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec, TokenOnly
from vgrad_lab.sequence.recursion import (
    cache_costate,
    cache_recursion,
    depth_recursion,
    direct_sum,
    immediate_credit,
    one_step_recursion,
)
from vgrad_lab.sequence.sampling import relaxed_total_jacobian, relaxed_trace, sampling_path_jacobian
from vgrad_lab.sequence.trace import SequenceModel, Trace, trace
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec
from vgrad_lab.tolerances import ALGEBRA

Kind = Literal["pre", "post", "gru", "token"]
KINDS: tuple[Kind, ...] = ("pre", "post", "gru", "token")
"""Pre-norm transformer, post-norm transformer, stacked GRU, token-only network."""
FLOOR = 1e-3
"""Norms below this are compared absolutely."""


def build(kind: Kind, *, vocab: int, layers: int, seed: int) -> SequenceModel:
    """A tiny float64 model of one kind."""
    if kind in ("pre", "post"):
        return Transformer(TransformerSpec(vocab, layers=layers, norm="pre" if kind == "pre" else "post"), seed=seed)
    return (GRU if kind == "gru" else TokenOnly)(RecurrentSpec(vocab, width=6, layers=layers), seed=seed)


def draw_model(
    rng: np.random.Generator, kinds: tuple[Kind, ...] = KINDS, *, layers: int | None = None
) -> SequenceModel:
    """A random model: one of ``kinds``, vocabulary 2-4, 1-3 layers unless given."""
    kind = kinds[int(rng.integers(len(kinds)))]
    depth = int(rng.integers(1, 4)) if layers is None else layers
    return build(kind, vocab=int(rng.integers(2, 5)), layers=depth, seed=int(rng.integers(2**31)))


def draw_batch(rng: np.random.Generator, model: SequenceModel, *, length: int = 4) -> tuple[Tensor, Tensor, np.ndarray]:
    """Two random sequences: inputs, targets and advantages, each (2, length)."""
    inputs, targets = (torch.from_numpy(rng.integers(0, model.vocab, (2, length))) for _ in range(2))
    return inputs, targets, rng.normal(size=(2, length))


def relative_error(found: Tensor, truth: Tensor) -> float:
    """‖found − truth‖ / max(‖truth‖, 1e-3)."""
    return float((found - truth).norm() / truth.norm().clamp(min=FLOOR))


def reach(result: Trace, rng: np.random.Generator) -> np.ndarray:
    """‖J^T v‖ from every target state (m,k) to every source (l,t), v random: axes (m, k, l, t); 0 where J is 0."""
    rows, batch, length, width = result.hidden.shape
    found = np.zeros((rows, length, rows, length))
    for m in range(rows):
        for k in range(length):
            v = torch.from_numpy(rng.normal(size=(batch, width)))
            found[m, k] = state_gradient((result.hidden[m, :, k] * v).sum(), result).norm(dim=(1, 3)).numpy()
    return found


def forbidden_and_allowed(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries of ``reach`` between positions with k < t or m ≤ l, and those with k > t and m > l."""
    m, k, source_layer, t = np.indices(found.shape)
    forbidden = (k != t) & ((m <= source_layer) | (k < t))
    return found[forbidden], found[(k > t) & (m > source_layer)]


def s13_depth(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Transformers: cross-position Jacobians vanish exactly unless k > t and m > l, and are non-zero there."""
    rng = np.random.default_rng(seed)
    wrong, smallest = 0, np.inf
    for _ in range(examples):
        model = draw_model(rng, ("pre", "post"))
        forbidden, allowed = forbidden_and_allowed(reach(trace(model, draw_batch(rng, model)[0]), rng))
        wrong += int(np.sum(forbidden != 0.0) + np.sum(allowed == 0.0))
        smallest = min(smallest, float(allowed.min()))
    return Evidence(
        float(wrong), 0.0, f"{examples} transformers: entries on the wrong side; smallest allowed {smallest:.2g}"
    )


def s13_counterexample() -> Counterexample:
    """J_{3←1} within the last layer of a transformer, against the credit that leaves the layer below."""
    result = trace(build("pre", vocab=3, layers=2, seed=0), torch.tensor([[0, 1, 2]]))
    below = float(hidden_jacobian(result, source=(1, 0), target=(2, 2)).norm())
    within = float(hidden_jacobian(result, source=(2, 0), target=(2, 2)).norm())
    return Counterexample(below, within, 0.1, f"‖∂h_3^(2)/∂h_1^(1)‖ = {below:.3f} but ‖∂h_3^(2)/∂h_1^(2)‖ = {within}")


def _worst(seed: int, examples: int, kinds: tuple[Kind, ...], check: str, *, layers: int | None = None) -> float:
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(examples):
        model = draw_model(rng, kinds, layers=layers)
        worst = max(worst, recursion_error(check, model, *draw_batch(rng, model, length=3)))
    return worst


def recursion_error(
    check: str, model: SequenceModel, inputs: Tensor, targets: Tensor, advantage: np.ndarray, *, layer: int = -1
) -> float:
    """Relative error of one recursion ("step", "sum", "depth", "cache") against autograd; "step" at ``layer``."""
    result = trace(model, inputs)
    costate = empirical_costate(result, targets, advantage)
    layer = layer % len(costate)
    if check == "step":
        return relative_error(one_step_recursion(result, targets, advantage, layer=layer), costate[layer])
    if check == "sum":
        rows = range(len(costate))
        return max(relative_error(direct_sum(result, targets, advantage, layer=row), costate[row]) for row in rows)
    if check == "depth":
        return relative_error(depth_recursion(result, targets, advantage), costate)
    if check == "cache":
        found = cache_recursion(model, inputs, targets, advantage)
        truth = [cache_costate(model, inputs, targets, advantage, position=t) for t in range(inputs.shape[1])]
        return max(relative_error(a, b) for a, b in zip(found, truth, strict=True))
    raise ValueError(f"check is {check!r}; give 'step', 'sum', 'depth' or 'cache'")


def s14_top(*, seed: int = 0, examples: int = 10) -> Evidence:
    """Eq. 15 at the last layer of a transformer: true, with every transition Jacobian zero."""
    return Evidence(_worst(seed, examples, ("pre", "post"), "step"), ALGEBRA, "relative, at l = L, where J = 0")


def s14_counterexample() -> Counterexample:
    """Relative error of eq. 15 at the embedding of a pre-norm transformer of three layers."""
    model = build("pre", vocab=3, layers=3, seed=0)
    batch = draw_batch(np.random.default_rng(0), model)
    errors = [recursion_error("step", model, *batch, layer=layer) for layer in range(4)]
    return Counterexample(0.0, errors[0], 0.1, f"relative error at l = 0…3: {', '.join(f'{e:.3g}' for e in errors)}")


def s14_sum(*, seed: int = 0, examples: int = 10) -> Evidence:
    """The sum over later positions of cross-layer Jacobians is the costate, at every layer."""
    return Evidence(_worst(seed, examples, KINDS, "sum"), ALGEBRA, "relative, every layer, four architectures")


def s14_depth(*, seed: int = 0, examples: int = 10) -> Evidence:
    """One step down in depth is exact in a transformer."""
    return Evidence(_worst(seed, examples, ("pre", "post"), "depth"), ALGEBRA, "relative, every layer")


def s14_cache(*, seed: int = 0, examples: int = 10) -> Evidence:
    """One step back in time is exact when the state is the growing cache of all earlier hidden states."""
    return Evidence(_worst(seed, examples, KINDS, "cache"), ALGEBRA, "relative, every position, four architectures")


def s14_gru(*, seed: int = 0, examples: int = 10) -> Evidence:
    """Eq. 15 at the top layer of a GRU is exact, with non-zero transition Jacobians."""
    return Evidence(_worst(seed, examples, ("gru",), "step"), ALGEBRA, "relative, top layer of 1-3")


def cross_time_share(model: SequenceModel, inputs: Tensor, targets: Tensor, advantage: np.ndarray) -> np.ndarray:
    """‖λ̂ − Â ∂ℓ/∂h at the same position‖ / ‖λ̂‖ for every layer."""
    result = trace(model, inputs)
    costate = empirical_costate(result, targets, advantage)
    crossing = costate - immediate_credit(result, targets, advantage)
    return np.asarray(crossing.flatten(1).norm(dim=1) / costate.flatten(1).norm(dim=1))


def s15_counterexample() -> Counterexample:
    """Share of the costate that crosses time in a one-layer GRU."""
    model = build("gru", vocab=3, layers=1, seed=0)
    batch = draw_batch(np.random.default_rng(0), model)
    share = float(cross_time_share(model, *batch)[-1])
    norm = float(hidden_jacobian(trace(model, batch[0]), source=(1, 1), target=(1, 2))[0].norm())
    return Counterexample(0.0, share, 0.05, f"share of λ̂ from later tokens {share:.3f}, ‖J_(3←2)‖_F = {norm:.3f}")


def s15_token(*, seed: int = 0, examples: int = 10) -> Evidence:
    """In h_t = f(e_o) no state depends on the state of another position: all cross-position Jacobians are 0."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(examples):
        model = draw_model(rng, ("token",))
        found = reach(trace(model, draw_batch(rng, model)[0]), rng)
        _, k, _, t = np.indices(found.shape)
        worst = max(worst, float(np.abs(found[k != t]).max()))
    return Evidence(worst, 0.0, "largest cross-position entry, absolute")


def jacobian_rank(model: SequenceModel, inputs: Tensor, *, source: tuple[int, int], target: tuple[int, int]) -> int:
    """Numerical rank of one cross-position Jacobian (singular values above 1e-10 of the largest)."""
    values = torch.linalg.svdvals(hidden_jacobian(trace(model, inputs[:1]), source=source, target=target)[0])
    return int((values > 1e-10 * values[0]).sum()) if float(values[0]) > 0 else 0


def s18_rank(*, seed: int = 0, examples: int = 5) -> Evidence:
    """rank J_{(L,k)←(l,t)} ≤ min(d, (L−l)·n_h·d_h): the excess over the bound, on random pre-norm transformers."""
    rng = np.random.default_rng(seed)
    excess, attained = -(10**9), 0
    for _ in range(examples):
        heads, head_width, layers = (int(rng.integers(1, n)) for n in (3, 4, 4))
        spec = TransformerSpec(4, width=16, layers=layers, heads=heads, head_width=head_width)
        model = Transformer(spec, seed=int(rng.integers(2**31)))
        inputs = draw_batch(rng, model)[0]
        for layer in range(layers + 1):
            bound = min(16, (layers - layer) * heads * head_width)
            rank = jacobian_rank(model, inputs, source=(layer, 0), target=(layers, 3))
            excess, attained = max(excess, rank - bound), attained + (rank == bound)
    return Evidence(float(excess), 0.0, f"largest rank − bound; the bound is attained in {attained} cases")


def sampling_path_error(
    model: SequenceModel, inputs: Tensor, *, temperature: float = 1.0, noise: Tensor | None = None
) -> float:
    """Relative error of fixed-token path + sampling path against the total Jacobian, from position 1 to the last."""
    target = (model.layers, inputs.shape[1] - 1)
    soft = {"temperature": temperature, "noise": noise}
    relaxed = relaxed_trace(model, inputs, position=1, **soft)  # type: ignore[arg-type]
    fixed = hidden_jacobian(relaxed, source=(model.layers, 1), target=target)
    sampling = sampling_path_jacobian(model, relaxed, position=1, target=target, **soft)  # type: ignore[arg-type]
    total = relaxed_total_jacobian(model, inputs, position=1, target=target, **soft)  # type: ignore[arg-type]
    return relative_error(fixed + sampling, total)


def s16_chain(*, seed: int = 0, examples: int = 20) -> Evidence:
    """Eq. 20 for a soft token: fixed-token path + sampling path = total Jacobian, softmax and Gumbel-softmax."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for i in range(examples):
        model = draw_model(rng, ("pre", "post", "gru"))
        inputs = draw_batch(rng, model, length=3)[0]
        noise = torch.from_numpy(rng.gumbel(size=(2, model.vocab))) if i % 2 else None
        worst = max(worst, sampling_path_error(model, inputs, temperature=float(rng.uniform(0.3, 2)), noise=noise))
    return Evidence(worst, ALGEBRA, "relative to max(‖Df‖, 1e-3), from the last layer at t to the last layer at t+1")


def straight_through_ratio(p: np.ndarray, label: int) -> float:
    """Expected straight-through gradient of o_label² over the true ∂_z E[o_label²], by enumeration of o."""
    z = torch.log(torch.from_numpy(p)).requires_grad_()
    soft = z.softmax(-1)
    truth = torch.autograd.grad(soft[label], z, retain_graph=True)[0]
    found = torch.zeros_like(truth)
    for token in range(len(p)):
        hard = torch.nn.functional.one_hot(torch.tensor(token), len(p)).to(z.dtype)
        passed = soft + (hard - soft).detach()
        found += p[token] * torch.autograd.grad(passed[label] ** 2, z, retain_graph=True)[0]
    return float((found @ truth) / (truth @ truth))
