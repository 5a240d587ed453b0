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
# # 07 · A ladder of checkpoints in ten cells
#
# *From which pretraining checkpoint should RL start?* The paper answers with a score, the **impact**
# $P_{\rm gap} = (\Sigma-\Lambda)\,H_\alpha$: usable value-gradient signal times headroom. Here you pretrain a ladder of
# real (tiny) OLMo-2 checkpoints, measure each one before any RL, run GRPO from each, and see which numbers predicted the
# gain. One ladder shows how to ask; it proves nothing about models a thousand times larger.
#
# The cells reuse the run of `make reproduce` when it is there (then this page takes seconds). Without it they make a toy
# ladder that has learnt almost nothing, so that every cell runs; the pictures mean something only with the real one.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

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
# $\Lambda=|\kappa-1|\,\|G\|^2$ grows with the group size although nothing got worse (ledger S22); read per sample, it is
# mostly sampling noise (S23).

# %%
p = np.linspace(0.01, 0.99, 99)
figure, axis = plt.subplots(figsize=(6, 3))
for n, colour, style in ((4, "#0072B2", "-"), (8, "#E69F00", "--"), (64, "#009E73", ":")):
    axis.plot(p, 1 - np.abs(impact.grpo_scale(p, n) - 1), style, color=colour, label=f"group of {n}")
axis.axhline(0, color="black", linewidth=0.8)
axis.set(xlabel="success probability p", ylabel="(Σ − Λ)/Σ", title="'usable' share at perfect alignment")
axis.legend()
plt.show()

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
# ## 8 · Forecast the curve itself
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
# ## 9 · Exercise: a better product
# Write a predictor from the measured columns and see whether it beats `‖∇J‖₁(1−R)` in rank. The cell runs as it stands.

# %%
mine = column["success_variance"] * column["gradient_l2_squared"]  # ← change this line

own, rival = spearman(mine, gain), spearman(predictors["‖∇J‖₁(1−R)"], gain)
print(f"yours {own:+.2f}, ‖∇J‖₁(1−R) {rival:+.2f}:", "well done" if own > rival else "not yet")

# %% [markdown]
# ## 10 · What may be concluded
# One ladder, one tiny task. Ladders from other pretraining seeds move these correlations by about 0.15 either way, far
# more than GRPO seeds do, so replicate over `vgrad reproduce --seed 1 --out …` before believing a ranking, and always
# print the trivial baselines beside the theory.

# %%
print("report:", done["report"].replace(str(RUN), "<run>"))
