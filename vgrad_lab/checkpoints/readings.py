"""P_gap of a checkpoint under every reading of the paper's §6, from one pass over the evaluation prompts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab import impact
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.probe import check_linear_head, evaluation_prompts
from vgrad_lab.checkpoints.reading_gaps import (
    Advantages,
    Geometry,
    Policy,
    advantages_of,
    conditional_gap,
    draw_groups,
    fixed_advantages,
    geometry,
    group_advantages,
    group_gap,
    policy,
    sample_gap,
    signal,
)
from vgrad_lab.checkpoints.reading_options import Reading, ReadingSettings, Vocabulary, every
from vgrad_lab.checkpoints.reading_states import State, answer_metrics
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch


@dataclass(frozen=True)
class Readings:
    """Parts of every reading of one checkpoint, by the keys of ``Reading``; ``score`` puts P_gap together.

    error: standard error of each sampled Λ (group means), the rest is exact. reward: mean p(y*|q) per vocabulary.
    """

    signal: Mapping[str, float]
    gap: Mapping[str, float]
    error: Mapping[str, float]
    headroom: Mapping[str, float]
    reward: Mapping[str, float]

    def score(self, reading: Reading) -> float:
        """P_gap = (Σ − Λ)·H_α under a reading. Raises UserError for one that was not measured."""
        try:
            parts = self.signal[reading.signal_key], self.gap[reading.gap_key], self.headroom[reading.headroom_key]
        except KeyError as error:
            raise UserError(
                f"the reading {reading.label!r} was not measured; name its {error} in the settings"
            ) from error
        return impact.impact_score(*parts)


def measure_readings(
    checkpoint: Checkpoint, task: LabelCopy, settings: ReadingSettings | None = None, *, seed: int = 0
) -> Readings:
    """Σ, Λ and H_α of every combination of the options, from one pass over the evaluation prompts and no RL step.

    P_gap = (Σ − Λ_m) H_α (eqs. 26-29 and §6) for each of ``every(settings)``.

    seed: of the group-mean readings of Λ only, all else is exact. Raises UserError for a head that is not linear or
    non-finite activations. Ledger: S22-S27.
    """
    settings = ReadingSettings() if settings is None else settings
    model, batch = checkpoint.model, evaluation_prompts(checkpoint, task, settings.prompts)
    check_linear_head(model, batch)
    head = model.get_output_embeddings().weight.detach().double().cpu().numpy()
    hidden, metrics = answer_metrics(model, batch, settings.states)
    wanted = every(settings)
    parts: list[dict[str, float]] = [{}, {}, {}, {}, {}]
    for index, vocabulary in enumerate(get_args(Vocabulary)):
        try:
            p = _policy(head, hidden, batch, vocabulary)
        except ValueError as error:
            raise UserError(f"{checkpoint.path} cannot be measured: {error}") from error
        mine = [r for r in wanted if r.vocabulary == vocabulary]
        rng = np.random.default_rng([seed, index])
        exact = _exact(p, metrics, mine, batch.weight, settings)
        sampled = _sampled(p, metrics, mine, batch.weight, settings, rng)
        rooms = {r.headroom_key: headroom_of(r, p.success, batch.weight) for r in mine}
        rewards = {vocabulary: float(batch.weight @ p.success)}
        for total, more in zip(parts, (exact[0], exact[1] | sampled[0], sampled[1], rooms, rewards), strict=True):
            total |= more
    return Readings(*parts)


def _policy(head: Float[ndarray, "V S"], hidden: Float[ndarray, "Q S"], batch: PromptBatch, vocabulary: str) -> Policy:
    if vocabulary == "full":
        return policy(head, hidden, batch.target)
    return policy(head[batch.labels], hidden, (batch.target[:, None] == batch.labels).argmax(1))


def _value(reading: Reading, p: Policy) -> Float[ndarray, " Q"]:
    """Factor g of G = g·d_y."""
    return np.ones_like(p.success) if reading.reward == "log_probability" else p.success


def _detached(reading: Reading, p: Policy) -> tuple[Float[ndarray, " Q"], Float[ndarray, " Q"]]:
    """The reward of a right and of a wrong sample."""
    if reading.reward == "sampled":
        return np.ones_like(p.success), np.zeros_like(p.success)
    reward = p.success if reading.reward == "probability" else log_success(p.success)
    return reward, reward


def log_success(success: Float[ndarray, " Q"]) -> Float[ndarray, " Q"]:
    """ln p; a probability too small for a float64 counts as the smallest there is."""
    return np.asarray(np.log(np.maximum(success, np.finfo(float).tiny)))


def _advantages(reading: Reading, p: Policy, s: ReadingSettings) -> Advantages:
    if reading.advantage == "detached":
        return fixed_advantages(*_detached(reading, p))
    return group_advantages(p.success, reading.group, reading.advantage, s.ddof, s.eps)


def _exact(
    p: Policy,
    metrics: Mapping[State, ndarray | None],
    readings: Iterable[Reading],
    weight: Float[ndarray, " Q"],
    s: ReadingSettings,
) -> tuple[dict[str, float], dict[str, float]]:
    """Σ and Λ by key, of all readings but the group means."""
    at: dict[State, Geometry] = {state: geometry(p, metric) for state, metric in metrics.items()}
    signals: dict[str, float] = {}
    gaps: dict[str, float] = {}
    for r in readings:
        g = _value(r, p)
        if r.signal_key not in signals:
            signals[r.signal_key] = float(weight @ signal(g, at[r.state]))
        if r.gap_key in gaps:
            continue
        if r.gap_key.endswith(" none"):
            gaps[r.gap_key] = signals[r.signal_key]
        elif r.gap != "group_mean":
            measure = conditional_gap if r.gap == "conditional" else sample_gap
            gaps[r.gap_key] = float(weight @ measure(p, g, at[r.state], _advantages(r, p, s)))
    return signals, gaps


def _sampled(
    p: Policy,
    metrics: Mapping[State, ndarray | None],
    readings: Iterable[Reading],
    weight: Float[ndarray, " Q"],
    s: ReadingSettings,
    rng: np.random.Generator,
) -> tuple[dict[str, float], dict[str, float]]:
    """Group-mean Λ with its standard error by key; one set of draws per group size serves every reading."""
    wanted = {r.gap_key: r for r in readings if r.gap == "group_mean" and not r.gap_key.endswith(" none")}
    found: dict[str, float] = {}
    errors: dict[str, float] = {}
    states = tuple(metrics)
    for group in s.groups:
        action = draw_groups(p, group, s.sampled_groups, rng)
        mine = [r for r in wanted.values() if r.group == group and r.state == states[0]]
        pairs = [(_value(r, p), _sampled_advantages(r, p, action, s)) for r in mine]
        gaps = group_gap(p, action, pairs, list(metrics.values()))
        for (i, state), (j, r) in product(enumerate(states), enumerate(mine)):
            key = Reading(r.reward, r.advantage, r.gap, vocabulary=r.vocabulary, state=state, group=group).gap_key
            found[key] = float(weight @ gaps[i, j].mean(1))
            errors[key] = float(np.sqrt((weight**2) @ gaps[i, j].var(1, ddof=1) / s.sampled_groups))
    return found, errors


def _sampled_advantages(r: Reading, p: Policy, action: ndarray, s: ReadingSettings) -> Float[ndarray, "Q K G"]:
    if r.advantage != "detached":
        return advantages_of(action, p.target, r.advantage, s.ddof, s.eps)
    right, wrong = _detached(r, p)
    return np.where(action == p.target[:, None, None], right[:, None, None], wrong[:, None, None])


def headroom_of(r: Reading, success: Float[ndarray, " Q"], weight: Float[ndarray, " Q"]) -> float:
    """H_α (eq. 28, §6) of a reading, from the success probability and the weight of each prompt. Ledger: S24."""
    if r.headroom == "samples":
        return float(weight @ impact.headroom_bernoulli(success, r.alpha))
    if r.headroom == "pooled":
        mean = np.array([min(float(weight @ success), 1.0)])
        return float(impact.headroom_bernoulli(mean, r.alpha)[0])
    return impact.headroom(log_success(success) if r.reward == "log_probability" else success, r.alpha, weight=weight)


def as_rows(found: Readings, readings: Iterable[Reading]) -> list[dict[str, Any]]:
    """One row per reading: its options, Σ, Λ, H_α and P_gap."""
    return [
        {
            **{f.name: getattr(r, f.name) for f in fields(r)},
            "signal_value": found.signal[r.signal_key],
            "gap_value": found.gap[r.gap_key],
            "headroom_value": found.headroom[r.headroom_key],
            "impact_score": found.score(r),
        }
        for r in readings
    ]
