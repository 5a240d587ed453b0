# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · A ladder of checkpoints
#
# *From which pretraining checkpoint should RL start?* The paper answers with a score, the **impact**
# $P_{\rm gap} = (\Sigma-\Lambda)\,H_\alpha$: usable value-gradient signal times headroom. Here you pretrain a ladder of
# real (tiny) OLMo-2 checkpoints, measure each one before any RL, run GRPO from each, and see which numbers predicted the
# gain. One ladder shows how to ask; it proves nothing about models a thousand times larger.
#
# The cells reuse the run of `make reproduce` when it is there (then this page takes seconds). Without it they make a toy
# ladder that has learnt almost nothing, so that every cell runs; the pictures mean something only with the real one.
# Time: about 30 minutes. Ids such as **S22** are entries of the project's ledger.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _exercises import check, hint
from _sliders import Slider, explore

from vgrad_lab import impact
from vgrad_lab.experiments import embedded_ladder
from vgrad_lab.stats import spearman, spearman_interval

REAL = Path(os.environ.get("VGRAD_RUN", "../runs/embedded"))  # the folder of `make reproduce`
HAVE_REAL = (REAL / "report.html").exists()
RUN = REAL if HAVE_REAL else Path(os.environ.get("VGRAD_TOY_RUN", "../runs/tutorial"))
SETTINGS = embedded_ladder.SETTINGS if HAVE_REAL else embedded_ladder.TINY
print("using", "the real ladder" if HAVE_REAL else "a toy ladder (run `make reproduce` for the real one)")

# %% [markdown]
# ## 1 · The ladder
# `run` pretrains, measures, runs GRPO and writes a report; whatever is finished already is kept.

# %%
done = embedded_ladder.run(RUN, SETTINGS, progress=False)
print(embedded_ladder.describe(done).splitlines()[0])

# %% [markdown]
# ## 2 · A rung is an ordinary checkpoint
# Any `transformers` program can open it. Ask the last one to copy a label.

# %%
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import load_checkpoint

rungs = list_rungs(RUN / "ladder")
last = load_checkpoint(rungs[-1].path)
prompt = "Target label: B\nThe file is read once.\nTarget label:"
ids = last.tokenizer(prompt, return_tensors="pt").input_ids
probability = last.model(ids).logits[0, -1].softmax(-1)
for token in probability.topk(4).indices.tolist():
    print(f"{last.tokenizer.decode([token])!r:>8}  {probability[token].item():.3f}")

# %% [markdown]
# ## 3 · Measure it, before any RL
# One forward pass gives the value gradient $G=\partial p_{y^*}/\partial h$ at the head's input in closed form, and from
# it $\Sigma=\mathbb E\|G\|^2$, both readings of $\Lambda$, the headroom, and the trivial baselines; one backward pass
# gives $\|\nabla J\|$.

# %%
from vgrad_lab.checkpoints.probe import MeasureSettings, measure
from vgrad_lab.checkpoints.tasks import LabelCopy

m = measure(last, LabelCopy(), MeasureSettings(prompts=64))
for name in ("reward_before", "signal", "costate_gap_conditional", "costate_gap_per_sample", "alignment"):
    print(f"{name:<26}{m[name]:.5f}")

# %% [markdown]
# ## 4 · The reading of Λ decides the sign
# GRPO's mean costate is exactly $\kappa_n(p)\,G$: perfectly aligned, only rescaled. Read as a conditional mean,
# $\Lambda=|\kappa-1|\,\|G\|^2$ grows with the group size although nothing got worse (**S22**); read per sample, it is
# mostly sampling noise (**S23**). Turn the group size: the "usable" share changes its sign.


# %%
def usable_share(axis, n):
    """(Σ − Λ)/Σ over the success probability for groups of n; below the dashed line the paper's score is negative."""
    p = np.linspace(0.01, 0.99, 99)
    axis.plot(p, 1 - np.abs(impact.grpo_scale(p, int(n)) - 1), color="#0072B2", label="standardised (GRPO)")
    mean = impact.grpo_scale(p, int(n), baseline="group_mean")
    axis.plot(p, 1 - np.abs(mean - 1), "--", color="#E69F00", label="group mean, not divided")
    axis.axhline(0, color="black", linewidth=0.8, linestyle="--")
    axis.set(xlabel="success probability p", ylabel="(Σ − Λ)/Σ", ylim=(-1.6, 1.1))
    axis.legend(fontsize=8, loc="lower center")


explore(usable_share, Slider("n", (2, 4, 8, 16, 64)))

# %% [markdown]
# **Exercise 07.1** In groups of 8, at $p=\tfrac12$: what share of $\Sigma$ is left as $\Sigma-\Lambda$ (conditional, standardised)?

# %%
share_left = None  # ← a number

# %%
check("07.1", share_left)  # stuck? hint("07.1")

# %% [markdown]
# ## 5 · All rungs: what the run recorded

# %%
from vgrad_lab.checkpoints.store import read_records

records = [r for r in read_records(RUN).values() if r["status"] == "done"]
measured = sorted((r for r in records if r["stage"] == "measure"), key=lambda r: r["checkpoint"]["step"])
steps = np.array([r["checkpoint"]["step"] for r in measured])
column = {key: np.array([r["result"][key] for r in measured]) for key in m if isinstance(m[key], float)}
adamw = [r for r in records if r["stage"] == "rl" and r["settings"]["optimizer"] == "adamw"]
gain = np.array([np.mean([r["result"]["gain_mean"] for r in adamw if r["checkpoint"]["step"] == s]) for s in steps])
print(f"{len(steps)} rungs, R_before {column['reward_before'].min():.3f} … {column['reward_before'].max():.3f}")

# %% [markdown]
# ## 6 · The gain along pretraining

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(steps, column["reward_before"], "-o", color="#0072B2", markersize=4, label="before RL")
axes[0].plot(steps, column["reward_before"] + gain, "--s", color="#D55E00", markersize=4, label="after RL")
axes[0].set(xlabel="pretraining step", ylabel="mean reward")
axes[0].legend()
axes[1].plot(steps, gain, "-^", color="#009E73", markersize=4)
axes[1].set(xlabel="pretraining step", ylabel="gain, mean over budgets")
plt.show()

# %% [markdown]
# ## 7 · What predicted it
# Rank correlation with the gain, with a 90 % bootstrap interval over checkpoints. The trivial baselines belong in the
# same table as the theory.

# %%
predictors = {
    "P_gap, Λ conditional": (column["signal"] - column["costate_gap_conditional"]) * column["headroom_within"],
    "P_gap, Λ per sample": (column["signal"] - column["costate_gap_per_sample"]) * column["headroom_within"],
    "Σ·H": column["signal"] * column["headroom_within"],
    "H alone": column["headroom_within"],
    "R_before": column["reward_before"],
    "R(1−R)": column["reward_before"] * (1 - column["reward_before"]),
    "‖∇J‖₁(1−R)": column["gradient_l1"] * (1 - column["reward_before"]),
}
for name, value in predictors.items():
    interval = spearman_interval(value, gain, resamples=500)
    print(f"{name:<24}{interval.value:+.2f}  [{interval.low:+.2f}, {interval.high:+.2f}]")

# %% [markdown]
# ## 8 · The same score, read every way
# §6 leaves open what $R$, $\hat A$, $\Lambda$, $H_\alpha$, $\alpha$, $n$, the sampled tokens and the state $h$ are. Each
# choice is a named option; one pass over the prompts gives $P_{\rm gap}$ under all combinations (`vgrad readings PATH --all`).

# %%
from vgrad_lab.checkpoints.reading_options import CHOICES, Reading, ReadingSettings, every
from vgrad_lab.checkpoints.readings import measure_readings

for option, meaning in CHOICES["gap"].items():
    print(f"Λ {option:<12} {meaning}")

settings = ReadingSettings(states=("head", "last"), groups=(8,), alphas=(1.0, 5.0), prompts=64, sampled_groups=16)
found = [measure_readings(load_checkpoint(rung.path), LabelCopy(), settings) for rung in rungs]


def rank_with_gain(reading):
    """Spearman of P_gap under a reading with the gain; NaN where P_gap is the same at every rung."""
    return spearman(np.array([f.score(reading) for f in found]), gain)


print(f"{'':<14}" + "".join(f"{'H over ' + h:>16}" for h in CHOICES["headroom"]))
for gap in CHOICES["gap"]:
    row = [rank_with_gain(Reading(gap=gap, headroom=h)) for h in CHOICES["headroom"]]
    print(f"Λ {gap:<12}" + "".join(f"{value:>+16.2f}" for value in row))

# %% [markdown]
# All of them at once. Readings that are the same number by algebra are counted once; a reward that the whole group shares
# (§6 as written) makes $\hat A=0$ and ranks nothing (**S27**).

# %%
readings = every(settings)
ranks = np.array([rank_with_gain(r) for r in readings])
defined = np.isfinite(ranks)
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
by_gap = [ranks[defined & np.array([r.gap == gap for r in readings])] for gap in CHOICES["gap"]]
colours = ("#0072B2", "#E69F00", "#009E73")
axis.hist(by_gap, bins=np.linspace(-1, 1, 41), stacked=True, color=colours, label=[f"Λ {g}" for g in CHOICES["gap"]])
axis.axvline(0.6, color="black", linestyle="--", linewidth=0.8, label="the paper: 0.60")
axis.set(xlabel="Spearman of P_gap with the gain", ylabel="readings")
axis.legend(fontsize=8)
plt.show()
print(
    f"{len(readings)} readings, {np.sum(~defined)} of them rank nothing; {np.mean(ranks[defined] > 0):.0%} rank positively"
)

# %% [markdown]
# Even $\alpha$, which the paper does not give, can turn the order round: with small $\alpha$ a half-right policy has the
# larger headroom, with large $\alpha$ a weak one (**S25**).
#
# **Exercise 07.2** From which $\alpha$ on does $p=0.05$ have more headroom than $p=0.5$? (Two percent off is fine.)

# %%
from_alpha = None  # ← a number

# %%
check("07.2", from_alpha)  # stuck? hint("07.2")

# %% [markdown]
# ## 9 · What the ranking buys
# A score is bought for one decision: where to start. What it is worth is the gain of *its* choice, beside the best
# choice, a blind one (the mean over rungs), and the last checkpoint, which people take by default.

# %%
scores = {
    **predictors,
    "P_gap, §6 as written": np.array([f.score(Reading(gap="per_sample", headroom="prompts")) for f in found]),
}
scores["the last checkpoint"] = steps.astype(float)
chosen = {name: gain[int(np.argmax(value))] for name, value in scores.items()}
figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
axis.barh(list(chosen), list(chosen.values()), color="#0072B2")
axis.axvline(gain.max(), color="#D55E00", linestyle="--", label="best choice")
axis.axvline(gain.mean(), color="black", linestyle=":", label="a blind choice, on average")
axis.set(xlabel="mean gain by RL from the checkpoint that the score chooses")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# **Exercise 07.3** Write the **regret** of a score: the gain that its choice leaves behind.


# %%
def left_behind(score, gain):
    return None  # ← one line


# %%
if check("07.3", left_behind):
    for name, value in sorted(scores.items(), key=lambda item: left_behind(item[1], gain)):
        print(f"{name:<24}{left_behind(value, gain):.3f}")
else:
    hint("07.3")

# %% [markdown]
# ## 10 · Forecast the curve itself
# The free-logit flow turns one backward pass into a forecast of the whole reward curve (ledger S26.forecast): no RL step
# is taken, and one constant is used for all rungs.

# %%
rate, budgets = adamw[0]["result"]["learning_rate"], adamw[0]["result"]["budgets"]
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
colours = ("#0072B2", "#E69F00", "#009E73", "#D55E00")
for i, colour in zip(np.linspace(0, len(steps) - 1, 4).astype(int), colours, strict=True):
    curve = impact.forecast(
        float(column["reward_before"][i]),
        float(column["gradient_l1"][i]),
        optimizer="adamw",
        learning_rate=rate,
        group_size=8,
        updates=budgets[-1],
    )
    runs = [r["result"]["reward_after"] for r in adamw if r["checkpoint"]["step"] == steps[i]]
    axis.plot(curve, "--", color=colour, label=f"step {steps[i]}")
    axis.plot([0, *budgets], [column["reward_before"][i], *np.mean(runs, axis=0)], "o", color=colour, markersize=4)
axis.set(xlabel="GRPO updates", ylabel="mean reward", title="dashed: forecast · dots: measured")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 11 · Free play: a better product
# Write a predictor from the measured columns and see whether it beats `‖∇J‖₁(1−R)` in rank. The cell runs as it stands.

# %%
mine = column["success_variance"] * column["gradient_l2_squared"]  # ← change this line

own, rival = spearman(mine, gain), spearman(predictors["‖∇J‖₁(1−R)"], gain)
print(f"yours {own:+.2f}, ‖∇J‖₁(1−R) {rival:+.2f}:", "well done" if own > rival else "not yet")

# %% [markdown]
# ## 12 · What may be concluded
# One ladder, one tiny task. Ladders from other pretraining seeds move these correlations by about 0.15 either way, far
# more than GRPO seeds do, so replicate over `vgrad reproduce --seed 1 --out …` before believing a ranking, and always
# print the trivial baselines beside the theory. The same readings on four ladders, with intervals, and every figure of the
# paper with its verdict: `docs/reproduce.md`. The forecast that replaces the score is tutorial 08.

# %%
print("report:", done["report"].replace(str(RUN), "<run>"))
