"""Every reading of §6: against autograd and enumeration in each state, against ``one_step``, and the options."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny_models
from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints import probe, reading_gaps, readings
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.reading_options import CHOICES, LITERAL, Reading, ReadingSettings, every, known_option
from vgrad_lab.checkpoints.reading_states import answer_metrics
from vgrad_lab.checkpoints.readings import as_rows, headroom_of, measure_readings
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.one_step import one_step
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import CLOSED_FORM, PLANTED_FAULT

STATES = ("head", "last", "first")
SINGLE = 2e-4
"""Relative difference that single-precision weights leave between two ways to the same number."""
SETTINGS = ReadingSettings(states=STATES, groups=(3,), alphas=(1.0, 5.0), prompts=4, sampled_groups=400)


@pytest.fixture(scope="module", params=["Olmo2", "GPTNeoX"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model whose logits differ enough for no label to be certain and none to be a coin's."""
    folder = tmp_path_factory.mktemp("readings")
    found = load_checkpoint(tiny_models.save(folder / "c", request.param, initializer_range=0.15))
    head = found.model.get_output_embeddings().weight
    head.data *= 3.0
    return found


def states_of(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of a whole sequence run at once, and each state with its graph."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, value: torch.Tensor) -> torch.Tensor:
        seen[name] = value if value.requires_grad else value.requires_grad_()
        return seen[name]

    norm = getattr(model.base_model, "norm", None) or model.base_model.final_layer_norm
    hooks = [
        model.get_input_embeddings().register_forward_hook(lambda m, i, o: keep("first", o)),
        norm.register_forward_pre_hook(lambda m, i: (keep("last", i[0]),)),
        model.get_output_embeddings().register_forward_pre_hook(lambda m, i: (keep("head", i[0]),)),
    ]
    logits = model(input_ids=tokens, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits, seen


def reference(checkpoint: Checkpoint, state: str, reward: str, advantage: str, group: int) -> dict[str, float]:
    """Σ and each Λ among the labels by autograd at the state and enumeration of all groups of samples."""
    batch = probe.evaluation_prompts(checkpoint, LabelCopy(), SETTINGS.prompts)
    total = dict.fromkeys(("signal", "conditional", "per_sample", "group_mean"), 0.0)
    for q, weight in enumerate(batch.weight):
        tokens = torch.from_numpy(batch.tokens[q : q + 1, : batch.last[q] + 1])
        logits, seen = states_of(checkpoint.model, tokens)
        logp = torch.log_softmax(logits[0, -1, torch.from_numpy(batch.labels)].double(), -1)
        y, p = int((batch.labels == batch.target[q]).argmax()), logp.detach().exp().numpy()
        score = np.stack([_slope(logp[a], seen[state]) for a in range(4)])
        value = score[y] * (1.0 if reward == "log_probability" else p[y])
        size, mean, single, pooled = float(np.linalg.norm(value)), np.zeros_like(value), 0.0, 0.0
        for actions in product(range(4), repeat=group):
            chance, right = float(np.prod(p[list(actions)])), np.array([float(a == y) for a in actions])
            if reward != "sampled":
                right = np.full(group, p[y] if reward == "probability" else np.log(p[y]))
            a = right if advantage == "detached" else from_group(right[None], advantage)[0]  # type: ignore[arg-type]
            costate = a[:, None] * score[list(actions)]
            mean += chance * costate[0]
            single += chance * float(np.linalg.norm(costate[0] - value))
            pooled += chance * float(np.linalg.norm(costate.mean(0) - value))
        total["signal"] += weight * size**2
        total["conditional"] += weight * size * float(np.linalg.norm(mean - value))
        total["per_sample"] += weight * size * single
        total["group_mean"] += weight * size * pooled
    return total


def _slope(value: torch.Tensor, at: torch.Tensor) -> np.ndarray:
    return torch.autograd.grad(value, at, retain_graph=True)[0][0, -1].double().numpy()


@pytest.mark.parametrize("state", STATES)
def test_readings_equal_autograd_and_enumeration(checkpoint: Checkpoint, state: str) -> None:
    found = measure_readings(checkpoint, LabelCopy(), SETTINGS)
    for reward, advantage in (
        ("sampled", "standardised"), ("sampled", "leave_one_out"), ("sampled", "detached"),
        ("probability", "group_mean"), ("probability", "detached"), ("log_probability", "detached"),
    ):  # fmt: skip
        exact = reference(checkpoint, state, reward, advantage, 3)
        for gap in ("conditional", "per_sample", "group_mean"):
            reading = Reading(reward, advantage, gap, "samples", "labels", state, 3)  # type: ignore[arg-type]
            ours, size = found.gap[reading.gap_key], exact["signal"] + exact[gap]
            assert found.signal[reading.signal_key] == pytest.approx(exact["signal"], rel=SINGLE)
            if reading.gap_key in found.error:
                assert abs(ours - exact[gap]) <= 6 * found.error[reading.gap_key] + SINGLE * size
                assert found.error[reading.gap_key] < 0.05 * size
            else:
                assert abs(ours - exact[gap]) <= SINGLE * size, (reading.label, gap)
            if gap == "per_sample":
                assert abs(ours * (1 + PLANTED_FAULT) - exact[gap]) > 0.3 * PLANTED_FAULT * size, "0.1 % must be seen"


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_states_come_from_the_same_pass(family: str, tmp_path: Path) -> None:
    """The head's input of the cached pass is that of the plain one; JJᵀ is that of a Jacobian through it."""
    checkpoint = load_checkpoint(tiny_models.save(tmp_path / "c", family, initializer_range=0.15))
    batch = probe.evaluation_prompts(checkpoint, LabelCopy(), 5)
    hidden, metrics = answer_metrics(checkpoint.model, batch, STATES)
    plain = probe.answer_states(checkpoint.model, batch, 2)
    np.testing.assert_allclose(hidden, plain, atol=1e-5 * np.abs(plain).max())
    assert metrics["head"] is None
    for q in range(0, len(hidden), 2):
        tokens = torch.from_numpy(batch.tokens[q : q + 1, : batch.last[q] + 1])
        _, seen = states_of(checkpoint.model, tokens)
        for state in ("last", "first"):
            j = np.stack([_slope(seen["head"][0, -1, i], seen[state]) for i in range(hidden.shape[1])])
            metric = metrics[state]
            assert metric is not None
            np.testing.assert_allclose(metric[q], j @ j.T, atol=SINGLE * np.abs(j @ j.T).max())


@pytest.mark.parametrize("family", ["GPT2", "OPT", "Gemma"])
def test_other_families_name_the_right_last_state(family: str) -> None:
    """A family that views, drops out or scales after its norm still has its state before the norm."""
    model = tiny_models.causal(family, vocab_size=320, max_position_embeddings=128)
    tokens = torch.tensor([[5, 9, 2, 7]])
    before: list[torch.Tensor] = []
    names = {"GPT2": "transformer.ln_f", "OPT": "model.decoder.final_layer_norm", "Gemma": "model.norm"}
    norm = model.get_submodule(names[family])
    hook = norm.register_forward_pre_hook(lambda m, i: before.append(i[0]))
    from vgrad_lab.checkpoints.reading_states import _last_token

    with torch.enable_grad():
        _, states = _last_token(model, tokens, None)
    hook.remove()
    assert torch.equal(states["last"], before[0])
    assert not torch.equal(states["first"], states["last"])


def random_policy(seed: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((7, 5)) * scale, rng.standard_normal((4, 5)), rng.integers(0, 7, 4)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("baseline", ["standardised", "group_mean", "leave_one_out"])
def test_head_readings_are_those_of_one_step(seed: int, baseline: Any) -> None:
    """The general form at the identity metric is O5; a metric of c²I scales every squared number by c²."""
    head, hidden, target = random_policy(seed, scale=10.0 ** (seed % 3 - 1))
    p = reading_gaps.policy(head, hidden, target)
    for group in (2, 8):
        m = one_step(head, hidden, target, group_size=group, baseline=baseline)
        a = reading_gaps.group_advantages(p.success, group, baseline, 1, 1e-4)
        for metric, c in ((None, 1.0), (np.tile(9.0 * np.eye(5), (4, 1, 1)), 9.0)):
            at = reading_gaps.geometry(p, metric)
            size = c * (m.signal + m.gap_per_sample).max()
            for ours, theirs in (
                (reading_gaps.signal(p.success, at), m.signal),
                (reading_gaps.conditional_gap(p, p.success, at, a), m.gap_conditional),
                (reading_gaps.sample_gap(p, p.success, at, a), m.gap_per_sample),
            ):
                np.testing.assert_allclose(ours, c * theirs, rtol=CLOSED_FORM, atol=CLOSED_FORM * size)
                faulty = np.allclose(ours * (1 + PLANTED_FAULT), c * theirs, rtol=CLOSED_FORM, atol=CLOSED_FORM * size)
                assert not faulty or baseline == "leave_one_out", "0.1 % must be seen (leave-one-out has no gap)"


@pytest.mark.parametrize("seed", range(10))
def test_per_sample_gap_near_a_certain_token(seed: int) -> None:
    """Policies from flat to saturated, right or wrong, any metric: against a plain sum over tokens."""
    rng = np.random.default_rng(seed)
    head, hidden = rng.standard_normal((5, 3)) * 10.0 ** (seed / 4 - 0.5), rng.standard_normal((4, 3))
    target, j = rng.integers(0, 5, 4), rng.standard_normal((4, 3, 3))
    p = reading_gaps.policy(head, hidden, target)
    right, wrong = rng.standard_normal((2, 4))
    at, a = reading_gaps.geometry(p, j @ j.transpose(0, 2, 1)), reading_gaps.fixed_advantages(right, wrong)
    for g in (p.success, np.ones(4)):
        found = reading_gaps.sample_gap(p, g, at, a)
        for q in range(4):
            d = (head - p.mean_row[q]) @ j[q]
            value = g[q] * d[target[q]]
            scale = np.where(np.arange(5) == target[q], right[q], wrong[q])
            exact = np.linalg.norm(value) * (p.probability[q] @ np.linalg.norm(scale[:, None] * d - value, axis=1))
            assert found[q] == pytest.approx(exact, rel=1e-7, abs=1e-300)
            assert found[q] * (1 + PLANTED_FAULT) != pytest.approx(exact, rel=1e-7, abs=1e-300) or not exact


def test_special_cases_of_the_ledger() -> None:
    """O5: b = 0 gives Λ = 2(1 − p)Σ; a detached p gives Σ − Λ ≤ 0 and a zero mean, hence Λ = Σ (S27)."""
    head, hidden, target = random_policy(3)
    p = reading_gaps.policy(head, hidden, target)
    at, one = reading_gaps.geometry(p), np.ones(4)
    sigma = reading_gaps.signal(p.success, at)
    bare = reading_gaps.fixed_advantages(one, 0 * one)
    np.testing.assert_allclose(reading_gaps.sample_gap(p, p.success, at, bare), 2 * (1 - p.success) * sigma)
    np.testing.assert_allclose(reading_gaps.conditional_gap(p, p.success, at, bare), 0, atol=1e-12)
    shared = reading_gaps.fixed_advantages(p.success, p.success)
    assert np.all(reading_gaps.sample_gap(p, p.success, at, shared) >= sigma)
    np.testing.assert_allclose(reading_gaps.conditional_gap(p, p.success, at, shared), sigma, rtol=1e-12)


def test_group_means_of_one_sample_average_to_the_per_sample_gap() -> None:
    head, hidden, target = random_policy(5, 1.0)
    p = reading_gaps.policy(head, hidden, target)
    metric = np.stack([np.diag(np.arange(1.0, 6.0)) + 0.2] * 4)
    right, wrong = np.full(4, 0.7), np.full(4, -0.4)
    action = reading_gaps.draw_groups(p, 1, 20_000, np.random.default_rng(0))
    a = np.where(action == target[:, None, None], 0.7, -0.4)
    at = reading_gaps.geometry(p, metric)
    exact = reading_gaps.sample_gap(p, p.success, at, reading_gaps.fixed_advantages(right, wrong))
    drawn = reading_gaps.group_gap(p, action, [(p.success, a)], [metric])[0, 0]
    assert_mean_close(drawn.T, exact, detectable=0.2 * float(exact.max()))


# --- options


def test_every_reading_is_scored_once(checkpoint: Checkpoint) -> None:
    found, all_ = measure_readings(checkpoint, LabelCopy(), SETTINGS), every(SETTINGS)
    keys = {(r.signal_key, r.gap_key, r.headroom_key) for r in all_}
    assert len(keys) == len(all_)
    assert {r.gap_key for r in all_} == set(found.gap)
    assert {r.headroom_key for r in all_} == set(found.headroom)
    scores = np.array([found.score(r) for r in all_])
    assert np.all(np.isfinite(scores))
    shared = [found.score(r) for r in all_ if r.reward != "sampled" and r.advantage != "detached"]
    assert shared
    assert not np.any(shared), "a reward that the group shares has no advantage, hence Λ = Σ (S27)"
    for r in all_:
        assert found.gap[r.gap_key] >= 0
        assert found.headroom[r.headroom_key] >= 0
    row = as_rows(found, [replace(LITERAL, group=3)])[0]
    assert row["impact_score"] == pytest.approx((row["signal_value"] - row["gap_value"]) * row["headroom_value"])
    assert row["gap"] == "per_sample"


def test_defaults_are_the_measures_of_the_probe(checkpoint: Checkpoint) -> None:
    m = probe.measure(checkpoint, LabelCopy(), probe.MeasureSettings(prompts=6))
    found = measure_readings(checkpoint, LabelCopy(), ReadingSettings(prompts=6))
    assert found.score(Reading(group=8)) == pytest.approx(m["impact_score"], rel=SINGLE, abs=1e-12)
    assert found.score(Reading(gap="per_sample")) == pytest.approx(m["impact_score_per_sample"], rel=SINGLE)
    assert found.reward["full"] == pytest.approx(m["reward_before"], rel=SINGLE)
    assert found.reward["labels"] == pytest.approx(m["reward_restricted"], rel=SINGLE)
    assert found.headroom[LITERAL.headroom_key] == pytest.approx(m["headroom_between"], rel=1e-3)
    again = measure_readings(checkpoint, LabelCopy(), ReadingSettings(prompts=6))
    assert again == found
    other = measure_readings(checkpoint, LabelCopy(), ReadingSettings(prompts=6), seed=1)
    changed = {k for k in found.gap if found.gap[k] != other.gap[k]}
    assert changed == set(found.error), "the seed moves the sampled readings only"


def test_headrooms_of_the_ledger() -> None:
    """At α = 2 (S24): over prompts, over samples, pooled."""
    for success, expected in (
        (np.array([0.25, 0.25]), (0.0, 0.2272, 0.2272)),
        (np.array([0.0, 1.0]), (0.2169, 0.0, 0.2169)),
        (np.linspace(0.0005, 0.9995, 1000), (0.0807, 0.1565, 0.2169)),
    ):
        w = np.full(len(success), 1 / len(success))
        found = [headroom_of(Reading(headroom=h, alpha=2.0), success, w) for h in ("prompts", "samples", "pooled")]
        np.testing.assert_allclose(found, expected, atol=5e-5)
    p, w = np.array([0.2, 0.6]), np.array([0.25, 0.75])
    log = headroom_of(Reading(reward="log_probability", headroom="prompts", alpha=1.0), p, w)
    assert log == pytest.approx(np.log(w @ p) - w @ np.log(p), rel=1e-12)
    assert np.isfinite(headroom_of(Reading(reward="log_probability", headroom="prompts"), np.array([0.0, 0.5]), w))


def test_what_a_gap_depends_on() -> None:
    """The group's size enters every Λ but those over single samples, or the mean, of an advantage without a group."""
    for reward, advantage, gap in (
        ("sampled", "standardised", "conditional"), ("sampled", "group_mean", "per_sample"),
        ("sampled", "detached", "group_mean"), ("probability", "detached", "group_mean"),
        ("sampled", "detached", "conditional"), ("log_probability", "detached", "per_sample"),
        ("probability", "standardised", "group_mean"),
    ):  # fmt: skip
        one, other = (Reading(reward, advantage, gap, group=n) for n in (4, 8))  # type: ignore[arg-type]
        free = (advantage == "detached" and gap != "group_mean") or (reward != "sampled" and advantage != "detached")
        assert (one.gap_key == other.gap_key) == free
        assert one.signal_key == other.signal_key
    log = Reading(reward="log_probability", headroom="prompts")
    assert log.headroom_key != Reading(headroom="prompts").headroom_key
    assert replace(log, headroom="samples").headroom_key == Reading().headroom_key


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 'none such'; choose one of {next(iter(CHOICES[name]))}"):
        known_option(name, "none such")
    assert getattr(Reading(), name) == known_option(name, next(iter(CHOICES[name]))), "the first option is the default"
    fields = {f: getattr(Reading(), f) for f in CHOICES} | {name: "none such", "group": 8, "alpha": 1.0}
    with pytest.raises(UserError, match="none such"):
        Reading.__post_init__(SimpleNamespace(**fields))  # type: ignore[arg-type]


def test_wrong_numbers_are_refused(checkpoint: Checkpoint) -> None:
    for wrong, words in (
        ({"group": 1}, "at least 2 samples"),
        ({"alpha": 0.0}, "positive"),
        ({"alpha": float("nan")}, "positive"),
        ({"alpha": float("inf")}, "positive"),
    ):
        with pytest.raises(UserError, match=words):
            replace(Reading(), **wrong)  # type: ignore[arg-type]
    for settings in ({"states": ()}, {"groups": (1,)}, {"alphas": (-1.0,)}, {"prompts": 0}, {"sampled_groups": 1}):
        with pytest.raises(UserError, match="give|name|needs"):
            replace(ReadingSettings(), **settings)  # type: ignore[arg-type]
    found = measure_readings(checkpoint, LabelCopy(), ReadingSettings(states=("head",), prompts=2, sampled_groups=2))
    with pytest.raises(UserError, match="was not measured"):
        found.score(Reading(state="last"))
    with pytest.raises(UserError, match="was not measured"):
        found.score(Reading(alpha=3.0))


def test_broken_activations_are_refused(tmp_path: Path) -> None:
    c = load_checkpoint(tiny_models.save(tmp_path / "c"))
    c.model.get_output_embeddings().weight.data[3, 0] = float("nan")
    with pytest.raises(UserError):
        measure_readings(c, LabelCopy(), ReadingSettings(prompts=2, sampled_groups=2))
    head, hidden, target = random_policy(0)
    with pytest.raises(ValueError, match="non-finite"):
        reading_gaps.policy(head * np.inf, hidden, target)
    with pytest.raises(ValueError, match="must lie in"):
        reading_gaps.policy(head, hidden, target + 7)


def test_measuring_leaves_the_model_as_it_was(checkpoint: Checkpoint) -> None:
    before = {k: v.clone() for k, v in checkpoint.model.state_dict().items()}
    measure_readings(checkpoint, LabelCopy(), SETTINGS)
    assert all(torch.equal(v, before[k]) for k, v in checkpoint.model.state_dict().items())
    assert not any(m._forward_hooks for m in checkpoint.model.modules()), "hooks are removed"
    assert all(p.grad is None for p in checkpoint.model.parameters())
    assert readings.Readings.__name__ == "Readings"
