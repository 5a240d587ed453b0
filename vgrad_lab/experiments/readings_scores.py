"""Scores of the records of ``readings_study``: rank correlations of every reading with gain and reward after RL."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.checkpoints.reading_options import CHOICES, LITERAL, Reading, ReadingSettings, every
from vgrad_lab.checkpoints.report.scores import regret
from vgrad_lab.experiments.forecast_scores import LEVEL, across
from vgrad_lab.impact import grpo_scale
from vgrad_lab.simplex import SOFTMAX_CONSTANT, sharp_entropy_bound
from vgrad_lab.stats import spearman
from vgrad_lab.tolerances import CLOSED_FORM

Json = dict[str, Any]
PARTS = ("signal", "gap", "error", "headroom", "reward")
SCORES = ("gain", "combined", "after", "regret", "affine")
FACTORS = ("advantage", "gap", "headroom", "vocabulary", "state", "group", "alpha")
"""Choices that make a balanced table under the sampled reward."""


@dataclass(frozen=True)
class Table:
    """n checkpoints under one optimiser: P_gap of R readings, rewards, and the ladder of each checkpoint."""

    readings: tuple[Reading, ...]
    score: Float[ndarray, "n R"]
    signal: Float[ndarray, "n R"]
    gap: Float[ndarray, "n R"]
    headroom: Float[ndarray, "n R"]
    step: Float[ndarray, " n"]
    before: Float[ndarray, " n"]
    after: Float[ndarray, "n K"]
    budgets: tuple[int, ...]
    ladder: Int[ndarray, " n"]

    @property
    def gain(self) -> Float[ndarray, " n"]:
        """Mean over budgets of R_after − R_before."""
        return np.asarray(self.after.mean(1) - self.before)

    @property
    def ladders(self) -> list[Int[ndarray, " m"]]:
        """Rows of each ladder."""
        return [np.flatnonzero(self.ladder == i) for i in np.unique(self.ladder)]


def settings_of(head: Mapping[str, Any]) -> ReadingSettings:
    """The settings that the records were made with."""
    values: Json = {f.name: head[f.name] for f in fields(ReadingSettings)}
    made: Json = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ReadingSettings(**made)


def table(head: Mapping[str, Any], records: Sequence[Mapping[str, Any]], optimizer: str) -> Table:
    """The records that have RL with an optimiser, as arrays."""
    rows = [r for r in records if optimizer in r["rl"]]
    readings = every(settings_of(head))
    at = {name: {key: i for i, key in enumerate(head["keys"][name])} for name in PARTS}
    parts = {name: np.array([r[name] for r in rows]) for name in PARTS}
    signal, gap, headroom = (
        parts[name][:, [at[name][getattr(r, f"{name}_key")] for r in readings]]
        for name in ("signal", "gap", "headroom")
    )
    names = list(dict.fromkeys(r["ladder"] for r in rows))
    rl = [r["rl"][optimizer] for r in rows]
    return Table(
        readings, (signal - gap) * headroom, signal, gap, headroom,
        np.array([float(r["step"]) for r in rows]), np.array([x["before"] for x in rl], dtype=float),
        np.array([x["after"] for x in rl], dtype=float), tuple(rl[0]["budgets"]),
        np.array([names.index(r["ladder"]) for r in rows]),
    )  # fmt: skip


def rank_correlations(values: Float[ndarray, "n R"], target: Float[ndarray, " n"]) -> Float[ndarray, " R"]:
    """Spearman of each column with the target; NaN for a constant column."""
    from scipy.stats import rankdata

    a, b = rankdata(values, axis=0) - (len(values) + 1) / 2, rankdata(target) - (len(target) + 1) / 2
    norm = np.sqrt((a * a).sum(0) * (b @ b))
    return np.divide(b @ a, norm, out=np.full(a.shape[1], np.nan), where=norm > 0)


def standardise(values: Float[ndarray, "n R"]) -> Float[ndarray, "n R"]:
    """z-score of each column, 0 for a constant one."""
    centred = values - values.mean(0)
    spread = centred.std(0)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def correlations(t: Table) -> dict[str, Float[ndarray, "L R"]]:
    """Per ladder and reading: Spearman of P with the gain, of z(R) + z(P) and of P with R_after, regret, affine R².

    affine: R² of the gain explained by a + b·P, both fitted (the paper's affine map). All NaN for a constant P.
    """
    found: dict[str, list[ndarray]] = {name: [] for name in SCORES}
    for rows in t.ladders:
        p, gain, after = t.score[rows], t.gain[rows], t.after[rows].mean(1)
        z = standardise(p)
        found["gain"].append(rank_correlations(p, gain))
        found["combined"].append(rank_correlations(z + standardise(t.before[rows, None]), after))
        found["after"].append(rank_correlations(p, after))
        found["regret"].append(np.array([regret(column, gain) for column in p.T]))
        fit = (z.T @ standardise(gain[:, None])[:, 0] / len(rows)) ** 2
        found["affine"].append(fit)
        for values in found.values():  # a P_gap that is the same everywhere chooses nothing and adds nothing
            values[-1] = np.where(np.isfinite(found["gain"][-1]), values[-1], np.nan)
    return {name: np.stack(values) for name, values in found.items()}


def named(settings: ReadingSettings) -> list[Reading]:
    """The default, §6 as written, each single departure from either, and every Λ with every H."""
    plain, found = Reading(), [Reading(), LITERAL]
    numbers = {"group": settings.groups, "alpha": settings.alphas}
    for base in (plain, LITERAL):
        for name, options in (CHOICES | numbers).items():
            allowed = [o for o in options if name != "state" or o in settings.states]
            found += [Reading(**{**asdict(base), name: option}) for option in allowed]
    found += [Reading(gap=g, headroom=h) for g in CHOICES["gap"] for h in CHOICES["headroom"]]  # type: ignore[arg-type]
    return list(dict.fromkeys(found))


def named_rows(t: Table, found: Mapping[str, ndarray], settings: ReadingSettings) -> list[Json]:
    """Scores of the named readings, each a mean over ladders with an interval, and the ladders' own correlations."""
    key = {(r.signal_key, r.gap_key, r.headroom_key): i for i, r in enumerate(t.readings)}
    rows = []
    for r in named(settings):
        i = key[r.signal_key, r.gap_key, r.headroom_key]
        each = [None if not np.isfinite(x) else round(float(x), 4) for x in found["gain"][:, i]]
        negative = float(np.mean(t.signal[:, i] < t.gap[:, i]))
        scores = {name: across(found[name][:, i].tolist()) for name in SCORES}
        rows.append({"label": r.label, "options": asdict(r), "ladders": each, "negative": negative, **scores})
    return rows


def spread(t: Table, found: Mapping[str, ndarray]) -> Json:
    """Mean Spearman over ladders of all readings at once: how many, how they lie, which choice moves them."""
    mean, combined = found["gain"].mean(0), found["combined"].mean(0)
    defined = np.isfinite(mean)
    x, alone = mean[defined], _alone(t)["after"]
    low, high = np.nanmin(found["gain"][:, defined], 0), np.nanmax(found["gain"][:, defined], 0)
    best, worst = (int(f(np.where(defined, mean, other))) for f, other in ((np.argmax, -9), (np.argmin, 9)))
    return {
        "readings": len(mean),
        "undefined": int(np.sum(~defined)),
        "quantiles": {f"{q:g}": float(np.quantile(x, q)) for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)},
        "positive": float(np.mean(x > 0)),
        "positive_everywhere": float(np.mean(low > 0)),
        "negative_everywhere": float(np.mean(high < 0)),
        "at_least_paper": float(np.mean(x >= 0.6)),
        "combined_beats_reward": float(np.mean(combined[defined] > float(np.mean(alone)))),
        "combined_at_least_paper": float(np.mean(combined[defined] >= 0.73)),
        "best": {"label": t.readings[best].label, "gain": across(found["gain"][:, best].tolist())},
        "worst": {"label": t.readings[worst].label, "gain": across(found["gain"][:, worst].tolist())},
        "choices": choices(t.readings, mean),
    }


def choices(readings: Sequence[Reading], mean: Float[ndarray, " R"]) -> Json:
    """Share of the variance of the mean Spearman that each choice explains alone, and the mean under each option.

    Over the balanced table of the sampled reward with a group baseline; the rest is interaction.
    """
    rows = [i for i, r in enumerate(readings) if r.reward == "sampled" and r.advantage != "detached"]
    rows = [i for i in rows if np.isfinite(mean[i])]
    if not rows:
        return {}
    x = mean[rows]
    total = float(((x - x.mean()) ** 2).sum())
    out: Json = {}
    for name in FACTORS:
        values = [getattr(readings[i], name) for i in rows]
        options = {o: float(x[[v == o for v in values]].mean()) for o in dict.fromkeys(values)}
        between = sum((options[v] - float(x.mean())) ** 2 for v in values)
        out[name] = {
            "share": between / total if total > 0 else None,
            "options": {str(k): v for k, v in options.items()},
        }
    return out


def _alone(t: Table) -> dict[str, list[float]]:
    """Spearman of the reward before RL with the gain and with the reward after, per ladder."""
    return {
        "gain": [spearman(t.before[rows], t.gain[rows]) for rows in t.ladders],
        "after": [spearman(t.before[rows], t.after[rows].mean(1)) for rows in t.ladders],
    }


def experiment(t: Table) -> Json:
    """What the paper's Figs. 3 and 5 show beside P_gap: budgets, components along pretraining, reward after RL."""
    plain = t.readings.index(Reading())
    gains = [(t.after - t.before[:, None])[rows] for rows in t.ladders]
    pairs = list(combinations(range(len(t.budgets)), 2))
    agreement = [min(spearman(g[:, i], g[:, j]) for i, j in pairs) for g in gains] if pairs else []
    rooms = [t.headroom[rows, plain] for rows in t.ladders]
    parts = {"signal": t.signal, "gap": t.gap, "headroom": t.headroom}
    return {
        "budgets": list(t.budgets),
        "agreement": across(agreement),
        "gain_at": [across([float(g[:, k].mean()) for g in gains]) for k in range(len(t.budgets))],
        "spread_at": [across([float(t.after[rows, k].std()) for rows in t.ladders]) for k in range(len(t.budgets))],
        "with_step": {
            name: across([spearman(t.step[rows], x[rows, plain]) for rows in t.ladders]) for name, x in parts.items()
        },
        "headroom_ends": {
            end: across([float(h[i] / h.max()) for h in rooms]) for end, i in (("first", 0), ("last", -1))
        },
        "headroom_top": across([float(t.before[rows][h.argmax()]) for rows, h in zip(t.ladders, rooms, strict=True)]),
        "reward_alone": {name: across(values) for name, values in _alone(t).items()},
        "after_fit": {name: across(values) for name, values in after_fits(t, plain).items()},
    }


def after_fits(t: Table, plain: int) -> dict[str, list[float]]:
    """R² of the reward after RL per ladder: R + a + b·P (the paper's), R + a, and a + b·R, coefficients fitted."""
    found: dict[str, list[float]] = {"paper": [], "shift": [], "line": []}
    for rows in t.ladders:
        after, before, p = t.after[rows].mean(1), t.before[rows], t.score[rows, plain]
        total, one = float(((after - after.mean()) ** 2).sum()), np.ones(len(rows))
        for name, target, design in (
            ("paper", after - before, np.stack([one, standardise(p[:, None])[:, 0]], 1)),
            ("shift", after - before, one[:, None]),
            ("line", after, np.stack([one, before], 1)),
        ):
            left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
            found[name].append(1 - float(left @ left) / total)
    return found


def entropy_bound(records: Sequence[Mapping[str, Any]], group: int = 8) -> Json:
    """Fig. 2: the softmax Jacobian's norm against its entropy over all prompts, and the costate's own error.

    error: |κ_n(p) − 1| = ‖E[λ̂|h] − G‖/‖G‖ under standardised advantages; without the division it is 1/n, and 0 with
    leave-one-out, at any entropy.
    """
    columns = {k: np.concatenate([r["prompts"][k] for r in records]) for k in ("success", "entropy", "covariance_norm")}
    entropy, norm = columns["entropy"], columns["covariance_norm"]
    ladder = np.concatenate([[r["ladder"]] * len(r["prompts"]["success"]) for r in records])
    error = np.abs(grpo_scale(columns["success"].clip(0, 1), group) - 1)
    vocabulary = int(records[0]["prompts"]["vocabulary"])
    by = [ladder == name for name in dict.fromkeys(ladder.tolist())]
    usable = entropy > 0
    return {
        "points": len(entropy),
        "vocabulary": vocabulary,
        "above_paper": int(np.sum(norm > SOFTMAX_CONSTANT * np.sqrt(entropy) + CLOSED_FORM)),
        "above_sharp": int(np.sum(norm > sharp_entropy_bound(entropy) + CLOSED_FORM)),
        "smallest_constant": float(np.max(norm[usable] / np.sqrt(entropy[usable] / np.log(vocabulary)))),
        "slack": float(np.median(SOFTMAX_CONSTANT * np.sqrt(entropy[usable]) / norm[usable])),
        "norm_with_entropy": across([spearman(norm[i], entropy[i]) for i in by]),
        "error_with_entropy": across([spearman(error[i], entropy[i]) for i in by]),
    }


def summarise(head: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Json:
    """All scores, with what the records were made by; every number comes from the records."""
    settings, out = settings_of(head), {}
    for optimizer in sorted({name for r in records for name in r["rl"]}):
        t = table(head, records, optimizer)
        found = correlations(t)
        out[optimizer] = {
            "checkpoints": len(t.step),
            "named": named_rows(t, found, settings),
            "all": spread(t, found),
            "experiment": experiment(t),
        }
    return {
        "device": head["device"],
        "versions": head["versions"],
        "seed": head["seed"],
        "level": LEVEL,
        "ladders": list(dict.fromkeys(r["ladder"] for r in records)),
        "rl_seeds": max(x["seeds"] for r in records for x in r["rl"].values()),
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()},
        "optimizers": out,
        "entropy_bound": entropy_bound(records),
    }
